//! What may still turn up at a cloud after a job ended: who looks for it, when, and what was found.
//!
//! A row is worked at by one life at a time, which claims it by its version; a life that died holds nothing. Jobs that
//! ended stay ended, and servers are entered only by jobs that have not: what [`facts`] says about an ended job's
//! resources is true for ever.

use std::time::Duration;

use diesel::dsl::exists;
use diesel::prelude::*;

use super::node as lives;
use super::schema::{job, node, obligation, server};
use super::transition::Obligation;
use crate::model::{
    AccountId, Boot, CustomerId, JobId, JobState, JobUid, Micros, ObligationState, RegionId, ServerId,
    ServerStatus,
};
use crate::store::AnyConnection;

/// A row of `obligation`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = obligation, treat_none_as_default_value = false)]
pub struct ObligationRow {
    /// The tag that is looked for.
    pub tag: String,
    /// Uid of the job it names; empty where the tag names none.
    pub job: String,
    /// The tenant.
    pub customer: i64,
    /// The account it is looked for in.
    pub account: i64,
    /// The region it is looked for in.
    pub region: i64,
    /// An [`ObligationState`].
    pub state: String,
    /// The life that looks now.
    pub owner: Option<String>,
    /// When it is looked for next.
    pub look_at: i64,
    /// Until when it is looked for where nothing is found.
    pub look_until: i64,
    /// Looks that were answered.
    pub looks: i32,
    /// Looks in a row that were not.
    pub failures: i32,
    /// What the last look found, as JSON.
    pub found: String,
    /// What was seen when, as JSON.
    pub record: String,
    /// When it was written.
    pub made_at: i64,
    /// When it was looked for last.
    pub looked_at: Option<i64>,
    /// When nobody looked for it any more.
    pub closed_at: Option<i64>,
    /// Counts the changes of the row.
    pub version: i64,
}

/// An empty list, as rows hold it.
const NOTHING: &str = "[]";

/// Writes what a job's end owes. One that is there already stays as it is.
pub(super) fn owe(connection: &mut AnyConnection, job: JobUid, owed: &Obligation) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let row = ObligationRow {
        tag: owed.tag.clone(),
        job: job.to_string(),
        customer: owed.customer.0,
        account: owed.account.0,
        region: owed.region.0,
        state: ObligationState::Watched.to_string(),
        owner: None,
        look_at: owed.look_at.0,
        look_until: owed.look_until.0,
        looks: 0,
        failures: 0,
        found: NOTHING.to_owned(),
        record: NOTHING.to_owned(),
        made_at: now,
        looked_at: None,
        closed_at: None,
        version: 1,
    };
    super::insert_new(diesel::insert_into(obligation::table).values(&row).execute(connection))
}

/// Something with a tag of ours that nobody seems to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its tag.
    pub tag: String,
    /// The job the tag names, if it names one.
    pub job: Option<JobUid>,
    /// Whose account it is in.
    pub customer: CustomerId,
    /// The account.
    pub account: AccountId,
    /// The region.
    pub region: RegionId,
}

