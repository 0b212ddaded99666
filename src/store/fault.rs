//! Why a write failed, and what its caller is told.

use diesel::result::{DatabaseErrorKind, Error as Diesel};

use super::Error;

pub(super) fn text_of_connect(error: Error) -> String {
    match error {
        Error::Connect(text) => text,
        other => other.to_string(),
    }
}

/// No connection: nothing was stored, unless an earlier commit was never answered.
pub(super) fn not_reached(doubtful: bool, text: &str) -> Error {
    if doubtful { Error::Unknown } else { Error::Connect(text.to_owned()) }
}

/// The answer to an item whose first commit was never answered and whose later run failed.
pub(super) fn doubt(fault: &Fault) -> Error {
    match fault.to_error() {
        Error::Unavailable(_) | Error::Connect(_) => Error::Unknown,
        // The statement itself is refused, so it was at its first run.
        other => other,
    }
}

/// Why a transaction was not stored, or may not have been.
pub(super) enum Fault {
    Connect(String),
    Diesel(Diesel),
    /// The commit's answer was lost.
    Commit(Diesel),
    Panicked(String),
    /// Pages of the file did not reach the disk, and the kernel has forgotten them.
    Distrusted(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Diesel(error) | Self::Commit(error) => error.fmt(f),
            Self::Panicked(text) => write!(f, "panic: {text}"),
            Self::Connect(text) => write!(f, "no connection: {text}"),
            Self::Distrusted(text) => f.write_str(text),
        }
    }
}

impl Fault {
    /// Whether the same item may succeed at once: it lost against another transaction, or its link was cut. An item
    /// whose commit is unknown finds its own uid when it runs again.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Diesel(error) => lost_a_race(error),
            Self::Commit(_) => true,
            Self::Connect(_) | Self::Panicked(_) | Self::Distrusted(_) => false,
        }
    }

    /// Whether SQLite could not write, or could not sync, its files.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, Self::Diesel(Diesel::DatabaseError(_, info)) if info.message().contains("disk I/O error"))
    }

    pub(super) fn to_error(&self) -> Error {
        match self {
            Self::Diesel(error) => Error::of(copy_of(error)),
            Self::Commit(_) | Self::Distrusted(_) => Error::Unknown,
            Self::Panicked(text) => Error::Panicked(text.clone()),
            Self::Connect(text) => Error::Connect(text.clone()),
        }
    }
}

/// Diesel's errors cannot be cloned; what callers look at survives.
fn copy_of(error: &Diesel) -> Diesel {
    match error {
        Diesel::NotFound => Diesel::NotFound,
        Diesel::DatabaseError(kind, info) => {
            let kind = match kind {
                DatabaseErrorKind::UniqueViolation => DatabaseErrorKind::UniqueViolation,
                DatabaseErrorKind::ForeignKeyViolation => DatabaseErrorKind::ForeignKeyViolation,
                DatabaseErrorKind::NotNullViolation => DatabaseErrorKind::NotNullViolation,
                DatabaseErrorKind::CheckViolation => DatabaseErrorKind::CheckViolation,
                DatabaseErrorKind::ClosedConnection => DatabaseErrorKind::ClosedConnection,
                DatabaseErrorKind::SerializationFailure => DatabaseErrorKind::SerializationFailure,
                _ => DatabaseErrorKind::Unknown,
            };
            Diesel::DatabaseError(kind, Box::new(info.message().to_owned()))
        }
        other => Diesel::DatabaseError(DatabaseErrorKind::Unknown, Box::new(other.to_string())),
    }
}

pub(super) fn lost_a_race(error: &Diesel) -> bool {
    match error {
        Diesel::DatabaseError(DatabaseErrorKind::SerializationFailure, _) | Diesel::RollbackTransaction => {
            true
        }
        Diesel::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            let text = info.message();
            text.contains("Deadlock")
                || text.contains("Lock wait timeout")
                || text.contains("Record has changed since last read")
                || text.contains("database is locked")
        }
        _ => false,
    }
}

/// What an answer lost on demand looks like.
pub(super) fn lost_answer() -> Fault {
    let text = "the answer was lost on demand".to_owned();
    Fault::Commit(Diesel::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(text)))
}
