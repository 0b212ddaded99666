//! What can keep the simulated cloud from opening or from stopping in order. Calls answer with
//! [`CallError`](crate::cloud::CallError) instead.

use std::io;
use std::path::PathBuf;

use super::machine::Illegal;

/// Why the simulated cloud cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process works on the same folder.
    #[error("{} is locked by another process; stop it, or choose another data folder", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
    /// A line of the journal that is neither whole nor the torn last one.
    #[error("line {line} of {} is no effect; restore the file from a backup", path.display())]
    Garbled {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A line of the journal that contradicts the lines before it.
    #[error("line {line} of {} contradicts the lines before it; restore the file from a backup", path.display())]
    Contradicted {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// How.
        #[source]
        source: Illegal,
    },
    /// A thread could not be made, or the runtime ended a blocking task.
    #[error("cannot run the thread for {purpose}")]
    Thread {
        /// What it is for.
        purpose: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Turns an error of a file into one that says what was tried on which file.
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
