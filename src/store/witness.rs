//! Tells a failed fsync from a failed write.
//!
//! SQLite says "disk I/O error" of both. After a failed write nothing is lost: the file is as it was, and the next one
//! may succeed. After a failed fsync the kernel has dropped pages that it could not write and calls them clean, so that
//! a later fsync succeeds over a hole: the file is not to be trusted by this process again. The kernel reports such a
//! failure once to every descriptor that was open before; this is one of our own, on the log that each commit syncs.
//! (Never on the database's own file: closing it would drop the locks of SQLite, which belong to the process.)

use std::fs::File;
use std::path::PathBuf;

use super::{Manager, Target};

/// A second descriptor on the write-ahead log of a file.
pub(super) struct Witness {
    log: Option<PathBuf>,
    file: Option<File>,
}

impl Witness {
    /// Of a file's log; nothing of a server, which looks after its own disk.
    pub(super) fn of(manager: &Manager) -> Self {
        let log = match manager.target() {
            Target::File(path) => Some(PathBuf::from(format!("{path}-wal"))),
            Target::Server { .. } => None,
        };
        Self { log, file: None }
    }

    /// Opens the descriptor as soon as there is a log. To be called between writes.
    pub(super) fn watch(&mut self) {
        if let (None, Some(log)) = (&self.file, &self.log) {
            self.file = File::open(log).ok();
        }
    }

    /// The log may be another one from now on, because the last connection to it may have ended.
    pub(super) fn forget(&mut self) {
        self.file = None;
    }

    /// What the kernel says about pages that it could not write; nothing when all of them are on the disk.
    pub(super) fn fault(&self) -> Option<String> {
        let synced = self.file.as_ref()?.sync_data();
        synced.err().map(|error| format!("an fsync of the database's log failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Witness;
    use crate::store::Manager;

    #[test]
    fn a_log_on_a_disk_that_works_has_no_fault_and_a_server_has_no_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.db");
        let mut witness = Witness::of(&Manager::new(&format!("sqlite://{}", path.display())).expect("a URL"));
        witness.watch();
        assert!(witness.file.is_none() && witness.fault().is_none(), "there is no log yet");
        std::fs::write(format!("{}-wal", path.display()), b"x").expect("room");
        witness.watch();
        assert!(witness.file.is_some() && witness.fault().is_none());
    }
}
