//! A process that is measured: this executable with arguments, a ready file and a log of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::cli::client::Error;
use crate::model::Uid;

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a log that are shown when its process does not start.
const SHOWN: usize = 10;

/// A folder that goes away with what is in it, guests included.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make(below: Option<&Path>) -> Result<Self, Error> {
        let below = below.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = below.join(format!("dispatcher-bench-{}", Uid::random()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Guests of the cloud that keeps its data here.
    pub(super) fn guests(&self, data: &str) -> Vec<u32> {
        let Ok(folders) = std::fs::read_dir(self.0.join(data).join("guests")) else { return Vec::new() };
        let pid = |folder: std::io::Result<std::fs::DirEntry>| {
            let named = std::fs::read(folder.ok()?.path().join("pid")).ok()?;
            let named: serde_json::Value = serde_json::from_slice(&named).ok()?;
            named.get("pid")?.as_u64().and_then(|pid| u32::try_from(pid).ok())
        };
        folders.filter_map(pid).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // After a stop in order none is left. A number may have gone to somebody else meanwhile.
        for pid in ["data", "cloud/data"].into_iter().flat_map(|data| self.guests(data)) {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&line).contains(&*self.0.to_string_lossy());
            if let Some(pid) = i32::try_from(pid).ok().filter(|_| ours) {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("the folder {} stays: {error}", self.0.display());
        }
    }
}

/// Resident memory of a process.
pub(super) fn resident_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u32>().ok());
    f64::from(kib.unwrap_or_default())
}

/// See the module. It is killed when it is dropped.
pub(super) struct Process {
    name: String,
    /// Where its ready file and its log are.
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Process {
    /// One that does not run yet.
    pub(super) fn new(name: &str, folder: &Path, arguments: &[&str]) -> Result<Self, Error> {
        std::fs::create_dir_all(folder)?;
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), arguments, child: None })
    }

    pub(super) fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    /// What it said when it was ready.
    pub(super) fn said(&self, field: &str) -> Result<String, Error> {
        let said: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.ready_file())?).unwrap_or_default();
        let value = said.get(field).and_then(serde_json::Value::as_str);
        value.map(str::to_owned).ok_or_else(|| Error::Usage(format!("{} says no {field}", self.name)))
    }

    /// Starts it; milliseconds until it is ready.
    pub(super) async fn start(&mut self, more: &[&str]) -> Result<f64, Error> {
        let ready = self.ready_file();
        drop(std::fs::remove_file(&ready));
        let log = File::options().create(true).append(true).open(self.folder.join("log"))?;
        let began = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .args(&self.arguments)
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let child = self.child.insert(child);
        while !ready.exists() {
            if child.try_wait()?.is_some() || began.elapsed() > PATIENCE {
                return Err(self.not_ready());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    fn not_ready(&self) -> Error {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n");
        Error::Usage(format!("the measured process {} does not get ready:\n{last}", self.name))
    }

    /// Number of the process; 0 while it does not run.
    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap_or_default()
    }

    /// Resident memory.
    pub(super) fn memory_kib(&self) -> f64 {
        resident_kib(self.pid())
    }

    /// Kills it as a crash would.
    pub(super) async fn crash(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it in order.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(std::io::Error::from)?;
        }
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .map_err(|e| Error::Usage(format!("the measured process {} does not end: {e}", self.name)))??;
        Ok(())
    }
}
