//! Where the lines of a log stand, so that any of a million can be shown at once; and which of them tell of steps and layers.
//!
//! An index is made when somebody looks, grows with the log and is forgotten when others were looked at since.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The place of every line of this many is known; those between are counted.
const STRIDE: u64 = 256;
/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// Logs that are known at a time.
const KNOWN: usize = 32;
/// Notes that are kept of a log.
const MOST_NOTES: usize = 4000;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// A part of the build begins: the source, a step, the artifacts.
    Part,
    /// A step has ended.
    PartEnd,
    /// One of Kiln's steps runs.
    Running,
    /// Why it does.
    Because,
    /// Its result was there.
    Cached,
    /// It has ended well.
    Done,
    /// It has not.
    Failed,
    /// Why something failed.
    Error,
}

/// A line that tells something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Its number, counted from 1.
    pub(super) line: u64,
    /// What it tells.
    pub(super) tells: Tells,
    /// Of what.
    pub(super) text: String,
}

/// The lines of a log as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Index {
    size: u64,
    lines: u64,
    marks: Vec<u64>,
    notes: Vec<Note>,
}

impl Index {
    /// Lines that are whole.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// What lines tell, in their order.
    pub(super) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Reads on.
    fn grow(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size < self.size {
            *self = Index::default();
        }
        if size == self.size {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.size))?;
        let mut rest: Vec<u8> = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = file.read(&mut chunk)?;
            if length == 0 {
                return Ok(());
            }
            rest.extend_from_slice(&chunk[..length]);
            let mut from = 0;
            for end in memchr::memchr_iter(b'\n', &rest) {
                self.line(&rest[from..end]);
                from = end + 1;
            }
            rest.drain(..from);
        }
    }

    fn line(&mut self, line: &[u8]) {
        if self.lines.is_multiple_of(STRIDE) {
            self.marks.push(self.size);
        }
        self.lines += 1;
        self.size += line.len() as u64 + 1;
        if self.notes.len() < MOST_NOTES
            && let Some((tells, text)) = told(line)
        {
            let line = self.lines;
            self.notes.push(Note { line, tells, text });
        }
    }

    /// Where the `number`th line begins, counted from 1, and a reader that stands there.
    fn at(&self, path: &Path, number: u64) -> io::Result<Option<(u64, BufReader<File>)>> {
        if number == 0 || number > self.lines {
            return Ok(None);
        }
        let skipped = (number - 1) % STRIDE;
        let mark = usize::try_from((number - 1) / STRIDE).unwrap_or(usize::MAX);
        let Some(mut at) = self.marks.get(mark).copied() else {
            return Ok(None);
        };
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut reader = BufReader::with_capacity(64 << 10, file);
        for _ in 0..skipped {
            at += reader.skip_until(b'\n')? as u64;
        }
        Ok(Some((at, reader)))
    }

    /// At most `count` lines from the `number`th on, each with the place of its end in the file.
    pub(super) fn read(
        &self,
        path: &Path,
        number: u64,
        count: u64,
    ) -> io::Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        let Some((mut at, mut reader)) = self.at(path, number)? else {
            return Ok(found);
        };
        let mut line = Vec::new();
        for _ in 0..count.min(self.lines + 1 - number) {
            line.clear();
            at += reader.read_until(b'\n', &mut line)? as u64;
            found.push((
                at,
                String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned(),
            ));
        }
        Ok(found)
    }

    /// The numbers of lines that have a text, whatever the case of its letters: how many, and the first `most` of them.
    pub(super) fn search(
        &self,
        path: &Path,
        text: &str,
        most: usize,
    ) -> io::Result<(u64, Vec<u64>)> {
        let wanted = text.to_lowercase();
        let Some((_, mut reader)) = self.at(path, 1)? else {
            return Ok((0, Vec::new()));
        };
        let (mut count, mut found) = (0, Vec::new());
        let mut line = Vec::new();
        for number in 1..=self.lines {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let fits = if wanted.is_ascii() && line.is_ascii() {
                line.make_ascii_lowercase();
                memchr::memmem::find(&line, wanted.as_bytes()).is_some()
            } else {
                String::from_utf8_lossy(&line)
                    .to_lowercase()
                    .contains(&wanted)
            };
            if fits {
                count += 1;
                if found.len() < most {
                    found.push(number);
                }
            }
        }
        Ok((count, found))
    }
}

/// What a line tells, and of what, whichever colours it has.
fn told(line: &[u8]) -> Option<(Tells, String)> {
    let plain = |bytes: &[u8]| super::ansi::plain(&String::from_utf8_lossy(bytes));
    if memchr::memchr(0x1b, line).is_some() {
        let line = plain(line);
        let (kind, text) = tells(line.as_bytes())?;
        return Some((kind, plain(text)));
    }
    tells(line).map(|(kind, text)| (kind, plain(text)))
}

