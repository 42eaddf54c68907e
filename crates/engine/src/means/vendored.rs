//! Vendored directories: everything that a build needs from the network, to be carried to a machine without one.
//!
//! ```text
//! DIR/
//!   kiln.lock                     what is built
//!   packages/<12 hex>-<file>      every locked package, the build tools' too; the digits are the beginning of its SHA-256
//!   metadata/<repository>/        signed metadata, as the distribution's family keeps it
//!   keys/<file>                   the keys that may sign them, for people: a build takes its own
//!   SHA256SUMS                    of all these files, for `sha256sum -c`; written last
//! ```
//!
//! It is made beside its place, in `.DIR.kiln-part`, and comes there by one rename; what an interrupted run left is taken up by the next
//! one. Whoever uses it trusts nothing in it: signatures are verified with the definition's keys, the lock's packages have
//! to be in the signed indices (`trust`), and every file is hashed when it is taken. Metadata that is kept beside a lock is such a directory
//! without lock and packages.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::{Digest, LockedPackage};
use kiln_plan::Hasher;

use crate::io::write_whole;
use crate::{Failure, FailureKind};

pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const LOCK: &str = "kiln.lock";
const PACKAGES: &str = "packages";
pub(crate) const METADATA: &str = "metadata";
pub(crate) const KEYS: &str = "keys";

/// Where a package lies in a vendored directory.
pub(crate) fn package_path(package: &LockedPackage) -> String {
    let digest = package.sha256.to_string();
    let start = digest.get(..12).unwrap_or(&digest);
    let url = package.url.as_str();
    let file = url.rsplit_once('/').map_or(url, |(_, file)| file);
    format!("{PACKAGES}/{start}-{file}")
}

/// A vendored directory that a build takes everything from.
#[derive(Clone, Debug)]
pub(crate) struct Vendored {
    directory: PathBuf,
}

impl Vendored {
    /// Opens a directory and checks all that is small: a build checks packages as it takes them.
    pub(crate) fn open(directory: &Path) -> Result<Vendored, Failure> {
        let directory = fs::canonicalize(directory).map_err(|e| unreadable(directory, &e))?;
        let sums = directory.join(SUMS);
        let text = fs::read_to_string(&sums).map_err(|e| {
            unreadable(&sums, &e).hint("`kiln lock --vendor DIR` makes such a directory")
        })?;
        for line in text.lines() {
            let (digest, path) = line.split_once("  ").ok_or_else(|| damaged(&sums))?;
            let expected: Digest = digest.parse().map_err(|_| damaged(&sums))?;
            let fine = |part: &str| !part.is_empty() && part != "." && part != "..";
            if !path.split('/').all(fine) {
                return Err(damaged(&sums));
            }
            if path.starts_with("packages/") {
                continue;
            }
            let path = directory.join(path);
            let found = self::digest(&path).map_err(|e| unreadable(&path, &e).hint(AGAIN))?;
            if found != expected {
                return Err(damaged(&path));
            }
        }
        Ok(Vendored { directory })
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.directory.join(LOCK)
    }

    /// The same package from this directory.
    pub(crate) fn localised(&self, package: &LockedPackage) -> LockedPackage {
        let path = self.directory.join(package_path(package));
        LockedPackage {
            url: file_url(path.as_os_str()),
            ..package.clone()
        }
    }

    /// Has the metadata in a directory of the cache that can be written; returns its path. Files there are named by their content, and
    /// whoever reads them verifies them.
    pub(crate) fn metadata(&self, cache: &Path) -> Result<PathBuf, Failure> {
        let id = Hasher::new("vendored.v1")
            .bytes("directory", self.directory.as_os_str().as_bytes())
            .finish();
        let to = cache.join("vendored").join(id.short());
        let from = self.directory.join(METADATA);
        import(&from, &to).map_err(|e| unwritable(&to, &e))?;
        // Its last use, for `kiln cache gc`.
        let used = File::open(&to).and_then(|dir| dir.set_modified(SystemTime::now()));
        used.map_err(|e| unwritable(&to, &e))?;
        Ok(to)
    }
}

pub(crate) const AGAIN: &str =
    "run `kiln lock --vendor` again where there is a network, and copy all of it";

fn import(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            import(&source, &target)?;
        } else if entry.file_name() == "current" || !same_size(&source, &target) {
            write_whole(&target, &fs::read(&source)?)?;
        }
    }
    Ok(())
}

fn same_size(a: &Path, b: &Path) -> bool {
    matches!((fs::metadata(a), fs::metadata(b)), (Ok(a), Ok(b)) if a.len() == b.len())
}

fn file_url(path: &OsStr) -> String {
    let mut url = "file://".to_owned();
    for byte in path.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~+".contains(byte) {
            url.push(char::from(*byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

pub(crate) fn digest(path: &Path) -> io::Result<Digest> {
    Digest::of_file(&mut File::open(path)?)
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("{} is missing", path.display()),
        _ => format!("{} cannot be read", path.display()),
    };
    Failure::new(FailureKind::Definition, message).cause(error.to_string())
}

fn damaged(path: &Path) -> Failure {
    let message = format!(
        "{} was changed since it was vendored: its SHA-256 is another one",
        path.display()
    );
    Failure::new(FailureKind::Definition, message).hint(AGAIN)
}

pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written", path.display());
    Failure::new(FailureKind::Environment, message).cause(error.to_string())
}
