//! A person's word on a job that was set aside.

use diesel::prelude::*;

use super::end::{End, after_end};
use crate::model::{AttemptOutcome, CustomerId, JobState, Micros, Uid, Verdict};
use crate::store::provisioning::insert_new;
use crate::store::provisioning::job::{Evidence, EvidenceRow};
use crate::store::provisioning::schema::{attempt, audit, evidence, job};
use crate::store::{AnyConnection, catch_up};

/// What a person says became of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The end they decide on; its fence holds the epoch they saw.
    pub end: End,
    /// The job's tenant.
    pub customer: CustomerId,
    /// Who says it: `person/<login>`.
    pub source: String,
    /// How they know.
    pub reason: String,
    /// The request it came with; each is evidence of its own.
    pub request: Uid,
    /// Number of the audit record.
    pub audit: i64,
}

/// What became of a person's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It ended the job.
    Ended,
    /// The job had ended before: the word was kept, the end stands.
    Noted,
    /// The job is not set aside, or not any more: nothing was written.
    Open,
    /// The job cannot be called complete, because it was cancelled or its undo has begun: nothing was written.
    Unfit,
}

/// Ends a job that is quarantined in the epoch seen and has no owner, by a person's word.
///
/// Its open calls get the outcome that follows from it. Over an end it changes nothing: then, too, the word is kept as evidence and audit.
///
/// # Errors
/// What the database reports.
pub fn resolve(connection: &mut AnyConnection, word: &Word) -> QueryResult<Heard> {
    let now = connection.now()?;
    let heard = decide(connection, word, now)?;
    if matches!(heard, Heard::Ended | Heard::Noted) {
        record(connection, word, heard, now)?;
    }
    Ok(heard)
}

fn decide(connection: &mut AnyConnection, word: &Word, now: Micros) -> QueryResult<Heard> {
    let end = &word.end;
    let name = end.fence.job.to_string();
    let mut mine = diesel::update(job::table)
        .filter(job::uid.eq(&name))
        .filter(job::epoch.eq(end.fence.epoch.0))
        .filter(job::state.eq(JobState::Quarantined.as_str()))
        .filter(job::owner.is_null())
        .filter(job::ended_at.is_null())
        .into_boxed();
    if end.state == JobState::Complete {
        mine = mine.filter(job::undo_begun.eq(false)).filter(job::cancel_by.is_null());
    }
    let rows = mine
        .set((
            job::state.eq(end.state.as_str()),
            job::ended_at.eq(Some(now.0)),
            job::due_at.eq(None::<i64>),
            job::message.eq(Some(&end.message)),
            job::why_code.eq(&end.code),
            job::why.eq(""),
            job::changed_at.eq(now.0),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    if rows == 1 {
        close_calls(connection, word, now)?;
        after_end(connection, end, now.0)?;
        return Ok(Heard::Ended);
    }
    // What would have ended it now did not a moment ago: it is on the move.
    Ok(match hears(connection, word)? {
        Heard::Ended => Heard::Open,
        other => other,
    })
}

/// What would become of a word, without saying it.
///
/// # Errors
/// What the database reports.
pub fn hears(connection: &mut AnyConnection, word: &Word) -> QueryResult<Heard> {
    type Found = (String, i64, Option<i64>, bool, Option<String>);
    let found: Option<Found> = job::table
        .find(word.end.fence.job.to_string())
        .select((job::state, job::epoch, job::ended_at, job::undo_begun, job::cancel_by))
        .first(connection)
        .optional()?;
    let Some((state, epoch, ended, undo_begun, cancel_by)) = found else { return Ok(Heard::Open) };
    let complete = word.end.state == JobState::Complete;
    Ok(if ended.is_some() {
        Heard::Noted
    } else if state != JobState::Quarantined.as_str() || epoch != word.end.fence.epoch.0 {
        Heard::Open
    } else if complete && (undo_begun || cancel_by.is_some()) {
        Heard::Unfit
    } else {
        Heard::Ended
    })
}

/// A call whose outcome nobody knew has the one that the person's word implies; after `unresolved` it stays open.
fn close_calls(connection: &mut AnyConnection, word: &Word, now: Micros) -> QueryResult<()> {
    let outcome = match word.end.state {
        JobState::Complete => AttemptOutcome::Ok,
        JobState::Failed | JobState::Cancelled => AttemptOutcome::Void,
        _ => return Ok(()),
    };
    catch_up(connection)?;
    let open = attempt::job
        .eq(word.end.fence.job.to_string())
        .and(attempt::outcome.eq(AttemptOutcome::Open.as_str()));
    diesel::update(attempt::table.filter(open))
        .set((
            attempt::outcome.eq(outcome.as_str()),
            attempt::evidence.eq(format!("by the word of {}: {}", word.source, word.reason)),
            attempt::closed_at.eq(Some(now.0)),
            attempt::version.eq(attempt::version + 1),
        ))
        .execute(connection)?;
    Ok(())
}

fn record(connection: &mut AnyConnection, word: &Word, heard: Heard, now: Micros) -> QueryResult<()> {
    let state = word.end.state;
    let seen = Evidence {
        subject: word.request.to_string(),
        source: word.source.clone(),
        job: word.end.fence.job,
        customer: word.customer,
        verdict: match state {
            JobState::Complete => Verdict::Reached,
            JobState::Failed => Verdict::Failed,
            JobState::Cancelled => Verdict::Lost,
            _ => Verdict::Unknown,
        },
        text: word.reason.clone(),
        raw: String::new(),
        made_at: now,
    };
    insert_new(diesel::insert_into(evidence::table).values(&EvidenceRow::from(&seen)).execute(connection))?;
    let ended = if heard == Heard::Ended { "ended by it" } else { "had ended before, unchanged" };
    let row = (
        audit::id.eq(word.audit),
        audit::customer.eq(word.customer.0),
        audit::actor.eq(&word.source),
        audit::action.eq("job.resolve"),
        audit::subject.eq(format!("job/{}", word.end.fence.job)),
        audit::detail.eq(format!("{state} ({ended}): {}", word.reason)),
        audit::made_at.eq(now.0),
    );
    insert_new(diesel::insert_into(audit::table).values(row).execute(connection))?;
    Ok(())
}

/// What was recorded about a subject, oldest first: who, what, in which words.
///
/// # Errors
/// What the database reports.
pub fn audited(connection: &mut AnyConnection, subject: &str) -> QueryResult<Vec<(String, String, String)>> {
    audit::table
        .filter(audit::subject.eq(subject))
        .order(audit::id.asc())
        .select((audit::actor, audit::action, audit::detail))
        .load(connection)
}
