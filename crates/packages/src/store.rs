//! The download store: package files by the SHA-256 of their content, shared by all builds of a user.
//!
//! ```text
//! downloads/
//!   sha256/ab/abcd…        complete files, 64 hexadecimal digits, mode 0644; committed by rename, never changed
//!   partial/abcd…          files on their way, locked (flock) by whoever fetches them; what is there is the
//!                          beginning of the content and is continued by the next build
//! ```
//!
//! A name below `sha256/` is a promise only: whoever uses a file through this module has it hashed first, and a
//! file that does not keep the promise (bad disk, cut power: nothing here calls fsync) is removed and fetched
//! anew. Everything in `partial/` that no process has locked is garbage that may be useful. A process that dies
//! leaves no lock behind, since the kernel drops it. Complete files are only ever added or, when damaged, removed. Every open
//! store holds a shared lock on `downloads/` itself, so that a collection, which wants it alone, leaves a running build its packages.

use std::cell::Cell;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::fetch::{Deadline, Wanted, in_turn};
use crate::{CancelToken, Digest, Error, ErrorKind, Fetcher, Result};

/// A file to have in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// For people: `apt 2.6.1`.
    pub name: String,
    /// Where it is on the mirror.
    pub url: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its content.
    pub sha256: Digest,
}

/// How far a group of downloads is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes that are here, of all items.
    pub done: u64,
    /// Bytes of all items.
    pub total: u64,
    /// Items complete.
    pub items_done: usize,
    /// Items in all.
    pub items: usize,
    /// The item that moved.
    pub item: &'a str,
}

/// Is told of every piece that arrives, from several threads; should return soon.
pub type OnProgress<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// The download store; see the head of this file for what is on disk.
#[derive(Clone, Debug)]
pub struct DownloadStore {
    root: PathBuf,
    /// A shared lock on the directory: nothing is collected while it is held.
    held: Arc<File>,
}

impl DownloadStore {
    /// Opens the store in `root`, created if missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        for part in ["sha256", "partial"] {
            let path = root.join(part);
            fs::create_dir_all(&path)
                .map_err(|error| Error::io(format_args!("creating {}", path.display()), error))?;
        }
        let held = File::open(&root)
            .and_then(|held| {
                flock(&held, FlockOperation::LockShared)?;
                Ok(held)
            })
            .map_err(|error| Error::io(format_args!("opening {}", root.display()), error))?;
        let held = Arc::new(held);
        Ok(DownloadStore { root, held })
    }

    /// Returns its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a file with this content is or would be. Nothing is said about its being there or right.
    pub fn path(&self, sha256: &Digest) -> PathBuf {
        let hex = sha256.to_string();
        self.root.join("sha256").join(&hex[..2]).join(hex)
    }

    /// Returns the path of a file whose size and content have just been checked, if it is there. A damaged one is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read or a damaged one cannot be removed.
    pub fn verified(&self, sha256: &Digest, size: u64) -> Result<Option<PathBuf>> {
        let path = self.path(sha256);
        let failed = |error| Error::io(format_args!("reading {}", path.display()), error);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        if length == size && Digest::of_file(&mut file).map_err(failed)? == *sha256 {
            return Ok(Some(path));
        }
        remove(&path)?;
        Ok(None)
    }

    /// Makes sure that the store has the item: verifies the stored file or fetches it. Returns its path.
    ///
    /// # Errors
    /// Any network kind, [`ErrorKind::HashMismatch`], [`ErrorKind::Io`].
    pub fn obtain(&self, fetcher: &Fetcher, item: &Item) -> Result<PathBuf> {
        self.obtain_counting(fetcher, item, &|_| ())
    }

    /// Makes sure that the store has all items, several at a time, and returns their paths in the order of `items`.
    ///
    /// # Errors
    /// As for [`DownloadStore::obtain`]; the first failure ends the rest.
    pub fn obtain_all(
        &self,
        fetcher: &Fetcher,
        items: &[Item],
        progress: OnProgress,
    ) -> Result<Vec<PathBuf>> {
        let meter = Meter::new(items, progress);
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let results: Vec<Mutex<Option<PathBuf>>> = items.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            while let Some((item, slot)) = take(&next, items, &results) {
                if locked(&failure).is_some() {
                    return;
                }
                match self.obtain_counting(fetcher, item, &|bytes| meter.moved(item, bytes)) {
                    Ok(path) => {
                        *locked(slot) = Some(path);
                        meter.finished(item);
                    }
                    Err(error) => {
                        locked(&failure).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            let workers = fetcher.options().parallel.clamp(1, items.len().max(1));
            (1..workers).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        let paths = results
            .into_iter()
            .map(|slot| slot.into_inner().unwrap_or_else(|e| e.into_inner()));
        paths
            .collect::<Option<_>>()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a download was left out"))
    }

    fn obtain_counting(
        &self,
        fetcher: &Fetcher,
        item: &Item,
        arrived: &dyn Fn(i64),
    ) -> Result<PathBuf> {
        if let Some(path) = self.verified(&item.sha256, item.size)? {
            arrived(item.size as i64);
            return Ok(path);
        }
        let mut partial = Partial::lock(self, &item.sha256, fetcher.cancel_token())?;
        // Another process may have completed it while this one waited for the lock.
        if let Some(path) = self.verified(&item.sha256, item.size)? {
            remove(&partial.path)?;
            arrived(item.size as i64);
            return Ok(path);
        }
        fetch(fetcher, item, &mut partial.file, arrived)?;
        partial.commit(&self.path(&item.sha256))
    }

    /// Removes unfinished downloads that nobody works on and that nobody touched for `age`, and returns the bytes freed.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn remove_partial(&self, age: Duration, now: SystemTime) -> Result<u64> {
        let directory = self.root.join("partial");
        let failed = |error| Error::io(format_args!("cleaning {}", directory.display()), error);
        let mut freed = 0;
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let metadata = file.metadata().map_err(failed)?;
            let old = metadata
                .modified()
                .ok()
                .and_then(|m| now.duration_since(m).ok())
                .is_some_and(|a| a >= age);
            if old && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                freed += metadata.len();
                remove(&path)?;
            }
        }
        Ok(freed)
    }

    /// Removes files that nobody read for `age`, and says how many bytes they took on disk. `None`, and nothing is removed,
    /// while another handle on the store is open: a build may be about to unpack any of them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]
    pub fn collect(self, age: Duration, now: SystemTime, dry_run: bool) -> Result<Option<u64>> {
        if flock(&*self.held, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let shards = self.root.join("sha256");
        let failed = |error| Error::io(format_args!("cleaning {}", shards.display()), error);
        let mut freed = if dry_run {
            0
        } else {
            self.remove_partial(age, now)?
        };
        for shard in fs::read_dir(&shards).map_err(failed)? {
            for file in fs::read_dir(shard.map_err(failed)?.path()).map_err(failed)? {
                let path = file.map_err(failed)?.path();
                let metadata = path.symlink_metadata().map_err(failed)?;
                if unread_for(&metadata, now) >= age {
                    freed += metadata.blocks() * 512;
                    if !dry_run {
                        remove(&path)?;
                    }
                }
            }
        }
        Ok(Some(freed))
    }
}

