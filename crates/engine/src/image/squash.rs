//! The SquashFS: written by Kiln's own code inside the user namespace, straight into its partition.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_image::blocks::{Outcome, PackStore};
use kiln_image::squashfs::{self, BlockKey, BlockStore, Codec, Options, Summary};
use kiln_image::tree::{InodeId, Kind, Manifest, Pattern, ScanOptions, Tree, Xattr, provider};
use kiln_plan::{Codec as PlanCodec, Compression, Id};
use kiln_rootfs::selinux::{FileType, Labels};
use kiln_rootfs::{Extras, Layer, Place, Reporter, Store};
use kiln_sandbox::{Call, CallError, ErrorKind, Function, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::image::ahead::is_closed;
use crate::io::write_failure;
use crate::shared::{Shared, keys, put_keys};
use crate::steps::Steps;
use crate::trust::known::{self, Known};
use crate::values::{Lost, Squashed};
use crate::{Failure, FailureKind};

const WRITE: &str = "build.squashfs";
/// Says which blocks would have to be compressed.
const MISSING: &str = "build.missing-blocks";

/// Compresses blocks ahead of the image.
const PREPARE: &str = "build.prepare-blocks";

/// Functions of this crate for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[(&str, Function)] = &[
    (WRITE, write_call),
    (MISSING, missing_call),
    (PREPARE, prepare_call),
    known::FUNCTION,
    crate::trust::guard::FUNCTION,
    crate::shared::FUNCTIONS[0],
];

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
    /// How many of the files after the image are layers' manifests, the top one first.
    manifests: usize,
    /// Whether the block store is the last of the files.
    blocks: bool,
}

/// What the child answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// The image is there.
    Written {
        squashed: Squashed,
        /// Blocks that had to be compressed.
        new: u64,
        /// Packs of the block store.
        packs: usize,
        /// Names of those that have the image's blocks.
        used: Vec<String>,
        /// Blocks of the store that were not what they should be.
        damaged_blocks: u64,
        /// Why not everything was stored.
        trouble: Option<String>,
    },
    /// A layer's file is not what was recorded.
    Damaged {
        message: String,
        /// The layer, counted from the top one.
        layer: Option<usize>,
    },
}

/// Where an image's layers and what is known of them are.
pub(crate) struct Sources<'a> {
    pub(crate) store: &'a Store,
    /// The whole stack, the lowest first.
    pub(crate) layers: &'a [Layer],
    /// Blocks that this build compressed ahead.
    pub(crate) prepared: u64,
    /// Where other machines' blocks are.
    pub(crate) shared: Option<(&'a Shared, &'a Steps<'a>)>,
}

/// How it went.
pub(crate) enum Written {
    /// The image is there: its figures, how many blocks were compressed, and the peak memory in bytes.
    Done(Squashed, u64, u64),
    /// A layer was damaged and is gone now, with those above it.
    Evicted(Box<Failure>),
}

/// systemd-tmpfiles gives these their access control lists anew at every boot.
const MADE_AT_BOOT: &str = "var/log/journal";

/// What of a root SquashFS cannot hold.
fn lost(tree: &Tree) -> Vec<Lost> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let skipped = tree.skipped().iter();
    let counts = skipped.filter(|one| !one.path.starts_with(MADE_AT_BOOT.as_bytes()));
    let named = counts.map(|one| Lost {
        path: format!("/{}", text(&one.path)),
        attribute: text(&one.attribute),
    });
    named.collect()
}

