//! Artifacts that are there already: when neither the inputs nor the files have changed, there is nothing to do.
//!
//! ```text
//! <cache>/outputs/<digest of the output directory's path>.json    the image's key, and each file as it was left
//! ```
//! A file counts as untouched while its inode, size, modification and change time are what they were; the kernel sets the last
//! one and no program can choose it. What lies in the cache is a note only: without it the image is made again.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_digest::Sha256;
use kiln_plan::{Hasher, Id};
use kiln_rootfs::Store;
use serde::{Deserialize, Serialize};

use crate::Event;
use crate::ids::image_id;
use crate::io::write_whole;
use crate::output::artifacts::is_image;
use crate::request::BuildReport;
use crate::steps::Steps;
use crate::values::{Resolved, Stack};

#[derive(PartialEq, Serialize, Deserialize)]
struct Note {
    key: Id,
    files: Vec<Left>,
}

/// A file as a build left it.
#[derive(PartialEq, Serialize, Deserialize)]
struct Left {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Left {
    fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Left::of(path, &fs::symlink_metadata(path)?))
    }

    fn of(path: &Path, found: &Metadata) -> Self {
        Left {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Everything that the artifacts are made of, this program included.
pub(crate) fn key(resolved: &Resolved, root: &Stack, epoch: i64) -> Id {
    let program = fs::metadata("/proc/self/exe").ok();
    let program = program.map(|found| (found.size(), found.mtime(), found.mtime_nsec()));
    Hasher::new("artifacts.v1")
        .text("kiln", env!("CARGO_PKG_VERSION"))
        .json("program", &program)
        .id("image", image_id(resolved))
        .id("root", root.id)
        .json("epoch", &epoch)
        .finish()
}

/// The report of the build that made just these artifacts, if they are still there.
pub(crate) fn current(
    store: &Store,
    steps: &Steps<'_>,
    key: Id,
    dir: &Path,
) -> Option<BuildReport> {
    let note: Note = serde_json::from_slice(&fs::read(note_path(store, dir)?).ok()?).ok()?;
    let untouched = |left: &Left| Left::new(&left.path).is_ok_and(|now| now == *left);
    if note.key != key || !note.files.iter().all(untouched) {
        return None;
    }
    steps.cached("making the image", None);
    for left in &note.files {
        let allocated = fs::metadata(&left.path).map_or(0, |m| m.blocks() * 512);
        if left.path.file_name().is_some_and(is_image) {
            steps.emit(Event::Artifact {
                path: left.path.clone(),
                bytes: left.size,
                allocated,
                kept: true,
            });
        }
    }
    Some(BuildReport {
        output: dir.to_owned(),
        artifacts: note.files.into_iter().map(|left| left.path).collect(),
        seconds: steps.seconds(),
    })
}

/// Notes what was left. A note that cannot be written costs the next build some seconds and nothing else.
pub(crate) fn remember(store: &Store, key: Id, report: &BuildReport) {
    let left = |path: &PathBuf| Left::new(path);
    let Ok(files) = report.artifacts.iter().map(left).collect() else {
        return;
    };
    let (Some(path), Ok(text)) = (
        note_path(store, &report.output),
        serde_json::to_vec(&Note { key, files }),
    ) else {
        return;
    };
    let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
    let _ = directory.and_then(|()| write_whole(&path, &text));
}

fn note_path(store: &Store, dir: &Path) -> Option<PathBuf> {
    let dir = fs::canonicalize(dir).ok()?;
    let name = hex::encode(Sha256::digest(dir.as_os_str().as_bytes()));
    Some(store.root().join("outputs").join(format!("{name}.json")))
}
