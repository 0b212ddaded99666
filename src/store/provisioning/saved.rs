//! Queries that a person keeps under a name: rows, so that they are there in every browser.

use diesel::prelude::*;

use super::schema::saved_view;
use crate::model::UserId;
use crate::store::AnyConnection;

/// Views one person may keep.
pub const MOST: i64 = 30;

/// The views of a person with their queries, by name.
///
/// # Errors
/// What the database reports.
pub fn list(connection: &mut AnyConnection, person: UserId) -> QueryResult<Vec<(String, String)>> {
    saved_view::table
        .filter(saved_view::person.eq(person.0))
        .order(saved_view::name.asc())
        .select((saved_view::name, saved_view::query))
        .limit(MOST)
        .load(connection)
}

/// Keeps a query under a name, in place of one of that name; false when there are as many as there may be.
///
/// # Errors
/// What the database reports.
pub fn keep(connection: &mut AnyConnection, person: UserId, name: &str, query: &str) -> QueryResult<bool> {
    let now = connection.now()?;
    let mine = saved_view::table.find((person.0, name));
    let changed = diesel::update(mine)
        .set((saved_view::query.eq(query), saved_view::made_at.eq(now.0)))
        .execute(connection)?;
    if changed > 0 {
        return Ok(true);
    }
    let there: i64 =
        saved_view::table.filter(saved_view::person.eq(person.0)).count().get_result(connection)?;
    if there >= MOST {
        return Ok(false);
    }
    let row = (
        saved_view::person.eq(person.0),
        saved_view::name.eq(name),
        saved_view::query.eq(query),
        saved_view::made_at.eq(now.0),
    );
    super::insert_new(diesel::insert_into(saved_view::table).values(row).execute(connection))?;
    Ok(true)
}

/// Forgets a view.
///
/// # Errors
/// What the database reports.
pub fn forget(connection: &mut AnyConnection, person: UserId, name: &str) -> QueryResult<bool> {
    Ok(diesel::delete(saved_view::table.find((person.0, name))).execute(connection)? == 1)
}
