//! What can stop an agent.

use std::path::{Path, PathBuf};

use crate::crypto::pki;

/// Why the agent, or a part of it, cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent uses the data folder.
    #[error(
        "already running: another agent holds {0}; stop it first, or give this one another --data folder"
    )]
    AlreadyRunning(PathBuf),
    /// A file or folder cannot be used.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The user data cannot be read.
    #[error("the user data in {} is not what an agent needs: dispatcher, root, token", path.display())]
    UserData {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The journal has a broken line that is not its last: a command might run twice.
    #[error(
        "the journal {} is damaged at byte {offset}; restore it, or move it away when no job is open on this guest",
        path.display()
    )]
    Journal {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// A certificate, key or TLS setting is unusable.
    #[error("the agent's certificate or trust is unusable")]
    Pki(#[from] pki::Error),
    /// The listening address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The dispatcher refuses this agent for good.
    #[error(
        "the dispatcher refuses this agent ({status}): {message}; give it new user data with a fresh token"
    )]
    Refused {
        /// HTTP status.
        status: u16,
        /// The dispatcher's words.
        message: String,
    },
    /// A thread or process cannot be started.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A part of the agent ended although nobody asked it to.
    #[error("the agent's {0} ended by itself; this is a fault of the agent")]
    Ended(&'static str),
}

impl Error {
    /// For `map_err`: this was being done to this file.
    pub(super) fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::File { what, path: path.to_owned(), source }
    }

    /// The process's exit code: 4 for a second agent, 3 for a refusal, 5 for a damaged journal, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::AlreadyRunning(_) => 4,
            Self::Refused { .. } => 3,
            Self::Journal { .. } => 5,
            _ => 1,
        }
    }
}
