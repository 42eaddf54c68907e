//! Objects that grow: logs that are read while they are written. Only whole lines are shown.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ApiError, Result};
use super::work::blocking;

/// Objects that grow: the logs of builds, which are read while they are written.
pub trait Live: Send + Sync {
    /// The file of an object, if it is one that grows. What is behind its last line end is not to be shown yet.
    fn find(&self, bucket: &str, name: &str) -> Option<PathBuf>;
}

/// Bytes that are looked at for a line end: first a few, as nearly all logs end with one.
const STEPS: [u64; 2] = [1 << 10, 64 << 10];

/// A log that grows, as it is now.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) file: File,
    /// Bytes that are whole lines; no log is there before it has one.
    pub(super) size: u64,
}

/// Opens the log of that name, if it is one that still grows.
///
/// # Errors
/// It has no line yet, or the file cannot be read.
pub(super) async fn open(
    live: &Arc<dyn Live>,
    bucket: &str,
    name: &str,
) -> Result<Option<Growing>> {
    let (live, bucket, name) = (Arc::clone(live), bucket.to_owned(), name.to_owned());
    blocking(move || {
        let Some(path) = live.find(&bucket, &name) else {
            return Ok(None);
        };
        let growing = lines(&path)?;
        growing
            .map(Some)
            .ok_or_else(|| ApiError::no_object(&bucket, &name))
    })
    .await
}

/// Opens a file up to its last line end; `None` if there is no file, or no line yet.
fn lines(path: &Path) -> Result<Option<Growing>> {
    let failed = |error| ApiError::of_io(&format!("reading {}", path.display()), &error);
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let size = file.metadata().map_err(failed)?.len();
    let size = end_of_lines(&file, size).map_err(failed)?;
    Ok(size.map(|size| Growing { file, size }))
}

/// The end of the last line within `size` bytes.
fn end_of_lines(file: &File, size: u64) -> std::io::Result<Option<u64>> {
    let (mut end, [mut step, long]) = (size, STEPS);
    while end > 0 {
        let start = end.saturating_sub(step);
        let mut buffer = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut buffer, start)?;
        if let Some(at) = memchr::memrchr(b'\n', &buffer) {
            return Ok(Some(start + at as u64 + 1));
        }
        (end, step) = (start, long);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert!(lines(&path).unwrap().is_none());
        for (text, expected) in [
            (String::new(), None),
            ("no end".to_owned(), None),
            ("one\ntw".to_owned(), Some(4)),
            ("one\n".to_owned(), Some(4)),
            (format!("one\n{}", "x".repeat(200_000)), Some(4)),
            (format!("{}\n\u{fc}", "x".repeat(70_000)), Some(70_001)),
        ] {
            std::fs::write(&path, &text).unwrap();
            let found = lines(&path).unwrap().map(|growing| growing.size);
            assert_eq!(found, expected);
        }
    }
}
