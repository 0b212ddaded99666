//! The composition root: the only place where all rooms meet. Handles are made first, then everything is started.
//!
//! [`dev()`] composes every role in one process on embedded parts: SQLite (or a server), the embedded queue, the key manager behind
//! its real wire, the simulated cloud with real guests. [`simulated_cloud()`] is that cloud as a process of its own. Nothing here decides anything at run time.

mod adapters;
mod base;
mod cloud;
mod credentials;
mod databases;
mod demo;
mod dev;
mod doors;
mod folder;
mod last_resort;
mod parts;
mod ready;
mod role;
mod roles;
mod running;
mod safe;
mod setup;
mod simulated_cloud;
#[cfg(test)]
mod survival;
mod wiring;

use std::net::SocketAddr;

use crate::model::InvalidWord;

pub use databases::{ALL as ALL_DATABASES, Databases};
pub use dev::{Dev, dev};
pub use role::Role;
pub use roles::{Start, examine, start};
pub use safe::{Listed, list, make};
pub use setup::{Entrance, Setup, setup};
pub use simulated_cloud::{SimulatedCloud, simulated_cloud};

/// A part that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The key manager.
    Km,
    /// The monitor.
    Monitor,
    /// The worker.
    Worker,
    /// The pinger.
    Pinger,
}

impl std::str::FromStr for Part {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        match text {
            "km" => Ok(Self::Km),
            "monitor" => Ok(Self::Monitor),
            "worker" => Ok(Self::Worker),
            "pinger" => Ok(Self::Pinger),
            _ => Err(InvalidWord {
                found: text.chars().take(64).collect(),
                of: "part that can be left out",
                allowed: "km, monitor, worker, pinger".to_owned(),
            }),
        }
    }
}

/// Why the process does not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Plain HTTP anywhere but on loopback.
    #[error(
        "--listen {0} is not a loopback address, and plain HTTP is spoken there; give 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// A database.
    #[error("database {name}")]
    Database {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: crate::store::Error,
    },
    /// A URL of the settings.
    #[error("settings: database.{name}")]
    Url {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: crate::store::InvalidUrl,
    },
    /// Another process has the database of the server for itself.
    #[error("another dispatcher works alone on {0}; stop that one, or name another database in [database]")]
    DatabaseInUse(String),
    /// Processes of other roles work on the database of the server.
    #[error(
        "{0} processes with roles of their own work on the database; stop them, or name another database in [database]"
    )]
    Company(usize),
    /// Roles as processes need a database that all of them reach.
    #[error(
        "roles as processes of their own share the databases of a server: write mysql://user@host/name for database.provisioning and the others, or use \"dispatcher dev\", which has every role in one process on files"
    )]
    NoServer,
    /// A database that nobody has prepared.
    #[error("the database holds no tenant yet; run \"dispatcher setup\" once for the installation")]
    NotSetUp,
    /// A part failed to start.
    #[error("{part} does not start: {text}")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        text: String,
    },
    /// A part the process cannot do without gave up.
    #[error("the process must end and start anew: {0}")]
    Fatal(String),
    /// The demonstration did not get to its end.
    #[error("the demonstration stopped: {0}")]
    Demo(String),
}

impl Error {
    fn part(part: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Part { part, text: crate::ops::Chain(error).to_string() }
    }
}
