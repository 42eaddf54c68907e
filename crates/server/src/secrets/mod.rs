//! Secrets: values that steps have in their environment, and that nothing else of a build holds.
//!
//! Below the data directory stands `secrets/NAME/N`: the bytes of version N of a secret, counted from 1. Directories are 0700 and
//! files 0600, written whole and never changed. They are not encrypted: a key beside them would keep nobody out.

mod check;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use check::check;

/// Bytes of a value at most, as on Cloud Build.
pub const LONGEST: usize = 64 << 10;

/// The secrets of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets(PathBuf);

/// A secret as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Its versions, the oldest first.
    pub versions: Vec<u64>,
}

/// Why a secret is not kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name can be in a build.
    #[error("{0:?} is no name of a secret: it has letters, digits, - and _, at most 255")]
    Name(String),
    /// No environment could hold it.
    #[error("the value of a secret is {0}")]
    Value(&'static str),
    /// It is there.
    #[error("there is a secret named {0} already")]
    Taken(String),
    /// It is not there.
    #[error("there is no secret named {0}")]
    Missing(String),
    /// The files cannot be read or written.
    #[error("{0}: {1}")]
    Files(PathBuf, #[source] io::Error),
}

impl Secrets {
    /// Those below a data directory.
    pub fn of(data: &Path) -> Self {
        Secrets(data.join("secrets"))
    }

    /// Keeps the first version of a new secret.
    ///
    /// # Errors
    /// There is one of this name, the name or the value is none, or the files cannot be written.
    pub fn create(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        if !self.versions(name)?.is_empty() {
            return Err(Error::Taken(name.to_owned()));
        }
        match self.put(name, 1, value)? {
            true => Ok(()),
            false => Err(Error::Taken(name.to_owned())),
        }
    }

    /// Keeps another version of a secret, and returns its number.
    ///
    /// # Errors
    /// There is no such secret, the value is none, or the files cannot be written.
    pub fn add(&self, name: &str, value: &[u8]) -> Result<u64, Error> {
        loop {
            let last = self.versions(name)?.pop();
            let next = last.ok_or_else(|| Error::Missing(name.to_owned()))? + 1;
            if self.put(name, next, value)? {
                return Ok(next);
            }
        }
    }

    /// All secrets by name.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn list(&self) -> Result<Vec<Secret>, Error> {
        let mut all = Vec::new();
        for name in names(&self.0)? {
            if is_name(&name) {
                let versions = self.versions(&name)?;
                all.push(Secret { name, versions });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.retain(|secret| !secret.versions.is_empty());
        Ok(all)
    }

    /// Removes a secret with all its versions.
    ///
    /// # Errors
    /// There is none of this name, or the files cannot be removed.
    pub fn delete(&self, name: &str) -> Result<(), Error> {
        if self.versions(name)?.is_empty() {
            return Err(Error::Missing(name.to_owned()));
        }
        let dir = self.0.join(name);
        fs::remove_dir_all(&dir).map_err(|error| Error::Files(dir, error))
    }

    /// Returns false if there is such a version already.
    fn put(&self, name: &str, version: u64, value: &[u8]) -> Result<bool, Error> {
        if let Some(what) = unfit(value) {
            return Err(Error::Value(what));
        }
        let dir = self.0.join(name);
        let trouble = |error| Error::Files(dir.clone(), error);
        let mut private = DirBuilder::new();
        private
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(trouble)?;
        // Its mode is 0600.
        let mut file = tempfile::NamedTempFile::new_in(&dir).map_err(trouble)?;
        file.write_all(value).map_err(trouble)?;
        file.as_file().sync_all().map_err(trouble)?;
        match file.persist_noclobber(dir.join(version.to_string())) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(trouble(error.error)),
        }
    }

    fn versions(&self, name: &str) -> Result<Vec<u64>, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        let numbers = names(&self.0.join(name))?;
        let mut versions: Vec<u64> = numbers.iter().filter_map(|name| number(name)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Where the value of a version is, for whoever may read it.
    ///
    /// # Errors
    /// There is none, or the name is none; the sentence is for the client.
    pub(crate) fn find(&self, version: &str) -> Result<PathBuf, String> {
        let (secret, wanted) = read_version(version).ok_or_else(|| malformed(version))?;
        let (of, _) = version.split_once("/versions/").unwrap_or((version, ""));
        let all = self.versions(secret).map_err(|error| error.to_string())?;
        let found = match wanted {
            "latest" => all.last().copied(),
            wanted => number(wanted).filter(|wanted| all.contains(wanted)),
        };
        let missing = || match all.is_empty() {
            true => format!("Secret [{of}] not found or has no versions"),
            false => format!("Secret Version [{version}] not found"),
        };
        let found = found.ok_or_else(|| {
            let hint = "`kiln secret list` on the server shows what there is";
            format!(
                "failed to access secret version for secret {version}: {}; {hint}",
                missing()
            )
        })?;
        Ok(self.0.join(secret).join(found.to_string()))
    }

    /// The values of an attempt, by the names of their variables.
    ///
    /// # Errors
    /// One is not there any more, or cannot be read; the sentence is for the client.
    pub(crate) fn read(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, String> {
        let read = |(name, version): (&String, &String)| {
            let path = self.find(version)?;
            let value = fs::read_to_string(path).map_err(|error| {
                format!("failed to access secret version for secret {version}: {error}")
            })?;
            Ok((name.clone(), value))
        };
        wanted.iter().map(read).collect()
    }
}

/// Why no environment can hold a value.
fn unfit(value: &[u8]) -> Option<&'static str> {
    match value {
        [] => Some("empty"),
        _ if value.len() > LONGEST => Some("longer than 64 KiB"),
        _ if value.contains(&0) => {
            Some("no text: it has a zero byte, which no environment can hold")
        }
        _ if std::str::from_utf8(value).is_err() => Some("no UTF-8"),
        _ => None,
    }
}

/// The names in a directory; none if it is not there.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let trouble = |error| Error::Files(dir.to_owned(), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(trouble)?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(trouble)?.file_name().into_string().ok()));
    Ok(names
        .collect::<Result<Vec<_>, Error>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// A version's number as it is written: without zeros or signs before it.
fn number(text: &str) -> Option<u64> {
    let number = text.parse().ok()?;
    (number > 0 && text == format!("{number}")).then_some(number)
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=255).contains(&name.len()) && name.bytes().all(fits)
}

/// The name of the secret and its version in `projects/PROJECT/secrets/NAME/versions/VERSION`. A server has secrets for all
/// its projects, as it has tokens.
fn read_version(version: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = version.split('/').collect();
    match parts.as_slice() {
        ["projects", project, "secrets", name, "versions", wanted]
            if !project.is_empty()
                && is_name(name)
                && (*wanted == "latest" || number(wanted).is_some()) =>
        {
            Some((name, wanted))
        }
        _ => None,
    }
}

fn malformed(version: &str) -> String {
    format!(
        "{version:?} is not projects/PROJECT/secrets/NAME/versions/VERSION, where VERSION is a number or latest"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_counted_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::of(dir.path());
        assert!(secrets.list().unwrap().is_empty());
        assert!(matches!(secrets.add("key", b"x"), Err(Error::Missing(_))));
        secrets.create("key", b"one\n").unwrap();
        assert!(matches!(secrets.create("key", b"x"), Err(Error::Taken(_))));
        assert_eq!(secrets.add("key", b"two").unwrap(), 2);
        let [secret] = secrets.list().unwrap().try_into().unwrap();
        assert_eq!(
            (secret.name.as_str(), secret.versions.as_slice()),
            ("key", &[1, 2][..])
        );
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("secrets")), 0o700);
        assert_eq!(mode(&dir.path().join("secrets/key")), 0o700);
        assert_eq!(mode(&dir.path().join("secrets/key/2")), 0o600);
        let read = |version: &str| {
            let wanted = BTreeMap::from([("A".to_owned(), version.to_owned())]);
            secrets.read(&wanted).map(|values| values["A"].clone())
        };
        assert_eq!(read("projects/p/secrets/key/versions/1").unwrap(), "one\n");
        assert_eq!(
            read("projects/p/secrets/key/versions/latest").unwrap(),
            "two"
        );
        for (version, said) in [
            (
                "projects/p/secrets/key/versions/3",
                "Secret Version [projects/p/secrets/key/versions/3] not found",
            ),
            (
                "projects/p/secrets/no/versions/1",
                "Secret [projects/p/secrets/no] not found or has no versions",
            ),
            ("projects/p/secrets/key/versions/01", "is not projects/"),
            ("projects/p/secrets/../versions/1", "is not projects/"),
            (
                "projects/p/secrets/key/versions/../../../kiln.db",
                "is not projects/",
            ),
        ] {
            let error = read(version).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for value in [&b""[..], b"a\0b", b"\xff", &[b'x'; LONGEST + 1]] {
            assert!(matches!(secrets.add("key", value), Err(Error::Value(_))));
        }
        for name in ["", "a/b", "..", "a b", ".a"] {
            assert!(matches!(secrets.create(name, b"x"), Err(Error::Name(_))));
        }
        secrets.delete("key").unwrap();
        assert!(matches!(secrets.delete("key"), Err(Error::Missing(_))));
    }
}