/// Writes the root at `place` to `disk` from byte `offset` on.
pub(crate) fn write(
    place: &Place<'_>,
    sources: &Sources<'_>,
    disk: &File,
    offset: u64,
    compression: &Compression,
    threads: usize,
) -> Result<Written, Failure> {
    let (known, handed) = Known::gather(
        place,
        sources.store,
        sources.layers,
        compression.block_size,
        threads,
    )?;
    warn_about(place.reporter, known.trouble.as_deref());
    let mut write = request(compression, offset, place.epoch, threads);
    write.manifests = known.manifests;
    write.blocks = known.has_blocks();
    let shared = Blocks::new(sources, &write);
    if let (Some(shared), Some(store)) = (&shared, handed.last().filter(|_| write.blocks)) {
        shared.pull(place, &write, &handed, store);
    }
    let fd: OwnedFd = disk
        .try_clone()
        .map_err(|e| write_failure(Path::new("disk.raw"), &e))?
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
        fds: std::iter::once(fd).chain(handed).collect(),
        // The root's own /proc and /sys go into the image, not the owners and modes of what is mounted there.
        bare: true,
        ..Extras::default()
    };
    let (value, outcome) = place.call(WRITE, json!(write), extras, &mut message)?;
    let answer = serde_json::from_value(value).map_err(|e| {
        Failure::new(
            FailureKind::Internal,
            "the SquashFS writer gave an unknown answer",
        )
        .cause(e.to_string())
    })?;
    match answer {
        Answer::Written {
            squashed,
            new,
            packs,
            used,
            damaged_blocks,
            trouble,
        } => {
            let new = new + sources.prepared;
            if let Some(shared) = &shared {
                shared.push(used, (new, squashed.blocks));
            }
            if damaged_blocks > 0 {
                place.reporter.warn(
                    format!("{damaged_blocks} compressed blocks in the cache were damaged; they were made again"),
                    None,
                    Some("check the disk that holds the cache".to_owned()),
                );
            }
            warn_about(place.reporter, trouble.as_deref());
            known.tidy(packs);
            Ok(Written::Done(squashed, new, outcome.max_rss_bytes))
        }
        Answer::Damaged { message, layer } => evict(&known, message, layer),
    }
}

fn request(compression: &Compression, offset: u64, epoch: i64, threads: usize) -> Write {
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
    Write {
        offset,
        codec: codec.to_owned(),
        level,
        block_size: compression.block_size,
        threads,
        epoch,
        manifests: 0,
        blocks: false,
    }
}

/// Blocks that go between machines, for one image.
struct Blocks<'a> {
    shared: &'a Shared,
    steps: &'a Steps<'a>,
    directory: PathBuf,
    /// What decides how blocks are compressed.
    encoder: Value,
    /// The stack, the lowest first.
    layers: Vec<Id>,
}

impl<'a> Blocks<'a> {
    fn new(sources: &Sources<'a>, write: &Write) -> Option<Self> {
        let (shared, steps) = sources.shared?;
        // Without digests of all files a block's name costs as much as the block.
        (write.blocks && write.manifests > 0).then(|| Blocks {
            shared,
            steps,
            directory: sources.store.root().join(known::BLOCKS),
            encoder: json!([write.codec, write.level, write.block_size]),
            layers: sources.layers.iter().map(|layer| layer.info.id).collect(),
        })
    }

    /// What cannot be had is compressed here.
    fn pull(&self, place: &Place<'_>, write: &Write, handed: &[OwnedFd], store: &OwnedFd) {
        let Ok(missing) = missing(place, write, handed) else {
            return;
        };
        let (encoder, layers) = (&self.encoder, &self.layers);
        let shared = self.shared;
        let adopted = shared.pull_blocks(self.steps, place, store, encoder, layers, &missing);
        if adopted > 0 {
            let line = format!("{adopted} compressed blocks came from the shared cache");
            place.reporter.line(Stream::Stdout, &line);
        }
    }

    fn push(&self, used: Vec<String>, counts: (u64, u64)) {
        let directory = self.directory.clone();
        let (encoder, layers) = (&self.encoder, &self.layers);
        self.shared
            .push_blocks(directory, used, encoder, layers, counts);
    }
}

/// Blocks of the image that the store does not have.
fn missing(
    place: &Place<'_>,
    write: &Write,
    handed: &[OwnedFd],
) -> Result<HashSet<BlockKey>, Failure> {
    let failed = |e: std::io::Error| write_failure(Path::new("disk.raw"), &e);
    let memory = rustix::fs::memfd_create("kiln-keys", rustix::fs::MemfdFlags::CLOEXEC);
    let answer = File::from(memory.map_err(|e| failed(e.into()))?);
    let mut fds = vec![OwnedFd::from(answer.try_clone().map_err(failed)?)];
    for fd in handed {
        fds.push(fd.try_clone().map_err(failed)?);
    }
    let extras = Extras {
        fds,
        bare: true,
        ..Extras::default()
    };
    place.call(MISSING, json!(write), extras, &mut |_| {})?;
    let mut bytes = Vec::new();
    (&answer).rewind().map_err(failed)?;
    (&answer).read_to_end(&mut bytes).map_err(failed)?;
    Ok(keys(&bytes))
}

