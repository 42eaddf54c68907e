//! Files of this machine whose digests are known: they become objects without being read or copied.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::blobs::remove;
use super::error::{ApiError, Result};
use super::index::Content;
use super::name::{BucketName, ObjectName};
use super::request::Request;
use super::resource::{Attributes, Object};
use super::store::Objects;
use super::work::{blocking, to_the_end};

/// What a file is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Bytes.
    pub size: u64,
    /// Its MD5.
    pub md5: [u8; 16],
    /// Its CRC32C.
    pub crc32c: u32,
}

impl Objects {
    /// Stores a file of this machine that nobody changes any more. Where contents are on its file system, it is there once, under
    /// both names.
    ///
    /// # Errors
    /// The file cannot be read, or is no longer as long; else as [`Objects::put`].
    pub async fn put_known(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        file: &Path,
        known: &Known,
        attributes: Attributes,
    ) -> Result<Object> {
        let request = Request {
            attributes: attributes.clone().check()?,
            ..Request::default()
        };
        let staged = self.place_to_stage();
        if self.blobs().is_remote() || !linked(file, &staged, known.size).await? {
            return self.put_file(bucket, name, file, attributes).await;
        }
        let Known { size, md5, crc32c } = *known;
        let content = Content { size, md5, crc32c };
        let (objects, bucket, name) = (self.clone(), bucket.clone(), name.clone());
        to_the_end(async move {
            let mut reserved = objects.reserve();
            let fits = objects.check_size(size).and_then(|()| reserved.grow(size));
            if let Err(error) = fits {
                remove(staged).await;
                return Err(error);
            }
            let made = objects.commit(&bucket, &name, (staged.clone(), content), &request, None);
            let made = made.await;
            if made.is_err() {
                remove(staged).await;
            }
            made
        })
        .await
    }
}

/// Gives a file a second name, and puts it on the disk. `false`: that cannot be done here, so it has to be copied.
async fn linked(file: &Path, staged: &Path, size: u64) -> Result<bool> {
    let (file, staged) = (file.to_owned(), staged.to_owned());
    blocking(move || {
        // Another file system, or a file of one of the sandbox's ids that the kernel lets nobody else link.
        if std::fs::hard_link(&file, &staged).is_err() {
            return Ok(false);
        }
        let done = fit(&staged, size);
        if !matches!(done, Ok(true)) {
            drop(std::fs::remove_file(&staged));
        }
        done.map_err(|error| ApiError::of_io(&format!("reading {}", file.display()), &error))
    })
    .await
}

/// Whether what was linked is a file that can be an object; then it is on the disk.
fn fit(staged: &PathBuf, size: u64) -> std::io::Result<bool> {
    let mut options = File::options();
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    // A link, or a file that only its owner may read: the copy says what is wrong with it.
    let Ok(opened) = options.read(true).custom_flags(no_link).open(staged) else {
        return Ok(false);
    };
    let found = opened.metadata()?;
    if !found.is_file() {
        return Ok(false);
    }
    if found.len() != size {
        let what = format!("it has {} bytes, and had {size}", found.len());
        return Err(std::io::Error::other(what));
    }
    opened.sync_all()?;
    Ok(true)
}
