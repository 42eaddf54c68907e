//! Small files that are whole or absent, and how failures of reading and writing are told.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Failure, FailureKind};

/// An I/O error without Rust's `(os error N)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A failed write of an artifact.
pub(crate) fn write_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Environment,
        format!("{} cannot be written", path.display()),
    )
    .cause(plain(error))
}

/// Another descriptor of a file, to be handed to a process.
pub(crate) fn descriptor(file: &File) -> Result<OwnedFd, Failure> {
    let fail = |e: io::Error| no_descriptor(&e);
    file.try_clone().map(OwnedFd::from).map_err(fail)
}

pub(crate) fn no_descriptor(error: &io::Error) -> Failure {
    Failure::new(FailureKind::Environment, "no file descriptor is left")
        .cause(error.to_string())
        .hint("raise `ulimit -n`")
}

/// Writes a file beside its place and moves it there, so that whoever reads sees the whole of it or the one before. The name beside
/// it is one that nobody else has, be it another build in this process.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut file = tempfile::Builder::new()
        .prefix(name)
        .suffix(".new")
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// Part of a name that no living process and no other call in this one has.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let clock = clock.map_or(0, |since| since.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{clock:x}-{count}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_many_write_at_once_is_always_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("answer.lock");
        std::thread::scope(|scope| {
            for letter in b'a'..b'i' {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_whole(path, &[letter; 5000]).expect("written");
                        let read = std::fs::read(path).expect("readable");
                        assert_eq!(read, [read[0]; 5000]);
                    }
                });
            }
        });
        let left = std::fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_take_its_place_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note");
        std::fs::create_dir_all(path.join("in the way")).expect("a directory");
        assert!(write_whole(&path, b"x").is_err());
        let left = std::fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, 1);
    }
}
