//! The four compressors behind one small trait.

use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};
use lz4::block::CompressionMode;

use super::format::METADATA_BLOCK;
use super::options::{Codec, Options};
use crate::{Error, ErrorKind, Result};

/// What a block became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    /// Shorter than the block, to be stored in its place.
    Compressed(Vec<u8>),
    /// The block does not get shorter: store it as it is.
    Raw,
}

/// Compresses single blocks; each is independent of those before.
pub(super) trait Compressor {
    /// Returns the compressed block, or `Raw` when it would not be shorter.
    fn pack(&mut self, block: &[u8]) -> Result<Packed>;
}

/// A compressor for these options, with a state of its own that is used again for every block.
pub(super) fn compressor(options: &Options) -> Result<Box<dyn Compressor>> {
    Ok(match options.codec {
        Codec::Gzip => Box::new(Gzip::new(options.level)?),
        Codec::Xz => Box::new(Xz::new(options)?),
        Codec::Lz4 => Box::new(Lz4(options.level)),
        Codec::Zstd => Box::new(Zstd::new(options.level)?),
    })
}

/// What identifies an encoder's output, beside its input: codec, level, block size, the library's version where it tells
/// one, and what it makes of a sample, so that another encoder is noticed that calls itself the same.
pub(super) fn fingerprint(options: &Options) -> Result<[u8; 32]> {
    let library = match options.codec {
        // These two do not tell; the sample does.
        Codec::Gzip | Codec::Xz => 0,
        Codec::Lz4 => lz4::version() as u32,
        Codec::Zstd => zstd::zstd_safe::version_number(),
    };
    let (codec, level) = (options.codec, options.level);
    let mut text = format!("3/{codec}/{library}/{level}/{}/", options.block_size).into_bytes();
    if let Packed::Compressed(sample) = compressor(options)?.pack(&sample())? {
        text.extend_from_slice(&sample);
    }
    Ok(blake3::derive_key("kiln 2026 squashfs block", &text))
}

/// 32 KiB with matches near and far and a skewed alphabet.
fn sample() -> Vec<u8> {
    let mut state = 1u32;
    let mut step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut out: Vec<u8> = Vec::with_capacity(33 << 10);
    while out.len() < 32 << 10 {
        let (distance, length) = (step() as usize % 4096 + 1, step() as usize % 24 + 4);
        match out.len().checked_sub(distance) {
            Some(from) if length < 20 => (from..from + length.min(distance)).for_each(|i| {
                let byte = out[i];
                out.push(byte);
            }),
            _ => out.extend((0..length).map(|_| (step() & step() & 0x7f) as u8)),
        }
    }
    out
}

struct Gzip {
    inner: libdeflater::Compressor,
    buffer: Vec<u8>,
}

impl Gzip {
    fn new(level: i32) -> Result<Self> {
        let level = libdeflater::CompressionLvl::new(level)
            .map_err(|_| internal(format!("libdeflate refuses level {level}")))?;
        Ok(Gzip {
            inner: libdeflater::Compressor::new(level),
            buffer: Vec::new(),
        })
    }
}

impl Compressor for Gzip {
    fn pack(&mut self, block: &[u8]) -> Result<Packed> {
        // One byte less than the block: what does not fit is not shorter.
        let room = block.len().saturating_sub(1);
        self.buffer.resize(room.max(self.buffer.len()), 0);
        match self.inner.zlib_compress(block, &mut self.buffer[..room]) {
            Ok(length) => Ok(Packed::Compressed(self.buffer[..length].to_vec())),
            Err(libdeflater::CompressionError::InsufficientSpace) => Ok(Packed::Raw),
        }
    }
}

struct Xz {
    filters: Filters,
    buffer: Vec<u8>,
}

