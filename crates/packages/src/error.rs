//! The one error of this crate: what failed, why, what to do, and a kind from which the exit code follows.

use std::error::Error as StdError;
use std::fmt;

/// What sort of failure. [`ErrorKind::category`] groups the kinds by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value that the caller or the user gave is wrong: a URL, a component, a key file, a lock file.
    Input,
    /// A package that no repository has.
    UnknownPackage,
    /// Dependencies that no package satisfies.
    Unsatisfiable,
    /// A repository without a signature.
    Unsigned,
    /// A signature by none of the accepted keys, or one that does not fit its text.
    BadSignature,
    /// A `Release` file past its `Valid-Until`, or from the future.
    Expired,
    /// Bytes that are not those that the signed metadata or the lock promised.
    HashMismatch,
    /// The mirror does not have the file (404, 410, or no such local file).
    NotFound,
    /// The mirror answers with an error other than "not found", also after retries.
    Refused,
    /// Nothing, or next to nothing, arrived for the stall time, also after retries.
    Stalled,
    /// Transfers ended too early, also after retries.
    Truncated,
    /// No connection: name lookup, routing, TLS, proxy.
    Network,
    /// A network access that offline mode forbids.
    Offline,
    /// An input or output failure on this machine. Whether a disk is full the caller tells by the cause.
    Io,
    /// Verified data that is not what its format allows (a broken `.deb`, a bad stanza).
    Malformed,
    /// The caller cancelled.
    Cancelled,
    /// Kiln is wrong.
    Internal,
}

/// Kinds grouped by whom they concern; one exit code each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// The definition or another input is wrong (exit code 1).
    Input,
    /// The environment lacks something: network, disk, a mirror that is up to date (exit code 3).
    Environment,
    /// The step failed: a mirror served wrong bytes (exit code 4).
    Step,
    /// Kiln is wrong (exit code 5).
    Internal,
    /// The user stopped it.
    Cancelled,
}

impl ErrorKind {
    /// Whom the failure concerns.
    pub fn category(self) -> Category {
        use ErrorKind::*;
        match self {
            Input | UnknownPackage | Unsatisfiable | Unsigned | BadSignature => Category::Input,
            Stalled | Truncated | Network | Offline | Io | Refused | Expired => {
                Category::Environment
            }
            HashMismatch | NotFound | Malformed => Category::Step,
            Cancelled => Category::Cancelled,
            Internal => Category::Internal,
        }
    }
}

/// Why something about packages failed. `Display` gives the one sentence; causes are in `source()`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Inner {
    kind: ErrorKind,
    message: String,
    origin: Option<String>,
    hints: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of a kind, with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            origin: None,
            hints: Vec::new(),
            source: None,
        }))
    }

    /// A package file that is not what a package has to be.
    pub(crate) fn package(name: &str, why: impl fmt::Display) -> Self {
        let message = format!("{name} is not a usable Debian package: {why}");
        Error::new(ErrorKind::Malformed, message)
    }

    /// Returns the error for an input or output failure while `doing` something to a named object.
    pub fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        Error::new(ErrorKind::Io, format!("{doing} failed: {error}")).with_source(error)
    }

    /// Adds to the sentence under what circumstance it failed.
    #[must_use]
    pub(crate) fn within(mut self, circumstance: &str) -> Self {
        self.0.message.push_str(", ");
        self.0.message.push_str(circumstance);
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Adds the place that brought the failing object, `file:line`. An empty one is not kept.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        if !origin.is_empty() {
            self.0.origin = Some(origin.to_owned());
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns what sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns `file:line` of what brought the failing object, if known.
    pub fn origin(&self) -> Option<&str> {
        self.0.origin.as_deref()
    }

    /// Returns what to do about it.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
}
