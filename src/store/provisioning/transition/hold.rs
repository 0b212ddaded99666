//! Queued jobs that may not begin yet: put by without a due time, so that no sweep looks at them, and woken when what
//! holds them is over.

use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::Fence;
use super::turn::Asker;
use crate::model::{CustomerId, JobState};
use crate::store::AnyConnection;
use crate::store::provisioning::pause::{self as pauses, PauseRow};
use crate::store::provisioning::schema::{job, pause};

type Backend = <AnyConnection as Connection>::Backend;
pub(super) type Cond = Box<dyn BoxableExpression<job::table, Backend, SqlType = Bool>>;

/// Machine code of a job that a pause holds.
const PAUSE: &str = "pause";
/// Jobs woken one by one with a nudge each; of more the sweep takes care.
const NUDGED: i64 = 1000;

/// Whether a pause holds a row of `job`. With no pause this is one look into an empty index.
pub(super) fn is_paused() -> Cond {
    Box::new(exists(
        pause::table
            .filter(pause::customer.eq(job::customer))
            .filter(pause::kind.is_null().or(pause::kind.assume_not_null().eq(job::kind)))
            .filter(pause::account.is_null().or(pause::account.assume_not_null().eq(job::account))),
    ))
}

/// A queued job that nobody owns and nobody wants cancelled: what may be put by, and what is woken.
pub(super) fn resting() -> Cond {
    Box::new(
        job::ended_at
            .is_null()
            .and(job::owner.is_null())
            .and(job::state.eq(JobState::Queued.as_str()))
            .and(job::cancel_by.is_null()),
    )
}

/// Puts a job by whose claim was refused, if a pause holds it; it says which. A job that no pause holds is told.
pub(super) fn hold(connection: &mut AnyConnection, seen: Fence) -> QueryResult<Option<Asker>> {
    let mine = job::table.filter(job::uid.eq(seen.job.to_string()).and(job::epoch.eq(seen.epoch.0)));
    let found: Option<(i64, Asker)> = mine
        .filter(resting())
        .select((job::customer, (job::uid, job::account, job::kind, job::priority, job::id)))
        .first(connection)
        .optional()?;
    let Some((customer, asker)) = found else { return Ok(None) };
    let all = pauses::list(connection, CustomerId(customer))?;
    match all.iter().find(|pause| pause.holds(&asker.kind, asker.account)) {
        Some(pause) => put_by(connection, seen, (PAUSE, &pause.why())).map(|()| None),
        None => Ok(Some(asker)),
    }
}

fn put_by(connection: &mut AnyConnection, seen: Fence, (code, why): (&str, &str)) -> QueryResult<()> {
    let now = connection.now()?.0;
    let mine = job::table.filter(job::uid.eq(seen.job.to_string()).and(job::epoch.eq(seen.epoch.0)));
    diesel::update(mine.filter(resting()))
        .set((
            job::due_at.eq(None::<i64>),
            job::why_code.eq(code),
            job::why.eq(why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)
        .map(|_| ())
}

/// The jobs a pause names.
fn meant(pause: &PauseRow) -> Cond {
    let mut which: Cond = Box::new(job::customer.eq(pause.customer));
    if let Some(kind) = pause.kind.clone() {
        which = Box::new(which.and(job::kind.eq(kind)));
    }
    if let Some(account) = pause.account {
        which = Box::new(which.and(job::account.eq(account)));
    }
    which
}

/// Has jobs name this pause that name one which ended. When they were put by stays as it is.
///
/// # Errors
/// What the database reports.
pub fn restate(connection: &mut AnyConnection, ended: &PauseRow, pause: &PauseRow) -> QueryResult<usize> {
    let named = job::why_code.eq(PAUSE).and(job::why.eq(ended.why()));
    diesel::update(job::table.filter(meant(pause)).filter(resting()).filter(named))
        .set((job::why.eq(pause.why()), job::version.eq(job::version + 1)))
        .execute(connection)
}

/// Puts by every queued job that a new pause holds and that could begin now; those that begin later are put by when
/// their time comes.
///
/// # Errors
/// What the database reports.
pub fn hold_queued(connection: &mut AnyConnection, pause: &PauseRow) -> QueryResult<usize> {
    let now = connection.now()?.0;
    let due = job::due_at.is_not_null().and(job::due_at.assume_not_null().le(now));
    diesel::update(job::table.filter(meant(pause)).filter(resting()).filter(due))
        .set((
            job::due_at.eq(None::<i64>),
            job::why_code.eq(PAUSE),
            job::why.eq(pause.why()),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)
}

/// Whose held jobs are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A tenant's, when a pause of it ends.
    Of(i64),
    /// Everybody's: for the sweep.
    Any,
}

fn held(whose: Wake) -> Cond {
    let free = resting().and(job::due_at.is_null()).and(job::why_code.eq(PAUSE)).and(not(is_paused()));
    match whose {
        Wake::Of(customer) => Box::new(job::customer.eq(customer).and(free)),
        Wake::Any => Box::new(free),
    }
}

/// Whether a job is held by nothing any more: two moves at the same moment can leave one so. Two looks into an index
/// where nothing is held.
///
/// # Errors
/// What the database reports.
pub fn released(connection: &mut AnyConnection) -> QueryResult<bool> {
    let found: Option<String> =
        job::table.filter(held(Wake::Any)).select(job::uid).first(connection).optional()?;
    Ok(found.is_some())
}

/// Makes jobs due that nothing holds any more, and gives them back the time they were held; the most urgent first, as
/// many as are worth a nudge each.
///
/// # Errors
/// What the database reports.
pub fn wake(connection: &mut AnyConnection, whose: Wake) -> QueryResult<Vec<String>> {
    let now = connection.now()?.0;
    let first = job::table
        .filter(held(whose))
        .order((job::priority.desc(), job::id.asc()))
        .select(job::uid)
        .limit(NUDGED)
        .load(connection)?;
    diesel::update(job::table.filter(held(whose)))
        .set((
            job::due_at.eq(Some(now)),
            // Counted from its start: what it was held does not count. The row changed last when it was put by.
            job::deadline.eq(job::deadline - job::changed_at + now),
            job::why_code.eq("dispatch"),
            job::why.eq("accepted; waiting for a dispatcher to claim it"),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    Ok(first)
}
