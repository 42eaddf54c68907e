//! Reading a definition: a `.ks`, a `kiln.toml`, or a directory with one.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_kickstart::{LoadError, include_candidates, is_url};
use kiln_plan::{Definition, Files, Input, Lowered};

use crate::web::{Web, local_file_for_a_stranger};
use crate::{Failure, FailureKind};

/// A definition that was found, with the way to read what it names.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The definition's file.
    pub(crate) path: PathBuf,
    /// The directory that its paths start from.
    pub(crate) dir: PathBuf,
    /// What `%pre` left below `/tmp`, once it has run.
    pub(crate) pre: Option<PathBuf>,
    web: Web,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Kickstart,
    Toml(String),
}

impl Source {
    /// Finds the definition's file and reads it.
    ///
    /// # Errors
    /// There is no such file, or the directory has no `kiln.toml`.
    pub(crate) fn open(definition: &Path, web: Web) -> Result<Source, Failure> {
        let metadata = fs::metadata(definition).map_err(|e| unreadable(definition, &e))?;
        let path = if metadata.is_dir() {
            definition.join("kiln.toml")
        } else {
            definition.to_owned()
        };
        let is_toml = path.extension().is_some_and(|e| e == "toml");
        let kind = if is_toml {
            Kind::Toml(fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?)
        } else {
            Kind::Kickstart
        };
        let dir = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned();
        Ok(Source {
            path,
            dir,
            pre: None,
            web,
            kind,
        })
    }

    /// The definition's name for messages.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Lowers the definition with what the command line adds.
    pub(crate) fn lower(&self, input: &Input) -> Lowered {
        match &self.kind {
            Kind::Toml(text) => kiln_plan::lower_text(&self.name(), text, input, self),
            Kind::Kickstart => {
                let file = self
                    .path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let definition = Definition {
                    layers: vec![file],
                    ..Definition::default()
                };
                kiln_plan::lower(&self.name(), &definition, input, self)
            }
        }
    }

    /// Where the lock file is: `kiln.lock` beside a `kiln.toml`, `NAME.kiln.lock` beside a kickstart file.
    pub(crate) fn lock_path(&self) -> PathBuf {
        match self.kind {
            Kind::Toml(_) => self.dir.join("kiln.lock"),
            Kind::Kickstart => self.path.with_extension("kiln.lock"),
        }
    }

    /// What a kickstart includes is looked for as the reference does: from the working directory, then beside the
    /// including file. Below `/tmp` it is what `%pre` left there, and nothing of the machine that builds.
    fn local(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String> {
        if let (Some(pre), Some(rest)) = (&self.pre, path.strip_prefix("/tmp/")) {
            return read_inside(pre, rest)
                .map(|bytes| (path.to_owned(), bytes))
                .map_err(|e| format!("{path}, as %pre left it: {}", plain(&e)));
        }
        first_of(include_candidates(path, from).into_iter())
            .map_err(|tried| format!("cannot read `{path}` ({tried})"))
    }

    /// Whether `%pre` makes the file.
    fn is_of_pre(&self, path: &str) -> bool {
        self.pre.is_some() && path.starts_with("/tmp/")
    }
}

impl Files for Source {
    fn read(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String> {
        // What the definition names lies beside it.
        let beside = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        first_of(std::iter::once(beside.display().to_string()))
    }

    fn include(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), LoadError> {
        let url = include_candidates(path, from)
            .into_iter()
            .find(|c| is_url(c));
        match url {
            Some(url) => self.web.text(&url).map(|bytes| (url, bytes)),
            None if is_url(from) && !self.is_of_pre(path) => {
                Err(local_file_for_a_stranger(path, from))
            }
            None => self.local(path, from).map_err(LoadError::not_found),
        }
    }
}

/// The first of several places that has a file.
fn first_of(places: impl Iterator<Item = String>) -> Result<(String, Vec<u8>), String> {
    let mut tried = Vec::new();
    for place in places {
        match read_regular(Path::new(&place)) {
            Ok(bytes) => return Ok((place, bytes)),
            Err(error) => tried.push(format!("{place}: {}", plain(&error))),
        }
    }
    Err(tried.join("; "))
}

/// Only regular files: opening a pipe could wait forever, and a device may have no end.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file below a directory whose content is untrusted: no link leads out of it.
fn read_inside(dir: &Path, file: &str) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    use std::io::Read;
    let dir = fs::File::open(dir)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = openat2(
        &dir,
        file,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )?;
    let mut file = fs::File::from(opened);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A generated kickstart that is longer than this is a mistake.
const LARGEST: u64 = 64 << 20;

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(
        FailureKind::Definition,
        format!("the definition {} cannot be read", path.display()),
    );
    failure
        .cause(plain(error))
        .hint("name a kickstart file, a kiln.toml, or a directory with a kiln.toml")
}

/// An I/O error without Rust's `(os error N)`.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
