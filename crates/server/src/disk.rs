//! Room on the disk of the data directory, and what of it is left free.

use std::io;
use std::path::Path;

/// Returns how many bytes are left where a directory is, or will be.
///
/// # Errors
/// The file system does not say.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let there = directory
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(directory);
    let stat = rustix::fs::statvfs(there)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Why so many bytes more cannot be written, if `keep` bytes of the disk are to stay free.
///
/// # Errors
/// The file system does not say what is free.
pub(crate) fn missing(directory: &Path, keep: u64, bytes: u64) -> io::Result<Option<String>> {
    if keep == 0 {
        return Ok(None);
    }
    let free = free(directory)?;
    let is_short = free < keep.saturating_add(bytes);
    Ok(is_short.then(|| {
        let mib = |bytes: u64| bytes >> 20;
        format!(
            "{} MiB of the server's disk are free, of which --keep-free keeps {} MiB",
            mib(free),
            mib(keep)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_free_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let later = dir.path().join("a/b");
        let free = free(&later).unwrap();
        assert!(free > 0);
        assert_eq!(missing(&later, 0, u64::MAX).unwrap(), None);
        assert_eq!(missing(&later, 1, 0).unwrap(), None);
        let why = missing(&later, 1 << 62, 0).unwrap().unwrap();
        assert!(
            why.ends_with("--keep-free keeps 4398046511104 MiB"),
            "{why}"
        );
        assert!(missing(&later, 1, u64::MAX).unwrap().is_some());
    }
}
