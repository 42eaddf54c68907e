//! Copying between files so that holes stay holes.
//!
//! `SEEK_DATA`/`SEEK_HOLE` (lseek(2)) name the parts of a file that hold data; `copy_file_range` (2) moves them inside
//! the kernel, sharing blocks where the file system can. Both fall back to plain reads and writes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

/// Most bytes asked of one `copy_file_range` call, so that progress can be told and a stop be heeded.
const COPY_STEP: u64 = 16 << 20;
/// Size of the buffer of the fallback, in bytes.
const BUFFER: usize = 1 << 20;

/// The parts of `range` of `file` that hold data, in order. Bytes in between read as zeros.
pub(crate) struct DataExtents<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> DataExtents<'a> {
    pub(crate) fn new(file: &'a File, range: Range<u64>) -> Self {
        DataExtents {
            file,
            at: range.start,
            end: range.end,
        }
    }

    fn find(&mut self) -> Result<Option<Range<u64>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = match seek(self.file, SeekFrom::Data(self.at))? {
            Some(start) if start < self.end => start,
            _ => return Ok(None),
        };
        let end = seek(self.file, SeekFrom::Hole(start))?.unwrap_or(self.end);
        let end = end.clamp(start + 1, self.end);
        self.at = end;
        Ok(Some(start..end))
    }
}

impl Iterator for DataExtents<'_> {
    type Item = Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.find().transpose();
        if !matches!(found, Some(Ok(_))) {
            self.at = self.end;
        }
        found
    }
}

/// `lseek`, where `None` means that there is no data after the offset. A file system that knows no holes (`EINVAL`)
/// has data everywhere.
fn seek(file: &File, to: SeekFrom) -> Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(match to {
            SeekFrom::Data(at) => Some(at),
            _ => None,
        }),
        Err(e) => Err(Error::io("looking for holes in a file", e.into())),
    }
}

/// Copies `len` bytes at `from` of `source` to `to` of `target`, data only: where `source` has holes, `target` is left
/// as it is, so it should be a hole there too.
///
/// `name` names the source in errors. `step` is told every number of bytes passed (holes included) and may stop the copy.
///
/// # Errors
/// A failed read or write; a source that is shorter than `from + len`; what `step` returns.
pub(crate) fn copy(
    name: &str,
    source: &File,
    from: u64,
    len: u64,
    target: &File,
    to: u64,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let have = source
        .metadata()
        .doing(|| format!("looking at the size of {name}"))?
        .len();
    let end = from.checked_add(len).filter(|end| *end <= have);
    let Some(end) = end else {
        return Err(too_short(name, from.saturating_add(len), have));
    };
    let mut passed = from;
    for extent in DataExtents::new(source, from..end) {
        let extent = extent?;
        step(extent.start.saturating_sub(passed))?;
        copy_data(
            name,
            source,
            extent.clone(),
            target,
            to + (extent.start - from),
            step,
        )?;
        passed = extent.end;
    }
    step(end - passed)
}

fn too_short(name: &str, wanted: u64, have: u64) -> Error {
    Error::input(format!(
        "{name} ends after {have} bytes where {wanted} were expected: it changed while it was read"
    ))
}

fn copy_data(
    name: &str,
    source: &File,
    extent: Range<u64>,
    target: &File,
    to: u64,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut from, mut to) = (extent.start, to);
    while from < extent.end {
        let want = (extent.end - from).min(COPY_STEP);
        let size = usize::try_from(want).unwrap_or(BUFFER);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), size) {
            Ok(0) => return Err(too_short(name, extent.end, from)),
            Ok(n) => step(n as u64)?,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                return copy_by_hand(name, source, from..extent.end, target, to, step);
            }
            Err(e) => {
                return Err(Error::io(
                    format!("copying {name} into the image"),
                    e.into(),
                ));
            }
        }
    }
    Ok(())
}

