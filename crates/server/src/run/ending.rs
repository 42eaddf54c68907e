//! How an attempt ended.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::executor::request::Artifact;
use crate::wire::model::Status;

/// How an attempt ended, and what it leaves.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// How.
    pub(super) status: Status,
    /// For people.
    pub(super) detail: Option<String>,
    /// Cloud Build's word for the kind of failure.
    pub(super) failure: Option<String>,
    /// What is to be kept.
    pub(super) files: Vec<Artifact>,
}

impl Ending {
    /// An end that is no success.
    pub(super) fn failed(status: Status, detail: String) -> Self {
        Ending {
            status,
            detail: Some(detail),
            failure: None,
            files: Vec::new(),
        }
    }
}

/// Adds text to a log.
pub(super) fn append(log: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().create(true).append(true).open(log)?;
    file.write_all(text.as_bytes())
}
