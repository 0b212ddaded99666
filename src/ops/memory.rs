//! How much memory this process holds.

/// Resident memory of this process in KiB, from `VmRSS` of `/proc/self/status`; nothing where there is no such file.
#[must_use]
pub fn memory_kib() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The kernel writes `VmRSS:`, a tab and `1234 kB` (proc(5)); its kB are KiB.
fn parse(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{memory_kib, parse};

    #[test]
    fn the_kernels_line_is_read() {
        assert_eq!(parse("Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(parse("VmRSS:\t 12 pages\n"), None);
        assert_eq!(parse(""), None);
        assert!(memory_kib().is_none_or(|kib| kib > 100), "a process of less than 100 KiB");
    }
}