/// Reads and writes; 4 KiB pages of zeros are left out.
fn copy_by_hand(
    name: &str,
    source: &File,
    extent: Range<u64>,
    target: &File,
    mut to: u64,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0u8; BUFFER];
    let mut from = extent.start;
    while from < extent.end {
        let want = usize::try_from(extent.end - from).map_or(BUFFER, |n| n.min(BUFFER));
        let chunk = &mut buffer[..want];
        source
            .read_exact_at(chunk, from)
            .doing(|| format!("reading {name}"))?;
        write_sparse(target, to, chunk).doing(|| format!("copying {name} into the image"))?;
        from += want as u64;
        to += want as u64;
        step(want as u64)?;
    }
    Ok(())
}

/// Writes `data` at `at`, leaving out 4 KiB pieces of zeros: the target must read as zeros there.
pub(crate) fn write_sparse(target: &File, at: u64, data: &[u8]) -> std::io::Result<()> {
    const PAGE: usize = 4096;
    let mut at = at;
    for run in data.chunk_by_zero_pages(PAGE) {
        if !run.zero {
            target.write_all_at(run.bytes, at)?;
        }
        at += run.bytes.len() as u64;
    }
    Ok(())
}

/// A longest run of pages that are all zeros, or none of which is.
pub(crate) struct Run<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) zero: bool,
}

/// Cuts bytes into runs of zero pages and others.
pub(crate) trait ZeroPages {
    /// `page` is the granularity in bytes.
    fn chunk_by_zero_pages(&self, page: usize) -> impl Iterator<Item = Run<'_>>;
}

impl ZeroPages for [u8] {
    fn chunk_by_zero_pages(&self, page: usize) -> impl Iterator<Item = Run<'_>> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let zero = is_zero(rest.chunks(page).next()?);
            let len: usize = rest
                .chunks(page)
                .take_while(|p| is_zero(p) == zero)
                .map(<[u8]>::len)
                .sum();
            let (bytes, tail) = rest.split_at(len);
            rest = tail;
            Some(Run { bytes, zero })
        })
    }
}

/// Whether all bytes are zero. Looks at the ends first, as most data is told from zeros there.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    if data.first().is_some_and(|b| *b != 0) || data.last().is_some_and(|b| *b != 0) {
        return false;
    }
    let (words, rest) = data.as_chunks::<64>();
    words.iter().all(|w| w.iter().fold(0, |a, b| a | b) == 0) && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn runs_of_zero_pages_are_told_apart() {
        let mut data = [0u8; 40];
        data[17] = 1;
        let runs: Vec<_> = data
            .chunk_by_zero_pages(8)
            .map(|r| (r.bytes.len(), r.zero))
            .collect();
        assert_eq!(runs, [(16, true), (8, false), (16, true)]);
        assert!(is_zero(&[]));
        assert!(!is_zero(&[0, 1, 0]));
        assert!(!is_zero(&[&[0u8; 100][..], &[1], &[0; 100]].concat()));
    }

    #[test]
    fn holes_stay_holes_and_bytes_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = File::create_new(dir.path().join("a")).unwrap();
        source.write_all(&[7; 5000]).unwrap();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(&[9; 3], 33 << 20).unwrap();
        let source = File::open(dir.path().join("a")).unwrap();
        let target = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("b"))
            .unwrap();
        target.set_len(80 << 20).unwrap();
        let mut passed = 0;
        copy("a", &source, 0, 64 << 20, &target, 1 << 20, &mut |n| {
            passed += n;
            Ok(())
        })
        .unwrap();
        assert_eq!(passed, 64 << 20);
        let (mut want, mut got) = (vec![0; 64 << 20], vec![0; 64 << 20]);
        source.read_exact_at(&mut want, 0).unwrap();
        target.read_exact_at(&mut got, 1 << 20).unwrap();
        assert!(want == got);
        assert!(target.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn a_source_that_shrank_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let target = tempfile::tempfile().unwrap();
        let error = copy("x", &file, 0, 11, &target, 0, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Input);
        assert!(error.to_string().contains("x ends after 10 bytes"));
    }
}
