//! What can go wrong, for people.

use std::fmt;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The build file or the source.
    Input,
    /// What was asked for.
    Usage,
    /// The server, the way to it, or this machine.
    Environment,
    /// The server is there and answers with a status of 5xx, or is not to be reached: another try may help.
    Unreachable,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Whose fault it is.
    pub kind: Kind,
    /// What is wrong, with the name of the thing.
    pub message: String,
    /// `FILE:LINE:COLUMN`, if it is about a file.
    pub place: Option<String>,
    /// Why.
    pub cause: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// The status of a server's answer.
    pub status: Option<u16>,
}

impl Error {
    /// A fault of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            place: None,
            cause: None,
            hint: None,
            status: None,
        }
    }

    pub(crate) fn cause(self, cause: impl ToString) -> Self {
        Error {
            cause: Some(cause.to_string()),
            ..self
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Error {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(crate) fn at(self, place: impl Into<String>) -> Self {
        Error {
            place: Some(place.into()),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
