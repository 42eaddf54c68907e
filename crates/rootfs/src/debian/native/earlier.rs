//! Packages that a layer of the store was made of, taken from its files again: copying them costs a fraction of decompressing.
//!
//! ```text
//! <layer>/unpacked    for each package a line, and what the pool's index said of it, compressed with zstd:
//!   SHA-256 of the package file NUL digest of the path filters NUL bytes that follow LF
//! ```
//!
//! Scripts may have changed the layer's files in any way, and the layer may be damaged. So of a file nothing counts but its content, and only if
//! that has the digest which was taken when the package file was unpacked; everything else comes from the index. A package of which
//! one file is not what it was is unpacked as ever.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_packages::debian::contents::Kind;
use kiln_sandbox::Mount;
use rustix::fs::{Advice, Mode, OFlags, ResolveFlags, fadvise, openat2};
use rustix::io::Errno;

use super::dress::dress;
use super::filter::{Filter, digest};
use super::index::{self, Item};
use crate::store::{Layer, Store};

/// Beside a layer: which packages were unpacked into it, and what is in them.
pub(crate) const UNPACKED: &str = "unpacked";
/// Where layers are seen while a pool is filled.
const PLACE: &str = "/earlier";
/// Layers that are looked at. Every one costs time, and those used last are the likeliest.
const MOST: usize = 12;
/// The index of a package with 500,000 entries is shorter.
const LONGEST: u64 = 256 << 20;
/// Digests are worth more time than a compressor of text that is read once or never.
const LEVEL: i32 = 1;

/// The layers that packages may be in, those used last first. They are held as long as the answer lives.
pub(super) fn layers(store: &Store) -> Vec<Layer> {
    store.with_attachment(UNPACKED, MOST)
}

/// Shows layers where a pool is filled.
pub(super) fn mounts(layers: &[Layer]) -> Vec<Mount> {
    let top = Mount::Tmpfs {
        target: PLACE.to_owned(),
        mode: 0o755,
    };
    let shown = layers.iter().enumerate().flat_map(|(number, layer)| {
        let bind = |source: PathBuf, target: String| Mount::Bind {
            source,
            target,
            writable: false,
        };
        let notes = layer.attachment(UNPACKED);
        let notes = notes.map(|path| bind(path, format!("{PLACE}/{number}.{UNPACKED}")));
        let files = bind(layer.fs.clone(), format!("{PLACE}/{number}"));
        std::iter::once(files).chain(notes)
    });
    std::iter::once(top).chain(shown).collect()
}

/// What is written of a package.
#[derive(Debug)]
pub(super) struct Note {
    line: String,
    packed: Vec<u8>,
    /// Whether its files come from a layer.
    pub(super) taken: bool,
}

impl Note {
    /// Of a package that was unpacked: its file's SHA-256, and the index.
    pub(super) fn new(deb: &str, filters: &str, index: &[u8]) -> io::Result<Note> {
        let mut packer = zstd::Encoder::new(Vec::new(), LEVEL)?;
        packer.include_checksum(true)?;
        packer.write_all(index)?;
        Ok(Note::packed(deb, filters, packer.finish()?, false))
    }

    fn packed(deb: &str, filters: &str, packed: Vec<u8>, taken: bool) -> Note {
        let line = format!("{deb}\0{filters}\0{}\n", packed.len());
        Note {
            line,
            packed,
            taken,
        }
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(self.line.as_bytes())?;
        out.write_all(&self.packed)
    }
}

/// Layers of the store, and what is known of their packages.
#[derive(Default)]
pub(super) struct Earlier {
    filters: String,
    layers: Vec<Source>,
    /// By the SHA-256 of the package file, which of the layers has it, and where its note's packed part is.
    known: HashMap<String, (usize, Range<usize>)>,
}

struct Source {
    root: OwnedFd,
    notes: Vec<u8>,
}

impl Earlier {
    /// Reads the notes of so many layers that [`mounts`] shows.
    pub(super) fn shown(count: usize, filters: &[Filter]) -> Earlier {
        let mut earlier = Earlier {
            filters: digest(filters),
            ..Earlier::default()
        };
        for number in 0..count {
            let root = format!("{PLACE}/{number}");
            let notes = fs::read(format!("{root}.{UNPACKED}"));
            if let Ok(notes) = notes {
                earlier.add(Path::new(&root), notes);
            }
        }
        earlier
    }

