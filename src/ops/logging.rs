//! One line per record: time, level, target, text, then key-values.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use log::kv::{self, Key, Value, VisitSource};

use crate::model::Micros;

/// Starts logging to standard error.
///
/// `default_filter` (such as `info,dispatcher=debug`) holds unless the environment's `RUST_LOG` says otherwise. A
/// second call changes nothing. Nothing is redacted here: what must not be shown has a type that cannot be.
pub fn init(default_filter: &str) {
    let environment = env_logger::Env::default().default_filter_or(default_filter);
    let started = env_logger::Builder::from_env(environment)
        .format(|out, record| writeln!(out, "{}", line(Micros::wall(), record)))
        .try_init();
    if started.is_err() {
        log::debug!("logging was started before; its settings stay");
    }
}

/// The line of one record. Control characters are shown escaped, so that no text from outside can make up a line.
fn line(at: Micros, record: &log::Record<'_>) -> String {
    let mut text = format!("{} {:<5} {} ", at.rfc3339(), record.level(), record.target());
    let mut out = OneLine(&mut text);
    // Writing into a string fails only where a value's own `Display` does; the rest of the line is still worth having.
    let _ = write!(out, "{}", record.args());
    let _ = record.key_values().visit(&mut Pairs(&mut out));
    text
}

struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() { self.0.extend(c.escape_default()) } else { self.0.push(c) }
        }
        Ok(())
    }
}

struct Pairs<'a, 'b>(&'a mut OneLine<'b>);

impl<'kvs> VisitSource<'kvs> for Pairs<'_, '_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        write!(self.0, " {key}={value}").map_err(kv::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::model::Micros;

    #[test]
    fn a_record_is_one_line_with_its_key_values() {
        let pairs: &[(&str, i64)] = &[("job", 7), ("agent", 9)];
        let text = line(
            Micros(1_357_680_562_733_000),
            &log::Record::builder()
                .level(log::Level::Warn)
                .target("dispatcher::jobs")
                .args(format_args!("job {} said \"a\nb\"", 7))
                .key_values(&pairs)
                .build(),
        );
        assert_eq!(
            text,
            "2013-01-08T21:29:22.733000Z WARN  dispatcher::jobs job 7 said \"a\\nb\" job=7 agent=9"
        );
    }
}
