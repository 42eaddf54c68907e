//! What can be wrong with a shared cache. None of it is a reason to fail a build.

use std::fmt;

/// What sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The URL, the secret or the clouds' settings cannot be used.
    Config,
    /// A directory whose access rights let people read or choose results who must not.
    Exposed,
    /// An object that a record names is not there.
    Missing,
    /// An object is not what it should be.
    Damaged,
    /// The store does not answer, or refuses.
    Unavailable,
    /// The local side could not read or write.
    Local,
    /// The caller wanted no more.
    Stopped,
}

/// Trouble with one object of a shared cache.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{object}: {why}")]
pub struct Error {
    kind: ErrorKind,
    object: String,
    why: String,
}

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, object: impl Into<String>, why: impl fmt::Display) -> Self {
        Error {
            kind,
            object: object.into(),
            why: why.to_string(),
        }
    }

    /// Returns what sort of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the object's name below the store's URL, or the URL.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Returns the error for an object that is not what it should be.
    pub fn damaged(object: impl Into<String>, why: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Damaged, object, why)
    }

    /// Returns the error for something that failed on this machine.
    pub fn local_failure(doing: &str, why: &str) -> Self {
        Error::new(ErrorKind::Local, doing, why)
    }

    pub(crate) fn local(doing: &str, error: &std::io::Error) -> Self {
        Error::new(ErrorKind::Local, doing, error)
    }

    /// What `object_store` says about an object, in one line. It names URLs without their queries, and no credentials.
    pub(crate) fn of_store(object: &str, error: &object_store::Error) -> Self {
        let kind = match error {
            object_store::Error::NotFound { .. } => ErrorKind::Missing,
            _ => ErrorKind::Unavailable,
        };
        let why = match error {
            object_store::Error::NotFound { .. } => "it is not there".to_owned(),
            object_store::Error::PermissionDenied { .. } => "access is denied".to_owned(),
            object_store::Error::Unauthenticated { .. } => {
                "the store does not accept the credentials".to_owned()
            }
            other => innermost(other),
        };
        Error::new(kind, object, why)
    }
}

/// The cause behind all others: the wrappers repeat each other.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let line: String = last
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    line
}
