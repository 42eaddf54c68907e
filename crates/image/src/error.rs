//! The one error of this crate.

use std::io;

/// Whose fault it is; `build` turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The definition or a file that was handed in is wrong (exit code 1).
    Input,
    /// The machine lacks something: a permission, a file of the boot loader (exit code 3).
    Environment,
    /// Reading or writing failed for another reason (exit code 4).
    Step,
    /// Kiln is wrong (exit code 5).
    Internal,
    /// The caller asked to stop (exit code 130).
    Cancelled,
}

/// What failed, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<io::Error>,
    damaged: Option<Vec<u8>>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns an error with a sentence that names the object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            hint: None,
            source: None,
            damaged: None,
        }
    }

    /// Returns the error for an input that cannot be used.
    pub fn input(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Input, message)
    }

    /// Returns the error for a failed read or write while `doing` (a gerund that names the object: `writing /esp/vmlinuz`).
    ///
    /// The kind follows from the cause: no permission and the like are the environment's. Whether a disk is full is for the caller to
    /// tell, who knows which one and what a build needs of it.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Error {
            kind: kind_of(&source),
            message: doing.into(),
            hint: hint_of(&source),
            source: Some(source),
            damaged: None,
        }
    }

    /// Returns the error for something that this crate relies on and that is not so.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// A file of a tree does not hold what it is known to hold.
    pub(crate) fn damaged(path: &[u8]) -> Self {
        let message = format!(
            "{} does not hold what it held when its layer was finished: the disk, or something that writes to it, damaged it",
            show(path)
        );
        Error {
            damaged: Some(path.to_owned()),
            ..Error::new(ErrorKind::Step, message)
        }
    }

    /// Returns the path in the tree, without a leading slash, of a file that is not what it is known to be.
    pub fn damaged_path(&self) -> Option<&[u8]> {
        self.damaged.as_deref()
    }

    /// Returns the error for a caller's wish to stop.
    pub fn cancelled() -> Self {
        Error::new(ErrorKind::Cancelled, "writing the image was stopped")
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what to do, if that is known.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// A path or name for messages: printable, whatever its bytes.
pub(crate) fn show(path: &[u8]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    String::from_utf8_lossy(path).escape_debug().to_string()
}

fn kind_of(source: &io::Error) -> ErrorKind {
    use io::ErrorKind as K;
    match source.kind() {
        K::FileTooLarge | K::PermissionDenied | K::ReadOnlyFilesystem | K::OutOfMemory => {
            ErrorKind::Environment
        }
        _ => ErrorKind::Step,
    }
}

fn hint_of(source: &io::Error) -> Option<String> {
    use io::ErrorKind as K;
    let hint = match source.kind() {
        K::FileTooLarge => "the file system or `ulimit -f` does not allow a file of this size",
        K::ReadOnlyFilesystem => "the file system is mounted read-only: choose another directory",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Adds what was being done to an [`io::Error`].
pub(crate) trait IoContext<T> {
    /// `doing` is a gerund that names the object.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(doing(), e))
    }
}

impl<T> IoContext<T> for std::result::Result<T, rustix::io::Errno> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::io(doing(), e.into()))
    }
}
