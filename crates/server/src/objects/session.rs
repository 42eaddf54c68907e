//! Resumable uploads: a file that grows over several requests, and what the index notes of it. They survive the server.
//!
//! Bytes count as received once they are on the disk and the index says so; a request that breaks off, or a server that is killed,
//! loses at most the last [`STEP`] of them. Two requests never write at once: a later one ends an earlier one, whose client is
//! gone more often than not.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blobs;
use super::error::{ApiError, Result};
use super::incoming::Incoming;
use super::index::Upload;
use super::ledger::Owner;
use super::name::{BucketName, ObjectName};
use super::range::Sent;
use super::request::Request;
use super::resource::Object;
use super::store::{Objects, now};
use super::turns::{Part, taken_over};
use super::work::{blocking, random, to_the_end};

/// Bytes after which an upload's progress is put on the disk.
const STEP: u64 = 16 << 20;
/// The same of a slow client, which does not look as if nothing were sent.
const OFTEN: Duration = Duration::from_secs(60);

/// How far an upload is.
#[derive(Debug)]
pub(super) enum Progress {
    /// So many bytes are there.
    Received(u64),
    /// All of it is there.
    Done(Box<Object>),
}

/// Begins an upload; returns its id.
pub(super) async fn start(
    objects: &Objects,
    bucket: BucketName,
    name: ObjectName,
    request: &Request,
    total: Option<u64>,
) -> Result<String> {
    objects.check_size(total.unwrap_or(0))?;
    objects.check_room(total.unwrap_or(0)).await?;
    let id = random()?;
    let request =
        serde_json::to_string(request).map_err(|error| ApiError::internal(error.to_string()))?;
    let upload = Upload {
        id: id.clone(),
        owner: objects.owner().name().to_owned(),
        bucket,
        name,
        request,
        total,
        received: 0,
        generation: None,
    };
    let (limits, limited) = (objects.limits(), objects.owner().is_limited());
    let expired = objects
        .index()
        .run(move |database| database.expire_uploads(now()))
        .await?;
    for old in expired {
        blobs::remove(objects.blobs().staged(&old)).await;
    }
    objects
        .index()
        .run(move |database| {
            let (own, all) = database.count_uploads(&upload.owner)?;
            let (of_one, most) = (limits.uploads_of_one, limits.uploads);
            if limited && own >= of_one {
                return Err(ApiError::too_many(format!(
                    "{} has {own} uploads under way, of at most {of_one}; finish or cancel some",
                    upload.owner
                )));
            }
            if all >= most {
                return Err(ApiError::too_many(format!(
                    "{most} uploads are under way; finish or cancel some"
                )));
            }
            let (bucket, name) = (&upload.bucket, &upload.name);
            database.bucket(bucket)?;
            let request: Request = read(&upload.request)?;
            request
                .conditions
                .check(database.find(bucket, name)?.as_ref())?;
            database.add_upload(&upload, now())
        })
        .await?;
    Ok(id)
}

/// Takes an upload back.
pub(super) async fn cancel(objects: &Objects, bucket: &BucketName, id: &str) -> Result<()> {
    find(objects, bucket, id).await?;
    let part = objects.turns().take(id);
    let _writing = part.writing().await;
    let upload = find(objects, bucket, id).await?;
    forget(objects, &upload).await
}

/// Takes a request's bytes, or none, and says how far the upload is.
pub(super) async fn receive(
    objects: &Objects,
    bucket: &BucketName,
    id: &str,
    sent: Sent,
    body: &mut Incoming,
) -> Result<Progress> {
    let upload = find(objects, bucket, id).await?;
    if sent.bytes.is_none() {
        // A question is answered at once, so that it disturbs no transfer; but the last word makes the object.
        let is_last = sent.total.is_some_and(|total| total == upload.received);
        if upload.generation.is_none() && !is_last {
            return Ok(Progress::Received(upload.received));
        }
    }
    let part = objects.turns().take(id);
    let writing = part.writing().await;
    if part.is_over() {
        return Err(taken_over());
    }
    let mut upload = find(objects, bucket, id).await?;
    // It counts for whoever began it.
    let objects = &match upload.owner.as_str() {
        "" => objects.clone(),
        owner => objects.of(Owner::of(owner)),
    };
    if let Some(generation) = upload.generation {
        let object = objects
            .get(&upload.bucket, &upload.name, Some(generation))
            .await?;
        return Ok(Progress::Done(Box::new(object)));
    }
    settle_total(objects, &mut upload, sent)?;
    let result = transfer(&part, objects, &mut upload, sent, body).await;
    let objects = objects.clone();
    match result {
        Ok(()) if upload.total == Some(upload.received) => {
            // A client that does not wait asks again, and waits for its turn until this is done.
            let finished = to_the_end(async move {
                let done = finish(&objects, &upload).await;
                let done = ended(&objects, &upload, done).await;
                drop((writing, part));
                done
            });
            Ok(Progress::Done(Box::new(finished.await?)))
        }
        Ok(()) => Ok(Progress::Received(upload.received)),
        Err(error) => ended(&objects, &upload, Err(error)).await,
    }
}

