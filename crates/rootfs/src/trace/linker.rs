//! Lines of the dynamic linker's cache.
//!
//! ```text
//! /etc/ld.so.cache, format 1.1 (glibc, sysdeps/generic/dl-cache.h), in the machine's byte order
//!    0  "glibc-ld.so.cache" "1.1"
//!   20  4 number of lines   4 length of strings   1 flags   3 unused   4 offset of the extensions   12 unused
//!   48  lines of 24 bytes: 4 flags   4 name   4 file   4 unused   8 hardware; name and file are offsets of strings
//! extensions
//!    0  4 magic   4 number of sections
//!    8  sections of 16 bytes: 4 tag (0: who wrote it, 1: kinds of hardware)   4 flags   4 offset   4 size
//!       kinds of hardware: offsets of strings, 4 bytes each; a line's hardware may be an index of them
//! ```

use std::io;

use blake3::Hasher;

/// Where the dynamic linker finds which file a library's name means (ld.so(8)).
pub(super) const CACHE: &str = "/etc/ld.so.cache";

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEAD: usize = 48;
const LINE: usize = 24;
const EXTENSIONS: usize = 0xeaa4_2174;
const SECTION: usize = 16;
const GENERATOR: usize = 0;
const HARDWARE: usize = 1;

/// The name by which a file may have been looked up, if it looks like a library's.
pub(super) fn library(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    name.contains(".so").then(|| name.to_owned())
}

/// What a cache says of a name. A cache of another format counts as a whole.
pub(super) fn feed(hash: &mut Hasher, cache: &[u8], name: &str) -> io::Result<()> {
    match lines(cache, name.as_bytes()) {
        Some(lines) => lines.iter().for_each(|line| {
            hash.update(line);
        }),
        None => {
            hash.update(cache);
        }
    }
    Ok(())
}

/// The lines for a name, with what is common to all; `None` if the cache has another format.
fn lines(cache: &[u8], name: &[u8]) -> Option<Vec<Vec<u8>>> {
    if !cache.starts_with(MAGIC) {
        return None;
    }
    let count = number(cache, 20)?;
    let mut found = vec![cache.get(28..32)?.to_vec(), hardware(cache)?];
    for line in cache
        .get(HEAD..HEAD + count.checked_mul(LINE)?)?
        .chunks_exact(LINE)
    {
        if string(cache, number(line, 4)?)? == name {
            let file = string(cache, number(line, 8)?)?;
            found.push([&line[..4], &line[16..], file, b"\0"].concat());
        }
    }
    Some(found)
}

/// The names of kinds of hardware, in order; `None` if there is something else besides.
fn hardware(cache: &[u8]) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    let extensions = match number(cache, 32)? {
        0 => return Some(names),
        offset => cache.get(offset..)?,
    };
    if number(extensions, 0)? != EXTENSIONS {
        return None;
    }
    let sections = number(extensions, 4)?.checked_mul(SECTION)?;
    for section in extensions.get(8..8 + sections)?.chunks_exact(SECTION) {
        let (offset, size) = (number(section, 8)?, number(section, 12)?);
        match number(section, 0)? {
            GENERATOR => {}
            HARDWARE => {
                for name in cache
                    .get(offset..offset.checked_add(size)?)?
                    .chunks_exact(4)
                {
                    names.extend_from_slice(string(cache, number(name, 0)?)?);
                    names.push(0);
                }
            }
            _ => return None,
        }
    }
    Some(names)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_ne_bytes(field)).ok()
}

fn string(cache: &[u8], at: usize) -> Option<&[u8]> {
    cache.get(at..)?.split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_machines_own_cache_says_what_ldconfig_prints() {
        let cache = std::fs::read("/etc/ld.so.cache").expect("a cache");
        let printed = Command::new("/sbin/ldconfig")
            .arg("-p")
            .output()
            .expect("ldconfig");
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let mut seen = 0;
        for line in printed.lines().skip(1) {
            let Some((left, file)) = line.split_once(" => ") else {
                continue;
            };
            let name = left.split_whitespace().next().expect("a name");
            let lines = lines(&cache, name.as_bytes()).expect("the known format");
            let says = |line: &Vec<u8>| line.windows(file.len()).any(|w| w == file.as_bytes());
            assert!(lines.iter().any(says), "{line}");
            seen += 1;
        }
        assert!(seen > 20, "{printed}");
    }

    /// A cache of these lines, with their strings at its end, and one kind of hardware.
    fn cache(lines: &[(&str, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let at = HEAD + lines.len() * LINE + 8 + SECTION + 4;
        let mut string = |text: &str| {
            let here = (at + strings.len()) as u32;
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            here
        };
        let fields: Vec<[u32; 6]> = lines
            .iter()
            .map(|(name, file)| [3, string(name), string(file), 0, 0, 0])
            .collect();
        let kind = string("x86-64-v3");
        let extensions = (HEAD + lines.len() * LINE) as u32;
        let head = [
            lines.len() as u32,
            strings.len() as u32,
            0,
            extensions,
            0,
            0,
            0,
        ];
        let list = extensions + 8 + SECTION as u32;
        let tail = [EXTENSIONS as u32, 1, HARDWARE as u32, 0, list, 4, kind];
        let numbers = head.iter().chain(fields.iter().flatten()).chain(&tail);
        let numbers = numbers.flat_map(|number| number.to_ne_bytes());
        MAGIC
            .iter()
            .copied()
            .chain(numbers)
            .chain(strings)
            .collect()
    }

    #[test]
    fn only_lines_of_the_name_count() {
        let before = cache(&[("liba.so.1", "/lib/liba.so.1"), ("libb.so", "/lib/libb.so")]);
        let more = cache(&[
            ("liba.so.1", "/lib/liba.so.1"),
            ("libb.so", "/lib/libb.so"),
            ("libc.so", "/lib/libc.so"),
        ]);
        let moved = cache(&[("liba.so.1", "/opt/liba.so.1"), ("libb.so", "/lib/libb.so")]);
        let of = |cache: &[u8], name: &str| lines(cache, name.as_bytes());
        assert_ne!(before, more);
        assert!(of(&before, "liba.so.1").is_some_and(|lines| lines.len() == 3));
        assert_eq!(of(&before, "liba.so.1"), of(&more, "liba.so.1"));
        assert_ne!(of(&before, "liba.so.1"), of(&moved, "liba.so.1"));
        assert_eq!(of(&before, "libb.so"), of(&moved, "libb.so"));
        assert_ne!(of(&before, "libc.so"), of(&more, "libc.so"));
    }

    #[test]
    fn another_format_counts_as_a_whole() {
        let whole = cache(&[("liba.so.1", "/lib/liba.so.1")]);
        assert_eq!(lines(&whole[..60], b"liba.so.1"), None);
        assert_eq!(lines(b"ld.so-1.7.0", b"liba.so.1"), None);
        let mut hash = Hasher::new();
        feed(&mut hash, b"ld.so-1.7.0", "x").expect("a digest");
        assert_eq!(hash.finalize(), blake3::hash(b"ld.so-1.7.0"));
    }
}