    /// Takes a layer's notes in, as far as they can be read.
    pub(super) fn add(&mut self, root: &Path, notes: Vec<u8>) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(root, flags, Mode::empty()) else {
            return;
        };
        let number = self.layers.len();
        let mut at = 0;
        while let Some((deb, filters, length, start)) = line(&notes, at) {
            let Some(end) = start.checked_add(length).filter(|&end| end <= notes.len()) else {
                break;
            };
            if filters == self.filters {
                self.known.entry(deb).or_insert((number, start..end));
            }
            at = end;
        }
        self.layers.push(Source { root, notes });
    }

    /// Puts the contents of a package into the pool's directory of it, and its index; `None` if that cannot be done, whatever the reason
    /// is. Then some of it may be there.
    pub(super) fn unpack(&self, deb: &str, dir: &Path) -> Option<Note> {
        let (number, range) = self.known.get(deb)?;
        let source = &self.layers[*number];
        let packed = source.notes.get(range.clone())?;
        let mut text = Vec::new();
        let unpacker = zstd::Decoder::new(packed).ok()?;
        let length = unpacker.take(LONGEST).read_to_end(&mut text).ok()?;
        // What is cut there would be a package with fewer files.
        if length as u64 == LONGEST {
            return None;
        }
        let items = index::read(&text)?;
        let mut buffer = vec![0; 256 << 10];
        for item in &items {
            copy(source.root.as_fd(), item, dir, &mut buffer).ok()??;
        }
        fs::write(dir.join("index"), &text).ok()?;
        Some(Note::packed(deb, &self.filters, packed.to_vec(), true))
    }
}

/// The line at a place of the notes: package file, filters, length of what follows, and where that begins.
fn line(notes: &[u8], at: usize) -> Option<(String, String, usize, usize)> {
    let rest = notes.get(at..)?;
    let end = rest.iter().position(|&b| b == b'\n')?;
    let mut fields = std::str::from_utf8(&rest[..end]).ok()?.split('\0');
    let (deb, filters) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let length = fields.next()?.parse().ok()?;
    Some((deb, filters, length, at + end + 1))
}

/// Copies a file's content, if it is what it was; `None` if it is not.
fn copy(
    root: BorrowedFd<'_>,
    item: &Item,
    dir: &Path,
    buffer: &mut [u8],
) -> io::Result<Option<()>> {
    let Some(number) = item.blob else {
        return Ok(Some(()));
    };
    let (Kind::File(size), Some(digest)) = (&item.entry.kind, &item.digest) else {
        return Ok(None);
    };
    let Some(mut from) = open(root, &item.entry.path)? else {
        return Ok(None);
    };
    let found = from.metadata()?;
    if !found.is_file() || found.size() != *size {
        return Ok(None);
    }
    let mut to = File::create_new(dir.join(number.to_string()))?;
    let (mut hasher, mut left) = (blake3::Hasher::new(), *size);
    while left > 0 {
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(buffer.len()));
        let read = from.read(&mut buffer[..most])?;
        if read == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    if hasher.finalize() != *digest {
        return Ok(None);
    }
    // The copy is what will be read from now on. Memory that is given back here takes the next file; a virtual machine whose host
    // takes back what is free writes several times as fast to memory that it has.
    let _ = fadvise(&from, 0, None, Advice::DontNeed);
    dress(&to, &item.entry)?;
    Ok(Some(()))
}

