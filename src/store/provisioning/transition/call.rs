//! Calls: the attempt written before, the outcome written after.

use std::time::Duration;

use diesel::dsl::{case_when, exists, not};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};

use super::Fence;
use crate::model::{AccountId, AttemptOutcome, AttemptUid, Boot, CustomerId, ErrorClass, JobState, ServerId};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::agent;
use crate::store::provisioning::job::{Attempt, AttemptRow, NewAttempts};
use crate::store::provisioning::limit;
use crate::store::provisioning::schema::{attempt, job};
use crate::store::provisioning::server::{self, Seen, ServerRow};
use crate::store::provisioning::watch::{NewWatches, Watch, WatchRow};
use crate::store::{AnyConnection, Later, Prepared, catch_up, later};

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
    if let Some(id) = resource
        && !server::turn_of(connection, id, row.job)?
    {
        return Ok(Opened::Busy);
    }
    debug_assert!(row.outcome == AttemptOutcome::Open && row.epoch.0 > 0, "I4: {row:?}");
    if sabotaged(Fault::GuardSecond) {
        insert_open(connection, row)?;
    }
    let fence = Fence { job: row.job, epoch: row.epoch };
    if !may(connection, fence, (boot, state), Some(row.uid))? {
        return Ok(Opened::Fenced);
    }
    if let Some(id) = resource
        && !server::take(connection, id, row.job)?
    {
        // Somebody took it between the two statements: nothing of this item may stay, and it runs again.
        return Err(diesel::result::Error::RollbackTransaction);
    }
    insert_open(connection, row)?;
    Ok(Opened::Yes)
}

/// Writes an attempt; its guard came before.
pub(super) fn insert_open(connection: &mut AnyConnection, row: &Attempt) -> QueryResult<()> {
    let new = AttemptRow { started_at: connection.now()?.0, ..AttemptRow::from(row) };
    later::<NewAttempts>(connection, |rows| rows.0.push(new))
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
    may(connection, fence, (boot, state), None)
}

/// The same; for a call to be opened also that no other call of the job is open. One may be that nobody knew of when
/// this one was planned: its commit was given up as unknown and came late.
fn may(
    connection: &mut AnyConnection,
    fence: Fence,
    (boot, state): (Boot, JobState),
    opens: Option<AttemptUid>,
) -> QueryResult<bool> {
    if opens.is_some() {
        catch_up(connection)?;
    }
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let mut mine = diesel::update(job::table)
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::state.eq(state.as_str()))
        .into_boxed();
    if !sabotaged(Fault::NoFence) {
        mine = mine.filter(job::owner.eq(boot.to_string()));
    }
    if state == JobState::Running {
        mine = mine.filter(job::cancel_by.is_null());
    }
    if let Some(own) = opens.filter(|_| !sabotaged(Fault::NoFence)) {
        let other = attempt::table
            .filter(attempt::job.eq(fence.job.to_string()))
            .filter(attempt::outcome.eq(AttemptOutcome::Open.as_str()))
            .filter(attempt::uid.ne(own.to_string()));
        mine = mine.filter(not(exists(other)));
    }
    let touched = (
        job::changed_at.eq(now),
        job::version.eq(job::version + 1),
        job::due_at.eq(None::<i64>),
        job::why_code.eq(""),
        job::why.eq(""),
    );
    Ok(Prepared(mine.set(touched)).execute(connection)? == 1)
}

/// What a job does after an attempt was closed.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Goes on with the same owner.
    Go,
    /// Gives up its owner and waits for a verdict.
    Await(Watch),
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
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
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
    debug_assert!(close.outcome != AttemptOutcome::Open, "an outcome is known: {close:?}");
    if !progress(connection, close)? {
        return Ok(false);
    }
    let now = connection.now()?.0;
    let outcome = Outcome {
        outcome: close.outcome.as_str(),
        class: close.class.map(ErrorClass::as_str),
        evidence: close.evidence.clone(),
        output: close.output.clone(),
        at: now,
    };
    later::<Outcomes>(connection, |all| all.add(outcome, close.attempt.to_string()))?;
    if close.class == Some(ErrorClass::Throttled) {
        throttled(connection, close)?;
    }
    if let Some(row) = &close.made {
        server::insert(connection, row)?;
    }
    if let Some(seen) = &close.seen {
        server::saw(connection, seen)?;
    }
    if let Then::Await(expected) = &close.then {
        let new = WatchRow { made_at: now, ..WatchRow::from(expected) };
        later::<NewWatches>(connection, |rows| rows.0.push(new))?;
    }
    Ok(true)
}

/// A throttling answer is remembered with the call, for the next one of this job, and with the account, for all others.
fn throttled(connection: &mut AnyConnection, close: &Close) -> QueryResult<()> {
    let now = connection.now()?;
    if let Some(wait) = close.retry_after {
        let until = now.plus(wait.min(limit::LONGEST_WAIT));
        diesel::update(attempt::table.find(close.attempt.to_string()))
            .set(attempt::quiet_until.eq(Some(until.0)))
            .execute(connection)?;
    }
    let (customer, account): (i64, i64) = job::table
        .find(close.fence.job.to_string())
        .select((job::customer, job::account))
        .first(connection)?;
    limit::throttled(connection, (CustomerId(customer), AccountId(account)), close.retry_after)
}

