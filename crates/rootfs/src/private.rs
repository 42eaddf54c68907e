//! Directories of one user of the machine, closed to all others.
//!
//! A cache holds whole systems: set-id programs, directories that everybody may write, password hashes. None of it may be run,
//! changed or read by the machine's other users, so the directory above all of it can be entered by its owner alone. What is
//! below keeps the modes that it needs: as root, a sandbox runs under other ids and is handed single directories as
//! mounts, which it could not read were they closed as well.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// The mode of a private directory.
pub const MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
const EVERYBODY_WRITES: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Something about a private directory that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A directory that has to be private, as messages name it.
#[derive(Clone, Copy, Debug)]
pub struct Private<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// `cache`, `state directory`.
    pub what: &'a str,
    /// The option that names another.
    pub option: &'a str,
    /// What is in such a directory, one of these at least. Others are not closed: somebody needs them open, like `/tmp`.
    pub holds: &'a [&'a str],
}

impl Private<'_> {
    /// Makes the directory, and missing ones above it, so that only its owner can enter it. One that is there and open to others is closed,
    /// which a notice tells; so is told when others could put another directory into its place.
    ///
    /// # Errors
    /// It cannot be made or closed, has other uses, or belongs to somebody else, who could change what is in it.
    pub fn open(self) -> Result<Vec<Notice>> {
        let Private {
            path, what, option, ..
        } = self;
        let failed = |error: io::Error| {
            Error::io(format!("opening the {what} {}", path.display()), &error)
                .hint(format!("choose another {what} with {option} DIR"))
        };
        make(path).map_err(failed)?;
        let dir = File::open(path).map_err(failed)?;
        let found = dir.metadata().map_err(failed)?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(self.of_somebody_else(found.uid()));
        }
        let mut notices = Vec::new();
        if found.mode() & OTHERS != 0 {
            let empty = is_empty(path).map_err(failed)?;
            let ours = self.holds.iter().any(|name| path.join(name).exists());
            if found.mode() & STICKY != 0 || !(ours || empty) {
                return Err(self.of_other_use(found.mode()));
            }
            let closed = found.mode() & !OTHERS & 0o7777;
            dir.set_permissions(Permissions::from_mode(closed))
                .map_err(failed)?;
            if dir.metadata().map_err(failed)?.mode() & OTHERS != 0 {
                return Err(self.cannot_be_closed());
            }
            if !empty {
                notices.push(self.was_open(found.mode()));
            }
        }
        notices.extend(self.replaceable());
        Ok(notices)
    }

    fn of_somebody_else(self, owner: u32) -> Error {
        let Private {
            path, what, option, ..
        } = self;
        let you = rustix::process::geteuid().as_raw();
        let message = format!(
            "the {what} {} belongs to user {owner}, and you are user {you}",
            path.display()
        );
        Error::new(ErrorKind::Environment, message)
            .cause("its owner could read and change everything in it")
            .hint(format!("choose another {what} with {option} DIR"))
    }

    fn of_other_use(self, mode: u32) -> Error {
        let Private {
            path, what, option, ..
        } = self;
        let why = match mode & STICKY {
            0 => "others may enter it, and it holds other things",
            _ => "it was made for everybody",
        };
        let message = format!(
            "the directory {} cannot be the {what}: {why} (mode {:04o})",
            path.display(),
            mode & 0o7777
        );
        Error::new(ErrorKind::Environment, message).hint(format!(
            "name a directory of its own with {option}, for example {}",
            path.join("kiln").display()
        ))
    }

    fn cannot_be_closed(self) -> Error {
        let Private {
            path, what, option, ..
        } = self;
        let message = format!(
            "the {what} {} is open to other users of this machine, and its file system keeps it so",
            path.display()
        );
        Error::new(ErrorKind::Environment, message).hint(format!(
            "choose another with {option} DIR, on a file system that has access rights"
        ))
    }

    fn was_open(self, mode: u32) -> Notice {
        let Private { path, what, .. } = self;
        let message = format!(
            "other users of this machine could enter the {what} {} (mode {:04o}); it is closed to them now",
            path.display(),
            mode & 0o7777
        );
        let hint = match mode & OTHERS_WRITE {
            0 => "what it holds may have been read or run by others until now",
            _ => "others could write there too: remove it, if you do not trust all of them",
        };
        Notice {
            message,
            hint: hint.to_owned(),
        }
    }

    /// A directory above it in which everybody may rename.
    fn replaceable(self) -> Option<Notice> {
        let Private { path, what, .. } = self;
        let above = writable_above(path)?;
        let message = format!(
            "everybody on this machine can put another {what} into the place of {}: they may write {}",
            path.display(),
            above.display()
        );
        let hint = format!("`chmod +t {}`, or choose another place", above.display());
        Some(Notice { message, hint })
    }
}

/// Makes a directory, and missing ones above it, for its owner alone. Those that are there stay as they are.
///
/// # Errors
/// The system's.
pub fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(MODE).create(path)
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

/// The nearest directory above a path in which everybody may replace entries.
fn writable_above(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let open = |dir: &&Path| {
        let mode = fs::metadata(dir).map_or(0, |found| found.mode());
        mode & EVERYBODY_WRITES != 0 && mode & STICKY == 0
    };
    path.ancestors().skip(1).find(open).map(Path::to_path_buf)
}

/// Whether everybody may write into a directory and replace what others have put there.
pub fn is_everybodys(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|found| found.mode() & EVERYBODY_WRITES != 0 && found.mode() & STICKY == 0)
        || writable_above(path).is_some()
}
