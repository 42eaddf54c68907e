//! How failures of reading and writing are told.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::{Failure, FailureKind};

/// An I/O error without Rust's `(os error N)`.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A failed write of an artifact.
pub(crate) fn write_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::Environment,
        format!("{} cannot be written", path.display()),
    )
    .cause(plain(error))
}

/// Another descriptor of a file, to be handed to a process.
pub(crate) fn descriptor(file: &File) -> Result<OwnedFd, Failure> {
    let fail = |e: std::io::Error| no_descriptor(&e);
    file.try_clone().map(OwnedFd::from).map_err(fail)
}

pub(crate) fn no_descriptor(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Environment, "no file descriptor is left")
        .cause(error.to_string())
        .hint("raise `ulimit -n`")
}
