//! The sequential part of the image's bytes.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use super::format::PADDING;
use crate::Result;
use crate::error::IoContext;

/// Counts what goes out, and remembers where the image starts in the target.
pub(super) struct Output<W: Write + Seek> {
    inner: BufWriter<W>,
    base: u64,
    position: u64,
}

impl<W: Write + Seek> Output<W> {
    /// The image starts where the target stands now.
    pub(super) fn new(mut target: W) -> Result<Self> {
        let base = target.stream_position().doing(doing)?;
        Ok(Output {
            inner: BufWriter::with_capacity(1 << 20, target),
            base,
            position: 0,
        })
    }

    /// Bytes since the start of the image.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).doing(doing)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Pads, puts `head` over the first bytes, and leaves the target behind the image. Gives the padded length.
    pub(super) fn finish(mut self, head: &[u8]) -> Result<u64> {
        let padded = self.position.next_multiple_of(PADDING);
        self.write(&vec![0; (padded - self.position) as usize])?;
        self.inner.seek(SeekFrom::Start(self.base)).doing(doing)?;
        self.inner.write_all(head).doing(doing)?;
        self.inner
            .seek(SeekFrom::Start(self.base + padded))
            .doing(doing)?;
        self.inner.flush().doing(doing)?;
        Ok(padded)
    }
}

fn doing() -> String {
    "writing the SquashFS".to_owned()
}
