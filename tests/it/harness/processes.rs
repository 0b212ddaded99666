//! Finding and ending the guests of one data folder, and nobody else.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Living processes other than this one whose command line names the folder or a path below it.
pub(crate) fn naming(folder: &Path) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = std::fs::read_dir("/proc").expect("a process table");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| *pid != own && names(*pid, folder) && !is_dead(*pid)).collect()
}

/// Living agents of the folder's guests.
pub(crate) fn agents(folder: &Path) -> Vec<i32> {
    let is_agent = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(b"agent")
    };
    naming(folder).into_iter().filter(is_agent).collect()
}

/// Kills every process that names the folder, each looked at again right before the signal.
pub(crate) fn end_all(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = naming(folder);
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in found {
            if names(pid, folder) {
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this process lives.
pub(crate) fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_dead(pid)
}

fn names(pid: i32, folder: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let is_ours = line.split(|b| *b == 0).next().is_some_and(|program| {
        Path::new(&*String::from_utf8_lossy(program)).file_name().is_some_and(|n| n == "dispatcher")
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
