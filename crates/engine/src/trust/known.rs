//! What is known of layers' files before an image is made of them: content manifests, and compressed blocks.
//!
//! Both lie in the cache, out of reach of the process in the sandbox that writes the image. It gets opened files: the manifest
//! of each layer, the top one first, and the block store's directory, which belongs to the namespace's root. A manifest is made
//! by another process in the sandbox that has the layer as its root, so that it sees the owners that the image will have.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kiln_image::blocks;
use kiln_image::tree::Manifest;
use kiln_rootfs::{Extras, Layer, Place, Store};
use kiln_sandbox::{Call, Error, ErrorKind, Root, Say, Silence, handed};
use rustix::fs::{CWD, MemfdFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::io::write_whole;
use crate::{Failure, FailureKind};

/// Layers whose files can be handed over; the sandbox takes 200, and a few are for other things.
const MOST: usize = 190;
/// The block store's directory in the cache.
pub(crate) const BLOCKS: &str = "blocks";
/// Packs from which on small ones are put together after an image.
const MANY_PACKS: usize = 96;

/// What the parent has at hand.
pub(crate) struct Known<'a> {
    store: &'a Store,
    /// The top one first.
    layers: Vec<&'a Layer>,
    blocks: Option<OwnedFd>,
    /// Why there is no block store.
    pub(crate) trouble: Option<String>,
}

/// What of it the sandbox gets.
pub(crate) struct Opened {
    /// Layers' manifests, the top one first: all or none.
    pub(crate) manifests: Vec<OwnedFd>,
    /// The block store.
    pub(crate) blocks: Option<OwnedFd>,
}

impl Opened {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let manifests = self.manifests.iter().map(OwnedFd::try_clone);
        Ok(Opened {
            manifests: manifests.collect::<io::Result<_>>()?,
            blocks: self.blocks.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }
}

impl<'a> Known<'a> {
    /// Opens everything, and records layers that are not recorded yet. `layers` is the whole stack, the lowest first.
    pub(crate) fn gather(
        place: &Place<'_>,
        store: &'a Store,
        layers: &'a [Layer],
        block_size: u32,
        threads: usize,
    ) -> Result<(Self, Opened), Failure> {
        let mut known = Known {
            store,
            layers: layers.iter().rev().collect(),
            blocks: None,
            trouble: None,
        };
        let mut opened = Opened {
            manifests: Vec::new(),
            blocks: None,
        };
        if layers.len() <= MOST {
            for layer in &known.layers {
                let manifest = ensure_recorded(place, layer, block_size, threads)?;
                opened.manifests.push(manifest.into());
            }
        }
        match open_blocks(store) {
            Ok((directory, copy)) => {
                opened.blocks = Some(copy);
                known.blocks = Some(directory);
            }
            Err(error) => known.trouble = Some(error.to_string()),
        }
        Ok((known, opened))
    }

    /// Puts small packs together when there are many.
    pub(crate) fn tidy(&self, packs: usize) {
        if let Some(directory) = self.blocks.as_ref().filter(|_| packs > MANY_PACKS) {
            // It costs time only when it fails.
            let _ = blocks::collect(directory, &blocks::Limits::default());
        }
    }

    /// Takes a damaged layer out of the store, and those above it: they were made on top of it.
    pub(crate) fn evict(&self, damaged: usize) -> kiln_rootfs::Result<()> {
        evict(self.store, self.layers.iter().take(damaged + 1).copied())
    }

    /// What a layer is called.
    pub(crate) fn title(&self, layer: usize) -> &str {
        self.layers.get(layer).map_or("", |l| &l.info.title)
    }
}

fn manifest_path(layer: &Layer, block_size: u32) -> Option<PathBuf> {
    Some(layer.fs.parent()?.join(format!("content-{block_size}")))
}

/// A layer's manifest, if it is whole.
fn recorded(layer: &Layer, block_size: u32) -> Option<File> {
    let file = File::open(manifest_path(layer, block_size)?).ok()?;
    let bytes = contents(&file).ok()?;
    Manifest::is_whole(&bytes, block_size).then_some(file)
}

/// A layer's manifest, made now if there is none.
pub(crate) fn ensure_recorded(
    place: &Place<'_>,
    layer: &Layer,
    block_size: u32,
    threads: usize,
) -> Result<File, Failure> {
    match recorded(layer, block_size) {
        Some(file) => Ok(file),
        None => record(place, layer, block_size, threads),
    }
}

fn evict<'l>(
    store: &Store,
    mut layers: impl Iterator<Item = &'l Layer>,
) -> kiln_rootfs::Result<()> {
    layers.try_for_each(|layer| store.remove(layer.info.id))
}

/// What happens with a damaged layer.
pub(crate) fn again(title: &str) -> String {
    format!("the stored layer `{title}` is damaged; it and those above it are made again")
}

pub(crate) fn panicked() -> Failure {
    Failure::new(FailureKind::Internal, "comparing layers panicked")
}

/// Paths of a layer, without a leading slash, that are not what its manifest says. None where it has none.
pub(crate) fn differences(
    place: &Place<'_>,
    layer: &Layer,
    threads: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    let Some((block_size, earlier)) = any_manifest(layer) else {
        return Ok(Vec::new());
    };
    let now = contents(&look(place, layer, block_size, threads)?)
        .map_err(|error| unrecorded(layer, &error))?;
    let now = Manifest::decode(&now)
        .ok_or_else(|| unrecorded(layer, &io::ErrorKind::InvalidData.into()))?;
    Ok(now.differences(&earlier))
}

