//! The output directory: artifacts are made in a private directory inside it and appear by rename.
//!
//! ```text
//! output/
//!   disk.raw disk.tar.gz packages.txt build.log manifest.json   complete or absent, never in between
//!   .kiln-<pid>-<clock>-<count>/                                artifacts in the making; `lock` in it is flock'ed
//! ```
//! The manifest is renamed last: when it is there, it describes the files beside it.
//!
//! Artifacts are their owner's alone (0600), in a directory of any mode, and so is a directory that Kiln makes (0700): an image has password hashes,
//! keys and all that its scripts fetched, and its plan, log and manifest tell of them. Root reads them anyway, so
//! `sudo dd` works; who serves or shares an image gives the rights to it (`chmod`, or by copying).

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_rootfs::private;
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock};
use serde::Serialize;

use crate::io::{plain, unique, write_failure};
use crate::means::digest::digest;
use crate::{Failure, FailureKind};

/// The disk.
pub(crate) const RAW: &str = "disk.raw";
/// The disk, packed.
pub(crate) const TAR_GZ: &str = "disk.tar.gz";
const PREFIX: &str = ".kiln-";
/// Of every artifact.
const MODE: u32 = 0o600;

/// Whether a file of the output directory is a disk image.
pub(crate) fn is_image(name: &OsStr) -> bool {
    [RAW, TAR_GZ].iter().any(|image| name == *image)
}

/// Artifacts in the making. Dropping it removes them.
pub(crate) struct Output {
    dir: PathBuf,
    staging: PathBuf,
    /// Directories that were made for this, the innermost first.
    made: Vec<PathBuf>,
    /// What was there before and has lost its name, held open: the disk takes back its blocks once nobody has it.
    replaced: Mutex<Vec<File>>,
    _lock: File,
}

/// A finished file, as the manifest describes it.
#[derive(Clone, Debug, Serialize)]
pub struct Artifact {
    /// File name in the output directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes that it takes on disk.
    pub allocated: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

impl Output {
    /// Makes the directory if need be, removes what killed builds left there, and makes a private directory in it.
    pub(crate) fn open(dir: &Path) -> Result<Output, Failure> {
        let fail = |error: &std::io::Error| {
            let failure = Failure::new(
                FailureKind::Environment,
                format!("the output directory {} cannot be written", dir.display()),
            );
            failure
                .cause(plain(error))
                .hint("choose another with -o DIR")
        };
        let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let made: Vec<PathBuf> = dir
            .ancestors()
            .take_while(missing)
            .map(Path::to_owned)
            .collect();
        private::make(dir).map_err(|e| fail(&e))?;
        reclaim(dir);
        let staging = dir.join(format!("{PREFIX}{}", unique()));
        let mut private = DirBuilder::new();
        private.mode(private::MODE);
        private.create(&staging).map_err(|e| fail(&e))?;
        let lock = File::create(staging.join("lock")).map_err(|e| fail(&e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| fail(&e.into()))?;
        Ok(Output {
            dir: dir.to_owned(),
            staging,
            made,
            replaced: Mutex::default(),
            _lock: lock,
        })
    }

    /// Where an artifact is made.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.staging.join(name)
    }

    /// Creates an artifact's file for reading and writing.
    pub(crate) fn create(&self, name: &str) -> Result<File, Failure> {
        let path = self.path(name);
        let open = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&path);
        open.map_err(|e| write_failure(&path, &e))
    }

