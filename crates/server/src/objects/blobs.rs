//! The contents of objects. A content is staged in a file of its own, hashed on its way, and appears in its place whole.
//!
//! ```text
//! <directory>/index.db        which objects there are (`index.rs`)
//!             staging/<id>    contents that are not complete; of uploads that can go on, and of requests in the making
//!             content/…       the contents (`name.rs`), unless they are elsewhere (`elsewhere.rs`)
//! ```
//!
//! Contents in another directory are staged there as well, so that they can be renamed into their places.
//! All directories are of their owner only (0700). A link in the place of a directory or a content is not followed.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::{Digest as _, Md5};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};

use super::elsewhere::{self, Claim, Contents};
use super::error::{ApiError, Result};
use super::index::Content;
use super::resource::Object;
use super::send::Sender;
use super::work::blocking;

/// Bytes that are read from a store at once.
const SLICE: u64 = 2 << 20;

/// Where contents are.
#[derive(Debug)]
pub(super) struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The directory of the contents, if they are in one.
    local: Option<PathBuf>,
    sender: Sender,
    claim: Claim,
    staging: PathBuf,
    readers: Mutex<HashMap<String, Readers>>,
    /// Places whose content is still to go.
    strays: Mutex<BTreeSet<String>>,
}

/// Who reads a content: it is removed when the last is done.
#[derive(Debug, Default)]
struct Readers {
    count: usize,
    doomed: bool,
}

impl Blobs {
    /// Opens the directory, or makes it. `index` is the id of the index that names the contents; `is_old` says that it names some.
    pub(super) fn open(
        directory: &Path,
        contents: Contents,
        index: String,
        is_old: bool,
    ) -> Result<Blobs> {
        let (store, local, staging, is_old) = match contents {
            Contents::Store(store) => (store, None, directory.join("staging"), is_old),
            Contents::Directory(root) => {
                let (store, content) = files(&root.join("content"))?;
                (store, Some(content), root.join("staging"), is_old)
            }
            Contents::Here => {
                let content = directory.join("content");
                // One that an older Kiln has filled has no owner yet.
                let is_filled = content.read_dir().is_ok_and(|mut all| all.next().is_some());
                let (store, content) = files(&content)?;
                let staging = directory.join("staging");
                (store, Some(content), staging, is_old && !is_filled)
            }
        };
        private(&staging)?;
        Ok(Blobs {
            sender: Sender::new(Arc::clone(&store)),
            store,
            local,
            claim: Claim::new(index, is_old)?,
            staging,
            readers: Mutex::default(),
            strays: Mutex::default(),
        })
    }

    /// Finds out whether the contents are this index's, or still are.
    pub(super) async fn claim(&self) -> Result<()> {
        self.claim.look(&*self.store).await
    }

    /// Whether contents may be written and removed at present.
    pub(super) fn is_ours(&self) -> bool {
        self.claim.check().is_ok()
    }

    /// What is wrong with the place of the contents, if something is.
    pub(super) fn trouble(&self) -> Option<ApiError> {
        self.claim.trouble()
    }

    /// Whether contents are in a store that is not this machine's.
    pub(super) fn is_remote(&self) -> bool {
        self.local.is_none()
    }

    /// The file of a content that is being received.
    pub(super) fn staged(&self, id: &str) -> PathBuf {
        self.staging.join(id)
    }

    /// Bytes of a content that is being received.
    pub(super) fn staged_size(&self, id: &str) -> u64 {
        let found = self.staged(id).metadata();
        found.map_or(0, |found| found.len())
    }

    /// Removes what is staged, but for those of these ids.
    pub(super) fn clear_staging(&self, keep: &[String]) -> Result<()> {
        let failed = |error| ApiError::of_io("clearing the staging directory", &error);
        for entry in self.staging.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !keep.iter().any(|id| entry.file_name() == id.as_str()) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Puts a staged file into its place. It is on the disk before it is there. In a store elsewhere it is a copy.
    pub(super) async fn publish(&self, staged: PathBuf, place: &str) -> Result<()> {
        self.claim.check()?;
        let Some(root) = self.local.clone() else {
            return self.sender.send(&staged, &path(place)?).await;
        };
        let place = place.to_owned();
        blocking(move || {
            let to = root.join(&place);
            // A clean-up of emptied directories may be under way at the same time.
            for _ in 0..10 {
                no_links(&root, &place)?;
                if let Some(parent) = to.parent() {
                    private(parent)?;
                }
                match std::fs::rename(&staged, &to) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(ApiError::of_io("storing the object", &error)),
                    Ok(()) => return synced(&root, &to),
                }
            }
            Err(ApiError::internal(
                "storing the object: its directory goes away again and again",
            ))
        })
        .await
    }

