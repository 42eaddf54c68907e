//! Runs of zeros, without touching them.
//!
//! A deflate block with Huffman codes of its own (RFC 1951, section 3.2.7) needs three symbols: "copy 258 bytes" (285), the literal 0
//! and the end of the block (256), with codes `0`, `10` and `11`; and one distance, 1, with code `0`. Then 258 zeros are the two
//! bits `00`: a long run is a header, zero bytes, and an end.

use crc32fast::Hasher;

/// Longest copy of deflate.
const COPY: u64 = 258;
/// Bits of the header, value and width, lowest first: not final; dynamic codes; 286 literal codes, 1 distance code, 18 code lengths.
const HEADER: [(u32, u32); 5] = [(0, 1), (2, 2), (29, 5), (0, 5), (14, 4)];
/// Lengths of the code length codes in the RFC's order (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
/// 18 has one bit (`0`), 1 (`10`) and 2 (`11`) have two.
const CODE_LENGTHS: [u32; 18] = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2];
/// The lengths of all codes: literal 0 has 2 bits; 138 and 117 times none; 256 has 2; 28 times none; 285 has 1; distance 1 has 1.
/// Huffman codes go first bit first, so they are turned round here.
const LENGTHS: [(u32, u32); 10] = [
    (0b11, 2),
    (0, 1),
    (138 - 11, 7),
    (0, 1),
    (117 - 11, 7),
    (0b11, 2),
    (0, 1),
    (28 - 11, 7),
    (0b01, 2),
    (0b01, 2),
];
const LITERAL: (u32, u32) = (0b01, 2);
const END: (u32, u32) = (0b11, 2);
/// Bits of a copy: length and distance.
const COPY_BITS: u64 = 2;
/// What follows the three bits of an empty stored block, at a byte border.
const EMPTY: [u8; 4] = [0, 0, 0xff, 0xff];

/// Appends `len` zeros as one deflate block, and an empty stored block to end at a byte border.
pub(super) fn deflate(len: u64, out: &mut Vec<u8>) {
    let mut bits = Bits {
        out,
        pending: 0,
        count: 0,
    };
    bits.put_all(&HEADER);
    CODE_LENGTHS
        .iter()
        .for_each(|length| bits.put((*length, 3)));
    bits.put_all(&LENGTHS);
    if let Some(rest) = len.checked_sub(1) {
        bits.put(LITERAL);
        bits.put_zeros(rest / COPY * COPY_BITS);
        (0..rest % COPY).for_each(|_| bits.put(LITERAL));
    }
    bits.put(END);
    bits.put((0, 3));
    bits.align();
    out.extend(EMPTY);
}

/// The CRC of `len` zeros, by doubling.
pub(super) fn crc(len: u64) -> Hasher {
    let mut sum = Hasher::new();
    let mut power = Hasher::new();
    power.update(&[0]);
    let mut left = len;
    while left > 0 {
        if left & 1 == 1 {
            sum.combine(&power);
        }
        left >>= 1;
        let half = power.clone();
        power.combine(&half);
    }
    sum
}

/// Bits, lowest first.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits<'_> {
    fn put(&mut self, (value, width): (u32, u32)) {
        self.pending |= value << self.count;
        self.count += width;
        while self.count >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    fn put_all(&mut self, fields: &[(u32, u32)]) {
        fields.iter().for_each(|field| self.put(*field));
    }

    fn put_zeros(&mut self, bits: u64) {
        let bits = bits + u64::from(self.count);
        self.count = 0;
        let bytes = (bits / 8) as usize;
        if bytes > 0 {
            self.out.push(self.pending as u8);
            self.out.resize(self.out.len() + bytes - 1, 0);
            self.pending = 0;
        }
        self.count = (bits % 8) as u32;
    }

    fn align(&mut self) {
        if self.count > 0 {
            self.out.push(self.pending as u8);
            self.pending = 0;
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_length_inflates_to_zeros() {
        for len in (0..1100).chain([4095, 65_536, 1_000_003, 1 << 24]) {
            let mut packed = Vec::new();
            deflate(len, &mut packed);
            packed.extend([1, 0, 0, 0xff, 0xff]);
            let mut out = Vec::new();
            flate2::read::DeflateDecoder::new(&packed[..])
                .read_to_end(&mut out)
                .unwrap();
            assert_eq!(out.len() as u64, len);
            assert!(out.iter().all(|b| *b == 0));
            assert_eq!(crc(len).finalize(), crc32fast::hash(&out), "{len}");
        }
    }

    #[test]
    fn a_gigabyte_is_a_megabyte() {
        let mut packed = Vec::new();
        deflate(1 << 30, &mut packed);
        assert!(packed.len() < 1_041_000, "{}", packed.len());
    }
}
