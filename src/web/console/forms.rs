//! Forms that were sent: whose they are, what was typed, and what makes the same form sent twice one request.

use actix_web::{HttpRequest, web};

use super::door::{self, Visitor};
use crate::crypto::{Aad, hex, same, sha256};
use crate::model::Uid;
use crate::store::provisioning::accept::{Entry, IdemKey};
use crate::web::rest::Problem;
use crate::web::{Fault, RequestId, State, body};

/// Largest form: user data of 16 kB, each byte of it escaped.
const LARGEST: usize = 64 * 1024;
/// Fields that say nothing of what is asked for.
const MARKS: [&str; 3] = ["csrf", "once", "act"];

/// A form as it was sent.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pairs: Vec<(String, String)>,
}

impl Filled {
    /// Reads a form that a page of ours sent.
    pub(super) async fn read(
        request: &HttpRequest,
        payload: web::Payload,
        state: &State,
    ) -> Result<Self, Fault> {
        door::from_our_page(request)?;
        let bytes = body::read(request, payload, LARGEST, state.limits.body_deadline).await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| Fault::bad(format!("the form is no text: {e}; send it from the page")))?;
        let pairs = web::Query::<Vec<(String, String)>>::from_query(text)
            .map_err(|e| Fault::bad(format!("the form cannot be read: {e}")))?;
        Ok(Self { pairs: pairs.into_inner() })
    }

    /// What an address fills into a form.
    pub(super) fn of_query(query: &str) -> Result<Self, Problem> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query);
        let pairs = pairs.map_err(|e| Problem::field("query", format!("the address cannot be read: {e}")))?;
        Ok(Self { pairs: pairs.into_inner() })
    }

    /// The same, of somebody who logged in: it must carry the mark of their session.
    pub(super) async fn of(
        request: &HttpRequest,
        payload: web::Payload,
        state: &State,
        visitor: &Visitor,
    ) -> Result<Self, Fault> {
        let filled = Self::read(request, payload, state).await?;
        if same(filled.text("csrf"), &visitor.csrf) {
            return Ok(filled);
        }
        Err(Fault::forbidden(
            "stale-form",
            "this form belongs to another session; load the page again and send it anew",
        ))
    }

    /// What was typed into a field; nothing where the form has no such field.
    pub(super) fn text(&self, name: &str) -> &str {
        self.pairs.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// Every field, for a form whose names may come more than once, such as marks in a list.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// The record that the request begins with. Its key was made when the form was shown, so that a second click, or
    /// the form sent again by the browser, is answered with what the first one made.
    pub(super) fn entry(&self, request: &HttpRequest, visitor: &Visitor) -> Result<Entry, Problem> {
        let key: Uid = self.text("once").parse().map_err(|_other| {
            Problem::field("once", "this form has lost its key; load the page again and send it anew")
        })?;
        let mut what = Aad::new("form").with("path", request.uri().path());
        for (name, value) in self.pairs.iter().filter(|(name, _)| !MARKS.contains(&name.as_str())) {
            what = what.with("name", name).with("value", value);
        }
        let who = &visitor.principal;
        Ok(Entry {
            customer: who.customer,
            access_key: who.access_key.clone(),
            request: RequestId::of(request).0,
            replay: None,
            idem: Some(IdemKey {
                key: format!("form-{key}"),
                body_hash: hex::encode(&sha256(what.as_bytes())),
            }),
            repeat_by_key: false,
        })
    }
}

/// Whether a form was sent before with something else in it.
pub(super) fn sent_before(problem: &Problem) -> bool {
    problem.code() == "idempotency-conflict"
}

/// What is said then.
pub(super) const SENT_BEFORE: &str = "This form was sent before with other content, and that made a request. Nothing was submitted \
                                      now. Look at the list of jobs; what stands here now can be sent as a new request.";

/// A key for a form that is about to be shown.
pub(super) fn once() -> String {
    Uid::random().to_string()
}

#[cfg(test)]
mod tests {
    use super::Filled;

    #[test]
    fn fields_are_found_by_name_and_absent_ones_are_empty() {
        let filled = Filled::of_query("a=1&a=2").expect("good");
        assert_eq!((filled.text("a"), filled.text("b")), ("1", ""));
    }
}
