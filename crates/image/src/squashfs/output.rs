//! The sequential part of the image's bytes.

use std::fs::File;
use std::io::{BufWriter, Cursor, Seek, SeekFrom, Write};

use rustix::fs::{OFlags, fcntl_getfl};

use super::format::PADDING;
use crate::Result;
use crate::error::IoContext;

/// Where an image goes.
pub trait Target: Write + Seek {
    /// A second handle to the same bytes, at any place of which several threads can write at once; `None` where there is none.
    fn shared(&self) -> Option<File> {
        None
    }
}

impl Target for File {
    fn shared(&self) -> Option<File> {
        let flags = fcntl_getfl(self).ok()?;
        // It would write at the end, whatever the place (pwrite(2)).
        let anywhere = !flags.contains(OFlags::APPEND);
        anywhere.then(|| self.try_clone().ok()).flatten()
    }
}

impl Target for &File {
    fn shared(&self) -> Option<File> {
        File::shared(self)
    }
}

impl<T: Target + ?Sized> Target for &mut T {
    fn shared(&self) -> Option<File> {
        (**self).shared()
    }
}

impl Target for Cursor<Vec<u8>> {}

/// Less than most of what is copied from a block store at once, so that it is written without a further copy.
const BUFFER: usize = 256 << 10;

/// Another handle to where an image goes.
pub(super) struct Direct {
    pub(super) file: File,
    /// Where the file has the image's byte 0.
    pub(super) base: u64,
}

/// Counts what goes out, and remembers where the image starts in the target.
pub(super) struct Output<W: Target> {
    inner: BufWriter<W>,
    base: u64,
    position: u64,
    /// Whether the target stands elsewhere, because others have written what lies before the position.
    behind: bool,
    shared: Option<File>,
}

impl<W: Target> Output<W> {
    /// The image starts where the target stands now.
    pub(super) fn new(mut target: W) -> Result<Self> {
        let base = target.stream_position().doing(doing)?;
        Ok(Output {
            shared: target.shared(),
            behind: false,
            inner: BufWriter::with_capacity(BUFFER, target),
            base,
            position: 0,
        })
    }

    /// Bytes since the start of the image.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// For those who write without a detour what comes next; see [`Target::shared`].
    pub(super) fn direct(&self) -> Option<Direct> {
        let file = self.shared.as_ref()?.try_clone().ok()?;
        Some(Direct {
            file,
            base: self.base,
        })
    }

    /// Others have written so many bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<()> {
        if !self.behind {
            self.inner.flush().doing(doing)?;
            self.behind = true;
        }
        self.position += length;
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if std::mem::take(&mut self.behind) {
            let here = SeekFrom::Start(self.base + self.position);
            self.inner.seek(here).doing(doing)?;
        }
        self.inner.write_all(bytes).doing(doing)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Pads, puts `head` over the first bytes, and leaves the target behind the image. Returns the padded length.
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

pub(super) fn doing() -> String {
    "writing the SquashFS".to_owned()
}
