//! Long names, and the 8.3 names that go with them (fatgen103, "Long Directory Entries" and "Name Limits").

use std::collections::BTreeSet;

use super::{ENTRY, attribute};
use crate::error::{Error, Result};

/// Longest name in UTF-16 units.
const MAX_UNITS: usize = 255;
/// UTF-16 units in one long-name entry.
const UNITS_PER_ENTRY: usize = 13;
/// Set in the number of the last piece of a long name, which comes first.
const LAST_PIECE: u8 = 0x40;
/// Where the units of a long-name entry lie.
const UNIT_OFFSETS: [usize; UNITS_PER_ENTRY] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// An 8.3 name: eight characters and three, filled up with spaces, without the dot.
pub(super) type Short = [u8; 11];

/// A name in both forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) short: Short,
    /// The long name in UTF-16, unless the short one says it all.
    long: Vec<u16>,
}

impl Name {
    /// Number of directory entries it takes.
    pub(super) fn entries(&self) -> usize {
        1 + self.long.len().div_ceil(UNITS_PER_ENTRY)
    }

    /// Appends the long-name entries, last piece first.
    pub(super) fn write_long(&self, out: &mut Vec<u8>) {
        let sum = checksum(&self.short);
        let pieces: Vec<&[u16]> = self.long.chunks(UNITS_PER_ENTRY).collect();
        for (index, piece) in pieces.iter().enumerate().rev() {
            let last = if index + 1 == pieces.len() {
                LAST_PIECE
            } else {
                0
            };
            out.extend(long_entry((index as u8 + 1) | last, sum, piece));
        }
    }
}

fn long_entry(number: u8, sum: u8, piece: &[u16]) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[0] = number;
    entry[11] = attribute::LONG_NAME;
    entry[13] = sum;
    let filler = [0].into_iter().chain(std::iter::repeat(0xffff));
    let units = piece.iter().copied().chain(filler);
    for (offset, unit) in UNIT_OFFSETS.into_iter().zip(units) {
        entry[offset..offset + 2].copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

/// Ties long-name entries to their short name.
pub(super) fn checksum(short: &Short) -> u8 {
    short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Refuses names that FAT, Windows or GRUB could not open again.
pub(super) fn check(name: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(Error::input(format!(
            "`{}` cannot be a file name on FAT: {why}",
            name.escape_debug()
        )))
    };
    if name.is_empty() || name == "." || name == ".." {
        return wrong("it is no name");
    }
    if name.encode_utf16().count() > MAX_UNITS {
        return wrong("it is longer than 255 characters");
    }
    if let Some(c) = name
        .chars()
        .find(|c| *c < ' ' || *c == '\x7f' || "\"*/:<>?\\|".contains(*c))
    {
        return wrong(&format!("it contains `{}`", c.escape_debug()));
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return wrong("it begins with a blank or ends in a blank or dot");
    }
    Ok(())
}

/// FAT compares names without case: two names with the same key cannot lie in one directory.
pub(super) fn key(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Gives every name of a directory its short name. Names that are 8.3 names already keep theirs; the others get
/// what is left, in order, so the same directory always gets the same names.
pub(super) fn assign<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<Name>> {
    let mut taken: BTreeSet<Short> = names.clone().filter_map(exact).collect();
    names
        .map(|name| match exact(name) {
            Some(short) => Ok(Name {
                short,
                long: Vec::new(),
            }),
            None => Ok(Name {
                short: generate(name, &mut taken)?,
                long: name.encode_utf16().collect(),
            }),
        })
        .collect()
}

/// The short name, where it says everything: upper case, 8.3, no special character.
fn exact(name: &str) -> Option<Short> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let fits = |part: &str, len| part.len() <= len && part.bytes().all(is_short);
    let whole = !base.is_empty() && !name.ends_with('.');
    (whole && fits(base, 8) && fits(extension, 3))
        .then(|| join(base.as_bytes(), extension.as_bytes()))
}

/// Characters that a short name holds as they are.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

fn join(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; 11];
    for (to, from) in short.iter_mut().zip(base.iter().take(8)) {
        *to = *from;
    }
    for (to, from) in short.iter_mut().skip(8).zip(extension.iter().take(3)) {
        *to = *from;
    }
    short
}