impl Xz {
    fn new(options: &Options) -> Result<Self> {
        let preset = u32::try_from(options.level).unwrap_or(0);
        let mut lzma = LzmaOptions::new_preset(preset).map_err(xz_failed)?;
        // The kernel's decoder has a dictionary of one block and no smaller one than a metadata block.
        lzma.dict_size(options.block_size.max(METADATA_BLOCK as u32));
        let mut filters = Filters::new();
        filters.lzma2(&lzma);
        Ok(Xz {
            filters,
            buffer: Vec::new(),
        })
    }
}

impl Compressor for Xz {
    fn pack(&mut self, block: &[u8]) -> Result<Packed> {
        // CRC-32 is the one check that every kernel's decoder has.
        let mut stream =
            Stream::new_stream_encoder(&self.filters, Check::Crc32).map_err(xz_failed)?;
        let room = block.len().saturating_sub(1);
        self.buffer.resize(room.max(self.buffer.len()), 0);
        let status = stream
            .process(block, &mut self.buffer[..room], Action::Finish)
            .map_err(xz_failed)?;
        let length = usize::try_from(stream.total_out()).unwrap_or(usize::MAX);
        match (status, self.buffer.get(..length)) {
            (Status::StreamEnd, Some(bytes)) => Ok(Packed::Compressed(bytes.to_vec())),
            _ => Ok(Packed::Raw),
        }
    }
}

struct Lz4(i32);

impl Compressor for Lz4 {
    fn pack(&mut self, block: &[u8]) -> Result<Packed> {
        let mode = Some(CompressionMode::HIGHCOMPRESSION(self.0));
        let bytes = lz4::block::compress(block, mode, false)
            .map_err(|e| internal(format!("LZ4 does not compress a block: {e}")))?;
        Ok(shorter(bytes, block.len()))
    }
}

struct Zstd {
    inner: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

/// The level that libzstd compresses every block twice for, to know its statistics beforehand: twice the time for 0.26 % of a
/// desktop's blocks of 128 KiB. Here it takes one pass; the levels above are libzstd's own.
const ZSTD_ONE_PASS: i32 = 19;

impl Zstd {
    fn new(level: i32) -> Result<Self> {
        let refused = |e| internal(format!("zstd refuses level {level}: {e}"));
        let mut inner = zstd::bulk::Compressor::new(level).map_err(refused)?;
        if level == ZSTD_ONE_PASS {
            let strategy = zstd::zstd_safe::Strategy::ZSTD_btultra;
            inner
                .set_parameter(zstd::zstd_safe::CParameter::Strategy(strategy))
                .map_err(refused)?;
        }
        Ok(Zstd {
            inner,
            buffer: Vec::new(),
        })
    }
}

impl Compressor for Zstd {
    fn pack(&mut self, block: &[u8]) -> Result<Packed> {
        // With the full bound zstd skips its checks for space.
        let room = zstd::zstd_safe::compress_bound(block.len());
        self.buffer.resize(room.max(self.buffer.len()), 0);
        let length = self
            .inner
            .compress_to_buffer(block, &mut self.buffer[..room])
            .map_err(|e| internal(format!("zstd does not compress a block: {e}")))?;
        Ok(match self.buffer.get(..length) {
            Some(bytes) if length < block.len() => Packed::Compressed(bytes.to_vec()),
            _ => Packed::Raw,
        })
    }
}

fn shorter(bytes: Vec<u8>, length: usize) -> Packed {
    if bytes.len() < length {
        Packed::Compressed(bytes)
    } else {
        Packed::Raw
    }
}

fn xz_failed(e: liblzma::stream::Error) -> Error {
    match e {
        liblzma::stream::Error::Mem => Error::new(
            ErrorKind::Environment,
            "not enough memory for the xz compressor",
        )
        .with_hint("use fewer threads, a smaller block size or a lower level"),
        other => internal(format!("liblzma does not compress a block: {other}")),
    }
}

fn internal(message: String) -> Error {
    Error::new(ErrorKind::Internal, message)
}
