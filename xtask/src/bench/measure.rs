//! What a command costs: wall time, processor time, memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::{Result, process};

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(20);

/// What a command cost, with all the processes it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) wall: Duration,
    /// User and system time of the command and of every descendant that was waited for.
    pub(crate) cpu: Duration,
    /// Bytes: the highest sum, over all processes alive at one moment, of anonymous and shared memory. Pages of files
    /// are left out: they are the kernel's cache, counted once for each process that maps them.
    pub(crate) peak_memory: u64,
}

impl std::ops::Add for Cost {
    type Output = Cost;

    /// One command after the other.
    fn add(self, other: Cost) -> Cost {
        Cost {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
            peak_memory: self.peak_memory.max(other.peak_memory),
        }
    }
}

/// Ext4 without a journal does not reuse an inode within a minute of its removal, and looks at every such one in turn before it takes another
/// (`recently_deleted` of `fs/ext4/ialloc.c`): what was removed before a measurement would be paid for by whoever is measured first.
const SETTLE: Duration = Duration::from_secs(65);

/// Lets what happened before not count: all is written, and no removed file is fresh. What memory holds of files stays there.
pub(super) fn rest() {
    println!("waiting {} s for the disk to settle", SETTLE.as_secs());
    rustix::fs::sync();
    std::thread::sleep(SETTLE);
}

/// Like [`rest`], and memory then holds the files below `inputs` and nothing of earlier runs that would have to be dropped first.
pub(super) fn settle(inputs: &Path) -> Result<()> {
    rest();
    let dropped = fs::write("/proc/sys/vm/drop_caches", "3");
    dropped.map_err(|e| format!("dropping the kernel's caches: {e}"))?;
    read_all(inputs).map_err(|e| format!("reading {}: {e}", inputs.display()))
}

/// Nothing is left to be written of what happened before, and memory holds the files below `inputs`.
pub(super) fn ready(inputs: &Path) -> Result<()> {
    rustix::fs::sync();
    read_all(inputs).map_err(|e| format!("reading {}: {e}", inputs.display()))
}

/// A root has links that lead out of it, and devices that never end.
fn read_all(path: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| read_all(&entry?.path()));
    }
    if !kind.is_file() {
        return Ok(());
    }
    io::copy(&mut fs::File::open(path)?, &mut io::sink()).map(drop)
}

/// Runs a command and measures it. What it prints is passed on.
pub(crate) fn measure(command: &mut Command) -> Result<Cost> {
    println!("+ {}", process::describe(command));
    let before = children_cpu()?;
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn().map_err(|error| {
        format!(
            "`{}` could not be started: {error}",
            process::describe(command)
        )
    })?;
    let ended = AtomicBool::new(false);
    let root = child.id();
    let (status, wall, peak_memory) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sample(root, &ended));
        let status = child.wait();
        let wall = started.elapsed();
        ended.store(true, Ordering::Relaxed);
        (status, wall, sampler.join().unwrap_or(0))
    });
    let status =
        status.map_err(|error| format!("waiting for `{}`: {error}", process::describe(command)))?;
    if !status.success() {
        return Err(format!("`{}` failed: {status}", process::describe(command)));
    }
    Ok(Cost {
        wall,
        cpu: children_cpu()?.saturating_sub(before),
        peak_memory,
    })
}

/// Processor time of all children that were waited for, and of theirs: fields 16 and 17 of proc_pid_stat(5), in
/// hundredths of a second on every Linux (`USER_HZ`).
pub(super) fn children_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")
        .map_err(|error| format!("reading /proc/self/stat: {error}"))?;
    let ticks = cpu_ticks(&text).ok_or("/proc/self/stat has an unknown form")?;
    Ok(Duration::from_millis(ticks * 10))
}

/// `cutime + cstime`; the name in field 2 may hold anything, so counting starts behind its last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn sample(root: u32, ended: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !ended.load(Ordering::Relaxed) {
        peak = peak.max(tree_memory(root));
        std::thread::sleep(SAMPLE);
    }
    peak
}

/// The memory of a process and all its descendants at this moment.
fn tree_memory(root: u32) -> u64 {
    let processes = processes();
    let mut total = 0;
    let mut open = vec![root];
    let mut seen = 0;
    while let Some(id) = open.pop() {
        total += processes.get(&id).map_or(0, |process| process.memory);
        open.extend(
            processes
                .iter()
                .filter(|(_, process)| process.parent == id)
                .map(|(child, _)| *child),
        );
        seen += 1;
        // Process ids may be reused while we look; a loop must not keep us.
        if seen > processes.len() {
            break;
        }
    }
    total
}

struct Process {
    parent: u32,
    memory: u64,
}

fn processes() -> BTreeMap<u32, Process> {
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| {
        // A process that has ended meanwhile has no file.
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        Some((id, parse_status(&status)?))
    })
    .collect()
}

/// proc_pid_status(5). Kernel threads and zombies have no memory lines.
fn parse_status(status: &str) -> Option<Process> {
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let kib = field("RssAnon").unwrap_or(0) + field("RssShmem").unwrap_or(0);
    Some(Process {
        parent: u32::try_from(field("PPid")?).ok()?,
        memory: kib << 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_child_is_measured() {
        let script = "import time; block = bytearray(64 << 20); end = time.time() + 0.4\nwhile time.time() < end: pass";
        let cost =
            measure(Command::new("sh").args(["-c", "python3 -c \"$0\"; true", script])).unwrap();
        assert!(cost.wall >= Duration::from_millis(400), "{cost:?}");
        assert!(cost.cpu >= Duration::from_millis(200), "{cost:?}");
        assert!(
            cost.peak_memory >= 64 << 20,
            "the grandchild's memory counts: {cost:?}"
        );
        assert!(cost.peak_memory < 512 << 20, "{cost:?}");
    }

    #[test]
    fn a_failing_child_is_an_error() {
        assert!(
            measure(&mut Command::new("false"))
                .unwrap_err()
                .contains("exit status: 1")
        );
    }

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        assert_eq!(
            cpu_ticks("1 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 70 8 20 0"),
            Some(78)
        );
    }
}
