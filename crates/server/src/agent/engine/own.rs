//! Gives a tree to the root of the sandbox, without following a link of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kiln_sandbox::Sandbox;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Makes the sandbox's root the owner of what this process owns below a directory.
pub(super) fn give(tree: &Path, sandbox: &Sandbox) -> io::Result<()> {
    let ids = sandbox.ids();
    let (Some(user), Some(group)) = (ids.host_uid(0), ids.host_gid(0)) else {
        return Ok(());
    };
    let own = rustix::process::geteuid();
    if user == own.as_raw() {
        return Ok(());
    }
    let owner = Owner {
        own,
        user: Uid::from_raw(user),
        group: Gid::from_raw(group),
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, tree, flags, Mode::empty())?;
    rustix::fs::fchown(&top, Some(owner.user), Some(owner.group))?;
    owner.below(top.as_fd())
}

struct Owner {
    own: Uid,
    user: Uid,
    group: Gid,
}

impl Owner {
    fn below(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_uid == self.own.as_raw() {
                let (user, group) = (Some(self.user), Some(self.group));
                rustix::fs::chownat(dir, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                self.below(below.as_fd())?;
            }
        }
        Ok(())
    }
}
