//! Removing directory trees.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Directories nested deeper than this are moved up before they are emptied: scripts can nest deeper than there are
/// descriptors or stack.
const MAX_DEPTH: usize = 64;

/// Removes a tree with the rights of this process, however deep it is. Does nothing if nothing is there.
///
/// # Errors
/// Something in it cannot be removed; what was, is.
pub fn remove_tree(path: &Path) -> Result<()> {
    let path = std::path::absolute(path).doing_at("looking for", path)?;
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => remove_one(&path),
    }
}

/// Removes trees with the rights of this process.
pub(crate) fn remove_all(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| remove_one(path))
}

fn remove_one(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal(format!(
            "{} cannot be removed",
            path.display()
        )));
    };
    let parent = rustix::fs::open(parent, DIRECTORY, Mode::empty()).doing_at("opening", parent)?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(Error::at("removing", path, error)),
    }
    empty(parent.as_fd(), name).doing_at("emptying", path)?;
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).doing_at("removing", path)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A directory that is being emptied.
struct Level {
    dir: OwnedFd,
    name: OsString,
    /// Its directories that are not empty.
    pending: Vec<OsString>,
}

impl Level {
    /// Opens a directory and removes everything from it but directories that are not empty.
    fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Level> {
        let dir = rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        let mut pending = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && !remove_simple(dir.as_fd(), name, entry.file_type())?
            {
                pending.push(name.to_owned());
            }
        }
        Ok(Level {
            dir,
            name: name.to_owned(),
            pending,
        })
    }
}

/// Removes anything but a directory with something in it; false for those.
fn remove_simple(dir: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> rustix::io::Result<bool> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn empty(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let mut top = Level::enter(parent, name)?;
    let mut stack: Vec<Level> = Vec::new();
    let mut moved = 0;
    loop {
        let depth = stack.len();
        let level = stack.last_mut().unwrap_or(&mut top);
        if let Some(name) = level.pending.pop() {
            if depth < MAX_DEPTH {
                let next = Level::enter(level.dir.as_fd(), &name)?;
                stack.push(next);
            } else {
                let from = level.dir.try_clone().map_err(|_| Errno::MFILE)?;
                let to = move_up(from.as_fd(), &name, top.dir.as_fd(), &mut moved)?;
                top.pending.push(to);
            }
            continue;
        }
        let Some(done) = stack.pop() else {
            return Ok(());
        };
        let above = stack.last().unwrap_or(&top);
        rustix::fs::unlinkat(&above.dir, &done.name, AtFlags::REMOVEDIR)?;
    }
}

/// Moves a directory to the top under a name that is free there.
fn move_up(
    from: BorrowedFd<'_>,
    name: &OsStr,
    top: BorrowedFd<'_>,
    count: &mut u64,
) -> rustix::io::Result<OsString> {
    loop {
        *count += 1;
        let new = OsString::from(format!(".kiln-removing-{count}"));
        match rustix::fs::renameat_with(from, name, top, &new, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}
