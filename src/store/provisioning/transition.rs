//! The moves of a job, each one item with its condition. Zero rows means: nothing of the item is done.
//!
//! Every function but [`cancel_asked`] names the epoch in its condition (a test of the architecture reads this file).

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::job::{Attempt, AttemptRow, Evidence, EvidenceRow};
use super::schema::{attempt, evidence, job, node, obligation, watch};
use super::server::{self, Seen, ServerRow};
use super::watch::{Watch, WatchRow};
use super::{insert_new, node as lives};
use crate::model::{
    AccountId, AttemptOutcome, AttemptUid, Boot, CustomerId, Epoch, ErrorClass, JobState, JobUid, Micros,
    RegionId, ServerId, WatchUid,
};
use crate::store::AnyConnection;

/// Names a job and the epoch its writer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: JobUid,
    /// The epoch got at the claim.
    pub epoch: Epoch,
}

/// What a claim saw and wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job and the epoch seen, which the claim raises by one.
    pub seen: Fence,
    /// The state seen.
    pub from: JobState,
    /// The state it goes on in.
    pub to: JobState,
    /// The life that claims.
    pub boot: Boot,
}

/// Becomes the owner of a job that has none, or whose owner is dead.
///
/// # Errors
/// What the database reports.
pub fn claim(connection: &mut AnyConnection, claim: &Claim) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let boot = claim.boot.to_string();
    let dead = node::table.filter(node::state.eq(lives::DEAD)).select(node::boot.nullable());
    let i_live = node::table.filter(node::boot.eq(&boot).and(node::state.eq(lives::ALIVE)));
    let free = job::table
        .filter(job::uid.eq(claim.seen.job.to_string()))
        .filter(job::epoch.eq(claim.seen.epoch.0))
        .filter(job::state.eq(claim.from.as_str()))
        .filter(job::ended_at.is_null())
        .filter(job::owner.is_null().or(job::owner.eq_any(dead)))
        .filter(exists(i_live));
    let rows = diesel::update(free)
        .set((
            job::owner.eq(Some(&boot)),
            job::epoch.eq(claim.seen.epoch.0 + 1),
            job::state.eq(claim.to.as_str()),
            job::why_code.eq(""),
            job::why.eq(""),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    if rows == 1 {
        let unclaimed = job::table.filter(
            job::uid
                .eq(claim.seen.job.to_string())
                .and(job::epoch.eq(claim.seen.epoch.0 + 1))
                .and(job::claimed_at.is_null()),
        );
        diesel::update(unclaimed).set(job::claimed_at.eq(Some(now))).execute(connection)?;
        return Ok(true);
    }
    // The commit of this very claim was unknown and it runs again: as wanted means it was mine.
    let mine = job::table
        .filter(job::uid.eq(claim.seen.job.to_string()))
        .filter(job::epoch.eq(claim.seen.epoch.0 + 1))
        .filter(job::owner.eq(&boot));
    diesel::select(exists(mine)).get_result(connection)
}

/// Takes over up to `limit` jobs of dead lives; each takeover counts against the job until it makes progress.
///
/// # Errors
/// What the database reports.
pub fn take_over(connection: &mut AnyConnection, boot: Boot, limit: i64) -> QueryResult<Vec<String>> {
    let dead = node::table.filter(node::state.eq(lives::DEAD)).select(node::boot.nullable());
    let found: Vec<(String, i64, i32)> = job::table
        .filter(job::ended_at.is_null().and(job::owner.eq_any(dead)))
        .select((job::uid, job::epoch, job::crashes))
        .limit(limit)
        .load(connection)?;
    let now = connection.now()?.0;
    let mut taken = Vec::with_capacity(found.len());
    for (uid, epoch, crashes) in found {
        let rows = diesel::update(job::table.filter(job::uid.eq(&uid).and(job::epoch.eq(epoch))))
            .set((
                job::owner.eq(Some(boot.to_string())),
                job::epoch.eq(epoch + 1),
                job::crashes.eq(crashes + 1),
                job::changed_at.eq(now),
                job::version.eq(job::version + 1),
            ))
            .execute(connection)?;
        if rows == 1 {
            taken.push(uid);
        }
    }
    Ok(taken)
}

/// How the guard of an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The attempt is written; the call may be sent.
    Yes,
    /// The epoch is old, the state is another, or a cancel was asked: nothing may be sent.
    Fenced,
    /// Another job works on the server.
    Busy,
}

