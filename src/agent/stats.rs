//! Figures of the guest, from `/proc`. What cannot be read stays zero.

use crate::wire::GuestStats;

/// Reads them now; takes well below a millisecond.
pub(super) fn read() -> GuestStats {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = kib(&memory, "MemTotal:");
    GuestStats {
        cpu_load: std::fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or_default(),
        cpu_count: std::thread::available_parallelism()
            .ok()
            .and_then(|n| u32::try_from(n.get()).ok())
            .unwrap_or_default(),
        memory_total: total,
        memory_used: total.saturating_sub(kib(&memory, "MemAvailable:")),
        processes: processes(),
    }
}

fn kib(meminfo: &str, key: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or_default()
        .saturating_mul(1024)
}

fn processes() -> u32 {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let count = entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
        })
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// When a process started, in the kernel's ticks since boot (field 22 of `/proc/<pid>/stat`): with the pid it names a
/// process for ever, since pids are used again. Nothing when there is no such process.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2 is the program's name in parentheses and may hold anything, so counting starts after the last one.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_figures_and_this_process_a_start() {
        let stats = super::read();
        assert!(stats.cpu_count > 0 && stats.processes > 0, "{stats:?}");
        assert!(stats.memory_used > 0 && stats.memory_used < stats.memory_total, "{stats:?}");
        let start = super::start_time(std::process::id()).expect("alive");
        assert!(start > 0);
        assert_eq!(super::start_time(u32::MAX), None);
    }
}
