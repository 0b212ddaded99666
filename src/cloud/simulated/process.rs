//! Processes of guests, found and signalled without ever meeting a stranger that got the same number.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that keeps the guest of one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks between the start of the machine and of the process.
    pub(super) start_time: u64,
}

/// What the agent writes into its folder.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct PidFile {
    pid: i32,
    start_time: u64,
}

impl Process {
    /// The process that runs under this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold blanks and brackets; everything after its last bracket is plain.
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X" | "x") {
            return None;
        }
        // Field 22 of the line; the state was field 3.
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, start_time })
    }

    /// The living process named by the folder's pid file, if it really keeps that folder.
    pub(super) fn named_in(folder: &Path) -> Option<Self> {
        let named: PidFile = serde_json::from_slice(&std::fs::read(folder.join("pid")).ok()?).ok()?;
        let process = Self { pid: named.pid, start_time: named.start_time };
        process.keeps(folder).then_some(process)
    }

    /// All living processes that keep the folder. Reads all of `/proc`.
    pub(super) fn all_of(folder: &Path) -> io::Result<Vec<Self>> {
        let numbers = std::fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| serves(*pid, folder));
        Ok(numbers.filter_map(Self::of).collect())
    }

    /// Whether it lives and is still the same process.
    pub(super) fn is_living(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it lives and keeps the folder. A process that is just replacing itself by another program has no
    /// command line for a moment, so this is for adoption; who is known already is known by [`Self::is_living`].
    pub(super) fn keeps(self, folder: &Path) -> bool {
        self.is_living() && serves(self.pid, folder)
    }

    /// Sends a signal, if it still is the same process; answers whether it was sent.
    pub(super) fn signal(self, signal: Signal) -> bool {
        self.is_living() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }
}

/// Whether the command line says that the process is the agent of the folder.
fn serves(pid: i32, folder: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&OsStr> = line.split(|b| *b == 0).map(OsStr::from_bytes).collect();
    let wanted = [OsStr::new("agent"), OsStr::new("--data"), folder.as_os_str(), OsStr::new("--listen")];
    words.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::Process;
    use nix::sys::signal::Signal;
    use std::path::Path;
    use std::process::{Command, Stdio};

    #[test]
    fn a_pid_file_left_over_names_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = Process::of(i32::try_from(std::process::id()).expect("small")).expect("lives");
        for start in [ours.start_time, ours.start_time + 1] {
            let text = format!(r#"{{"pid":{},"startTime":{start},"address":"127.1.0.1"}}"#, ours.pid);
            std::fs::write(folder.path().join("pid"), text).expect("written");
            assert_eq!(Process::named_in(folder.path()), None, "we are no guest");
        }
        for text in ["", "{}", r#"{"pid":-1,"startTime":0}"#] {
            std::fs::write(folder.path().join("pid"), text).expect("written");
            assert_eq!(Process::named_in(folder.path()), None, "{text}");
        }
    }

    #[test]
    fn a_process_is_known_by_number_and_start_and_folder() {
        let folder = Path::new("/nowhere/guests/i-1");
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read end", "agent", "--data"])
            .arg(folder)
            .arg("--listen")
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        let process = Process::of(i32::try_from(child.id()).expect("small")).expect("lives");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Process::all_of(folder).expect("readable") != [process] {
            assert!(std::time::Instant::now() < until, "never seen in the process table");
            std::thread::yield_now();
        }
        assert!(process.keeps(folder));
        let stranger = Process { start_time: process.start_time + 1, ..process };
        assert!(!stranger.keeps(folder));
        assert!(!stranger.signal(Signal::SIGKILL), "another process got the number");
        assert!(!process.keeps(Path::new("/nowhere/guests/i-2")), "another folder");
        assert!(process.signal(Signal::SIGKILL));
        child.wait().expect("its parent");
        assert!(!process.is_living());
        assert_eq!(Process::all_of(folder).expect("readable"), []);
    }
}
