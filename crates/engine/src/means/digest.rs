//! SHA-256 of files with holes, piece by piece.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kiln_digest::Sha256;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Read at once, in bytes.
const PIECE: usize = 1 << 20;

/// A digest of a file in the making. What is added has to follow what was added before.
pub(crate) struct Digesting<'f> {
    file: &'f File,
    hash: Sha256,
    zeros: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'f> Digesting<'f> {
    /// The digest of nothing yet.
    pub(crate) fn new(file: &'f File) -> Self {
        Digesting {
            file,
            hash: Sha256::new(),
            zeros: vec![0; PIECE],
            buffer: vec![0; PIECE],
        }
    }

    /// Adds bytes without looking for holes. It leaves the file's position alone.
    pub(crate) fn add_data(&mut self, range: Range<u64>) -> std::io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let wanted = &mut self.buffer[..piece(range.end - at)];
            self.file.read_exact_at(wanted, at)?;
            self.hash.update(&*wanted);
            at += wanted.len() as u64;
        }
        Ok(())
    }

    /// Adds bytes. Holes among them are not read. It moves the file's position.
    pub(crate) fn add(&mut self, range: Range<u64>) -> std::io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let data = match seek(self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(range.end),
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => range.end,
                Err(error) => return Err(error.into()),
            };
            while at < data {
                let zeros = &self.zeros[..piece(data - at)];
                self.hash.update(zeros);
                at += zeros.len() as u64;
            }
            if at < range.end {
                let end = seek(self.file, SeekFrom::Hole(at))?.min(range.end);
                self.add_data(at..end)?;
                at = end;
            }
        }
        Ok(())
    }

    /// Hexadecimal.
    pub(crate) fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

/// SHA-256 of a file, hexadecimal. Holes are not read.
pub(crate) fn digest(file: &File, size: u64) -> std::io::Result<String> {
    let mut digesting = Digesting::new(file);
    digesting.add(0..size)?;
    Ok(digesting.finish())
}

/// A file that is written from its start to its end, and digested meanwhile.
pub(crate) struct DigestedFile<'f> {
    file: &'f File,
    hash: Sha256,
}

impl<'f> DigestedFile<'f> {
    /// Nothing is written yet.
    pub(crate) fn new(file: &'f File) -> Self {
        DigestedFile {
            file,
            hash: Sha256::new(),
        }
    }

    /// SHA-256 of all that was written, hexadecimal.
    pub(crate) fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

impl Write for DigestedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn piece(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE).min(PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_was_digested() {
        let file = tempfile::tempfile().expect("a file");
        let mut written = DigestedFile::new(&file);
        for piece in [&b"one"[..], b"", b"two"] {
            written.write_all(piece).expect("a piece");
        }
        written.flush().expect("written");
        let size = file.metadata().expect("its facts").len();
        assert_eq!(written.finish(), digest(&file, size).expect("a digest"));
        // What the disk does not take is not in the digest either.
        let full = File::options().write(true).open("/dev/full").expect("it");
        let mut written = DigestedFile::new(&full);
        written.write_all(b"one").expect_err("full");
        assert_eq!(written.finish(), hex::encode(Sha256::digest([])));
    }

    #[test]
    fn holes_count_as_zeros() {
        let sparse = tempfile::tempfile().expect("a file");
        let size = 5 << 20;
        let mut whole = vec![0; size];
        sparse.set_len(size as u64).expect("a long file");
        for at in [0, 1 << 20, (3 << 20) - 7, size - 1] {
            whole[at] = 7;
            sparse.write_all_at(&[7], at as u64).expect("a byte");
        }
        let expected = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        assert_eq!(
            digest(&sparse, size as u64).expect("a digest"),
            expected(&whole)
        );
        // In ranges that end and begin in holes and in data.
        for cut in [1, 1000, 2 << 20, (3 << 20) - 7, 4 << 20] {
            let mut parts = Digesting::new(&sparse);
            parts.add(0..cut).expect("a part");
            parts.add_data(cut..cut + 1).expect("a part");
            parts.add(cut + 1..size as u64).expect("a part");
            assert_eq!(parts.finish(), expected(&whole), "{cut}");
        }
        sparse
            .set_len((size + 3) as u64)
            .expect("a hole at the end");
        whole.extend([0, 0, 0]);
        assert_eq!(
            digest(&sparse, (size + 3) as u64).expect("a digest"),
            expected(&whole)
        );
        assert_eq!(digest(&sparse, 0).expect("a digest"), expected(&[]));
    }
}
