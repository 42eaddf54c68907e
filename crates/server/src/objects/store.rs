//! Buckets and objects for the rest of the server, and for the handlers of requests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::blobs::{self, Blobs, Check, Reading, Staged, private};
use super::condition::Conditions;
use super::elsewhere::Contents;
use super::error::{ApiError, Result};
use super::index::{Content, Database, Index, Page, Selection, Upload};
use super::ledger::{ENTRY, Held, Owner, Reserved};
use super::name::{BucketName, ObjectName, place};
use super::request::Request;
use super::resource::{Attributes, Bucket, Object};
use super::turns::Turns;
use super::work::{blocking, to_the_end};
use crate::disk;

/// How long a start waits for a store elsewhere.
const START: Duration = Duration::from_secs(10);
/// How often is looked after a store elsewhere, and after contents that could not be removed.
const LOOK: Duration = Duration::from_secs(30);
/// The same while the store has not said whose the contents are.
const LOOK_SOON: Duration = Duration::from_secs(3);

/// How much the store takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an object.
    pub object: u64,
    /// Resumable uploads that are under way.
    pub uploads: u32,
    /// The same of one owner.
    pub uploads_of_one: u32,
    /// Buckets.
    pub buckets: u32,
    /// Buckets of one owner.
    pub buckets_of_one: u32,
    /// Objects of one owner.
    pub objects_of_one: u64,
    /// Bytes that an owner may hold.
    pub quota: Option<u64>,
    /// Bytes of the disk that stay free.
    pub keep_free: u64,
    /// How long a client may send nothing in the middle of a body.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            object: 1 << 40,
            uploads: 1000,
            uploads_of_one: 100,
            buckets: 10_000,
            buckets_of_one: 100,
            objects_of_one: 1_000_000,
            quota: None,
            keep_free: 0,
            silence: Duration::from_secs(60),
        }
    }
}

/// The object store; a handle that can be cloned. What it stores is the server's own, unless it is somebody's handle.
#[derive(Clone, Debug)]
pub struct Objects {
    inner: Arc<Inner>,
    owner: Owner,
}

#[derive(Debug)]
struct Inner {
    index: Index,
    blobs: Arc<Blobs>,
    limits: Limits,
    staged: AtomicU64,
    turns: Arc<Turns>,
}

/// A content on its way in, and what it counts.
#[derive(Debug)]
pub(super) struct Making {
    staged: Staged,
    reserved: Reserved,
}

/// Objects and prefixes of a bucket.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// In the order of their names.
    pub objects: Vec<Object>,
    /// What names have in common up to the delimiter.
    pub prefixes: Vec<String>,
}

impl Objects {
    /// Opens the store below a directory, which it makes if need be. What a killed server has left behind is removed. Two servers
    /// must not open one directory. A store elsewhere that does not answer does not hold up the start: until it does, nothing is
    /// written.
    ///
    /// # Errors
    /// The directory cannot be used, or a newer Kiln wrote it; the contents are another's; the store does not let the server in.
    pub async fn open(directory: &Path, contents: Contents, limits: Limits) -> Result<Objects> {
        private(directory)?;
        let index = Index::open(&directory.join("index.db"))?;
        let (id, is_old) = index.run(|database| database.identity()).await?;
        let blobs = Arc::new(Blobs::open(directory, contents, id, is_old)?);
        let inner = Arc::new(Inner {
            index,
            blobs,
            limits,
            staged: AtomicU64::new(0),
            turns: Arc::default(),
        });
        let tended = Arc::downgrade(&inner);
        let objects = Objects {
            inner,
            owner: Owner::default(),
        };
        objects.recover().await?;
        tokio::spawn(tend(tended));
        Ok(objects)
    }

    async fn recover(&self) -> Result<()> {
        match tokio::time::timeout(START, self.blobs().claim()).await {
            Ok(Err(error)) if !error.is_away() || error.is_barred() => return Err(error),
            _ => {}
        }
        let blobs = Arc::clone(self.blobs());
        let (uploads, doomed) = self
            .index()
            .run(move |database| {
                database.expire_uploads(now())?;
                database.forget_uploads(|id| blobs.staged_size(id))?;
                Ok((database.uploads()?, database.doomed()?))
            })
            .await?;
        self.blobs().clear_staging(&uploads)?;
        self.blobs().strays().extend(doomed);
        // What is not removed in time is removed later.
        let _ = tokio::time::timeout(START, self.sweep()).await;
        Ok(())
    }

