//! Servers as resources: what the cloud was seen to have, and which job works on one.

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::schema::{job, server};
use crate::model::{
    BillingCodeId, CustomerId, GroupId, JobKind, JobUid, Micros, RegionId, ServerId, ServerStatus,
};
use crate::store::AnyConnection;

/// A row of `server`.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = server, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct ServerRow {
    pub id: i64,
    pub customer: i64,
    pub account: i64,
    pub cloud: i64,
    pub region: i64,
    pub data_center: i64,
    pub product: i64,
    pub provider_product: String,
    pub image: i64,
    pub name: String,
    pub description: String,
    pub provider_id: String,
    pub job: String,
    pub status: String,
    pub platform: String,
    pub architecture: String,
    pub agent_version: i64,
    pub budget: i64,
    pub label: Option<String>,
    pub keypair: Option<String>,
    pub owner: i64,
    pub user_groups: String,
    pub private_ip: Option<String>,
    pub public_ip: Option<String>,
    pub started_at: i64,
    pub stopped_at: Option<i64>,
    pub terminate_after: Option<i64>,
    pub pause_after: Option<i64>,
    pub last_contact: Option<i64>,
    pub busy_by: Option<String>,
    pub changed_at: i64,
    pub version: i64,
}

/// A tenant's server.
///
/// # Errors
/// What the database reports.
pub fn by_id(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: ServerId,
) -> QueryResult<Option<ServerRow>> {
    server::table
        .filter(server::id.eq(id.0).and(server::customer.eq(customer.0)))
        .select(ServerRow::as_select())
        .first(connection)
        .optional()
}

/// The server a job made.
///
/// # Errors
/// What the database reports.
pub fn by_job(connection: &mut AnyConnection, job: JobUid) -> QueryResult<Option<ServerRow>> {
    server::table
        .filter(server::job.eq(job.to_string()))
        .select(ServerRow::as_select())
        .first(connection)
        .optional()
}

/// A tenant's servers, terminated ones left out unless asked for.
///
/// # Errors
/// What the database reports.
pub fn list(
    connection: &mut AnyConnection,
    customer: CustomerId,
    region: Option<RegionId>,
    terminated: bool,
) -> QueryResult<Vec<ServerRow>> {
    let mut query =
        server::table.filter(server::customer.eq(customer.0)).select(ServerRow::as_select()).into_boxed();
    if let Some(region) = region {
        query = query.filter(server::region.eq(region.0));
    }
    if !terminated {
        query = query.filter(server::status.ne(ServerStatus::Terminated.as_str()));
    }
    query.order(server::id.asc()).limit(10_000).load(connection)
}

/// Numbers and names of a tenant's servers.
///
/// # Errors
/// What the database reports.
pub fn names(
    connection: &mut AnyConnection,
    customer: CustomerId,
    ids: &[i64],
) -> QueryResult<Vec<(i64, String)>> {
    server::table
        .filter(server::customer.eq(customer.0).and(server::id.eq_any(ids)))
        .select((server::id, server::name))
        .load(connection)
}

/// Inserts a server a job made; a repeat of the same job changes nothing.
///
/// # Errors
/// What the database reports.
pub fn insert(connection: &mut AnyConnection, row: &ServerRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(server::table).values(row).execute(connection))
}

/// What a look at the cloud found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The server.
    pub server: ServerId,
    /// Its state.
    pub status: ServerStatus,
    /// Its private address, if one was seen.
    pub private_ip: Option<String>,
    /// Its public address, if one was seen.
    pub public_ip: Option<String>,
}

/// Writes what was seen.
///
/// # Errors
/// What the database reports.
pub fn saw(connection: &mut AnyConnection, seen: &Seen) -> QueryResult<usize> {
    let now = connection.now()?.0;
    let stopped = matches!(seen.status, ServerStatus::Stopped | ServerStatus::Terminated).then_some(now);
    let row = server::table.find(seen.server.0);
    let rows = diesel::update(row)
        .set((
            server::status.eq(seen.status.as_str()),
            server::stopped_at.eq(stopped),
            server::changed_at.eq(now),
            server::version.eq(server::version + 1),
        ))
        .execute(connection)?;
    if let Some(ip) = &seen.private_ip {
        diesel::update(row).set(server::private_ip.eq(ip)).execute(connection)?;
    }
    if let Some(ip) = &seen.public_ip {
        diesel::update(row).set(server::public_ip.eq(ip)).execute(connection)?;
    }
    Ok(rows)
}

