//! Objects that grow: logs that are read while they are written. Only whole lines are shown.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::{ApiError, Result};
use super::work::blocking;

/// Objects that grow: the logs of builds, which are read while they are written.
pub trait Live: Send + Sync {
    /// The file of an object, if it is one that grows. What is behind its last line end is not to be shown yet.
    fn find(&self, bucket: &str, name: &str) -> Option<PathBuf>;
}

/// Bytes that are looked at at once for a line end.
const STEP: u64 = 64 << 10;

/// Returns how many bytes of a file are whole lines; `None` if there is no file, or no line yet.
///
/// # Errors
/// The file cannot be read.
pub(super) async fn lines(path: &Path) -> Result<Option<u64>> {
    let path = path.to_owned();
    blocking(move || {
        let failed = |error| ApiError::of_io(&format!("reading {}", path.display()), &error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let size = file.metadata().map_err(failed)?.len();
        end_of_lines(&file, size).map_err(failed)
    })
    .await
}

/// The end of the last line within `size` bytes.
fn end_of_lines(file: &File, size: u64) -> std::io::Result<Option<u64>> {
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut buffer = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut buffer, start)?;
        if let Some(at) = memchr::memrchr(b'\n', &buffer) {
            return Ok(Some(start + at as u64 + 1));
        }
        end = start;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whole_lines_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(lines(&path).await, Ok(None));
        for (text, expected) in [
            (String::new(), None),
            ("no end".to_owned(), None),
            ("one\ntw".to_owned(), Some(4)),
            ("one\n".to_owned(), Some(4)),
            (format!("one\n{}", "x".repeat(200_000)), Some(4)),
            (format!("{}\n\u{fc}", "x".repeat(70_000)), Some(70_001)),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(lines(&path).await, Ok(expected));
        }
    }
}
