//! What the sandbox child is started from.
//!
//! The kernel shows every process its own program as `/proc/self/exe`: the body of a call, and whatever is run as
//! `/proc/self/exe` before its own exec. Were that the installed file, a program of the root could hold it and write to it
//! once nobody executes it, wherever the file's owner is an id of the sandbox. So the child is started from a copy in memory that
//! nobody can change (`F_SEAL_WRITE` and its kin in fcntl(2)).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

const OWN: &str = "/proc/self/exe";

/// One for the whole process: it is as large as the program.
static COPY: OnceLock<OwnedFd> = OnceLock::new();

/// A path that executes the copy of this program, in this process and in a child before its exec.
pub(crate) fn sealed() -> Result<PathBuf> {
    let copy = match COPY.get() {
        Some(copy) => copy,
        None => {
            let made = copy_own()?;
            // Of two threads that come here at once the first one's is kept.
            COPY.get_or_init(|| made)
        }
    };
    Ok(PathBuf::from(format!("/proc/self/fd/{}", copy.as_raw_fd())))
}

fn copy_own() -> Result<OwnedFd> {
    const DOING: &str = "copying this program into memory";
    let mut own = File::open(OWN).doing_at(DOING, Path::new(OWN))?;
    let mut copy = File::from(create().map_err(|error| refused(DOING, error))?);
    std::io::copy(&mut own, &mut copy).doing(DOING)?;
    seal(&copy).doing(DOING)?;
    Ok(copy.into())
}

fn create() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("kiln", flags | MemfdFlags::EXEC) {
        // Linux before 6.3 does not know the flag, and makes all such files executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create("kiln", flags),
        made => made,
    }
}

fn seal(copy: impl AsFd) -> rustix::io::Result<()> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    match rustix::fs::fcntl_add_seals(&copy, seals | SealFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::fcntl_add_seals(&copy, seals),
        sealed => sealed,
    }
}

fn refused(doing: &str, error: Errno) -> Error {
    let refused = Error::system(doing, error);
    match error {
        Errno::ACCESS | Errno::PERM => refused.hint(
            "the kernel forbids programs in memory; as root: `sysctl vm.memfd_noexec=1` or 0 allows them",
        ),
        _ => refused,
    }
}
