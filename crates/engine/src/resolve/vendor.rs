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

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_packages::{Digest, Lock, LockedPackage};
use kiln_plan::Hasher;
use kiln_rootfs::Reporter;
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};

use crate::build::Session;
use crate::resolve::solve::World;
use crate::{Failure, FailureKind, Unit};

const SUMS: &str = "SHA256SUMS";
const LOCK: &str = "kiln.lock";
const PACKAGES: &str = "packages";
const METADATA: &str = "metadata";
const KEYS: &str = "keys";

/// Where a package lies in a vendored directory.
fn package_path(package: &LockedPackage) -> String {
    let digest = package.sha256.to_string();
    let start = digest.get(..12).unwrap_or(&digest);
    let file = package.url.rsplit('/').next().unwrap_or_default();
    format!("{PACKAGES}/{start}-{file}")
}

impl Session<'_> {
    /// Makes a vendored directory of a lock that has just been resolved in `world`.
    pub(crate) fn vendor(
        &self,
        directory: &Path,
        lock: &Lock,
        world: &World,
    ) -> Result<(), Failure> {
        let all: Vec<&LockedPackage> = lock.packages.iter().collect();
        self.resolver().download(&all)?;
        let title = format!("vendoring to {}", directory.display());
        self.steps.step(&title, None, Unit::Bytes, |step| {
            let mut draft = Draft::open(directory)?;
            let total: u64 = lock.packages.iter().map(|p| p.size).sum();
            let mut done = 0;
            for package in &lock.packages {
                self.cancel.check()?;
                let stored = self.downloads.path(&package.sha256);
                draft.copy(&stored, &package_path(package), Some(&package.sha256))?;
                done += package.size;
                step.progress(done, Some(total), Some(&package.name));
            }
            metadata(&mut draft, world)?;
            draft.write(LOCK, lock.text().as_bytes())?;
            draft.commit(directory)?;
            let count = lock.packages.len();
            step.summarise(format!("{count} packages, {} MB", total / 1_000_000));
            Ok(())
        })
    }

    /// Keeps the metadata that vouches for a lock in a directory.
    pub(crate) fn keep_metadata(&self, directory: &Path, world: &World) -> Result<(), Failure> {
        let mut draft = Draft::open(directory)?;
        metadata(&mut draft, world)?;
        draft.commit(directory)
    }
}

/// Everything that vouches for packages of a world.
fn metadata(draft: &mut Draft, world: &World) -> Result<(), Failure> {
    for (to, file) in world.read.files() {
        draft.copy(&file, &format!("{METADATA}/{to}"), None)?;
    }
    for (name, bytes) in world.read.keys() {
        draft.write(&format!("{KEYS}/{name}"), &bytes)?;
    }
    Ok(())
}

/// A directory in the making.
struct Draft {
    root: PathBuf,
    sums: BTreeMap<String, Digest>,
    _lock: File,
}

impl Draft {
    fn open(directory: &Path) -> Result<Draft, Failure> {
        refuse_foreign(directory)?;
        let name = directory.file_name().ok_or_else(|| {
            let message = format!("{} is no place for a directory", directory.display());
            Failure::new(FailureKind::Usage, message)
        })?;
        let mut part = OsString::from(".");
        part.push(name);
        part.push(".kiln-part");
        let root = directory.with_file_name(&part);
        fs::create_dir_all(&root).map_err(|e| unwritable(&root, &e))?;
        part.push(".lock");
        let path = directory.with_file_name(part);
        let lock = File::create(&path).map_err(|e| unwritable(&path, &e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another kiln is vendoring to {}", directory.display());
            return Err(Failure::new(FailureKind::Environment, message).hint("wait for it"));
        }
        Ok(Draft {
            root,
            sums: BTreeMap::new(),
            _lock: lock,
        })
    }

    /// Copies a file, unless an interrupted run did. `expected` is what it must hold.
    fn copy(&mut self, from: &Path, to: &str, expected: Option<&Digest>) -> Result<(), Failure> {
        let digest = match expected {
            Some(digest) => *digest,
            None => digest(from).map_err(|e| unreadable(from, &e))?,
        };
        let path = self.place(to)?;
        if !self::digest(&path).is_ok_and(|found| found == digest) {
            let part = path.with_extension("part");
            fs::copy(from, &part)
                .and_then(|_| fs::rename(&part, &path))
                .map_err(|e| unwritable(&path, &e))?;
            let found = self::digest(&path).map_err(|e| unreadable(&path, &e))?;
            if found != digest {
                let message = format!("{} was copied, but differs", path.display());
                return Err(Failure::new(FailureKind::Environment, message)
                    .hint("check the disks that hold the cache and the directory"));
            }
        }
        self.sums.insert(to.to_owned(), digest);
        Ok(())
    }

    fn write(&mut self, to: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.place(to)?;
        fs::write(&path, bytes).map_err(|e| unwritable(&path, &e))?;
        self.sums.insert(to.to_owned(), Digest::of(bytes));
        Ok(())
    }

    fn place(&self, to: &str) -> Result<PathBuf, Failure> {
        let path = self.root.join(to);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| unwritable(parent, &e))?;
        }
        Ok(path)
    }

    /// Removes what does not belong here any longer, syncs, and takes the directory's place.
    fn commit(self, directory: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| unwritable(directory, &e);
        self.prune(&self.root, "").map_err(failed)?;
        let mut text = String::new();
        for (path, digest) in &self.sums {
            let _ = writeln!(text, "{digest}  {path}");
        }
        let sums = self.root.join(SUMS);
        fs::write(&sums, text).map_err(|e| unwritable(&sums, &e))?;
        // It is carried elsewhere, maybe on a stick that is pulled out soon.
        let root = File::open(&self.root).map_err(failed)?;
        rustix::fs::syncfs(&root).map_err(|e| failed(e.into()))?;
        match fs::rename(&self.root, directory) {
            Ok(()) => {}
            Err(_) if directory.is_dir() => {
                // An older one is there: the two change places.
                let here = rustix::fs::CWD;
                renameat_with(here, &self.root, here, directory, RenameFlags::EXCHANGE)
                    .map_err(|e| failed(e.into()))?;
                fs::remove_dir_all(&self.root).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let mut lock = self.root.into_os_string();
        lock.push(".lock");
        let _ = fs::remove_file(lock);
        Ok(())
    }

    fn prune(&self, directory: &Path, inside: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = format!("{inside}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.prune(&entry.path(), &format!("{path}/"))?;
            } else if !self.sums.contains_key(&path) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Nothing is replaced that was not made here.
fn refuse_foreign(directory: &Path) -> Result<(), Failure> {
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unwritable(directory, &error)),
    };
    let has = |name: &str| directory.join(name).exists();
    if entries.next().is_none() || has(SUMS) && (has(LOCK) || has(METADATA)) {
        return Ok(());
    }
    let message = format!(
        "{} holds something else than a vendored directory",
        directory.display()
    );
    Err(Failure::new(FailureKind::Usage, message).hint("name a new directory"))
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

    /// Has the metadata in a directory of the cache that can be written; gives its path. Files there are named by their content, and
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
            let part = target.with_extension(format!("{}.part", std::process::id()));
            let mut file = File::create(&part)?;
            file.write_all(&fs::read(&source)?)?;
            fs::rename(&part, &target)?;
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

fn digest(path: &Path) -> io::Result<Digest> {
    Digest::of_file(&mut File::open(path)?)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
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

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written", path.display());
    Failure::new(FailureKind::Environment, message).cause(error.to_string())
}
