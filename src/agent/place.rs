//! The folder of one command: how agent and shim, two processes with lives of their own, agree about it.
//!
//! Who holds `lock` speaks for the command: the shim for as long as it lives, then the agent. `status` is written once,
//! under the lock. So an agent that gets the lock and finds no status knows that no shim lives, and by writing
//! *interrupted* it also stops a shim that was started but came too late to take the lock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{Error, files, stats};
use crate::model::Micros;
use crate::wire::{CommandId, CommandResult, Offsets, Outcome, Stream};

/// What the shim is told, in a file because an argument list is readable by every user of the machine.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Spec {
    pub(super) command: CommandId,
    pub(super) argv: Vec<String>,
    pub(super) timeout_secs: u32,
    /// Most bytes kept of each output.
    pub(super) output_limit: u64,
    /// Time between the polite and the hard end of a command.
    pub(super) grace_millis: u64,
    /// The ledger of effects.
    pub(super) effects: PathBuf,
}

/// A process, named so that another one with the same pid is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) start_time: u64,
}

impl Process {
    /// The living process of this pid.
    pub(super) fn of(pid: u32) -> Option<Self> {
        stats::start_time(pid).map(|start_time| Self { pid, start_time })
    }

    /// Its pid, while it lives.
    fn alive(self) -> Option<Pid> {
        let same = stats::start_time(self.pid) == Some(self.start_time);
        i32::try_from(self.pid).ok().filter(|_| same).map(Pid::from_raw)
    }
}

/// The folder of one command.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// The folder at this path.
    pub(super) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.dir.join("spec.json")
    }

    pub(super) fn output(&self, stream: Stream) -> PathBuf {
        self.dir.join(stream.as_str())
    }

    pub(super) fn shim(&self) -> PathBuf {
        self.dir.join("shim.json")
    }

    pub(super) fn child(&self) -> PathBuf {
        self.dir.join("child.json")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("shim.log")
    }

    fn status(&self) -> PathBuf {
        self.dir.join("status.json")
    }

    fn cancel(&self) -> PathBuf {
        self.dir.join("cancel")
    }

    /// Makes the folder with the shim's orders.
    pub(super) fn prepare(&self, spec: &Spec) -> Result<(), Error> {
        files::make_dir(&self.dir)?;
        files::replace(&self.spec(), &json(spec))
    }

    /// Takes the right to speak for the command; nothing while another process has it.
    pub(super) fn try_lock(&self) -> Result<Option<File>, Error> {
        let path = self.dir.join("lock");
        let file = files::append(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::file("lock", &path)(e)),
        }
    }

    /// Waits for the right to speak for the command. Blocks the thread; for the shim only.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join("lock");
        let file = files::append(&path)?;
        file.lock().map_err(Error::file("lock", &path))?;
        Ok(file)
    }

    /// How the command ended, if that was written.
    pub(super) fn result(&self) -> Result<Option<CommandResult>, Error> {
        Ok(files::read(&self.status())?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Writes how the command ended. Only with the lock held.
    pub(super) fn finish(&self, outcome: Outcome) -> Result<CommandResult, Error> {
        let mut output = Offsets::default();
        for stream in Stream::ALL {
            *output.of_mut(stream) = std::fs::metadata(self.output(stream)).map_or(0, |file| file.len());
        }
        let result = CommandResult { outcome, output, at: Micros::wall() };
        files::replace(&self.status(), &json(&result))?;
        Ok(result)
    }

    /// The result, once no shim lives any more: its own word, else *interrupted*. Nothing while a shim lives.
    pub(super) fn settle(&self) -> Result<Option<CommandResult>, Error> {
        files::make_dir(&self.dir)?;
        let Some(_lock) = self.try_lock()? else { return Ok(None) };
        if let Some(result) = self.result()? {
            return Ok(Some(result));
        }
        self.end_leftover()?;
        self.finish(Outcome::Interrupted).map(Some)
    }

    /// Asks the shim to end the command. A shim that has not started it yet finds the note.
    pub(super) fn ask_cancel(&self) -> Result<(), Error> {
        files::replace(&self.cancel(), b"")?;
        if let Some(pid) = Self::process(&self.shim())?.and_then(Process::alive) {
            // A shim that ended in between has written its status; there is nothing left to signal.
            let _ = kill(pid, Signal::SIGTERM);
        }
        Ok(())
    }

    /// Whether [`Place::ask_cancel`] was called.
    pub(super) fn cancel_asked(&self) -> bool {
        self.cancel().exists()
    }

    /// Kills what a dead shim left behind: *interrupted* must not mean "still at work".
    fn end_leftover(&self) -> Result<(), Error> {
        if let Some(group) = Self::process(&self.child())?.and_then(Process::alive) {
            log::warn!("killing process group {group}, left behind by a shim that died");
            let _ = killpg(group, Signal::SIGKILL);
        }
        Ok(())
    }

    fn process(path: &Path) -> Result<Option<Process>, Error> {
        Ok(files::read(path)?.and_then(|text| serde_json::from_slice(&text).ok()))
    }
}

/// JSON of one of the agent's own plain structures, which always have one.
pub(super) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
