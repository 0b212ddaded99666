//! Who owns a job: the claim, the takeover of dead lives' jobs, and which jobs need somebody.

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::{Fence, call, hold, turn};
use crate::model::{Boot, Epoch, Generation, JobState, Micros};
use crate::ops::failpoint::{Fault, sabotaged};
use crate::store::provisioning::job::Attempt;
use crate::store::provisioning::node as lives;
use crate::store::provisioning::schema::{attempt as attempts, job, node, watch};
use crate::store::{AnyConnection, Prepared};

/// What a claim saw and wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job and the epoch seen.
    pub seen: Fence,
    /// The epoch from now on, above the one seen.
    pub next: Epoch,
    /// The state seen.
    pub from: JobState,
    /// The state it goes on in.
    pub to: JobState,
    /// The life that claims.
    pub boot: Boot,
    /// Takeovers in a row that count from now on; a job that was set aside for them gets one more chance.
    pub crashes: i32,
}

/// How a claim ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claimed {
    /// By this item, now.
    Now,
    /// By this life, before: by this item, whose commit was unknown, or by an earlier one that came late.
    Before,
    /// Not at all.
    No,
}

/// Becomes the owner of a job that has none, or whose owner is dead.
///
/// A queued job that is paused, or that a limit of its account leaves no room for, is not claimed, unless its cancel
/// was asked; it is put by until the pause is over, or there is room.
///
/// # Errors
/// What the database reports.
pub fn claim(connection: &mut AnyConnection, claim: &Claim) -> QueryResult<bool> {
    claim_calling(connection, claim, &mut Vec::new())
}

/// The same; `called` gets the jobs that may begin because of it.
///
/// # Errors
/// What the database reports.
pub fn claim_calling(
    connection: &mut AnyConnection,
    claim: &Claim,
    called: &mut Vec<String>,
) -> QueryResult<bool> {
    take(connection, claim, called).map(|claimed| claimed != Claimed::No)
}

fn take(connection: &mut AnyConnection, claim: &Claim, called: &mut Vec<String>) -> QueryResult<Claimed> {
    if guard(connection, claim, Gate::Open(Cancelled::Too))? {
        return Ok(Claimed::Now);
    }
    // The commit of this very claim was unknown and it runs again: as wanted means it was mine.
    let mine = job::table
        .filter(job::uid.eq(claim.seen.job.to_string()))
        .filter(job::epoch.eq(claim.next.0))
        .filter(job::owner.eq(claim.boot.to_string()));
    if !sabotaged(Fault::CasZeroLost) && diesel::select(exists(mine)).get_result(connection)? {
        return Ok(Claimed::Before);
    }
    if claim.from != JobState::Queued {
        return Ok(Claimed::No);
    }
    let Some(asker) = hold::hold(connection, claim.seen)? else {
        turn::leave(connection, &claim.seen.job.to_string(), called)?;
        return Ok(Claimed::No);
    };
    let turn::Asked::May(account) = turn::ask(connection, &asker, called)? else { return Ok(Claimed::No) };
    if !guard(connection, claim, Gate::Limited)? {
        return Ok(Claimed::No);
    }
    turn::begun(connection, &account, &asker, called)?;
    Ok(Claimed::Now)
}

/// Whether a job is claimed whose cancel was asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancelled {
    Too,
    Not,
}

/// Who may pass from the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Jobs that no limit counts.
    Open(Cancelled),
    /// A job whose limits were asked in this item.
    Limited,
}

/// The guard of a claim.
fn guard(connection: &mut AnyConnection, claim: &Claim, gate: Gate) -> QueryResult<bool> {
    debug_assert!(
        !claim.to.is_end() && claim.to != JobState::Queued && claim.to != JobState::Quarantined,
        "a claim leads to work: {claim:?}"
    );
    debug_assert!(claim.next > claim.seen.epoch, "I2: {claim:?}");
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
    let taken = (
        job::owner.eq(Some(&boot)),
        job::epoch.eq(claim.next.0),
        job::state.eq(claim.to.as_str()),
        job::crashes.eq(claim.crashes),
        job::why_code.eq(""),
        job::why.eq(""),
        job::changed_at.eq(now),
        job::version.eq(job::version + 1),
    );
    // Only a first claim finds a job queued.
    let rows = match (claim.from, gate) {
        (JobState::Queued, Gate::Open(cancelled)) => {
            let first = (taken, job::claimed_at.eq(Some(now)));
            let held = hold::is_paused().or(turn::is_limited());
            if cancelled == Cancelled::Not {
                let let_go = job::cancel_by.is_null().and(not(held));
                Prepared(diesel::update(free.filter(let_go)).set(first)).execute(connection)?
            } else {
                let let_go = job::cancel_by.is_not_null().or(not(held));
                Prepared(diesel::update(free.filter(let_go)).set(first)).execute(connection)?
            }
        }
        (JobState::Queued, Gate::Limited) => {
            let first = (taken, job::claimed_at.eq(Some(now)), job::limited.eq(true));
            diesel::update(free.filter(not(hold::is_paused()))).set(first).execute(connection)?
        }
        (_, Gate::Open(Cancelled::Not)) => {
            Prepared(diesel::update(free.filter(job::cancel_by.is_null())).set(taken)).execute(connection)?
        }
        _ => Prepared(diesel::update(free).set(taken)).execute(connection)?,
    };
    Ok(rows == 1)
}