/// Writes an attempt before its call. `resource` is the server that no other job may work on meanwhile.
///
/// # Errors
/// What the database reports.
pub fn open_attempt(
    connection: &mut AnyConnection,
    boot: Boot,
    state: JobState,
    row: &Attempt,
    resource: Option<ServerId>,
) -> QueryResult<Opened> {
    let fence = Fence { job: row.job, epoch: row.epoch };
    if !may_act(connection, fence, boot, state)? {
        return Ok(Opened::Fenced);
    }
    if let Some(id) = resource
        && !server::take(connection, id, row.job)?
    {
        return Ok(Opened::Busy);
    }
    let new = AttemptRow { started_at: connection.now()?.0, ..AttemptRow::from(row) };
    insert_new(diesel::insert_into(attempt::table).values(&new).execute(connection))?;
    Ok(Opened::Yes)
}

/// The guard before every call: the epoch is current, the owner is this life and, while running, no cancel is asked.
///
/// # Errors
/// What the database reports.
pub fn may_act(
    connection: &mut AnyConnection,
    fence: Fence,
    boot: Boot,
    state: JobState,
) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mut mine = diesel::update(job::table)
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(fence.epoch.0))
        .filter(job::owner.eq(boot.to_string()))
        .filter(job::state.eq(state.as_str()))
        .into_boxed();
    if state == JobState::Running {
        mine = mine.filter(job::cancel_by.is_null());
    }
    let touched = (
        job::changed_at.eq(now),
        job::version.eq(job::version + 1),
        job::due_at.eq(None::<i64>),
        job::why_code.eq(""),
        job::why.eq(""),
    );
    Ok(mine.set(touched).execute(connection)? == 1)
}

/// What a job does after an attempt was closed.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Goes on with the same owner.
    Go,
    /// Gives up its owner and waits for a verdict.
    Await(Watch),
    /// Keeps its owner and waits until a time.
    Wait(Waiting),
}

/// Until when and why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// When it goes on at the latest.
    pub until: Micros,
    /// Machine code.
    pub code: String,
    /// A sentence.
    pub why: String,
}

/// The outcome of an attempt, and what follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Close {
    /// Job and epoch.
    pub fence: Fence,
    /// The attempt.
    pub attempt: AttemptUid,
    /// `ok`, `refused` or `void`.
    pub outcome: AttemptOutcome,
    /// Why it was refused.
    pub class: Option<ErrorClass>,
    /// Call and answer.
    pub evidence: String,
    /// What later steps need.
    pub output: String,
    /// What was made, with its row.
    pub made: Option<Box<ServerRow>>,
    /// What was seen of an existing server.
    pub seen: Option<Seen>,
    /// What follows.
    pub then: Then,
}

/// Writes the outcome of an attempt and what follows in one commit.
///
/// # Errors
/// What the database reports.
pub fn close_attempt(connection: &mut AnyConnection, close: &Close) -> QueryResult<bool> {
    if !progress(connection, close)? {
        return Ok(false);
    }
    let now = connection.now()?.0;
    diesel::update(attempt::table.find(close.attempt.to_string()))
        .set((
            attempt::outcome.eq(close.outcome.as_str()),
            attempt::class.eq(close.class.map(ErrorClass::as_str)),
            attempt::evidence.eq(&close.evidence),
            attempt::output.eq(&close.output),
            attempt::closed_at.eq(Some(now)),
            attempt::version.eq(attempt::version + 1),
        ))
        .execute(connection)?;
    if let Some(row) = &close.made {
        server::insert(connection, row)?;
    }
    if let Some(seen) = &close.seen {
        server::saw(connection, seen)?;
    }
    if let Then::Await(expected) = &close.then {
        let new = WatchRow { made_at: now, ..WatchRow::from(expected) };
        insert_new(diesel::insert_into(watch::table).values(&new).execute(connection))?;
    }
    Ok(true)
}

/// The guard of [`close_attempt`]: moves the job itself.
fn progress(connection: &mut AnyConnection, close: &Close) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mine = job::table
        .filter(job::uid.eq(close.fence.job.to_string()))
        .filter(job::epoch.eq(close.fence.epoch.0))
        .filter(job::ended_at.is_null())
        .filter(job::state.eq_any([JobState::Running.as_str(), JobState::Undoing.as_str()]));
    let touched = (job::changed_at.eq(now), job::version.eq(job::version + 1), job::crashes.eq(0));
    let rows = match &close.then {
        Then::Go => diesel::update(mine).set(touched).execute(connection)?,
        Then::Await(expected) => diesel::update(mine)
            .set((
                touched,
                job::state.eq(JobState::Awaiting.as_str()),
                job::owner.eq(None::<String>),
                job::due_at.eq(Some(expected.deadline.0)),
                job::why_code.eq(format!("verdict-{}", expected.kind)),
                job::why.eq(format!("waiting until {} is seen", expected.expectation)),
            ))
            .execute(connection)?,
        Then::Wait(waiting) => diesel::update(mine)
            .set((
                touched,
                job::due_at.eq(Some(waiting.until.0)),
                job::why_code.eq(&waiting.code),
                job::why.eq(&waiting.why),
            ))
            .execute(connection)?,
    };
    if rows == 1
        && let Some(row) = &close.made
    {
        let held = job::uid.eq(close.fence.job.to_string()).and(job::epoch.eq(close.fence.epoch.0));
        diesel::update(job::table.filter(held))
            .set((job::server.eq(Some(row.id)), job::resource.eq(Some(&row.provider_id))))
            .execute(connection)?;
    }
    Ok(rows == 1)
}

