//! Schedules: jobs that are submitted again and again, each time once however many nodes there are.

use diesel::prelude::*;

use super::accept::{self, Accepted, Submit};
use super::job::JobRow;
use super::schema::schedule;
use crate::model::{CustomerId, Micros};
use crate::store::AnyConnection;

/// Schedules one tenant may have.
pub const MOST: i64 = 500;

/// What becomes of a time that passed while nobody could fire.
pub const MISFIRES: [&str; 2] = ["skip", "once"];

/// A row of `schedule`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = schedule, treat_none_as_default_value = false)]
pub struct ScheduleRow {
    /// Its number.
    pub id: i64,
    /// The tenant.
    pub customer: i64,
    /// The account its jobs use.
    pub account: i64,
    /// Who made it: its jobs are theirs.
    pub person: i64,
    /// Its name, unique in the tenant.
    pub name: String,
    /// When, as a cron expression of five fields in UTC.
    pub cron: String,
    /// What its jobs do, with nothing left to look up.
    pub params: String,
    /// The same in words.
    pub description: String,
    /// Priority of its jobs.
    pub priority: i32,
    /// Time limit of its jobs, in microseconds.
    pub time_limit: i64,
    /// What becomes of a missed time, one of [`MISFIRES`].
    pub misfire: String,
    /// Whether it fires.
    pub enabled: bool,
    /// When it fires next; none while it is disabled.
    pub next_at: Option<i64>,
    /// The time it fired for last.
    pub last_at: Option<i64>,
    /// Number of the job made then.
    pub last_job: Option<i64>,
    /// When it was made.
    pub made_at: i64,
    /// Counts the changes of the row.
    pub version: i64,
}

/// A tenant's schedules, oldest first.
///
/// # Errors
/// What the database reports.
pub fn list(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<ScheduleRow>> {
    schedule::table
        .filter(schedule::customer.eq(customer.0))
        .order(schedule::id.asc())
        .limit(MOST)
        .select(ScheduleRow::as_select())
        .load(connection)
}

/// One of a tenant's schedules.
///
/// # Errors
/// What the database reports.
pub fn by_id(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: i64,
) -> QueryResult<Option<ScheduleRow>> {
    schedule::table
        .filter(schedule::id.eq(id).and(schedule::customer.eq(customer.0)))
        .select(ScheduleRow::as_select())
        .first(connection)
        .optional()
}

/// Stores a schedule; false when the tenant has one of that name.
///
/// # Errors
/// What the database reports.
pub fn insert(connection: &mut AnyConnection, row: &ScheduleRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(schedule::table).values(row).execute(connection))
}

/// Has a schedule fire next at a time, or not at all; whether it is there.
///
/// # Errors
/// What the database reports.
pub fn set_next(
    connection: &mut AnyConnection,
    (customer, id): (CustomerId, i64),
    next: Option<Micros>,
) -> QueryResult<bool> {
    let mine = schedule::table.filter(schedule::id.eq(id).and(schedule::customer.eq(customer.0)));
    let rows = diesel::update(mine)
        .set((
            schedule::enabled.eq(next.is_some()),
            schedule::next_at.eq(next.map(|at| at.0)),
            schedule::version.eq(schedule::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Takes a tenant's schedule away; whether it was there. Its jobs stay.
///
/// # Errors
/// What the database reports.
pub fn remove(connection: &mut AnyConnection, customer: CustomerId, id: i64) -> QueryResult<bool> {
    let mine = schedule::table.filter(schedule::id.eq(id).and(schedule::customer.eq(customer.0)));
    Ok(diesel::delete(mine).execute(connection)? == 1)
}

/// Schedules whose time has come, the longest due first.
///
/// # Errors
/// What the database reports.
pub fn due(connection: &mut AnyConnection, limit: i64) -> QueryResult<Vec<ScheduleRow>> {
    let now = connection.now()?.0;
    schedule::table
        .filter(schedule::next_at.le(now))
        .order(schedule::next_at.asc())
        .limit(limit)
        .select(ScheduleRow::as_select())
        .load(connection)
}

/// When the next schedule fires.
///
/// # Errors
/// What the database reports.
pub fn next(connection: &mut AnyConnection) -> QueryResult<Option<Micros>> {
    let next: Option<i64> = schedule::table.select(diesel::dsl::min(schedule::next_at)).first(connection)?;
    Ok(next.map(Micros))
}

/// Moves a schedule on from the time it was seen to be due, and accepts its job in the same item, if there is one.
///
/// None when another node was faster, or the schedule was changed meanwhile: then nothing is done.
///
/// # Errors
/// What the database reports.
pub fn fire(
    connection: &mut AnyConnection,
    seen: &ScheduleRow,
    next: Option<Micros>,
    job: Option<&Submit>,
) -> QueryResult<Option<JobRow>> {
    let same = schedule::table
        .filter(schedule::id.eq(seen.id).and(schedule::enabled.eq(true)))
        .filter(schedule::next_at.eq(seen.next_at).and(schedule::version.eq(seen.version)));
    let moved = (
        schedule::enabled.eq(next.is_some()),
        schedule::next_at.eq(next.map(|at| at.0)),
        schedule::version.eq(seen.version + 1),
    );
    let rows = match job {
        Some(job) => {
            let fired = (schedule::last_at.eq(seen.next_at), schedule::last_job.eq(Some(job.id.0)));
            diesel::update(same).set((moved, fired)).execute(connection)?
        }
        None => diesel::update(same).set(moved).execute(connection)?,
    };
    let Some(job) = job.filter(|_| rows == 1) else { return Ok(None) };
    match accept::accept(connection, job)? {
        Accepted::Stored(row) => Ok(Some(*row)),
        Accepted::Same(_) | Accepted::Conflict | Accepted::Replayed => Ok(None),
    }
}
