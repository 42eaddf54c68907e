//! Reading and writing a shared cache.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kiln_digest::Sha256;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use crate::error::{Error, ErrorKind, Result};
use crate::location::{self, ROOT};
use crate::options::Options;
use crate::record::{Chunk, Key, Record};
use crate::{CHUNK_MAX, RECORD_MAX};

/// Chunks that are under way at once.
const AHEAD: usize = 3;
/// After so many failures in a row that are the store's own the rest of the build does without it.
const ENOUGH: u32 = 3;
/// Names that one listing looks at.
const LISTED: usize = 10_000;

/// Is told how many bytes have arrived; `false` ends the transfer.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> bool;

/// An opened shared cache. All threads may use it at once.
pub struct Share {
    store: Arc<dyn ObjectStore>,
    url: String,
    key: Option<Key>,
    /// One object may take this long.
    limit: Duration,
    /// `object_store` is asynchronous; here it runs on the thread that calls. `None` only while it is dropped.
    runtime: Option<Runtime>,
    failures: AtomicU32,
    /// Chunks that turned out damaged: they are written again although something is there.
    bad: Mutex<HashSet<String>>,
}

impl Share {
    /// Opens a shared cache. A cloud is not asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`].
    pub fn open(options: &Options, writable: bool) -> Result<Share> {
        let runtime = Builder::new_current_thread().enable_time().build();
        Ok(Share {
            store: location::open(options, writable)?,
            url: options.url.clone(),
            key: options.key.clone(),
            limit: options.patience * 10,
            runtime: Some(runtime.map_err(|e| Error::local("starting a runtime", &e))?),
            failures: AtomicU32::new(0),
            bad: Mutex::default(),
        })
    }

