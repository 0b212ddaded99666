//! What settings there are: names, words and defaults, taken from the sections' own structs.

use std::fmt::Write as _;

use documented::{Documented, DocumentedFields};
use serde::Serialize;

use super::{
    Config, Database, Janitor, Jobs, Keys, Km, Listen, Node, Pinger, Process, Queue, Simulated, Watching,
};

/// Longest line of the reference.
const WIDTH: usize = 120;

/// A section and its keys.
pub(super) struct Section {
    pub(super) name: &'static str,
    about: &'static str,
    pub(super) keys: &'static [&'static str],
    docs: &'static [&'static str],
    defaults: toml::Table,
}

fn section<S: Documented + DocumentedFields + Serialize>(name: &'static str, default: &S) -> Section {
    let defaults = toml::Table::try_from(default).unwrap_or_default();
    Section { name, about: S::DOCS, keys: S::FIELD_NAMES, docs: S::FIELD_DOCS, defaults }
}

impl Section {
    /// A text as a value of the type the key's default has: lists are divided by commas.
    pub(super) fn typed(&self, key: &str, text: &str) -> toml::Value {
        let as_text = || toml::Value::String(text.to_owned());
        match self.defaults.get(key) {
            Some(toml::Value::Integer(_)) => text.parse().map_or_else(|_| as_text(), toml::Value::Integer),
            Some(toml::Value::Boolean(_)) => text.parse().map_or_else(|_| as_text(), toml::Value::Boolean),
            Some(toml::Value::Array(_)) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                toml::Value::Array(parts.map(|part| toml::Value::String(part.to_owned())).collect())
            }
            // A number where nothing is the default.
            None => text.parse().map_or_else(|_| as_text(), toml::Value::Integer),
            Some(_) => as_text(),
        }
    }
}

/// Every section, in the order of the reference.
pub(super) fn sections() -> Vec<Section> {
    let all = Config::default();
    vec![
        section::<Process>("process", &all.process),
        section::<Listen>("listen", &all.listen),
        section::<Keys>("keys", &all.keys),
        section::<Database>("database", &all.database),
        section::<Node>("node", &all.node),
        section::<Jobs>("jobs", &all.jobs),
        section::<Watching>("monitor", &all.monitor),
        section::<Janitor>("janitor", &all.janitor),
        section::<Watching>("worker", &all.worker),
        section::<Pinger>("pinger", &all.pinger),
        section::<Simulated>("simulated", &all.simulated),
        section::<Km>("km", &all.km),
        section::<Queue>("queue", &all.queue),
    ]
}

/// All settings with their defaults and what they are for, as a settings file.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Settings of the dispatcher, all with their defaults. A file names only what differs; an unknown key is refused.\n\
         # Secrets are never settings: keys live in files of their own that only their owner can read.\n\
         # Made by \"dispatcher config reference\".\n",
    );
    for section in sections() {
        text.push('\n');
        let heading = format!("Section `[{}]`", section.name);
        let about =
            section.about.strip_prefix(&heading).unwrap_or(section.about).trim_start_matches([':', '.', ' ']);
        comment(&mut text, about);
        let _ = writeln!(text, "[{}]", section.name);
        for (key, docs) in section.keys.iter().zip(section.docs) {
            comment(&mut text, docs);
            // Writing to a text cannot fail.
            let _ = match section.defaults.get(*key) {
                Some(value) => writeln!(text, "{key} = {value}"),
                None => writeln!(text, "# {key} ="),
            };
        }
    }
    text
}

/// Words as a comment, broken into lines.
fn comment(text: &mut String, words: &str) {
    if words.is_empty() {
        return;
    }
    let mut line = String::from("#");
    for word in words.replace('`', "").split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{reference, sections};

    #[test]
    fn the_shipped_file_is_the_reference() {
        let shipped = include_str!("../../config/dispatcher.toml");
        assert!(shipped == reference(), "make it anew: dispatcher config reference > config/dispatcher.toml");
    }

    #[test]
    fn every_setting_that_the_page_names_exists() {
        let page = include_str!("../../docs/configuration.md");
        let sections = sections();
        let mut named = 0;
        for word in page.split('`').skip(1).step_by(2) {
            let Some((section, key)) = word.split_once('.') else { continue };
            let Some(section) = sections.iter().find(|known| known.name == section) else { continue };
            assert!(section.keys.contains(&key), "{word} is no setting");
            named += 1;
        }
        assert!(named > 15, "only {named} settings are named");
    }

    #[test]
    fn every_key_is_described() {
        for section in sections() {
            for (key, docs) in section.keys.iter().zip(section.docs) {
                assert!(docs.len() > 10, "{}.{key} is not described", section.name);
            }
        }
    }
}
