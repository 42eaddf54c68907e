//! Blocks of data, each the cheapest way.

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};

use super::zeros;
use crate::sparse::is_zero;

/// What is judged at once, in bytes.
pub(super) const BLOCK: usize = 64 << 10;
/// Longest stored deflate block.
const MAX_STORED: usize = 65_535;
/// Level of the real compression: half the time of gzip's usual 6 for a tenth of a percent of a disk.
const LEVEL: u32 = 4;
/// libdeflate's fastest level that compresses (0 only stores).
const JUDGE_LEVEL: i32 = 1;
/// Samples of a block: so many of so many bytes.
const SAMPLES: usize = 8;
const SAMPLE: usize = 512;

/// Bytes by the way they went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) zeros: u64,
    pub(super) stored: u64,
    pub(super) compressed: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.zeros += other.zeros;
        self.stored += other.stored;
        self.compressed += other.compressed;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Zeros,
    Store,
    Compress,
}

/// The state that one thread reuses.
pub(super) struct Deflater {
    compress: Compress,
    judge: Compressor,
    sample: Vec<u8>,
    scratch: Vec<u8>,
}

impl Deflater {
    pub(super) fn new() -> Self {
        // The level is one of libdeflate's: a test holds it.
        let mut judge = Compressor::new(CompressionLvl::new(JUDGE_LEVEL).unwrap_or_default());
        let scratch = vec![0; judge.deflate_compress_bound(SAMPLES * SAMPLE)];
        Deflater {
            compress: Compress::new(Compression::new(LEVEL), false),
            judge,
            sample: Vec::new(),
            scratch,
        }
    }

    /// Deflate blocks of a few bytes and their CRC.
    pub(super) fn pack(&mut self, data: &[u8]) -> (Vec<u8>, Hasher) {
        let mut out = Vec::new();
        self.compress(data, &mut out);
        let mut crc = Hasher::new();
        crc.update(data);
        (out, crc)
    }

    /// Appends `data` as deflate blocks that end at a byte border, none of them final.
    pub(super) fn blocks(&mut self, data: &[u8], out: &mut Vec<u8>, tally: &mut Tally) {
        let mut rest = data;
        while !rest.is_empty() {
            let (way, len) = self.run(rest);
            let (run, tail) = rest.split_at(len);
            match way {
                Way::Zeros => {
                    zeros::deflate(len as u64, out);
                    tally.zeros += len as u64;
                }
                Way::Store => {
                    store(run, out);
                    tally.stored += len as u64;
                }
                Way::Compress => {
                    self.compress(run, out);
                    tally.compressed += len as u64;
                }
            }
            rest = tail;
        }
    }

    /// The way of the first block, and the length of all that go the same way.
    fn run(&mut self, data: &[u8]) -> (Way, usize) {
        let mut blocks = data.chunks(BLOCK);
        let Some(first) = blocks.next() else {
            return (Way::Store, 0);
        };
        let way = self.judge(first);
        let more: usize = blocks
            .take_while(|block| self.judge(block) == way)
            .map(<[u8]>::len)
            .sum();
        (way, first.len() + more)
    }

    fn judge(&mut self, block: &[u8]) -> Way {
        if is_zero(block) {
            return Way::Zeros;
        }
        self.sample.clear();
        let step = (block.len() / SAMPLES).max(SAMPLE);
        for part in block.chunks(step) {
            self.sample.extend(part.iter().take(SAMPLE));
        }
        if looks_random(&self.sample) || !self.sample_shrinks() {
            Way::Store
        } else {
            Way::Compress
        }
    }

    /// Whether the sample shrinks by a twentieth.
    fn sample_shrinks(&mut self) -> bool {
        let bound = self.judge.deflate_compress_bound(self.sample.len());
        self.scratch.resize(bound.max(self.scratch.len()), 0);
        self.judge
            .deflate_compress(&self.sample, &mut self.scratch)
            .is_ok_and(|len| len + self.sample.len() / 20 <= self.sample.len())
    }

    fn compress(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.compress.reset();
        out.reserve(data.len() + data.len() / 64 + 1024);
        loop {
            let done = self.compress.total_in() as usize;
            let rest = &data[done..];
            let status = self.compress.compress_vec(rest, out, FlushCompress::Sync);
            let all = self.compress.total_in() as usize == data.len();
            match status {
                Ok(Status::Ok) if all && out.len() < out.capacity() => break,
                Ok(Status::Ok) => out.reserve(data.len() / 8 + 1024),
                _ => {
                    out.truncate(start);
                    store(data, out);
                    return;
                }
            }
        }
        if out.len() - start > data.len() {
            out.truncate(start);
            store(data, out);
        }
    }
}

/// Appends stored blocks (RFC 1951, section 3.2.4): at a byte border, a zero, the length, its complement.
fn store(data: &[u8], out: &mut Vec<u8>) {
    for part in data.chunks(MAX_STORED) {
        let len = part.len() as u16;
        out.push(0);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(part);
    }
}

/// Whether the bytes are spread as evenly as random ones: the sum of squared counts of n random bytes is n²/256 + n on average, and
/// within a tenth of it for samples of a KiB and more.
fn looks_random(sample: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let n = sample.len() as u64;
    let sum: u64 = counts.iter().map(|c| c * c).sum();
    n >= 1024 && sum * 10 <= (n * n / 256 + n) * 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pack(data: &[u8]) -> (usize, Tally) {
        let (mut out, mut tally) = (Vec::new(), Tally::default());
        Deflater::new().blocks(data, &mut out, &mut tally);
        let len = out.len();
        out.extend([1, 0, 0, 0xff, 0xff]);
        let mut back = Vec::new();
        flate2::read::DeflateDecoder::new(&out[..])
            .read_to_end(&mut back)
            .unwrap();
        assert!(back == data);
        (len, tally)
    }

    #[test]
    fn the_judge_has_a_level_of_libdeflate() {
        assert!(CompressionLvl::new(JUDGE_LEVEL).is_ok());
    }

    #[test]
    fn text_shrinks_as_with_gzip() {
        let text: String = (0..60_000)
            .map(|n| format!("line {} of {n}\n", n % 77))
            .collect();
        let (len, tally) = pack(text.as_bytes());
        assert_eq!(tally.compressed, text.len() as u64);
        let mut gzip = Vec::new();
        flate2::read::DeflateEncoder::new(text.as_bytes(), Compression::new(LEVEL))
            .read_to_end(&mut gzip)
            .unwrap();
        assert!(
            len < gzip.len() + gzip.len() / 50,
            "{len} against {}",
            gzip.len()
        );
    }

    #[test]
    fn every_block_goes_its_own_way() {
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(3 * BLOCK)
        .collect();
        let data = [
            &noise[..],
            &[0; 2 * BLOCK],
            "text ".repeat(BLOCK / 5).as_bytes(),
            b"x",
        ]
        .concat();
        let (len, tally) = pack(&data);
        assert_eq!(tally.stored, 3 * BLOCK as u64);
        assert_eq!(tally.zeros, 2 * BLOCK as u64);
        assert!(len < 3 * BLOCK + 2000);
    }
}
