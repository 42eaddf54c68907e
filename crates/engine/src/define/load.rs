//! Reading a definition: a `.ks`, a `kiln.toml`, or a directory with one.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_kickstart::{LoadError, include_candidates, is_url};
use kiln_plan::{Definition, Files, Found, Input, Lowered};
use rustix::fs::ResolveFlags;

use crate::define::confined::{Confined, read_beneath, read_whole};
use crate::define::files::Project;
use crate::define::web::{Web, local_file_for_a_stranger};
use crate::io::plain;
use crate::{Failure, FailureKind};

/// A definition that was found, with the way to read what it names.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where relative paths start from; empty for the working directory of the process.
    base: PathBuf,
    /// The definition's file.
    pub(crate) path: PathBuf,
    /// The directory that its paths start from.
    pub(crate) dir: PathBuf,
    /// The directories that `kiln.toml` allows beside it.
    pub(crate) include_path: Vec<PathBuf>,
    /// What `%pre` left below `/tmp`, once it has run.
    pub(crate) pre: Option<PathBuf>,
    confined: Confined,
    web: Web,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Kickstart,
    Toml(String),
}

impl Source {
    /// Finds the definition's file and reads it; `input` says which directories the user allows beside its own.
    ///
    /// # Errors
    /// There is no such file, or the directory has no `kiln.toml`.
    pub(crate) fn open(
        base: &Path,
        definition: &Path,
        input: &Input,
        web: Web,
    ) -> Result<Source, Failure> {
        let path = file_of(base, definition)?;
        let dir = directory_of(&path);
        let mut source = Source {
            base: base.to_owned(),
            confined: Confined::from(base, &dir)?,
            include_path: input.include_path.clone(),
            kind: Kind::Kickstart,
            path,
            dir,
            pre: None,
            web,
        };
        if source.path.extension().is_some_and(|e| e == "toml") {
            let text = fs::read_to_string(base.join(&source.path))
                .map_err(|e| unreadable(&source.path, &e))?;
            let allowed = kiln_plan::include_path(&text).into_iter();
            source
                .include_path
                .extend(allowed.map(|d| source.dir.join(d)));
            source.kind = Kind::Toml(text);
        }
        for directory in &source.include_path {
            source.confined.allow(directory)?;
        }
        if let Some(within) = &input.within {
            source.confined.stay_within(within)?;
        }
        Ok(source)
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
                    .unwrap_or(self.path.as_os_str())
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
            Kind::Toml(_) => self.base.join(&self.dir).join("kiln.lock"),
            Kind::Kickstart => self.base.join(&self.path).with_extension("kiln.lock"),
        }
    }

    fn project(&self) -> Result<Project, String> {
        Project::open(&self.base.join(&self.dir))
            .map_err(|e| format!("{}: {}", self.dir.display(), plain(&e)))
    }

    /// What lies below `/tmp` is first what `%pre` left there.
    fn local(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), LoadError> {
        let (Some(pre), Some(rest)) = (&self.pre, path.strip_prefix("/tmp/")) else {
            return self.confined.include(path, from);
        };
        let left = fs::File::open(pre)
            .and_then(|dir| read_beneath(&dir, Path::new(rest), ResolveFlags::empty()));
        match left {
            Ok(bytes) => Ok((path.to_owned(), bytes)),
            Err(error) => self.confined.include(path, from).map_err(|_| LoadError {
                message: format!("{path}, as %pre left it: {}", plain(&error)),
                help: "let %pre make it: nothing else below /tmp can be included".to_owned(),
            }),
        }
    }

    /// The kickstart that the user named is read wherever its name leads.
    fn is_named(&self, path: &str, from: &str) -> bool {
        matches!(self.kind, Kind::Kickstart)
            && from == self.name()
            && self.path.file_name().is_some_and(|name| name == path)
    }

    /// Whether `%pre` makes the file.
    fn is_of_pre(&self, path: &str) -> bool {
        self.pre.is_some() && path.starts_with("/tmp/")
    }
}

