//! The working directories of virtual machines.
//!
//! ```text
//! WORK/vm-XXXXXX/lock      held (flock) by the process that owns the directory
//! WORK/vm-XXXXXX/…         sockets, variable stores, unpacked images
//! ```
//! A directory whose lock can be taken belongs to nobody any more: its owner was killed. Whoever comes next removes it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use tempfile::TempDir;

use crate::error::{Error, Result};

const PREFIX: &str = "vm-";
const LOCK: &str = "lock";
/// From making a directory to locking it takes far less.
const GRACE: Duration = Duration::from_secs(10);

/// A directory of one machine's own. It goes away with the value.
pub(crate) struct WorkDir {
    dir: TempDir,
    handle: File,
    _lock: File,
}

impl WorkDir {
    /// Makes a directory in `parent` and reclaims what killed runs left there.
    pub(crate) fn new(parent: &Path) -> Result<WorkDir> {
        std::fs::create_dir_all(parent)
            .map_err(|e| Error::file("making the directory", parent, e))?;
        reclaim(parent);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            // Sockets, variables and what the guest writes are nobody else's.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|e| Error::file("making a working directory in", parent, e))?;
        let lock = take_lock(dir.path())?;
        let handle = rustix::fs::open(
            dir.path(),
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::file("opening", dir.path(), e.into()))?;
        Ok(WorkDir {
            dir,
            handle: handle.into(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that QEMU reads.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.file(name);
        std::fs::write(&path, content).map_err(|e| Error::file("writing", &path, e))
    }

    /// Listens on a socket that QEMU connects to by its name in its working directory.
    ///
    /// A socket address holds 107 bytes of path, fewer than a directory may have, so the way leads through the
    /// open directory.
    pub(crate) fn listen(&self, name: &str) -> Result<UnixListener> {
        let path = format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd());
        let listener = UnixListener::bind(path)
            .map_err(|e| Error::file("listening on", &self.file(name), e))?;
        listener
            .set_nonblocking(true)
            .map_err(|e| Error::file("listening on", &self.file(name), e))?;
        Ok(listener)
    }
}

fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let lock = File::create(&path).map_err(|e| Error::file("writing", &path, e))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Error::file("locking", &path, e.into()))?;
    Ok(lock)
}

/// Removes directories without an owner. Nobody is harmed by one that stays, so failures pass.
fn reclaim(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && is_abandoned(&entry.path())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether nobody holds the lock. A young directory is left alone: its owner may not have locked it yet.
fn is_abandoned(dir: &Path) -> bool {
    let modified = dir.metadata().and_then(|meta| meta.modified());
    let old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= GRACE));
    old && File::open(dir.join(LOCK)).map_or(true, |lock| {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(dir: &Path) {
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(dir).unwrap().set_modified(hour_ago).unwrap();
    }

    #[test]
    fn abandoned_directories_are_reclaimed_and_live_ones_kept() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("vm-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), b"").unwrap();
        let first = WorkDir::new(parent.path()).unwrap();
        assert!(dead.exists(), "it is too young to be judged");
        age(&dead);
        age(first.path());
        let kept = first.path().to_path_buf();
        let _second = WorkDir::new(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(kept.exists());
        drop(first);
        assert!(!kept.exists());
    }

    #[test]
    fn sockets_work_in_very_long_directories() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("d".repeat(120)).join("e".repeat(120));
        let work = WorkDir::new(&long).unwrap();
        work.listen("qmp").unwrap();
        assert!(work.file("qmp").exists());
    }
}
