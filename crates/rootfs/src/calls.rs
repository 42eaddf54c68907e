//! Kiln's own functions that run inside a root, as its root user, after `pivot_root`.
//!
//! The root's content is untrusted, but there is nothing else to reach from here: plain paths are safe.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::regular;
use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence, handed};
use serde::{Deserialize, Serialize};

/// The text of a file that need not be there: a missing one is empty. Bytes that are no text are replaced.
pub(crate) fn text_if_there(path: impl AsRef<Path>) -> io::Result<String> {
    match regular::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// A failed system call inside the root.
pub(crate) fn io_error(doing: impl Into<String>, error: &io::Error) -> Error {
    Error::new(ErrorKind::Step, doing).because(error)
}

/// Writes a file of the root, and makes the directories above it.
#[derive(Serialize, Deserialize)]
pub(crate) struct WriteFile {
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) mode: u32,
}

impl Call for WriteFile {
    const NAME: &'static str = "rootfs.write-file";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        let path = Path::new(&self.path);
        let write = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            regular::write(path, self.content)?;
            fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
        };
        write().map_err(|e| io_error(format!("writing {}", path.display()), &e))
    }
}

/// Copies a file of the root to a descriptor, holes staying holes.
#[derive(Serialize, Deserialize)]
pub struct ExportSparse {
    /// In the root.
    pub path: String,
}

handed! {
    /// Where a copy goes.
    pub struct Copied {
        /// An empty file.
        to: File,
    }
}

impl Call for ExportSparse {
    const NAME: &'static str = "rootfs.export-sparse";
    type Handed = Copied;
    type Message = Silence;
    type Answer = ();

    fn run(self, copied: Copied, _: &Say<Silence>) -> Result<(), Error> {
        let copy = || copy_data(&regular::open(&self.path)?, &copied.to);
        copy().map_err(|e| io_error(format!("reading {} of the root", self.path), &e))
    }
}

/// Copies what is not a hole, piece by piece (lseek(2) `SEEK_DATA`, `SEEK_HOLE`).
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        at = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let end = seek(from, SeekFrom::Hole(at))?;
        while at < end {
            let want = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let got = from.read_at(&mut buffer[..want], at)?;
            if got == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..got], at)?;
            at += got as u64;
        }
    }
}
