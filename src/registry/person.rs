//! What a person may do to a job that is there: ask for its cancel, and say what became of it.

use actix::prelude::*;

use super::Error;
use super::actor::Spec;
use super::limits::{note_all, tell};
use crate::jobs;
use crate::model::{CustomerId, JobId, JobState, JobUid, UserId};
use crate::mq::Nudge;
use crate::store::Store;
use crate::store::provisioning::accept::{self, Answer, Entered, Entry};
use crate::store::provisioning::transition::{self, Heard, Word};
use crate::store::provisioning::{access, job};

/// Ask for a job's cancel.
#[derive(Message)]
#[rtype(result = "Result<(), Error>")]
pub(super) struct CancelJob {
    pub(super) customer: CustomerId,
    pub(super) id: JobId,
    pub(super) who: String,
    pub(super) entry: Option<Entry>,
}

/// Say what became of a job that was set aside.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), Error>")]
pub struct Resolve {
    /// Who asks, and what makes the request unique.
    pub entry: Entry,
    /// The job.
    pub id: JobId,
    /// Whose word it is.
    pub person: UserId,
    /// How it ended.
    pub outcome: JobState,
    /// How they know.
    pub reason: String,
    /// Number of the audit record.
    pub audit: i64,
}

async fn uid_of(store: &Store, customer: CustomerId, id: JobId) -> Result<JobUid, Error> {
    let row = store.read(move |c| job::by_id(c, customer, id)).await?;
    row.and_then(|row| row.uid.parse().ok()).ok_or(Error::NoSuchJob(id))
}

/// The first answer of a write to a job that is there; it names no job, since it made none.
const fn answer(id: JobId, status: i32) -> Answer {
    Answer { job: None, status, created: Some(id.0) }
}

/// Whether an item was done now; false when it had been done before.
pub(super) const fn is_fresh(entered: &Entered) -> Result<bool, Error> {
    match entered {
        Entered::Fresh => Ok(true),
        Entered::Same(_) => Ok(false),
        Entered::Conflict => Err(Error::Conflict),
        Entered::Replayed => Err(Error::Replayed),
    }
}

/// Whether the job has not ended, as the database shows it now.
fn is_open(connection: &mut crate::store::AnyConnection, uid: JobUid) -> diesel::QueryResult<bool> {
    Ok(job::by_uid(connection, uid)?.is_some_and(|row| row.ended_at.is_none()))
}

pub(super) async fn cancel(spec: Spec, ask: CancelJob) -> Result<(), Error> {
    let id = ask.id;
    let uid = uid_of(&spec.store, ask.customer, id).await?;
    let announce = spec.queue.announce();
    let item = move |c: &mut crate::store::AnyConnection| {
        let known = match &ask.entry {
            Some(entry) => match &entry.idem {
                Some(key) => accept::earlier(c, entry, key)?.is_some(),
                None => false,
            },
            None => false,
        };
        if !known && !is_open(c, uid)? {
            return Ok(None);
        }
        let entered = match &ask.entry {
            Some(entry) => accept::enter(c, entry, &answer(id, 202))?,
            None => Entered::Fresh,
        };
        let fresh = entered == Entered::Fresh;
        let news = fresh && transition::cancel_asked(c, uid, &ask.who)?;
        if fresh && !news && !is_open(c, uid)? {
            // It ended between the two statements: nothing of this item may stay, and it runs again.
            return Err(diesel::result::Error::RollbackTransaction);
        }
        let mut children = Vec::new();
        if news {
            announce.note(c, Nudge::Cancel(uid))?;
            children = transition::cancel_children(c, uid, &format!("{}, with group {id}", ask.who))?;
            note_all(c, &announce, &children)?;
        }
        Ok(Some((entered, news, children)))
    };
    let Some((done, news, children)) = spec.store.write(item).await? else { return Err(Error::Ended(id)) };
    if is_fresh(&done)? && news {
        spec.changes.tell(uid);
        spec.queue.publish(Nudge::Cancel(uid));
        tell(&spec, &children);
    }
    Ok(())
}

pub(super) async fn resolve(spec: Spec, ask: Resolve) -> Result<(), Error> {
    let (id, customer, person) = (ask.id, ask.entry.customer, ask.person);
    let uid = uid_of(&spec.store, customer, id).await?;
    let read = spec.store.read(move |c| Ok((job::history(c, uid)?, access::person(c, customer, person)?)));
    let (history, person) = read.await?;
    let history = history.ok_or(Error::NoSuchJob(id))?;
    let login = person.map_or_else(|| ask.person.to_string(), |row| row.login);
    // As long as the column of a source.
    let source: String = format!("person/{login}").chars().take(64).collect();
    let times = (spec.ports.clock.now(), spec.ports.limits.look_after);
    let said = (source.as_str(), ask.reason.as_str());
    let end = jobs::by_word(&history, ask.outcome, said, times).ok_or(Error::NotComplete(id))?;
    let word =
        Word { end, customer, source, reason: ask.reason, request: ask.entry.request, audit: ask.audit };
    let (entry, outcome) = (ask.entry, ask.outcome);
    let announce = spec.queue.announce();
    let item = move |c: &mut crate::store::AnyConnection| {
        let known = match &entry.idem {
            Some(key) => accept::earlier(c, &entry, key)?,
            None => None,
        };
        let fits = transition::hears(c, &word)?;
        if known.is_none() && matches!(fits, Heard::Open | Heard::Unfit) {
            return Ok((Entered::Fresh, fits, Vec::new()));
        }
        match accept::enter(c, &entry, &answer(id, 200))? {
            Entered::Fresh => {
                let heard = transition::resolve(c, &word)?;
                let called =
                    if heard == Heard::Ended { transition::follow(c, &word.end)? } else { Vec::new() };
                note_all(c, &announce, &called)?;
                Ok((Entered::Fresh, heard, called))
            }
            other => Ok((other, fits, Vec::new())),
        }
    };
    let (done, heard, called) = spec.store.write(item).await?;
    tell(&spec, &called);
    if !is_fresh(&done)? {
        return Ok(());
    }
    match heard {
        Heard::Ended => {
            spec.changes.tell(uid);
            spec.metrics.job_ended("job", outcome.as_str());
        }
        Heard::Noted => spec.changes.tell(uid),
        Heard::Open => return Err(Error::NotSetAside(id, history.job.state)),
        Heard::Unfit => return Err(Error::NotComplete(id)),
    }
    Ok(())
}
