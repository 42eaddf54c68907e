//! How much memory processes take: what they have to themselves, and what lies in tmpfs mounts.
//!
//! A control group would count better, but a killed caller could not take its directory back, and a user namespace has none.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::{Mount, Request};

/// How often a run is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// How long what the others have to say may take, once the largest namespace of a run that takes too much stands still.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// Measures processes against a limit of memory.
///
/// A tmpfs that was mounted before is nobody's: it may be a bind of the machine's. One that is hidden, below another mount or taken away
/// while a file of it is open, is not seen.
#[derive(Debug)]
pub struct Meter {
    known: HashSet<String>,
}

impl Default for Meter {
    fn default() -> Self {
        Meter::new()
    }
}

impl Meter {
    /// From now on.
    pub fn new() -> Meter {
        let found = mounted("self").into_iter().map(|found| found.device);
        Meter {
            known: found.collect(),
        }
    }

    /// Whether these processes, with files of the tmpfs mounts that they see, take more than a limit in bytes.
    pub fn is_over(&self, processes: &[u32], limit: u64) -> bool {
        self.is_over_with(0, processes, limit)
    }

    fn is_over_with(&self, besides: u64, processes: &[u32], limit: u64) -> bool {
        let besides = besides.saturating_add(self.files(processes));
        // The first sum counts pages that processes share since a fork once for each; the second, dearer one does not.
        let is_over = |of| besides.saturating_add(sum(processes, of)) > limit;
        is_over(private) && is_over(proportional)
    }

    /// The processes of the namespace below this process's own that takes most; none if there is none below.
    fn largest(&self) -> Vec<u32> {
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let own = namespace("self");
        let mut below: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
        for process in all() {
            if let Some(found) =
                namespace(&process.to_string()).filter(|found| Some(found) != own.as_ref())
            {
                below.entry(found).or_default().push(process);
            }
        }
        let taken = |processes: &[u32]| {
            self.files(processes)
                .saturating_add(sum(processes, proportional))
        };
        let largest = below.into_values().max_by_key(|processes| taken(processes));
        largest.into_iter().flatten().collect()
    }

    /// Bytes in tmpfs mounts of the processes.
    fn files(&self, processes: &[u32]) -> u64 {
        let (mut namespaces, mut devices) = (HashSet::new(), self.known.clone());
        let mut bytes = 0_u64;
        for process in processes {
            let namespace = fs::read_link(format!("/proc/{process}/ns/mnt"));
            if !namespace.is_ok_and(|namespace| namespaces.insert(namespace)) {
                continue;
            }
            for found in mounted(&process.to_string()) {
                let at = Path::new("/proc")
                    .join(process.to_string())
                    .join("root")
                    .join(found.point);
                if devices.insert(found.device) {
                    bytes = bytes.saturating_add(filled(&at));
                }
            }
        }
        bytes
    }
}

/// Whether a run takes more than it may. The init asks, which sees all processes of its namespace in `/proc`.
pub(crate) fn is_over(meter: &Meter, request: &Request) -> bool {
    let Some(limit) = request.limits.memory else {
        return false;
    };
    meter.is_over_with(tmpfs(request), &all(), limit)
}

/// Makes the largest namespace within a run stand still, so that it takes no more while what it and the others have written finds its
/// way out of the run. Says whether there is one.
pub(crate) fn stop_largest(meter: &Meter) -> bool {
    let largest = meter.largest();
    for process in &largest {
        let process = i32::try_from(*process).ok().and_then(Pid::from_raw);
        // One that is gone stands still.
        let _ = process.map(|process| rustix::process::kill_process(process, Signal::STOP));
    }
    !largest.is_empty()
}

fn sum(processes: &[u32], of: fn(u32) -> u64) -> u64 {
    let taken = processes.iter().map(|process| of(*process));
    taken.fold(0, u64::saturating_add)
}

