//! What can go wrong between the dispatcher and a guest.

use std::time::Duration;

use crate::crypto::pki;
use crate::model::ServerId;
use crate::store;
use crate::supervision::Unreachable;

/// Why a guest was refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session with this guest: it never enrolled, or it cannot be reached now.
    #[error("no session with the agent of server {0}; it is dialled again and again")]
    Absent(ServerId),
    /// Too much waits already; nothing was done.
    #[error("too many requests wait for agents; nothing was done, try again in a second")]
    Busy,
    /// No answer in time.
    #[error("the agent of server {server} did not answer within {limit:?}")]
    TimedOut {
        /// The guest.
        server: ServerId,
        /// The limit.
        limit: Duration,
    },
    /// The session ended while the answer was awaited.
    #[error("the session with the agent of server {0} ended before it answered; ask again")]
    Interrupted(ServerId),
    /// The command's id is none, or names another job or guest.
    #[error("the command id does not fit: {0}")]
    Command(String),
    /// A handshake that makes no sense.
    #[error("the handshake is malformed: {0}")]
    Malformed(String),
    /// A guest that is refused for good.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The token belongs to another key.
    #[error("the enrolment token was used by another key; launch the server anew if that was not this guest")]
    Conflict,
    /// The guest's server is not known yet.
    #[error("the server of this token is not known yet; try again in {0:?}")]
    NotYet(Duration),
    /// The database.
    #[error("the agent's record cannot be read or written")]
    Store(#[from] store::Error),
    /// A certificate could not be made.
    #[error("the certificate cannot be made")]
    Pki(#[from] pki::Error),
}

impl Error {
    /// The HTTP status of the handshake that ended so.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Command(_) => 400,
            Self::Refused(_) => 401,
            Self::Conflict => 409,
            Self::Pki(_) => 500,
            Self::Absent(_)
            | Self::Busy
            | Self::TimedOut { .. }
            | Self::Interrupted(_)
            | Self::NotYet(_)
            | Self::Store(_) => 503,
        }
    }

    /// When to come again, where that makes sense.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotYet(after) => Some(*after),
            _ if self.status() == 503 => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    pub(super) fn unreachable(server: ServerId, limit: Duration) -> impl FnOnce(Unreachable) -> Self {
        move |error| match error {
            Unreachable::Full => Self::Busy,
            Unreachable::Closed => Self::Interrupted(server),
            Unreachable::TimedOut => Self::TimedOut { server, limit },
        }
    }
}
