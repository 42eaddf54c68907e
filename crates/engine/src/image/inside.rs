//! What writes the SquashFS inside the sandbox, where the root at `/` has its right owners.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_image::blocks::{Outcome, PackStore};
use kiln_image::squashfs::{self, BlockStore, Codec, Options, Summary, Told};
use kiln_image::tree::{InodeId, Kind, Manifest, Pattern, ScanOptions, Tree, Xattr, provider};
use kiln_plan::Codec as PlanCodec;
use kiln_rootfs::selinux::{FileType, Labels};
use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence, handed};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use crate::counted;
use crate::shared::{Runs, put_keys};
use crate::trust::known;
use crate::values::{Lost, Squashed};

/// What is left out of every image: the contents of places where the running system mounts something.
const EXCLUDED: &[&str] = &["/dev/*", "/proc/*", "/sys/*", "/run/*", "/tmp/*"];

/// How a SquashFS is written.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Write {
    pub(super) offset: u64,
    pub(super) codec: PlanCodec,
    pub(super) level: i32,
    pub(super) block_size: u32,
    pub(super) threads: usize,
    pub(super) epoch: i64,
    /// Initramfs images of the root, which lie on the boot partition and are left out here.
    pub(super) excluded: Vec<String>,
}

/// Writes the image.
#[derive(Serialize, Deserialize)]
pub(crate) struct WriteImage(pub(super) Write);

/// Says which blocks would have to be compressed.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindMissing(pub(super) Write);

/// Compresses blocks ahead of the image.
#[derive(Serialize, Deserialize)]
pub(crate) struct Prepare(pub(super) Write);

handed! {
    pub(crate) struct ForImage {
        disk: File,
        /// Layers' manifests, the top one first.
        manifests: Vec<OwnedFd>,
        /// The block store.
        blocks: Option<OwnedFd>,
    }
}

/// Says where the block store has the blocks of an image that was written.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindStored(pub(super) Write);

/// Where they are.
#[derive(Serialize, Deserialize)]
pub(crate) struct WhereStored {
    /// Where in the image its data begins.
    pub(super) data: u64,
    /// Names of packs.
    pub(super) packs: Vec<String>,
}

handed! {
    pub(crate) struct ForList {
        /// Receives what is listed.
        list: File,
        manifests: Vec<OwnedFd>,
        blocks: Option<OwnedFd>,
    }
}

handed! {
    pub(crate) struct ForBlocks {
        /// A pipe: it is time to stop once its other end is closed.
        stop: OwnedFd,
        manifests: Vec<OwnedFd>,
        blocks: Option<OwnedFd>,
    }
}

/// What is said on the way.
#[derive(Serialize, Deserialize)]
pub(crate) enum Said {
    Line(String),
    /// How much of how much is done.
    Progress(u64, u64),
    /// The length of the image, before it is complete.
    Length(u64),
    /// So many bytes of it will stay as they are.
    Final(u64),
}

/// What the child answers.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
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

impl Call for FindMissing {
    const NAME: &'static str = "build.missing-blocks";
    type Handed = ForList;
    type Message = Silence;
    type Answer = ();

    fn run(self, given: ForList, _: &Say<Silence>) -> Result<(), Error> {
        let tree = tree(&known::load(given.manifests)?, &self.0)?;
        let packs = open_packs(given.blocks)?;
        let keys = squashfs::missing(&tree, &options(&self.0, packs.as_ref())).map_err(failed)?;
        put_keys(&keys, given.list)
            .map_err(|e| Error::new(ErrorKind::Step, "saying which blocks are missing").because(e))
    }
}

impl Call for FindStored {
    const NAME: &'static str = "build.stored-blocks";
    type Handed = ForList;
    type Message = Silence;
    /// None where the store does not have them all.
    type Answer = Option<WhereStored>;