/// "The Basis-Name Generation Algorithm" and "The Numeric-Tail Generation Algorithm".
fn generate(name: &str, taken: &mut BTreeSet<Short>) -> Result<Short> {
    let trimmed = name.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let (base, base_lossy) = basis(base);
    let (extension, extension_lossy) = basis(extension);
    let lossy = base_lossy || extension_lossy || trimmed.len() != name.len();
    if !lossy && base.len() <= 8 && extension.len() <= 3 && !base.is_empty() {
        let short = join(&base, &extension);
        if taken.insert(short) {
            return Ok(short);
        }
    }
    for number in 1..=999_999u32 {
        let tail = format!("~{number}");
        let mut stem: Vec<u8> = base.iter().copied().take(8 - tail.len()).collect();
        stem.extend(tail.bytes());
        let short = join(&stem, &extension);
        if taken.insert(short) {
            return Ok(short);
        }
    }
    Err(Error::input(format!(
        "no short name is left for `{}`: too many similar names in one directory",
        name.escape_debug()
    )))
}

/// Upper case, without blanks and dots, foreign characters as `_`; and whether anything was lost.
fn basis(part: &str) -> (Vec<u8>, bool) {
    let mut lossy = false;
    let mut out = Vec::new();
    for c in part.chars() {
        let upper = c.to_ascii_uppercase();
        match u8::try_from(upper) {
            Ok(b' ' | b'.') => lossy = true,
            Ok(byte) if is_short(byte) => out.push(byte),
            _ => {
                lossy = true;
                out.push(b'_');
            }
        }
    }
    (out, lossy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorts(names: &[&str]) -> Vec<String> {
        assign(names.iter().copied())
            .unwrap()
            .iter()
            .map(|n| String::from_utf8(n.short.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn short_names() {
        assert_eq!(
            shorts(&["EFI", "BOOTX64.EFI"]),
            ["EFI        ", "BOOTX64 EFI"]
        );
        assert_eq!(shorts(&["grub.cfg"]), ["GRUB    CFG"]);
        assert_eq!(
            shorts(&["vmlinuz-6.1.0-28-amd64", "vmlinuz-6.1.0-29-amd64"]),
            ["VMLINU~10-2", "VMLINU~20-2"]
        );
        assert_eq!(
            shorts(&[".disk", "a b.c", "é.txt"]),
            ["DISK~1     ", "AB~1    C  ", "_~1     TXT"]
        );
        assert_eq!(
            shorts(&["x.tar.gz", "XTAR~1.GZ"]),
            ["XTAR~2  GZ ", "XTAR~1  GZ "]
        );
        assert_eq!(shorts(&["Readme", "README"])[1], "README     ");
    }

    #[test]
    fn tails_grow_into_the_base() {
        let names: Vec<String> = (0..12).map(|n| format!("longlonglong{n}")).collect();
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        let got = shorts(&refs);
        assert_eq!(got[8], "LONGLO~9   ");
        assert_eq!(got[9], "LONGL~10   ");
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a\\b",
            "x.",
            "x ",
            " x",
            "a\nb",
            &"x".repeat(256),
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", ".disk", "a b", "ünï", "+,;=[]", &"x".repeat(255)] {
            assert!(check(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_long_name_of_exactly_one_entry_has_no_end_mark() {
        let names = assign(["abcdefghijklm", "abcdefghijkl"].into_iter()).unwrap();
        let mut out = Vec::new();
        names[0].write_long(&mut out);
        assert_eq!(out.len(), ENTRY);
        assert_eq!(out[0], 0x41);
        assert_eq!(&out[28..32], [b'l', 0, b'm', 0]);
        out.clear();
        names[1].write_long(&mut out);
        assert_eq!(&out[28..32], [b'l', 0, 0, 0]);
    }
}
