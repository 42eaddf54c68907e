//! Records, and the seal that binds them to their name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::{CHUNK_MAX, RECORD_MAX};

const HEAD: &str = "kiln-share 1";
/// A secret shorter than this is no secret.
const KEY_MIN: usize = 16;

/// The secret that all machines of a shared cache know.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Makes a key of a file's content; white space around it does not count, so that it survives an editor.
    ///
    /// # Errors
    /// It is too short to be a secret.
    pub fn new(content: &[u8]) -> Result<Key> {
        let content = content.trim_ascii();
        if content.len() < KEY_MIN {
            let why = format!("it is shorter than {KEY_MIN} bytes");
            return Err(Error::new(ErrorKind::Config, "the shared cache's key", why));
        }
        Ok(Key(blake3::derive_key(
            "kiln shared cache records 1",
            content,
        )))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Hexadecimal.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

impl Chunk {
    /// Whether it can be what this version of Kiln wrote.
    fn is_sane(&self) -> bool {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        self.sha256.len() == 64
            && self.sha256.bytes().all(hex)
            && (1..=CHUNK_MAX as u64).contains(&self.size)
    }

    /// Its name in the store, below the version's directory.
    pub(crate) fn name(&self) -> String {
        let (shard, _) = self.sha256.split_at_checked(2).unwrap_or(("xx", ""));
        format!("chunks/{shard}/{}", self.sha256)
    }
}

/// What a result consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the caller wants to know of it.
    pub facts: serde_json::Value,
    /// Its files by name, each in chunks.
    pub files: BTreeMap<String, Vec<Chunk>>,
}

impl Record {
    /// Returns the bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().flatten().map(|chunk| chunk.size).sum()
    }

    pub(crate) fn seal(&self, name: &str, key: Option<&Key>) -> Result<Vec<u8>> {
        let body =
            serde_json::to_vec(self).map_err(|error| Error::new(ErrorKind::Local, name, error))?;
        let mut text = format!("{HEAD} {}\n", seal(name, &body, key)).into_bytes();
        text.extend_from_slice(&body);
        if text.len() > RECORD_MAX {
            let why = "its record would be too large";
            return Err(Error::new(ErrorKind::Local, name, why));
        }
        Ok(text)
    }

    pub(crate) fn open(name: &str, text: &[u8], key: Option<&Key>) -> Result<Record> {
        let damaged = |why: &str| Error::new(ErrorKind::Damaged, name, why);
        let end = text.iter().position(|byte| *byte == b'\n');
        let (head, body) = end
            .and_then(|end| text.split_at_checked(end))
            .ok_or_else(|| damaged("it is no record"))?;
        let body = &body[1..];
        let found = std::str::from_utf8(head)
            .ok()
            .and_then(|head| head.strip_prefix(HEAD)?.strip_prefix(' '))
            .ok_or_else(|| damaged("it is no record"))?;
        if !same(found, &seal(name, body, key)) {
            return Err(damaged(match (key, found.split(' ').next()) {
                (Some(_), Some("plain")) => "it was written without the key",
                (None, Some("keyed")) => "it was written with a key, and none is given here",
                _ => "its seal is wrong: it was changed, or written with another key",
            }));
        }
        let record: Record =
            serde_json::from_slice(body).map_err(|_| damaged("it is no record"))?;
        let sane = record.files.values().flatten().all(Chunk::is_sane);
        sane.then_some(record)
            .ok_or_else(|| damaged("it names chunks that cannot be"))
    }
}

fn seal(name: &str, body: &[u8], key: Option<&Key>) -> String {
    let (word, mut hasher) = match key {
        Some(key) => ("keyed", blake3::Hasher::new_keyed(&key.0)),
        None => ("plain", blake3::Hasher::new()),
    };
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes()).update(body);
    format!("{word} {}", hasher.finalize().to_hex())
}

/// Takes the same time wherever the texts differ.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes()).expect("a key")
    }

    fn record() -> Record {
        let chunk = Chunk {
            sha256: "ab".repeat(32),
            size: 5,
        };
        Record {
            facts: serde_json::json!({ "title": "x" }),
            files: [("fs".to_owned(), vec![chunk])].into(),
        }
    }

    #[test]
    fn a_record_is_bound_to_its_name_and_to_the_key() {
        let ours = key("0123456789abcdef\n");
        let text = record().seal("layers/a", Some(&ours)).expect("sealed");
        assert_eq!(
            Record::open("layers/a", &text, Some(&ours)).expect("genuine"),
            record()
        );
        let other = key("another secret, also long");
        for (name, key) in [
            ("layers/b", Some(&ours)),
            ("layers/a", Some(&other)),
            ("layers/a", None),
        ] {
            let error = Record::open(name, &text, key).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        }
        let plain = record().seal("layers/a", None).expect("sealed");
        assert!(Record::open("layers/a", &plain, None).is_ok());
        let error = Record::open("layers/a", &plain, Some(&ours)).expect_err("no seal");
        assert!(error.to_string().contains("without the key"), "{error}");
    }

    #[test]
    fn no_flipped_or_missing_byte_goes_unnoticed() {
        let ours = key("0123456789abcdef");
        for key in [Some(&ours), None] {
            let text = record().seal("layers/a", key).expect("sealed");
            for at in 0..text.len() {
                let mut flipped = text.clone();
                flipped[at] ^= 1;
                assert!(Record::open("layers/a", &flipped, key).is_err(), "{at}");
                assert!(Record::open("layers/a", &text[..at], key).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_sealed_record_must_still_make_sense() {
        for (sha256, size) in [
            ("../../etc/passwd", 5),
            (&*"AB".repeat(32), 5),
            (&*"ab".repeat(32), u64::MAX),
            (&*"ab".repeat(32), 0),
        ] {
            let mut record = record();
            let chunk = Chunk {
                sha256: sha256.to_owned(),
                size,
            };
            record.files.insert("x".to_owned(), vec![chunk]);
            let text = record.seal("a", None).expect("sealed");
            assert!(Record::open("a", &text, None).is_err(), "{sha256} {size}");
        }
    }

    #[test]
    fn a_short_secret_is_none() {
        assert!(Key::new(b"  0123456789abcde \n").is_err());
        assert_eq!(
            format!("{:?}", Key::new(b"0123456789abcdef").expect("long enough")),
            "Key(…)"
        );
    }
}
