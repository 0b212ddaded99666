//! Figures about a tenant's jobs, read from their rows. Each read is bounded: by the newest jobs, or by the open ones.

use diesel::dsl::{count_star, exists, max, min, not};
use diesel::prelude::*;

use super::job::JobRow;
use super::node::DEAD;
use super::schema::{attempt, evidence, job, watch};
use super::view::WAITING;
use crate::model::{AttemptOutcome, CustomerId, JobState, ServerId};
use crate::store::AnyConnection;

/// The times of one job.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct Timed {
    /// Its uid.
    pub uid: String,
    /// Its number.
    pub id: i64,
    /// Its state.
    pub state: String,
    /// Machine code of what it waits for, or why it ended so.
    pub why_code: String,
    /// When it was accepted.
    pub created_at: i64,
    /// When it was claimed first.
    pub claimed_at: Option<i64>,
}

/// The newest jobs of a tenant.
///
/// # Errors
/// What the database reports.
pub fn newest(connection: &mut AnyConnection, customer: CustomerId, limit: i64) -> QueryResult<Vec<Timed>> {
    job::table
        .filter(job::customer.eq(customer.0))
        .order(job::id.desc())
        .limit(limit)
        .select((job::uid, job::id, job::state, job::why_code, job::created_at, job::claimed_at))
        .load(connection)
}

/// When each of a tenant's jobs from a number on sent its first call.
///
/// # Errors
/// What the database reports.
pub fn first_calls(
    connection: &mut AnyConnection,
    customer: CustomerId,
    from: i64,
) -> QueryResult<Vec<(String, Option<i64>)>> {
    let those = job::table.filter(job::customer.eq(customer.0).and(job::id.ge(from))).select(job::uid);
    attempt::table
        .filter(attempt::job.eq_any(those))
        .group_by(attempt::job)
        .select((attempt::job, min(attempt::started_at)))
        .load(connection)
}

/// When each of these jobs got its last verdict.
///
/// # Errors
/// What the database reports.
pub fn verdicts(
    connection: &mut AnyConnection,
    customer: CustomerId,
    from: i64,
) -> QueryResult<Vec<(String, Option<i64>)>> {
    let those = job::table.filter(job::customer.eq(customer.0).and(job::id.ge(from))).select(job::uid);
    watch::table
        .filter(watch::job.eq_any(those).and(watch::done_at.is_not_null()))
        .group_by(watch::job)
        .select((watch::job, max(watch::done_at)))
        .load(connection)
}

/// Calls of these jobs that were refused, with their class, oldest first.
///
/// # Errors
/// What the database reports.
pub fn refusals(
    connection: &mut AnyConnection,
    customer: CustomerId,
    from: i64,
) -> QueryResult<Vec<(String, Option<String>)>> {
    let those = job::table.filter(job::customer.eq(customer.0).and(job::id.ge(from))).select(job::uid);
    attempt::table
        .filter(attempt::job.eq_any(those).and(attempt::outcome.eq(AttemptOutcome::Refused.as_str())))
        .order(attempt::started_at.asc())
        .select((attempt::job, attempt::class))
        .load(connection)
}

/// A tenant's open jobs. Written as a range of one, because there are few open jobs and many of a tenant: so the index
/// of open jobs is used, not that of the tenant's.
macro_rules! open {
    ($customer:expr) => {
        job::table.filter(job::ended_at.is_null().and(job::customer.between($customer.0, $customer.0)))
    };
}

/// What a tenant's jobs wait for: code, how many, since when the oldest is there.
///
/// # Errors
/// What the database reports.
pub fn waiting(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> QueryResult<Vec<(String, i64, Option<i64>)>> {
    open!(customer)
        .filter(job::state.eq_any(WAITING.map(JobState::as_str)))
        .group_by(job::why_code)
        .select((job::why_code, count_star(), min(job::created_at)))
        .load(connection)
}

/// Jobs that are set aside, oldest first.
///
/// # Errors
/// What the database reports.
pub fn set_aside(
    connection: &mut AnyConnection,
    customer: CustomerId,
    limit: i64,
) -> QueryResult<Vec<JobRow>> {
    open!(customer)
        .filter(job::state.eq(JobState::Quarantined.as_str()))
        .order(job::created_at.asc())
        .limit(limit)
        .select(JobRow::as_select())
        .load(connection)
}

/// Jobs by their uids.
///
/// # Errors
/// What the database reports.
pub fn named(connection: &mut AnyConnection, uids: &[String]) -> QueryResult<Vec<JobRow>> {
    job::table.filter(job::uid.eq_any(uids)).order(job::id.asc()).select(JobRow::as_select()).load(connection)
}

/// How many open jobs nobody would ever look at again: no living owner, no time at which they are due, and no open
/// watch. It must be none.
///
/// # Errors
/// What the database reports.
pub fn lost(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<i64> {
    let open = watch::table.filter(watch::job.eq(job::uid).and(watch::done_at.is_null()));
    open!(customer)
        .filter(job::owner.is_null().and(job::due_at.is_null()))
        .filter(not(exists(open)))
        .count()
        .get_result(connection)
}

/// A life with the open jobs it holds.
pub type Holder = (super::node::Node, i64);

/// Lives that live or hold jobs, newest first.
///
/// # Errors
/// What the database reports.
pub fn holders(connection: &mut AnyConnection) -> QueryResult<Vec<Holder>> {
    let held: Vec<(Option<String>, i64)> = job::table
        .filter(job::ended_at.is_null().and(job::owner.is_not_null()))
        .group_by(job::owner)
        .select((job::owner, count_star()))
        .load(connection)?;
    let of =
        |boot: &str| held.iter().find(|(owner, _)| owner.as_deref() == Some(boot)).map_or(0, |(_, n)| *n);
    let lives = super::node::all(connection)?;
    let with = lives.into_iter().map(|node| (of(&node.boot), node));
    Ok(with.filter(|(jobs, node)| *jobs > 0 || node.state != DEAD).map(|(jobs, node)| (node, jobs)).collect())
}

/// What a cloud was last seen to say of a server: who looked, what they saw, when. From the evidence of its jobs.
///
/// # Errors
/// What the database reports.
pub fn cloud_said(
    connection: &mut AnyConnection,
    id: ServerId,
) -> QueryResult<Option<(String, String, i64)>> {
    let uids: Vec<String> = job::table
        .filter(job::server.eq(id.0))
        .order(job::id.desc())
        .limit(NEWEST)
        .select(job::uid)
        .load(connection)?;
    evidence::table
        .filter(evidence::job.eq_any(uids).and(evidence::source.like("monitor/%")))
        .order(evidence::made_at.desc())
        .select((evidence::source, evidence::text, evidence::made_at))
        .first(connection)
        .optional()
}

/// Jobs of a server among which evidence is looked for.
const NEWEST: i64 = 50;

/// Uids and numbers of jobs.
///
/// # Errors
/// What the database reports.
pub fn numbers(connection: &mut AnyConnection, uids: &[String]) -> QueryResult<Vec<(String, i64)>> {
    job::table.filter(job::uid.eq_any(uids)).select((job::uid, job::id)).load(connection)
}
