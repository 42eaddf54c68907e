//! Which of the caller's files a definition may read: those in its own directory, and in directories that the user
//! allows.
//!
//! A kickstart is somebody else's text, and the lines of what it includes go into scripts that can reach the network.
//! A name is resolved first, to say what it means; then the file is opened from the allowed directory's descriptor
//! by a path in which the kernel follows no link at all (openat2(2)). Whatever changes in between makes the opening
//! fail, and never reads another file.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kiln_kickstart::{LoadError, include_candidates};

use crate::define::files::Disk;
use crate::define::reader::{Directory, Reader};
use crate::io::plain;
use crate::{Failure, FailureKind};

/// How the caller's files are read, and which of them a definition may read: the one way to them.
#[derive(Clone, Debug)]
pub struct Files {
    reader: Arc<dyn Reader>,
    include_path: Vec<PathBuf>,
    within: Option<PathBuf>,
}

impl Files {
    /// The files of this machine. Relative paths start from `base`; empty for the working directory of the process, which a server
    /// leaves to nobody.
    pub fn of_disk(base: &Path) -> Self {
        Files::new(Arc::new(Disk {
            base: base.to_owned(),
        }))
    }

    /// Files that are read in another way.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Files {
            reader,
            include_path: Vec::new(),
            within: None,
        }
    }

    /// A definition may read in these directories, beside its own.
    #[must_use]
    pub fn allow(mut self, directories: &[PathBuf]) -> Self {
        self.include_path.extend_from_slice(directories);
        self
    }

    /// Nothing outside of a directory is read, whoever names it: for a caller who does not trust the definition.
    #[must_use]
    pub fn within(mut self, directory: Option<&Path>) -> Self {
        self.within = directory.map(Path::to_owned);
        self
    }

    /// Returns the directories that the caller allows beside a definition's own.
    pub fn include_path(&self) -> &[PathBuf] {
        &self.include_path
    }

    /// Returns whether all that is read has to be in one directory.
    pub fn is_confined(&self) -> bool {
        self.within.is_some()
    }

    /// As [`Reader::place`].
    pub(crate) fn place(&self, path: &Path) -> PathBuf {
        self.reader.place(path)
    }

    /// As [`Reader::is_directory`].
    pub(crate) fn is_directory(&self, path: &Path) -> io::Result<bool> {
        self.reader.is_directory(path)
    }

    /// As [`Reader::directory`].
    pub(crate) fn directory(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        self.reader.directory(path)
    }

    /// Reads a file that the user named, wherever its name leads, but not outside of where everything has to be.
    ///
    /// # Errors
    /// It is not there, no regular file, too long, or outside.
    pub fn named(&self, path: &Path) -> io::Result<Vec<u8>> {
        let Some(within) = &self.within else {
            return self.reader.named(path);
        };
        // What is opened is what was looked at, whoever changes links in between.
        let (within, real) = (self.reader.real(within)?, self.reader.real(path)?);
        match real.strip_prefix(&within) {
            Ok(below) => self.reader.directory(&within)?.read(below),
            Err(_) => Err(io::Error::other(OUTSIDE)),
        }
    }

    /// What a definition may read whose own directory is given; `further` are directories that it names.
    ///
    /// # Errors
    /// One of the directories is not there, or outside of where everything has to be.
    pub fn open(&self, own: &Path, further: &[PathBuf]) -> Result<Confined, Failure> {
        let mut confined = Confined {
            reader: Arc::clone(&self.reader),
            roots: Vec::new(),
        };
        confined.allow(own)?;
        for directory in self.include_path.iter().chain(further) {
            confined.allow(directory)?;
        }
        if let Some(within) = &self.within {
            confined.stay_within(within)?;
        }
        Ok(confined)
    }
}

/// The directories that a definition may read.
#[derive(Clone, Debug)]
pub struct Confined {
    reader: Arc<dyn Reader>,
    /// The definition's own comes first.
    roots: Vec<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    /// As the user named it.
    shown: PathBuf,
    /// Without links.
    real: PathBuf,
    directory: Arc<dyn Directory>,
}

/// Why a file is not read.
enum Refusal {
    /// It is there, or may be, where the definition has no business.
    Outside,
    /// It is not there, or not readable.
    Unreadable(io::Error),
}

impl Confined {
    fn allow(&mut self, directory: &Path) -> Result<(), Failure> {
        let shown = match directory.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => directory.to_owned(),
        };
        let opened = self.reader.real(&shown).and_then(|real| {
            Ok(Root {
                shown: shown.clone(),
                directory: self.reader.directory(&real)?,
                real,
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
    fn stay_within(&self, directory: &Path) -> Result<(), Failure> {
        let refused = |shown: &Path| {
            let message = format!("{} cannot be included from", shown.display());
            Failure::new(FailureKind::Definition, message)
        };
        let within = self
            .reader
            .real(directory)
            .map_err(|error| refused(directory).cause(plain(&error)))?;
        match self
            .roots
            .iter()
            .find(|root| !root.real.starts_with(&within))
        {
            None => Ok(()),
            Some(root) => Err(refused(&root.shown).cause(OUTSIDE).hint(
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
        let real = match self.reader.real(Path::new(place)) {
            Ok(real) => real,
            // Whether a file is there is nobody's business either.
            Err(_) if self.surely_outside(place) => return Err(Refusal::Outside),
            Err(error) => return Err(Refusal::Unreadable(error)),
        };
        let mut allowed = self.roots.iter().filter_map(|r| Some((r, r.below(&real)?)));
        let (root, below) = allowed.next().ok_or(Refusal::Outside)?;
        root.directory.read(below).map_err(Refusal::Unreadable)
    }

    /// Whether a name that leads to nothing is the name of something outside.
    fn surely_outside(&self, place: &str) -> bool {
        let named = Path::new(place);
        let place = &self.reader.place(named);
        let climbs = named.components().any(|c| c == Component::ParentDir);
        (named.is_absolute() || climbs)
            && !self.roots.iter().any(|root| {
                let place = spelt_out(place);
                place.starts_with(spelt_out(&self.reader.place(&root.shown)))
                    || place.starts_with(&root.real)
            })
    }
}

const OUTSIDE: &str = "it is outside of what this build may read";
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::Mode;

    use super::*;

    fn opened(directory: &Path) -> Confined {
        let files = Files::of_disk(Path::new(""));
        files.open(directory, &[]).expect("the directory")
    }

    #[test]
    fn a_stranger_names_no_directory_outside() {
        let place = tempfile::tempdir().expect("a directory");
        for directory in ["work/project", "work/common", "elsewhere"] {
            fs::create_dir_all(place.path().join(directory)).expect("a directory");
        }
        symlink("../elsewhere", place.path().join("work/link")).expect("a link");
        let work = place.path().join("work");
        let mut confined = opened(&work.join("project"));
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
        let confined = opened(&at("project"));
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
        let confined = opened(Path::new("/"));
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
        let confined = opened(place.path());
        let refusal = confined
            .read(&pipe.display().to_string())
            .expect_err("refused");
        assert!(refusal.contains("not a regular file"), "{refusal}");
    }
}
