//! Why there is no lease.

use std::time::Duration;

use crate::model::Uid;

/// Why a credential was not leased. [`Error::Denied`] and [`Error::Invalid`] are definite; with all others the asker
/// waits and asks again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many are asking, here or at the key manager.
    #[error("too many leases are being asked for; ask again in a second")]
    Busy,
    /// The key manager cannot be reached, or cannot reach its database.
    #[error("the key manager is not available; the job waits")]
    Unavailable(#[source] Cause),
    /// It said no. The reason stands in its audit log under this request.
    #[error("the key manager denied request {request}; its audit log says why")]
    Denied {
        /// The request.
        request: Uid,
    },
    /// The question itself is wrong; nobody was asked.
    #[error("the lease cannot be asked for: {0}")]
    Invalid(String),
    /// The other side is not what it should be, or the clocks differ; needs an operator.
    #[error("the key manager cannot be used: {0}")]
    Protocol(String),
    /// No answer in time.
    #[error("the key manager did not answer in time; ask again")]
    TimedOut,
}

/// Why the key manager is not available.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The connection failed.
    #[error("no connection to {address}")]
    Connection {
        /// Where it should be.
        address: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It failed several times in a row and is left alone for a while.
    #[error("it failed several times in a row and is tried again in {} ms", .0.as_millis())]
    Resting(Duration),
    /// Its database does not answer.
    #[error("it cannot reach the credentials database")]
    Database,
    /// It runs with another key-encryption key than the one that wrapped the data keys.
    #[error("its key-encryption key does not fit its database; its log names the remedy")]
    Keys,
    /// The client actor ended or failed over this very request.
    #[error("the request was interrupted")]
    Interrupted,
}

impl Error {
    /// One word for metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::Denied { .. } => "denied",
            Self::Invalid(_) => "invalid",
            Self::Protocol(_) => "protocol",
            Self::TimedOut => "timed-out",
        }
    }

    /// Whether asking the same again can never help.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Invalid(_))
    }
}
