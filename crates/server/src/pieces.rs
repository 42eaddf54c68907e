//! A file in pieces, as the body of an answer.
//!
//! What is in the kernel's cache is read where it is asked for; only what has to come from a disk is left to another thread. After each
//! piece others get their turn: fifty readers of a log do not keep a small request waiting.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use rustix::io::{ReadWriteFlags, preadv2};

/// Bytes of a piece: less than a processor's second cache, since they are copied on at once.
const PIECE: u64 = 128 << 10;

struct Reading {
    file: Arc<File>,
    left: Range<u64>,
    /// Used again for the next piece when the last one is sent.
    buffer: BytesMut,
}

/// The bytes of a file that is as long, and does not get shorter.
pub(crate) fn of(
    file: File,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let reading = Reading {
        file: Arc::new(file),
        left: range,
        buffer: BytesMut::new(),
    };
    futures_util::stream::try_unfold(reading, async |mut reading| {
        let piece = reading.next().await?;
        Ok(piece.map(|piece| (piece, reading)))
    })
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Range { start, end } = self.left;
        let Ok(length @ 1..) = usize::try_from(end.saturating_sub(start).min(PIECE)) else {
            return Ok(None);
        };
        tokio::task::yield_now().await;
        self.buffer.resize(length, 0);
        let slices = &mut [IoSliceMut::new(&mut self.buffer)];
        let read = match preadv2(&self.file, slices, start, ReadWriteFlags::NOWAIT) {
            Ok(read @ 1..) => read,
            // It is not there yet, or the file system does not say.
            _ => self.wait(start).await?,
        };
        self.buffer.truncate(read);
        self.left.start += read as u64;
        Ok(Some(self.buffer.split().freeze()))
    }

    /// Reads what has to come from a disk.
    async fn wait(&mut self, from: u64) -> io::Result<usize> {
        let (file, mut buffer) = (Arc::clone(&self.file), std::mem::take(&mut self.buffer));
        let read = tokio::task::spawn_blocking(move || {
            let read = loop {
                match file.read_at(&mut buffer, from) {
                    Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            (read, buffer)
        });
        let (read, buffer) = read.await.map_err(io::Error::other)?;
        self.buffer = buffer;
        read
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn pieces_are_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &text).unwrap();
        for range in [0..400_000, 5..131_077, 399_999..400_000, 7..7] {
            let pieces = of(File::open(&path).unwrap(), range.clone());
            let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
            let place = range.start as usize..range.end as usize;
            assert_eq!(pieces.concat(), text[place], "{range:?}");
        }
        let short = of(File::open(&path).unwrap(), 399_990..400_001);
        let error = short.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