fn missing_call(mut call: Call) -> Result<Value, CallError> {
    let (request, answer, layers, blocks) = unpack(&mut call)?;
    let tree = tree(&layers, request.epoch)?;
    let packs = open_packs(blocks)?;
    let keys = squashfs::missing(&tree, &options(&request, packs.as_ref())).map_err(failed)?;
    put_keys(&keys, File::from(answer)).map_err(|e| {
        CallError::new(ErrorKind::Step, "saying which blocks are missing").because(e)
    })?;
    Ok(Value::Null)
}

/// Compresses blocks of the one layer that is the root at `place`, for the image to come, until the other end of `stop` is closed.
/// Gives their number.
pub(crate) fn prepare(
    place: &Place<'_>,
    manifest: File,
    blocks: OwnedFd,
    stop: OwnedFd,
    compression: &Compression,
) -> Result<u64, Failure> {
    let mut write = request(compression, 0, 0, 1);
    write.manifests = 1;
    write.blocks = true;
    let extras = Extras {
        fds: vec![stop, manifest.into(), blocks],
        bare: true,
        ..Extras::default()
    };
    let (value, _) = place.call(PREPARE, json!(write), extras, &mut |_| {})?;
    Ok(value.as_u64().unwrap_or(0))
}

fn prepare_call(mut call: Call) -> Result<Value, CallError> {
    // What is left of the processors by the steps that the build waits for.
    let _ = rustix::process::nice(19);
    let (request, stop, layers, blocks) = unpack(&mut call)?;
    let roots = [PathBuf::from("/")];
    let stacked = Tree::stack(&layers, &roots, &scan_options(request.epoch)?).map_err(failed)?;
    // A layer that its manifest does not describe is left to the image.
    let (Some(tree), Some(packs)) = (stacked, open_packs(blocks)?) else {
        return Ok(json!(0));
    };
    let go_on = || !is_closed(&stop);
    let done = squashfs::prepare(&tree, &options(&request, Some(&packs)), &go_on).map_err(failed);
    packs.finish();
    Ok(json!(done?))
}

fn warn_about(reporter: &dyn Reporter, trouble: Option<&str>) {
    if let Some(trouble) = trouble {
        reporter.warn(
            format!("compressed blocks are not kept for the next image: {trouble}"),
            None,
            Some("the image is complete; `kiln cache gc` makes room".to_owned()),
        );
    }
}

fn evict(known: &Known<'_>, message: String, layer: Option<usize>) -> Result<Written, Failure> {
    let failure = Failure::new(FailureKind::Step, message);
    let Some(layer) = layer else {
        return Err(failure);
    };
    known.evict(layer)?;
    let title = known.title(layer);
    Ok(Written::Evicted(Box::new(
        failure.cause(known::again(title)),
    )))
}

fn named(codec: &str) -> Codec {
    match codec {
        "gzip" => Codec::Gzip,
        "xz" => Codec::Xz,
        "lz4" => Codec::Lz4,
        _ => Codec::Zstd,
    }
}

type Unpacked = (Write, OwnedFd, Vec<Manifest>, Option<OwnedFd>);

/// The request, the file that receives the result, the layers' manifests and the block store.
fn unpack(call: &mut Call) -> Result<Unpacked, CallError> {
    let request: Write = serde_json::from_value(call.payload.clone()).map_err(|e| {
        CallError::new(
            ErrorKind::Internal,
            "the SquashFS writer got a payload of the wrong shape",
        )
        .because(e)
    })?;
    let mut handed = std::mem::take(&mut call.fds);
    let blocks = request.blocks.then(|| handed.pop()).flatten();
    let mut handed = handed.into_iter();
    let result = handed.next().ok_or_else(|| {
        CallError::new(
            ErrorKind::Internal,
            "the SquashFS writer got no file to write to",
        )
    })?;
    let layers = known::load(handed.take(request.manifests).collect())?;
    Ok((request, result, layers, blocks))
}

fn open_packs(blocks: Option<OwnedFd>) -> Result<Option<Arc<PackStore>>, CallError> {
    blocks
        .map(|directory| PackStore::open(directory).map(Arc::new).map_err(failed))
        .transpose()
}

fn options(request: &Write, packs: Option<&Arc<PackStore>>) -> Options {
    Options {
        level: request.level,
        block_size: request.block_size,
        threads: request.threads,
        mtime: request.epoch,
        block_store: packs.map(|packs| Arc::clone(packs) as Arc<dyn BlockStore>),
        ..Options::new(named(&request.codec))
    }
}