/// A layer's manifest for whatever block size.
pub(crate) fn any_manifest(layer: &Layer) -> Option<(u32, Manifest)> {
    let names = fs::read_dir(layer.fs.parent()?).ok()?.flatten();
    let mut sizes = names.filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("content-")?.parse::<u32>().ok()
    });
    sizes.find_map(|size| {
        let bytes = contents(&recorded(layer, size)?).ok()?;
        Some((size, Manifest::decode(&bytes)?))
    })
}

/// Makes a layer's manifest and puts it beside the layer.
fn record(
    place: &Place<'_>,
    layer: &Layer,
    block_size: u32,
    threads: usize,
) -> Result<File, Failure> {
    let file = look(place, layer, block_size, threads)?;
    let bytes = contents(&file).map_err(|error| unrecorded(layer, &error))?;
    if !Manifest::is_whole(&bytes, block_size) {
        return Err(unrecorded(layer, &io::ErrorKind::UnexpectedEof.into()));
    }
    // One that is lost is only made again.
    let _ = put(layer, block_size, &bytes);
    Ok(file)
}

fn unrecorded(layer: &Layer, error: &io::Error) -> Failure {
    let message = format!("recording what the layer `{}` holds", layer.info.title);
    Failure::new(FailureKind::Environment, message).cause(error.to_string())
}

/// Makes a layer's manifest.
fn look(
    place: &Place<'_>,
    layer: &Layer,
    block_size: u32,
    threads: usize,
) -> Result<File, Failure> {
    let failed = |error: io::Error| unrecorded(layer, &error);
    let memory = rustix::fs::memfd_create("kiln-manifest", MemfdFlags::CLOEXEC);
    let file = File::from(memory.map_err(|error| failed(error.into()))?);
    let inside = Place {
        root: Root::Dir {
            path: layer.fs.clone(),
            writable: false,
        },
        ..place.with_reporter(place.reporter)
    };
    let recorded = Recorded {
        manifest: file.try_clone().map_err(failed)?,
    };
    let record = Record {
        block_size,
        threads,
    };
    inside.call(&record, recorded, Extras::bare())?;
    Ok(file)
}

handed! {
    /// What is made of a layer.
    pub(crate) struct Recorded {
        manifest: File,
    }
}

/// Makes the manifest of the layer that is the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    block_size: u32,
    threads: usize,
}

impl Call for Record {
    const NAME: &'static str = "build.record";
    type Handed = Recorded;
    type Message = Silence;
    type Answer = ();

    fn run(self, mut recorded: Recorded, _: &Say<Silence>) -> Result<(), Error> {
        let doing = || Error::new(ErrorKind::Step, "recording what a layer holds");
        if self.threads == 1 {
            // Beside the next layer, which goes first.
            let _ = rustix::process::nice(10);
        }
        let manifest = Manifest::record(Path::new("/"), self.block_size, self.threads)
            .map_err(|error| doing().because(error))?;
        let written = recorded.manifest.write_all(&manifest.encode());
        written.map_err(|error| doing().because(error))
    }
}

fn put(layer: &Layer, block_size: u32, manifest: &[u8]) -> io::Result<()> {
    let path = manifest_path(layer, block_size).ok_or(io::ErrorKind::NotFound)?;
    write_whole(&path, manifest)
}

fn contents(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The directory of the block store; made by one rename, because it has to have its owner from the start. Until then it is one
/// whose lock this build holds, so that nobody takes it for what a killed build left.
pub(crate) fn open_blocks(store: &Store) -> io::Result<(OwnedFd, OwnedFd)> {
    let path = store.root().join(BLOCKS);
    if !path.is_dir() {
        let staging = store.stage();
        let staging = staging.map_err(|error| io::Error::other(error.to_string()))?;
        take_place(&staging.fs(), &path)?;
    }
    let directory = OwnedFd::from(File::open(&path)?);
    blocks::reclaim(&directory).map_err(|error| io::Error::other(error.to_string()))?;
    let copy = directory.try_clone()?;
    Ok((directory, copy))
}

/// Moves a directory to its place, unless another build was faster. A plain rename would put it in the place of an empty one, in
/// which that build already writes.
fn take_place(private: &Path, path: &Path) -> io::Result<()> {
    let moved = renameat_with(CWD, private, CWD, path, RenameFlags::NOREPLACE);
    let moved = match moved {
        // A file system without this kind of rename.
        Err(Errno::INVAL) => fs::rename(private, path),
        moved => moved.map_err(io::Error::from),
    };
    match moved {
        Err(error) if !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// In the child: all manifests.
pub(crate) fn load(files: Vec<OwnedFd>) -> Result<Vec<Manifest>, Error> {
    let damaged = || Error::new(ErrorKind::Step, "reading a layer's manifest");
    files
        .into_iter()
        .map(|file| {
            let bytes = contents(&File::from(file)).map_err(|error| damaged().because(error))?;
            Manifest::decode(&bytes).ok_or_else(damaged)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// Two builds of one process begin with an empty cache: blocks of the faster one were lost with the directory.
    #[test]
    fn a_block_store_that_is_there_is_not_replaced_by_that_of_a_slower_build() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, at) = (dir.path().join(BLOCKS), |name| dir.path().join(name));
        for name in ["faster", "slower"] {
            fs::create_dir(at(name)).expect("a directory");
        }
        take_place(&at("faster"), &place).expect("moved");
        let opened = File::open(&place).expect("the faster one's");
        take_place(&at("slower"), &place).expect("the other one is there");
        fs::write(place.join("pack"), "blocks").expect("a pack");
        let seen = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string());
        assert!(seen.join("pack").exists(), "the directory was replaced");
        assert!(take_place(&at("slower"), &at("nowhere/blocks")).is_err());
    }
}
