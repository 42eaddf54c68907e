//! What `%pre` left.

use std::path::{Path, PathBuf};

use kiln_plan::{Hasher, Id};
use kiln_rootfs::store::Staging;

use crate::{Failure, FailureKind};

/// What `%pre` left in `/tmp`, for the scripts that run outside of the root, as in an installer.
pub(crate) struct PreFiles {
    staging: Staging,
    id: Id,
}

impl PreFiles {
    /// Names the files by their content.
    pub(crate) fn new(staging: Staging) -> Result<Self, Failure> {
        let mut hasher = Hasher::new("pre.v1");
        for (name, bytes) in files_below(&staging.fs()).map_err(|e| unreadable_pre(&e))? {
            hasher = hasher.text("file", &name).bytes("content", &bytes);
        }
        let id = hasher.finish();
        Ok(PreFiles { staging, id })
    }

    /// Names their content.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// Their directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.staging.fs()
    }
}

/// All regular files below a directory by their paths in it, sorted. Links are not followed: their target is noted.
fn files_below(dir: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let (mut found, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next)? {
            let (path, kind) = entry.and_then(|e| Ok((e.path(), e.file_type()?)))?;
            let name = path.strip_prefix(dir).unwrap_or(&path);
            let name = name.to_string_lossy().into_owned();
            if kind.is_dir() {
                pending.push(path);
                found.push((name, Vec::new()));
            } else if kind.is_file() {
                found.push((name, std::fs::read(&path)?));
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path)?;
                found.push((name, target.to_string_lossy().into_owned().into_bytes()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn unreadable_pre(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Step, "what %pre left in /tmp cannot be read")
        .cause(crate::define::load::plain(error))
        .hint("let the script make its files readable, and remove what it does not need")
}