/// Whether it is this job's turn to work on a server: no other holds it, and none that moves it was accepted earlier
/// and is still open.
///
/// # Errors
/// What the database reports.
pub fn turn_of(connection: &mut AnyConnection, id: ServerId, uid: JobUid) -> QueryResult<bool> {
    let name = uid.to_string();
    let free = server::busy_by.is_null().or(server::busy_by.eq(&name));
    let found = server::table.filter(server::id.eq(id.0).and(free));
    if !diesel::select(exists(found)).get_result(connection)? {
        return Ok(false);
    }
    let Some(number) = job::table.find(&name).select(job::id).first::<i64>(connection).optional()? else {
        return Ok(false);
    };
    let moves = JobKind::ALL.iter().filter(|kind| kind.moves_server()).map(|kind| kind.as_str());
    let earlier = job::table
        .filter(job::server.eq(Some(id.0)).and(job::id.lt(number)).and(job::ended_at.is_null()))
        .filter(job::kind.eq_any(moves));
    diesel::select(not(exists(earlier))).get_result(connection)
}

/// Takes a server for a job; false when another job works on it.
///
/// # Errors
/// What the database reports.
pub fn take(connection: &mut AnyConnection, id: ServerId, job: JobUid) -> QueryResult<bool> {
    let name = job.to_string();
    let free = server::busy_by.is_null().or(server::busy_by.eq(&name));
    let rows = diesel::update(server::table.filter(server::id.eq(id.0).and(free)))
        .set(server::busy_by.eq(Some(&name)))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Gives a server back.
///
/// # Errors
/// What the database reports.
pub fn release(connection: &mut AnyConnection, id: ServerId, job: JobUid) -> QueryResult<()> {
    let row = server::table.filter(server::id.eq(id.0).and(server::busy_by.eq(job.to_string())));
    diesel::update(row).set(server::busy_by.eq(None::<String>)).execute(connection).map(|_| ())
}

/// Writes when the agents of these servers were heard last.
///
/// # Errors
/// What the database reports.
pub fn heard(connection: &mut AnyConnection, servers: &[i64], at: Micros) -> QueryResult<usize> {
    diesel::update(server::table.filter(server::id.eq_any(servers.to_vec())))
        .set(server::last_contact.eq(at.0))
        .execute(connection)
}

/// What a client may change of a server; absent means as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Colour or icon.
    pub label: Option<String>,
    /// Who owns it.
    pub groups: Option<Vec<GroupId>>,
    /// Who pays.
    pub budget: Option<BillingCodeId>,
    /// When it is ended automatically.
    pub terminate_after: Option<Micros>,
}

#[derive(AsChangeset)]
#[diesel(table_name = server)]
struct EditRow<'a> {
    name: Option<&'a str>,
    description: Option<&'a str>,
    label: Option<&'a str>,
    user_groups: Option<String>,
    budget: Option<i64>,
    terminate_after: Option<i64>,
    changed_at: i64,
}

/// Changes a tenant's server. Only absolute values, so it may run twice.
///
/// # Errors
/// What the database reports.
pub fn edit(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: ServerId,
    edit: &Edit,
) -> QueryResult<()> {
    let changes = EditRow {
        name: edit.name.as_deref(),
        description: edit.description.as_deref(),
        label: edit.label.as_deref(),
        user_groups: edit.groups.as_deref().map(groups_text),
        budget: edit.budget.map(|id| id.0),
        terminate_after: edit.terminate_after.map(|at| at.0),
        changed_at: connection.now()?.0,
    };
    diesel::update(server::table.filter(server::id.eq(id.0).and(server::customer.eq(customer.0))))
        .set(changes)
        .execute(connection)
        .map(|_| ())
}

/// The column `user_groups`: a JSON list of numbers.
#[must_use]
pub fn groups_text(groups: &[GroupId]) -> String {
    let ids: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// The groups that own a server.
#[must_use]
pub fn groups_of(row: &ServerRow) -> Vec<i64> {
    let list = row.user_groups.trim_matches(['[', ']']);
    list.split(',').filter_map(|id| id.trim().parse().ok()).collect()
}