    fn run(self, given: ForList, _: &Say<Silence>) -> Result<Option<WhereStored>, Error> {
        let tree = tree(&known::load(given.manifests)?, &self.0)?;
        let Some(packs) = open_packs(given.blocks)? else {
            return Ok(None);
        };
        let stored = squashfs::stored(&tree, &options(&self.0, Some(&packs)));
        let Some((data, blocks)) = stored.map_err(failed)? else {
            return Ok(None);
        };
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut names = Vec::new();
        let mut runs = Runs::default();
        for block in &blocks {
            let Some((pack, offset)) = packs.place(block) else {
                return Ok(None);
            };
            let number = *numbers.entry(pack).or_insert_with(|| {
                names.push(pack.to_owned());
                names.len() as u32 - 1
            });
            runs.add(number, offset, u64::from(block.length));
        }
        runs.put(given.list)
            .map_err(|e| Error::new(ErrorKind::Step, "saying where blocks are").because(e))?;
        let packs = names;
        Ok(Some(WhereStored { data, packs }))
    }
}

impl Call for Prepare {
    const NAME: &'static str = "build.prepare-blocks";
    type Handed = ForBlocks;
    type Message = Silence;
    type Answer = u64;

    fn run(self, given: ForBlocks, _: &Say<Silence>) -> Result<u64, Error> {
        // What is left of the processors by the steps that the build waits for.
        let _ = rustix::process::nice(19);
        let layers = known::load(given.manifests)?;
        let roots = [PathBuf::from("/")];
        let stacked = Tree::stack(&layers, &roots, &scan_options(&self.0)?).map_err(failed)?;
        // A layer that its manifest does not describe is left to the image.
        let (Some(tree), Some(packs)) = (stacked, open_packs(given.blocks)?) else {
            return Ok(0);
        };
        let go_on = || !is_closed(&given.stop);
        let done = squashfs::prepare(&tree, &options(&self.0, Some(&packs)), &go_on);
        packs.finish();
        done.map_err(failed)
    }
}

/// The codec of the SquashFS crate. One that this program does not know never gets here: its name is no request.
pub(super) fn codec(codec: PlanCodec) -> Codec {
    match codec {
        PlanCodec::Gzip => Codec::Gzip,
        PlanCodec::Zstd => Codec::Zstd,
        PlanCodec::Xz => Codec::Xz,
        PlanCodec::Lz4 => Codec::Lz4,
    }
}

fn open_packs(blocks: Option<OwnedFd>) -> Result<Option<Arc<PackStore>>, Error> {
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
        ..Options::new(codec(request.codec))
    }
}

impl Call for WriteImage {
    const NAME: &'static str = "build.squashfs";
    type Handed = ForImage;
    type Message = Said;
    type Answer = Answer;

    fn run(self, given: ForImage, say: &Say<Said>) -> Result<Answer, Error> {
        // The initramfs, made at the same time by one process after the other, decides when both are done.
        let _ = rustix::process::nice(10);
        let layers = known::load(given.manifests)?;
        let mut tree = tree(&layers, &self.0)?;
        label(&mut tree, say)?;
        let (result, outcome) = write_tree(say, &self.0, &tree, given.disk, given.blocks)?;
        match result {
            Ok(summary) => Ok(Answer::written(&summary, outcome, lost(&tree))),
            Err(error) => match error.damaged_path() {
                Some(path) => Ok(Answer::Damaged {
                    message: format!("/{error}"),
                    layer: provider(&layers, path),
                }),
                None => Err(failed(error)),
            },
        }
    }
}

