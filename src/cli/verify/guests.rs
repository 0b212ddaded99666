//! Finding and ending the guests of one folder, and nobody else.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Living processes other than this one that run this program and whose command line names the folder or a path below it.
#[must_use]
pub fn naming(folder: &Path) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| *pid != own && names(*pid, folder) && !is_dead(*pid)).collect()
}

/// Living agents of the folder's guests.
#[must_use]
pub fn agents(folder: &Path) -> Vec<i32> {
    let is_agent = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(b"agent")
    };
    naming(folder).into_iter().filter(is_agent).collect()
}

/// Kills a process that names the folder, looked at again right before the signal; whether it was sent.
pub fn end(pid: i32, folder: &Path) -> bool {
    names(pid, folder) && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}

/// Kills every process that names the folder, until none is left or the time is over.
pub async fn end_all(folder: &Path, limit: Duration) {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let found = naming(folder);
        if found.is_empty() || tokio::time::Instant::now() > deadline {
            return;
        }
        for pid in found {
            end(pid, folder);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether this process lives.
#[must_use]
pub fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_dead(pid)
}

fn names(pid: i32, folder: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let is_ours = line.split(|b| *b == 0).next().is_some_and(|program| {
        let program = String::from_utf8_lossy(program);
        Path::new(&*program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("dispatcher"))
    });
    is_ours
        && line.split(|b| *b == 0).any(|word| Path::new(&*String::from_utf8_lossy(word)).starts_with(folder))
}

fn is_dead(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|text| text.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned()))
        .is_none_or(|rest| rest.starts_with(['Z', 'X']))
}