    /// Returns where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns whether the store has failed so often that it is not asked any longer.
    pub fn is_given_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= ENOUGH
    }

    /// Returns the record of a result, if there is one; its seal is right.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`], [`ErrorKind::Unavailable`].
    pub fn find(&self, kind: &str, id: &str) -> Result<Option<Record>> {
        let name = format!("{kind}/{id}");
        match self.wait(&name, self.get(&name, RECORD_MAX as u64)) {
            Ok(text) => Record::open(&name, &text, self.key.as_ref()).map(Some),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether there is a record, be it right or not.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub fn has(&self, kind: &str, id: &str) -> Result<bool> {
        let name = format!("{kind}/{id}");
        match self.wait(&name, async { self.head(&name).await }) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Missing => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the ids of records of a kind, the newest first; at most `most`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub fn newest(&self, kind: &str, most: usize) -> Result<Vec<String>> {
        let prefix = Path::from(format!("{ROOT}/{kind}"));
        let listing = async {
            let mut found = Vec::new();
            let mut entries = self.store.list(Some(&prefix)).take(LISTED);
            while let Some(entry) = entries.next().await {
                let entry = entry.map_err(|error| Error::of_store(kind, &error))?;
                if let Some(id) = entry.location.filename() {
                    found.push((entry.last_modified, id.to_owned()));
                }
            }
            found.sort();
            Ok(found
                .into_iter()
                .rev()
                .map(|(_, id)| id)
                .take(most)
                .collect())
        };
        self.wait(kind, listing)
    }

    /// Makes a result findable, after its chunks are there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub fn publish(&self, kind: &str, id: &str, record: &Record) -> Result<()> {
        let name = format!("{kind}/{id}");
        let text = record.seal(&name, self.key.as_ref())?;
        self.wait(&name, async { self.put(&name, text).await })
    }

    /// Stores content in chunks; those that are there already are not sent again.
    ///
    /// # Errors
    /// The content cannot be read; [`ErrorKind::Unavailable`]; [`ErrorKind::Stopped`].
    pub fn store(&self, content: &mut dyn Read, progress: Progress<'_>) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        loop {
            let mut bytes = Vec::new();
            content
                .take(CHUNK_MAX as u64)
                .read_to_end(&mut bytes)
                .map_err(|error| Error::local("reading what is to be shared", &error))?;
            if bytes.is_empty() {
                return Ok(chunks);
            }
            let size = bytes.len() as u64;
            let sha256 = hex::encode(Sha256::digest(&bytes));
            let chunk = Chunk { sha256, size };
            self.store_chunk(&chunk, bytes)?;
            chunks.push(chunk);
            if !progress(size) {
                return Err(Error::new(ErrorKind::Stopped, "storing", "stopped"));
            }
        }
    }

    fn store_chunk(&self, chunk: &Chunk, bytes: Vec<u8>) -> Result<()> {
        let name = chunk.name();
        let is_bad = self.bad().contains(&name);
        self.wait(&name, async {
            match self.head(&name).await {
                Ok(size) if size == chunk.size && !is_bad => Ok(()),
                Ok(_) => self.put(&name, bytes).await,
                Err(error) if error.kind() == ErrorKind::Missing => self.put(&name, bytes).await,
                Err(error) => Err(error),
            }
        })?;
        self.bad().remove(&name);
        Ok(())
    }

    /// Writes a file's content to `out`, each chunk after it was found to be what the record says.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`], [`ErrorKind::Damaged`], [`ErrorKind::Unavailable`]; [`ErrorKind::Local`] where `out` fails;
    /// [`ErrorKind::Stopped`].
    pub fn fetch(
        &self,
        chunks: &[Chunk],
        out: &mut dyn Write,
        progress: Progress<'_>,
    ) -> Result<()> {
        let mut arriving = stream::iter(chunks)
            .map(|chunk| self.get_chunk(chunk))
            .buffered(AHEAD);
        while let Some(bytes) = self.counted(self.block_on(arriving.next())?.transpose())? {
            out.write_all(&bytes)
                .map_err(|error| Error::local("passing on what was fetched", &error))?;
            if !progress(bytes.len() as u64) {
                return Err(Error::new(ErrorKind::Stopped, "fetching", "stopped"));
            }
        }
        Ok(())
    }

    /// Gets a chunk that is what the record says.
    async fn get_chunk(&self, chunk: &Chunk) -> Result<Vec<u8>> {
        let name = chunk.name();
        let bytes = self.limited(&name, self.get(&name, chunk.size)).await?;
        // Another thread compares it, while this one passes on what came before.
        let digested = spawn_blocking(move || (hex::encode(Sha256::digest(&bytes)), bytes)).await;
        let gone = |_| Error::new(ErrorKind::Local, "runtime", "it is gone");
        let (sha256, bytes) = digested.map_err(gone)?;
        if bytes.len() as u64 != chunk.size || sha256 != chunk.sha256 {
            self.bad().insert(name.clone());
            let why = "its content is not what its SHA-256 says";
            return Err(Error::new(ErrorKind::Damaged, name, why));
        }
        Ok(bytes)
    }

    /// Returns a small file as a whole.
    ///
    /// # Errors
    /// As [`Share::fetch`].
    pub fn fetch_whole(&self, chunks: &[Chunk]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.fetch(chunks, &mut bytes, &mut |_| true)?;
        Ok(bytes)
    }

    /// Returns whether all of a file's content is there, as far as this build has found out.
    pub fn is_sound(&self, chunks: &[Chunk]) -> bool {
        let bad = self.bad();
        !chunks.iter().any(|chunk| bad.contains(&chunk.name()))
    }

    fn bad(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets an object that is no longer than `most`.
    async fn get(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let failed = |error: object_store::Error| {
            let error = Error::of_store(name, &error);
            if error.kind() == ErrorKind::Missing {
                self.bad().insert(name.to_owned());
            }
            error
        };
        let path = Path::from(format!("{ROOT}/{name}"));
        let found = self.store.get(&path).await.map_err(failed)?;
        if found.meta.size > most {
            self.bad().insert(name.to_owned());
            let why = format!("it has {} bytes, {most} at most are right", found.meta.size);
            return Err(Error::new(ErrorKind::Damaged, name, why));
        }
        Ok(found.bytes().await.map_err(failed)?.into())
    }

    async fn head(&self, name: &str) -> Result<u64> {
        let path = Path::from(format!("{ROOT}/{name}"));
        let found = self.store.head(&path).await;
        Ok(found.map_err(|error| Error::of_store(name, &error))?.size)
    }

    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let path = Path::from(format!("{ROOT}/{name}"));
        let put = self.store.put(&path, bytes.into()).await;
        put.map(drop).map_err(|error| Error::of_store(name, &error))
    }

    async fn limited<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| {
            let why = format!("no result within {} s", self.limit.as_secs());
            Err(Error::new(ErrorKind::Unavailable, name, why))
        };
        tokio::time::timeout(self.limit, work)
            .await
            .unwrap_or_else(late)
    }

    /// Runs `work` here, within the limit.
    fn wait<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_given_up() {
            let why = "the store failed too often in this build";
            return Err(Error::new(ErrorKind::Unavailable, name, why));
        }
        let done = self.block_on(self.limited(name, work))?;
        self.counted(done)
    }

    /// Counts failures that are the store's own.
    fn counted<T>(&self, done: Result<T>) -> Result<T> {
        match &done {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            _ if !self.is_given_up() => self.failures.store(0, Ordering::Relaxed),
            _ => {}
        }
        done
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let gone = || Error::new(ErrorKind::Local, "runtime", "it is gone");
        Ok(self.runtime.as_ref().ok_or_else(gone)?.block_on(work))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // A thread that hangs in a system call must not hold up the end of a build.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
