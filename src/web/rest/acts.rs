//! What is done about a job that is there: why it waits, its cancel, its retry, a person's word on it.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::jobs::{find, id_of, query};
use super::submit::{self, Plain, Terms, body};
use super::{LONGEST_JOB, Problem, admit, group, reader, show};
use crate::access::{Action, Principal, Resource, Verb};
use crate::model::{JobId, JobKind, JobState, Micros};
use crate::registry::Resolve;
use crate::store::provisioning::accept::Entry;
use crate::store::provisioning::job::Job;
use crate::store::provisioning::sequence::Sequence;
use crate::store::provisioning::transition::{self, PACE, PLACE};
use crate::store::provisioning::view;
use crate::web::{Fault, State};

/// Longest description of a job, in characters.
const LONGEST_DESCRIPTION: usize = 255;
/// How a person may say that a job ended.
pub(in crate::web) const OUTCOMES: [JobState; 4] =
    [JobState::Complete, JobState::Failed, JobState::Cancelled, JobState::Unresolved];

/// Why a job makes no step now, or how it ended: one sentence with its machine code.
pub(super) async fn why(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let read = async {
        let caller = reader(&request, payload, &state, Resource::Job).await?;
        query(&request, &[])?;
        let mut job = find(&state, caller.principal.customer, id_of(&request)?).await?.job;
        fresh_why(&state, &mut job).await?;
        let now = state.store.read(view::now).await?;
        Ok::<_, Problem>(why_of(&job, now))
    };
    Ok(HttpResponse::Ok().json(read.await.map_err(|problem| problem.of(&request))?))
}

/// A job that waits for a limit of its account is told what holds it now and how many are before it: its row says what
/// it was when it was put there.
pub(in crate::web) async fn fresh_why(state: &State, job: &mut Job) -> Result<(), Problem> {
    if job.state != JobState::Queued || ![PLACE, PACE].contains(&job.why_code.as_str()) {
        return Ok(());
    }
    let uid = job.uid.to_string();
    if let Some((code, why)) = state.store.read(move |c| transition::why_now(c, &uid)).await? {
        (job.why_code, job.why) = (code.to_owned(), why);
    }
    Ok(())
}

/// `since` is when that became so, `until` when it goes on at the latest, where that is known.
fn why_of(job: &Job, now: Micros) -> Value {
    // The message of a complete job is its result, often a bare number.
    let result = match (job.state, job.message.as_deref()) {
        (JobState::Complete, Some(message)) if !message.is_empty() => {
            Some(format!("{}: {message}", plain(job.state)))
        }
        (_, message) => message.map(str::to_owned),
    };
    let told = if job.ended_at.is_some() { result.as_deref().unwrap_or_default() } else { &job.why };
    let (code, text) = match (job.why_code.as_str(), told) {
        ("", "") => (job.state.as_str(), plain(job.state).to_owned()),
        (code, "") => (code, plain(job.state).to_owned()),
        ("", text) => (job.state.as_str(), text.to_owned()),
        (code, text) => (code, text.to_owned()),
    };
    let until = job.due_at.filter(|at| *at > now && job.ended_at.is_none());
    json!({
        "id": job.id,
        "state": job.state,
        "code": code,
        "text": text,
        "since": job.ended_at.unwrap_or(job.changed_at).rfc3339(),
        "until": until.map(Micros::rfc3339),
    })
}

/// What a state means where the row says no more.
const fn plain(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "accepted; waiting for a dispatcher to claim it",
        JobState::Running => "its steps are being carried out",
        JobState::Awaiting => "waiting until its effect is seen",
        JobState::Undoing => "what it made is being taken back",
        JobState::Quarantined => "set aside; it goes on by itself, or a person resolves it",
        JobState::Complete => "its result was seen",
        JobState::Failed => "it was refused, or undone after a failure",
        JobState::Cancelled => "it was cancelled, nothing is left of it",
        JobState::Unresolved => "nobody knows what became of it",
    }
}

