//! Care for the cache: blocks of earlier images, and whether stored layers are what they were.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use kiln_image::blocks;
pub use kiln_image::blocks::{Collected, Limits, Usage};
use kiln_rootfs::{Layer, Place, Quiet, Store};
use kiln_sandbox::{CancelToken, Root};

use crate::trust::known::{BLOCKS, differences};
use crate::{Failure, FailureKind};

/// A stored layer that is not what it was.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The layer.
    pub title: String,
    /// Its files that changed, without a leading slash. Empty for a layer that is gone because it was made after a damaged
    /// one, so maybe on top of it.
    pub paths: Vec<String>,
}

/// What the block store of a cache holds.
///
/// # Errors
/// It is there and cannot be read.
pub fn blocks_usage(cache: &Path) -> Result<Usage, Failure> {
    match open(cache)? {
        Some(directory) => Ok(blocks::usage(&directory)?),
        None => Ok(Usage::default()),
    }
}

/// Makes the block store of a cache smaller. Builds may use it meanwhile.
///
/// # Errors
/// It cannot be read or written.
pub fn collect_blocks(cache: &Path, limits: &Limits) -> Result<Collected, Failure> {
    match open(cache)? {
        Some(directory) => Ok(blocks::collect(&directory, limits)?),
        None => Ok(Collected::default()),
    }
}

fn open(cache: &Path) -> Result<Option<OwnedFd>, Failure> {
    let path = cache.join(BLOCKS);
    match File::open(&path) {
        Ok(directory) => Ok(Some(directory.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(
            FailureKind::Environment,
            format!("{} cannot be opened", path.display()),
        )
        .cause(error.to_string())),
    }
}

/// Compares every stored layer that an image was made of with what was recorded of it then. Damaged layers are removed,
/// and those that were made after them.
///
/// # Errors
/// A layer cannot be read or removed.
pub fn verify(store: &Store, threads: usize) -> Result<Vec<Damage>, Failure> {
    let mut layers = store.layers()?;
    layers.sort_by_key(made);
    let cancel = CancelToken::new().map_err(|error| {
        Failure::new(FailureKind::Environment, "no file descriptor is left")
            .cause(error.to_string())
    })?;
    let mut damaged: Vec<Damage> = Vec::new();
    for layer in &layers {
        let place = Place {
            sandbox: store.sandbox(),
            root: Root::Dir {
                path: layer.fs.clone(),
                writable: false,
            },
            epoch: 0,
            reporter: &Quiet,
            cancel: &cancel,
            tracer: None,
        };
        let paths = differences(&place, layer, threads)?;
        if !paths.is_empty() || !damaged.is_empty() {
            store.remove(layer.info.id)?;
            damaged.push(Damage {
                title: layer.info.title.clone(),
                paths: paths
                    .iter()
                    .map(|path| String::from_utf8_lossy(path).into_owned())
                    .collect(),
            });
        }
    }
    Ok(damaged)
}

/// When a layer was committed.
fn made(layer: &Layer) -> SystemTime {
    let note = layer.fs.with_file_name("layer.json");
    note.metadata()
        .and_then(|metadata| metadata.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
