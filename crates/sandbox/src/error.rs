//! The crate's error, which is also the error of a function that ran inside.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Whose fault it is; picks the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request, or data that a function was given, is wrong.
    Input,
    /// The machine lacks something: a kernel feature, an id range, space, a right.
    Environment,
    /// What ran inside failed.
    Step,
    /// A bug in Kiln.
    Internal,
}

/// Why a sandbox could not be set up or run; also what a registered function reports when it fails, brought from the
/// sandbox to the caller. A panic in it is [`ErrorKind::Internal`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", .causes.iter().map(|cause| format!(": {cause}")).collect::<String>())]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// One sentence that names the object.
    pub message: String,
    /// What was behind it, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Error {
    /// An error of a kind, with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Adds an error that was behind it, with that error's own sources.
    #[must_use]
    pub fn because(mut self, cause: impl std::error::Error) -> Self {
        self.causes.push(cause.to_string());
        let mut source = cause.source();
        while let Some(error) = source {
            self.causes.push(error.to_string());
            source = error.source();
        }
        self
    }

    /// Adds a cause in words.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
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

    /// A system call failed on an object: the kind and the hint follow from its number.
    pub(crate) fn system(doing: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let message = Error::environment(doing).because(&error);
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                message.hint("raise the limit of open files (`ulimit -n`)")
            }
            Some(libc::ENOMEM) => message.hint("free some memory"),
            Some(libc::ENOSYS) => message.hint("a kernel of 5.12 or newer is needed"),
            _ => message,
        }
    }

    pub(crate) fn at(doing: &str, path: &Path, error: impl Into<std::io::Error>) -> Self {
        Error::system(format!("{doing} {}", path.display()), error)
    }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// `.doing("mounting X")`: context for system calls.
pub(crate) trait Context<T> {
    fn doing(self, what: &str) -> Result<T>;
    fn doing_at(self, what: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for std::result::Result<T, E> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|error| Error::system(what, error))
    }

    fn doing_at(self, what: &str, path: &Path) -> Result<T> {
        self.map_err(|error| Error::at(what, path, error))
    }
}
