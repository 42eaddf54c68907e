//! How the caller's files are read: those of a disk, or of whatever else a caller has. Which of them a definition may read is decided
//! in one place for all of them, `confined.rs`.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_plan::{Found, ProjectFile};

use crate::Failure;

/// The caller's files.
pub trait Reader: Debug + Send + Sync {
    /// Returns where a name stands, by its words alone: relative names start where the caller says. What Kiln writes beside a
    /// definition, such as its lock, it writes there.
    fn place(&self, path: &Path) -> PathBuf;

    /// Returns the absolute path of what a name leads to, without links.
    ///
    /// # Errors
    /// There is nothing.
    fn real(&self, path: &Path) -> io::Result<PathBuf>;

    /// Returns whether a name is that of a directory.
    ///
    /// # Errors
    /// There is nothing.
    fn is_directory(&self, path: &Path) -> io::Result<bool>;

    /// Opens a directory.
    ///
    /// # Errors
    /// There is no such directory.
    fn directory(&self, path: &Path) -> io::Result<Arc<dyn Directory>>;

    /// Reads a file that the user named, wherever its name leads.
    ///
    /// # Errors
    /// It is no regular file, or too long.
    fn named(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// A directory of the caller's.
pub trait Directory: Debug + Send + Sync {
    /// Reads a regular file below it. No link is followed on the way.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, below: &Path) -> io::Result<Vec<u8>>;

    /// As [`kiln_plan::Files::tree`] has it.
    ///
    /// # Errors
    /// A sentence for people.
    fn tree(&self, path: &str) -> Result<Option<Vec<Found>>, String>;

    /// Copies files to a directory, each to its path below this one. All can be read by whoever gets at the directory.
    ///
    /// # Errors
    /// One is not any more what was hashed; the copy cannot be written.
    fn copy(&self, files: &[ProjectFile], to: &Path) -> Result<(), Failure>;
}