/// Opens what a package's path leads to in a layer. A link of a merged `/usr` is in the lowest layer only.
fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<File>> {
    let merged = || Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path));
    // A pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |path: &Path| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(root, path, flags, Mode::empty(), resolve)
    };
    let opened = match open(path) {
        Err(Errno::NOENT) => open(&merged()),
        other => other,
    };
    match opened {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use kiln_testkit::Package;
    use kiln_testkit::package::Entry;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    use super::super::pool::{PoolItem, unpack};
    use super::*;

    const DEB: &str = "0123";
    const LONG: usize = 600_000;
    const SHORT: &str = "usr/share/tool/short";

    /// A package, and a layer that it was unpacked into.
    struct Scene {
        top: TempDir,
        notes: Vec<u8>,
    }

    impl Scene {
        fn new() -> Scene {
            let top = tempfile::tempdir().expect("a directory");
            let scene = Scene {
                top,
                notes: Vec::new(),
            };
            let own = fs::metadata(scene.top.path()).expect("metadata");
            let mut package = Package::new("tool", "1");
            package.data.clear();
            package = package
                .entry(Entry::directory("./usr/share/tool"))
                .entry(Entry::file("./usr/share/tool/long", vec![7; LONG]))
                .entry(Entry::file("./usr/share/tool/short", "one\n").mode(0o4755))
                .entry(Entry::file("./lib/tool/merged", "two\n"))
                .entry(Entry::file("./etc/empty", ""))
                .entry(Entry::hard_link(
                    "./usr/share/tool/hard",
                    "./usr/share/tool/short",
                ))
                .entry(Entry::symlink("./usr/share/tool/soft", "short"));
            for entry in &mut package.data {
                entry.owner = (own.uid().into(), own.gid().into());
            }
            fs::write(scene.top.path().join(DEB), package.build()).expect("a package file");
            for (path, content) in [
                ("usr/share/tool/long", vec![7; LONG]),
                ("usr/share/tool/short", b"one\n".to_vec()),
                ("usr/lib/tool/merged", b"two\n".to_vec()),
                ("etc/empty", Vec::new()),
            ] {
                let path = scene.layer().join(path);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                fs::write(path, content).expect("a file");
            }
            let note = scene.unpack("fresh", &[], &Earlier::default());
            let mut notes = Vec::new();
            note.expect("unpacked").write(&mut notes).expect("written");
            Scene { notes, ..scene }
        }

        fn layer(&self) -> PathBuf {
            self.top.path().join("layer")
        }

        fn earlier(&self, filters: &[Filter]) -> Earlier {
            let mut earlier = Earlier {
                filters: digest(filters),
                ..Earlier::default()
            };
            earlier.add(&self.layer(), self.notes.clone());
            earlier
        }

        fn unpack(
            &self,
            pool: &str,
            filters: &[Filter],
            earlier: &Earlier,
        ) -> Result<Note, kiln_packages::Error> {
            let pool = self.top.path().join(pool);
            fs::create_dir_all(&pool).expect("a pool");
            let item = PoolItem {
                key: "tool_1_all".to_owned(),
                file: self.top.path().join(DEB),
            };
            unpack(&item, &pool, filters, earlier)
        }

        /// Whether the package comes from the layer. It has to be the same either way.
        #[track_caller]
        fn is_taken(&self, earlier: &Earlier) -> bool {
            self.unpack("again", &[], earlier).expect("unpacked");
            assert_eq!(self.picture("again"), self.picture("fresh"));
            let dir = self.top.path().join("taken");
            fs::create_dir(&dir).expect("a directory");
            let taken = earlier.unpack(DEB, &dir);
            for name in ["again", "taken"] {
                fs::remove_dir_all(self.top.path().join(name)).expect("removed");
            }
            taken.is_some()
        }

        fn picture(&self, pool: &str) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
            let mut all = BTreeMap::new();
            let dir = self.top.path().join(pool).join("tool_1_all");
            for part in ["", "control"] {
                for entry in fs::read_dir(dir.join(part)).expect("a directory") {
                    let path = entry.expect("an entry").path();
                    let there = path.symlink_metadata().expect("metadata");
                    if there.is_file() {
                        let time = match path.ends_with("index") {
                            true => 0,
                            false => there.mtime(),
                        };
                        let content = fs::read(&path).expect("a file");
                        let name = path.strip_prefix(&dir).expect("inside").to_owned();
                        all.insert(name, (there.mode(), time, content));
                    }
                }
            }
            all
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.layer().join(path);
            let time = fs::metadata(&path)
                .and_then(|m| m.modified())
                .expect("a time");
            fs::write(&path, content).expect("a file");
            let file = File::options().write(true).open(&path).expect("a file");
            file.set_modified(time).expect("a time");
        }
    }

    #[test]
    fn a_package_is_taken_from_a_layer_and_is_the_same() {
        let scene = Scene::new();
        assert!(scene.is_taken(&scene.earlier(&[])));
        // Its own data archive is not read.
        let file = scene.top.path().join(DEB);
        let mut bytes = fs::read(&file).expect("a package file");
        let end = bytes.len() - 40;
        bytes[end - 60..end].fill(0x55);
        fs::write(&file, bytes).expect("a file");
        let note = scene.unpack("torn", &[], &scene.earlier(&[]));
        let mut notes = Vec::new();
        note.expect("taken").write(&mut notes).expect("written");
        assert_eq!(notes, scene.notes);
        assert_eq!(scene.picture("torn"), scene.picture("fresh"));
    }

    #[test]
    fn what_scripts_made_of_a_layer_is_never_taken() {
        type Change = (&'static str, &'static dyn Fn(&Scene));
        let changes: [Change; 8] = [
            ("other content", &|s| s.write(SHORT, b"bad\n")),
            ("a byte at the end", &|s| {
                let mut long = vec![7; LONG];
                long[LONG - 1] = 8;
                s.write("usr/share/tool/long", &long);
            }),
            ("longer", &|s| s.write(SHORT, b"one\nmore\n")),
            ("shorter", &|s| s.write("usr/share/tool/long", &[7; 9])),
            ("gone", &|s| {
                fs::remove_file(s.layer().join("etc/empty")).expect("removed");
            }),
            ("a pipe", &|s| {
                let path = s.layer().join("etc/empty");
                fs::remove_file(&path).expect("removed");
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
            }),
            ("a directory", &|s| {
                let path = s.layer().join("etc/empty");
                fs::remove_file(&path).expect("removed");
                fs::create_dir(&path).expect("a directory");
            }),
            ("a link to the same", &|s| {
                let path = s.layer().join(SHORT);
                fs::rename(&path, s.layer().join("aside")).expect("moved");
                symlink("/aside", &path).expect("a link");
            }),
        ];
        for (what, change) in changes {
            let scene = Scene::new();
            change(&scene);
            assert!(!scene.is_taken(&scene.earlier(&[])), "{what}");
        }
    }

    #[test]
    fn neither_owner_nor_mode_comes_from_the_layer() {
        let scene = Scene::new();
        let path = scene.layer().join("usr/share/tool/long");
        fs::set_permissions(path, fs::Permissions::from_mode(0o6777)).expect("a mode");
        assert!(scene.is_taken(&scene.earlier(&[])));
    }

    #[test]
    fn links_of_a_layer_do_not_lead_out_of_it() {
        let scene = Scene::new();
        let outside = scene.top.path().join("outside");
        fs::rename(scene.layer().join("usr/share/tool"), &outside).expect("moved");
        symlink(&outside, scene.layer().join("usr/share/tool")).expect("a link");
        assert!(!scene.is_taken(&scene.earlier(&[])));
    }

    #[test]
    fn notes_that_make_no_sense_are_none() {
        let mut scene = Scene::new();
        let whole = scene.notes.clone();
        for cut in [1, 10, 80, whole.len() / 2, whole.len() - 1] {
            scene.notes = whole[..cut].to_vec();
            assert!(!scene.is_taken(&scene.earlier(&[])), "{cut}");
        }
        // The checksum of what is compressed.
        for at in [whole.len() - 1, whole.len() - 20] {
            scene.notes = whole.clone();
            scene.notes[at] ^= 1;
            assert!(!scene.is_taken(&scene.earlier(&[])), "{at}");
        }
        let line = format!("{DEB}\0{}\0{}\n", digest(&[]), u64::MAX);
        scene.notes = line.into_bytes();
        assert!(!scene.is_taken(&scene.earlier(&[])));
        // Those after others are found, those of other path filters are not.
        let mut many = Vec::new();
        let other = Note::new("4567", &digest(&[]), b"f\0x\n").expect("a note");
        other.write(&mut many).expect("written");
        many.extend_from_slice(&whole);
        scene.notes = many;
        assert!(scene.is_taken(&scene.earlier(&[])));
        let filter = Filter {
            include: false,
            pattern: "/usr/share/doc/*".to_owned(),
        };
        let dir = scene.top.path().join("filtered");
        fs::create_dir(&dir).expect("a directory");
        assert!(scene.earlier(&[filter]).unpack(DEB, &dir).is_none());
        assert!(scene.earlier(&[]).unpack("4567", &dir).is_none());
    }
}
