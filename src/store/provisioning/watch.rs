//! Watches: what somebody must see before a job may end.

use diesel::prelude::*;

use super::schema::watch;
use crate::model::{CustomerId, JobUid, Micros, WatchKind, WatchUid};
use crate::store::{AnyConnection, Error, Later, Prepared};

#[derive(Clone, Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = watch, treat_none_as_default_value = false)]
pub(super) struct WatchRow {
    pub(super) uid: String,
    pub(super) job: String,
    pub(super) customer: i64,
    pub(super) step: String,
    pub(super) try_no: i32,
    pub(super) kind: String,
    pub(super) target: String,
    pub(super) expectation: String,
    pub(super) owner: Option<String>,
    pub(super) due_at: i64,
    pub(super) deadline: i64,
    pub(super) looks: i32,
    pub(super) made_at: i64,
    pub(super) done_at: Option<i64>,
}

/// Watches whose guards came before, written with those of other items.
#[derive(Default)]
pub(super) struct NewWatches(pub(super) Vec<WatchRow>);

impl Later for NewWatches {
    const ORDER: u8 = 1;

    fn write(self, connection: &mut AnyConnection) -> QueryResult<()> {
        if super::insert_together!(connection, watch::table, &self.0)? {
            return Ok(());
        }
        self.0.iter().try_for_each(|row| {
            let new = Prepared(diesel::insert_into(watch::table).values(row));
            super::insert_new(new.execute(connection)).map(drop)
        })
    }
}

/// A watch of one job, step and try.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Watch {
    /// Its name; a verdict decides only if it names an open watch.
    pub uid: WatchUid,
    /// The job.
    pub job: JobUid,
    /// The job's tenant.
    pub customer: CustomerId,
    /// The step whose effect is looked for.
    pub step: String,
    /// The round it belongs to.
    pub try_no: i32,
    /// Who looks.
    pub kind: WatchKind,
    /// What is looked at: the provider's id, or the command's.
    pub target: String,
    /// What must be seen: a server status, or `exit 0`.
    pub expectation: String,
    /// First look not before.
    pub due_at: Micros,
    /// No look after.
    pub deadline: Micros,
    /// When it was made.
    pub made_at: Micros,
    /// When a verdict closed it.
    pub done_at: Option<Micros>,
}

impl From<&Watch> for WatchRow {
    fn from(w: &Watch) -> Self {
        Self {
            uid: w.uid.to_string(),
            job: w.job.to_string(),
            customer: w.customer.0,
            step: w.step.clone(),
            try_no: w.try_no,
            kind: w.kind.to_string(),
            target: w.target.clone(),
            expectation: w.expectation.clone(),
            owner: None,
            due_at: w.due_at.0,
            deadline: w.deadline.0,
            looks: 0,
            made_at: w.made_at.0,
            done_at: w.done_at.map(|at| at.0),
        }
    }
}

impl TryFrom<WatchRow> for Watch {
    type Error = Error;

    fn try_from(row: WatchRow) -> Result<Self, Error> {
        let bad = |column, text: &str| Error::Corrupt { column, text: text.to_owned() };
        Ok(Self {
            uid: row.uid.parse().map_err(|_other| bad("watch.uid", &row.uid))?,
            job: row.job.parse().map_err(|_other| bad("watch.job", &row.job))?,
            kind: row.kind.parse().map_err(|_other| bad("watch.kind", &row.kind))?,
            customer: CustomerId(row.customer),
            step: row.step,
            try_no: row.try_no,
            target: row.target,
            expectation: row.expectation,
            due_at: Micros(row.due_at),
            deadline: Micros(row.deadline),
            made_at: Micros(row.made_at),
            done_at: row.done_at.map(Micros),
        })
    }
}

fn typed(rows: Vec<WatchRow>) -> QueryResult<Vec<Watch>> {
    rows.into_iter().map(Watch::try_from).collect::<Result<_, _>>().map_err(super::corrupt)
}

/// The watches of a job, oldest first.
///
/// # Errors
/// What the database reports.
pub fn of_job(connection: &mut AnyConnection, job: JobUid) -> QueryResult<Vec<Watch>> {
    let rows = watch::table
        .filter(watch::job.eq(job.to_string()))
        .order(watch::try_no.asc())
        .select(WatchRow::as_select())
        .load(connection)?;
    typed(rows)
}

/// The watches of several jobs, those of each oldest first.
pub(super) fn of_jobs(connection: &mut AnyConnection, jobs: &[String]) -> QueryResult<Vec<Watch>> {
    let rows = watch::table
        .filter(watch::job.eq_any(jobs))
        .order(watch::try_no.asc())
        .select(WatchRow::as_select())
        .load(connection)?;
    typed(rows)
}

/// One watch.
///
/// # Errors
/// What the database reports.
pub fn by_uid(connection: &mut AnyConnection, uid: WatchUid) -> QueryResult<Option<Watch>> {
    let row: Option<WatchRow> =
        watch::table.find(uid.to_string()).select(WatchRow::as_select()).first(connection).optional()?;
    row.map(Watch::try_from).transpose().map_err(super::corrupt)
}

/// Watches by their names, in any order; those that are gone are left out.
///
/// # Errors
/// What the database reports.
pub fn by_uids(connection: &mut AnyConnection, uids: &[WatchUid]) -> QueryResult<Vec<Watch>> {
    let names: Vec<String> = uids.iter().map(ToString::to_string).collect();
    let rows =
        watch::table.filter(watch::uid.eq_any(names)).select(WatchRow::as_select()).load(connection)?;
    typed(rows)
}

/// Open watches of a kind that are due, oldest first: the sweep by state.
///
/// # Errors
/// What the database reports.
pub fn open(connection: &mut AnyConnection, kind: WatchKind, limit: i64) -> QueryResult<Vec<Watch>> {
    let now = connection.now()?;
    let rows = watch::table
        .filter(watch::done_at.is_null().and(watch::kind.eq(kind.as_str())).and(watch::due_at.le(now.0)))
        .order(watch::due_at.asc())
        .limit(limit)
        .select(WatchRow::as_select())
        .load(connection)?;
    typed(rows)
}

/// Writes a watch that no job opened, for tests of other rooms.
///
/// # Errors
/// What the database reports.
#[cfg(test)]
pub fn plant(connection: &mut AnyConnection, new: &Watch) -> QueryResult<usize> {
    diesel::insert_into(watch::table).values(&WatchRow::from(new)).execute(connection)
}
