//! Whose a file is, what may be done with it, and when it was changed.

use std::fs::File;

use kiln_packages::debian::contents::Entry;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown, futimens};

/// Owner, mode, time. The owner first: changing it clears set-id bits.
pub(super) fn dress(file: &File, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = entry.owner;
    if entry.owner != (0, 0) {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    futimens(file, &times(entry.mtime))
}

/// One time for both.
pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
