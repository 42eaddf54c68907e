//! What is known of layers' files before an image is made of them: content manifests, and compressed blocks.
//!
//! Both lie in the cache, out of reach of the process in the sandbox that writes the image. It gets opened files: one for each
//! layer, which is the layer's manifest or, where there is none yet, the layer's directory; one that receives new
//! manifests; and the block store's directory, which belongs to the namespace's root.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kiln_image::blocks;
use kiln_image::tree::Manifest;
use kiln_rootfs::{Layer, Store};
use kiln_sandbox::{CallError, ErrorKind};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

/// Layers whose files can be handed over; the sandbox takes 200, and a few are for other things.
const MOST: usize = 190;
/// The block store's directory in the cache.
pub(crate) const BLOCKS: &str = "blocks";
/// Packs from which on small ones are put together after an image.
const MANY_PACKS: usize = 96;

/// One layer, for the child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Its directory, for messages.
    path: PathBuf,
    /// Whether the file handed over is its manifest.
    recorded: bool,
}

/// What the parent has at hand.
pub(crate) struct Known<'a> {
    store: &'a Store,
    /// The top one first.
    layers: Vec<&'a Layer>,
    block_size: u32,
    pub(crate) notes: Vec<Note>,
    received: File,
    blocks: Option<OwnedFd>,
    /// Why there is no block store.
    pub(crate) trouble: Option<String>,
}

impl<'a> Known<'a> {
    /// Opens everything. `layers` is the whole stack, the lowest first.
    pub(crate) fn gather(
        store: &'a Store,
        layers: &'a [Layer],
        block_size: u32,
    ) -> io::Result<(Self, Vec<OwnedFd>)> {
        let received = File::from(rustix::fs::memfd_create(
            "kiln-manifests",
            MemfdFlags::CLOEXEC,
        )?);
        let mut known = Known {
            store,
            layers: layers.iter().rev().collect(),
            block_size,
            notes: Vec::new(),
            received,
            blocks: None,
            trouble: None,
        };
        let mut fds = vec![OwnedFd::from(known.received.try_clone()?)];
        if layers.len() <= MOST {
            known.open_layers(&mut fds)?;
        }
        match open_blocks(store) {
            Ok(directory) => {
                fds.push(directory.try_clone()?);
                known.blocks = Some(directory);
            }
            Err(error) => known.trouble = Some(error.to_string()),
        }
        Ok((known, fds))
    }

    fn open_layers(&mut self, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        for layer in &self.layers {
            let recorded = recorded(layer, self.block_size);
            self.notes.push(Note {
                path: layer.fs.clone(),
                recorded: recorded.is_some(),
            });
            let file = recorded.map_or_else(|| File::open(&layer.fs), Ok)?;
            fds.push(file.into());
        }
        Ok(())
    }

    /// Whether a block store was handed over.
    pub(crate) fn has_blocks(&self) -> bool {
        self.blocks.is_some()
    }

    /// Puts new manifests beside their layers. One that is lost is only made again.
    pub(crate) fn keep(&self) {
        let mut bytes = Vec::new();
        let Ok(length) = self.received.metadata().map(|m| m.len()) else {
            return;
        };
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        if self.received.read_exact_at(&mut bytes, 0).is_err() {
            return;
        }
        let mut rest = bytes.as_slice();
        while let Some((number, manifest, later)) = unframe(rest) {
            if let Some(layer) = self.layers.get(number)
                && Manifest::is_whole(manifest, self.block_size)
            {
                let _ = put(layer, self.block_size, manifest);
            }
            rest = later;
        }
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
        let mut upper = self.layers.iter().take(damaged + 1);
        upper.try_for_each(|layer| self.store.remove(layer.info.id))
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
    let mut file = File::open(manifest_path(layer, block_size)?).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Manifest::is_whole(&bytes, block_size).then_some(file)
}

fn put(layer: &Layer, block_size: u32, manifest: &[u8]) -> io::Result<()> {
    let path = manifest_path(layer, block_size).ok_or(io::ErrorKind::NotFound)?;
    let private = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&private, manifest)?;
    fs::rename(&private, &path)
}

/// The directory of the block store; made by one rename, because it has to have its owner from the start.
fn open_blocks(store: &Store) -> io::Result<OwnedFd> {
    let path = store.root().join(BLOCKS);
    if !path.is_dir() {
        let private = format!("{BLOCKS}-{}", std::process::id());
        let private = store.root().join("staging").join(private);
        store
            .sandbox()
            .create_owned_dir(&private, 0o755)
            .map_err(|error| io::Error::other(error.to_string()))?;
        if let Err(error) = fs::rename(&private, &path) {
            let _ = fs::remove_dir(&private);
            // Another build was faster.
            if !path.is_dir() {
                return Err(error);
            }
        }
    }
    let directory = OwnedFd::from(File::open(&path)?);
    blocks::reclaim(&directory).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(directory)
}

/// A manifest on its way: `u32` layer, `u64` length, both little-endian, then its bytes.
fn frame(layer: usize, manifest: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(&(layer as u32).to_le_bytes())?;
    out.write_all(&(manifest.len() as u64).to_le_bytes())?;
    out.write_all(manifest)
}

fn unframe(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (layer, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (manifest, later) = rest.split_at_checked(length)?;
    Some((u32::from_le_bytes(*layer) as usize, manifest, later))
}

/// In the child: all manifests, the top layer's first; those that are missing are made and handed back. Empty where
/// the layers were too many.
pub(crate) fn load(
    out: OwnedFd,
    layers: Vec<(Note, OwnedFd)>,
    block_size: u32,
    threads: usize,
) -> Result<Vec<Manifest>, CallError> {
    let mut out = File::from(out);
    let mut manifests = Vec::with_capacity(layers.len());
    for (number, (note, fd)) in layers.into_iter().enumerate() {
        if note.recorded {
            manifests.push(read(fd, &note.path)?);
            continue;
        }
        let manifest = Manifest::record(fd, &note.path, block_size, threads)
            .map_err(|error| failed(&note.path).because(error))?;
        frame(number, &manifest.encode(), &mut out)
            .map_err(|error| failed(&note.path).because(error))?;
        manifests.push(manifest);
    }
    Ok(manifests)
}

fn read(fd: OwnedFd, path: &Path) -> Result<Manifest, CallError> {
    let file = File::from(fd);
    let length = file.metadata().map_or(0, |m| m.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| failed(path).because(error))?;
    Manifest::decode(&bytes).ok_or_else(|| failed(path))
}

fn failed(layer: &Path) -> CallError {
    let message = format!("recording what the layer {} holds", layer.display());
    CallError::new(ErrorKind::Step, message)
}
