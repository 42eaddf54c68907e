//! The SquashFS: written by Kiln's own code inside the user namespace, straight into its partition.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_image::squashfs::BlockKey;
use kiln_plan::{Compression, Id};
use kiln_rootfs::{Extras, Layer, Place, Quiet, Reporter, Store};
use kiln_sandbox::{Call, CancelToken, Root, Silence, Stream};
use serde_json::{Value, json};

use crate::image::follow::Follow;
use crate::image::inside::{
    Answer, FindMissing, FindStored, ForBlocks, ForImage, ForList, Prepare, Said, WhereStored,
    Write, WriteImage, codec,
};
use crate::io::write_failure;
use crate::shared::{Located, Runs, Shared, keys};
use crate::steps::Steps;
use crate::trust::known::{self, Known, Opened};
use crate::values::Squashed;
use crate::{Failure, FailureKind};

/// Where an image's layers and what is known of them are.
pub(crate) struct Sources<'a> {
    pub(crate) store: &'a Store,
    /// The whole stack, the lowest first.
    pub(crate) layers: &'a [Layer],
    /// Patterns of paths that the distribution leaves out.
    pub(crate) excluded: &'a [&'a str],
    /// Blocks that this build compressed ahead.
    pub(crate) prepared: u64,
    /// Where other machines' blocks are.
    pub(crate) shared: Option<(&'a Shared, &'a Steps<'a>)>,
}

/// How it went.
pub(crate) enum Written {
    /// The image is there.
    Done(Box<Done>),
    /// A layer was damaged and is gone now, with those above it.
    Evicted(Box<Failure>),
}

/// A finished image.
pub(crate) struct Done {
    pub(crate) squashed: Squashed,
    /// Blocks that were compressed.
    pub(crate) new: u64,
    /// Memory at most, in bytes.
    pub(crate) peak: u64,
    /// Tells where the block store has its blocks, for who shares it.
    pub(crate) locate: Option<Locate>,
}

/// Writes the root at `place` to `disk` from byte `offset` on. `follow` is told how far it has got, but not that it is there.
pub(crate) fn write(
    place: &Place<'_>,
    sources: &Sources<'_>,
    (disk, offset): (&File, u64),
    compression: &Compression,
    threads: usize,
    follow: &Follow,
) -> Result<Written, Failure> {
    let (known, opened) = Known::gather(
        place,
        sources.store,
        sources.layers,
        compression.block_size,
        threads,
    )?;
    warn_about(place.reporter, known.trouble.as_deref());
    let write = request(compression, sources.excluded, offset, place.epoch, threads);
    let shared = Blocks::new(sources, &write, &opened);
    if let (Some(shared), Some(store)) = (&shared, &opened.blocks) {
        shared.pull(place, &FindMissing(write.clone()), &opened, store);
    }
    let failed = |e| write_failure(Path::new("disk.raw"), &e);
    let sharing = shared.as_ref().filter(|shared| shared.shared.is_writable());
    let locate = sharing.map(|_| Locate::new(place, sources, &write, &opened));
    let locate = locate.transpose().map_err(failed)?;
    let disk = disk.try_clone();
    let handed = ForImage {
        disk: disk.map_err(failed)?,
        manifests: opened.manifests,
        blocks: opened.blocks,
    };
    let mut hear = |said| match said {
        Said::Line(line) => place.reporter.line(Stream::Stdout, &line),
        Said::Progress(done, total) => place.reporter.progress(done, Some(total), None),
        Said::Length(length) => follow.expect(length),
        Said::Final(written) => follow.reach(written),
    };
    // The root's own /proc and /sys go into the image, not the owners and modes of what is mounted there.
    let extras = Extras::bare();
    let (answer, outcome) = place.call_and_hear(&WriteImage(write), handed, extras, &mut hear)?;
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
            warn_of_damage(place.reporter, damaged_blocks);
            warn_about(place.reporter, trouble.as_deref());
            known.tidy(packs);
            Ok(Written::Done(Box::new(Done {
                squashed,
                new,
                peak: outcome.max_rss_bytes,
                locate,
            })))
        }
        Answer::Damaged { message, layer } => evict(&known, message, layer),
    }
}