/// All processes of this process's namespace.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The processes of the namespace that this one is in, and all that they have started; none if it is gone, or is in this process's own.
pub fn processes_with(init: u32) -> Vec<u32> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    let Some(of_init) = namespace(&init.to_string()) else {
        return Vec::new();
    };
    if namespace("self").as_ref() == Some(&of_init) {
        return Vec::new();
    }
    let all = all();
    let parents: BTreeMap<u32, u32> = all
        .iter()
        .filter_map(|process| Some((*process, parent(*process)?)))
        .collect();
    let is_in = |process: u32| {
        let mut above = Some(process);
        // A process that ends meanwhile can make no circle longer than this.
        for _ in 0..=parents.len() {
            match above {
                Some(found) if namespace(&found.to_string()).as_ref() == Some(&of_init) => {
                    return true;
                }
                Some(found) => above = parents.get(&found).copied(),
                None => return false,
            }
        }
        false
    };
    all.iter()
        .copied()
        .filter(|process| is_in(*process))
        .collect()
}

fn parent(process: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("PPid:"));
    line?.trim().parse().ok()
}

/// Pages that are no file's, swap included, in bytes (proc_pid_status(5)); none of a process that is gone.
fn private(process: u32) -> u64 {
    fs::read_to_string(format!("/proc/{process}/status"))
        .map_or(0, |text| kib(&text, "RssAnon:") + kib(&text, "VmSwap:"))
}

/// The same with each page divided by those who share it (`smaps_rollup` in proc_pid_smaps(5)).
fn proportional(process: u32) -> u64 {
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
        .map(|target| filled(Path::new(target)))
        .fold(0, u64::saturating_add)
}

/// Bytes that a file system's files take.
fn filled(at: &Path) -> u64 {
    rustix::fs::statvfs(at).map_or(0, |stat| {
        (stat.f_blocks - stat.f_bfree).saturating_mul(stat.f_frsize)
    })
}

/// A tmpfs.
struct Mounted {
    device: String,
    /// Where, below the root.
    point: PathBuf,
}

/// Those that a process sees whole (proc_pid_mountinfo(5)).
fn mounted(process: &str) -> Vec<Mounted> {
    let Ok(text) = fs::read(format!("/proc/{process}/mountinfo")) else {
        // It is gone.
        return Vec::new();
    };
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(tmpfs_of).collect()
}

fn tmpfs_of(line: &[u8]) -> Option<Mounted> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let end = words.iter().position(|word| *word == b"-")?;
    let is_whole = *words.get(3)? == b"/" && *words.get(end + 1)? == b"tmpfs";
    let device = String::from_utf8_lossy(words.get(2)?).into_owned();
    let point = unescaped(words.get(4)?);
    let point = point.strip_prefix(b"/").unwrap_or(&point).to_vec();
    is_whole.then(|| Mounted {
        device,
        point: OsString::from_vec(point).into(),
    })
}

/// A path in which `\040` stands for a space.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        path.push(code.unwrap_or(*first));
        rest = &tail[if code.is_some() { 3 } else { 0 }..];
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_with_odd_names_are_found() {
        let found = |line: &str| tmpfs_of(line.as_bytes()).map(|found| found.point);
        let line = |root: &str, point: &str, kind: &str| {
            format!("36 35 0:98 {root} {point} rw,noatime master:1 - {kind} none rw")
        };
        assert_eq!(found(&line("/", "/a", "tmpfs")), Some("a".into()));
        assert_eq!(
            found(&line("/", "/a\\040b\\134\\012", "tmpfs")),
            Some("a b\\\n".into())
        );
        for other in [
            line("/x", "/a", "tmpfs"),
            line("/", "/a", "ext4"),
            String::new(),
            "36 35 0:98 /".to_owned(),
        ] {
            assert!(found(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_processes_of_this_namespace_are_no_container() {
        assert!(processes_with(std::process::id()).is_empty());
        assert!(processes_with(u32::MAX).is_empty());
    }
}
