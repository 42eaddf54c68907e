//! The header structure of RPM packages: an index of tags and a store of their values, in big-endian.
//!
//! ```text
//! 0    8e ad e8 01            magic and version
//! 4    0  0  0  0
//! 8    u32                    tags in the index
//! 12   u32                    bytes of the store
//! 16   tag, type, offset, count, u32 each, for each tag
//! …    the store
//! ```
//!
//! See rpm's own docs/manual/format_header.md and format_v4.md.

use std::collections::BTreeMap;
use std::io::Read;

use crate::{Error, ErrorKind};

const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
/// Bounds, those of rpm.
const MAX_TAGS: u32 = 0xffff;
const MAX_STORE: u32 = 256 << 20;

/// A header whose index was checked: every value lies within the store.
#[derive(Debug)]
pub(super) struct Header {
    /// All bytes of it, as they are signed.
    bytes: Vec<u8>,
    tags: BTreeMap<u32, Value>,
}

/// Where a tag's value is.
#[derive(Clone, Copy, Debug)]
struct Value {
    kind: u32,
    start: usize,
    count: usize,
}

/// The bytes of a header, read within bounds; nothing of it is looked at but its length.
pub(super) fn read(input: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; 16];
    let cut = |_| "it is cut within a header".to_owned();
    input.read_exact(&mut bytes).map_err(cut)?;
    if bytes[..8] != MAGIC {
        return Err("it has no header where one has to be".into());
    }
    let (tags, store) = (word(&bytes, 8), word(&bytes, 12));
    if tags > MAX_TAGS || store > MAX_STORE {
        return Err(format!(
            "a header says that it has {tags} tags in {store} bytes"
        ));
    }
    let length = u64::from(tags) * 16 + u64::from(store);
    let read = input.take(length).read_to_end(&mut bytes).map_err(cut)?;
    match read as u64 == length {
        true => Ok(bytes),
        false => Err("it is cut within a header".into()),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |all, &byte| all << 8 | u32::from(byte))
}

impl Header {
    /// Checks the index of what [`read`] returned.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let count = word(&bytes, 8) as usize;
        let store = 16 + count * 16;
        let mut tags = BTreeMap::new();
        for at in (16..store).step_by(16) {
            let [tag, kind, offset, count] = [0, 4, 8, 12].map(|field| word(&bytes, at + field));
            let value = Value {
                kind,
                start: store.saturating_add(offset as usize),
                count: count as usize,
            };
            let fits = match kind {
                0 => true,
                1 | 2 | 7 => within(&bytes, value, 1),
                3 => within(&bytes, value, 2),
                4 => within(&bytes, value, 4),
                5 => within(&bytes, value, 8),
                6 | 8 | 9 => strings_of(&bytes, value).is_some(),
                _ => false,
            };
            if !fits {
                return Err(format!(
                    "its tag {tag} has a value that does not lie within the header"
                ));
            }
            if tags.insert(tag, value).is_some() {
                return Err(format!("its tag {tag} is there twice"));
            }
        }
        Ok(Header { bytes, tags })
    }

    /// A tag's texts; empty where it is not there, or is something else.
    pub(super) fn strings(&self, tag: u32) -> Vec<&[u8]> {
        let value = self
            .tags
            .get(&tag)
            .filter(|value| matches!(value.kind, 6 | 8 | 9));
        let found = value.and_then(|value| strings_of(&self.bytes, *value));
        found.into_iter().flatten().collect()
    }

    /// A tag's one text.
    pub(super) fn string(&self, tag: u32) -> Option<String> {
        self.strings(tag)
            .first()
            .map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// A tag's numbers, of whatever width.
    pub(super) fn numbers(&self, tag: u32) -> Vec<u64> {
        let value = self.tags.get(&tag);
        let width = |value: &Value| match value.kind {
            2 => 1,
            3 => 2,
            4 => 4,
            5 => 8,
            _ => 0,
        };
        let Some((value, width)) = value
            .map(|value| (value, width(value)))
            .filter(|(_, width)| *width > 0)
        else {
            return Vec::new();
        };
        let bytes = &self.bytes[value.start..value.start + value.count * width];
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |all, &byte| all << 8 | u64::from(byte))
        };
        bytes.chunks_exact(width).map(number).collect()
    }

    /// A tag's bytes.
    pub(super) fn binary(&self, tag: u32) -> Option<&[u8]> {
        let value = self.tags.get(&tag).filter(|value| value.kind == 7)?;
        Some(&self.bytes[value.start..value.start + value.count])
    }
}