/// Has a stray looked at now: as a new row, or by opening the one that was closed. False when somebody watches it
/// already.
///
/// # Errors
/// What the database reports.
pub fn noticed(connection: &mut AnyConnection, stray: &Stray) -> QueryResult<bool> {
    let now = connection.now()?;
    let row = ObligationRow {
        tag: stray.tag.clone(),
        job: stray.job.map_or_else(String::new, |uid| uid.to_string()),
        customer: stray.customer.0,
        account: stray.account.0,
        region: stray.region.0,
        state: ObligationState::Watched.to_string(),
        owner: None,
        look_at: now.0,
        look_until: now.0,
        looks: 0,
        failures: 0,
        found: NOTHING.to_owned(),
        record: NOTHING.to_owned(),
        made_at: now.0,
        looked_at: None,
        closed_at: None,
        version: 1,
    };
    if super::insert_new(diesel::insert_into(obligation::table).values(&row).execute(connection))? {
        return Ok(true);
    }
    let closed =
        obligation::table.filter(obligation::tag.eq(&stray.tag).and(obligation::closed_at.is_not_null()));
    let rows = diesel::update(closed)
        .set((
            obligation::state.eq(ObligationState::Watched.as_str()),
            obligation::closed_at.eq(None::<i64>),
            obligation::look_at.eq(now.0),
            obligation::version.eq(obligation::version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Obligations whose next look is due, the longest due first.
///
/// # Errors
/// What the database reports.
pub fn due(connection: &mut AnyConnection, limit: i64) -> QueryResult<Vec<ObligationRow>> {
    let now = connection.now()?.0;
    obligation::table
        .filter(obligation::closed_at.is_null().and(obligation::look_at.le(now)))
        .order(obligation::look_at.asc())
        .limit(limit)
        .select(ObligationRow::as_select())
        .load(connection)
}

/// Takes an obligation for one look, if nobody living has it and it is as it was seen. The row as it is then.
///
/// # Errors
/// What the database reports.
pub fn claim(
    connection: &mut AnyConnection,
    boot: Boot,
    seen: &ObligationRow,
) -> QueryResult<Option<ObligationRow>> {
    let me = boot.to_string();
    let dead = node::table.filter(node::state.eq(lives::DEAD)).select(node::boot.nullable());
    let i_live = node::table.filter(node::boot.eq(&me).and(node::state.eq(lives::ALIVE)));
    let free = obligation::table
        .filter(obligation::tag.eq(&seen.tag).and(obligation::version.eq(seen.version)))
        .filter(obligation::closed_at.is_null())
        // Its own row is one that a look of this life left when it failed.
        .filter(obligation::owner.is_null().or(obligation::owner.eq(&me)).or(obligation::owner.eq_any(dead)))
        .filter(exists(i_live));
    let taken = ObligationRow { owner: Some(me.clone()), version: seen.version + 1, ..seen.clone() };
    let rows = diesel::update(free)
        .set((obligation::owner.eq(Some(&me)), obligation::version.eq(taken.version)))
        .execute(connection)?;
    if rows == 1 {
        return Ok(Some(taken));
    }
    // The commit of this very claim was unknown and it runs again.
    let mine = obligation::table.filter(
        obligation::tag
            .eq(&seen.tag)
            .and(obligation::version.eq(taken.version))
            .and(obligation::owner.eq(&me)),
    );
    Ok(diesel::select(exists(mine)).get_result::<bool>(connection)?.then_some(taken))
}

/// What a look makes of an obligation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// How far it is.
    pub state: ObligationState,
    /// When it is looked for next.
    pub look_at: Micros,
    /// Whether this look was answered.
    pub answered: bool,
    /// What was found, as JSON; none keeps what is there.
    pub found: Option<String>,
    /// What was seen when, as JSON.
    pub record: String,
}

/// Writes what a look found and gives the obligation up; the guard of everything that follows from the look. False
/// when it is another's by now.
///
/// # Errors
/// What the database reports.
pub fn looked(connection: &mut AnyConnection, held: &ObligationRow, after: &After) -> QueryResult<bool> {
    let now = connection.now()?.0;
    let mine = obligation::table.filter(
        obligation::tag
            .eq(&held.tag)
            .and(obligation::version.eq(held.version))
            .and(obligation::owner.eq(&held.owner)),
    );
    let closed = after.state == ObligationState::Closed;
    let answered = i32::from(after.answered);
    let rows = diesel::update(mine)
        .set((
            obligation::state.eq(after.state.as_str()),
            obligation::owner.eq(None::<String>),
            obligation::look_at.eq(after.look_at.0),
            obligation::looks.eq(held.looks.saturating_add(answered)),
            obligation::failures.eq(if after.answered { 0 } else { held.failures.saturating_add(1) }),
            obligation::found.eq(after.found.as_ref().unwrap_or(&held.found)),
            obligation::record.eq(&after.record),
            obligation::looked_at.eq(Some(now)),
            obligation::closed_at.eq(closed.then_some(now)),
            obligation::version.eq(held.version + 1),
        ))
        .execute(connection)?;
    Ok(rows == 1)
}

/// What the rows say of the job that a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfJob {
    /// Its number.
    pub id: JobId,
    /// The account it used.
    pub account: AccountId,
    /// Its state.
    pub state: JobState,
    /// The provider's id of what it made and knew of.
    pub resource: Option<String>,
    /// Name of the server it was to make; empty where it makes none.
    pub name: String,
    /// Who asked for it.
    pub person: i64,
    /// When it was accepted.
    pub created_at: Micros,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

/// A server's row that names a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfServer {
    /// The server.
    pub id: ServerId,
    /// The provider's id.
    pub resource: String,
    /// Whether it was seen gone.
    pub gone: bool,
}

/// A job that takes a resource back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTaking {
    /// The job.
    pub uid: JobUid,
    /// Its number.
    pub id: JobId,
    /// Its state.
    pub state: JobState,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

/// What decides about found resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The job their tag names; none where no row of it is there.
    pub job: Option<OfJob>,
    /// Servers that are these resources.
    pub servers: Vec<OfServer>,
    /// Jobs that take them back.
    pub takings: Vec<OfTaking>,
}

type JobColumns = (i64, i64, String, Option<String>, String, i64, i64, Option<i64>);

/// Reads what decides about resources. The job first: what it entered, it entered before it ended.
///
/// # Errors
/// What the database reports.
pub fn facts(
    connection: &mut AnyConnection,
    of: &ObligationRow,
    resources: &[String],
    takings: &[JobUid],
) -> QueryResult<Facts> {
    let found: Option<JobColumns> = job::table
        .find(&of.job)
        .select((
            job::id,
            job::account,
            job::state,
            job::resource,
            job::params,
            job::person,
            job::created_at,
            job::ended_at,
        ))
        .first(connection)
        .optional()?;
    Ok(Facts {
        job: found.map(of_job_columns),
        servers: servers(connection, CustomerId(of.customer), resources)?,
        takings: jobs_by_uid(connection, takings)?,
    })
}

fn of_job_columns((id, account, state, resource, params, person, created, ended): JobColumns) -> OfJob {
    let params: serde_json::Value = serde_json::from_str(&params).unwrap_or_default();
    OfJob {
        id: JobId(id),
        account: AccountId(account),
        // A word nobody knows is no end.
        state: state.parse().unwrap_or(JobState::Queued),
        resource,
        name: params.pointer("/params/name").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
        person,
        created_at: Micros(created),
        ended_at: ended.map(Micros),
    }
}

fn servers(
    connection: &mut AnyConnection,
    customer: CustomerId,
    resources: &[String],
) -> QueryResult<Vec<OfServer>> {
    let rows: Vec<(i64, String, String)> = server::table
        .filter(server::customer.eq(customer.0).and(server::provider_id.eq_any(resources)))
        .select((server::id, server::provider_id, server::status))
        .load(connection)?;
    let typed = |(id, resource, status): (i64, String, String)| OfServer {
        id: ServerId(id),
        resource,
        gone: status == ServerStatus::Terminated.as_str(),
    };
    Ok(rows.into_iter().map(typed).collect())
}

fn jobs_by_uid(connection: &mut AnyConnection, uids: &[JobUid]) -> QueryResult<Vec<OfTaking>> {
    let names: Vec<String> = uids.iter().map(JobUid::to_string).collect();
    let rows: Vec<(String, i64, String, Option<i64>)> = job::table
        .filter(job::uid.eq_any(names))
        .select((job::uid, job::id, job::state, job::ended_at))
        .load(connection)?;
    let typed = |(uid, id, state, ended): (String, i64, String, Option<i64>)| {
        Some(OfTaking {
            uid: uid.parse().ok()?,
            id: JobId(id),
            state: state.parse().ok()?,
            ended_at: ended.map(Micros),
        })
    };
    Ok(rows.into_iter().filter_map(typed).collect())
}

/// Which of a tenant's resources have a server's row, and which of these jobs are there, with whether they ended:
/// for a sweep over many.
///
/// # Errors
/// What the database reports.
pub fn owners(
    connection: &mut AnyConnection,
    customer: CustomerId,
    (resources, jobs): (&[String], &[JobUid]),
) -> QueryResult<(Vec<OfServer>, Vec<OfTaking>)> {
    let jobs = jobs_by_uid(connection, jobs)?;
    Ok((servers(connection, customer, resources)?, jobs))
}

/// Which obligations a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those in this state; none for all that are not closed.
    pub state: Option<ObligationState>,
    /// Closed ones too.
    pub closed: bool,
    /// Only those of this job.
    pub job: Option<JobUid>,
    /// At most so many.
    pub limit: i64,
}

