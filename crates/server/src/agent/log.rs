//! The log of an attempt: whole lines of UTF-8, appended.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memchr_iter;
use memchr::memmem::Finder;

use super::mask::Mask;
use crate::wire::time;

/// A line without an end is ended here.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes that are read at once of what a step says.
pub(super) const CHUNK: usize = 256 << 10;

/// The log; steps share it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    files: Arc<Mutex<Files>>,
    /// Directories of this machine, which are nobody's concern, and what lines say instead.
    places: Arc<Vec<(Finder<'static>, &'static str)>>,
    /// Values of secrets.
    mask: Arc<Mask>,
}

/// How close two moments may be that are not told apart, in milliseconds.
const CLOSE: i64 = 100;

#[derive(Debug)]
struct Files {
    log: File,
    times: File,
    length: u64,
    /// The moment that was written last.
    told: i64,
}

impl Files {
    /// The moment is written first: of lines that were cut off it says nothing wrong.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let now = time::now() / 1_000_000;
        if now - self.told >= CLOSE {
            self.told = now;
            let mut pair = self.length.to_le_bytes().to_vec();
            pair.extend(now.to_le_bytes());
            self.times.write_all(&pair)?;
        }
        self.length += text.len() as u64;
        self.log.write_all(text)
    }
}

impl Log {
    /// Opens the log for what comes next.
    pub(super) fn open(
        path: &Path,
        times: &Path,
        workspace: &Path,
        mask: Mask,
    ) -> io::Result<Self> {
        let open = |path| File::options().create(true).append(true).open(path);
        let (log, times) = (open(path)?, open(times)?);
        let files = Files {
            length: log.metadata()?.len(),
            log,
            times,
            told: 0,
        };
        let finder = |place: &str| Finder::new(place).into_owned();
        let mut places = vec![(finder(&workspace.display().to_string()), "/workspace")];
        if let Some(attempt) = path.parent().filter(|dir| dir.parent().is_some()) {
            places.push((finder(&format!("{}/", attempt.display())), ""));
        }
        Ok(Log {
            files: Arc::new(Mutex::new(files)),
            places: Arc::new(places),
            mask: Arc::new(mask),
        })
    }

    /// A text without the values of secrets.
    pub(super) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.mask.text(text)
    }

    /// Bytes without the values of secrets.
    pub(super) fn shown_bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut shown = Vec::new();
        self.mask.pass(&mut bytes, &mut shown, true);
        shown
    }

    /// Writes lines. The text ends with a line end.
    pub(super) fn write(&self, text: &str) -> io::Result<()> {
        self.put(&self.shown(text))
    }

    fn put(&self, text: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.write(text.as_bytes())
    }

    /// Writes a line.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\n"))
    }

    /// Writes what comes out of a step until its end, each line behind `prefix`.
    pub(super) fn copy(&self, mut from: impl Read, prefix: &str) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        let (mut raw, mut rest): (Vec<u8>, Vec<u8>) = Default::default();
        loop {
            let length = match from.read(&mut chunk) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            raw.extend_from_slice(&chunk[..length]);
            self.mask.pass(&mut raw, &mut rest, length == 0);
            let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None if rest.len() > LONGEST_LINE || length == 0 => rest.len(),
                None => continue,
            };
            if whole > 0 {
                self.put(&self.lines(&rest[..whole], prefix))?;
                rest.drain(..whole);
            }
            if length == 0 {
                if !rest.is_empty() {
                    self.put(&self.lines(&rest, prefix))?;
                }
                return Ok(());
            }
        }
    }

    fn lines(&self, bytes: &[u8], prefix: &str) -> String {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = self.shortened(text);
        let mut lines = String::with_capacity(text.len() + text.len() / 4 + 256);
        let mut from = 0;
        for end in memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
            lines.push_str(prefix);
            lines.push_str(&text[from..end]);
            lines.push('\n');
            from = end + 1;
        }
        lines
    }

    /// A text without directories of this machine. Nearly all have none, and are searched once for each.
    fn shortened<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (place, shown) in self.places.iter() {
            let mut from = 0;
            let mut short = String::new();
            for at in place.find_iter(text.as_bytes()) {
                short.push_str(&text[from..at]);
                short.push_str(shown);
                from = at + place.needle().len();
            }
            if from > 0 {
                short.push_str(&text[from..]);
                text = Cow::Owned(short);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a few bytes at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(5).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn output_becomes_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        let log = Log::open(
            &path,
            &dir.path().join("times"),
            Path::new("/data/w"),
            Mask::default(),
        )
        .unwrap();
        log.line("BUILD").unwrap();
        log.copy(
            Drops("at /data/w/lab.ks: zoë\n\nlast".as_bytes()),
            "Step #0: ",
        )
        .unwrap();
        log.copy(Drops(b"\xff\n"), "").unwrap();
        let kept = format!("whole log: {}/states/1/x\n", dir.path().display());
        log.copy(Drops(kept.as_bytes()), "").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "BUILD\nStep #0: at /workspace/lab.ks: zoë\nStep #0: \nStep #0: last\n\u{fffd}\nwhole log: states/1/x\n"
        );
    }
}
