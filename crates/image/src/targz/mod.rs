//! `disk.tar.gz`: a gzip-compressed tar with one member, `disk.raw`, as Google Compute Engine imports it, written at the speed of
//! copying.
//!
//! A disk image is mostly a SquashFS, which does not compress again, and holes. Compressing it costs minutes and wins nothing. So the
//! image is cut into blocks of 64 KiB, and each goes the cheapest way:
//!
//! | content | becomes |
//! |---|---|
//! | a hole or zeros | a deflate block made without looking: two bits for 258 zeros |
//! | bytes that look random | stored deflate blocks: a copy |
//! | the rest | real compression |
//!
//! The whole is one gzip member (RFC 1952) of deflate blocks (RFC 1951), joined at byte borders; threads make pieces of 1 MiB
//! independently, so that the bytes are the same for any number of threads. The tar header is in the old GNU format, with sizes from
//! 8 GiB as base-256 numbers.

mod deflate;
mod header;
mod pieces;
mod zeros;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crc32fast::Hasher;

use self::deflate::{Deflater, Tally};
use self::pieces::{Piece, cut};
use crate::disk::Bytes;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// gzip header: magic, deflate, no flags, no time, no extra flags, Unix.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// An empty stored block with the final bit.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];
/// Pieces that a thread may be ahead.
const AHEAD: usize = 3;

/// How to write a disk.tar.gz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarGz {
    /// Name of the member, at most 100 bytes; Google Compute Engine wants `disk.raw`.
    pub member: String,
    /// Modification time of the member, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub mtime: u64,
    /// Threads that read and compress; 0 counts as 1.
    pub threads: usize,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Size of the file that was written.
    pub size: Bytes,
    /// Bytes of the image that were zeros.
    pub zeros: Bytes,
    /// Bytes of the image that were stored.
    pub stored: Bytes,
    /// Bytes of the image that were compressed.
    pub compressed: Bytes,
}

impl TarGz {
    /// Returns options for a member called `disk.raw`.
    pub fn new(mtime: u64, threads: usize) -> Self {
        TarGz {
            member: "disk.raw".into(),
            mtime,
            threads,
        }
    }

    /// Writes `image` to `out`. `progress` is told the bytes of the image passed since it was last called and may stop the work with
    /// an error.
    ///
    /// # Errors
    /// A failed read or write, an image that changes its size meanwhile, or a member name that is too long.
    pub fn write(
        &self,
        image: &File,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Summary> {
        let len = image
            .metadata()
            .doing(|| "looking at the size of the disk image".into())?
            .len();
        let header = header::member(&self.member, len, self.mtime)?;
        let trailer = header::trailer(len);
        let pieces = cut(image, len)?;
        let mut gzip = Gzip::start(out)?;
        let mut plain = Deflater::new();
        gzip.piece(&plain.pack(&header), header.len() as u64)?;
        self.pump(image, &pieces, &mut gzip, progress)?;
        gzip.piece(&plain.pack(&trailer), trailer.len() as u64)?;
        gzip.finish()
    }

    /// Lets threads make the pieces, and writes them in order: thread `n` makes every piece whose number has the
    /// remainder `n`, so that taking turns keeps the order.
    fn pump(
        &self,
        image: &File,
        pieces: &[Piece],
        gzip: &mut Gzip,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let threads = self.threads.clamp(1, 64);
        std::thread::scope(|scope| {
            let mut lanes = Vec::new();
            for first in 0..threads {
                let (lane, ends) = Lane::new();
                lanes.push(lane);
                scope.spawn(move || work(image, pieces.iter().skip(first).step_by(threads), &ends));
            }
            for (piece, lane) in pieces.iter().zip((0..threads).cycle()) {
                let done = lanes.get(lane).and_then(|l| l.done.recv().ok());
                let packed = done.unwrap_or_else(|| {
                    Err(Error::new(
                        ErrorKind::Internal,
                        "a thread that compressed the disk image ended early",
                    ))
                })?;
                gzip.packed(&packed)?;
                if let Some(lane) = lanes.get(lane) {
                    let _ = lane.used.send(packed.bytes);
                }
                progress(piece.len())?;
            }
            Ok(())
        })
    }
}

/// The writer's ends of the channels to one thread.
struct Lane {
    done: Receiver<Result<Packed>>,
    /// Buffers go back, as fresh memory is dear.
    used: Sender<Vec<u8>>,
}

/// The thread's ends.
struct Ends {
    done: SyncSender<Result<Packed>>,
    used: Receiver<Vec<u8>>,
}

impl Lane {
    fn new() -> (Lane, Ends) {
        let (done_in, done) = sync_channel(AHEAD);
        let (used, used_out) = channel();
        let ends = Ends {
            done: done_in,
            used: used_out,
        };
        (Lane { done, used }, ends)
    }
}

/// A piece as deflate blocks that end at a byte border.
struct Packed {
    bytes: Vec<u8>,
    crc: Hasher,
    len: u64,
    tally: Tally,
}

/// Makes pieces until there are no more, one fails, or nobody wants them.
fn work<'a>(image: &File, pieces: impl Iterator<Item = &'a Piece>, ends: &Ends) {
    let mut deflater = Deflater::new();
    let mut data = Vec::new();
    for piece in pieces {
        // A new buffer where none came back yet.
        let mut bytes = ends.used.try_recv().unwrap_or_default();
        bytes.clear();
        let packed = pack(image, piece, &mut deflater, &mut data, bytes);
        let failed = packed.is_err();
        if ends.done.send(packed).is_err() || failed {
            return;
        }
    }
}