    /// Writes a small artifact.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let mut file = self.create(name)?;
        file.write_all(content)
            .map_err(|e| write_failure(&self.path(name), &e))
    }

    /// Moves a finished artifact to its place; returns the place.
    pub(crate) fn publish(&self, name: &str) -> Result<PathBuf, Failure> {
        let to = self.dir.join(name);
        // What cannot be opened is given back at once.
        if let Ok(before) = before(&to) {
            self.replaced().push(before);
        }
        fs::rename(self.path(name), &to).map_err(|e| write_failure(&to, &e))?;
        Ok(to)
    }

    /// Gives back the memory that keeps the images of the build before for who reads them again. They are about to be replaced by others that
    /// need as much; a virtual machine whose host takes back what is free writes several times as fast to memory that it has.
    pub(crate) fn uncache(&self) {
        for image in [RAW, TAR_GZ] {
            if let Ok(before) = before(&self.dir.join(image)) {
                // Where it cannot be done, it is kept until something needs its place.
                let _ = fadvise(&before, 0, None, Advice::DontNeed);
            }
        }
    }

    /// Where artifacts appear.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the private directory; returns what the artifacts have replaced. Dropping a large image takes as long as the disk
    /// takes to have its blocks back, which nobody need wait for. If the build is killed, the kernel does it.
    pub(crate) fn close(self) -> Vec<File> {
        std::mem::take(&mut *self.replaced())
    }

    fn replaced(&self) -> std::sync::MutexGuard<'_, Vec<File>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size and digest of an artifact that is still private; `known` is the digest, where it was made before. Meanwhile the disk begins to
    /// write it, or its rename would take as long as that.
    pub(crate) fn describe(&self, name: &str, known: Option<&str>) -> Result<Artifact, Failure> {
        let path = self.path(name);
        let describe = || -> std::io::Result<Artifact> {
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            let sha256 = std::thread::scope(|scope| {
                scope.spawn(|| kiln_sandbox::begin_writing(file.as_fd()));
                match known {
                    Some(known) => Ok(known.to_owned()),
                    None => digest(&file, metadata.len()),
                }
            })?;
            Ok(Artifact {
                name: name.to_owned(),
                bytes: metadata.len(),
                allocated: metadata.blocks() * 512,
                sha256,
            })
        };
        describe().map_err(|e| unreadable(&path, &e))
    }

    /// Opens an artifact that is still private, for reading and with a position of its own.
    pub(crate) fn reopen(&self, name: &str) -> Result<File, Failure> {
        let path = self.path(name);
        File::open(&path).map_err(|e| unreadable(&path, &e))
    }
}

/// An artifact of the build before, or whatever has its name.
fn before(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut before = File::options();
    before.read(true).custom_flags(flags.bits().cast_signed());
    before.open(path)
}

/// An artifact that cannot be read back.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("{} cannot be read back", path.display());
    Failure::new(FailureKind::Environment, message).cause(plain(error))
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staging);
        // What this made and nobody put anything into is not left behind.
        for dir in &self.made {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Removes private directories whose build is gone. Those of other users are not ours, and may hold anything: a lock that is a
/// pipe would keep us for ever.
fn reclaim(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    let ours = |found: &fs::Metadata| found.is_dir() && found.uid() == user;
    let mut regular = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    regular.read(true).custom_flags(flags.bits().cast_signed());
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX)
            || !entry.metadata().is_ok_and(|found| ours(&found))
        {
            continue;
        }
        let free = match regular.open(entry.path().join("lock")) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Killed between making the directory and its lock; a living build is past that in an instant.
            Err(_) => entry
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|m| m.elapsed().ok())
                .is_some_and(|age| age.as_secs() > 10),
        };
        if free {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_held_until_the_build_is_done() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("disk.raw"), "before").expect("an artifact");
        let output = Output::open(dir.path()).expect("an output directory");
        for name in ["disk.raw", "packages.txt"] {
            output.write(name, b"now").expect("an artifact");
            output.publish(name).expect("published");
        }
        let replaced = output.close();
        let links: Vec<u64> = replaced
            .iter()
            .map(|file| file.metadata().expect("its facts").nlink())
            .collect();
        assert_eq!(links, [0], "one file, without a name");
        assert_eq!(dir.path().read_dir().expect("it").count(), 2);
    }

    /// Whether the file's first bytes can be had without the disk.
    fn is_cached(path: &Path) -> bool {
        let file = File::open(path).expect("a file");
        let mut byte = [0];
        let to = &mut [std::io::IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(&file, to, 0, rustix::io::ReadWriteFlags::NOWAIT).is_ok()
    }

    /// As dd(1) would do it, where the file system can.
    #[test]
    fn the_memory_of_an_image_that_is_about_to_be_replaced_is_given_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let [image, other] = [RAW, "other"].map(|name| dir.path().join(name));
        for path in [&image, &other] {
            fs::write(path, "before").expect("an artifact");
            let file = File::open(path).expect("it");
            file.sync_all().expect("written to the disk");
        }
        let output = Output::open(dir.path()).expect("an output directory");
        output.uncache();
        let dd = std::process::Command::new("dd")
            .args(["if=/dev/null", "oflag=nocache", "conv=notrunc", "count=0"])
            .arg(format!("of={}", other.display()))
            .output();
        let dd = dd.expect("dd(1), of the coreutils");
        assert!(dd.status.success(), "{dd:?}");
        assert_eq!(is_cached(&image), is_cached(&other));
        assert_eq!(fs::read(&image).expect("still there"), b"before");
        // What is no file is left alone.
        fs::remove_file(&image).expect("removed");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &image,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        output.uncache();
    }
}