    /// Reads up to a slice from a place.
    pub(super) async fn slice(&self, place: &str, from: u64, until: u64) -> Result<Bytes> {
        if let Some(root) = self.local.clone() {
            let place = place.to_owned();
            blocking(move || no_links(&root, &place)).await?;
        }
        let range = from..until.min(from.saturating_add(SLICE));
        let read = self.store.get_range(&path(place)?, range).await;
        read.map_err(|error| self.said(place, &error))
    }

    /// Says that a place is being read, until the result is dropped.
    pub(super) fn reading(self: &Arc<Self>, place: &str) -> Reading {
        self.readers().entry(place.to_owned()).or_default().count += 1;
        Reading {
            blobs: Arc::clone(self),
            place: place.to_owned(),
        }
    }

    /// Removes a content; if it is being read, `false`: it is to be removed when that is done.
    pub(super) async fn remove(&self, place: &str) -> Result<bool> {
        if let Some(readers) = self.readers().get_mut(place) {
            readers.doomed = true;
            return Ok(false);
        }
        self.claim.check()?;
        if let Some(root) = &self.local {
            no_links(root, place)?;
        }
        match self.store.delete(&path(place)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(self.said(place, &error)),
        }
    }

    fn said(&self, place: &str, error: &object_store::Error) -> ApiError {
        match self.local {
            Some(_) => of_files(error),
            None => elsewhere::of_store(place, error),
        }
    }

    /// Places whose content could not be removed yet.
    pub(super) fn strays(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Readers>> {
        // A count is right even if a thread panicked elsewhere.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A content that stays as long as this is there.
#[derive(Debug)]
pub(super) struct Reading {
    blobs: Arc<Blobs>,
    place: String,
}

impl Reading {
    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut all = self.blobs.readers();
        let Some(readers) = all.get_mut(&self.place) else {
            return;
        };
        readers.count -= 1;
        if readers.count > 0 {
            return;
        }
        let doomed = readers.doomed;
        all.remove(&self.place);
        drop(all);
        if doomed && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (blobs, place) = (Arc::clone(&self.blobs), std::mem::take(&mut self.place));
            runtime.spawn(async move {
                let _ = blobs.remove(&place).await;
                // Whether it is gone or not: the next look settles it.
                blobs.strays().insert(place);
            });
        }
    }
}

/// A content on its way in: a file, and its digests. It is removed unless it is taken.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    file: Option<Hashing>,
    size: u64,
}

#[derive(Debug)]
struct Hashing {
    file: File,
    md5: Md5,
    crc: Crc,
}

