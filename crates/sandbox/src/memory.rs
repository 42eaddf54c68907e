//! How much memory there is, and noticing that the kernel's out-of-memory killer has been at work.

use std::fs;

/// The number of processes killed for memory since the machine started. Kills within a control group are in it too
/// (`oom_kill` of `/proc/vmstat`). 0 where the kernel does not say: nothing is noticed then.
pub(crate) fn kills() -> u64 {
    number("/proc/vmstat", "oom_kill ").unwrap_or(0)
}

/// Bytes that programs can have without swapping (`MemAvailable` of `/proc/meminfo`); 0 where that is not known.
pub fn available() -> u64 {
    meminfo("MemAvailable:")
}

/// Bytes of memory that the machine has (`MemTotal`); 0 where that is not known.
pub(crate) fn total() -> u64 {
    meminfo("MemTotal:")
}

fn meminfo(name: &str) -> u64 {
    number("/proc/meminfo", name).unwrap_or(0) << 10
}

/// The number behind a name in a table of the kernel.
fn number(table: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(table).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_memory() {
        assert!(super::available() > 1 << 20);
        assert!(super::total() > super::available());
    }
}
