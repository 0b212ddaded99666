//! Sessions of people at the console. Only a hash of a session's token is kept.

use std::time::Duration;

use diesel::prelude::*;

use super::schema::session;
use crate::model::UserId;
use crate::store::AnyConnection;

/// A session that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub person: UserId,
    /// What forms of this session carry.
    pub csrf: String,
}

/// Begins a session; sessions that are over are forgotten by the way.
///
/// # Errors
/// What the database reports.
pub fn begin(
    connection: &mut AnyConnection,
    token_hash: &str,
    new: &Session,
    lasts: Duration,
) -> QueryResult<bool> {
    let now = connection.now()?;
    let row = (
        session::token_hash.eq(token_hash),
        session::person.eq(new.person.0),
        session::csrf.eq(&new.csrf),
        session::made_at.eq(now.0),
        session::expires_at.eq(now.plus(lasts).0),
    );
    let new = super::insert_new(diesel::insert_into(session::table).values(row).execute(connection))?;
    diesel::delete(session::table.filter(session::expires_at.le(now.0))).execute(connection)?;
    Ok(new)
}

/// The session of a token, unless it is over.
///
/// # Errors
/// What the database reports.
pub fn find(connection: &mut AnyConnection, token_hash: &str) -> QueryResult<Option<Session>> {
    let now = connection.now()?;
    let row: Option<(i64, String)> = session::table
        .filter(session::token_hash.eq(token_hash).and(session::expires_at.gt(now.0)))
        .select((session::person, session::csrf))
        .first(connection)
        .optional()?;
    Ok(row.map(|(person, csrf)| Session { person: UserId(person), csrf }))
}

/// Ends a session.
///
/// # Errors
/// What the database reports.
pub fn end(connection: &mut AnyConnection, token_hash: &str) -> QueryResult<bool> {
    Ok(diesel::delete(session::table.find(token_hash)).execute(connection)? == 1)
}
