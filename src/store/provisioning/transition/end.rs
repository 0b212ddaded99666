//! Ends, each written once, and the wish for one.

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::wait::{Waiting, park};
use super::{Fence, may_act};
use crate::model::{
    AccountId, AttemptOutcome, Boot, CustomerId, JobId, JobState, JobUid, Micros, RegionId, ServerId,
    ServerStatus,
};
use crate::store::provisioning::job::Job;
use crate::store::provisioning::schema::{attempt, job, watch};
use crate::store::provisioning::server::{self, Seen};
use crate::store::provisioning::{agent, obligation};
use crate::store::{AnyConnection, Prepared, catch_up};

/// How a job ends.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Job and epoch.
    pub fence: Fence,
    /// One of the four ends.
    pub state: JobState,
    /// The round whose verdict completes it; needed for `complete`.
    pub try_no: i32,
    /// What clients read.
    pub message: String,
    /// Machine code of the cause.
    pub code: String,
    /// The server it worked on, given back with the end.
    pub server: Option<ServerId>,
    /// What was seen of it.
    pub seen: Option<Seen>,
    /// What may still turn up.
    pub obligation: Option<Obligation>,
    /// Whom its end concerns.
    pub kin: Kin,
    /// Whether who plans the end knew that a cancel was asked: only then may the job be complete in spite of it.
    pub cancel_known: bool,
}

/// Whom the end of a job concerns, as its row said when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kin {
    /// Whether a limit of its account counts it.
    pub limited: bool,
    /// The group it is a child of.
    pub parent: Option<JobId>,
}

impl From<&Job> for Kin {
    fn from(job: &Job) -> Self {
        Self { limited: job.limited, parent: job.parent }
    }
}

/// Something that may still turn up at a cloud after a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obligation {
    /// The tag it would carry.
    pub tag: String,
    /// The tenant.
    pub customer: CustomerId,
    /// The account it would be in.
    pub account: AccountId,
    /// The region it would be in.
    pub region: RegionId,
    /// First look not before.
    pub look_at: Micros,
    /// Last look.
    pub look_until: Micros,
}

/// Ends a job, once. `complete` only from `awaiting` and without a cancel that the planner does not know of; `failed` and `cancelled` only without an
/// open attempt.
///
/// # Errors
/// What the database reports.
pub fn end(connection: &mut AnyConnection, end: &End) -> QueryResult<bool> {
    debug_assert!(end.state.is_end(), "an end is an end: {end:?}");
    if end.state != JobState::Complete {
        catch_up(connection)?;
    }
    let (now, epoch) = (connection.now()?.0, end.fence.named(connection)?);
    let name = end.fence.job.to_string();
    let mut mine = diesel::update(job::table)
        .filter(job::uid.eq(&name))
        .filter(job::epoch.eq(epoch))
        .filter(job::ended_at.is_null())
        .into_boxed();
    match end.state {
        JobState::Complete => {
            mine = mine
                .filter(job::state.eq(JobState::Awaiting.as_str()))
                .filter(job::try_no.eq(end.try_no))
                .filter(job::undo_begun.eq(false));
            if !end.cancel_known {
                mine = mine.filter(job::cancel_by.is_null());
            }
        }
        JobState::Failed | JobState::Cancelled => {
            let open = attempt::table
                .filter(attempt::job.eq(&name).and(attempt::outcome.eq(AttemptOutcome::Open.as_str())));
            mine = mine.filter(not(exists(open)));
        }
        _ => {}
    }
    let over = mine.set((
        job::state.eq(end.state.as_str()),
        job::ended_at.eq(Some(now)),
        job::owner.eq(None::<String>),
        job::due_at.eq(None::<i64>),
        job::message.eq(Some(&end.message)),
        job::why_code.eq(&end.code),
        job::why.eq(""),
        job::changed_at.eq(now),
        job::version.eq(job::version + 1),
    ));
    let rows = Prepared(over).execute(connection)?;
    if rows == 1 {
        after_end(connection, end, now)?;
        return Ok(true);
    }
    let ended = job::table
        .filter(job::uid.eq(&name))
        .filter(job::epoch.eq(epoch))
        .filter(job::state.eq(end.state.as_str()));
    diesel::select(exists(ended)).get_result(connection)
}

pub(super) fn after_end(connection: &mut AnyConnection, end: &End, now: i64) -> QueryResult<()> {
    if end.state != JobState::Complete {
        // Nobody need look any longer; what is seen later still becomes evidence.
        let open =
            watch::table.filter(watch::job.eq(end.fence.job.to_string()).and(watch::done_at.is_null()));
        diesel::update(open).set(watch::done_at.eq(Some(now))).execute(connection)?;
    }
    if let Some(seen) = &end.seen {
        server::saw(connection, seen)?;
        if seen.status == ServerStatus::Terminated {
            agent::revoke(connection, seen.server)?;
        }
    }
    if matches!(end.state, JobState::Failed | JobState::Cancelled) {
        // What a launch would have made does not exist: nobody may enrol in its name.
        agent::revoke_of_job(connection, end.fence.job)?;
    }
    if let Some(id) = end.server {
        server::release(connection, id, end.fence.job)?;
    }
    if let Some(owed) = &end.obligation {
        obligation::owe(connection, end.fence.job, owed)?;
    }
    Ok(())
}

/// Asks for a cancel: a database fact first; any node may do it. False when the job has ended or was asked before.
///
/// # Errors
/// What the database reports.
pub fn cancel_asked(connection: &mut AnyConnection, uid: JobUid, who: &str) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let open = job::table
        .filter(job::uid.eq(uid.to_string()))
        .filter(job::ended_at.is_null())
        .filter(job::cancel_by.is_null());
    let rows = diesel::update(open)
        .set((
            job::cancel_by.eq(Some(who)),
            job::due_at.eq(Some(now)),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// What becomes of a job whose command was sent already.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// The guest is asked to end it, and the job waits for the guest's answer.
    Park(Waiting),
    /// It ends: nobody knows.
    End(Box<End>),
}

/// Takes a command back that its guest may not have got: never sent, the job ends as `unsent` says; sent before, as
/// `sent` says. False when the job is another's by now.
///
/// # Errors
/// What the database reports.
pub fn withdraw(
    connection: &mut AnyConnection,
    boot: Boot,
    command: &str,
    (unsent, sent): (&End, &Sent),
) -> QueryResult<bool> {
    if !may_act(connection, unsent.fence, boot, JobState::Awaiting)? {
        return Ok(false);
    }
    if agent::expire(connection, command)? {
        return end(connection, unsent);
    }
    match sent {
        Sent::Park(waiting) => {
            agent::call_off(connection, command, unsent.fence.epoch)?;
            park(connection, unsent.fence, boot, waiting)
        }
        Sent::End(unknown) => end(connection, unknown),
    }
}