impl Files for Source {
    fn read(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String> {
        if self.is_named(path, from) {
            let read = read_regular(&self.base.join(&self.path))
                .map_err(|e| format!("{from}: {}", plain(&e)));
            return read.map(|bytes| (from.to_owned(), bytes));
        }
        // What the definition names lies beside it.
        let beside = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let beside = beside.display().to_string();
        self.confined.read(&beside).map(|bytes| (beside, bytes))
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
            None => self.local(path, from),
        }
    }

    fn tree(&self, path: &str) -> Result<Option<Vec<Found>>, String> {
        match self.kind {
            Kind::Toml(_) => self.project()?.tree(path),
            // A kickstart alone is no project: what lies beside it may be anything.
            Kind::Kickstart => Ok(None),
        }
    }
}

/// The project's directory, for the steps that need its files.
///
/// # Errors
/// It is gone.
pub(crate) fn project(base: &Path, definition: &Path) -> Result<Project, Failure> {
    let dir = directory_of(&file_of(base, definition)?);
    Project::open(&base.join(&dir)).map_err(|e| unreadable(&dir, &e))
}

/// The definition's file.
fn file_of(base: &Path, definition: &Path) -> Result<PathBuf, Failure> {
    let metadata = fs::metadata(base.join(definition)).map_err(|e| unreadable(definition, &e))?;
    Ok(match metadata.is_dir() {
        true => definition.join("kiln.toml"),
        false => definition.to_owned(),
    })
}

fn directory_of(file: &Path) -> PathBuf {
    file.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Only regular files: opening a pipe could wait forever, and a device may have no end.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    read_whole(fs::File::open(path)?)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(
        FailureKind::Definition,
        format!("the definition {} cannot be read", path.display()),
    );
    failure
        .cause(plain(error))
        .hint("name a kickstart file, a kiln.toml, or a directory with a kiln.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::define::web::Access;

    fn lowered(base: &Path, definition: &str) -> Lowered {
        let web = Web::new(Access::planning(), None);
        let source = Source::open(base, Path::new(definition), &Input::default(), web)
            .expect("the definition");
        source.lower(&Input {
            distribution: Some("debian:bookworm".to_owned()),
            ..Input::default()
        })
    }

    fn errors(lowered: &Lowered) -> Vec<&str> {
        let problems = lowered.problems.iter();
        let errors = problems.filter(|p| p.severity == kiln_kickstart::Severity::Error);
        errors.map(|p| p.message.as_str()).collect()
    }

    /// Where the process happens to stand is nobody's business: these tests stand in the crate's directory.
    #[test]
    fn relative_paths_start_from_the_request() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("lab/src")).expect("a directory");
        fs::write(at("lab/src/own.ks"), "lang C.UTF-8\n").expect("a file");
        fs::write(at("lab/a.ks"), "%include src/own.ks\n").expect("a file");
        let found = lowered(place.path(), "lab/a.ks");
        assert_eq!(errors(&found), Vec::<&str>::new());
        let plan = found.plan.expect("a plan");
        assert_eq!(plan.layers[0].commands[0].origin, "lab/src/own.ks:1");

        // This one is there for the process only.
        assert!(Path::new("src/lib.rs").exists());
        fs::write(at("lab/b.ks"), "%include src/lib.rs\n").expect("a file");
        let refused = lowered(place.path(), "lab/b.ks");
        assert!(errors(&refused)[0].contains("cannot read"), "{refused:?}");
    }

    #[test]
    fn the_lock_lies_beside_the_definition_wherever_that_is() {
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join("a.ks"), "lang C.UTF-8\n").expect("a file");
        let web = Web::new(Access::planning(), None);
        let source =
            Source::open(place.path(), Path::new("a.ks"), &Input::default(), web).expect("a file");
        assert_eq!(source.lock_path(), place.path().join("a.kiln.lock"));
        assert_eq!(
            source.name(),
            "a.ks",
            "messages name it as the request does"
        );
    }
}
