//! One row a process life. A boot once dead stays dead.

use diesel::prelude::*;

use super::schema::node;
use crate::model::{Boot, Micros};
use crate::store::AnyConnection;

/// Words of `node.state`.
pub(super) const ALIVE: &str = "alive";
/// The state of a life that is over.
pub const DEAD: &str = "dead";

/// A life of a process.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = node)]
pub struct Node {
    /// Its boot.
    pub boot: String,
    /// The role it was started in.
    pub role: String,
    /// Counts up while it lives.
    pub beat: i64,
    /// `alive` or `dead`.
    pub state: String,
    /// When it started, in microseconds.
    pub started_at: i64,
}

impl Node {
    /// Whether nobody declared it dead.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state == ALIVE
    }
}

/// Registers a new life.
///
/// # Errors
/// What the database reports.
pub fn register(connection: &mut AnyConnection, boot: Boot, role: &str) -> QueryResult<()> {
    let started_at = connection.now()?.0;
    let row =
        Node { boot: boot.to_string(), role: role.to_owned(), beat: 0, state: ALIVE.to_owned(), started_at };
    super::insert_new(diesel::insert_into(node::table).values(&row).execute(connection)).map(|_| ())
}

/// Says "I live" once more; false means this boot was declared dead and must not go on.
///
/// # Errors
/// What the database reports.
pub fn beat(connection: &mut AnyConnection, boot: Boot, count: i64) -> QueryResult<bool> {
    let rows = diesel::update(node::table.filter(node::boot.eq(boot.to_string()).and(node::state.eq(ALIVE))))
        .set(node::beat.eq(count))
        .execute(connection)?;
    Ok(rows == 1)
}

/// Declares a boot dead whose beat stood still at the value seen.
///
/// # Errors
/// What the database reports.
pub fn declare_dead(connection: &mut AnyConnection, boot: &str, seen: i64) -> QueryResult<bool> {
    let row = node::table.filter(node::boot.eq(boot).and(node::beat.eq(seen)).and(node::state.eq(ALIVE)));
    Ok(diesel::update(row).set(node::state.eq(DEAD)).execute(connection)? == 1)
}

/// Declares a boot dead that is known to have ended: its folder is locked by another process, or it says so itself.
///
/// # Errors
/// What the database reports.
pub fn ended(connection: &mut AnyConnection, boot: Boot) -> QueryResult<bool> {
    let row = node::table.filter(node::boot.eq(boot.to_string()).and(node::state.eq(ALIVE)));
    Ok(diesel::update(row).set(node::state.eq(DEAD)).execute(connection)? == 1)
}

/// Declares every other boot dead. Only where a lock on the data folder proves that no other process lives.
///
/// # Errors
/// What the database reports.
pub fn only_i_live(connection: &mut AnyConnection, boot: Boot) -> QueryResult<usize> {
    diesel::update(node::table.filter(node::boot.ne(boot.to_string()).and(node::state.eq(ALIVE))))
        .set(node::state.eq(DEAD))
        .execute(connection)
}

/// Every life not yet forgotten, newest first.
///
/// # Errors
/// What the database reports.
pub fn all(connection: &mut AnyConnection) -> QueryResult<Vec<Node>> {
    node::table.order(node::started_at.desc()).select(Node::as_select()).load(connection)
}

/// Forgets dead lives that own nothing and ended before a point.
///
/// # Errors
/// What the database reports.
pub fn forget(connection: &mut AnyConnection, before: Micros) -> QueryResult<usize> {
    use super::schema::job;
    let owners = job::table.filter(job::ended_at.is_null()).select(job::owner).into_boxed();
    let owned: Vec<Option<String>> = owners.filter(job::owner.is_not_null()).distinct().load(connection)?;
    let owned: Vec<String> = owned.into_iter().flatten().collect();
    diesel::delete(
        node::table
            .filter(node::state.eq(DEAD).and(node::started_at.lt(before.0)).and(node::boot.ne_all(owned))),
    )
    .execute(connection)
}
