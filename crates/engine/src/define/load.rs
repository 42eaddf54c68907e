//! Reading a definition: a `.ks`, a `kiln.toml`, or a directory with one.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_kickstart::{LoadError, include_candidates, is_url};
use kiln_plan::{Definition, Found, Input, Lowered};
use rustix::fs::ResolveFlags;

use crate::define::confined::{Confined, Files};
use crate::define::files::read_beneath;
use crate::define::reader::Directory;
use crate::define::web::{Web, local_file_for_a_stranger};
use crate::io::plain;
use crate::{Failure, FailureKind};

/// A definition that was found, with the way to read what it names.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    files: Files,
    /// The definition's file.
    pub(crate) path: PathBuf,
    /// The directory that its paths start from.
    pub(crate) dir: PathBuf,
    /// The directories that the caller and `kiln.toml` allow beside it.
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
    /// Finds the definition's file and reads it.
    ///
    /// # Errors
    /// There is no such file, or the directory has no `kiln.toml`.
    pub(crate) fn open(files: &Files, definition: &Path, web: Web) -> Result<Source, Failure> {
        let path = file_of(files, definition)?;
        let dir = directory_of(&path);
        let mut further = Vec::new();
        let mut kind = Kind::Kickstart;
        if path.extension().is_some_and(|e| e == "toml") {
            let text = files.named(&path).and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
            });
            let text = text.map_err(|e| unreadable(&path, &e))?;
            let allowed = kiln_plan::include_path(&text).into_iter();
            further.extend(allowed.map(|d| dir.join(d)));
            kind = Kind::Toml(text);
        }
        Ok(Source {
            confined: files.open(&dir, &further)?,
            include_path: [files.include_path(), &further].concat(),
            files: files.clone(),
            kind,
            path,
            dir,
            pre: None,
            web,
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
            Kind::Toml(_) => self.files.place(&self.dir).join("kiln.lock"),
            Kind::Kickstart => self.files.place(&self.path).with_extension("kiln.lock"),
        }
    }

    fn project(&self) -> Result<Arc<dyn Directory>, String> {
        self.files
            .directory(&self.dir)
            .map_err(|e| format!("{}: {}", self.dir.display(), plain(&e)))
    }

    /// What lies below `/tmp` is first what `%pre` left there.
    fn local(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), LoadError> {
        let (Some(pre), Some(rest)) = (&self.pre, path.strip_prefix("/tmp/")) else {
            return self.confined.include(path, from);
        };
        let left = File::open(pre)
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

impl kiln_plan::Files for Source {
    fn read(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String> {
        if self.is_named(path, from) {
            let read = self.files.named(&self.path);
            let read = read.map_err(|e| format!("{from}: {}", plain(&e)));
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
pub(crate) fn project(files: &Files, definition: &Path) -> Result<Arc<dyn Directory>, Failure> {
    let dir = directory_of(&file_of(files, definition)?);
    files.directory(&dir).map_err(|e| unreadable(&dir, &e))
}

/// The definition's file.
fn file_of(files: &Files, definition: &Path) -> Result<PathBuf, Failure> {
    let is_directory = files.is_directory(definition);
    Ok(
        match is_directory.map_err(|e| unreadable(definition, &e))? {
            true => definition.join("kiln.toml"),
            false => definition.to_owned(),
        },
    )
}

fn directory_of(file: &Path) -> PathBuf {
    file.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
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
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Component;

    use kiln_plan::ProjectFile;

    use super::*;
    use crate::define::reader::Reader;
    use crate::define::web::Access;

    fn source(files: &Files, definition: &str) -> Result<Source, Failure> {
        let web = Web::new(Access::planning(), None);
        Source::open(files, Path::new(definition), web)
    }

    fn lowered(files: &Files, definition: &str) -> Lowered {
        let source = source(files, definition).expect("the definition");
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
        let files = Files::of_disk(place.path());
        fs::create_dir_all(at("lab/src")).expect("a directory");
        fs::write(at("lab/src/own.ks"), "lang C.UTF-8\n").expect("a file");
        fs::write(at("lab/a.ks"), "%include src/own.ks\n").expect("a file");
        let found = lowered(&files, "lab/a.ks");
        assert_eq!(errors(&found), Vec::<&str>::new());
        let plan = found.plan.expect("a plan");
        assert_eq!(plan.layers[0].commands[0].origin, "lab/src/own.ks:1");

        // This one is there for the process only.
        assert!(Path::new("src/lib.rs").exists());
        fs::write(at("lab/b.ks"), "%include src/lib.rs\n").expect("a file");
        let refused = lowered(&files, "lab/b.ks");
        assert!(errors(&refused)[0].contains("cannot read"), "{refused:?}");
    }

    #[test]
    fn the_lock_lies_beside_the_definition_wherever_that_is() {
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join("a.ks"), "lang C.UTF-8\n").expect("a file");
        let source = source(&Files::of_disk(place.path()), "a.ks").expect("a file");
        assert_eq!(source.lock_path(), place.path().join("a.kiln.lock"));
        assert_eq!(
            source.name(),
            "a.ks",
            "messages name it as the request does"
        );
    }

    /// Files that no disk has, by their absolute paths.
    #[derive(Clone, Debug)]
    struct Memory(Arc<BTreeMap<PathBuf, &'static str>>, PathBuf);

    impl Memory {
        fn files(all: &[(&str, &'static str)]) -> Files {
            let all = all.iter().map(|(path, text)| (path.into(), *text));
            Files::new(Arc::new(Memory(Arc::new(all.collect()), "/".into())))
        }

        fn text(&self, path: &Path) -> io::Result<Vec<u8>> {
            let found = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(found.as_bytes().to_vec())
        }
    }

    impl Reader for Memory {
        fn place(&self, path: &Path) -> PathBuf {
            self.1.join(path)
        }

        fn real(&self, path: &Path) -> io::Result<PathBuf> {
            let mut real = PathBuf::new();
            for part in self.place(path).components() {
                match part {
                    Component::ParentDir => drop(real.pop()),
                    Component::CurDir => {}
                    part => real.push(part),
                }
            }
            let there = self.0.keys().any(|file| file.starts_with(&real));
            there.then_some(real).ok_or(io::ErrorKind::NotFound.into())
        }

        fn is_directory(&self, path: &Path) -> io::Result<bool> {
            Ok(!self.0.contains_key(&self.real(path)?))
        }

        fn directory(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
            Ok(Arc::new(Memory(Arc::clone(&self.0), self.real(path)?)))
        }

        fn named(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.text(&self.real(path)?)
        }
    }

    impl Directory for Memory {
        fn read(&self, below: &Path) -> io::Result<Vec<u8>> {
            self.text(&self.1.join(below))
        }

        fn tree(&self, _: &str) -> Result<Option<Vec<Found>>, String> {
            Ok(None)
        }

        fn copy(&self, _: &[ProjectFile], _: &Path) -> Result<(), Failure> {
            Ok(())
        }
    }

    const TOML: &str = "distribution = \"debian:bookworm\"\nlayers = [\"a.ks\"]\n";

    #[test]
    fn a_definition_in_memory_is_planned_and_climbs_no_higher_than_one_on_a_disk() {
        let project = |include: &'static str| {
            Memory::files(&[
                ("/srv/lab/kiln.toml", TOML),
                ("/srv/lab/a.ks", include),
                ("/srv/lab/parts/b.ks", "lang C.UTF-8\n"),
                ("/srv/lab/.hidden/b.ks", "lang C.UTF-8\n"),
                ("/srv/common/c.ks", "lang C.UTF-8\n"),
            ])
        };
        let found = lowered(&project("%include parts/b.ks\n"), "/srv/lab");
        assert_eq!(errors(&found), Vec::<&str>::new());
        let plan = found.plan.expect("a plan");
        assert_eq!(plan.layers[0].commands[0].origin, "/srv/lab/parts/b.ks:1");
        for climbing in [
            "%include ../common/c.ks\n",
            "%include parts/../../common/c.ks\n",
            "%include /srv/common/c.ks\n",
            "%include /srv/common/nowhere.ks\n",
            "%include .hidden/b.ks\n",
        ] {
            let refused = lowered(&project(climbing), "/srv/lab");
            let said = errors(&refused);
            assert!(
                said[0].contains("not among the files"),
                "{climbing}: {said:?}"
            );
        }
        let common = [PathBuf::from("/srv/common")];
        let allowed = project("%include ../common/c.ks\n").allow(&common);
        assert_eq!(errors(&lowered(&allowed, "/srv/lab")), Vec::<&str>::new());
        let confined = allowed.within(Some(Path::new("/srv/lab")));
        let failure = source(&confined, "/srv/lab").expect_err("refused");
        assert!(failure.message.contains("/srv/common"), "{failure:?}");
    }

    /// The name that a user gives is followed wherever it leads; one that a stranger gives is not.
    #[test]
    fn a_stranger_names_no_definition_outside() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("work")).expect("a directory");
        fs::write(at("secret"), TOML).expect("a file");
        for name in ["work/a.ks", "work/kiln.toml"] {
            std::os::unix::fs::symlink("../secret", at(name)).expect("a link");
            let trusted = Files::of_disk(place.path());
            let confined = trusted.clone().within(Some(Path::new("work")));
            let path = Path::new(name);
            assert_eq!(trusted.named(path).expect("followed"), TOML.as_bytes());
            let refused = confined.named(path).expect_err("refused").to_string();
            assert!(refused.contains("outside"), "{refused}");
            fs::remove_file(at(name)).expect("removed");
            fs::write(at(name), TOML).expect("a file");
            assert_eq!(confined.named(path).expect("inside"), TOML.as_bytes());
        }
        assert!(source(&Files::of_disk(place.path()), "work").is_ok());
    }
}
