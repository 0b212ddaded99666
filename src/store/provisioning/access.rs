//! Who may: people, groups, roles, API keys.

use diesel::prelude::*;

use super::catalog::MOST;
use super::schema::{api_key, person, person_group, role, role_assignment, user_group};
use crate::model::{AccountId, CustomerId, GroupId, RoleId, UserId};
use crate::store::AnyConnection;

/// Status of what may be used.
pub const ACTIVE: &str = "ACTIVE";

/// A group of people.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = user_group, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct GroupRow {
    pub id: i64,
    pub customer: i64,
    pub name: String,
    pub description: String,
    pub status: String,
}

/// A role; `acl` is a JSON list of rules.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = role, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct RoleRow {
    pub id: i64,
    pub customer: i64,
    pub name: String,
    pub description: String,
    pub status: String,
    pub acl: String,
}

/// The role a group has in an account.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = role_assignment, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct AssignmentRow {
    pub customer: i64,
    pub user_group: i64,
    pub account: i64,
    pub role: i64,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = person, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct PersonRow {
    pub id: i64,
    pub customer: i64,
    pub account: i64,
    pub given_name: String,
    pub family_name: String,
    pub email: String,
    pub login: String,
    pub password_hash: String,
    pub time_zone: String,
    pub status: String,
}

/// Membership of a person in a group.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = person_group, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct MemberRow {
    pub person: i64,
    pub user_group: i64,
}

/// A key of a program. The secret is sealed.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_key, treat_none_as_default_value = false)]
#[expect(missing_docs, reason = "one field a column; names are those of the dated API")]
pub struct ApiKeyRow {
    pub access_key: String,
    pub customer: i64,
    pub account: i64,
    pub person: i64,
    pub name: String,
    pub description: String,
    pub sealed_secret: Vec<u8>,
    pub state: String,
    pub activated_at: i64,
    pub expires_at: Option<i64>,
}

