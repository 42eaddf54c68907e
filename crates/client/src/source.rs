//! The source of a build: which files of a directory go to the server, and the archive of them.
//!
//! The same files make the same archive, byte for byte: paths in order, no times, no owners. Its SHA-256 is its name on the
//! server, so that a tree that has not changed is not sent again.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_digest::Sha256;
use md5::{Digest as _, Md5};
use tar::{Builder, EntryType, Header};

use crate::ignored::Ignored;
use crate::{Error, Kind};

const MOST_FILES: usize = 200_000;
const MOST_BYTES: u64 = 16 << 30;

/// What a path of a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    File { executable: bool, size: u64 },
    Link(PathBuf),
}

/// The files of a source.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    /// In order of their paths.
    entries: Vec<(PathBuf, What)>,
    /// Paths that are left out because no archive holds them: sockets, devices.
    pub special: Vec<PathBuf>,
}

/// An archive of a source.
#[derive(Debug)]
pub struct Archive {
    /// Its bytes, from the start.
    pub file: File,
    /// How many.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    /// Of MD5.
    pub md5: [u8; 16],
}

impl Files {
    /// Chooses the files of a directory.
    ///
    /// # Errors
    /// Something cannot be read, or there is more than a source may hold.
    pub fn of(dir: &Path) -> Result<Files, Error> {
        let mut files = Files {
            dir: dir.to_owned(),
            entries: Vec::new(),
            special: Vec::new(),
        };
        let ignored = Ignored::of(dir)?;
        files.walk(Path::new(""), &ignored)?;
        files.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        let bytes = files.bytes();
        if files.entries.len() > MOST_FILES || bytes > MOST_BYTES {
            let count = files.entries.len();
            let message = format!(
                "{} is too large for a source: {count} or more files and directories, {bytes} bytes",
                dir.display()
            );
            return Err(Error::new(Kind::Input, message)
                .hint("name what is not needed in a .gcloudignore there, as in a .gitignore"));
        }
        Ok(files)
    }

    fn walk(&mut self, below: &Path, ignored: &Ignored) -> Result<(), Error> {
        let whole = self.dir.join(below);
        let trouble = |path: &Path, error: io::Error| {
            Error::new(Kind::Input, format!("{} cannot be read", path.display())).cause(error)
        };
        for entry in fs::read_dir(&whole).map_err(|error| trouble(&whole, error))? {
            let entry = entry.map_err(|error| trouble(&whole, error))?;
            let path = below.join(entry.file_name());
            let place = entry.path();
            let metadata = place
                .symlink_metadata()
                .map_err(|error| trouble(&place, error))?;
            if ignored.contains(&path, metadata.is_dir()) || self.entries.len() > MOST_FILES {
                continue;
            }
            let kind = metadata.file_type();
            let what = if kind.is_dir() {
                self.walk(&path, ignored)?;
                What::Directory
            } else if kind.is_symlink() {
                What::Link(fs::read_link(&place).map_err(|error| trouble(&place, error))?)
            } else if kind.is_file() {
                What::File {
                    executable: metadata.permissions().mode() & 0o111 != 0,
                    size: metadata.len(),
                }
            } else {
                self.special.push(path);
                continue;
            };
            self.entries.push((path, what));
        }
        Ok(())
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        let files = self.entries.iter();
        files.filter(|(_, what)| *what != What::Directory).count()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|(_, what)| match what {
            What::File { size, .. } => *size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The paths of files and links, relative to the directory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.entries.iter();
        files
            .filter(|(_, what)| *what != What::Directory)
            .map(|(path, _)| path.as_path())
    }

    /// Packs the files.
    ///
    /// # Errors
    /// A file cannot be read, or has changed meanwhile; or there is no room for temporary files.
    pub fn pack(&self) -> Result<Archive, Error> {
        let room = |error: io::Error| {
            Error::new(
                Kind::Environment,
                "the archive of the source cannot be written",
            )
            .cause(error)
            .hint("it goes to the directory for temporary files ($TMPDIR)")
        };
        let file = tempfile::tempfile().map_err(room)?;
        let sums = Sums {
            inner: BufWriter::new(file),
            sha256: Sha256::new(),
            md5: Md5::new(),
            size: 0,
        };
        let mut builder = Builder::new(GzEncoder::new(sums, Compression::fast()));
        for (path, what) in &self.entries {
            let place = self.dir.join(path);
            append(&mut builder, path, &place, what).map_err(|error| {
                Error::new(Kind::Input, format!("{} cannot be packed", place.display()))
                    .cause(error)
            })?;
        }
        let sums = builder
            .into_inner()
            .and_then(GzEncoder::finish)
            .map_err(room)?;
        let mut file = sums
            .inner
            .into_inner()
            .map_err(|error| room(error.into_error()))?;
        file.rewind().map_err(room)?;
        Ok(Archive {
            file,
            size: sums.size,
            sha256: hex::encode(sums.sha256.finalize()),
            md5: sums.md5.finalize().into(),
        })
    }
}

fn append<W: Write>(
    builder: &mut Builder<W>,
    path: &Path,
    place: &Path,
    what: &What,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_size(0);
    match what {
        What::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            // As other programs write it, with a slash at the end.
            builder.append_data(&mut header, path.join(""), io::empty())
        }
        What::Link(to) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, path, to)
        }
        What::File { executable, size } => {
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(*size);
            let mut content = File::open(place)?.take(*size);
            builder.append_data(&mut header, path, &mut content)?;
            // The size stands in the archive already.
            if content.limit() > 0 || content.into_inner().read(&mut [0])? > 0 {
                return Err(io::Error::other("the file changed while it was read"));
            }
            Ok(())
        }
    }
}

