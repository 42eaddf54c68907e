//! The files of the store's directory, whatever is in them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat,
};

/// Names of files in the making.
const PRIVATE: &str = "new-";

/// All names.
pub(super) fn list(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

pub(super) fn open_file(directory: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

/// A new private file with a lock on it that lives as long as the file is open.
pub(super) fn create(directory: &OwnedFd) -> io::Result<(String, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos());
        // In a pid namespace many processes have the same number; the clock and `EXCL` keep them apart.
        let name = format!("{PRIVATE}{clock:024x}-{}-{count}", std::process::id());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file: File = match openat(directory, &*name, flags, mode) {
            Ok(file) => file.into(),
            Err(rustix::io::Errno::EXIST) => continue,
            Err(error) => return Err(error.into()),
        };
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Another process may have taken the fresh file for garbage before the lock was on it.
        if locked && is_there(directory, &name, &file) {
            return Ok((name, file));
        }
    }
}

/// Removes files in the making whose writer is gone.
pub(super) fn reclaim(directory: &OwnedFd) -> io::Result<()> {
    for name in list(directory)? {
        if !name.starts_with(PRIVATE) {
            continue;
        }
        let Ok(file) = open_file(directory, &name) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_there(directory, &name, &file)
        {
            let _ = unlinkat(directory, &*name, AtFlags::empty());
        }
    }
    Ok(())
}

fn is_there(directory: &OwnedFd, name: &str, file: &File) -> bool {
    let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    match (there, fstat(file)) {
        (Ok(a), Ok(b)) => a.st_ino == b.st_ino && a.st_dev == b.st_dev,
        _ => false,
    }
}
