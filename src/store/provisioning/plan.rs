//! What somebody is about to do to many jobs: frozen, shown, and carried out or forgotten.

use std::time::Duration;

use diesel::prelude::*;

use super::schema::plan;
use crate::model::{CustomerId, Uid, UserId};
use crate::store::AnyConnection;

/// A row of `plan`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = plan)]
pub struct PlanRow {
    /// Its name, which nobody can guess.
    pub id: String,
    /// The tenant.
    pub customer: i64,
    /// Who made it; nobody else may see it or carry it out.
    pub person: i64,
    /// What is to be done, such as `cancel`.
    pub act: String,
    /// The query it came from.
    pub query: String,
    /// The jobs with what was found about each, as JSON.
    pub jobs: String,
    /// When it was made.
    pub made_at: i64,
    /// Until when it may be carried out.
    pub expires_at: i64,
    /// When it was carried out.
    pub done_at: Option<i64>,
    /// What came of it, as JSON.
    pub result: Option<String>,
}

/// A plan to be.
#[derive(Clone, Debug)]
pub struct New {
    /// Its name.
    pub id: Uid,
    /// The tenant.
    pub customer: CustomerId,
    /// Who makes it.
    pub person: UserId,
    /// What is to be done.
    pub act: &'static str,
    /// The query it comes from.
    pub query: String,
    /// The jobs, as JSON.
    pub jobs: String,
}

/// Freezes a plan; plans that expired a day ago are forgotten by the way.
///
/// # Errors
/// What the database reports.
pub fn make(connection: &mut AnyConnection, new: &New, lasts: Duration) -> QueryResult<bool> {
    let now = connection.now()?;
    let row = PlanRow {
        id: new.id.to_string(),
        customer: new.customer.0,
        person: new.person.0,
        act: new.act.to_owned(),
        query: new.query.clone(),
        jobs: new.jobs.clone(),
        made_at: now.0,
        expires_at: now.plus(lasts).0,
        done_at: None,
        result: None,
    };
    let made = super::insert_new(diesel::insert_into(plan::table).values(row).execute(connection))?;
    let old = now.minus(Duration::from_secs(86_400)).0;
    diesel::delete(plan::table.filter(plan::expires_at.lt(old))).execute(connection)?;
    Ok(made)
}

/// A person's plan.
///
/// # Errors
/// What the database reports.
pub fn find(connection: &mut AnyConnection, person: UserId, id: &str) -> QueryResult<Option<PlanRow>> {
    plan::table
        .filter(plan::id.eq(id).and(plan::person.eq(person.0)))
        .select(PlanRow::as_select())
        .first(connection)
        .optional()
}

/// Notes what came of a plan; false when that was noted before.
///
/// # Errors
/// What the database reports.
pub fn done(connection: &mut AnyConnection, id: &str, result: &str) -> QueryResult<bool> {
    let now = connection.now()?;
    let open = plan::table.filter(plan::id.eq(id).and(plan::done_at.is_null()));
    let set = (plan::done_at.eq(Some(now.0)), plan::result.eq(Some(result)));
    Ok(diesel::update(open).set(set).execute(connection)? == 1)
}
