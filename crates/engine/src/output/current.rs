//! Artifacts that are there already: when neither the inputs nor the files have changed, there is nothing to do.
//!
//! ```text
//! <cache>/outputs/<digest of the output directory's path>.json    the image's key and layers, what is to be said of it, and each
//!                                                                 file as it was left
//! ```
//! A file counts as untouched while its inode, size, modification and change time are what they were; the kernel sets the last
//! one and no program can choose it. What lies in the cache is a note only: without it the image is made again.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_digest::Sha256;
use kiln_plan::{Hasher, Id, Layer};
use kiln_rootfs::Store;
use serde::{Deserialize, Serialize};

use crate::Event;
use crate::ids::image_id;
use crate::io::write_whole;
use crate::means::Session;
use crate::means::digest::digest;
use crate::means::output::is_image;
use crate::request::BuildReport;
use crate::root::finish::{finish, say};
use crate::steps::Steps;
use crate::values::{Resolved, Stack};

#[derive(PartialEq, Serialize, Deserialize)]
struct Note {
    key: Id,
    origin: Origin,
    /// What people should know of the image, and what to do.
    remarks: Vec<(String, String)>,
    files: Vec<Left>,
}

/// Layers that artifacts were made of.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The highest one.
    pub(crate) root: Option<Id>,
    /// The highest one that packages made.
    pub(crate) of_packages: Option<Id>,
}

impl Origin {
    pub(crate) fn of(root: &Stack) -> Self {
        Origin {
            root: Some(root.id),
            of_packages: root.last_of_packages(),
        }
    }
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

/// Everything that the artifacts are made of, the program aside.
fn made_of(session: &Session<'_>, resolved: &Resolved) -> Hasher {
    let plan = &resolved.plan;
    let has_scripts = |layer: &Layer| !layer.scripts.is_empty() || !layer.pre_install.is_empty();
    let network = plan.layers.iter().any(has_scripts);
    let network = network.then(|| session.network.settle(session.steps));
    let options = plan.layers.iter().map(|layer| &layer.package_options);
    Hasher::new("artifacts.v2")
        .text("kiln", env!("CARGO_PKG_VERSION"))
        .id("image", image_id(resolved))
        .id("tools", resolved.tools.id)
        .json("pre", &resolved.pre.as_ref().map(|pre| pre.id))
        .json("options", &options.collect::<Vec<_>>())
        .json("finish", &finish(&*session.family, resolved))
        .json("network", &network)
        .json("fixed", &session.request.epoch)
        .json("epoch", &resolved.epoch(session.request.epoch))
}

/// The id of artifacts that are in the output directory. It stays the same while all that they are made of does, this program
/// included, and layers need not be there to know it.
pub(crate) fn key(session: &Session<'_>, resolved: &Resolved) -> Id {
    let program = fs::metadata("/proc/self/exe").ok();
    let program = program.map(|found| (found.size(), found.mtime(), found.mtime_nsec()));
    made_of(session, resolved)
        .json("program", &program)
        .finish()
}

/// The same for artifacts of other machines, where the program has other times. None where it cannot be read.
pub(crate) fn shared_key(session: &Session<'_>, resolved: &Resolved) -> Option<Id> {
    let program = File::open("/proc/self/exe").ok()?;
    let size = program.metadata().ok()?.len();
    let program = digest(&program, size).ok()?;
    Some(
        made_of(session, resolved)
            .text("program", &program)
            .finish(),
    )
}

/// The report of the build that made just these artifacts, if they are still there. Of what layers they have to be is said by `root`; where it
/// says nothing, these layers are not there, and nobody would want to have them made for this answer.
pub(crate) fn current(
    store: &Store,
    steps: &Steps<'_>,
    key: Id,
    root: Option<&Stack>,
    dir: &Path,
) -> Option<BuildReport> {
    let note: Note = serde_json::from_slice(&fs::read(note_path(store, dir)?).ok()?).ok()?;
    let untouched = |left: &Left| Left::new(&left.path).is_ok_and(|now| now == *left);
    let is_here = |id| store.layer(id).is_some();
    let fits = match root {
        Some(root) => note.origin == Origin::of(root),
        None => !note.origin.of_packages.is_none_or(is_here),
    };
    if note.key != key || !fits || !note.files.iter().all(untouched) {
        return None;
    }
    if root.is_none() {
        say(steps, &note.remarks);
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
pub(crate) fn remember(
    store: &Store,
    key: Id,
    origin: Origin,
    remarks: Vec<(String, String)>,
    report: &BuildReport,
) {
    let left = |path: &PathBuf| Left::new(path);
    let Ok(files) = report.artifacts.iter().map(left).collect() else {
        return;
    };
    let (Some(path), Ok(text)) = (
        note_path(store, &report.output),
        serde_json::to_vec(&Note {
            key,
            origin,
            remarks,
            files,
        }),
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
