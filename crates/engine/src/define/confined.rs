//! Which files of this machine a definition may read: those in its own directory, and in directories that the user
//! allows.
//!
//! A kickstart is somebody else's text, and the lines of what it includes go into scripts that can reach the network.
//! A name is resolved first, to say what it means; then the file is opened from the allowed directory's descriptor
//! by a path in which the kernel follows no link at all (openat2(2)). Whatever changes in between makes the opening
//! fail, and never reads another file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kiln_kickstart::{LoadError, include_candidates};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::io::plain;
use crate::{Failure, FailureKind};

/// No kickstart comes near this many bytes. It keeps endless files from filling memory.
const LARGEST: u64 = 64 << 20;

/// The directories that a definition may read.
#[derive(Clone, Debug)]
pub struct Confined {
    /// Where relative paths start from; empty for the working directory of the process.
    base: PathBuf,
    /// The definition's own comes first.
    roots: Vec<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    /// As the user named it.
    shown: PathBuf,
    /// Without links.
    real: PathBuf,
    directory: Arc<File>,
}

/// Why a file is not read.
enum Refusal {
    /// It is there, or may be, where the definition has no business.
    Outside,
    /// It is not there, or not readable.
    Unreadable(io::Error),
}

impl Confined {
    /// What lies below the definition's directory.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn new(directory: &Path) -> Result<Self, Failure> {
        Confined::from(Path::new(""), directory)
    }

    /// As [`Confined::new`], with all relative paths starting from a directory, and none from the process's own.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn from(base: &Path, directory: &Path) -> Result<Self, Failure> {
        let mut confined = Confined {
            base: base.to_owned(),
            roots: Vec::new(),
        };
        confined.allow(directory)?;
        Ok(confined)
    }

    /// What lies below a further directory, too.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn allow(&mut self, directory: &Path) -> Result<(), Failure> {
        let shown = match directory.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => directory.to_owned(),
        };
        let opened = self.base.join(&shown).canonicalize().and_then(|real| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = rustix::fs::open(&real, flags, Mode::empty())?;
            Ok(Root {
                shown: shown.clone(),
                real,
                directory: Arc::new(File::from(directory)),
            })
        });
        self.roots.push(opened.map_err(|error| {
            let message = format!("{} cannot be included from", shown.display());
            Failure::new(FailureKind::Definition, message)
                .cause(plain(&error))
                .hint("include-path and --include-path name directories that are there")
        })?);
        Ok(())
    }

    /// Refuses directories outside of another one, whoever allowed them.
    ///
    /// # Errors
    /// There is such a directory, or that other one is not there.
    pub fn stay_within(&self, directory: &Path) -> Result<(), Failure> {
        let refused = |shown: &Path| {
            let message = format!("{} cannot be included from", shown.display());
            Failure::new(FailureKind::Definition, message)
        };
        let within = directory
            .canonicalize()
            .map_err(|error| refused(directory).cause(plain(&error)))?;
        match self
            .roots
            .iter()
            .find(|root| !root.real.starts_with(&within))
        {
            None => Ok(()),
            Some(root) => Err(refused(&root.shown)
                .cause("it is outside of what this build may read")
                .hint(
                    "put the files beside the definition, and drop the directory from include-path",
                )),
        }
    }

    /// Brings what the text named `from` includes as `path`, and the name that it was found under. It is looked for as
    /// the reference does: from the working directory, then beside the including file.
    ///
    /// # Errors
    /// It cannot be read, or must not be.
    pub fn include(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), LoadError> {
        let mut tried = Vec::new();
        let mut outside = false;
        for place in include_candidates(path, from) {
            match self.open(&place) {
                Ok(bytes) => return Ok((place, bytes)),
                Err(Refusal::Outside) => outside = true,
                Err(Refusal::Unreadable(error)) => {
                    tried.push(format!("{place}: {}", plain(&error)));
                }
            }
        }
        match outside {
            true => Err(LoadError {
                message: self.outside(path),
                help: ALLOW.to_owned(),
            }),
            false => Err(LoadError::not_found(format!(
                "cannot read `{path}` ({})",
                tried.join("; ")
            ))),
        }
    }

    /// Reads a file that a definition names.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn read(&self, place: &str) -> Result<Vec<u8>, String> {
        self.open(place).map_err(|refusal| match refusal {
            Refusal::Outside => format!("{}; {ALLOW}", self.outside(place)),
            Refusal::Unreadable(error) => format!("{place}: {}", plain(&error)),
        })
    }

    fn outside(&self, path: &str) -> String {
        let own = self.roots.first().map_or(Path::new("."), |r| &r.shown);
        format!(
            "`{path}` is not among the files that the definition may read: those in {}, hidden ones excepted",
            own.display()
        )
    }

    fn open(&self, place: &str) -> Result<Vec<u8>, Refusal> {
        let real = match self.base.join(place).canonicalize() {
            Ok(real) => real,
            // Whether a file is there is nobody's business either.
            Err(_) if self.surely_outside(place) => return Err(Refusal::Outside),
            Err(error) => return Err(Refusal::Unreadable(error)),
        };
        let mut allowed = self.roots.iter().filter_map(|r| Some((r, r.below(&real)?)));
        let (root, below) = allowed.next().ok_or(Refusal::Outside)?;
        read_beneath(&root.directory, below, ResolveFlags::NO_SYMLINKS).map_err(Refusal::Unreadable)
    }

    /// Whether a name that leads to nothing is the name of something outside.
    fn surely_outside(&self, place: &str) -> bool {
        let named = Path::new(place);
        let place = &self.base.join(named);
        let climbs = named.components().any(|c| c == Component::ParentDir);
        (named.is_absolute() || climbs)
            && !self.roots.iter().any(|root| {
                let place = spelt_out(place);
                place.starts_with(spelt_out(&self.base.join(&root.shown)))
                    || place.starts_with(&root.real)
            })
    }
}

