//! Kiln's own functions that run inside a root, as its root user, after `pivot_root`.
//!
//! The root's content is untrusted, but there is nothing else to reach from here: plain paths are safe.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_sandbox::{Call, CallError, ErrorKind, Function};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::debian;

/// All functions, for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[(&str, Function)] = &[
    (WRITE_FILE, write_file),
    (EXPORT, export),
    (EXPORT_SPARSE, export_sparse),
    (crate::files::COPY, crate::files::copy_call),
    (crate::archive::PACK, crate::archive::pack_call),
    (crate::archive::UNPACK, crate::archive::unpack_call),
    (crate::looks::STATES, crate::looks::states_call),
    (crate::changes::APPLY, crate::changes::apply_call),
    (crate::finish::FINISH, crate::finish::finish_call),
    (
        crate::initramfs::KEEP_BOOT,
        crate::initramfs::keep_boot_call,
    ),
    (
        crate::offline::KEEP_DAEMONS_OUT,
        crate::offline::keep_daemons_out_call,
    ),
    (debian::SKELETON, debian::skeleton_call),
    (debian::UNPACK, debian::unpack_call),
    (debian::FILL, debian::fill_call),
    (debian::EXTRACT, debian::extract_call),
    (debian::ADOPT, debian::adopt_call),
    (debian::CLEAR, debian::clear_call),
    (debian::FINISH, debian::finish_call),
    (debian::SOURCES, debian::sources_call),
    (debian::KNOWN_GENERATOR, debian::known_generator_call),
];

pub(crate) const WRITE_FILE: &str = "rootfs.write-file";
pub(crate) const EXPORT: &str = "rootfs.export";
/// Copies a file of the root to a descriptor, holes staying holes; the payload is a list of one path.
pub const EXPORT_SPARSE: &str = "rootfs.export-sparse";

/// The payload of a call as its type.
pub(crate) fn payload<T: DeserializeOwned>(call: &Call) -> Result<T, CallError> {
    serde_json::from_value(call.payload.clone()).map_err(|e| {
        CallError::new(
            ErrorKind::Internal,
            "a call inside the root got a payload of the wrong shape",
        )
        .because(e)
    })
}

/// A failed system call inside the root.
pub(crate) fn io_error(doing: impl Into<String>, error: &io::Error) -> CallError {
    CallError::new(ErrorKind::Step, doing).because(error)
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WriteFile {
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) mode: u32,
}

fn write_file(call: Call) -> Result<Value, CallError> {
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
fn export(mut call: Call) -> Result<Value, CallError> {
    let paths: Vec<String> = payload(&call)?;
    let mut sizes = Vec::new();
    for (path, fd) in paths.iter().zip(std::mem::take(&mut call.fds)) {
        let copy = || -> io::Result<u64> { io::copy(&mut File::open(path)?, &mut File::from(fd)) };
        sizes.push(copy().map_err(|e| io_error(format!("reading {path} of the root"), &e))?);
    }
    Ok(sizes.into())
}

fn export_sparse(mut call: Call) -> Result<Value, CallError> {
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
