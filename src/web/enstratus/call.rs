//! One call of the dated API, let in and parsed.

use serde_json::Value;

use super::super::auth::Caller;
use super::super::{Fault, State};
use super::input::Input;
use super::query::Query;
use crate::access::{Action, Resource, Verb};
use crate::model::CustomerId;
use crate::store::AnyConnection;

/// How much of related objects a client wants to see (`x-es-details`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Details {
    /// Ids only.
    None,
    /// Own fields; related objects as their id.
    Basic,
    /// Own fields; related objects with theirs.
    Extended,
}

impl Details {
    pub(super) fn parse(header: Option<&str>) -> Result<Self, Fault> {
        match header {
            None | Some("basic" | "") => Ok(Self::Basic),
            Some("none") => Ok(Self::None),
            Some("extended") => Ok(Self::Extended),
            Some(other) => {
                let shown: String = other.chars().take(64).collect();
                Err(Fault::bad(format!("header x-es-details: \"{shown}\" is none of none, basic, extended")))
            }
        }
    }
}

/// What a function of the table gets.
pub(super) struct Call {
    pub(super) state: State,
    pub(super) caller: Caller,
    /// The version in the path.
    pub(super) version: String,
    /// The id in the path, as text.
    pub(super) id: Option<String>,
    pub(super) query: Query,
    pub(super) details: Details,
    /// Where the verb's object stands in the body, and the object.
    pub(super) asked: (String, Value),
}

impl Call {
    pub(super) fn customer(&self) -> CustomerId {
        self.caller.principal.customer
    }

    /// The object of the verb.
    pub(super) fn input(&self) -> Input<'_> {
        Input::new(self.asked.0.clone(), &self.asked.1)
    }

    /// The id in the path as a number. A path without an id, and one that is no number, name nothing.
    pub(super) fn number(&self) -> Option<i64> {
        self.id.as_deref().and_then(|text| text.parse().ok())
    }

    /// A further permission, where the table's row cannot name it.
    pub(super) fn must(&self, verb: Verb, resource: Resource) -> Result<(), Fault> {
        Ok(self.caller.principal.must(Action::new(verb, resource))?)
    }

    /// One read of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut AnyConnection) -> diesel::QueryResult<T> + Send + 'static,
    ) -> Result<T, Fault> {
        Ok(self.state.store.read(f).await?)
    }

    /// Those of a list that the path asks for: all, or the one with its id.
    pub(super) fn pick<T>(&self, rows: Vec<T>, id: impl Fn(&T) -> i64) -> Vec<T> {
        match (&self.id, self.number()) {
            (None, _) => rows,
            (Some(_), Some(number)) => rows.into_iter().filter(|row| id(row) == number).collect(),
            (Some(_), None) => Vec::new(),
        }
    }
}
