//! Reading JSON objects and queries field by field: what is wrong is named, and so is what was probably meant.

use serde_json::{Map, Value};

use super::Problem;
pub(super) use crate::model::nearest;

/// Longest list of names in a message.
const NAMED: usize = 12;

/// Fields of an object that were not read yet.
pub(super) struct Fields {
    path: &'static str,
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of a JSON object; `path` is put before their names in messages, such as `params.`.
    pub(super) fn of(value: Value, path: &'static str) -> Result<Self, Problem> {
        match value {
            Value::Object(left) => Ok(Self { path, left, known: Vec::new() }),
            other => {
                let name = path.trim_end_matches('.');
                Err(Problem::field(
                    name,
                    format!("{} must be a JSON object, not {}", thing(name), kind(&other)),
                ))
            }
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, text: &str) -> Problem {
        let name = format!("{}{name}", self.path);
        Problem::field(name.clone(), format!("field {name} {text}"))
    }

    pub(super) fn value(&mut self, name: &'static str) -> Option<Value> {
        self.take(name)
    }

    pub(super) fn text(&mut self, name: &'static str, longest: usize) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= longest => Ok(Some(text)),
            Some(Value::String(text)) => {
                Err(self.wrong(name, &format!("has {} bytes; at most {longest} are taken", text.len())))
            }
            Some(other) => Err(self.wrong(name, &format!("must be a text, not {}", kind(&other)))),
        }
    }

    pub(super) fn needed_text(&mut self, name: &'static str, longest: usize) -> Result<String, Problem> {
        match self.text(name, longest)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.wrong(name, "is missing or empty")),
        }
    }

    pub(super) fn integer(
        &mut self,
        name: &'static str,
        least: i64,
        most: i64,
    ) -> Result<Option<i64>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64().filter(|n| (least..=most).contains(n)) {
            Some(n) => Ok(Some(n)),
            None => {
                let found = value.to_string().chars().take(40).collect::<String>();
                Err(self.wrong(name, &format!("must be a whole number from {least} to {most}, not {found}")))
            }
        }
    }

    pub(super) fn needed_integer(
        &mut self,
        name: &'static str,
        least: i64,
        most: i64,
    ) -> Result<i64, Problem> {
        self.integer(name, least, most)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// A list of texts, with limits of its length and of all bytes together.
    pub(super) fn texts(
        &mut self,
        name: &'static str,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<String>, Problem> {
        let text = format!("must be a list of 1 to {most} texts with {bytes} bytes together");
        let Some(Value::Array(values)) = self.take(name) else { return Err(self.wrong(name, &text)) };
        let texts: Option<Vec<String>> = values.into_iter().map(|v| v.as_str().map(str::to_owned)).collect();
        texts
            .filter(|texts| (1..=most).contains(&texts.len()))
            .filter(|texts| texts.iter().map(String::len).sum::<usize>() <= bytes)
            .ok_or_else(|| self.wrong(name, &text))
    }

    /// A thing named by its number or by a name.
    pub(super) fn named(&mut self, name: &'static str) -> Result<Option<Named>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(n)) if n.is_i64() => Ok(n.as_i64().map(Named::Id)),
            Some(Value::String(text)) if (1..=255).contains(&text.len()) => Ok(Some(Named::Text(text))),
            Some(_) => Err(self.wrong(name, "must be a number or a name of 1 to 255 bytes")),
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn end(self) -> Result<(), Problem> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let shown: String = name.chars().take(64).collect();
        let full = format!("{}{shown}", self.path);
        let hint = nearest(&shown, &self.known)
            .map(|known| format!("did you mean {}{known}?", self.path))
            .unwrap_or_else(|| format!("known are {}", self.known.join(", ")));
        Err(Problem::field(full.clone(), format!("field {full} is not known; {hint}")))
    }
}

/// A thing named by its number or by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Id(i64),
    Text(String),
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

impl Named {
    /// Whether it is this thing. A name of digits may be a number.
    pub(super) fn is(&self, id: i64, names: &[&str]) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Text(text) => names.contains(&text.as_str()) || text.parse() == Ok(id),
        }
    }
}

/// Names for a message, cut when there are many.
pub(super) fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn thing(name: &str) -> &str {
    if name.is_empty() { "the body" } else { name }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, Named, list, nearest};
    use serde_json::json;

    #[test]
    fn what_is_unknown_is_named_with_what_was_meant() {
        for (typo, meant) in [("dataCentre", "dataCenter"), ("data_center", "dataCenter"), ("nam", "name")] {
            let mut fields = Fields::of(json!({ typo: 1 }), "params.").expect("an object");
            for known in ["name", "dataCenter", "image"] {
                assert_eq!(fields.value(known), None);
            }
            let problem = fields.end().expect_err("unknown");
            assert_eq!(problem.at_fault(), Some(format!("params.{typo}").as_str()));
            assert!(
                problem.detail().contains(&format!("did you mean params.{meant}?")),
                "{}",
                problem.detail()
            );
        }
        assert_eq!(nearest("zzzzzz", &["name", "image"]), None);
    }

    #[test]
    fn values_have_kinds_and_limits() {
        let object = json!({"a": "xyz", "b": 7, "c": ["x", 1], "d": true, "e": null, "f": 7.5});
        let mut fields = Fields::of(object, "").expect("an object");
        assert!(fields.text("a", 2).expect_err("long").detail().contains("at most 2"));
        assert!(fields.integer("b", 8, 9).expect_err("small").detail().contains("from 8 to 9, not 7"));
        assert!(fields.texts("c", 3, 100).is_err());
        assert!(fields.text("d", 9).expect_err("a flag").detail().contains("not true or false"));
        assert_eq!(fields.named("e").expect("nothing"), None);
        assert!(fields.named("f").is_err());
        assert!(fields.needed_text("g", 9).expect_err("missing").detail().contains("field g is missing"));
        assert!(fields.end().is_ok());
        assert!(
            Fields::of(json!([]), "")
                .err()
                .expect("a list")
                .detail()
                .contains("the body must be a JSON object")
        );
    }

    #[test]
    fn things_are_named_by_number_or_name() {
        assert!(Named::Id(7).is(7, &[]) && Named::Text("7".into()).is(7, &[]));
        assert!(
            Named::Text("small".into()).is(7, &["Small", "small"]) && !Named::Text("x".into()).is(7, &["y"])
        );
        let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert!(list(names.iter().map(String::as_str)).ends_with("11 and 8 more"));
    }
}