/// What a line tells. Kiln's own words stand in a column where nothing that a script prints can stand.
fn tells(line: &[u8]) -> Option<(Tells, &[u8])> {
    let whole = |tells| Some((tells, line));
    match line {
        b"FETCHSOURCE" | b"BUILD" | b"PUSH" | b"DONE" | b"TIMEOUT" | b"CANCELLED" => {
            return whole(Tells::Part);
        }
        _ if line.starts_with(b"Starting Step #") => return whole(Tells::Part),
        _ if line.starts_with(b"Finished Step #") => return whole(Tells::PartEnd),
        _ if line.starts_with(b"ERROR: ") => return whole(Tells::Error),
        _ => {}
    }
    let own = match line.strip_prefix(b"Step #") {
        Some(_) => &line[memchr::memmem::find(line, b": ")? + 2..],
        None => line,
    };
    for (verb, kind) in [
        (&b" running "[..], Tells::Running),
        (b"  cached ", Tells::Cached),
        (b"    done ", Tells::Done),
        (b"  failed ", Tells::Failed),
        (b"         because ", Tells::Because),
        (b"error[", Tells::Error),
    ] {
        if let Some(text) = own.strip_prefix(verb) {
            return Some((kind, if kind == Tells::Error { own } else { text }));
        }
    }
    None
}

/// The logs that somebody looked at lately.
#[derive(Debug, Default)]
pub(super) struct Logs(Mutex<Vec<(PathBuf, Arc<Mutex<Index>>)>>);

impl Logs {
    /// Does something with a log's index, which knows of all that the log has by now.
    pub(super) fn with<T>(
        &self,
        path: &Path,
        work: impl FnOnce(&Index) -> io::Result<T>,
    ) -> io::Result<T> {
        let index = self.of(path);
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        index.grow(path)?;
        work(&index)
    }

    fn of(&self, path: &Path) -> Arc<Mutex<Index>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match known.iter().position(|(other, _)| other == path) {
            Some(at) => known.remove(at),
            None => (path.to_owned(), Arc::default()),
        };
        let index = Arc::clone(&entry.1);
        known.push(entry);
        if known.len() > KNOWN {
            known.remove(0);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_of_many_lines_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        let text: String = (1..=10_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        std::fs::write(&path, text + "not yet").unwrap();
        let logs = Logs::default();
        let read = |number, count| {
            let found = logs
                .with(&path, |index| index.read(&path, number, count))
                .unwrap();
            let texts: Vec<String> = found.into_iter().map(|(_, text)| text).collect();
            texts.join(" ")
        };
        assert_eq!(read(1, 2), "line 1 line 2");
        assert_eq!(read(256, 2), "line 256 line 257");
        assert_eq!(read(9_999, 10), "line 9999 line 10000");
        assert_eq!(
            (read(0, 5), read(10_001, 5)),
            (String::new(), String::new())
        );
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b" whole\n").unwrap();
        assert_eq!(read(10_001, 5), "not yet whole");
        let found = logs
            .with(&path, |index| index.search(&path, "LINE 99", 2))
            .unwrap();
        assert_eq!(found, (111, vec![99, 990]));
        // Another log in its place.
        std::fs::write(&path, "short\n").unwrap();
        assert_eq!(read(1, 5), "short");
    }

    #[test]
    fn lines_tell_of_steps_and_nothing_that_a_script_prints_does() {
        let log = "FETCHSOURCE\nStarting Step #0 - \"a\"\nStep #0 - \"a\":   cached tools: unpacking\n running x\n         because y is new\n    done x (1.0 s)\n       |  running fake\n       | \x1b[31merror[step]: fake\n\x1b[1;31merror[step]\x1b[0m: real\nFinished Step #0 - \"a\"\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        std::fs::write(&path, log).unwrap();
        let logs = Logs::default();
        let notes = logs
            .with(&path, |index| Ok(index.notes().to_vec()))
            .unwrap();
        let seen: Vec<(u64, Tells, &str)> = notes
            .iter()
            .map(|note| (note.line, note.tells, note.text.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (1, Tells::Part, "FETCHSOURCE"),
                (2, Tells::Part, "Starting Step #0 - \"a\""),
                (3, Tells::Cached, "tools: unpacking"),
                (4, Tells::Running, "x"),
                (5, Tells::Because, "y is new"),
                (6, Tells::Done, "x (1.0 s)"),
                (9, Tells::Error, "error[step]: real"),
                (10, Tells::PartEnd, "Finished Step #0 - \"a\""),
            ]
        );
    }
}
