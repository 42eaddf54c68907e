//! The one error type of this crate.

use std::path::Path;

/// What sort of error; the caller picks an exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request or the image file is wrong.
    Input,
    /// The machine lacks something: QEMU, firmware, space, permissions.
    Environment,
    /// QEMU or Kiln did what neither should do.
    Internal,
    /// The caller cancelled.
    Cancelled,
}

/// Why no verdict could be given. A system that fails to boot is no error but a verdict.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Results of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Input, message)
    }

    pub(crate) fn environment(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Environment, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    pub(crate) fn cancelled() -> Self {
        Error::new(
            ErrorKind::Cancelled,
            "the virtual machine was stopped on request",
        )
    }

    /// An operation on a file of the host failed: `doing` is a gerund, as in "writing".
    pub(crate) fn file(doing: &str, path: &Path, source: std::io::Error) -> Self {
        Error::environment(format!("{doing} {}", path.display())).cause(source)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn cause(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What to do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}
