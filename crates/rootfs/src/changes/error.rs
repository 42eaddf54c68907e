//! Why a change could not be made.

use std::fmt;

use serde::{Deserialize, Serialize};

use kiln_plan::configure::{Action, Change};

/// Whose fault it is; picks the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The kickstart asks for what cannot be (exit code 1).
    Definition,
    /// Something went wrong on the way (exit code 4).
    Step,
    /// Kiln is wrong (exit code 5).
    Internal,
}

/// A program that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramFailure {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if it was killed.
    pub signal: Option<i32>,
    /// The last lines that it printed, oldest first.
    pub tail: Vec<String>,
}

impl fmt::Display for ProgramFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ", self.argv.join(" "))?;
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with status {code}")?,
            (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
            (None, None) => f.write_str("could not be run")?,
        }
        if let Some(last) = self.tail.last() {
            write!(f, ": {last}")?;
        }
        Ok(())
    }
}

/// A change that failed. Plain data: it crosses from the sandbox to the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{origin}: {command}: {message}")]
pub struct Error {
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// `file:line`.
    pub origin: String,
    /// The command's name.
    pub command: String,
    /// What was being done, without secrets.
    pub doing: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The program that failed, if it was one.
    pub program: Option<ProgramFailure>,
}

impl Error {
    pub(super) fn new(change: &Change, action: &Action, fault: Fault) -> Self {
        Error {
            kind: fault.kind,
            origin: change.origin.clone(),
            command: change.command.clone(),
            doing: action.describe(),
            message: fault.message,
            hint: fault.hint,
            program: fault.program,
        }
    }
}

/// A failure before it is known which change it belongs to.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) program: Option<ProgramFailure>,
}

pub(super) type Result<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault {
            kind,
            message: message.into(),
            hint: None,
            program: None,
        }
    }

    pub(super) fn definition(message: impl Into<String>) -> Self {
        Fault::new(ErrorKind::Definition, message)
    }

    pub(super) fn step(message: impl Into<String>) -> Self {
        Fault::new(ErrorKind::Step, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Fault::new(ErrorKind::Internal, message)
    }

    /// An operating system's error while doing something to a path.
    pub(super) fn io(doing: &str, path: &str, error: &std::io::Error) -> Self {
        Fault::step(format!("{doing} {path}: {error}"))
    }

    pub(super) fn program(failure: ProgramFailure) -> Self {
        Fault {
            program: Some(failure.clone()),
            ..Fault::step(failure.to_string())
        }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then_some(hint);
        self
    }
}
