//! What compilers made of packages in earlier builds.
//!
//! ```text
//! <layer>/compiled    for each answer a line, and the answer, compressed with zstd:
//!   key, hexadecimal NUL bytes that follow LF
//! answer              little-endian length of the sums; sums, for sha256sum; archive of what was made (tar)
//! ```

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::ops::Range;

use super::super::asks::{Ask, Compiler};
use super::super::native::Module;
use crate::store::Store;

/// Beside a layer: what compilers made of the packages in it.
pub(super) const COMPILED: &str = "compiled";
/// Layers that are looked at.
const MOST: usize = 12;
/// No answer is longer.
const LONGEST: u64 = 512 << 20;
/// What is compiled shrinks to a third at the quickest, and not much further.
const LEVEL: i32 = 1;
/// Changes whenever compilers are run in another way, or an answer has another format.
const FORMAT: &[u8] = b"1";

/// What was made of one package by one compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// What the files have to be that it was made of, for sha256sum.
    pub(super) sums: String,
    /// What was made.
    pub(super) archive: Vec<u8>,
}

/// Names an answer: everything that it can depend on.
///
/// `compilers` are the SHA-256 of all packages in the compilers' root, in order, `packages` those of
/// the packages that are compiled.
pub(super) fn key(compilers: &[String], filters: &str, packages: &[String], ask: &Ask) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    let own = [filters.to_owned(), ask.compiler.name().to_owned()];
    for words in [compilers, &own, packages, &ask.packages] {
        for word in words {
            hasher.update(word.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(&[0]);
    }
    hasher.finalize().to_hex().to_string()
}

/// The sums of a package's modules and its compiler.
pub(super) fn sums(compiler: Compiler, program: &str, modules: &[Module]) -> String {
    let program = format!("{program}  /usr/bin/{}\n", compiler.name());
    let lines = modules
        .iter()
        .map(|m| format!("{}  {}\n", m.sha256, m.path));
    std::iter::once(program).chain(lines).collect()
}

impl Answer {
    /// As it stands in notes.
    pub(super) fn note(&self, key: &str) -> io::Result<Vec<u8>> {
        let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
        packer.include_checksum(true)?;
        let length = u32::try_from(self.sums.len()).map_err(io::Error::other)?;
        packer.write_all(&length.to_le_bytes())?;
        packer.write_all(self.sums.as_bytes())?;
        packer.write_all(&self.archive)?;
        let packed = packer.finish()?;
        let mut note = format!("{key}\0{}\n", packed.len()).into_bytes();
        note.extend(packed);
        Ok(note)
    }

    /// Reads what follows a line; `None` if it is damaged.
    fn read(packed: &[u8]) -> Option<Answer> {
        let mut bytes = Vec::new();
        let reader = zstd::Decoder::new(packed).ok()?;
        let read = reader.take(LONGEST).read_to_end(&mut bytes).ok()?;
        if read as u64 == LONGEST {
            return None;
        }
        let (length, rest) = bytes.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (sums, archive) = rest.split_at_checked(length)?;
        Some(Answer {
            sums: std::str::from_utf8(sums).ok()?.to_owned(),
            archive: archive.to_vec(),
        })
    }
}

/// Looks for answers beside the layers used last. `found` gets each with its key and its note.
pub(super) fn find(store: &Store, keys: &[&str], found: &mut dyn FnMut(&str, Answer, &[u8])) {
    let mut wanted: Vec<&str> = keys.to_vec();
    for layer in store.with_attachment(COMPILED, MOST) {
        if wanted.is_empty() {
            return;
        }
        let notes = layer
            .attachment(COMPILED)
            .and_then(|path| fs::read(path).ok());
        let Some(notes) = notes else { continue };
        let places = places(&notes);
        wanted.retain(|&key| {
            let answer = places.get(key).and_then(|place| {
                let note = notes.get(place.clone())?;
                let end = note.iter().position(|&b| b == b'\n')?;
                Some((Answer::read(&note[end + 1..])?, note))
            });
            let Some((answer, note)) = answer else {
                return true;
            };
            found(key, answer, note);
            false
        });
    }
}

/// Where each key's line and answer are.
fn places(notes: &[u8]) -> HashMap<String, Range<usize>> {
    let mut places = HashMap::new();
    let mut at = 0;
    while let Some((key, end)) = next(notes, at) {
        places.entry(key).or_insert(at..end);
        at = end;
    }
    places
}

fn next(notes: &[u8], at: usize) -> Option<(String, usize)> {
    let rest = notes.get(at..)?;
    let line = rest.iter().position(|&b| b == b'\n')?;
    let (key, length) = std::str::from_utf8(&rest[..line]).ok()?.split_once('\0')?;
    let end = (at + line + 1).checked_add(length.parse().ok()?)?;
    (end <= notes.len()).then(|| (key.to_owned(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            sums: format!("{text}\n"),
            archive: text.repeat(3).into_bytes(),
        }
    }

    #[test]
    fn notes_are_read_as_they_were_written_and_damaged_ones_not_at_all() {
        let mut notes = answer("one").note("1").expect("a note");
        let first = notes.len();
        notes.extend(answer("two").note("2").expect("a note"));
        let read = |notes: &[u8], key: &str| {
            let place = places(notes).get(key)?.clone();
            let note = &notes[place];
            let line = note.iter().position(|&b| b == b'\n')?;
            Answer::read(&note[line + 1..])
        };
        assert_eq!(read(&notes, "1"), Some(answer("one")));
        assert_eq!(read(&notes, "2"), Some(answer("two")));
        assert_eq!(read(&notes, "3"), None);
        for cut in 0..notes.len() {
            let two = read(&notes[..cut], "2");
            assert_eq!(two, None, "{cut}");
            let one = read(&notes[..cut], "1");
            assert_eq!(one.is_some(), cut >= first, "{cut}");
        }
        for at in 0..notes.len() {
            let mut flipped = notes.clone();
            flipped[at] ^= 4;
            for (key, text) in [("1", "one"), ("2", "two")] {
                let found = read(&flipped, key);
                assert!(found.is_none_or(|a| a == answer(text)), "{at}");
            }
        }
        assert!(places(b"1\0999999999999999999999\n").is_empty());
        assert!(places(b"1\x0018446744073709551615\n").is_empty());
    }

    #[test]
    fn everything_that_can_make_a_difference_makes_another_key() {
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let key = |compilers: &[&str], filters, packages: &[&str], compiler, names: &[&str]| {
            let packages_named = words(names);
            let ask = Ask {
                compiler,
                packages: packages_named,
            };
            key(&words(compilers), filters, &words(packages), &ask)
        };
        let (py, pypy) = (Compiler::Py3compile, Compiler::Pypy3compile);
        let keys = [
            key(&["1"], "f", &["p"], py, &["a"]),
            key(&["2"], "f", &["p"], py, &["a"]),
            key(&["1", "1"], "f", &["p"], py, &["a"]),
            key(&["1"], "g", &["p"], py, &["a"]),
            key(&["1"], "f", &["q"], py, &["a"]),
            key(&["1"], "f", &["p"], pypy, &["a"]),
            key(&["1"], "f", &["p"], py, &["a:amd64"]),
            key(&["1"], "f", &["p", "a"], py, &[]),
            key(&["1"], "f", &["p"], pypy, &["a", "b"]),
        ];
        let different: std::collections::HashSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
