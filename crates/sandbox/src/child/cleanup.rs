//! Taking back the mount points that a run created, so that a root holds no trace of having been entered.
//!
//! Only what is still an empty directory or an empty file goes. The parent gets its old modification time back unless
//! something else changed it in the meantime. A run that is killed from outside leaves its mount points.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::mount::UnmountFlags;

use super::resolve::{Created, Kind, modified};

/// Unmounts `mounted` (paths from the root, in the order of mounting) and removes `created`. The caller is the init after
/// `pivot_root`, alone in its namespace. Best effort: a mount point that stays does no harm.
pub(super) fn take_back(mounted: &[PathBuf], created: &[Created]) {
    // The working directory and standard files of the init keep nothing busy: unmounting is lazy.
    for path in mounted.iter().rev() {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        let _ = rustix::mount::unmount(Path::new("/").join(path), flags);
    }
    for entry in created.iter().rev() {
        let _ = remove(entry);
    }
}

fn remove(entry: &Created) -> rustix::io::Result<()> {
    let path = Path::new("/").join(&entry.path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
    let untouched = modified(dir.as_fd())? == entry.parent_times.1;
    match entry.kind {
        Kind::Dir => rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR)?,
        Kind::File => {
            let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_size != 0 || stat.st_mode & libc::S_IFMT != libc::S_IFREG {
                return Ok(());
            }
            rustix::fs::unlinkat(CWD, &path, AtFlags::empty())?;
        }
    }
    if untouched {
        let keep = Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: keep,
            last_modification: entry.parent_times.0,
        };
        rustix::fs::futimens(&dir, &times)?;
    }
    Ok(())
}
