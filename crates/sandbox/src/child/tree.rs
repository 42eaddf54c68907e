//! Trees of mounts: made, copied, attached.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::error::{Context, Result};
use crate::sys;

pub(super) const PLAIN: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// A new file system of a type, not attached yet.
pub(super) fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> std::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

pub(super) fn tmpfs(mode: u32, attributes: MountAttrFlags) -> Result<OwnedFd> {
    sized_tmpfs(mode, attributes, None)
}

/// A tmpfs that can hold `size` bytes; half of the machine's memory if nothing is said.
pub(super) fn sized_tmpfs(
    mode: u32,
    attributes: MountAttrFlags,
    size: Option<u64>,
) -> Result<OwnedFd> {
    let mode = format!("{:o}", mode & 0o7777);
    // To tmpfs, 0 would mean no limit.
    let size = size.map(|size| size.max(1).to_string());
    let size = size.as_deref().map(|size| ("size", size));
    let options: Vec<(&str, &str)> = [("mode", mode.as_str())].into_iter().chain(size).collect();
    new_mount("tmpfs", &options, attributes).doing("making a tmpfs")
}

/// A detached copy of what is mounted at a path.
pub(super) fn subtree(dir: BorrowedFd<'_>, path: &str) -> std::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

pub(super) fn attach(tree: BorrowedFd<'_>, point: BorrowedFd<'_>) -> std::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", point, "", flags)?)
}

pub(super) fn read_only(tree: BorrowedFd<'_>) -> std::io::Result<()> {
    sys::mount_setattr(tree, libc::MOUNT_ATTR_RDONLY, 0)
}

pub(super) fn open_path(dir: BorrowedFd<'_>, path: &str) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
