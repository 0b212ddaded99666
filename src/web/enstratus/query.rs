//! Query parameters of the dated API.

use actix_web::HttpRequest;

use super::super::Fault;

/// Most parameters read.
const MOST: usize = 64;

/// Parameters by name; the first of a name counts, others nobody asks for are ignored.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Fault> {
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map_err(|e| Fault::bad(format!("the query cannot be read: {e}")))?
            .into_inner();
        if pairs.len() > MOST {
            return Err(Fault::bad(format!("the query has {} parameters, {MOST} are taken", pairs.len())));
        }
        Ok(Self(pairs))
    }

    /// A parameter; an empty one counts as absent, and so does the `None` that some clients send.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())?;
        (!value.is_empty() && value != "None").then_some(value)
    }

    /// A parameter that is a number.
    pub(super) fn id(&self, name: &str) -> Result<Option<i64>, Fault> {
        self.text(name)
            .map(|text| {
                let shown: String = text.chars().take(64).collect();
                let refused = || Fault::bad(format!("query {name}: \"{shown}\" is not a number"));
                text.parse().ok().ok_or_else(refused)
            })
            .transpose()
    }

    /// A parameter that is true or false, in any case, as Python and Java write them.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        self.text(name)
            .map(|text| match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => {
                    let shown: String = text.chars().take(64).collect();
                    Err(Fault::bad(format!("query {name}: \"{shown}\" is neither true nor false")))
                }
            })
            .transpose()
    }
}
