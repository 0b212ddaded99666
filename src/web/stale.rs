//! Answers to reads, remembered for the time the provisioning database is away: shown again then, marked stale.
//!
//! Only who was let in (by a signature that was checked, or a session) is answered, and only with what the same key or
//! session was answered before: what another may see is never shown. The mark is in the headers, so that bodies keep
//! their contract: `Warning: 110`, and `x-dispatcher-stale` with the age in seconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WARNING};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};

use super::State;
use crate::store::Standing;

/// Age of a stale answer, in seconds.
pub const STALE: HeaderName = HeaderName::from_static("x-dispatcher-stale");

/// Largest answer remembered, in bytes.
const LARGEST: usize = 256 * 1024;
/// All answers remembered, in bytes.
const ROOM: usize = 16 * 1024 * 1024;
/// How long an answer may be shown again.
const KEPT: Duration = Duration::from_secs(3600);

/// Somebody was let in; a request carries it from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted(String);

impl Admitted {
    /// Marks a request as that of a key or a session that was checked.
    pub(super) fn mark(request: &HttpRequest, who: &str) {
        request.extensions_mut().insert(Self(who.to_owned()));
    }
}

/// The answers. One for all workers of a process.
#[derive(Default)]
pub struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<(String, String), Answer>,
    bytes: usize,
}

#[derive(Clone)]
struct Answer {
    since: Instant,
    kind: HeaderValue,
    body: Bytes,
}

impl Memory {
    fn keep(&self, key: (String, String), answer: Answer) {
        let size = answer.body.len();
        if size > LARGEST {
            return;
        }
        let mut kept = self.lock();
        if let Some(before) = kept.answers.insert(key, answer) {
            kept.bytes -= before.body.len();
        }
        kept.bytes += size;
        if kept.bytes > ROOM {
            kept.make_room();
        }
    }

    fn find(&self, key: &(String, String)) -> Option<Answer> {
        self.lock().answers.get(key).filter(|answer| answer.since.elapsed() < KEPT).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets the older half.
    fn make_room(&mut self) {
        let mut ages: Vec<Instant> = self.answers.values().map(|answer| answer.since).collect();
        ages.sort_unstable();
        let Some(middle) = ages.get(ages.len() / 2).copied() else { return };
        self.answers.retain(|_, answer| answer.since > middle);
        self.bytes = self.answers.values().map(|answer| answer.body.len()).sum();
    }
}

/// Whether rows cannot be read now.
pub(super) fn unreadable(state: &State) -> bool {
    matches!(state.store.standing(), Standing::Away(_) | Standing::NoReads(_))
}

/// Remembers the answers to reads, and answers with them while rows cannot be read.
pub(super) async fn remembering(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let read = request.method() == Method::GET;
    let answer = next.call(request).await?.map_into_boxed_body();
    let of_interest = matches!(answer.status(), StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE);
    let state = answer.request().app_data::<web::Data<State>>().cloned();
    let (Some(state), Some(key), true) = (state, key_of(answer.request()), read && of_interest) else {
        return Ok(answer);
    };
    if answer.status() == StatusCode::OK {
        return Ok(remember(&state.memory, key, answer));
    }
    match state.memory.find(&key).filter(|_| unreadable(&state)) {
        Some(old) => {
            let (request, _) = answer.into_parts();
            Ok(ServiceResponse::new(request, again(&old)))
        }
        None => Ok(answer),
    }
}

/// Who asked for what; nothing for who was not let in.
fn key_of(request: &HttpRequest) -> Option<(String, String)> {
    let who = request.extensions().get::<Admitted>().cloned()?;
    let details = request.headers().get("x-es-details").and_then(|value| value.to_str().ok()).unwrap_or("");
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    Some((who.0, format!("{details} {target}")))
}

fn remember(memory: &Memory, key: (String, String), answer: ServiceResponse) -> ServiceResponse {
    let json = |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json"));
    let Some(kind) = answer.headers().get(CONTENT_TYPE).filter(|kind| json(kind)).cloned() else {
        return answer;
    };
    answer.map_body(|_, body| match body.try_into_bytes() {
        Ok(body) => {
            memory.keep(key, Answer { since: Instant::now(), kind, body: body.clone() });
            BoxBody::new(body)
        }
        // A stream goes by as it is.
        Err(body) => body,
    })
}

fn again(old: &Answer) -> HttpResponse {
    let age = old.since.elapsed().as_secs();
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, old.kind.clone()))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((WARNING, "110 - \"Response is Stale\""))
        .insert_header((STALE, age))
        .body(old.body.clone())
}

#[cfg(test)]
mod tests {
    use super::{Answer, HeaderValue, LARGEST, Memory, ROOM, again};
    use actix_web::body::MessageBody as _;
    use actix_web::web::Bytes;
    use std::time::Instant;

    fn answer(size: usize) -> Answer {
        let body = Bytes::from(vec![b'x'; size]);
        Answer { since: Instant::now(), kind: HeaderValue::from_static("application/json"), body }
    }

    fn key(who: &str, n: usize) -> (String, String) {
        (who.to_owned(), format!(" /api/v1/jobs/{n}"))
    }

    #[test]
    fn what_one_was_answered_is_found_by_nobody_else_and_room_is_bounded() {
        let memory = Memory::default();
        memory.keep(key("a", 1), answer(10));
        assert!(memory.find(&key("a", 1)).is_some() && memory.find(&key("b", 1)).is_none());
        memory.keep(key("a", 2), answer(LARGEST + 1));
        assert!(memory.find(&key("a", 2)).is_none(), "too large");
        for n in 0..200 {
            memory.keep(key("a", n), answer(LARGEST));
            memory.keep(key("a", n), answer(LARGEST));
            let kept = memory.lock();
            assert!(kept.bytes <= ROOM, "{}", kept.bytes);
            assert_eq!(kept.bytes, kept.answers.values().map(|a| a.body.len()).sum::<usize>());
        }
        assert!(memory.find(&key("a", 199)).is_some(), "the newest is there");
    }

    #[test]
    fn a_stale_answer_says_so_in_its_headers() {
        let old = Answer { body: Bytes::from_static(b"{\"id\":1}"), ..answer(0) };
        let shown = again(&old);
        assert_eq!(shown.headers().get("x-dispatcher-stale").expect("its age"), "0");
        assert!(
            shown.headers().get("warning").expect("a warning").to_str().expect("text").starts_with("110")
        );
        let body = shown.into_body().try_into_bytes().unwrap_or_default();
        assert_eq!(body, "{\"id\":1}", "the body keeps its contract");
    }
}
