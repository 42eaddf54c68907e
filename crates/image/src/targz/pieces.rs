//! Cutting the image into pieces of work.

use std::fs::File;
use std::ops::Range;

use super::deflate::BLOCK;
use crate::error::Result;
use crate::sparse::DataExtents;

/// Most data of one piece, in bytes.
const DATA: u64 = 1 << 20;
/// Most of a hole in one piece, in bytes; it becomes a thousandth of it.
const HOLE: u64 = 1 << 30;

/// A part of the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many zeros.
    Hole(u64),
    /// Bytes to be read.
    Data(Range<u64>),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Piece::Hole(len) => *len,
            Piece::Data(range) => range.end - range.start,
        }
    }
}

/// All of the image in order. Holes count from one block on; smaller ones are read as data.
pub(super) fn cut(image: &File, len: u64) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut data = 0..0;
    for extent in DataExtents::new(image, 0..len) {
        let extent = extent?;
        if extent.start - data.end >= BLOCK as u64 {
            push_data(&mut pieces, &data);
            push_hole(&mut pieces, extent.start - data.end);
            data.start = extent.start;
        }
        data.end = extent.end;
    }
    push_data(&mut pieces, &data);
    push_hole(&mut pieces, len - data.end);
    Ok(pieces)
}

fn push_data(pieces: &mut Vec<Piece>, data: &Range<u64>) {
    let mut at = data.start;
    while at < data.end {
        let end = data.end.min(at + DATA);
        pieces.push(Piece::Data(at..end));
        at = end;
    }
}

fn push_hole(pieces: &mut Vec<Piece>, mut len: u64) {
    while len > 0 {
        let part = len.min(HOLE);
        pieces.push(Piece::Hole(part));
        len -= part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn pieces_cover_the_image() {
        let image = tempfile::tempfile().unwrap();
        image.set_len(3 << 30).unwrap();
        image.write_all_at(&[1; 3 << 20], 5 << 20).unwrap();
        image.write_all_at(&[1; 1], (2 << 30) + 17).unwrap();
        let pieces = cut(&image, 3 << 30).unwrap();
        assert_eq!(pieces.iter().map(Piece::len).sum::<u64>(), 3 << 30);
        let mut at = 0;
        for piece in &pieces {
            if let Piece::Data(range) = piece {
                assert_eq!(range.start, at);
            }
            at += piece.len();
        }
        assert!(pieces.len() < 12, "{pieces:?}");
        assert_eq!(cut(&tempfile::tempfile().unwrap(), 0).unwrap(), []);
    }
}