const ALLOW: &str = "copy it there, or allow its directory: `include-path = [\"DIR\"]` in kiln.toml, or --include-path DIR";

impl Root {
    /// The path from here to a file that may be read. Hidden files are none of a kickstart's, be it in a home
    /// directory; and a kickstart in `/` does not own the machine.
    fn below<'a>(&self, real: &'a Path) -> Option<&'a Path> {
        let below = real.strip_prefix(&self.real).ok()?;
        let hidden = |c: Component<'_>| c.as_os_str().as_encoded_bytes().starts_with(b".");
        let everything = self.real.parent().is_none() && below.components().count() > 1;
        (!everything && !below.components().any(hidden)).then_some(below)
    }
}

/// An absolute path without `.` and `..`, by its words alone.
fn spelt_out(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            component => out.push(component),
        }
    }
    out
}

/// Reads a regular file below a directory whose content is untrusted: nothing leads out of it. What is no regular
/// file is not read, since a pipe could wait forever and a device have no end.
pub(crate) fn read_beneath(
    directory: &File,
    file: &Path,
    links: ResolveFlags,
) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | links;
    let file = File::from(openat2(directory, file, flags, Mode::empty(), resolve)?);
    read_whole(file)
}

/// Reads a regular file, whole or not at all: what is cut may have lost the line that mattered.
pub(crate) fn read_whole(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("it has more than {} MiB", LARGEST >> 20);
        return Err(io::Error::other(message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_stranger_names_no_directory_outside() {
        let place = tempfile::tempdir().expect("a directory");
        for directory in ["work/project", "work/common", "elsewhere"] {
            fs::create_dir_all(place.path().join(directory)).expect("a directory");
        }
        symlink("../elsewhere", place.path().join("work/link")).expect("a link");
        let work = place.path().join("work");
        let mut confined = Confined::new(&work.join("project")).expect("the directory");
        confined
            .allow(&work.join("project/../common"))
            .expect("inside");
        confined.stay_within(&work).expect("all are inside");
        for outside in ["project/../../elsewhere", "link"] {
            let mut confined = confined.clone();
            confined.allow(&work.join(outside)).expect("it is there");
            let failure = confined.stay_within(&work).expect_err("refused");
            assert!(failure.message.contains(outside), "{failure:?}");
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("long.ks");
        let file = File::create(&path).expect("a file");
        file.set_len(LARGEST).expect("its size");
        let read = read_whole(File::open(&path).expect("the file")).expect("what fits");
        assert_eq!(read.len() as u64, LARGEST);
        file.set_len(LARGEST + 1).expect("its size");
        let error = read_whole(File::open(&path).expect("the file")).expect_err("too long");
        assert_eq!(error.to_string(), "it has more than 64 MiB");
    }

    /// Between the look at a name and the opening of the file, somebody swaps the file, or the directory that it is
    /// in, for a link that leads out.
    #[test]
    fn a_link_that_comes_and_goes_never_leads_out() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        for directory in ["project/deep", "elsewhere"] {
            fs::create_dir_all(at(directory)).expect("a directory");
            fs::write(at(directory).join("a.ks"), directory).expect("a file");
        }
        symlink("../elsewhere", at("project/other")).expect("a link");
        fs::write(at("project/b.ks"), "project/deep").expect("a file");
        symlink("../elsewhere/a.ks", at("project/c.ks")).expect("a link");
        let confined = Confined::new(&at("project")).expect("the directory");
        let (mut read, mut refused) = (0, 0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let project = File::open(at("project")).expect("the directory");
                while !done.load(Ordering::Relaxed) {
                    for (one, other) in [("deep", "other"), ("b.ks", "c.ks")] {
                        let flags = rustix::fs::RenameFlags::EXCHANGE;
                        rustix::fs::renameat_with(&project, one, &project, other, flags)
                            .expect("they are swapped");
                    }
                }
            });
            for number in 0..20_000 {
                let name = ["deep/a.ks", "b.ks"][number % 2];
                match confined.read(&at("project").join(name).display().to_string()) {
                    Ok(bytes) => {
                        assert_eq!(bytes, b"project/deep");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
    }

    #[test]
    fn a_kickstart_in_the_root_directory_does_not_own_the_machine() {
        let confined = Confined::new(Path::new("/")).expect("the root directory");
        let refusal = confined.read("/etc/hostname").expect_err("refused");
        assert!(refusal.contains("not among the files"), "{refusal}");
    }

    #[test]
    fn only_regular_files_are_read() {
        let place = tempfile::tempdir().expect("a directory");
        let pipe = place.path().join("pipe.ks");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        let confined = Confined::new(place.path()).expect("the directory");
        let refusal = confined
            .read(&pipe.display().to_string())
            .expect_err("refused");
        assert!(refusal.contains("not a regular file"), "{refusal}");
    }
}
