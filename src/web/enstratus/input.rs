//! Values of a body with their paths, so that every refusal names the field, the value and the remedy.

use serde_json::Value;

use super::super::Fault;

/// One value of a body.
#[derive(Clone, Debug)]
pub(super) struct Input<'a> {
    path: String,
    value: &'a Value,
}

const ABSENT: &Value = &Value::Null;

impl<'a> Input<'a> {
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    /// Where it stands, such as `launch[0].machineImage.machineImageId`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// A field of it; absent when this is no object or has no such field.
    pub(super) fn at(&self, name: &str) -> Self {
        Self { path: format!("{}.{name}", self.path), value: self.value.get(name).unwrap_or(ABSENT) }
    }

    /// Absent or null.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// The value, if it is there.
    pub(super) fn some(self) -> Option<Self> {
        (!self.is_absent()).then_some(self)
    }

    /// 400 about this value.
    pub(super) fn refuse(&self, why: &str) -> Fault {
        if self.is_absent() {
            return Fault::bad(format!("{}: missing; {why}", self.path));
        }
        let shown: String = self.value.to_string().chars().take(80).collect();
        Fault::bad(format!("{}: {shown}: {why}", self.path))
    }

    /// A number that names something. Command line clients send numbers as text.
    pub(super) fn id(&self) -> Result<i64, Fault> {
        let id = match self.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        id.filter(|id| *id >= 0).ok_or_else(|| self.refuse("give a whole number"))
    }

    /// A finite amount that is not negative, as a number or as text.
    pub(super) fn amount(&self) -> Result<f64, Fault> {
        let amount = match self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        amount
            .filter(|amount: &f64| amount.is_finite() && (0.0..1e15).contains(amount))
            .ok_or_else(|| self.refuse("give an amount of 0 or more"))
    }

    /// Text on one line, neither empty nor longer than so many characters.
    pub(super) fn line(&self, most: usize) -> Result<String, Fault> {
        let text = self.text(most)?;
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            return Err(self.refuse("give text on one line, not empty"));
        }
        Ok(text)
    }

    /// Any text of at most so many characters. Absent counts as empty.
    pub(super) fn text_or_empty(&self, most: usize) -> Result<String, Fault> {
        if self.is_absent() { Ok(String::new()) } else { self.text(most) }
    }

    /// Text of at most so many characters. A number is taken as its digits.
    pub(super) fn text(&self, most: usize) -> Result<String, Fault> {
        let text = match self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.refuse("give text")),
        };
        if text.chars().count() > most {
            return Err(self.refuse(&format!("give at most {most} characters")));
        }
        Ok(text)
    }

    /// The members of a list of at most so many.
    pub(super) fn items(&self, most: usize) -> Result<Vec<Self>, Fault> {
        let Value::Array(list) = self.value else { return Err(self.refuse("give a list")) };
        if list.len() > most {
            return Err(Fault::bad(format!(
                "{}: {} members; at most {most} are taken",
                self.path,
                list.len()
            )));
        }
        let member = |(n, value)| Self { path: format!("{}[{n}]", self.path), value };
        Ok(list.iter().enumerate().map(member).collect())
    }
}

/// Finds which of the known verbs a body asks for: `{"launch": [{…}]}` or `{"launch": {…}}`. Fields beside it are
/// ignored.
pub(super) fn verb_of<'a>(
    body: &'a Value,
    known: &[&'static str],
) -> Result<(&'static str, String, &'a Value), Fault> {
    let names = known.join(", ");
    let Value::Object(fields) = body else {
        return Err(Fault::bad(format!("the body must be a JSON object with one of: {names}")));
    };
    let mut found = known.iter().filter_map(|verb| fields.get(*verb).map(|value| (*verb, value)));
    let Some((verb, value)) = found.next() else {
        let given: Vec<&str> = fields.keys().take(5).map(String::as_str).collect();
        let given: String = given.join(", ").chars().take(200).collect();
        return Err(Fault::bad(format!("the body asks for \"{given}\"; known here: {names}")));
    };
    if let Some((other, _)) = found.next() {
        return Err(Fault::bad(format!("the body asks for {verb} and {other}; send one of them")));
    }
    match value {
        Value::Array(list) => match list.as_slice() {
            [one] if one.is_object() => Ok((verb, format!("{verb}[0]"), one)),
            _ => Err(Fault::bad(format!("{verb}: give a list of exactly one object, not of {}", list.len()))),
        },
        Value::Object(_) => Ok((verb, verb.to_owned(), value)),
        _ => Err(Fault::bad(format!("{verb}: give a list of one object"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Input, verb_of};

    #[test]
    fn numbers_come_as_text_and_refusals_name_path_value_and_remedy() {
        let body = json!({"n": 7, "t": "8", "bad": "x9", "neg": -1, "frac": 1.5, "long": "abcd", "nl": "a\nb", "list": [1]});
        let at = |name: &str| Input::new("launch[0]", &body).at(name);
        assert_eq!(at("n").id().ok(), Some(7));
        assert_eq!(at("t").id().ok(), Some(8));
        assert_eq!(at("t").amount().ok(), Some(8.0));
        for (name, part) in
            [("bad", "launch[0].bad: \"x9\""), ("neg", "-1"), ("frac", "1.5"), ("gone", "missing")]
        {
            let message = at(name).id().expect_err(name).message().to_owned();
            assert!(message.contains(part) && message.contains("give a whole number"), "{message}");
        }
        assert!(at("long").text(3).expect_err("too long").message().contains("at most 3"));
        assert!(at("nl").line(9).is_err());
        assert_eq!(at("list").items(1).expect("one")[0].path(), "launch[0].list[0]");
        assert!(at("list").items(0).is_err());
    }

    #[test]
    fn one_verb_in_one_object() {
        let known = &["start", "stop"];
        let (verb, path, _) = verb_of(&json!({"start": [{}], "x": 1}), known)
            .map(|(v, p, b)| (v, p, b.clone()))
            .expect("a start");
        assert_eq!((verb, path.as_str()), ("start", "start[0]"));
        assert!(verb_of(&json!({"stop": {}}), known).is_ok());
        for bad in [
            json!([]),
            json!(1),
            json!({}),
            json!({"start": []}),
            json!({"start": [{}, {}]}),
            json!({"start": [1]}),
            json!({"start": 1}),
            json!({"start": [{}], "stop": [{}]}),
            json!({"launch": [{}]}),
        ] {
            assert!(verb_of(&bad, known).is_err(), "{bad} was taken");
        }
    }
}
