//! What was wrong with a form, field by field, in words that name no field of the API.

use super::forms::{self, SENT_BEFORE};
use super::words;
use crate::web::rest::Problem;

/// Faults of a form that is shown again.
#[derive(Debug, Default)]
pub(super) struct Said {
    fields: Vec<(String, String)>,
    /// What belongs to no field; empty when there is nothing.
    pub(super) whole: String,
}

impl Said {
    /// The faults of a problem. Those of fields that `known` does not name are said about the whole form.
    pub(super) fn of(problem: &Problem, known: &[&str]) -> Self {
        if forms::sent_before(problem) {
            return Self { fields: Vec::new(), whole: SENT_BEFORE.to_owned() };
        }
        let mut said = Self::default();
        for (field, text) in problem.faults() {
            let name = field.strip_prefix("params.").unwrap_or(field);
            if known.contains(&name) {
                said.fields.push((name.to_owned(), for_people(field, text)));
            }
        }
        if said.fields.is_empty() {
            said.whole = words::plain(problem.detail());
        }
        said
    }

    /// What is said about a field; empty when it is well.
    pub(super) fn at(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| name == field).map_or("", |(_, text)| text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.whole.is_empty()
    }

    /// How many fields are at fault, as a sentence for the head of the form.
    pub(super) fn count(&self) -> String {
        match self.fields.len() {
            0 => String::new(),
            1 => "Nothing was submitted: 1 field needs another look.".to_owned(),
            n => format!("Nothing was submitted: {n} fields need another look."),
        }
    }
}

fn for_people(field: &str, text: &str) -> String {
    let text = text.replace(&format!("field {field}"), "this").replace(&format!(" in {field}"), "");
    let text = words::plain(&text.replace(field, "this"));
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::Said;
    use crate::web::rest::Problem;

    #[test]
    fn a_fault_stands_at_its_field_and_reads_as_a_sentence() {
        let problem = Problem::field("params.name", "field params.name is missing or empty").and(
            &Problem::field("params.image", "params.image is missing and there are several: a, b; name one"),
        );
        let said = Said::of(&problem, &["name", "image"]);
        assert_eq!(said.at("name"), "This is missing or empty");
        assert!(said.at("image").starts_with("This is missing and there are several"), "{said:?}");
        assert!(said.whole.is_empty() && said.count().contains("2 fields"));
        let other = Said::of(&Problem::field("params.budget", "no such budget"), &["name"]);
        assert_eq!((other.whole.as_str(), other.at("budget")), ("no such budget", ""));
    }
}