/// Since a file was last read, as far as the file system keeps that (`relatime`: to the day), or written. One from the future
/// was read just now.
fn unread_for(metadata: &Metadata, now: SystemTime) -> Duration {
    let newest = metadata.accessed().ok().max(metadata.modified().ok());
    newest
        .and_then(|time| now.duration_since(time).ok())
        .unwrap_or(Duration::ZERO)
}

/// Fetches an item from the first place that has it right. What one place began another one completes: all are to have the same bytes.
fn fetch(fetcher: &Fetcher, item: &Item, file: &mut File, arrived: &dyn Fn(i64)) -> Result<()> {
    let ways = fetcher.ways(&item.url);
    let asked = in_turn(fetcher, &ways, |way, tries| {
        let wanted = Wanted {
            url: &way.url,
            size: item.size,
            sha256: item.sha256,
        };
        // The next place counts what is there anew.
        let counted = Cell::new(0);
        let count = |bytes: i64| {
            counted.set(counted.get() + bytes);
            arrived(bytes);
        };
        let by = way.fetcher(fetcher);
        let done = by.resume_into(&wanted, file, &count, (&Deadline::none(), tries));
        done.inspect_err(|_| {
            fetcher.demote(way);
            arrived(-counted.get());
        })
    })?;
    match asked.found {
        Some(()) => Ok(()),
        None => {
            let origin = ways.first().map_or("", |way| way.origin.as_str());
            Err(none(item, asked.failures).with_origin(origin))
        }
    }
}

/// The one failure, or all of them.
fn none(item: &Item, mut failures: Vec<Error>) -> Error {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let kind = failures.first().map_or(ErrorKind::Internal, Error::kind);
    let why: Vec<String> = failures.iter().map(Error::to_string).collect();
    let message = format!(
        "no mirror has a good file of {}: {}",
        item.name,
        why.join("; ")
    );
    Error::new(kind, message).with_hint("Try again later, or name another mirror.")
}

fn take<'a, A, B>(next: &AtomicUsize, left: &'a [A], right: &'a [B]) -> Option<(&'a A, &'a B)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((left.get(index)?, right.get(index)?))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(
            format_args!("removing {}", path.display()),
            error,
        )),
        _ => Ok(()),
    }
}

/// A locked file below `partial/`.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Waits until nobody else fetches this content.
    fn lock(store: &DownloadStore, sha256: &Digest, cancel: &CancelToken) -> Result<Self> {
        let path = store.root.join("partial").join(sha256.to_string());
        let failed = |error| Error::io(format_args!("opening {}", path.display()), error);
        loop {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => return Ok(Partial { path, file }),
                // It was committed or removed between the opening and the locking.
                Ok(()) => continue,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                    cancel.sleep(Duration::from_millis(50))?;
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Moves the complete file to its place.
    fn commit(self, to: &Path) -> Result<PathBuf> {
        let failed = |error| Error::io(format_args!("storing {}", to.display()), error);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::rename(&self.path, to).map_err(failed)?;
        Ok(to.to_owned())
    }
}

/// Whether the open file is still the one that has this name.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
    file.metadata()
        .ok()
        .zip(fs::metadata(path).ok())
        .is_some_and(|(a, b)| same(a, b))
}

/// Adds up what all threads bring.
struct Meter<'a> {
    done: AtomicU64,
    items_done: AtomicUsize,
    total: u64,
    items: usize,
    tell: OnProgress<'a>,
}

impl<'a> Meter<'a> {
    fn new(items: &[Item], tell: OnProgress<'a>) -> Self {
        let total = items.iter().map(|item| item.size).sum();
        Meter {
            done: AtomicU64::new(0),
            items_done: AtomicUsize::new(0),
            total,
            items: items.len(),
            tell,
        }
    }

    fn moved(&self, item: &Item, bytes: i64) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tell(item);
    }

    fn finished(&self, item: &Item) {
        self.items_done.fetch_add(1, Ordering::Relaxed);
        self.tell(item);
    }

    fn tell(&self, item: &Item) {
        (self.tell)(Progress {
            done: self.done.load(Ordering::Relaxed),
            total: self.total,
            items_done: self.items_done.load(Ordering::Relaxed),
            items: self.items,
            item: &item.name,
        });
    }
}
