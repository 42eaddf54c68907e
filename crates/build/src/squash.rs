//! The SquashFS: written by Kiln's own code inside the user namespace, straight into its partition.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_image::squashfs::{self, Codec, Options};
use kiln_image::tree::{Pattern, ScanOptions, Tree};
use kiln_plan::{Codec as PlanCodec, Compression};
use kiln_rootfs::{Extras, Place};
use kiln_sandbox::{Call, CallError, ErrorKind, Function, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Failure, FailureKind};

const WRITE: &str = "build.squashfs";

/// Functions of this crate for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[(&str, Function)] = &[(WRITE, write_call)];

/// What is left out of the image: the contents of places where the running system mounts something, and initramfs
/// images, which lie on the boot partition.
const EXCLUDED: &[&str] = &[
    "/dev/*",
    "/proc/*",
    "/sys/*",
    "/run/*",
    "/tmp/*",
    "/boot/initrd.img-*",
];

#[derive(Serialize, Deserialize)]
struct Write {
    offset: u64,
    codec: String,
    level: i32,
    block_size: u32,
    threads: usize,
    epoch: i64,
}

/// What was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Squashed {
    /// Length of the file system, padded to 4 KiB.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u32,
    /// Bytes of content.
    pub(crate) content_bytes: u64,
    /// Blocks written and blocks reused.
    pub(crate) blocks: u64,
}

/// Writes the root at `place` to `disk` from byte `offset` on.
pub(crate) fn write(
    place: &Place<'_>,
    disk: &File,
    offset: u64,
    compression: &Compression,
    epoch: i64,
    threads: usize,
) -> Result<(Squashed, u64), Failure> {
    let codec = match compression.codec {
        PlanCodec::Gzip => "gzip",
        PlanCodec::Zstd => "zstd",
        PlanCodec::Xz => "xz",
        PlanCodec::Lz4 => "lz4",
    };
    let level = compression
        .level
        .and_then(|l| i32::try_from(l).ok())
        .unwrap_or_else(|| named(codec).default_level());
    let payload = json!(Write {
        offset,
        codec: codec.to_owned(),
        level,
        block_size: compression.block_size,
        threads,
        epoch
    });
    let fd: OwnedFd = disk
        .try_clone()
        .map_err(|e| crate::output::write_failure(Path::new("disk.raw"), &e))?
        .into();
    let mut message = |value: Value| {
        if let Some(line) = value.as_str() {
            place.reporter.line(Stream::Stdout, line);
        }
        if let Some([done, total]) = value.as_array().map(Vec::as_slice) {
            place
                .reporter
                .progress(done.as_u64().unwrap_or(0), total.as_u64(), None);
        }
    };
    let extras = Extras {
        fds: vec![fd],
        // The root's own /proc and /sys go into the image, not the owners and modes of what is mounted there.
        bare: true,
        ..Extras::default()
    };
    let (value, outcome) = place.call(WRITE, payload, extras, &mut message)?;
    let squashed = serde_json::from_value(value).map_err(|e| {
        Failure::new(
            FailureKind::Internal,
            "the SquashFS writer gave an unknown answer",
        )
        .cause(e.to_string())
    })?;
    Ok((squashed, outcome.max_rss_bytes))
}

fn named(codec: &str) -> Codec {
    match codec {
        "gzip" => Codec::Gzip,
        "xz" => Codec::Xz,
        "lz4" => Codec::Lz4,
        _ => Codec::Zstd,
    }
}

fn write_call(mut call: Call) -> Result<Value, CallError> {
    let request: Write = serde_json::from_value(call.payload.clone()).map_err(|e| {
        CallError::new(
            ErrorKind::Internal,
            "the SquashFS writer got a payload of the wrong shape",
        )
        .because(e)
    })?;
    let fd = call.fds.pop().ok_or_else(|| {
        CallError::new(
            ErrorKind::Internal,
            "the SquashFS writer got no file to write to",
        )
    })?;
    let tree = scan(request.epoch)?;
    for lost in tree.skipped() {
        call.emit(json!(format!(
            "{}: SquashFS has no room for the attribute {}",
            String::from_utf8_lossy(&lost.path),
            String::from_utf8_lossy(&lost.attribute)
        )));
    }
    let options = Options {
        level: request.level,
        block_size: request.block_size,
        threads: request.threads,
        mtime: request.epoch,
        ..Options::new(named(&request.codec))
    };
    let emitter = call.emitter.clone();
    let progress = |done: u64, total: u64| emitter.emit(json!([done, total]));
    let mut disk = File::from(fd);
    disk.seek(SeekFrom::Start(request.offset)).map_err(|e| {
        CallError::new(ErrorKind::Step, "finding the partition in the disk image").because(e)
    })?;
    let summary = squashfs::write(&tree, disk, &options, &progress).map_err(failed)?;
    Ok(json!(Squashed {
        bytes: summary.padded_bytes,
        inodes: summary.inodes,
        content_bytes: summary.content_bytes,
        blocks: summary.blocks,
    }))
}

fn scan(epoch: i64) -> Result<Tree, CallError> {
    let exclude = EXCLUDED
        .iter()
        .map(Pattern::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let options = ScanOptions {
        exclude,
        clamp_mtime: Some(epoch),
        ..ScanOptions::default()
    };
    Tree::scan(Path::new("/"), &options).map_err(failed)
}

fn failed(error: kiln_image::Error) -> CallError {
    use kiln_image::ErrorKind as Image;
    let kind = match error.kind() {
        Image::Input => ErrorKind::Input,
        Image::Environment => ErrorKind::Environment,
        Image::Step | Image::Cancelled => ErrorKind::Step,
        Image::Internal => ErrorKind::Internal,
    };
    let made = CallError::new(kind, error.to_string());
    let made = match error.hint() {
        Some(hint) => made.hint(hint),
        None => made,
    };
    match std::error::Error::source(&error) {
        Some(cause) => made.cause(cause.to_string()),
        None => made,
    }
}