    /// Removes contents that could not be removed before.
    async fn sweep(&self) {
        let strays: Vec<String> = self.blobs().strays().iter().cloned().collect();
        for place in strays {
            if !self.blobs().is_ours() {
                return;
            }
            // One that fails is tried again; so is what somebody still reads.
            if self.discard(&place).await.is_ok() {
                self.blobs().strays().remove(&place);
            }
        }
    }

    /// Returns what is wrong with the store of the contents, if something is.
    pub fn trouble(&self) -> Option<ApiError> {
        self.blobs().trouble()
    }

    /// Returns a handle that stores for somebody.
    pub fn of(&self, owner: Owner) -> Objects {
        Objects {
            inner: Arc::clone(&self.inner),
            owner,
        }
    }

    /// Returns what an owner holds.
    pub fn held(&self, owner: &str) -> Held {
        self.index().ledger().held(owner)
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Begins to count what a content holds while it comes in.
    pub(super) fn reserve(&self) -> Reserved {
        let ledger = self.index().ledger();
        ledger.reserve(&self.owner, self.limits().quota)
    }

    /// Refuses so many bytes more if their owner may not hold them, or if there is no room for them on the disk.
    pub(super) async fn check_room(&self, bytes: u64) -> Result<()> {
        if self.owner.is_limited() {
            let ledger = self.index().ledger();
            ledger.fits(self.owner.name(), bytes, self.limits().quota)?;
        }
        self.check_disk(bytes).await
    }

    /// Refuses so many bytes more if they would take the room that is kept free.
    pub(super) async fn check_disk(&self, bytes: u64) -> Result<()> {
        let (staging, keep) = (self.blobs().staged(""), self.limits().keep_free);
        if keep == 0 || !self.owner.is_limited() {
            return Ok(());
        }
        let missing = blocking(move || {
            disk::missing(&staging, keep, bytes)
                .map_err(|error| ApiError::of_io("looking for room on the disk", &error))
        });
        match missing.await? {
            Some(why) => Err(ApiError::no_room(format!(
                "there is no room for {bytes} bytes more: {why}"
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn index(&self) -> &Index {
        &self.inner.index
    }

    pub(super) fn blobs(&self) -> &Arc<Blobs> {
        &self.inner.blobs
    }

    pub(super) fn turns(&self) -> &Arc<Turns> {
        &self.inner.turns
    }

    pub(super) fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// There is one of that name (409), its owner has too many (403), or there is no room on the disk (507).
    pub async fn create_bucket(&self, name: &BucketName, project: &str) -> Result<Bucket> {
        let bucket = Bucket {
            name: name.clone(),
            project: project.to_owned(),
            created: now(),
        };
        self.check_room(0).await?;
        let (owner, limits) = (self.owner.clone(), self.limits());
        let most = (limits.buckets_of_one, limits.buckets);
        self.index()
            .run(move |database| database.add_bucket(&bucket, &owner, most).map(|()| bucket))
            .await
    }

    /// Returns a bucket.
    ///
    /// # Errors
    /// There is none of that name (404).
    pub async fn bucket(&self, name: &BucketName) -> Result<Bucket> {
        let name = name.clone();
        self.index()
            .run(move |database| database.bucket(&name))
            .await
    }

    /// Returns buckets in the order of their names, from one on. Without a project all are meant; those that were made without one
    /// are everybody's.
    pub(super) async fn buckets(
        &self,
        project: &str,
        prefix: &str,
        from: String,
        most: usize,
    ) -> Result<Vec<Bucket>> {
        let (project, prefix) = (project.to_owned(), prefix.to_owned());
        self.index()
            .run(move |database| database.buckets(&project, &prefix, &from, most))
            .await
    }

    /// Removes a bucket.
    ///
    /// # Errors
    /// There is none (404), or it is not empty (409).
    pub async fn delete_bucket(&self, name: &BucketName) -> Result<()> {
        let name = name.clone();
        self.index()
            .run(move |database| database.remove_bucket(&name))
            .await
    }

    /// Stores an object: all of it, or nothing.
    ///
    /// # Errors
    /// There is no such bucket, a condition does not hold, it is too large, the disk is full, its owner may not hold more, or the
    /// content cannot be read.
    pub async fn put<E: std::fmt::Display>(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        mut content: impl Stream<Item = Result<Bytes, E>> + Unpin + Send,
        attributes: Attributes,
        conditions: &Conditions,
    ) -> Result<Object> {
        let mut making = self.stage(0).await?;
        while let Some(bytes) = content.next().await {
            let bytes = bytes
                .map_err(|error| ApiError::internal(format!("reading the content: {error}")))?;
            self.write(&mut making, bytes).await?;
        }
        let request = Request {
            attributes: attributes.check()?,
            conditions: conditions.clone(),
            ..Request::default()
        };
        self.commit_staged(bucket, name, making, &request).await
    }

    /// Stores a file of this machine, or a few bytes, as an object.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub async fn put_bytes(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        content: impl Into<Bytes>,
        attributes: Attributes,
    ) -> Result<Object> {
        let whole = futures_util::stream::iter([Ok::<_, ApiError>(content.into())]);
        self.put(bucket, name, whole, attributes, &Conditions::default())
            .await
    }

    /// Stores a file of this machine as an object.
    ///
    /// # Errors
    /// The file cannot be read; else as [`Objects::put`].
    pub async fn put_file(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        file: &Path,
        attributes: Attributes,
    ) -> Result<Object> {
        let file = file_stream(file, 0, u64::MAX).await?;
        self.put(bucket, name, file, attributes, &Conditions::default())
            .await
    }

    /// Returns what is known of an object.
    ///
    /// # Errors
    /// There is none (404), or it is not of that generation any more.
    pub async fn get(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
    ) -> Result<Object> {
        let (bucket, name) = (bucket.clone(), name.clone());
        self.index()
            .run(move |database| database.object(&bucket, &name, generation))
            .await
    }

    /// Opens an object for reading. It stays readable when it is replaced or removed meanwhile.
    ///
    /// # Errors
    /// There is none (404).
    pub async fn open_object(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
    ) -> Result<Opened> {
        // The place is taken before it is certain that the object still has it, so that nobody removes it in between.
        loop {
            let object = self.get(bucket, name, generation).await?;
            let reading = self
                .blobs()
                .reading(&place(bucket, name, object.generation));
            let again = self.get(bucket, name, generation).await?;
            if again.generation == object.generation {
                return Ok(Opened {
                    object: again,
                    reading,
                    blobs: Arc::clone(self.blobs()),
                });
            }
        }
    }

    /// Lists objects whose names begin with a prefix, all of them. With a delimiter, those that have it later in their names are
    /// told by what is in front of it.
    ///
    /// # Errors
    /// There is no such bucket (404).
    pub async fn list(&self, bucket: &BucketName, prefix: &str, delimiter: &str) -> Result<List> {
        let mut selection = Selection {
            prefix: prefix.to_owned(),
            delimiter: delimiter.to_owned(),
            most: 1000,
            ..Selection::default()
        };
        let mut list = List::default();
        loop {
            let page = self.page(bucket, &selection).await?;
            list.objects.extend(page.objects);
            list.prefixes.extend(page.prefixes);
            match page.next {
                Some(next) => selection.from = next,
                None => return Ok(list),
            }
        }
    }

    pub(super) async fn page(&self, bucket: &BucketName, selection: &Selection) -> Result<Page> {
        let (bucket, selection) = (bucket.clone(), selection.clone());
        self.index()
            .run(move |database| database.list(&bucket, &selection))
            .await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// There is none (404), or a condition does not hold (412).
    pub async fn delete(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
        conditions: &Conditions,
    ) -> Result<()> {
        let (bucket, name, conditions) = (bucket.clone(), name.clone(), conditions.clone());
        let place = self
            .index()
            .run(move |database| database.remove(&bucket, &name, generation, &conditions))
            .await?;
        self.discard_later(&place).await;
        Ok(())
    }

    /// Changes what is said about an object.
    pub(super) async fn patch(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
        conditions: &Conditions,
        change: impl FnOnce(&Attributes) -> Result<Attributes> + Send + 'static,
    ) -> Result<Object> {
        self.check_room(0).await?;
        let quota = self.limits().quota;
        let (bucket, name, conditions) = (bucket.clone(), name.clone(), conditions.clone());
        self.index()
            .run(move |database| {
                let mut object = database.object(&bucket, &name, generation)?;
                conditions.check(Some(&object))?;
                object.attributes = change(&object.attributes)?;
                object.metageneration += 1;
                object.updated = now();
                database.set_attributes(&object, quota)?;
                Ok(object)
            })
            .await
    }

    /// Makes room for a content that comes in pieces, so many bytes as far as is known.
    pub(super) async fn stage(&self, bytes: u64) -> Result<Making> {
        self.check_size(bytes)?;
        self.check_room(bytes).await?;
        Ok(Making {
            staged: Staged::new(self.place_to_stage()).await?,
            reserved: self.reserve(),
        })
    }

    /// A name for a staged file that no other has.
    pub(super) fn place_to_stage(&self) -> PathBuf {
        let number = self.inner.staged.fetch_add(1, Ordering::Relaxed);
        self.blobs().staged(&format!("request-{number}"))
    }

    /// Adds to a staged content, if the object does not get too large by it, and there is room.
    pub(super) async fn write(&self, making: &mut Making, bytes: Bytes) -> Result<()> {
        let new = bytes.len() as u64;
        self.check_size(making.staged.size().saturating_add(new))?;
        making.reserved.grow(new)?;
        self.check_disk(new).await?;
        making.staged.write(bytes).await
    }

    pub(super) fn check_size(&self, size: u64) -> Result<()> {
        let most = self.limits().object;
        if size <= most {
            return Ok(());
        }
        Err(ApiError::too_large(format!(
            "the object is larger than the {most} bytes that this server takes"
        )))
    }

    /// Makes a staged content an object, also if the client does not wait for it.
    pub(super) async fn commit_staged(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        mut making: Making,
        request: &Request,
    ) -> Result<Object> {
        let (objects, request) = (self.clone(), request.clone());
        let (bucket, name) = (bucket.clone(), name.clone());
        to_the_end(async move {
            let content = making.staged.finish().await?;
            let file = (making.staged.path(), content);
            objects.commit(&bucket, &name, file, &request, None).await
        })
        .await
    }

    /// Makes a file with a content an object; the file is gone then. A resumable upload is noted as done by the same stroke.
    pub(super) async fn commit(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        (file, content): (PathBuf, Content),
        request: &Request,
        upload: Option<&Upload>,
    ) -> Result<Object> {
        request.check(&content)?;
        let mut entry = self.reserve();
        entry.grow(ENTRY + name.as_str().len() as u64 + request.attributes.length()?)?;
        let now = now();
        let (to, called) = (bucket.clone(), name.clone());
        let generation = self
            .index()
            .run(move |database| database.begin(&to, &called, now))
            .await?;
        let new = place(bucket, name, generation);
        let object = Object {
            bucket: bucket.clone(),
            name: name.clone(),
            generation,
            metageneration: 1,
            size: content.size,
            md5: content.md5,
            crc32c: content.crc32c,
            attributes: request.attributes.clone(),
            created: now,
            updated: now,
        };
        let stored = async {
            self.blobs().publish(file.clone(), &new).await?;
            let (object, conditions) = (object.clone(), request.conditions.clone());
            let (owner, most) = (self.owner.clone(), self.limits().objects_of_one);
            let mut upload = upload.cloned();
            let commit = move |database: &mut Database<'_>| {
                let old = database.commit(&object, &owner, &conditions, most)?;
                if let Some(upload) = &mut upload {
                    upload.generation = Some(object.generation);
                    database.set_upload(upload, now)?;
                }
                Ok(old)
            };
            self.index().run(commit).await
        };
        match stored.await {
            Ok(old) => {
                // A store elsewhere has a copy of it.
                blobs::remove(file).await;
                if let Some(old) = old {
                    self.discard_later(&old).await;
                }
                Ok(object)
            }
            Err(error) => {
                self.discard_later(&new).await;
                Err(error)
            }
        }
    }

    /// Removes a doomed content.
    async fn discard(&self, place: &str) -> Result<()> {
        if self.blobs().remove(place).await? {
            let place = place.to_owned();
            self.index()
                .run(move |database| database.spare(&place))
                .await?;
        }
        Ok(())
    }

    /// The same where the answer does not depend on it: it is tried again.
    async fn discard_later(&self, place: &str) {
        if self.discard(place).await.is_err() {
            self.blobs().strays().insert(place.to_owned());
        }
    }
}

/// Looks after the contents for as long as the store is used.
async fn tend(inner: Weak<Inner>) {
    loop {
        let pause = match inner.upgrade() {
            None => return,
            Some(inner) if inner.blobs.trouble().is_some() => LOOK_SOON,
            Some(_) => LOOK,
        };
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        let objects = Objects {
            inner,
            owner: Owner::default(),
        };
        if objects.blobs().is_remote() {
            // What it finds is what requests are told.
            let _ = objects.blobs().claim().await;
        }
        objects.sweep().await;
    }
}

/// An object whose content can be read.
#[derive(Debug)]
pub struct Opened {
    /// What is known of it.
    pub object: Object,
    reading: Reading,
    blobs: Arc<Blobs>,
}

impl Opened {
    /// Returns the content, or the part of it from a byte up to another. The whole is compared with its CRC32C on the way: if it is
    /// another, an error takes the place of the last bytes.
    pub fn read(self, from: u64, until: u64) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let until = until.min(self.object.size);
        let check = (from == 0 && until == self.object.size).then(Check::default);
        let begin = (self, from, check);
        futures_util::stream::try_unfold(begin, move |(opened, at, check)| async move {
            if at >= until {
                return Ok(None);
            }
            let bytes = opened
                .blobs
                .slice(opened.reading.place(), at, until)
                .await?;
            if bytes.is_empty() {
                return Err(ApiError::internal(
                    "a content of the object store is shorter than it was",
                ));
            }
            let next = at + bytes.len() as u64;
            let check = check.map(|check| check.with(&bytes));
            if next >= until
                && let Some(check) = &check
            {
                check.compare(&opened.object)?;
            }
            Ok(Some((bytes, (opened, next, check))))
        })
    }

    /// Returns the whole content; of objects that are known to be small.
    ///
    /// # Errors
    /// It is larger than `most`, or cannot be read.
    pub async fn bytes(self, most: u64) -> Result<Bytes> {
        if self.object.size > most {
            return Err(ApiError::too_large(format!(
                "{} is larger than {most} bytes",
                self.object.name
            )));
        }
        let size = self.object.size;
        let pieces: Vec<Bytes> = self.read(0, size).boxed().try_collect().await?;
        Ok(pieces.concat().into())
    }
}

/// Reads a file of this machine from a byte up to another, in pieces.
pub(super) async fn file_stream(
    file: &Path,
    from: u64,
    until: u64,
) -> Result<impl Stream<Item = Result<Bytes>> + Unpin + Send + 'static> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let shown = file.display().to_string();
    let failed = move |error: std::io::Error| ApiError::of_io(&format!("reading {shown}"), &error);
    let mut opened = tokio::fs::File::open(file).await.map_err(&failed)?;
    opened
        .seek(std::io::SeekFrom::Start(from))
        .await
        .map_err(&failed)?;
    let left = opened.take(until.saturating_sub(from));
    let pieces = futures_util::stream::try_unfold(left, move |mut left| {
        let failed = failed.clone();
        async move {
            let mut buffer = bytes::BytesMut::with_capacity(256 << 10);
            let read = left.read_buf(&mut buffer).await.map_err(failed)?;
            Ok((read > 0).then(|| (buffer.freeze(), left)))
        }
    });
    Ok(Box::pin(pieces))
}

/// Microseconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