/// Forgets an upload that cannot go on.
async fn ended<T>(objects: &Objects, upload: &Upload, done: Result<T>) -> Result<T> {
    if let Err(error) = &done
        && error.ends_upload()
    {
        forget(objects, upload).await?;
    }
    done
}

/// Appends what the request brings and is not there yet.
async fn transfer(
    part: &Part,
    objects: &Objects,
    upload: &mut Upload,
    sent: Sent,
    body: &mut Incoming,
) -> Result<()> {
    let Some((first, last)) = sent.bytes else {
        return Ok(());
    };
    if first > upload.received {
        // A gap: the client learns where to go on.
        return Ok(());
    }
    objects
        .check_room(last.saturating_add(1).saturating_sub(upload.received))
        .await?;
    let mut file = Growing::open(objects.blobs().staged(&upload.id), upload.received).await?;
    let mut reserved = objects.reserve();
    let (mut at, mut noted, mut when) = (first, upload.received, Instant::now());
    let result = loop {
        let bytes = match part.next(body).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let end = at + bytes.len() as u64;
        if end > last.saturating_add(1) {
            break Err(ApiError::invalid(
                "the body is longer than its Content-Range says",
            ));
        }
        objects.check_size(end)?;
        let known = upload.received.saturating_sub(at).min(bytes.len() as u64);
        at = end;
        let new = bytes.slice(usize::try_from(known).unwrap_or(bytes.len())..);
        let more = new.len() as u64;
        let fits = match reserved.grow(more) {
            Ok(()) => objects.check_disk(more).await,
            Err(error) => Err(error),
        };
        if let Err(error) = fits {
            break Err(error);
        }
        upload.received += new.len() as u64;
        file.write(new).await?;
        if upload.received - noted >= STEP || when.elapsed() >= OFTEN {
            (noted, when) = (upload.received, Instant::now());
            note(objects, upload, &mut file).await?;
            reserved.settle();
        }
    };
    note(objects, upload, &mut file).await?;
    result
}

/// The size of the whole stays what it was said to be.
fn settle_total(objects: &Objects, upload: &mut Upload, sent: Sent) -> Result<()> {
    match (upload.total, sent.total) {
        (Some(before), Some(now)) if before != now => Err(ApiError::invalid(format!(
            "the upload was to have {before} bytes, and now {now}"
        ))),
        (_, Some(total)) => {
            objects.check_size(total)?;
            upload.total = Some(total);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Puts progress on the disk, then into the index.
async fn note(objects: &Objects, upload: &Upload, file: &mut Growing) -> Result<()> {
    file.sync().await?;
    let upload = upload.clone();
    objects
        .index()
        .run(move |database| database.set_upload(&upload, now()))
        .await
}

async fn finish(objects: &Objects, upload: &Upload) -> Result<Object> {
    let request: Request = read(&upload.request)?;
    let staged = objects.blobs().staged(&upload.id);
    if upload.received == 0 {
        // Nothing was sent, so there is no file yet.
        Growing::open(staged.clone(), 0).await?;
    }
    let content = blobs::digests(staged.clone()).await?;
    if content.size != upload.received {
        return Err(ApiError::internal(
            "the file of an upload has not the size that was noted",
        ));
    }
    let (bucket, name) = (&upload.bucket, &upload.name);
    objects
        .commit(bucket, name, (staged, content), &request, Some(upload))
        .await
}

/// The upload of that id, if it is one into that bucket.
async fn find(objects: &Objects, bucket: &BucketName, id: &str) -> Result<Upload> {
    let (id, bucket) = (id.to_owned(), bucket.clone());
    objects
        .index()
        .run(move |database| database.upload(&id, &bucket))
        .await
}

async fn forget(objects: &Objects, upload: &Upload) -> Result<()> {
    let id = upload.id.clone();
    blobs::remove(objects.blobs().staged(&id)).await;
    objects
        .index()
        .run(move |database| database.remove_upload(&id))
        .await
}

fn read(request: &str) -> Result<Request> {
    serde_json::from_str(request)
        .map_err(|error| ApiError::internal(format!("an upload in the index is damaged: {error}")))
}

/// The file of an upload.
struct Growing(Option<std::fs::File>);

impl Growing {
    /// Opens it at its end; bytes behind what is noted are not to be trusted.
    async fn open(path: PathBuf, received: u64) -> Result<Growing> {
        blocking(move || {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let open = || {
                let mut file = options.open(&path)?;
                file.set_len(received)?;
                file.seek(SeekFrom::Start(received))?;
                Ok(file)
            };
            let opened: std::io::Result<_> = open();
            opened
                .map(|file| Growing(Some(file)))
                .map_err(|error| ApiError::of_io("opening the file of an upload", &error))
        })
        .await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.with(move |file| file.write_all(&bytes)).await
    }

    async fn sync(&mut self) -> Result<()> {
        self.with(|file| file.sync_data()).await
    }

    async fn with(
        &mut self,
        work: impl FnOnce(&mut std::fs::File) -> std::io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let gone = || ApiError::internal("an upload went on after it had failed");
        let mut file = self.0.take().ok_or_else(gone)?;
        let file = blocking(move || {
            work(&mut file).map_err(|error| ApiError::of_io("writing the upload", &error))?;
            Ok(file)
        })
        .await?;
        self.0 = Some(file);
        Ok(())
    }
}