impl Staged {
    /// Makes a file for a content.
    pub(super) async fn new(path: PathBuf) -> Result<Staged> {
        let made = path.clone();
        let file = blocking(move || {
            let opened = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&made);
            opened.map_err(|error| ApiError::of_io("staging the object", &error))
        })
        .await?;
        let file = Hashing {
            file,
            md5: Md5::new(),
            crc: Crc::new(CrcAlgorithm::Crc32Iscsi),
        };
        Ok(Staged {
            path,
            file: Some(file),
            size: 0,
        })
    }

    /// Adds bytes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        let mut hashing = self.file.take().ok_or_else(broken)?;
        let hashing = blocking(move || {
            hashing
                .file
                .write_all(&bytes)
                .map_err(|error| ApiError::of_io("staging the object", &error))?;
            hashing.md5.update(&bytes);
            hashing.crc.update(&bytes);
            Ok(hashing)
        })
        .await?;
        self.file = Some(hashing);
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Ends it: the content is on the disk.
    pub(super) async fn finish(&mut self) -> Result<Content> {
        let size = self.size;
        let hashing = self.file.take().ok_or_else(broken)?;
        blocking(move || {
            hashing
                .file
                .sync_all()
                .map_err(|error| ApiError::of_io("staging the object", &error))?;
            content(size, hashing.md5, &hashing.crc)
        })
        .await
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once published it is no longer here.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A step of [`Staged`] was cancelled in the middle; it cannot go on.
fn broken() -> ApiError {
    ApiError::internal("an upload went on after it had failed")
}

fn content(size: u64, md5: Md5, crc: &Crc) -> Result<Content> {
    let crc32c = u32::try_from(crc.finalize())
        .map_err(|_| ApiError::internal("a CRC32C has more than 32 bits"))?;
    Ok(Content {
        size,
        md5: md5.finalize().into(),
        crc32c,
    })
}

/// The CRC32C of what has been read.
#[derive(Debug)]
pub(super) struct Check(Crc);

impl Default for Check {
    fn default() -> Self {
        Check(Crc::new(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Check {
    pub(super) fn with(mut self, bytes: &[u8]) -> Check {
        self.0.update(bytes);
        self
    }

    /// Refuses a content that is another than the one that was stored.
    pub(super) fn compare(&self, object: &Object) -> Result<()> {
        if self.0.finalize() == u64::from(object.crc32c) {
            return Ok(());
        }
        Err(ApiError::damaged(format!(
            "the content of gs://{}/{} is not what was stored: its CRC32C is another",
            object.bucket, object.name
        )))
    }
}

/// Reads a staged file for its digests, and puts it on the disk.
pub(super) async fn digests(staged: PathBuf) -> Result<Content> {
    blocking(move || {
        let failed = |error| ApiError::of_io("reading what is staged", &error);
        let mut file = File::open(&staged).map_err(failed)?;
        let (mut md5, mut crc) = (Md5::new(), Crc::new(CrcAlgorithm::Crc32Iscsi));
        let (mut buffer, mut size) = (vec![0; 1 << 20], 0);
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer).map_err(failed)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            md5.update(bytes);
            crc.update(bytes);
            size += read as u64;
        }
        file.sync_all().map_err(failed)?;
        content(size, md5, &crc)
    })
    .await
}

/// Removes a staged file; the next start would.
pub(super) async fn remove(staged: PathBuf) {
    let _ = tokio::fs::remove_file(staged).await;
}

/// Makes a directory and those above it, for nobody else.
pub(super) fn private(directory: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(directory)
        .map_err(|error| ApiError::of_io("making a directory of the object store", &error))
}

/// Refuses a place on whose way a link stands: someone else must have put it there.
fn no_links(root: &Path, place: &str) -> Result<()> {
    let mut at = root.to_path_buf();
    for part in place.split('/') {
        at.push(part);
        match at.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                return Err(ApiError::internal(format!(
                    "{} is a link, which Kiln does not make and does not follow",
                    at.display()
                )));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Puts the entries of new directories on the disk, from a file's up to the root.
fn synced(root: &Path, file: &Path) -> Result<()> {
    let directories = file.ancestors().skip(1);
    for directory in directories.take_while(|directory| directory.starts_with(root)) {
        // A parallel clean-up may have taken an upper one that is empty but for this: then the rename would have failed.
        let opened = File::open(directory).and_then(|directory| directory.sync_all());
        opened.map_err(|error| ApiError::of_io("storing the object", &error))?;
    }
    Ok(())
}

fn path(place: &str) -> Result<object_store::path::Path> {
    object_store::path::Path::parse(place)
        .map_err(|error| ApiError::internal(format!("the place of an object: {error}")))
}

/// A store over a directory, which is made if need be, and its real path, by which the store names files.
fn files(content: &Path) -> Result<(Arc<dyn ObjectStore>, PathBuf)> {
    private(content)?;
    let store = LocalFileSystem::new_with_prefix(content).map_err(|error| of_files(&error))?;
    let content = content
        .canonicalize()
        .map_err(|error| ApiError::of_io("opening the object store", &error))?;
    Ok((Arc::new(store.with_automatic_cleanup(true)), content))
}

/// What a store over a directory says, in one line.
fn of_files(error: &object_store::Error) -> ApiError {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        if let Some(io) = source.downcast_ref::<std::io::Error>() {
            return ApiError::of_io("the object store", io);
        }
        last = source;
    }
    match error {
        object_store::Error::NotFound { path, .. } => {
            ApiError::damaged(format!("the content {path} is gone from the object store"))
        }
        _ => ApiError::internal(format!("the object store: {last}")),
    }
}
