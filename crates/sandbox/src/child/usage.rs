//! How much memory a run takes: what its processes have to themselves, and what lies in its tmpfs mounts.
//!
//! A control group would count better, but a killed caller could not take its directory back.

use std::fs;
use std::time::Duration;

use crate::{Mount, Request};

/// How often a run is looked at.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Whether the run takes more than it may. The init asks, which sees all processes of its namespace in `/proc`.
pub(super) fn is_over(request: &Request) -> bool {
    let Some(limit) = request.limits.memory else {
        return false;
    };
    // The first sum counts pages that processes share since a fork once for each; the second, dearer one does not.
    let files = tmpfs(request);
    files.saturating_add(sum(private)) > limit && files.saturating_add(sum(proportional)) > limit
}

fn sum(of: impl Fn(&str) -> u64) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|name| of(&name))
        .fold(0, u64::saturating_add)
}

/// Pages that are no file's, swap included, in bytes (proc_pid_status(5)); none of a process that is gone.
fn private(process: &str) -> u64 {
    fs::read_to_string(format!("/proc/{process}/status"))
        .map_or(0, |text| kib(&text, "RssAnon:") + kib(&text, "VmSwap:"))
}

/// The same with each page divided by those who share it (`smaps_rollup` in proc_pid_smaps(5)).
fn proportional(process: &str) -> u64 {
    match fs::read_to_string(format!("/proc/{process}/smaps_rollup")) {
        Ok(text) => kib(&text, "Pss_Anon:") + kib(&text, "SwapPss:"),
        Err(_) => private(process),
    }
}

/// Bytes that a line says in KiB.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.and_then(|rest| rest.split_whitespace().next());
    digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

fn tmpfs(request: &Request) -> u64 {
    let targets = request.mounts.iter().filter_map(|mount| match mount {
        Mount::Tmpfs { target, .. } => Some(target.as_str()),
        Mount::Dev => Some("/dev/shm"),
        _ => None,
    });
    targets
        .filter_map(|target| rustix::fs::statvfs(target).ok())
        .map(|stat| (stat.f_blocks - stat.f_bfree).saturating_mul(stat.f_frsize))
        .fold(0, u64::saturating_add)
}
