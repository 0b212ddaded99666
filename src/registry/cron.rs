//! When a schedule fires: cron expressions of five fields, in UTC.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::model::Micros;

/// Fields of an expression, as messages name them.
const FIELDS: &str = "minute hour day-of-month month day-of-week";

/// A cron expression, such as `0 3 * * MON-FRI`, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
#[derive(Clone, Debug)]
pub struct Cron(croner::Cron);

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if !text.trim_start().starts_with('@') && fields != 5 {
            let example = "write five fields in UTC, such as \"30 3 * * MON-FRI\", or @daily";
            return Err(format!("\"{text}\" has {fields} fields, not {FIELDS}; {example}"));
        }
        let cron = croner::Cron::from_str(text).map_err(|error| {
            let said = error.to_string();
            format!(
                "\"{text}\" is no cron expression ({}); its fields are {FIELDS}",
                said.trim_end_matches('.')
            )
        })?;
        Ok(Self(cron))
    }
}

impl Cron {
    /// The first time it fires after `at`; none where it never does.
    #[must_use]
    pub fn after(&self, at: Micros) -> Option<Micros> {
        let from: DateTime<Utc> = DateTime::from_timestamp_micros(at.0)?;
        let next = self.0.find_next_occurrence(&from, false).ok()?;
        Some(Micros(next.timestamp_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::Cron;
    use crate::model::Micros;

    fn after(cron: &str, at: &str) -> Option<String> {
        let at: chrono::DateTime<chrono::Utc> = at.parse().expect("a time");
        let next = cron.parse::<Cron>().expect(cron).after(Micros(at.timestamp_micros()));
        next.map(Micros::rfc3339)
    }

    #[test]
    fn the_next_time_is_strictly_later_and_in_utc() {
        for (cron, at, next) in [
            ("*/5 * * * *", "2026-11-22T13:00:00Z", "2026-11-22T13:05:00"),
            ("*/5 * * * *", "2026-11-22T12:59:59.9Z", "2026-11-22T13:00:00"),
            ("30 3 * * MON-FRI", "2026-11-20T03:30:00Z", "2026-11-23T03:30:00"),
            ("0 0 29 2 *", "2026-11-22T13:00:00Z", "2028-02-29T00:00:00"),
            ("@daily", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00"),
        ] {
            let found = after(cron, at).expect(cron);
            assert_eq!(found, format!("{next}.000000Z"), "{cron} after {at}");
        }
        assert_eq!(after("0 0 30 2 *", "2026-11-22T13:00:00Z"), None);
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_form_that_is_meant() {
        for (bad, said) in [
            ("", "has 0 fields"),
            ("* * * *", "has 4 fields"),
            ("0 * * * * *", "such as \"30 3 * * MON-FRI\""),
            ("61 * * * *", "no cron expression"),
            ("* * * FOO *", "no cron expression"),
            ("@fortnightly", "no cron expression"),
        ] {
            let refused = bad.parse::<Cron>().expect_err(bad);
            assert!(refused.contains(said) && refused.contains("day-of-month"), "{bad}: {refused}");
        }
    }
}