pub(super) fn request(
    compression: &Compression,
    excluded: &[&str],
    offset: u64,
    epoch: i64,
    threads: usize,
) -> Write {
    let wanted = compression.codec;
    let level = compression
        .level
        .and_then(|l| i32::try_from(l).ok())
        .unwrap_or_else(|| codec(wanted).default_level());
    Write {
        offset,
        codec: wanted,
        level,
        block_size: compression.block_size,
        threads,
        epoch,
        excluded: excluded.iter().map(|&p| p.to_owned()).collect(),
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
    fn new(sources: &Sources<'a>, write: &Write, opened: &Opened) -> Option<Self> {
        let (shared, steps) = sources.shared?;
        // Without digests of all files a block's name costs as much as the block.
        (opened.blocks.is_some() && !opened.manifests.is_empty()).then(|| Blocks {
            shared,
            steps,
            directory: sources.store.root().join(known::BLOCKS),
            encoder: json!([write.codec, write.level, write.block_size]),
            layers: sources.layers.iter().map(|layer| layer.info.id).collect(),
        })
    }

    /// What cannot be had is compressed here.
    fn pull(&self, place: &Place<'_>, write: &FindMissing, opened: &Opened, store: &OwnedFd) {
        let Ok(missing) = missing(place, write, opened) else {
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

/// The question where the block store has the blocks of an image that was written.
pub(crate) struct Locate {
    layers: Vec<Layer>,
    epoch: i64,
    request: Write,
    opened: Opened,
    store: Store,
    cancel: CancelToken,
}

impl Locate {
    fn new(
        place: &Place<'_>,
        sources: &Sources<'_>,
        request: &Write,
        opened: &Opened,
    ) -> std::io::Result<Self> {
        Ok(Locate {
            layers: sources.layers.to_vec(),
            epoch: place.epoch,
            request: request.clone(),
            opened: opened.try_clone()?,
            store: sources.store.clone(),
            cancel: place.cancel.clone(),
        })
    }

    /// Where they are; none where the store does not have them all any more.
    pub(crate) fn find(self) -> Option<Located> {
        let place = Place {
            sandbox: self.store.sandbox(),
            root: Root::Layers {
                lower: self.layers.iter().rev().map(|l| l.fs.clone()).collect(),
            },
            epoch: self.epoch,
            reporter: &Quiet,
            cancel: &self.cancel,
            tracer: None,
        };
        let (answer, list) = listed(&place, &FindStored(self.request), &self.opened).ok()?;
        let WhereStored { data, packs } = answer?;
        let runs = Runs::read(&list).ok()?;
        Some(Located { data, packs, runs })
    }
}

/// Blocks of the image that the store does not have.
fn missing(
    place: &Place<'_>,
    write: &FindMissing,
    opened: &Opened,
) -> Result<HashSet<BlockKey>, Failure> {
    listed(place, write, opened).map(|((), list)| keys(&list))
}

/// Asks for something that has a list for an answer.
fn listed<C: Call<Handed = ForList, Message = Silence>>(
    place: &Place<'_>,
    question: &C,
    opened: &Opened,
) -> Result<(C::Answer, Vec<u8>), Failure> {
    let failed = |e: std::io::Error| write_failure(Path::new("disk.raw"), &e);
    let memory = rustix::fs::memfd_create("kiln-list", rustix::fs::MemfdFlags::CLOEXEC);
    let list = File::from(memory.map_err(|e| failed(e.into()))?);
    let Opened { manifests, blocks } = opened.try_clone().map_err(failed)?;
    let handed = ForList {
        list: list.try_clone().map_err(failed)?,
        manifests,
        blocks,
    };
    let answer = place.call(question, handed, Extras::bare())?;
    let mut bytes = Vec::new();
    (&list).rewind().map_err(failed)?;
    (&list).read_to_end(&mut bytes).map_err(failed)?;
    Ok((answer, bytes))
}

/// Compresses blocks of the one layer that is the root at `place`, for the image to come, until the other end of `stop` is closed.
/// What the image leaves out has none. Returns their number.
pub(crate) fn prepare(
    place: &Place<'_>,
    manifest: File,
    blocks: OwnedFd,
    stop: OwnedFd,
    compression: &Compression,
    excluded: &[&str],
) -> Result<u64, Failure> {
    let prepare = Prepare(request(compression, excluded, 0, 0, 1));
    let handed = ForBlocks {
        stop,
        manifests: vec![manifest.into()],
        blocks: Some(blocks),
    };
    Ok(place.call(&prepare, handed, Extras::bare())?)
}

fn warn_of_damage(reporter: &dyn Reporter, blocks: u64) {
    if blocks > 0 {
        reporter.warn(
            format!("{blocks} compressed blocks in the cache were damaged; they were made again"),
            None,
            Some("check the disk that holds the cache".to_owned()),
        );
    }
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
