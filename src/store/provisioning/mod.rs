//! Provisioning database: jobs and their protocol, resources, accounts, agents.
//!
//! Query functions are plain `fn(&mut AnyConnection, …) -> QueryResult<…>`, grouped by table, and run inside
//! [`super::Store::read`] or [`super::Store::write`]. The transitions of `docs/PROTOCOL.md` section 2 stand in
//! [`transition`], each with its condition; only *accept* and *cancel asked* write a job without naming its epoch.

pub mod accept;
pub mod access;
pub mod agent;
pub mod audit;
pub mod catalog;
pub mod figures;
pub mod generation;
pub mod group;
pub mod invariants;
pub mod job;
pub mod limit;
pub mod node;
pub mod obligation;
pub mod outbox;
pub mod pause;
pub mod plan;
pub mod saved;
pub mod schedule;
pub mod schema;
pub mod search;
pub mod seed;
pub mod sequence;
pub mod server;
pub mod session;
pub mod tag_sweep;
pub mod transition;
pub mod view;
pub mod watch;
pub mod whole;

use super::Error;

/// Carries a typed fault of a row through diesel's error type.
pub(crate) fn corrupt(error: Error) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(Box::new(error))
}

/// Whether an insert met a row with the same key.
pub(crate) const fn is_duplicate(error: &diesel::result::Error) -> bool {
    matches!(
        error,
        diesel::result::Error::DatabaseError(diesel::result::DatabaseErrorKind::UniqueViolation, _)
    )
}

/// Inserts rows into a table in one statement, where a server keeps it and there are several; whether that was done. It
/// is not where one of them is there already.
macro_rules! insert_together {
    ($connection:expr, $table:path, $rows:expr) => {
        match $connection {
            #[cfg(feature = "mysql")]
            crate::store::AnyConnection::Mysql(server) if $rows.len() > 1 => {
                let inserted = diesel::insert_into($table).values($rows).execute(server);
                crate::store::provisioning::insert_new(inserted)
            }
            _ => Ok(false),
        }
    };
}
pub(crate) use insert_together;

/// Inserts a row that may be there already; whether it is new.
pub(crate) fn insert_new(result: diesel::QueryResult<usize>) -> diesel::QueryResult<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