fn write_call(mut call: Call) -> Result<Value, CallError> {
    // The initramfs, made at the same time by one process after the other, decides when both are done.
    let _ = rustix::process::nice(10);
    let (request, disk, layers, blocks) = unpack(&mut call)?;
    let mut tree = tree(&layers, request.epoch)?;
    label(&mut tree, &call)?;
    let (result, outcome) = write_tree(&call, &request, &tree, disk, blocks)?;
    match result {
        Ok(summary) => Ok(json!(Answer::written(&summary, outcome, lost(&tree)))),
        Err(error) => match error.damaged_path() {
            Some(path) => Ok(json!(Answer::Damaged {
                message: format!("/{error}"),
                layer: provider(&layers, path),
            })),
            None => Err(failed(error)),
        },
    }
}

fn write_tree(
    call: &Call,
    request: &Write,
    tree: &Tree,
    disk: OwnedFd,
    blocks: Option<OwnedFd>,
) -> Result<(kiln_image::Result<Summary>, Outcome), CallError> {
    let packs = open_packs(blocks)?;
    let options = options(request, packs.as_ref());
    let emitter = call.emitter.clone();
    let progress = |done: u64, total: u64| emitter.emit(json!([done, total]));
    let mut disk = File::from(disk);
    disk.seek(SeekFrom::Start(request.offset)).map_err(|e| {
        CallError::new(ErrorKind::Step, "finding the partition in the disk image").because(e)
    })?;
    let result = squashfs::write(tree, disk, &options, &progress);
    // Also after a failure: what was compressed need not be compressed again.
    let outcome = packs.map_or_else(Outcome::default, |packs| packs.finish());
    Ok((result, outcome))
}

impl Answer {
    fn written(summary: &Summary, outcome: Outcome, lost: Vec<Lost>) -> Self {
        Answer::Written {
            squashed: Squashed {
                bytes: summary.padded_bytes,
                inodes: summary.inodes,
                content_bytes: summary.content_bytes,
                blocks: summary.blocks,
                lost,
            },
            new: (summary.blocks + u64::from(summary.fragments))
                .saturating_sub(summary.reused_blocks),
            packs: outcome.packs,
            used: outcome.used,
            damaged_blocks: outcome.damaged,
            trouble: outcome.trouble,
        }
    }
}

/// The root's tree: from the layers' manifests, or, where they do not tell all, by walking it.
fn tree(layers: &[Manifest], epoch: i64) -> Result<Tree, CallError> {
    let options = scan_options(epoch)?;
    // Files are opened through the overlay, which shows the topmost of each name.
    let roots = vec![PathBuf::from("/"); layers.len()];
    let stacked = Tree::stack(layers, &roots, &options).map_err(failed)?;
    stacked.map_or_else(|| Tree::scan(Path::new("/"), &options).map_err(failed), Ok)
}

fn scan_options(epoch: i64) -> Result<ScanOptions, CallError> {
    let exclude = EXCLUDED
        .iter()
        .map(Pattern::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    Ok(ScanOptions {
        exclude,
        clamp_mtime: Some(epoch),
        ..ScanOptions::default()
    })
}

/// Gives every file the label of the root's own SELinux policy, where it has one. The tree has the labels alone: the host
/// would not let an unprivileged build set them.
fn label(tree: &mut Tree, call: &Call) -> Result<(), CallError> {
    let labels = Labels::of_root(Path::new("/")).map_err(|e| {
        CallError::new(ErrorKind::Step, "reading the root's SELinux policy").because(e)
    })?;
    let Some(labels) = labels else {
        return Ok(());
    };
    let mut found: BTreeMap<InodeId, Xattr> = BTreeMap::new();
    for entry in tree.walk() {
        let path = [b"/", entry.path.as_slice()].concat();
        if let Some(context) = labels.of(&path, file_type(&entry.inode.kind)) {
            // Of a hard link's names the first counts. The value ends in a zero, as setfiles(8) writes it.
            let value = [context.as_bytes(), b"\0"].concat();
            let attribute = Xattr::new("security.selinux", value);
            found.entry(entry.id).or_insert(attribute);
        }
    }
    for pattern in labels.unreadable() {
        call.emit(json!(format!(
            "the SELinux policy's line for {pattern} cannot be read, and is left out"
        )));
    }
    call.emit(json!(format!("{} files have SELinux labels", found.len())));
    for (id, attribute) in found {
        let meta = &mut tree.inode_mut(id).meta;
        let kept = meta.xattrs.iter().cloned();
        *meta = meta.clone().with_xattrs(kept.chain([attribute]));
    }
    Ok(())
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::CharDevice(_) => FileType::CharDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
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
