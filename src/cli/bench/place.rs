//! The process that is measured: this executable on a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::cli::client::{Client, Error, Target};
use crate::model::Uid;

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder and the process on it. The folder is removed when it is dropped, and the process is killed.
pub(super) struct Place {
    folder: PathBuf,
    child: Option<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a stop in order none is left.
        for pid in self.guests().unwrap_or_default() {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&line).contains(&*self.folder.to_string_lossy());
            if let Some(pid) = i32::try_from(pid).ok().filter(|_| ours) {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            log::warn!("the folder {} stays: {error}", self.folder.display());
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

impl Place {
    pub(super) fn make(below: Option<&Path>) -> Result<Self, Error> {
        let below = below.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let folder = below.join(format!("dispatcher-bench-{}", Uid::random()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, child: None })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    /// Starts the process; milliseconds until it is ready.
    pub(super) async fn start(&mut self) -> Result<f64, Error> {
        self.start_with(&[]).await
    }

    /// The same with more arguments.
    pub(super) async fn start_with(&mut self, more: &[&str]) -> Result<f64, Error> {
        let ready = self.ready_file();
        drop(std::fs::remove_file(&ready));
        let began = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.folder.join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        while !ready.exists() {
            if began.elapsed() > PATIENCE {
                return Err(Error::Usage("the measured process does not get ready".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    pub(super) fn client(&self) -> Result<Client, Error> {
        Target { ready_file: Some(self.ready_file()), ..Target::default() }.client()
    }

    /// Resident memory of the process.
    pub(super) fn memory_kib(&self) -> f64 {
        let pid = self.child.as_ref().and_then(Child::id).unwrap_or_default();
        resident_kib(pid)
    }

    /// Processes of its guests.
    pub(super) fn guests(&self) -> Result<Vec<u32>, Error> {
        let mut found = Vec::new();
        for folder in std::fs::read_dir(self.folder.join("data/guests"))? {
            let named = std::fs::read(folder?.path().join("pid")).unwrap_or_default();
            let named: serde_json::Value = serde_json::from_slice(&named).unwrap_or_default();
            found.extend(
                named.get("pid").and_then(serde_json::Value::as_u64).and_then(|pid| u32::try_from(pid).ok()),
            );
        }
        Ok(found)
    }

    /// Kills the process as a crash would; its guests live on.
    pub(super) async fn crash(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends the process in order.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(std::io::Error::from)?;
        }
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .map_err(|e| Error::Usage(format!("the measured process does not end: {e}")))??;
        Ok(())
    }
}
