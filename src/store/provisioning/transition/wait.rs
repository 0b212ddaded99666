//! Why a job makes no step now, and the moves between its open states.

use diesel::prelude::*;

use super::Fence;
use crate::model::{AttemptUid, Boot, JobState, Micros};
use crate::store::provisioning::schema::{attempt, job};
use crate::store::{AnyConnection, catch_up};

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

/// An unanswered call that nobody sends any more, and when it can no longer land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The open attempt.
    pub attempt: AttemptUid,
    /// After this it is known to have landed or to be absent.
    pub until: Micros,
}

/// Says why a job that keeps its owner makes no step now.
///
/// # Errors
/// What the database reports.
pub fn wait(connection: &mut AnyConnection, fence: Fence, waiting: &Waiting) -> QueryResult<bool> {
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let mine = job::uid.eq(fence.job.to_string()).and(job::epoch.eq(epoch)).and(job::ended_at.is_null());
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
/// `quiet` is written to the open attempt, so that no crash makes the next owner wait, or look, at another time.
///
/// # Errors
/// What the database reports.
pub fn quarantine(
    connection: &mut AnyConnection,
    fence: Fence,
    waiting: &Waiting,
    quiet: Option<Quiet>,
) -> QueryResult<bool> {
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let open = [JobState::Running.as_str(), JobState::Awaiting.as_str(), JobState::Undoing.as_str()];
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::ended_at.is_null())
        .filter(job::state.eq_any(open));
    let rows = diesel::update(mine)
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
    if rows == 1
        && let Some(quiet) = quiet
    {
        catch_up(connection)?;
        let first = attempt::uid.eq(quiet.attempt.to_string()).and(attempt::quiet_until.is_null());
        diesel::update(attempt::table.filter(first))
            .set((attempt::quiet_until.eq(Some(quiet.until.0)), attempt::version.eq(attempt::version + 1)))
            .execute(connection)?;
    }
    Ok(rows == 1)
}

/// Gives up a job that was claimed while it waited for a verdict and still has to wait.
///
/// # Errors
/// What the database reports.
pub fn park(
    connection: &mut AnyConnection,
    fence: Fence,
    boot: Boot,
    waiting: &Waiting,
) -> QueryResult<bool> {
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::owner.eq(boot.to_string()))
        .filter(job::state.eq(JobState::Awaiting.as_str()));
    let rows = diesel::update(mine)
        .set((
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
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let from = [JobState::Running.as_str(), JobState::Awaiting.as_str()];
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
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

/// The next round of a job whose effect was lost: from `awaiting` back to `running`.
///
/// # Errors
/// What the database reports.
pub fn next_try(connection: &mut AnyConnection, fence: Fence, from: i32, why: &str) -> QueryResult<bool> {
    let (now, epoch) = (connection.now()?.0, fence.named(connection)?);
    let mine = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::state.eq(JobState::Awaiting.as_str()))
        .filter(job::try_no.eq(from))
        .filter(job::cancel_by.is_null());
    let rows = diesel::update(mine)
        .set((
            job::state.eq(JobState::Running.as_str()),
            job::try_no.eq(from + 1),
            job::why_code.eq("next-try"),
            job::why.eq(why),
            job::changed_at.eq(now),
            job::version.eq(job::version + 1),
        ))
        .execute(connection)?;
    if rows == 1 {
        return Ok(true);
    }
    // The commit of this very move was unknown and it runs again: as wanted means it was mine.
    let moved = job::table
        .filter(job::uid.eq(fence.job.to_string()))
        .filter(job::epoch.eq(epoch))
        .filter(job::state.eq(JobState::Running.as_str()))
        .filter(job::try_no.eq(from + 1));
    diesel::select(diesel::dsl::exists(moved)).get_result(connection)
}