fn within(bytes: &[u8], value: Value, width: usize) -> bool {
    let end = value
        .count
        .checked_mul(width)
        .and_then(|length| value.start.checked_add(length));
    end.is_some_and(|end| end <= bytes.len())
}

/// `None` if one has no end within the header.
fn strings_of(bytes: &[u8], value: Value) -> Option<Vec<&[u8]>> {
    let count = if value.kind == 6 { 1 } else { value.count };
    let mut rest = bytes.get(value.start..)?;
    // Each takes a byte at least.
    let mut all = Vec::with_capacity(count.min(rest.len()));
    for _ in 0..count {
        let end = rest.iter().position(|&byte| byte == 0)?;
        all.push(&rest[..end]);
        rest = &rest[end + 1..];
    }
    Some(all)
}

/// The error for a package that is not what one has to be.
pub(super) fn bad(name: &str, why: &str) -> Error {
    let message = format!("{name} is not a usable RPM package: {why}");
    Error::new(ErrorKind::Malformed, message)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of tags: type, count and bytes of each.
    pub(in crate::rpm) fn make(tags: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
        let (mut index, mut store) = (Vec::new(), Vec::new());
        for (tag, kind, count, bytes) in tags {
            for field in [*tag, *kind, store.len() as u32, *count] {
                index.extend(field.to_be_bytes());
            }
            store.extend(bytes);
        }
        let lengths = [tags.len() as u32, store.len() as u32]
            .map(u32::to_be_bytes)
            .concat();
        [&MAGIC[..], &lengths, &index, &store].concat()
    }

    #[test]
    fn values_are_read() {
        let bytes = make(&[
            (1, 6, 1, b"one\0".to_vec()),
            (2, 8, 2, b"a\0b\0".to_vec()),
            (3, 4, 2, vec![0, 0, 0, 1, 0, 0, 1, 0]),
            (4, 7, 3, vec![1, 2, 3]),
        ]);
        let header = Header::parse(read(&mut &bytes[..]).expect("whole")).expect("good");
        assert_eq!(header.string(1).as_deref(), Some("one"));
        assert_eq!(header.strings(2), [b"a", b"b"]);
        assert_eq!(header.numbers(3), [1, 256]);
        assert_eq!(header.binary(4), Some(&[1, 2, 3][..]));
        // Asked for as something else, or not there.
        assert_eq!(
            (header.string(3), header.binary(1), header.numbers(2)),
            (None, None, vec![])
        );
        assert_eq!(header.strings(9).len(), 0);
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let bad = [
            make(&[(1, 6, 1, b"no end".to_vec())]),
            make(&[(1, 8, u32::MAX, b"a\0".to_vec())]),
            make(&[(1, 4, u32::MAX, vec![0; 4])]),
            make(&[(1, 5, 1, vec![0; 7])]),
            make(&[(1, 99, 1, vec![0; 4])]),
            make(&[(1, 7, 1, vec![0]), (1, 7, 1, vec![0])]),
        ];
        for bytes in bad {
            assert!(
                Header::parse(read(&mut &bytes[..]).expect("whole")).is_err(),
                "{bytes:?}"
            );
        }
        let good = make(&[(1, 6, 1, b"one\0".to_vec())]);
        for length in 0..good.len() {
            assert!(read(&mut &good[..length]).is_err(), "{length}");
        }
        // So many tags that nothing is read at all.
        let huge = [&MAGIC[..], &[0xff; 8]].concat();
        assert!(read(&mut &huge[..]).expect_err("too many").contains("tags"));
    }
}
