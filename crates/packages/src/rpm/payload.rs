//! The payload: a cpio archive whose entries are those files of the header that are in it.
//!
//! ```text
//! 070701  ino mode nlink uid gid mtime size devmajor devminor rdevmajor rdevminor namesize check   8 hexadecimal digits each
//!         name and a NUL, padded to 4; content, padded to 4; the last entry is TRAILER!!!
//! 07070X  number of the file in the header, 8 hexadecimal digits, padded to 4; content, padded to 4 (files of 4 GiB)
//! ```

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::files::FileInfo;
use super::header::bad;
use crate::decompress::Compression;
use crate::digest::Hasher;
use crate::{Error, Result};

/// What a payload has for a file.
pub enum Content<'a> {
    /// A file's bytes.
    File(&'a mut dyn Read),
    /// A file that is the same as one that was visited before.
    HardLink(&'a Path),
    /// A symbolic link; the header says where it leads.
    Link,
    /// A directory.
    Directory,
    /// A device, fifo or socket; the header says which.
    Special,
}

/// Is given every file. What it does not read of the content is passed over.
pub type Visit<'a> = &'a mut dyn FnMut(&FileInfo, Content<'_>) -> Result<()>;

const LONGEST_NAME: u64 = 8192;
const TRAILER: &[u8] = b"TRAILER!!!";

/// A reader of the plain archive, by what the header calls the compressor.
pub(super) fn decompressed(
    compressor: Option<&str>,
    file: std::fs::File,
) -> Result<Box<dyn Read + Send>, String> {
    let compression = match compressor {
        Some("gzip") => Compression::Gzip,
        Some("xz" | "lzma") => Compression::Xz,
        Some("zstd") => Compression::Zstd,
        Some("bzip2") => Compression::Bzip2,
        None | Some("identity") => Compression::None,
        Some(other) => {
            return Err(format!(
                "its payload is compressed with {other:.40}, which Kiln cannot read"
            ));
        }
    };
    compression
        .reader(file)
        .map_err(|error| format!("its payload cannot be decompressed: {error}"))
}

/// Visits everything, and compares it with the header.
pub(super) fn each(
    name: &str,
    reader: impl Read,
    files: &[FileInfo],
    visit: Visit<'_>,
) -> Result<()> {
    let index = files
        .iter()
        .enumerate()
        .map(|(at, file)| (file.path.as_path(), at))
        .collect();
    let mut links: HashMap<(u64, u64), usize> = HashMap::new();
    for file in files.iter().filter(|file| is_file(file) && !file.is_ghost) {
        *links.entry(file.identity).or_default() += 1;
    }
    let mut walk = Walk {
        name,
        reader,
        at: 0,
        files,
        index,
        links,
        waiting: HashMap::new(),
        content: HashMap::new(),
        seen: HashSet::new(),
    };
    while walk.entry(visit)? {}
    let missing = files
        .iter()
        .enumerate()
        .find(|(at, file)| !file.is_ghost && !walk.seen.contains(at));
    match missing {
        None => Ok(()),
        Some((_, file)) => Err(bad(
            name,
            &format!("its payload lacks /{}", file.path.display()),
        )),
    }
}

fn is_file(file: &FileInfo) -> bool {
    file.mode & 0o170_000 == 0o100_000
}

struct Walk<'a, R> {
    name: &'a str,
    reader: R,
    at: u64,
    files: &'a [FileInfo],
    index: HashMap<&'a Path, usize>,
    /// How many files are the same, by identity.
    links: HashMap<(u64, u64), usize>,
    /// Those whose content comes with a later one.
    waiting: HashMap<(u64, u64), Vec<usize>>,
    /// The one that had the content.
    content: HashMap<(u64, u64), usize>,
    seen: HashSet<usize>,
}

impl<R: Read> Walk<'_, R> {
    /// One entry; `false` after the last.
    fn entry(&mut self, visit: Visit<'_>) -> Result<bool> {
        let mut magic = [0; 6];
        self.fill(&mut magic)?;
        let (at, size) = match &magic {
            b"070701" | b"070702" => {
                let fields = self.fields::<13>()?;
                let [_, mode, _, _, _, _, size, _, _, _, _, length, _] = fields;
                let Some(at) = self.named(length)? else {
                    return Ok(false);
                };
                if self.files[at].mode != mode as u32 {
                    return Err(self.differs(at, "type or mode"));
                }
                (at, size)
            }
            b"07070X" => {
                let [index] = self.fields::<1>()?;
                self.pad()?;
                let at = usize::try_from(index)
                    .ok()
                    .filter(|&at| at < self.files.len());
                let at = at.ok_or_else(|| {
                    bad(self.name, "its payload has a file that its header has not")
                })?;
                // No content of its own comes with a link to a later one, which only the long form's order can tell.
                let file = &self.files[at];
                let waits = is_file(file) && self.group(at) > 1 && !self.is_last(at);
                (
                    at,
                    if waits || file.mode & 0o170_000 == 0o040_000 {
                        0
                    } else {
                        file.size
                    },
                )
            }
            _ => {
                return Err(bad(
                    self.name,
                    "its payload is no cpio archive of the kind that packages have",
                ));
            }
        };
        if self.files[at].is_ghost || !self.seen.insert(at) {
            return Err(bad(
                self.name,
                &format!(
                    "its payload has /{} although it must not, or twice",
                    self.files[at].path.display()
                ),
            ));
        }
        self.visit(at, size, visit)?;
        self.pad()?;
        Ok(true)
    }

    /// The file of a name; `None` for the archive's end.
    fn named(&mut self, length: u64) -> Result<Option<usize>> {
        if length == 0 || length > LONGEST_NAME {
            return Err(bad(self.name, "its payload has a name that is too long"));
        }
        let mut path = vec![0; length as usize];
        self.fill(&mut path)?;
        self.pad()?;
        path.pop();
        if path == TRAILER {
            return Ok(None);
        }
        let inner = path.strip_prefix(b".").unwrap_or(&path);
        let inner = inner.strip_prefix(b"/").unwrap_or(inner);
        let known = self
            .index
            .get(Path::new(std::ffi::OsStr::from_bytes(inner)));
        known.copied().map(Some).ok_or_else(|| {
            let shown = path.escape_ascii().to_string();
            bad(
                self.name,
                &format!("its payload has {shown:?}, which its header has not"),
            )
        })
    }

    fn visit(&mut self, at: usize, size: u64, visit: Visit<'_>) -> Result<()> {
        let files = self.files;
        let file = &files[at];
        match file.mode & 0o170_000 {
            0o100_000 => self.file(at, size, visit),
            0o120_000 => {
                let mut target = Vec::new();
                let read = (&mut self.reader)
                    .take(size.min(LONGEST_NAME))
                    .read_to_end(&mut target);
                self.at += read.map_err(|error| self.broken(&error))? as u64;
                if file.link.as_bytes() != target || target.is_empty() {
                    return Err(self.differs(at, "target"));
                }
                visit(file, Content::Link)
            }
            _ if size > 0 => Err(self.differs(at, "size")),
            0o040_000 => visit(file, Content::Directory),
            _ => visit(file, Content::Special),
        }
    }

    /// How many are the same file.
    fn group(&self, at: usize) -> usize {
        self.links
            .get(&self.files[at].identity)
            .copied()
            .unwrap_or(1)
    }

    /// Whether all others that are the same file were here.
    fn is_last(&self, at: usize) -> bool {
        let waiting = self
            .waiting
            .get(&self.files[at].identity)
            .map_or(0, Vec::len);
        waiting + 1 >= self.group(at)
    }

    fn file(&mut self, at: usize, size: u64, visit: Visit<'_>) -> Result<()> {
        let files = self.files;
        let file = &files[at];
        if self.group(at) > 1 && size == 0 {
            if let Some(&content) = self.content.get(&file.identity) {
                return visit(file, Content::HardLink(&files[content].path));
            }
            if !self.is_last(at) {
                self.waiting.entry(file.identity).or_default().push(at);
                return Ok(());
            }
        }
        if size != file.size {
            return Err(self.differs(at, "size"));
        }
        let mut content = Hashed {
            inner: (&mut self.reader).take(size),
            hasher: Hasher::default(),
            left: size,
        };
        let outcome = visit(file, Content::File(&mut content));
        // An error of the archive that the visitor met is told as such.
        let rest = std::io::copy(&mut content, &mut std::io::sink());
        let (found, left) = (content.hasher.finish(), content.left);
        self.at += size;
        rest.map_err(|error| self.broken(&error))?;
        outcome?;
        if left > 0 {
            return Err(bad(
                self.name,
                &format!("its payload is cut within /{}", file.path.display()),
            ));
        }
        if file.sha256.is_some_and(|sha256| sha256 != found) {
            return Err(self.differs(at, "content"));
        }
        if self.group(at) > 1 {
            self.content.insert(file.identity, at);
        }
        let waiting = self.waiting.remove(&file.identity);
        waiting
            .into_iter()
            .flatten()
            .try_for_each(|other| visit(&files[other], Content::HardLink(&file.path)))
    }

    fn fields<const N: usize>(&mut self) -> Result<[u64; N]> {
        let mut all = [0; N];
        for field in &mut all {
            let mut digits = [0; 8];
            self.fill(&mut digits)?;
            let number = std::str::from_utf8(&digits)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            let number = number.and_then(|text| u64::from_str_radix(text, 16).ok());
            *field =
                number.ok_or_else(|| bad(self.name, "its payload has a number that is none"))?;
        }
        Ok(all)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let read = self.reader.read_exact(buffer);
        read.map_err(|error| self.broken(&error))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Passes over what comes before the next multiple of 4.
    fn pad(&mut self) -> Result<()> {
        let padding = (self.at.next_multiple_of(4) - self.at) as usize;
        self.fill(&mut [0; 4][..padding])
    }

    fn broken(&self, error: &std::io::Error) -> Error {
        bad(
            self.name,
            &format!("its payload is cut or damaged: {error}"),
        )
    }

    fn differs(&self, at: usize, what: &str) -> Error {
        bad(
            self.name,
            &format!(
                "payload and header disagree about the {what} of /{}",
                self.files[at].path.display()
            ),
        )
    }
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::Digest;

    fn info(path: &str, mode: u32, content: &[u8]) -> FileInfo {
        FileInfo {
            path: path.into(),
            mode,
            user: "root".into(),
            group: "root".into(),
            size: content.len() as u64,
            time: 0,
            link: OsString::new(),
            sha256: (mode & 0o170_000 == 0o100_000).then(|| Digest::of(content)),
            capabilities: None,
            is_ghost: false,
            identity: (0, path.len() as u64),
        }
    }

    fn entry(path: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let fields = [
            0,
            mode,
            1,
            0,
            0,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            path.len() as u32 + 1,
            0,
        ];
        let mut bytes = b"070701".to_vec();
        fields
            .iter()
            .for_each(|field| bytes.extend(format!("{field:08x}").bytes()));
        bytes.extend(path.bytes().chain([0]));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn visited(archive: &[u8], files: &[FileInfo]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        each("x.rpm", archive, files, &mut |file, content| {
            let mut text = String::new();
            match content {
                Content::File(reader) => drop(reader.read_to_string(&mut text)),
                Content::HardLink(to) => text = format!("-> {}", to.display()),
                _ => {}
            }
            all.push(format!("{} {text}", file.path.display()));
            Ok(())
        })?;
        Ok(all)
    }

    const FILE: u32 = 0o100_644;

    #[test]
    fn hard_links_come_after_their_content() {
        let mut files = vec![
            info("a", FILE, b"same"),
            info("b", FILE, b"same"),
            info("c", FILE, b"other"),
        ];
        files[1].identity = files[0].identity;
        files[2].identity = (0, 9);
        let archive = [
            entry("./a", FILE, b""),
            entry("./c", FILE, b"other"),
            entry("./b", FILE, b"same"),
            entry("TRAILER!!!", 0, b""),
        ];
        assert_eq!(
            visited(&archive.concat(), &files).expect("good"),
            ["c other", "b same", "a -> b"]
        );
        // Files of 4 GiB and more come by their number, with their size from the header.
        let large =
            |at: u32, content: &[u8]| [format!("07070X{at:08x}\0\0").as_bytes(), content].concat();
        let archive = [
            large(2, b"other\0\0\0"),
            large(0, b""),
            large(1, b"same"),
            entry("TRAILER!!!", 0, b""),
        ];
        assert_eq!(
            visited(&archive.concat(), &files).expect("good"),
            ["c other", "b same", "a -> b"]
        );
    }

    #[test]
    fn what_disagrees_with_the_header_is_refused() {
        let files = [info("etc/a", FILE, b"four"), info("etc", 0o040_755, b"")];
        let (good, end) = (entry("./etc/a", FILE, b"four"), entry("TRAILER!!!", 0, b""));
        let directory = entry("./etc", 0o040_755, b"");
        assert!(visited(&[&good[..], &directory, &end].concat(), &files).is_ok());
        let cases: &[(&str, Vec<Vec<u8>>)] = &[
            (
                "which its header has not",
                vec![entry("./../etc/a", FILE, b"four"), end.clone()],
            ),
            (
                "which its header has not",
                vec![good.clone(), entry("./etc/b", FILE, b""), end.clone()],
            ),
            (
                "type or mode",
                vec![entry("./etc/a", 0o104_755, b"four"), end.clone()],
            ),
            (
                "the size of /etc/a",
                vec![entry("./etc/a", FILE, b"three"), end.clone()],
            ),
            (
                "the content of /etc/a",
                vec![entry("./etc/a", FILE, b"FOUR"), end.clone()],
            ),
            (
                "the size of /etc",
                vec![entry("./etc", 0o040_755, b"x"), end.clone()],
            ),
            ("twice", vec![good.clone(), good.clone(), end.clone()]),
            ("lacks /etc", vec![good.clone(), end.clone()]),
            ("is cut", vec![good.clone()]),
            ("is cut", vec![good[..good.len() - 1].to_vec()]),
            ("no cpio archive", vec![b"070707".to_vec()]),
            ("a number that is none", vec![b"070701-0000001".to_vec()]),
            (
                "a name that is too long",
                vec![b"070701".to_vec(), vec![b'f'; 104]],
            ),
            ("header has not", vec![b"07070X000000ff\0\0".to_vec()]),
        ];
        for (says, archive) in cases {
            let error = visited(&archive.concat(), &files)
                .expect_err(says)
                .to_string();
            assert!(
                error.contains(says) && error.contains("x.rpm"),
                "{says}: {error}"
            );
        }
    }
}
