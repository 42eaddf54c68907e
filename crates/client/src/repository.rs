//! Sources that the server fetches itself: the address of a git repository, and what of it.

use std::path::Path;

use kiln_git::{Options, Remote, Snapshot};
use serde_json::{Value, json};

use crate::{Error, Kind, config};

/// A repository, as `URL[#REVISION[:PATH]]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its address.
    pub url: String,
    /// A branch, a tag, another reference or a commit; empty: the default branch.
    pub revision: String,
    /// A directory or a file in it; empty: all of it.
    pub path: String,
}

/// A commit of a repository that was looked into from here.
pub struct Opened(Snapshot<'static>);

impl Repository {
    /// Whether a text is meant as an address, and not as a path.
    pub fn is_meant(text: &str) -> bool {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        matches!(scheme, "http" | "https" | "git" | "ssh" | "file")
    }

    /// Reads an address.
    ///
    /// # Errors
    /// It has a part that cannot be.
    pub fn read(text: &str) -> Result<Repository, Error> {
        let (url, rest) = text.split_once('#').unwrap_or((text, ""));
        let (revision, path) = rest.split_once(':').unwrap_or((rest, ""));
        let wrong = |what: String| {
            Error::new(Kind::Usage, what)
                .hint("a repository is https://HOST/PATH, and https://HOST/PATH#REVISION:DIR for a directory of a branch, a tag or a commit")
        };
        kiln_git::check_url(url).map_err(wrong)?;
        kiln_git::check_revision(revision).map_err(wrong)?;
        let words = path.split('/').filter(|word| !matches!(*word, "" | "."));
        let path: Vec<&str> = words.collect();
        if path.contains(&"..") {
            return Err(wrong(format!(
                "{:?} is not below the repository",
                path.join("/")
            )));
        }
        Ok(Repository {
            url: url.to_owned(),
            revision: revision.to_owned(),
            path: path.join("/"),
        })
    }

    /// What a build has as its source.
    pub fn source(&self, revision: &str, dir: &Path) -> Value {
        // A dollar in a build begins a substitution.
        let plain = |text: &str| text.replace('$', "$$");
        let mut source = json!({ "url": plain(&self.url) });
        if !revision.is_empty() {
            source["revision"] = Value::from(plain(revision));
        }
        if let Some(dir) = dir.to_str().filter(|dir| !dir.is_empty()) {
            source["dir"] = Value::from(plain(dir));
        }
        json!({ "gitSource": source })
    }

    /// Looks into the commit from this machine, without credentials.
    ///
    /// # Errors
    /// It cannot be read from here, or there is none.
    pub fn open(&self) -> Result<Opened, Error> {
        let dir = tempfile::tempdir().map_err(|error| {
            let message = "a directory for a commit cannot be made";
            Error::new(Kind::Environment, message).cause(error)
        })?;
        let remote = Remote::open(&self.url, &Options::default()).map_err(unread)?;
        let found = remote.resolve(&self.revision).map_err(unread)?;
        let most = config::LONGEST as u64;
        let snapshot = remote.fetch(&found.commit, dir.path(), Some(most));
        snapshot.map(Opened).map_err(unread)
    }
}

/// What to do where the server reads more than this machine can.
fn unread(error: kiln_git::Error) -> Error {
    Error::new(Kind::Environment, "the repository cannot be looked into from here")
        .cause(error)
        .hint("say what is to be built, then only the server has to read it: a build file of this machine with --config FILE, or a kickstart with URL#REVISION:PATH/NAME.ks")
}

impl Opened {
    /// The commit, in forty digits.
    pub fn commit(&self) -> String {
        self.0.commit()
    }

    /// The names of a directory's files.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn files(&self, dir: &str) -> Result<Vec<String>, Error> {
        self.0.files(dir).map_err(input)
    }

    /// A build file's text.
    ///
    /// # Errors
    /// There is no such file, or it is too large, or no text.
    pub fn text(&self, path: &str) -> Result<String, Error> {
        let bytes = self.0.file(path, config::LONGEST as u64).map_err(input)?;
        String::from_utf8(bytes)
            .map_err(|_| Error::new(Kind::Input, format!("{path} is no UTF-8")).at(path))
    }
}

fn input(error: kiln_git::Error) -> Error {
    Error::new(Kind::Input, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |text: &str| {
            let read = Repository::read(text).map_err(|error| error.message)?;
            Ok::<_, String>([read.url, read.revision, read.path].join(" "))
        };
        let url = "https://git.test/team/lab.git";
        assert_eq!(read(url).unwrap(), format!("{url}  "));
        assert_eq!(
            read(&format!("{url}#main:./images//lab.ks")).unwrap(),
            format!("{url} main images/lab.ks")
        );
        assert_eq!(read(&format!("{url}#:a")).unwrap(), format!("{url}  a"));
        for (text, expected) in [
            ("ssh://git@git.test/lab", "is not https://HOST/PATH"),
            ("https://bot:s3cret@git.test/lab", "a name or a password"),
            ("https://git.test/lab#a b", "is no name of a branch"),
            ("https://git.test/lab#main:a/../../b", "is not below"),
        ] {
            assert!(Repository::is_meant(text));
            let error = read(text).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("s3cret"),
                "{error}"
            );
        }
        for text in [".", "lab.ks", "/srv/x", "C:x", "git.test:lab"] {
            assert!(!Repository::is_meant(text), "{text}");
        }
    }

    #[test]
    fn a_source_has_no_substitutions() {
        let read = Repository::read("https://git.test/a$B#x").unwrap();
        let expected =
            json!({ "gitSource": { "url": "https://git.test/a$$B", "revision": "x", "dir": "d" } });
        assert_eq!(read.source("x", Path::new("d")), expected);
    }
}
