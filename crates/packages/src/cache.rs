//! A directory of a repository's verified metadata: files by the SHA-256 of their content, and which of them are current.
//!
//! ```text
//! lock                 locked (flock) by whoever refreshes
//! current              what the last good refresh saw, replaced by rename; the text is its repository's kind's
//! files/SHA256         files by content; committed by rename, never changed
//! files/SHA256.part    on its way
//! ```
//!
//! Whoever uses files holds a shared lock (flock) on `files/`; what nobody needs is removed by who can lock it alone.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::fetch::{Deadline, Wanted};
use crate::{CancelToken, Digest, Error, ErrorKind, Fetcher, Result};

/// The directory of one repository, locked.
pub(crate) struct Directory {
    directory: PathBuf,
    files: PathBuf,
    /// A shared lock on `files`.
    held: Arc<File>,
    _lock: File,
}

impl Directory {
    /// Waits until nobody else refreshes there.
    pub(crate) fn open(directory: PathBuf, cancel: &CancelToken) -> Result<Self> {
        let files = directory.join("files");
        let failed = |e| Error::io(format_args!("opening {}", directory.display()), e);
        fs::create_dir_all(&files).map_err(failed)?;
        let lock = File::create(directory.join("lock")).map_err(failed)?;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    cancel.sleep(Duration::from_millis(50))?;
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let held = File::open(&files).map_err(failed)?;
        flock(&held, FlockOperation::LockShared).map_err(|errno| failed(errno.into()))?;
        Ok(Directory {
            directory,
            files,
            held: Arc::new(held),
            _lock: lock,
        })
    }

    /// Where all of it is.
    pub(crate) fn path_of_all(&self) -> &Path {
        &self.directory
    }

    /// Where the files are.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// The shared lock: no file is removed while it is held.
    pub(crate) fn held(&self) -> Arc<File> {
        Arc::clone(&self.held)
    }

    /// Where a file with this content is or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.files.join(digest.to_string())
    }

    /// The content of a file, if it is there and undamaged.
    pub(crate) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Makes sure that a file with this content is there. One that is there stays as it is: somebody may be reading it.
    pub(crate) fn keep(&self, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        match intact(&path, bytes.len() as u64, &digest)? {
            true => Ok(()),
            false => store(&path, bytes),
        }
    }

    /// What the last good refresh left.
    pub(crate) fn current(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("current")).ok()
    }

    /// Replaces what [`Directory::current`] returns.
    pub(crate) fn set_current(&self, text: &str) -> Result<()> {
        store(&self.directory.join("current"), text.as_bytes())
    }

    /// Removes the files that are not used, unless somebody reads here. Failures to remove do not matter.
    pub(crate) fn remove_garbage(&self, used: &HashSet<Digest>) -> Result<()> {
        // The lock of this process itself, for the moment. Nobody else can get it alone: that takes the repository's lock too.
        if flock(&*self.held, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for entry in fs::read_dir(&self.files).into_iter().flatten().flatten() {
                let path = entry.path();
                let content = path
                    .file_stem()
                    .and_then(|name| name.to_str()?.parse().ok());
                if content.is_none_or(|digest| !used.contains(&digest)) {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        flock(&*self.held, FlockOperation::LockShared).map_err(|errno| {
            let directory = self.files.display();
            Error::io(format_args!("locking {directory}"), errno.into())
        })
    }
}

/// Fetches a file, or the rest of one, into the directory of files, verifies it, and returns its path. `tries` in a row may bring
/// nothing.
pub(crate) fn fetch(
    fetcher: &Fetcher,
    wanted: &Wanted<'_>,
    files: &Path,
    tries: u32,
) -> Result<PathBuf> {
    let path = files.join(wanted.sha256.to_string());
    let partial = path.with_extension("part");
    let failed = |e| Error::io(format_args!("storing {}", partial.display()), e);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut out = options.open(&partial).map_err(failed)?;
    let deadline = Deadline::after(fetcher.options().file_deadline);
    if let Err(error) = fetcher.resume_into(wanted, &mut out, &|_| (), (&deadline, tries)) {
        if error.kind() == ErrorKind::NotFound {
            let _ = fs::remove_file(&partial);
        }
        return Err(error);
    }
    fs::rename(&partial, &path).map_err(failed)?;
    Ok(path)
}

/// Whether a stored file is there and what it should be; a damaged one is removed.
pub(crate) fn intact(path: &Path, size: u64, sha256: &Digest) -> Result<bool> {
    let failed = |e| Error::io(format_args!("reading {}", path.display()), e);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed(e)),
    };
    let length = file.metadata().map_err(failed)?.len();
    if length == size && Digest::of_file(&mut file).map_err(failed)? == *sha256 {
        return Ok(true);
    }
    fs::remove_file(path).map_err(failed)?;
    Ok(false)
}

/// Writes a file beside its place and renames it.
fn store(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = path.with_extension("part");
    let write = || fs::write(&staged, bytes).and_then(|()| fs::rename(&staged, path));
    write().map_err(|e| Error::io(format_args!("storing {}", path.display()), e))
}