/// A claim and the attempt that begins the work, in one item.
///
/// False when the claim stands and the attempt does not, because a cancel was asked, or because an earlier item of this
/// life claimed the job and has an attempt of its own; none when somebody else was faster.
///
/// # Errors
/// What the database reports.
pub fn claim_and_open(
    connection: &mut AnyConnection,
    claimed: &Claim,
    attempt: &Attempt,
    called: &mut Vec<String>,
) -> QueryResult<Option<bool>> {
    // Nearly always: claimed, and free to go on, in one statement.
    if guard(connection, claimed, Gate::Open(Cancelled::Not))? {
        call::insert_open(connection, attempt)?;
        return Ok(Some(true));
    }
    match take(connection, claimed, called)? {
        Claimed::No => return Ok(None),
        Claimed::Before => {
            // Two items of one life look the same but for their attempts: what is written is the first one's.
            let own = attempts::table.filter(attempts::uid.eq(attempt.uid.to_string()));
            return diesel::select(exists(own)).get_result(connection).map(Some);
        }
        Claimed::Now => {}
    }
    // The claim is the guard: owner, epoch and state are its own. What it does not ask for is a cancel.
    let free = job::table.find(attempt.job.to_string()).select(job::cancel_by.is_null());
    if !free.first(connection)? {
        return Ok(Some(false));
    }
    call::insert_open(connection, attempt)?;
    Ok(Some(true))
}

/// When the next job without an owner is due, after `now`.
///
/// # Errors
/// What the database reports.
pub fn next_due(connection: &mut AnyConnection, now: Micros) -> QueryResult<Option<Micros>> {
    let next: Option<i64> = job::table
        .filter(job::ended_at.is_null().and(job::owner.is_null()).and(job::due_at.gt(now.0)))
        .select(diesel::dsl::min(job::due_at))
        .first(connection)?;
    Ok(next.map(Micros))
}

/// Takes over up to `limit` jobs of dead lives; each takeover counts against the job until it makes progress. A life
/// that was itself declared dead gets none.
///
/// # Errors
/// What the database reports.
pub fn take_over(
    connection: &mut AnyConnection,
    boot: Boot,
    generation: Generation,
    limit: i64,
) -> QueryResult<Vec<String>> {
    let dead = node::table.filter(node::state.eq(lives::DEAD)).select(node::boot.nullable());
    let found: Vec<(String, i64, i32)> = job::table
        .filter(job::ended_at.is_null().and(job::owner.eq_any(dead)))
        .select((job::uid, job::epoch, job::crashes))
        .limit(limit)
        .load(connection)?;
    let now = connection.now()?.0;
    let mut taken = Vec::with_capacity(found.len());
    for (uid, epoch, crashes) in found {
        let name = boot.to_string();
        let i_live = node::table.filter(node::boot.eq(&name).and(node::state.eq(lives::ALIVE)));
        let seen = job::uid.eq(&uid).and(job::epoch.eq(epoch)).and(job::ended_at.is_null());
        let rows = diesel::update(job::table.filter(seen).filter(exists(i_live)))
            .set((
                job::owner.eq(Some(&name)),
                job::epoch.eq(Epoch(epoch).after(generation).0),
                job::crashes.eq(crashes.saturating_add(1)),
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

/// Open jobs of this life, and whether a cancel was asked.
///
/// # Errors
/// What the database reports.
pub fn owned_by(connection: &mut AnyConnection, boot: Boot, limit: i64) -> QueryResult<Vec<(String, bool)>> {
    let mut mine =
        job::table.filter(job::ended_at.is_null().and(job::owner.eq(boot.to_string()))).into_boxed();
    if sabotaged(Fault::CasZeroLost) {
        // Only what was taken over, which has nobody else to start it.
        mine = mine.filter(job::crashes.gt(0));
    }
    mine.select((job::uid, job::cancel_by.is_not_null())).limit(limit).load(connection)
}

/// Jobs without an owner that are due or have a verdict. Most urgent first.
///
/// # Errors
/// What the database reports.
pub fn needing_an_actor(connection: &mut AnyConnection, limit: i64) -> QueryResult<Vec<String>> {
    let now = connection.now()?.0;
    let mut found: Vec<String> = job::table
        .filter(job::ended_at.is_null().and(job::owner.is_null()).and(job::due_at.le(now)))
        .order((job::priority.desc(), job::due_at.asc()))
        .select(job::uid)
        .limit(limit)
        .load(connection)?;
    let decided: Vec<String> = job::table
        .inner_join(watch::table.on(watch::job.eq(job::uid).and(watch::try_no.eq(job::try_no))))
        .filter(job::ended_at.is_null().and(job::owner.is_null()))
        .filter(job::state.eq(JobState::Awaiting.as_str()).and(watch::done_at.is_not_null()))
        .select(job::uid)
        .limit(limit)
        .load(connection)?;
    found.extend(decided);
    Ok(found)
}
