//! What callers of the registry can be told.

use crate::model::{AccountId, JobId, JobState};
use crate::store;

/// Why a request to the registry was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The idempotency key stands for another request.
    #[error(
        "the idempotency key was used before for another request; use a new key, or send the same request"
    )]
    Conflict,
    /// The same signed request was seen before.
    #[error("the request is a replay of an earlier one; sign it anew")]
    Replayed,
    /// Too much is waiting; nothing was stored.
    #[error("too many requests are waiting; try again in a second")]
    Busy,
    /// The database is down; nothing was stored.
    #[error("the provisioning database is not available; nothing was stored, try again in a second")]
    Unavailable(#[source] store::Error),
    /// Nobody knows whether it was stored.
    #[error("the outcome is unknown; send it again with the same idempotency key, or list your jobs")]
    Unknown,
    /// The tenant has no such job.
    #[error("there is no job {0}")]
    NoSuchJob(JobId),
    /// The job has ended already.
    #[error("job {0} has ended already")]
    Ended(JobId),
    /// Only what is set aside, or has ended, takes a person's word.
    #[error("job {0} is {1}; only a quarantined job is resolved by a person: wait for it, or cancel it")]
    NotSetAside(JobId, JobState),
    /// The job cannot be called complete.
    #[error(
        "job {0} cannot be called complete: it was cancelled, is being undone has no server to show, or is a group; resolve it as \
         failed or unresolved"
    )]
    NotComplete(JobId),
    /// The tenant has no such pause.
    #[error("there is no pause {0}; it may have ended, list yours with GET /api/v1/pauses")]
    NoSuchPause(i64),
    /// The tenant has as many pauses as it may.
    #[error("there are {0} pauses already; end one of them first")]
    TooManyPauses(i64),
    /// The tenant has no such limit.
    #[error("account {0} has no limit{of}; list yours with GET /api/v1/limits", of = of(.1))]
    NoSuchLimit(AccountId, String),
    /// The tenant has as many limits as it may.
    #[error("there are {0} limits already; clear one of them first")]
    TooManyLimits(i64),
    /// Our own fault.
    #[error("the registry failed")]
    Internal(#[source] store::Error),
}

fn of(kind: &str) -> String {
    if kind.is_empty() { String::new() } else { format!(" of {kind}") }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Busy => Self::Busy,
            store::Error::Unknown => Self::Unknown,
            store::Error::Unavailable(_) | store::Error::Connect(_) => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}
