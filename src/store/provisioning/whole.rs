//! Jobs of all tenants at once, for those who compare them with what really happened. Reads only, outside of any process
//! that works on them.

use diesel::prelude::*;

use super::schema::{attempt, evidence, guest_command, idem, job, node};
use crate::store::AnyConnection;

/// A job as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable)]
pub struct Whole {
    /// Its uid.
    pub uid: String,
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// Its state.
    pub state: String,
    /// The server it made or is about.
    pub server: Option<i64>,
    /// The resource it made, as the cloud names it.
    pub resource: Option<String>,
    /// Who asked for its cancel.
    pub cancel_by: Option<String>,
    /// What clients read at its end.
    pub message: Option<String>,
    /// What it waits for.
    pub why: String,
    /// When it was accepted.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// What was asked for.
    pub params: String,
}

/// All jobs by number.
///
/// # Errors
/// What the database reports.
pub fn jobs(connection: &mut AnyConnection) -> QueryResult<Vec<Whole>> {
    job::table
        .order(job::id)
        .select((
            job::uid,
            job::id,
            job::kind,
            job::state,
            job::server,
            job::resource,
            job::cancel_by,
            job::message,
            job::why,
            job::created_at,
            job::ended_at,
            job::params,
        ))
        .load(connection)
}

/// Idempotency keys with the uids of their jobs.
///
/// # Errors
/// What the database reports.
pub fn keys(connection: &mut AnyConnection) -> QueryResult<Vec<(String, Option<String>)>> {
    idem::table.select((idem::idem_key, idem::job)).load(connection)
}

/// How many jobs have not ended.
///
/// # Errors
/// What the database reports.
pub fn open(connection: &mut AnyConnection) -> QueryResult<i64> {
    job::table.filter(job::ended_at.is_null()).count().get_result(connection)
}

/// What the life `boot` holds: uid and epoch of each job.
///
/// # Errors
/// What the database reports.
pub fn held(connection: &mut AnyConnection, boot: &str) -> QueryResult<Vec<(String, i64)>> {
    let mine = job::table.filter(job::owner.eq(boot).and(job::ended_at.is_null()));
    mine.select((job::uid, job::epoch)).load(connection)
}

/// Where a job is: uid, epoch, state, when it ended.
pub type Standing = (String, i64, String, Option<i64>);

/// Where each of these jobs is.
///
/// # Errors
/// What the database reports.
pub fn places(connection: &mut AnyConnection, uids: &[String]) -> QueryResult<Vec<Standing>> {
    let those = job::table.filter(job::uid.eq_any(uids));
    those.select((job::uid, job::epoch, job::state, job::ended_at)).load(connection)
}

/// What was written down before each call: uid of its job, step, token.
///
/// # Errors
/// What the database reports.
pub fn attempts(connection: &mut AnyConnection) -> QueryResult<Vec<(String, String, String)>> {
    attempt::table.select((attempt::job, attempt::step, attempt::token)).load(connection)
}

/// The state of a life; none of one that is not known.
///
/// # Errors
/// What the database reports.
pub fn life(connection: &mut AnyConnection, boot: &str) -> QueryResult<Option<String>> {
    node::table.filter(node::boot.eq(boot)).select(node::state).first(connection).optional()
}

/// Commands that a look at their guest found absent, and that were called off by it: uid of the job, the epoch of the look.
///
/// # Errors
/// What the database reports.
pub fn called_off(connection: &mut AnyConnection, said: &str) -> QueryResult<Vec<(String, i64)>> {
    let absent = evidence::table.filter(evidence::text.like(format!("%{said}%"))).select(evidence::job);
    guest_command::table
        .filter(guest_command::job.eq_any(absent).and(guest_command::cancel_epoch.is_not_null()))
        .select((guest_command::job, guest_command::cancel_epoch.assume_not_null()))
        .load(connection)
}
