//! What a build where nothing changed asks of the indices, noted: then nobody reads the 65,000 stanzas of Debian's again.
//!
//! ```text
//! metadata/outlines/<id>.json    how many packages the indices have, and those of the tools root
//! ```
//! The id is made of the signed releases, the indices that were taken of them, and what is looked for. Signatures are verified and
//! files hashed before, as always. A note that is missing or damaged costs the time of reading; with warnings there is none, so that they
//! are seen again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::debian::Metadata;
use kiln_packages::{Digest, LockedPackage, TOOLS};
use kiln_plan::{Hasher, Id};
use serde::{Deserialize, Serialize};

use super::tools::{FILES, PROGRAMS};

/// Notes that are kept: repositories change a few times a day.
const KEPT: usize = 16;

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Packages of all indices, counting versions.
    pub(super) packages: usize,
    /// Those of the tools root.
    pub(super) tools: Vec<LockedPackage>,
}

/// The answers as they are written down.
#[derive(Serialize, Deserialize)]
struct Note {
    packages: usize,
    tools: Vec<Tool>,
}

#[derive(Serialize, Deserialize)]
struct Tool {
    name: String,
    version: String,
    architecture: String,
    url: String,
    sha256: Digest,
    size: u64,
}

/// Where the note about some indices is.
pub(super) fn place(directory: &Path, metadata: &Metadata, architecture: &str) -> PathBuf {
    let id = id(metadata, architecture);
    directory.join("outlines").join(format!("{id}.json"))
}

/// All that the answers depend on.
fn id(metadata: &Metadata, architecture: &str) -> Id {
    let hasher = Hasher::new("outline.v1")
        .text("kiln", env!("CARGO_PKG_VERSION"))
        .text("architecture", architecture)
        .json("tools", &(PROGRAMS, FILES));
    let all = metadata.repositories.iter();
    let hasher = all.fold(hasher, |hasher, verified| {
        let repository = &verified.repository;
        let names = (&repository.uri, &repository.suite, &repository.architecture);
        let indices = verified.indices.iter().map(|index| {
            let content = index.path().file_name();
            (
                index.file_name(),
                content.map(|name| name.to_string_lossy()),
            )
        });
        hasher
            .json("repository", &names)
            .bytes("release", verified.release_sha256.as_bytes())
            .json("indices", &indices.collect::<Vec<_>>())
    });
    hasher.finish()
}

impl Outline {
    /// Reads a note.
    pub(super) fn recall(path: &Path) -> Option<Self> {
        let note: Note = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let _ = fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        let tools = note.tools.into_iter().map(|tool| LockedPackage {
            name: tool.name,
            version: tool.version,
            architecture: tool.architecture,
            url: tool.url,
            sha256: tool.sha256,
            size: tool.size,
            layer: TOOLS.to_owned(),
            auto: true,
            facts: BTreeMap::new(),
        });
        Some(Outline {
            packages: note.packages,
            tools: tools.collect(),
        })
    }

    /// Writes a note. It only saves time, so a failure is no error.
    pub(super) fn remember(&self, path: &Path) {
        let tools = self.tools.iter().map(|tool| Tool {
            name: tool.name.clone(),
            version: tool.version.clone(),
            architecture: tool.architecture.clone(),
            url: tool.url.clone(),
            sha256: tool.sha256,
            size: tool.size,
        });
        let note = Note {
            packages: self.packages,
            tools: tools.collect(),
        };
        let write = || {
            let directory = path.parent()?;
            fs::create_dir_all(directory).ok()?;
            prune(directory);
            // Other builds may write the same: each has a name of its own until the note is whole.
            let part = path.with_extension(format!("{}.new", std::process::id()));
            let text = serde_json::to_vec(&note).ok()?;
            fs::write(&part, text)
                .and_then(|()| fs::rename(&part, path))
                .inspect_err(|_| drop(fs::remove_file(&part)))
                .ok()
        };
        let _ = write();
    }
}

/// Removes the notes that were used longest ago, and what killed builds left: one more is about to come.
fn prune(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let used = |entry: &fs::DirEntry| entry.metadata().and_then(|m| m.modified()).ok();
    let mut all: Vec<_> = entries.map(|entry| (used(&entry), entry.path())).collect();
    all.sort();
    let old = all.len().saturating_sub(KEPT - 1);
    for (_, path) in all.iter().take(old) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline() -> Outline {
        let bash = LockedPackage {
            name: "bash".to_owned(),
            version: "5.2-1".to_owned(),
            architecture: "amd64".to_owned(),
            url: "http://h/debian/pool/b.deb".to_owned(),
            sha256: Digest::of(b"bash"),
            size: 7,
            layer: TOOLS.to_owned(),
            auto: true,
            facts: BTreeMap::new(),
        };
        Outline {
            packages: 3,
            tools: vec![bash],
        }
    }

    #[test]
    fn what_was_noted_comes_back_and_damage_is_no_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("outlines/1.json");
        assert_eq!(Outline::recall(&path), None);
        outline().remember(&path);
        assert_eq!(Outline::recall(&path), Some(outline()));
        let text = fs::read(&path).expect("the note");
        fs::write(&path, &text[..text.len() / 2]).expect("damage");
        assert_eq!(Outline::recall(&path), None);
    }

    #[test]
    fn notes_do_not_pile_up() {
        let dir = tempfile::tempdir().expect("a directory");
        for count in 0..3 * KEPT {
            outline().remember(&dir.path().join(format!("{count}.json")));
        }
        let left = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, KEPT);
    }
}
