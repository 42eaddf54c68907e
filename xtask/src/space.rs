//! Whether there is room for what a chore writes: said before anything is compiled, not after twenty minutes.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Result, workspace};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What a chore takes at its peak, in bytes.
pub(crate) struct Need {
    /// The chore, as a message names it.
    chore: &'static str,
    /// What is compiled, below the target directory.
    compiled: u64,
    /// Caches and images that tests make below the target directory.
    made: u64,
    /// What tests make in the temporary directory.
    temporary: u64,
}

/// `cargo xtask test`. Measured on a clean clone, to which comes some margin: 3.1 GiB of builds, 7.5 GiB when the lab's
/// desktop is built, 2.9 GiB of an ordinary user's cache and unpacked roots. Then what the second lane of end-to-end tests has
/// beside the first one: another cache of the minimal image, and another test's directory.
pub(crate) const TESTS: Need = Need {
    chore: "the tests",
    compiled: 4 * GIB,
    made: 9 * GIB,
    temporary: 5 * GIB,
};

/// `cargo xtask e2e FILTERS`: nothing is compiled for clippy, and only the lab's desktop takes much.
pub(crate) fn end_to_end(filters: &[&str]) -> Need {
    let mut names = filters
        .iter()
        .filter(|word| !word.starts_with('-'))
        .peekable();
    let lab = names.peek().is_none()
        || names.any(|name| name.contains("desktop") || name.contains("lab"));
    Need {
        chore: "the end-to-end tests",
        compiled: 2 * GIB,
        made: if lab { TESTS.made } else { 4 * GIB },
        ..TESTS
    }
}

/// What can go, and how. Below the target directory.
const REMOVABLE: &[(&str, &str)] = &[
    ("bench", "what `cargo xtask bench` left"),
    ("equal-root", "what `cargo xtask equal-root` left"),
    ("equal-unpack", "what `cargo xtask equal-unpack` left"),
    ("release", "release builds"),
    ("debug", "debug builds; `cargo clean` removes old ones too"),
    ("tmp", "caches of tests"),
];

/// Fails, naming what is there and what is needed, unless the file systems have room.
pub(crate) fn check(need: &Need) -> Result<()> {
    let target = workspace::target_directory()?;
    let temporary = Place::of(&std::env::temp_dir())?;
    let place = Place::of(&target)?;
    let held =
        need.compiled.min(size(&target.join("debug"))) + need.made.min(size(&target.join("tmp")));
    let trouble = shortages(need, held, &place, &temporary);
    if trouble.is_empty() {
        return Ok(());
    }
    Err(trouble.join("\n") + &advice(&target))
}

/// A directory, or the nearest one above it that is there.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    device: u64,
    /// Bytes that can be written by anybody.
    free: u64,
}

impl Place {
    fn of(path: &Path) -> Result<Place> {
        let mut nearest = path.ancestors().filter(|path| path.is_dir());
        let there = nearest.next().unwrap_or(path);
        let trouble = |error: &dyn std::fmt::Display| format!("{}: {error}", there.display());
        let device = fs::metadata(there).map_err(|e| trouble(&e))?.dev();
        let system = rustix::fs::statvfs(there).map_err(|e| trouble(&e))?;
        Ok(Place {
            path: path.to_owned(),
            device,
            free: system.f_bavail.saturating_mul(system.f_frsize),
        })
    }

    fn shortage(&self, chore: &str, need: u64) -> Option<String> {
        (self.free < need).then(|| {
            format!(
                "{chore} need {} free for {}, and its file system has {}",
                gib(need),
                self.path.display(),
                gib(self.free)
            )
        })
    }
}

/// What lacks where. `held` is what an earlier run left and this one will write over.
fn shortages(need: &Need, held: u64, target: &Place, temporary: &Place) -> Vec<String> {
    let below_target = (need.compiled + need.made).saturating_sub(held);
    let needs = if target.device == temporary.device {
        vec![(target, below_target + need.temporary)]
    } else {
        vec![(target, below_target), (temporary, need.temporary)]
    };
    let shortage = |(place, bytes): (&Place, u64)| place.shortage(need.chore, bytes);
    needs.into_iter().filter_map(shortage).collect()
}