/// Says why a job that keeps its owner makes no step now.
///
/// # Errors
/// What the database reports.
pub fn wait(connection: &mut AnyConnection, fence: Fence, waiting: &Waiting) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mine =
        job::uid.eq(fence.job.to_string()).and(job::epoch.eq(fence.epoch.0)).and(job::ended_at.is_null());
    let rows = diesel::update(job::table.filter(mine))
        .set((
            job::due_at.eq(Some(waiting.until.0)),
            job::why_code.eq(&waiting.code),
            job::why.eq(&waiting.why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Gives a running job up to whoever claims it next; `undo_begun` and its open attempts stay.
///
/// # Errors
/// What the database reports.
pub fn quarantine(connection: &mut AnyConnection, fence: Fence, waiting: &Waiting) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let held = || job::uid.eq(fence.job.to_string()).and(job::epoch.eq(fence.epoch.0));
    let undoing = held().and(job::state.eq(JobState::Undoing.as_str()));
    diesel::update(job::table.filter(undoing)).set(job::undo_begun.eq(true)).execute(connection)?;
    let open = [JobState::Running.as_str(), JobState::Awaiting.as_str(), JobState::Undoing.as_str()];
    let rows = diesel::update(job::table.filter(held().and(job::state.eq_any(open))))
        .set((
            job::state.eq(JobState::Quarantined.as_str()),
            job::owner.eq(None::<String>),
            job::due_at.eq(Some(waiting.until.0)),
            job::why_code.eq(&waiting.code),
            job::why.eq(&waiting.why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Says that taking back begins, before the first call of it.
///
/// # Errors
/// What the database reports.
pub fn begin_undo(connection: &mut AnyConnection, fence: Fence, boot: Boot, why: &str) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let from = [JobState::Running.as_str(), JobState::Awaiting.as_str()];
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(fence.epoch.0))
        .filter(job::owner.eq(boot.to_string()))
        .filter(job::state.eq_any(from));
    let rows = diesel::update(mine)
        .set((
            job::state.eq(JobState::Undoing.as_str()),
            job::undo_begun.eq(true),
            job::why_code.eq("undo"),
            job::why.eq(why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// A verdict: what was seen of a watch, and whether that decides it.
///
/// # Errors
/// What the database reports.
pub fn verdict(
    connection: &mut AnyConnection,
    seen: &Evidence,
    decides: Option<WatchUid>,
) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let new = EvidenceRow { made_at: now, ..EvidenceRow::from(seen) };
    let first = insert_new(diesel::insert_into(evidence::table).values(&new).execute(connection))?;
    if let Some(uid) = decides {
        let open = watch::table.filter(watch::uid.eq(uid.to_string()).and(watch::done_at.is_null()));
        diesel::update(open).set(watch::done_at.eq(Some(now))).execute(connection)?;
    }
    Ok(first)
}

/// The next round of a job whose effect was lost: from `awaiting` back to `running`.
///
/// # Errors
/// What the database reports.
pub fn next_try(connection: &mut AnyConnection, fence: Fence, from: i32) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(fence.epoch.0))
        .filter(job::state.eq(JobState::Awaiting.as_str()))
        .filter(job::try_no.eq(from))
        .filter(job::cancel_by.is_null());
    let rows = diesel::update(mine)
        .set((
            job::state.eq(JobState::Running.as_str()),
            job::try_no.eq(from + 1),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

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

/// Ends a job, once. `complete` only from `awaiting` and without a cancel; `failed` and `cancelled` only without an
/// open attempt.
///
/// # Errors
/// What the database reports.
pub fn end(connection: &mut AnyConnection, end: &End) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let name = end.fence.job.to_string();
    let mut mine = diesel::update(job::table)
        .filter(job::uid.eq(&name))
        .filter(job::epoch.eq(end.fence.epoch.0))
        .filter(job::ended_at.is_null())
        .into_boxed();
    match end.state {
        JobState::Complete => {
            mine = mine
                .filter(job::state.eq(JobState::Awaiting.as_str()))
                .filter(job::try_no.eq(end.try_no))
                .filter(job::cancel_by.is_null());
        }
        JobState::Failed | JobState::Cancelled => {
            let open = attempt::table
                .filter(attempt::job.eq(&name).and(attempt::outcome.eq(AttemptOutcome::Open.as_str())));
            mine = mine.filter(not(exists(open)));
        }
        _ => {}
    }
    let rows = mine
        .set((
            job::state.eq(end.state.as_str()),
            job::ended_at.eq(Some(now)),
            job::owner.eq(None::<String>),
            job::due_at.eq(None::<i64>),
            job::message.eq(Some(&end.message)),
            job::why_code.eq(&end.code),
            job::why.eq(""),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    if rows == 1 {
        after_end(connection, end, now)?;
        return Ok(true);
    }
    let ended = job::table
        .filter(job::uid.eq(&name))
        .filter(job::epoch.eq(end.fence.epoch.0))
        .filter(job::state.eq(end.state.as_str()));
    diesel::select(exists(ended)).get_result(connection)
}

fn after_end(connection: &mut AnyConnection, end: &End, now: i64) -> QueryResult<()> {
    if end.state != JobState::Complete {
        // Nobody need look any longer; what is seen later still becomes evidence.
        let open =
            watch::table.filter(watch::job.eq(end.fence.job.to_string()).and(watch::done_at.is_null()));
        diesel::update(open).set(watch::done_at.eq(Some(now))).execute(connection)?;
    }
    if let Some(seen) = &end.seen {
        server::saw(connection, seen)?;
    }
    if let Some(id) = end.server {
        server::release(connection, id, end.fence.job)?;
    }
    if let Some(owed) = &end.obligation {
        let row = (
            obligation::tag.eq(&owed.tag),
            obligation::job.eq(end.fence.job.to_string()),
            obligation::customer.eq(owed.customer.0),
            obligation::account.eq(owed.account.0),
            obligation::region.eq(owed.region.0),
            obligation::expected.eq(None::<String>),
            obligation::look_at.eq(owed.look_at.0),
            obligation::look_until.eq(owed.look_until.0),
            obligation::made_at.eq(now),
        );
        insert_new(diesel::insert_into(obligation::table).values(row).execute(connection))?;
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

/// Jobs that need an actor: owned by this life, due without an owner, or with a verdict. Most urgent first.
///
/// # Errors
/// What the database reports.
pub fn needing_an_actor(connection: &mut AnyConnection, boot: Boot, limit: i64) -> QueryResult<Vec<String>> {
    let now = connection.now()?.0;
    let mut found: Vec<String> = job::table
        .filter(job::ended_at.is_null().and(job::owner.eq(boot.to_string())))
        .select(job::uid)
        .limit(limit)
        .load(connection)?;
    let due: Vec<String> = job::table
        .filter(job::ended_at.is_null().and(job::owner.is_null()).and(job::due_at.le(now)))
        .order((job::priority.desc(), job::due_at.asc()))
        .select(job::uid)
        .limit(limit)
        .load(connection)?;
    let decided: Vec<String> = job::table
        .inner_join(watch::table.on(watch::job.eq(job::uid).and(watch::try_no.eq(job::try_no))))
        .filter(job::ended_at.is_null().and(job::state.eq(JobState::Awaiting.as_str())))
        .filter(watch::done_at.is_not_null())
        .select(job::uid)
        .limit(limit)
        .load(connection)?;
    found.extend(due);
    found.extend(decided);
    Ok(found)
}

/// Hands a command to the guest's queue: attempt, row, watch and state in one commit. The row is the call, so the
/// attempt is written with its outcome.
///
/// # Errors
/// What the database reports.
pub fn hand_over(
    connection: &mut AnyConnection,
    boot: Boot,
    row: &Attempt,
    command: &super::agent::NewCommand,
    expected: &Watch,
) -> QueryResult<bool> {
    let fence = Fence { job: row.job, epoch: row.epoch };
    if !may_act(connection, fence, boot, JobState::Running)? {
        return Ok(false);
    }
    let now = connection.now()?.0;
    let closed = AttemptRow {
        started_at: now,
        closed_at: Some(now),
        outcome: AttemptOutcome::Ok.to_string(),
        ..AttemptRow::from(row)
    };
    insert_new(diesel::insert_into(attempt::table).values(&closed).execute(connection))?;
    super::agent::insert_command(connection, command)?;
    let close = Close {
        fence,
        attempt: row.uid,
        outcome: AttemptOutcome::Ok,
        class: None,
        evidence: row.evidence.clone(),
        output: String::new(),
        made: None,
        seen: None,
        then: Then::Await(expected.clone()),
    };
    progress(connection, &close)?;
    let new = WatchRow { made_at: now, ..WatchRow::from(expected) };
    insert_new(diesel::insert_into(watch::table).values(&new).execute(connection))?;
    Ok(true)
}