fn write_tree(
    say: &Say<Said>,
    request: &Write,
    tree: &Tree,
    mut disk: File,
    blocks: Option<OwnedFd>,
) -> Result<(kiln_image::Result<Summary>, Outcome), Error> {
    let packs = open_packs(blocks)?;
    let options = options(request, packs.as_ref());
    let tell = |told: Told| {
        say.say(match told {
            Told::Contents(done, total) => Said::Progress(done, total),
            Told::Length(length) => Said::Length(length),
            Told::Final(bytes) => Said::Final(bytes),
        });
    };
    disk.seek(SeekFrom::Start(request.offset)).map_err(|e| {
        Error::new(ErrorKind::Step, "finding the partition in the disk image").because(e)
    })?;
    let result = squashfs::write_told(tree, disk, &options, &tell);
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
fn tree(layers: &[Manifest], request: &Write) -> Result<Tree, Error> {
    let options = scan_options(request)?;
    // Files are opened through the overlay, which shows the topmost of each name.
    let roots = vec![PathBuf::from("/"); layers.len()];
    let stacked = Tree::stack(layers, &roots, &options).map_err(failed)?;
    stacked.map_or_else(|| Tree::scan(Path::new("/"), &options).map_err(failed), Ok)
}

fn scan_options(request: &Write) -> Result<ScanOptions, Error> {
    let excluded = request.excluded.iter().map(String::as_str);
    let exclude = EXCLUDED
        .iter()
        .copied()
        .chain(excluded)
        .map(Pattern::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    Ok(ScanOptions {
        exclude,
        clamp_mtime: Some(request.epoch),
        ..ScanOptions::default()
    })
}

/// Gives every file the label of the root's own SELinux policy, where it has one. The tree has the labels alone: the host
/// would not let an unprivileged build set them.
fn label(tree: &mut Tree, say: &Say<Said>) -> Result<(), Error> {
    let labels = Labels::of_root(Path::new("/"))
        .map_err(|e| Error::new(ErrorKind::Step, "reading the root's SELinux policy").because(e))?;
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
        say.say(Said::Line(format!(
            "the SELinux policy's line for {pattern} cannot be read, and is left out"
        )));
    }
    let count = counted(found.len(), "file");
    let verb = if found.len() == 1 { "has" } else { "have" };
    say.say(Said::Line(format!("{count} {verb} SELinux labels")));
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

fn failed(error: kiln_image::Error) -> Error {
    use kiln_image::ErrorKind as Image;
    let kind = match error.kind() {
        Image::Input => ErrorKind::Input,
        Image::Environment => ErrorKind::Environment,
        Image::Step | Image::Cancelled => ErrorKind::Step,
        Image::Internal => ErrorKind::Internal,
    };
    let made = Error::new(kind, error.to_string());
    let made = match error.hint() {
        Some(hint) => made.hint(hint),
        None => made,
    };
    match std::error::Error::source(&error) {
        Some(cause) => made.cause(cause.to_string()),
        None => made,
    }
}

/// Whether the other end of a pipe is closed.
pub(crate) fn is_closed(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    !matches!(
        rustix::event::poll(&mut fds, Some(&Timespec::default())),
        Ok(0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the image leaves out was compressed for nothing.
    #[test]
    fn blocks_ahead_are_those_of_the_image() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("boot")).expect("a directory");
        for name in ["boot/initrd.img-6", "boot/vmlinuz-6"] {
            std::fs::write(root.path().join(name), name).expect("a file");
        }
        let compression = kiln_plan::Compression {
            codec: PlanCodec::Zstd,
            level: None,
            block_size: 131_072,
        };
        let excluded = ["/boot/initrd.img-*"];
        let request = crate::image::squash::request(&compression, &excluded, 0, 0, 1);
        let manifest = Manifest::record(root.path(), request.block_size, 1).expect("a manifest");
        let options = scan_options(&request).expect("patterns");
        let roots = [root.path().to_owned()];
        let tree = Tree::stack(&[manifest], &roots, &options).expect("readable");
        let tree = tree.expect("a tree");
        let paths: Vec<Vec<u8>> = tree.walk().map(|entry| entry.path.clone()).collect();
        assert!(paths.contains(&b"boot/vmlinuz-6".to_vec()), "{paths:?}");
        assert!(!paths.contains(&b"boot/initrd.img-6".to_vec()), "{paths:?}");
    }

    #[test]
    fn a_codec_that_nobody_knows_is_an_error() {
        let request = |codec: &str| {
            serde_json::from_value::<WriteImage>(serde_json::json!({
                "offset": 0, "codec": codec, "level": 3, "block_size": 131_072, "threads": 1, "epoch": 0,
                "excluded": [],
            }))
        };
        for (name, known) in [
            ("gzip", Codec::Gzip),
            ("zstd", Codec::Zstd),
            ("xz", Codec::Xz),
        ] {
            assert_eq!(codec(request(name).expect(name).0.codec), known);
        }
        for name in ["zstandard", "lzma", ""] {
            let error = request(name).err().expect("refused").to_string();
            assert!(error.contains("unknown variant"), "{error}");
        }
    }
}
