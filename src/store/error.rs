//! What can go wrong between a caller and a database.

/// Failure of a read or a write. `Busy` and `Unavailable` mean nothing was stored; `Unknown` means nobody knows and
/// the caller re-reads by its own uid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue in front of the database is full.
    #[error("the database queue is full; try again in a second")]
    Busy,
    /// The database did not answer, or refused the transaction; nothing was stored.
    #[error("the database is not available; nothing was stored, try again in a second")]
    Unavailable(#[source] diesel::result::Error),
    /// No connection could be had; nothing was stored.
    #[error("no connection to the database: {0}")]
    Connect(String),
    /// The answer was lost: it may be stored or not.
    #[error("the outcome of the write is unknown; read it again by its uid")]
    Unknown,
    /// The statement itself is at fault.
    #[error("the database refused a statement")]
    Query(#[source] diesel::result::Error),
    /// The query function panicked; its transaction was rolled back.
    #[error("a query panicked: {0}")]
    Panicked(String),
    /// A stored value is not what this program writes.
    #[error("stored value of {column} is unreadable: {text}")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// What was found or why it does not parse.
        text: String,
    },
    /// The migrations could not be applied.
    #[error("the migrations of {database} failed: {text}")]
    Migration {
        /// Which database.
        database: &'static str,
        /// What went wrong.
        text: String,
    },
}

impl Error {
    /// Sorts what diesel reports: a fault of the statement, or of the database behind it.
    pub(crate) fn of(error: diesel::result::Error) -> Self {
        use diesel::result::DatabaseErrorKind::{ClosedConnection, UnableToSendCommand, Unknown};
        use diesel::result::Error as Diesel;
        match &error {
            Diesel::DatabaseError(ClosedConnection | UnableToSendCommand | Unknown, _)
            | Diesel::BrokenTransactionManager
            | Diesel::RollbackErrorOnCommit { .. } => Self::Unavailable(error),
            _ => Self::Query(error),
        }
    }
}