/// A tenant's groups.
///
/// # Errors
/// What the database reports.
pub fn groups(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<GroupRow>> {
    user_group::table
        .filter(user_group::customer.eq(customer.0))
        .order(user_group::id.asc())
        .limit(MOST)
        .select(GroupRow::as_select())
        .load(connection)
}

/// A tenant's roles.
///
/// # Errors
/// What the database reports.
pub fn roles(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<RoleRow>> {
    role::table
        .filter(role::customer.eq(customer.0))
        .order(role::id.asc())
        .limit(MOST)
        .select(RoleRow::as_select())
        .load(connection)
}

/// Which role each of a tenant's groups has in which account.
///
/// # Errors
/// What the database reports.
pub fn assignments(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<AssignmentRow>> {
    role_assignment::table
        .filter(role_assignment::customer.eq(customer.0))
        .order((role_assignment::user_group.asc(), role_assignment::account.asc()))
        .limit(MOST)
        .select(AssignmentRow::as_select())
        .load(connection)
}

/// A tenant's people.
///
/// # Errors
/// What the database reports.
pub fn people(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<PersonRow>> {
    person::table
        .filter(person::customer.eq(customer.0))
        .order(person::id.asc())
        .limit(MOST)
        .select(PersonRow::as_select())
        .load(connection)
}

/// One of a tenant's people.
///
/// # Errors
/// What the database reports.
pub fn person(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: UserId,
) -> QueryResult<Option<PersonRow>> {
    person::table
        .filter(person::id.eq(id.0).and(person::customer.eq(customer.0)))
        .select(PersonRow::as_select())
        .first(connection)
        .optional()
}

/// The person with this login name, of whatever tenant.
///
/// # Errors
/// What the database reports.
pub fn person_by_login(connection: &mut AnyConnection, login: &str) -> QueryResult<Option<PersonRow>> {
    person::table.filter(person::login.eq(login)).select(PersonRow::as_select()).first(connection).optional()
}

/// The person with this number, of whatever tenant: for a session that holds the number only.
///
/// # Errors
/// What the database reports.
pub fn person_of_session(connection: &mut AnyConnection, id: UserId) -> QueryResult<Option<PersonRow>> {
    person::table.find(id.0).select(PersonRow::as_select()).first(connection).optional()
}

/// Memberships of these people.
///
/// # Errors
/// What the database reports.
pub fn memberships(connection: &mut AnyConnection, people: &[i64]) -> QueryResult<Vec<MemberRow>> {
    person_group::table
        .filter(person_group::person.eq_any(people.to_vec()))
        .order((person_group::person.asc(), person_group::user_group.asc()))
        .limit(MOST)
        .select(MemberRow::as_select())
        .load(connection)
}

/// Access control lists (JSON) of the active roles that a person's active groups have in an account.
///
/// # Errors
/// What the database reports.
pub fn acls(
    connection: &mut AnyConnection,
    customer: CustomerId,
    who: UserId,
    account: AccountId,
) -> QueryResult<Vec<String>> {
    let member_of: Vec<i64> = person_group::table
        .filter(person_group::person.eq(who.0))
        .select(person_group::user_group)
        .load(connection)?;
    let active: Vec<i64> = user_group::table
        .filter(user_group::id.eq_any(member_of).and(user_group::customer.eq(customer.0)))
        .filter(user_group::status.eq(ACTIVE))
        .select(user_group::id)
        .load(connection)?;
    let assigned: Vec<i64> = role_assignment::table
        .filter(role_assignment::user_group.eq_any(active).and(role_assignment::account.eq(account.0)))
        .filter(role_assignment::customer.eq(customer.0))
        .select(role_assignment::role)
        .load(connection)?;
    role::table
        .filter(role::id.eq_any(assigned).and(role::customer.eq(customer.0)))
        .filter(role::status.eq(ACTIVE))
        .select(role::acl)
        .load(connection)
}

/// A key, of whatever tenant: its row says whose it is.
///
/// # Errors
/// What the database reports.
pub fn api_key(connection: &mut AnyConnection, access_key: &str) -> QueryResult<Option<ApiKeyRow>> {
    api_key::table.find(access_key).select(ApiKeyRow::as_select()).first(connection).optional()
}

/// A tenant's keys.
///
/// # Errors
/// What the database reports.
pub fn api_keys(connection: &mut AnyConnection, customer: CustomerId) -> QueryResult<Vec<ApiKeyRow>> {
    api_key::table
        .filter(api_key::customer.eq(customer.0))
        .order(api_key::access_key.asc())
        .limit(MOST)
        .select(ApiKeyRow::as_select())
        .load(connection)
}

/// Adds a group; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn add_group(connection: &mut AnyConnection, row: &GroupRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(user_group::table).values(row).execute(connection))
}

/// Adds a role; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn add_role(connection: &mut AnyConnection, row: &RoleRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(role::table).values(row).execute(connection))
}

/// Gives a group a role in an account; false when it has one there already.
///
/// # Errors
/// What the database reports.
pub fn assign(connection: &mut AnyConnection, row: &AssignmentRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(role_assignment::table).values(row).execute(connection))
}

/// Adds a person; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn add_person(connection: &mut AnyConnection, row: &PersonRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(person::table).values(row).execute(connection))
}

/// Puts a person into a group; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn join(connection: &mut AnyConnection, who: UserId, group: GroupId) -> QueryResult<bool> {
    let row = MemberRow { person: who.0, user_group: group.0 };
    super::insert_new(diesel::insert_into(person_group::table).values(&row).execute(connection))
}

/// Adds a key; a repeat changes nothing.
///
/// # Errors
/// What the database reports.
pub fn add_api_key(connection: &mut AnyConnection, row: &ApiKeyRow) -> QueryResult<bool> {
    super::insert_new(diesel::insert_into(api_key::table).values(row).execute(connection))
}

/// One of a tenant's roles.
///
/// # Errors
/// What the database reports.
pub fn role(
    connection: &mut AnyConnection,
    customer: CustomerId,
    id: RoleId,
) -> QueryResult<Option<RoleRow>> {
    role::table
        .filter(role::id.eq(id.0).and(role::customer.eq(customer.0)))
        .select(RoleRow::as_select())
        .first(connection)
        .optional()
}