/// Asks for a cancel: 202, the job shows how it goes on.
pub(super) async fn cancel(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    let asked = async {
        let may = Action::new(Verb::Cancel, Resource::Job);
        let (caller, bytes) = admit(&request, payload, &state, may).await?;
        nothing(&bytes)?;
        let (customer, id) = (caller.principal.customer, id_of(&request)?);
        state.registry.cancel_once(caller.entry(), id, caller.principal.name.clone()).await?;
        find(&state, customer, id).await
    };
    let history = asked.await.map_err(|problem| problem.of(&request))?;
    Ok(HttpResponse::Accepted().json(show::job(&history.job)))
}

/// A body that says nothing: none, `null`, or an object without fields.
fn nothing(bytes: &[u8]) -> Result<(), Problem> {
    if bytes == b"null" { Ok(()) } else { body(bytes, "nothing")?.end() }
}

/// Asks for the same once more: a new job with the parameters of one that has ended.
pub(super) async fn retry(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    retried(&request, payload, &state).await.map_err(|problem| problem.of(&request))
}

async fn retried(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
) -> Result<HttpResponse, Problem> {
    let (caller, bytes) = admit(request, payload, state, Action::new(Verb::Read, Resource::Job)).await?;
    let mut fields = body(&bytes, "{\"deadlineSeconds\": …} or nothing")?;
    let terms = Terms::read(&mut fields)?;
    fields.end()?;
    let made = anew(state, &caller.principal, caller.entry(), (id_of(request)?, terms)).await?;
    Ok(submit::told(&made))
}

/// The same as an ended job once more, made durable; of a group what did not end complete.
async fn anew(
    state: &State,
    who: &Principal,
    entry: Entry,
    (id, terms): (JobId, Terms),
) -> Result<Job, Problem> {
    let job = find(state, who.customer, id).await?.job;
    may_be_retried(who, &job)?;
    if job.params.kind() == JobKind::Group {
        return group::again(state, who, entry, (&job, terms)).await;
    }
    let plain = Plain {
        description: described(&job.description, id),
        delay: terms.delay,
        limit: terms.limit.unwrap_or_else(|| given(&job)),
        priority: terms.priority.unwrap_or(job.priority),
        params: job.params,
    };
    submit::stored(state, who, entry, plain).await
}

fn may_be_retried(who: &Principal, job: &Job) -> Result<(), Problem> {
    let id = job.id;
    who.must(submit::action(job.params.kind()))?;
    if job.ended_at.is_none() {
        let text =
            format!("job {id} is {} and goes on; only an ended job is retried, cancel it first", job.state);
        return Err(Fault::conflict(text).into());
    }
    if job.account != who.account {
        let text = format!("job {id} used account {}; retry it with a key of that account", job.account);
        return Err(Fault::conflict(text).into());
    }
    Ok(())
}

/// A retry as the console asks for it.
pub(in crate::web) async fn repeat(
    state: &State,
    who: &Principal,
    entry: Entry,
    id: JobId,
) -> Result<Job, Problem> {
    anew(state, who, entry, (id, Terms::default())).await
}

/// The time the first job was given.
pub(super) fn given(job: &Job) -> Duration {
    job.deadline.since(job.created_at).clamp(Duration::from_secs(1), LONGEST_JOB)
}

/// The description of a retry names the job it repeats; a retry of a retry names the later one only.
pub(super) fn described(first: &str, id: JobId) -> String {
    let bare = first.rsplit_once(" (retry of job ").map_or(first, |(bare, _)| bare);
    let link = format!(" (retry of job {id})");
    let room = LONGEST_DESCRIPTION.saturating_sub(link.chars().count());
    bare.chars().take(room).chain(link.chars()).collect()
}

/// Ends a job that was set aside, by a person's word.
pub(super) async fn resolve(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    resolved(&request, payload, &state).await.map_err(|problem| problem.of(&request))
}

