//! A client's calls: any node will do, and every failure is sorted into "not taken" and "nobody knows".

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::house::{Doors, Entrance, House};
use crate::cli::client::{self, Client};

/// Longest wait for an answer: a node that stands still is left for another.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a call led to.
pub(super) enum Answer {
    /// Accepted, with what was said.
    Ok(Value),
    /// It was not taken: nobody was there, or it was refused for now.
    NotTaken,
    /// It may have been taken or not.
    Indefinite,
    /// An answer that should not come.
    Odd(String),
}

/// Calls the nodes of a house in turn.
pub(super) struct Caller {
    doors: Doors,
    entrance: Rc<Entrance>,
    /// Clients by node, with the address they know.
    known: Vec<Option<(String, Client)>>,
    turn: usize,
}

impl Caller {
    pub(super) fn new(house: &House, turn: usize) -> Self {
        let (doors, entrance) = (Rc::clone(&house.doors), Rc::clone(&house.entrance));
        Self { doors, entrance, known: Vec::new(), turn }
    }

    /// The client of the node whose turn it is.
    fn client(&mut self) -> Option<&Client> {
        let count = self.doors.borrow().len();
        self.known.resize_with(count, || None);
        let at = self.turn.checked_rem(count)?;
        let url = self.doors.borrow().get(at).cloned().flatten()?;
        let slot = self.known.get_mut(at)?;
        if slot.as_ref().is_none_or(|(known, _)| *known != url) {
            let (key, secret) = (self.entrance.access_key.clone(), self.entrance.secret());
            *slot = Some((url.clone(), Client::new(&url, key, secret, None).ok()?));
        }
        slot.as_ref().map(|(_, client)| client)
    }

    /// Sends a submit.
    pub(super) async fn submit(&mut self, body: &Value, key: Option<&String>) -> Answer {
        self.turn = self.turn.wrapping_add(1);
        let Some(client) = self.client() else { return Answer::NotTaken };
        let key = key.map(String::as_str);
        sorted(tokio::time::timeout(PATIENCE, client.post("/api/v1/jobs", body, key)).await)
    }

    /// Asks for the cancel of a job; one that has ended is not cancelled, and that is no odd answer. A node that does not
    /// answer is left for the next one: that it may have heard changes nothing about being asked again.
    pub(super) async fn cancel(&mut self, job: i64) -> Answer {
        let path = format!("/api/v1/jobs/{job}/cancel");
        let nodes = self.doors.borrow().len();
        let mut heard = Answer::NotTaken;
        for _ in 0..nodes {
            if let Some(client) = self.client() {
                let answer = tokio::time::timeout(PATIENCE, client.post(&path, &json!({}), None)).await;
                if let Ok(Err(client::Error::Refused { status: 409, .. })) = answer {
                    return Answer::NotTaken;
                }
                heard = sorted(answer);
            }
            match heard {
                Answer::NotTaken | Answer::Indefinite => self.turn = self.turn.wrapping_add(1),
                Answer::Ok(_) | Answer::Odd(_) => break,
            }
        }
        heard
    }

    /// A job as some node shows it now; none when the node does not answer.
    pub(super) async fn job(&mut self, id: i64) -> Option<Value> {
        let shown = {
            let client = self.client()?;
            tokio::time::timeout(PATIENCE, client.get(&format!("/api/v1/jobs/{id}"))).await
        };
        if !matches!(shown, Ok(Ok(_))) {
            self.turn = self.turn.wrapping_add(1);
        }
        shown.ok()?.ok()
    }
}

fn sorted<E>(answer: Result<Result<Value, client::Error>, E>) -> Answer {
    match answer {
        Ok(Ok(said)) => Answer::Ok(said),
        Ok(Err(client::Error::Connect { .. } | client::Error::Refused { status: 429 | 503, .. })) => {
            Answer::NotTaken
        }
        // A node that stood still while the request came in gives it up when it wakes; a client may not build on that.
        Ok(Err(client::Error::Refused { status: 408, .. })) => Answer::Indefinite,
        Ok(Err(client::Error::Refused { text, .. })) => Answer::Odd(text),
        Err(_) | Ok(Err(_)) => Answer::Indefinite,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, sorted};
    use crate::cli::client::Error;
    use serde_json::json;

    #[test]
    fn only_what_cannot_have_been_taken_counts_as_not_taken() {
        let of = |error| sorted(Ok::<_, ()>(Err(error)));
        let refused = |status| Error::Refused { status, text: "why".to_owned() };
        let (url, text) = (String::new(), String::new());
        assert!(matches!(sorted(Ok::<_, ()>(Ok(json!({})))), Answer::Ok(_)));
        assert!(matches!(of(refused(503)), Answer::NotTaken));
        assert!(matches!(of(Error::Connect { url: url.clone(), text: text.clone() }), Answer::NotTaken));
        assert!(matches!(of(Error::Broken { url, text }), Answer::Indefinite));
        assert!(matches!(of(refused(500)), Answer::Odd(_)));
        assert!(matches!(of(refused(408)), Answer::Indefinite));
        assert!(matches!(sorted(Err::<Result<_, Error>, _>(())), Answer::Indefinite));
    }
}