fn pack(
    image: &File,
    piece: &Piece,
    deflater: &mut Deflater,
    data: &mut Vec<u8>,
    mut bytes: Vec<u8>,
) -> Result<Packed> {
    let len = piece.len();
    let mut tally = Tally::default();
    let crc = match piece {
        Piece::Hole(_) => {
            zeros::deflate(len, &mut bytes);
            tally.zeros += len;
            zeros::crc(len)
        }
        Piece::Data(range) => {
            data.resize(len as usize, 0);
            image
                .read_exact_at(data, range.start)
                .doing(|| "reading the disk image".into())?;
            deflater.blocks(data, &mut bytes, &mut tally);
            let mut crc = Hasher::new();
            crc.update(data);
            crc
        }
    };
    Ok(Packed {
        bytes,
        crc,
        len,
        tally,
    })
}

/// The gzip member that is being written.
struct Gzip<'a> {
    out: &'a mut dyn Write,
    crc: Hasher,
    /// Bytes in, uncompressed.
    len: u64,
    /// Bytes out.
    size: u64,
    tally: Tally,
}

impl<'a> Gzip<'a> {
    fn start(out: &'a mut dyn Write) -> Result<Self> {
        let mut gzip = Gzip {
            out,
            crc: Hasher::new(),
            len: 0,
            size: 0,
            tally: Tally::default(),
        };
        gzip.raw(&GZIP_HEADER)?;
        Ok(gzip)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .doing(|| "writing the compressed disk image".into())
    }

    /// A piece that is not part of the image.
    fn piece(&mut self, (bytes, crc): &(Vec<u8>, Hasher), len: u64) -> Result<()> {
        self.crc.combine(crc);
        self.len += len;
        self.raw(bytes)
    }

    fn packed(&mut self, packed: &Packed) -> Result<()> {
        self.crc.combine(&packed.crc);
        self.len += packed.len;
        self.tally.add(&packed.tally);
        self.raw(&packed.bytes)
    }

    fn finish(mut self) -> Result<Summary> {
        self.raw(&LAST_BLOCK)?;
        let crc = self.crc.clone().finalize();
        self.raw(&[crc, self.len as u32].map(u32::to_le_bytes).concat())?;
        self.out
            .flush()
            .doing(|| "writing the compressed disk image".into())?;
        Ok(Summary {
            size: Bytes(self.size),
            zeros: Bytes(self.tally.zeros),
            stored: Bytes(self.tally.stored),
            compressed: Bytes(self.tally.compressed),
        })
    }
}