async fn resolved(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
) -> Result<HttpResponse, Problem> {
    let (caller, bytes) = admit(request, payload, state, Action::new(Verb::Update, Resource::Job)).await?;
    let id = id_of(request)?;
    word(state, &caller.principal, caller.entry(), (id, said(&bytes)?)).await?;
    let history = find(state, caller.principal.customer, id).await?;
    Ok(HttpResponse::Ok().json(show::history(&history)))
}

/// Writes a person's word on a job: how it ended, and how they know.
pub(in crate::web) async fn word(
    state: &State,
    who: &Principal,
    entry: Entry,
    (id, (outcome, reason)): (JobId, (JobState, String)),
) -> Result<(), Problem> {
    let audit = state.sequencer.next(Sequence::Audit).await?;
    let ask = Resolve { entry, id, person: who.person, outcome, reason, audit };
    Ok(state.registry.resolve(ask).await?)
}

/// Reads an outcome with its reason.
pub(in crate::web) fn said(bytes: &[u8]) -> Result<(JobState, String), Problem> {
    let mut fields = body(bytes, "{\"outcome\": \"failed\", \"reason\": …}")?;
    let word = fields.needed_text("outcome", 64)?;
    let reason = fields.needed_text("reason", 1024)?;
    fields.end()?;
    let outcome = OUTCOMES.iter().copied().find(|outcome| outcome.as_str() == word);
    let outcome = outcome.ok_or_else(|| {
        let known: Vec<&str> = OUTCOMES.iter().map(|outcome| outcome.as_str()).collect();
        Problem::field("outcome", format!("field outcome must be one of {}", known.join(", ")))
    })?;
    Ok((outcome, reason))
}

#[cfg(test)]
mod tests {
    use super::{described, nothing, said, why_of};
    use crate::jobs::timeline::samples;
    use crate::model::{JobId, JobState, JobUid, Micros};

    #[test]
    fn why_is_one_sentence_in_every_state() {
        let mut job = samples::job(JobUid::random());
        job.due_at = Some(Micros(50));
        let told = why_of(&job, Micros(45));
        assert_eq!(
            (&told["code"], &told["text"]),
            (&"verdict-cloud".into(), &"waiting until RUNNING is seen".into())
        );
        assert_eq!(told["until"], Micros(50).rfc3339());
        assert!(why_of(&job, Micros(60))["until"].is_null());
        for state in JobState::ALL {
            job.state = *state;
            (job.why, job.why_code, job.message) = (String::new(), String::new(), None);
            job.ended_at = state.is_end().then_some(Micros(70));
            let told = why_of(&job, Micros(45));
            assert!(told["text"].as_str().is_some_and(|text| text.len() > 10), "{told}");
            assert_eq!(told["code"], state.as_str());
            assert_eq!(told["until"].is_null(), state.is_end());
        }
    }

    #[test]
    fn a_retry_names_the_job_it_repeats_and_stays_short() {
        assert_eq!(described("Stop server a", JobId(7)), "Stop server a (retry of job 7)");
        assert_eq!(described("Stop server a (retry of job 7)", JobId(8)), "Stop server a (retry of job 8)");
        let long = described(&"ü".repeat(255), JobId(9));
        assert!(long.chars().count() == 255 && long.ends_with("(retry of job 9)"), "{long}");
    }

    #[test]
    fn a_word_has_an_outcome_and_a_reason() {
        assert_eq!(
            said(br#"{"outcome":"failed","reason":"looked"}"#).expect("good"),
            (JobState::Failed, "looked".to_owned())
        );
        for (bad, field) in [
            (&br#"{"outcome":"running","reason":"x"}"#[..], "outcome"),
            (br#"{"outcome":"failed"}"#, "reason"),
            (br#"{"outcome":"failed","reason":"x","note":1}"#, "note"),
            (b"", "outcome"),
        ] {
            assert_eq!(said(bad).expect_err("bad").at_fault(), Some(field));
        }
        assert!(nothing(b"").is_ok() && nothing(b"null").is_ok() && nothing(b"{}").is_ok());
        assert!(nothing(br#"{"force":true}"#).is_err());
    }
}
