//! The query language of lists of jobs: one text for the console's box, the command line, the API and saved views.
//! Pure: text to terms and back. Which index serves a term is the store's business.
//!
//! ```text
//! query = term *( SP term )      term = ["-"] ( field ":" value *("," value) | number | text )
//! ```
//!
//! Terms are joined by *and*, values by *or*; `-` negates; `*` at the end of a value stands for any ending; quotes
//! hold blanks, commas and colons together.

mod field;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use field::{Field, Suggestion, suggest};
pub use parse::Refused;

use super::{ErrorClass, JobKind, JobState, Micros};

/// Longest text of a query, in bytes.
pub const LONGEST: usize = 1000;
/// Most terms of a query.
pub const TERMS: usize = 20;
/// Most values of a term.
pub const VALUES: usize = 500;

/// What is searched for: all terms hold. No terms: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The terms, as typed.
    pub terms: Vec<Term>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whether it must not hold.
    pub negated: bool,
    /// The field; none for a bare number or text.
    field: Option<Field>,
    /// As typed, without quotes.
    values: Vec<String>,
    /// What it means.
    pub test: Test,
}

/// What a term asks of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// One of these numbers.
    Ids(Vec<i64>),
    /// Title or target begins with this.
    Text(String),
    /// One of these states.
    States(Vec<JobState>),
    /// One of these kinds.
    Kinds(Vec<JobKind>),
    /// A call of it was refused for one of these reasons.
    Classes(Vec<ErrorClass>),
    /// It is open and waits for one of these; machine codes of the row.
    Waits(Vec<&'static str>),
    /// It uses one of these accounts.
    Accounts(Vec<i64>),
    /// It is a child of one of these groups.
    Parents(Vec<i64>),
    /// It is nobody's child.
    NoParent,
    /// It is about one of these servers.
    Servers(Vec<i64>),
    /// Its target's name is one of these.
    Targets(Vec<Pattern>),
    /// One of these people asked for it; `me` is who searches.
    By(Vec<Pattern>),
    /// It is run by one of these processes.
    Nodes(Vec<Pattern>),
    /// Submitted longer ago than this.
    Older(Duration),
    /// Submitted within this time.
    Newer(Duration),
    /// Submitted at this time or later.
    From(Micros),
    /// Submitted before this time.
    To(Micros),
    /// How long it took, or takes so far.
    Took(Compare, Duration),
    /// How many calls were made for it.
    Attempts(Compare, i64),
    /// A call was made whose outcome nobody knows yet.
    OutcomeUnknown,
}

/// How a measure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// More than.
    More,
    /// Less than.
    Less,
    /// As much as.
    Same,
}

/// A name, or how names begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The name or its beginning.
    pub text: String,
    /// Whether any ending fits.
    pub open: bool,
}

impl Query {
    /// Whether nothing is asked, so that everything fits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The number of a job, when that is all that was typed.
    #[must_use]
    pub fn only_number(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [Term { negated: false, field: None, test: Test::Ids(ids), .. }] => ids.first().copied(),
            _ => None,
        }
    }

    /// The same without its last term, and that term.
    #[must_use]
    pub fn without_last(&self) -> Option<(Self, String)> {
        let (last, rest) = self.terms.split_last()?;
        Some((Self { terms: rest.to_vec() }, last.to_string()))
    }

    /// The same with `field` saying only this; no value takes the field away.
    ///
    /// # Errors
    /// [`Refused`] where the value cannot be searched for.
    pub fn with(&self, field: Field, value: Option<&str>) -> Result<Self, Refused> {
        let kept = self.terms.iter().filter(|term| term.field != Some(field)).cloned();
        let mut terms: Vec<Term> = kept.collect();
        if let Some(value) = value {
            terms.push(Term::read(field, value)?);
        }
        Ok(Self { terms })
    }

    /// The same with one more term.
    ///
    /// # Errors
    /// [`Refused`] where the value cannot be searched for.
    pub fn and(mut self, field: Field, value: &str) -> Result<Self, Refused> {
        self.terms.push(Term::read(field, value)?);
        Ok(self)
    }

    /// What `field` says in this query, as typed; nothing where it says nothing or something negated.
    #[must_use]
    pub fn says(&self, field: Field) -> Option<String> {
        let term = self.terms.iter().find(|term| term.field == Some(field) && !term.negated)?;
        Some(term.values.join(","))
    }
}

impl std::str::FromStr for Query {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        parse::query(text)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let apart = if i == 0 { "" } else { " " };
            write!(f, "{apart}{term}")?;
        }
        Ok(())
    }
}

impl Term {
    /// Whether it asks for this field.
    #[must_use]
    pub fn is(&self, field: Field) -> bool {
        self.field == Some(field)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "-" } else { "" };
        match self.field {
            Some(field) => write!(f, "{not}{}:", field.as_str())?,
            None => f.write_str(not)?,
        }
        // A text of digits would be read as a number, one that begins with a dash as its opposite.
        let bare =
            |text: &str| self.field.is_some() || matches!(self.test, Test::Ids(_)) || !looks_special(text);
        for (i, value) in self.values.iter().enumerate() {
            let apart = if i == 0 { "" } else { "," };
            if bare(value) && parse::is_bare(value, self.field.is_some()) {
                write!(f, "{apart}{value}")?;
            } else {
                write!(f, "{apart}\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}

fn looks_special(text: &str) -> bool {
    text.starts_with('-') || text.bytes().all(|b| b.is_ascii_digit())
}
