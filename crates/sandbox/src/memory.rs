//! Noticing that the kernel's out-of-memory killer has been at work.

use std::fs;

/// The number of processes killed for memory since the machine started. Kills within a control group are in it too
/// (`oom_kill` of `/proc/vmstat`).
pub(crate) fn kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}
