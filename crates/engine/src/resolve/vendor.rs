//! Makes the directories that [`crate::means::vendored`] draws.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kiln_packages::{Digest, Lock, LockedPackage};
use kiln_rootfs::Reporter;
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};

use crate::means::vendored::{
    KEYS, LOCK, METADATA, SUMS, digest, package_path, unreadable, unwritable,
};
use crate::resolve::solve::{Resolver, World};
use crate::{Cancel, Failure, FailureKind, Unit, counted};

/// Makes a vendored directory of a lock that has just been resolved in `world`.
pub(crate) fn vendor(
    resolver: &Resolver<'_>,
    directory: &Path,
    lock: &Lock,
    world: &World,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let all: Vec<&LockedPackage> = lock.packages.iter().collect();
    resolver.download(&all)?;
    let title = format!("vendoring to {}", directory.display());
    resolver.steps.step(&title, None, Unit::Bytes, |step| {
        let mut draft = Draft::open(directory)?;
        let total: u64 = lock.packages.iter().map(|p| p.size).sum();
        let mut done = 0;
        for package in &lock.packages {
            cancel.check()?;
            let stored = resolver.downloads.path(&package.sha256);
            draft.copy(&stored, &package_path(package), Some(&package.sha256))?;
            done += package.size;
            step.progress(done, Some(total), Some(&package.name));
        }
        metadata(&mut draft, world)?;
        draft.write(LOCK, lock.text().as_bytes())?;
        draft.commit(directory)?;
        let count = counted(lock.packages.len(), "package");
        step.summarise(format!("{count}, {} MB", total / 1_000_000));
        Ok(())
    })
}

/// Keeps the metadata that vouches for a lock in a directory.
pub(crate) fn keep_metadata(directory: &Path, world: &World) -> Result<(), Failure> {
    let mut draft = Draft::open(directory)?;
    metadata(&mut draft, world)?;
    draft.commit(directory)
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
