//! From text to terms. Never fails without saying which part, and what to write instead.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use super::{Field, LONGEST, Query, TERMS, Term, Test, VALUES};
use crate::model::nearest;

/// Why a text is no query: the part at fault and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// The field named, if one was.
    pub field: Option<String>,
    /// The value at fault, or the whole term.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => {
                write!(f, "\"{}\" cannot be searched for in field {field}; {}", self.value, self.remedy)
            }
            None => write!(f, "\"{}\" cannot be searched for; {}", self.value, self.remedy),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Refused {
    pub(super) fn value(field: Field, value: &str, remedy: &str) -> Self {
        Self { field: Some(field.as_str().to_owned()), value: cut(value), remedy: remedy.to_owned() }
    }

    fn term(value: &str, remedy: impl Into<String>) -> Self {
        Self { field: None, value: cut(value), remedy: remedy.into() }
    }

    fn field(name: &str, values: &[String]) -> Self {
        let known: Vec<&str> = Field::ALL.iter().map(|field| field.as_str()).collect();
        let remedy = match nearest(name, &known) {
            Some(meant) => format!("there is no field {}; did you mean {meant}?", cut(name)),
            None => format!("there is no field {}; known are {}", cut(name), known.join(", ")),
        };
        Self { field: Some(cut(name)), value: cut(&values.join(",")), remedy }
    }
}

/// Whether a value needs no quotes.
pub(super) fn is_bare(value: &str, in_field: bool) -> bool {
    let special = |c: char| c.is_whitespace() || c == '"' || c == ',' || (c == ':' && !in_field);
    !value.is_empty() && !value.contains(special)
}

/// One term as written: parts between commas, and the field before the first colon.
struct Written {
    negated: bool,
    field: Option<String>,
    values: Vec<String>,
    quoted: bool,
}

pub(super) fn query(text: &str) -> Result<Query, Refused> {
    if text.len() > LONGEST {
        return Err(Refused::term(text, format!("a query has at most {LONGEST} bytes; shorten it")));
    }
    let mut chars = text.chars().peekable();
    let mut terms = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(Query { terms });
        }
        if terms.len() == TERMS {
            return Err(Refused::term(text, format!("a query has at most {TERMS} terms; take some away")));
        }
        terms.push(term(written(&mut chars)?)?);
    }
}

fn written(chars: &mut Peekable<Chars<'_>>) -> Result<Written, Refused> {
    let negated = chars.next_if_eq(&'-').is_some();
    let mut term = Written { negated, field: None, values: Vec::new(), quoted: false };
    let mut value = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
        match c {
            '"' => {
                term.quoted = true;
                quoted(chars, &mut value)?;
            }
            ':' if term.field.is_none() && term.values.is_empty() && !term.quoted => {
                term.field = Some(std::mem::take(&mut value));
            }
            ',' if term.field.is_some() => term.values.push(std::mem::take(&mut value)),
            c => value.push(c),
        }
    }
    term.values.push(value);
    Ok(term)
}

/// What stands between quotes; a backslash makes the next character an ordinary one.
fn quoted(chars: &mut Peekable<Chars<'_>>, value: &mut String) -> Result<(), Refused> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    Err(Refused::term(&format!("\"{value}"), "a quote is not closed; close it"))
}

fn term(written: Written) -> Result<Term, Refused> {
    let Written { negated, field, values, quoted } = written;
    if let Some(name) = field {
        let Some(field) = Field::named(&name) else { return Err(Refused::field(&name, &values)) };
        return Term::of(field, values).map(|term| Term { negated, ..term });
    }
    let text = values.concat();
    if text.is_empty() {
        return Err(Refused::term(
            if negated { "-" } else { "\"\"" },
            "write a field, a number or a text there",
        ));
    }
    let number = !quoted && text.bytes().all(|b| b.is_ascii_digit());
    let test = if number {
        let id = text.parse().ok().filter(|id| *id > 0);
        Test::Ids(vec![
            id.ok_or_else(|| Refused::term(&text, "it is no number of a job; give one from a list"))?,
        ])
    } else {
        Test::Text(text.clone())
    };
    Ok(Term { negated, field: None, values: vec![text], test })
}

impl Term {
    /// A term from a field and its values as written, commas between them.
    pub(super) fn read(field: Field, values: &str) -> Result<Self, Refused> {
        Self::of(field, values.split(',').map(str::to_owned).collect())
    }

    fn of(field: Field, values: Vec<String>) -> Result<Self, Refused> {
        if values.iter().any(String::is_empty) {
            let remedy = format!("a value is missing; write {}", field.hint());
            return Err(Refused::value(field, &values.join(","), &remedy));
        }
        if values.len() > VALUES {
            let remedy = format!("a term has at most {VALUES} values; take some away");
            return Err(Refused::value(field, &values.join(","), &remedy));
        }
        let test = field.test(&values)?;
        Ok(Self { negated: false, field: Some(field), values, test })
    }
}