/// Counts and sums up what is written.
struct Sums {
    inner: BufWriter<File>,
    sha256: Sha256,
    md5: Md5,
    size: u64,
}

impl Write for Sums {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..length]);
        self.md5.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn chosen(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tree(files);
        let files = Files::of(dir.path()).unwrap();
        files
            .paths()
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn ignore_files_are_read_as_gcloud_reads_them() {
        let files = [
            ("a.ks", ""),
            ("out/x", ""),
            ("sub/out/y", ""),
            ("k.iso", ""),
        ];
        let with = |more: &[(&'static str, &'static str)]| chosen(&[&files[..], more].concat());
        assert_eq!(with(&[]), ["a.ks", "k.iso", "out/x", "sub/out/y"]);
        assert_eq!(with(&[(".gitignore", "out/\n*.iso\n")]), ["a.ks"]);
        assert_eq!(
            with(&[(".gcloudignore", "/out\n# no\n*.iso\n!k.iso\n")]),
            [".gcloudignore", "a.ks", "k.iso", "sub/out/y"]
        );
        let both = [
            (".gcloudignore", ".gcloudignore\n#!include:.gitignore\n"),
            (".gitignore", "out\n"),
        ];
        assert_eq!(with(&both), [".gitignore", "a.ks", "k.iso"]);
        assert_eq!(
            with(&[(".git/HEAD", ""), ("sub/.gitignore", "*\n")]),
            ["a.ks", "k.iso", "out/x", "sub/out/y"]
        );
        // Nothing below a directory that is left out comes back.
        assert_eq!(with(&[(".gitignore", "out\n!out/x\n")]), ["a.ks", "k.iso"]);
    }

    #[test]
    fn a_missing_include_is_said_with_its_place() {
        let dir = tree(&[(".gcloudignore", "a\n#!include:nothing\n")]);
        let error = Files::of(dir.path()).unwrap_err();
        assert!(error.place.unwrap().ends_with(".gcloudignore:2:1"));
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let files = [("a.ks", "lang"), ("d/b", "x")];
        let (one, other) = (tree(&files), tree(&files));
        std::os::unix::fs::symlink("a.ks", one.path().join("l")).unwrap();
        std::os::unix::fs::symlink("a.ks", other.path().join("l")).unwrap();
        let long = ["n".repeat(200), "m".repeat(120)].join("/");
        for dir in [&one, &other] {
            fs::create_dir_all(dir.path().join(&long)).unwrap();
            fs::write(dir.path().join(&long).join("f"), "deep").unwrap();
        }
        let pack = |dir: &tempfile::TempDir| Files::of(dir.path()).unwrap().pack().unwrap();
        let (first, second) = (pack(&one), pack(&other));
        assert_eq!((first.sha256, first.md5), (second.sha256, second.md5));
        assert_eq!(first.file.metadata().unwrap().len(), first.size);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(first.file));
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names[..3], ["a.ks", "d/", "d/b"]);
        fs::write(one.path().join("a.ks"), "other").unwrap();
        assert_ne!(pack(&one).sha256, second_sum(&other));
    }

    fn second_sum(dir: &tempfile::TempDir) -> String {
        Files::of(dir.path()).unwrap().pack().unwrap().sha256
    }
}
