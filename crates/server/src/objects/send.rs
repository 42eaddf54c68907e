//! A staged file on its way to a store elsewhere: in one request, or in parts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::elsewhere::of_store;
use super::error::{ApiError, Result};
use super::work::blocking;

/// Bytes of a part, if the file does not need larger ones; S3 takes none below 5 MiB.
const PART: u64 = 8 << 20;
/// Parts of a file; S3 takes 10,000.
const PARTS: u64 = 9_000;
/// MiB of parts that all uploads together have in memory.
const BUFFERED: u32 = 64;
/// How long is waited for a store to forget the parts of an upload that failed.
const ABORT: Duration = Duration::from_secs(10);

/// What all uploads share.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    store: Arc<dyn ObjectStore>,
    /// A permit for each MiB.
    buffers: Arc<Semaphore>,
}

impl Sender {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Sender {
        Sender {
            store,
            buffers: Arc::new(Semaphore::new(BUFFERED as usize)),
        }
    }

    /// Sends a file. It has its name in the store when all of it is there, and not before.
    pub(super) async fn send(&self, staged: &Path, place: &object_store::path::Path) -> Result<()> {
        let opened = staged.to_owned();
        let failed = |error| ApiError::of_io("reading what is staged", &error);
        let (file, size) = blocking(move || {
            let file = File::open(opened).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            Ok((Arc::new(file), size))
        })
        .await?;
        let failed = |error| not_taken(place, &error);
        if size <= PART {
            let _buffer = self.buffer(size).await?;
            let bytes = part(&file, 0, size).await?;
            return self
                .store
                .put(place, bytes.into())
                .await
                .map(drop)
                .map_err(failed);
        }
        let mut upload = self.store.put_multipart(place).await.map_err(failed)?;
        let sent = match self.parts(upload.as_mut(), file, size, place).await {
            Ok(()) => match upload.complete().await {
                Ok(_) => return Ok(()),
                // It may be done, and the answer was lost: asked again, the store knows no such upload.
                Err(_) if self.has(place, size).await => return Ok(()),
                Err(error) => Err(failed(error)),
            },
            Err(error) => Err(error),
        };
        // The first error is the one to tell; parts that stay are the store's to clear.
        let _ = tokio::time::timeout(ABORT, upload.abort()).await;
        sent
    }

    async fn has(&self, place: &object_store::path::Path, size: u64) -> bool {
        let found = self.store.head(place).await;
        found.is_ok_and(|found| found.size == size)
    }

    async fn parts(
        &self,
        upload: &mut dyn MultipartUpload,
        file: Arc<File>,
        size: u64,
        place: &object_store::path::Path,
    ) -> Result<()> {
        let each = part_size(size);
        let mut under_way = JoinSet::new();
        let mut at = 0;
        while at < size {
            let length = each.min(size - at);
            let buffer = self.buffer(length).await?;
            let sending = upload.put_part(part(&file, at, length).await?.into());
            under_way.spawn(async move {
                let sent = sending.await;
                drop(buffer);
                sent
            });
            at += length;
            while let Some(sent) = under_way.try_join_next() {
                taken(place, sent)?;
            }
        }
        while let Some(sent) = under_way.join_next().await {
            taken(place, sent)?;
        }
        Ok(())
    }

    /// Waits for room in memory.
    async fn buffer(&self, bytes: u64) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let mib = u32::try_from(bytes >> 20).unwrap_or(BUFFERED);
        let permits = mib.clamp(1, BUFFERED);
        let buffer = Arc::clone(&self.buffers).acquire_many_owned(permits).await;
        buffer.map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// Parts of one size, so few that S3 takes them, of whole MiB.
fn part_size(size: u64) -> u64 {
    size.div_ceil(PARTS).next_multiple_of(1 << 20).max(PART)
}

async fn part(file: &Arc<File>, at: u64, length: u64) -> Result<Bytes> {
    let file = Arc::clone(file);
    blocking(move || {
        let length = usize::try_from(length).map_err(|_| ApiError::too_large("a part"))?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at)
            .map_err(|error| ApiError::of_io("reading what is staged", &error))?;
        Ok(bytes.into())
    })
    .await
}

fn taken(
    place: &object_store::path::Path,
    sent: Result<object_store::Result<()>, tokio::task::JoinError>,
) -> Result<()> {
    sent.map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| not_taken(place, &error))
}

/// Why a content was not taken; one that is new cannot be gone.
fn not_taken(place: &object_store::path::Path, error: &object_store::Error) -> ApiError {
    match error {
        object_store::Error::NotFound { .. } => ApiError::away(format!(
            "the object store takes nothing for {place}: it says that its bucket, or the upload, is not there"
        )),
        _ => of_store(place.as_ref(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_for_any_object() {
        for size in [1, PART, 80 << 30, (80 << 30) + 1, 1 << 40, (5 << 40) - 1] {
            let each = part_size(size);
            assert!(each >= PART && each.is_multiple_of(1 << 20), "{size}");
            assert!(size.div_ceil(each) <= 10_000, "{size}");
        }
        assert_eq!(part_size(70 << 30), PART);
    }
}