/// A tenant's obligations, newest first.
///
/// # Errors
/// What the database reports.
pub fn list(
    connection: &mut AnyConnection,
    customer: CustomerId,
    filter: &Filter,
) -> QueryResult<Vec<ObligationRow>> {
    let mut query = obligation::table
        .filter(obligation::customer.eq(customer.0))
        .select(ObligationRow::as_select())
        .into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(obligation::state.eq(state.as_str()));
    } else if !filter.closed {
        query = query.filter(obligation::closed_at.is_null());
    }
    if let Some(uid) = filter.job {
        query = query.filter(obligation::job.eq(uid.to_string()));
    }
    query.order(obligation::made_at.desc()).limit(filter.limit).load(connection)
}

/// How many obligations are in each state but closed.
///
/// # Errors
/// What the database reports.
pub fn counts(connection: &mut AnyConnection) -> QueryResult<Vec<(String, i64)>> {
    obligation::table
        .filter(obligation::closed_at.is_null())
        .group_by(obligation::state)
        .select((obligation::state, diesel::dsl::count_star()))
        .load(connection)
}

/// Forgets obligations that were closed longer ago than this.
///
/// # Errors
/// What the database reports.
pub fn forget(connection: &mut AnyConnection, kept: Duration) -> QueryResult<usize> {
    let before = connection.now()?.minus(kept).0;
    diesel::delete(obligation::table.filter(obligation::closed_at.lt(before))).execute(connection)
}