/// What is written of an attempt when its effect is known.
#[derive(PartialEq, Eq)]
struct Outcome {
    outcome: &'static str,
    class: Option<&'static str>,
    evidence: String,
    output: String,
    /// When its item ran: what follows in the same item happened no earlier.
    at: i64,
}

/// Attempts whose guards came before, by what is written of them.
#[derive(Default)]
struct Outcomes(Vec<(Outcome, Vec<String>)>);

impl Outcomes {
    fn add(&mut self, outcome: Outcome, attempt: String) {
        // With the last group of the kind only: of two outcomes of one attempt the later one stands.
        match self.0.last_mut() {
            Some((last, attempts)) if *last == outcome => attempts.push(attempt),
            _ => self.0.push((outcome, vec![attempt])),
        }
    }
}

impl Later for Outcomes {
    const ORDER: u8 = 1;

    fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        for (of, attempts) in self.0 {
            let set = (
                attempt::outcome.eq(of.outcome),
                attempt::class.eq(of.class),
                attempt::evidence.eq(&of.evidence),
                attempt::output.eq(&of.output),
                attempt::closed_at.eq(Some(of.at)),
                attempt::version.eq(attempt::version + 1),
            );
            match attempts.as_slice() {
                [one] => Prepared(diesel::update(attempt::table.find(one)).set(set)).execute(connection)?,
                many => {
                    let all = attempt::table.filter(attempt::uid.eq_any(many));
                    diesel::update(all).set(set).execute(connection)?
                }
            };
        }
        Ok(())
    }
}

/// The guard of [`close_attempt`]: moves the job itself.
fn progress(connection: &mut AnyConnection, close: &Close) -> QueryResult<bool> {
    let now = connection.now()?.0;
    // From taking back there is no way to waiting for a verdict.
    let from: &[&str] = match &close.then {
        Then::Await(_) => &[JobState::Running.as_str()],
        Then::Go => &[JobState::Running.as_str(), JobState::Undoing.as_str()],
    };
    let epoch = close.fence.named(connection)?;
    let mine = job::table
        .filter(job::uid.eq(close.fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::ended_at.is_null())
        .filter(job::state.eq_any(from.iter().copied()));
    let touched = (job::changed_at.eq(now), job::version.eq(job::version + 1), job::crashes.eq(0));
    let rows = match &close.then {
        Then::Go => Prepared(diesel::update(mine).set(touched)).execute(connection)?,
        Then::Await(expected) => {
            let waits = diesel::update(mine).set((
                touched,
                job::state.eq(JobState::Awaiting.as_str()),
                job::owner.eq(None::<String>),
                // A cancel asked meanwhile must be seen at once.
                job::due_at.eq(case_when(
                    job::cancel_by.is_null(),
                    Some(expected.deadline.0).into_sql::<Nullable<BigInt>>(),
                )
                .otherwise(Some(now).into_sql::<Nullable<BigInt>>())),
                job::why_code.eq(format!("verdict-{}", expected.kind)),
                job::why.eq(format!("waiting until {} is seen", expected.expectation)),
            ));
            Prepared(waits).execute(connection)?
        }
    };
    if rows == 1
        && let Some(row) = &close.made
    {
        let held = job::uid.eq(close.fence.job.to_string()).and(job::epoch.eq(epoch));
        diesel::update(job::table.filter(held))
            .set((job::server.eq(Some(row.id)), job::resource.eq(Some(&row.provider_id))))
            .execute(connection)?;
    }
    Ok(rows == 1)
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
    command: &agent::NewCommand,
    expected: &Watch,
) -> QueryResult<bool> {
    debug_assert!(
        (row.epoch, row.try_no) == (command.epoch, expected.try_no),
        "one round: {row:?} {expected:?}"
    );
    let fence = Fence { job: row.job, epoch: row.epoch };
    if sabotaged(Fault::GuardSecond) {
        insert_handed(connection, (row, command, expected))?;
    }
    if !may_act(connection, fence, boot, JobState::Running)? {
        return Ok(false);
    }
    insert_handed(connection, (row, command, expected))?;
    let close = Close {
        fence,
        attempt: row.uid,
        outcome: AttemptOutcome::Ok,
        class: None,
        retry_after: None,
        evidence: row.evidence.clone(),
        output: String::new(),
        made: None,
        seen: None,
        then: Then::Await(expected.clone()),
    };
    progress(connection, &close)?;
    Ok(true)
}

/// Writes a command with the attempt that is its call and the watch for its verdict; their guard came before.
fn insert_handed(
    connection: &mut AnyConnection,
    (row, command, expected): (&Attempt, &agent::NewCommand, &Watch),
) -> QueryResult<()> {
    let now = connection.now()?.0;
    let closed = AttemptRow {
        started_at: now,
        closed_at: Some(now),
        outcome: AttemptOutcome::Ok.to_string(),
        ..AttemptRow::from(row)
    };
    later::<NewAttempts>(connection, |rows| rows.0.push(closed))?;
    agent::insert_command(connection, command)?;
    let new = WatchRow { made_at: now, ..WatchRow::from(expected) };
    later::<NewWatches>(connection, |rows| rows.0.push(new))
}
