//! Layers as archives: everything that an overlay's directory holds, so that another machine has the same layer.
//!
//! The archive is a POSIX `pax` file (IEEE Std 1003.1, `pax`, "pax Interchange Format"), compressed with zstd. Names are sorted,
//! parents come before what they hold, the layer's own directory is first and called `./`. Each entry has these extended records:
//!
//! | record | |
//! |---|---|
//! | `path`, `linkpath` | always, so that no name is cut |
//! | `mtime` | seconds and nanoseconds |
//! | `uid`, `gid` | as the layer's root user sees them |
//! | `SCHILY.xattr.*` | every extended attribute, overlayfs's marks and file capabilities among them |
//! | `KILN.socket` | on a fifo: it is a socket, which the format does not know |
//!
//! A whiteout is a character device 0:0, as overlayfs stores it. Other archivers can read and make such archives; this reader takes only
//! what this writer makes, and of that nothing that would lie outside the directory: every path is resolved by the kernel below the
//! directory without following any link, nothing is written over, and a parent has to be there before.

mod read;
mod write;

use std::io;
use std::path::Path;

use kiln_sandbox::{Call, Error, Say, Silence, handed};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;
use crate::error::Result;
use crate::run::{Extras, Place};

pub use read::unpack;
pub use write::pack;

/// Layers are packed while the build goes on, and read more often than written: fast, and about as small as gzip.
const LEVEL: i32 = 3;
const BLOCK: usize = 512;

/// Writes the layer that is the place's root to a descriptor, compressed.
///
/// # Errors
/// Something cannot be read, or the other side of the descriptor is gone.
pub fn pack_layer(place: &Place<'_>, to: std::os::fd::OwnedFd, threads: u32) -> Result<()> {
    let archive = Archive { archive: to };
    place.call(&Pack { threads }, archive, Extras::bare())
}

/// Fills the empty directory that is the place's root from a compressed archive.
///
/// # Errors
/// The archive is damaged or hostile, or something cannot be made here.
pub fn unpack_layer(place: &Place<'_>, from: std::os::fd::OwnedFd) -> Result<()> {
    place.call(&Unpack {}, Archive { archive: from }, Extras::bare())
}

handed! {
    /// The other side of an archiver.
    pub(crate) struct Archive {
        archive: std::os::fd::OwnedFd,
    }
}

/// Writes the root to an archive.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pack {
    threads: u32,
}

impl Call for Pack {
    const NAME: &'static str = "rootfs.pack-layer";
    type Handed = Archive;
    type Message = Silence;
    type Answer = ();

    fn run(self, to: Archive, _: &Say<Silence>) -> Result<(), Error> {
        let run = || -> io::Result<()> {
            let mut encoder = zstd::Encoder::new(std::fs::File::from(to.archive), LEVEL)?;
            encoder.multithread(self.threads)?;
            encoder.include_checksum(true)?;
            pack(Path::new("/"), &mut encoder)?;
            encoder.finish().map(drop)
        };
        run().map_err(|e| io_error("packing a layer", &e))
    }
}

/// Fills the root from an archive.
#[derive(Serialize, Deserialize)]
pub(crate) struct Unpack {}

impl Call for Unpack {
    const NAME: &'static str = "rootfs.unpack-layer";
    type Handed = Archive;
    type Message = Silence;
    type Answer = ();

    fn run(self, from: Archive, _: &Say<Silence>) -> Result<(), Error> {
        let run = || -> io::Result<()> {
            let mut decoder = zstd::Decoder::new(std::fs::File::from(from.archive))?;
            unpack(Path::new("/"), &mut decoder)
        };
        run().map_err(|e| io_error("unpacking a layer", &e))
    }
}

/// Adds to an error what was being done; the kind stays, a full disk is told by it.
fn at(error: impl Into<io::Error>, path: &[u8], doing: &str) -> io::Error {
    let error = error.into();
    let shown = path.escape_ascii();
    io::Error::new(error.kind(), format!("{doing} {shown}: {error}"))
}

fn bad(path: &[u8], why: &str) -> io::Error {
    at(io::Error::from(io::ErrorKind::InvalidData), path, why)
}

#[cfg(test)]
mod tests;
