//! Kiln's own functions that run inside a root, as its root user, after `pivot_root`.
//!
//! The root's content is untrusted, but there is nothing else to reach from here: plain paths are safe.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_sandbox::{Call, Error, ErrorKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) const WRITE_FILE: &str = "rootfs.write-file";
pub(crate) const EXPORT: &str = "rootfs.export";
/// Copies a file of the root to a descriptor, holes staying holes; the payload is a list of one path.
pub const EXPORT_SPARSE: &str = "rootfs.export-sparse";

/// The payload of a call as its type.
pub(crate) fn payload<T: DeserializeOwned>(call: &Call) -> Result<T, Error> {
    serde_json::from_value(call.payload.clone()).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            "a call inside the root got a payload of the wrong shape",
        )
        .because(e)
    })
}

/// The text of a file that need not be there: a missing one is empty. Bytes that are no text are replaced.
pub(crate) fn text_if_there(path: impl AsRef<Path>) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// A failed system call inside the root.
pub(crate) fn io_error(doing: impl Into<String>, error: &io::Error) -> Error {
    Error::new(ErrorKind::Step, doing).because(error)
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WriteFile {
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) mode: u32,
}

pub(crate) fn write_file(call: Call) -> Result<Value, Error> {
    let WriteFile {
        path,
        content,
        mode,
    } = payload(&call)?;
    let path = Path::new(&path);
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().map_err(|e| io_error(format!("writing {}", path.display()), &e))?;
    Ok(Value::Null)
}

/// Copies files of the root to the descriptors handed over, in the same order; answers with their sizes.
pub(crate) fn export(mut call: Call) -> Result<Value, Error> {
    let paths: Vec<String> = payload(&call)?;
    let mut sizes = Vec::new();
    for (path, fd) in paths.iter().zip(std::mem::take(&mut call.fds)) {
        let copy = || -> io::Result<u64> { io::copy(&mut File::open(path)?, &mut File::from(fd)) };
        sizes.push(copy().map_err(|e| io_error(format!("reading {path} of the root"), &e))?);
    }
    Ok(sizes.into())
}

pub(crate) fn export_sparse(mut call: Call) -> Result<Value, Error> {
    let paths: Vec<String> = payload(&call)?;
    for (path, fd) in paths.iter().zip(std::mem::take(&mut call.fds)) {
        let copy = || copy_data(&File::open(path)?, &File::from(fd));
        copy().map_err(|e| io_error(format!("reading {path} of the root"), &e))?;
    }
    Ok(Value::Null)
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
