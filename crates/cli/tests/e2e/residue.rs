//! What a build can leave behind, and whether it did.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::lane;

/// The machine's mounts and loop devices.
#[derive(Debug)]
pub(crate) struct Residue {
    mounts: BTreeSet<String>,
    loops: BTreeSet<String>,
}

/// A killed process's children are gone a moment later, not at once.
const GRACE: Duration = Duration::from_secs(10);

impl Residue {
    pub(crate) fn now() -> Self {
        Residue {
            mounts: mounts(),
            loops: loops(),
        }
    }

    /// Everything that is there beyond what was: half-made artifacts, staging, processes, mounts, loop devices.
    pub(crate) fn since(&self, output: &Path, cache: &Path) -> Vec<String> {
        let mut left = self.of_the_machine();
        left.extend(
            names(output)
                .into_iter()
                .map(|name| format!("in the output: {name}")),
        );
        left.extend(
            names(&cache.join("staging"))
                .into_iter()
                .map(|name| format!("in staging: {name}")),
        );
        left
    }

    /// Processes, mounts and loop devices only.
    pub(crate) fn of_the_machine(&self) -> Vec<String> {
        let until = Instant::now() + GRACE;
        let mut processes = descendants();
        while !processes.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            processes = descendants();
        }
        let mut left: Vec<String> = processes
            .into_iter()
            .map(|process| format!("process: {process}"))
            .collect();
        left.extend(
            mounts()
                .difference(&self.mounts)
                .map(|mount| format!("mount: {mount}")),
        );
        left.extend(
            loops()
                .difference(&self.loops)
                .map(|device| format!("loop device: {device}")),
        );
        left
    }
}

/// Names in a directory; none where there is no directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    text.lines().map(str::to_owned).collect()
}

fn loops() -> BTreeSet<String> {
    let blocks = names(Path::new("/sys/block")).into_iter();
    let backed = blocks.filter_map(|name| {
        let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
        lane::is_own(&file).then(|| format!("{name} {}", file.trim()))
    });
    backed.collect()
}

/// Living processes below this one. Since it is a subreaper, orphans are among them.
fn descendants() -> Vec<String> {
    let all: Vec<(u32, u32, String)> = names(Path::new("/proc"))
        .iter()
        .filter_map(|name| process(name))
        .collect();
    let mut family = BTreeSet::from([std::process::id()]);
    loop {
        let size = family.len();
        family.extend(
            all.iter()
                .filter(|(_, parent, _)| family.contains(parent))
                .map(|(pid, ..)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == size {
            break;
        }
    }
    family.remove(&std::process::id());
    all.into_iter()
        .filter(|(pid, ..)| family.contains(pid))
        .map(|(pid, _, what)| format!("{pid} {what}"))
        .collect()
}

/// Id, parent and command of a process that is no zombie.
fn process(name: &str) -> Option<(u32, u32, String)> {
    let pid = name.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    (!matches!(state, "Z" | "X")).then_some((pid, parent, command))
}
