//! How an attempt ended.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::executor::request::{Artifact, closing};
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

/// Closes a log, unless it is closed: an end that a crash cut off is made again.
pub(super) fn close(log: &Path, failure: Option<&str>) -> io::Result<()> {
    let text = closing(failure);
    match ends_with(log, text.as_bytes())? {
        true => Ok(()),
        false => append(log, &text),
    }
}

fn ends_with(log: &Path, text: &[u8]) -> io::Result<bool> {
    let mut file = match fs::File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let length = text.len() as u64;
    if file.metadata()?.len() < length {
        return Ok(false);
    }
    file.seek(io::SeekFrom::End(-(text.len() as i64)))?;
    let mut end = Vec::new();
    file.take(length).read_to_end(&mut end)?;
    Ok(end == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_closed_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.txt");
        append(&log, "PUSH\n").unwrap();
        close(&log, None).unwrap();
        close(&log, None).unwrap();
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text, format!("PUSH\n{}", closing(None)));
    }
}