/// What lies below the target directory and can go.
fn advice(target: &Path) -> String {
    let mut text = String::new();
    for (name, what) in REMOVABLE {
        let path = target.join(name);
        let bytes = size(&path);
        if bytes >= 64 * MIB {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {:>9}  {}: {what}", gib(bytes), path.display());
        }
    }
    if text.is_empty() {
        return "\nmake room, or set CARGO_TARGET_DIR and TMPDIR to where there is more".to_owned();
    }
    format!("\nthese can go:{text}\nor set CARGO_TARGET_DIR and TMPDIR to where there is more room")
}

/// Bytes that a tree takes on the disk; what cannot be read counts as nothing.
pub(crate) fn size(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut todo = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = todo.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.nlink() > 1 && !found.is_dir() && !seen.insert((found.dev(), found.ino())) {
            continue;
        }
        bytes += found.blocks() * 512;
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    bytes
}

/// `12.3 GiB`
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / GIB as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need {
        chore: "the tests",
        compiled: 4 * GIB,
        made: 3 * GIB,
        temporary: 2 * GIB,
    };

    fn place(path: &str, device: u64, free: u64) -> Place {
        Place {
            path: path.into(),
            device,
            free,
        }
    }

    #[test]
    fn one_file_system_has_room_for_both_directories_or_lacks_it() {
        let places = |free| (place("/t", 1, free), place("/tmp", 1, free));
        let (target, temporary) = places(9 * GIB);
        assert!(shortages(&NEED, 0, &target, &temporary).is_empty());
        let (target, temporary) = places(9 * GIB - 100 * MIB);
        let said = shortages(&NEED, 0, &target, &temporary);
        assert_eq!(
            said,
            ["the tests need 9.0 GiB free for /t, and its file system has 8.9 GiB"]
        );
        // What an earlier run left is written over.
        assert!(shortages(&NEED, GIB, &target, &temporary).is_empty());
    }

    #[test]
    fn the_lab_needs_more_than_other_tests() {
        let made = |filters: &[&str]| end_to_end(filters).made;
        for all in [
            &[][..],
            &["--nocapture"],
            &["desktop::"],
            &["kill::", "the_lab"],
        ] {
            assert_eq!(made(all), TESTS.made, "{all:?}");
        }
        assert!(made(&["kill::", "--nocapture"]) < TESTS.made);
    }

    #[test]
    fn two_file_systems_are_judged_apart() {
        let (target, temporary) = (place("/t", 1, 8 * GIB), place("/tmp", 2, GIB));
        let said = shortages(&NEED, 0, &target, &temporary);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("2.0 GiB free for /tmp"), "{said:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_file_system_above_it() {
        let here = tempfile::tempdir().unwrap();
        let (there, absent) = (
            Place::of(here.path()).unwrap(),
            Place::of(&here.path().join("a/b")).unwrap(),
        );
        assert_eq!(there.device, absent.device);
        assert!(absent.free > 0);
    }

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let here = tempfile::tempdir().unwrap();
        let empty = size(here.path());
        fs::write(here.path().join("a"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(here.path().join("a"), here.path().join("b")).unwrap();
        let bytes = size(here.path()) - empty;
        assert!((1 << 20..3 << 19).contains(&bytes), "{bytes}");
        assert_eq!(size(&here.path().join("absent")), 0);
    }

    #[test]
    fn advice_names_what_is_large() {
        let here = tempfile::tempdir().unwrap();
        assert!(advice(here.path()).contains("CARGO_TARGET_DIR"));
        fs::create_dir(here.path().join("bench")).unwrap();
        let big = vec![1; 65 << 20];
        fs::write(here.path().join("bench/x"), big).unwrap();
        let said = advice(here.path());
        assert!(
            said.contains("0.1 GiB") && said.contains("/bench: what"),
            "{said}"
        );
        assert!(!said.contains("equal-root"), "{said}");
    }
}
