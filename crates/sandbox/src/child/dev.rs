//! The sandbox's `/dev`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::tree::{PLAIN, attach, new_mount, open_path, sized_tmpfs, subtree};
use crate::Stream;
use crate::error::{Context, Error, Result};
use crate::wire::Source;

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 7] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
    ("kmsg", "console"),
];

/// What `/dev` itself can hold: nodes are no files.
const OWN_BYTES: u64 = 1 << 20;

/// An empty `/dev`, to be placed before it is filled.
pub(super) fn tree() -> Result<OwnedFd> {
    sized_tmpfs(0o755, MountAttrFlags::MOUNT_ATTR_NOSUID, Some(OWN_BYTES))
}

/// Fills `/dev`; `shm` is what `/dev/shm` can hold. Returns what the parent has to read.
pub(super) fn fill(dev: BorrowedFd<'_>, shm: Option<u64>) -> Result<[(Source, OwnedFd); 2]> {
    for name in NODES {
        node(dev, name)?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, dev, name).map_err(|error| at(name, error))?;
    }
    let terminals = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = new_mount("devpts", &terminals, quiet).doing("making a devpts")?;
    below(dev, "pts", terminals.as_fd())?;
    let shared = sized_tmpfs(0o1777, PLAIN, shm)?;
    below(dev, "shm", shared.as_fd())?;
    let (log, console) = (log(dev)?, console(dev)?);
    Ok([
        (Source::Lines(Stream::Syslog), log),
        (Source::Lines(Stream::Console), console),
    ])
}

fn at(name: &str, error: impl Into<std::io::Error>) -> Error {
    Error::system(format!("making /dev/{name}"), error)
}

/// A namespace may not make device nodes, but it may show the host's.
fn node(dev: BorrowedFd<'_>, name: &str) -> Result<()> {
    let place = || -> std::io::Result<()> {
        let host = subtree(CWD, &format!("/dev/{name}"))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(
            dev,
            name,
            flags,
            Mode::from_raw_mode(0o666),
        )?);
        attach(host.as_fd(), open_path(dev, name)?.as_fd())
    };
    place().map_err(|error| at(name, error))
}

fn below(dev: BorrowedFd<'_>, name: &str, tree: BorrowedFd<'_>) -> Result<()> {
    let place = || -> std::io::Result<()> {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
        attach(tree, open_path(dev, name)?.as_fd())
    };
    place().map_err(|error| at(name, error))
}

/// `/dev/log`, whose other end the parent drains.
fn log(dev: BorrowedFd<'_>) -> Result<OwnedFd> {
    let make = || -> std::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // Socket addresses have no directory descriptor, and 108 bytes only.
        let path = format!("/proc/self/fd/{}/log", dev.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(&*path)?)?;
        rustix::fs::chmodat(dev, "log", Mode::from_raw_mode(0o666), AtFlags::empty())?;
        Ok(socket)
    };
    make().map_err(|error| at("log", error))
}

/// `/dev/console` (and `/dev/kmsg`, a link to it) as a pipe that the parent drains. Opened for both directions, so
/// that it never ends and writers never wait for a reader.
fn console(dev: BorrowedFd<'_>) -> Result<OwnedFd> {
    let make = || -> std::io::Result<OwnedFd> {
        rustix::fs::mknodat(
            dev,
            "console",
            FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )?;
        rustix::fs::chmodat(dev, "console", Mode::from_raw_mode(0o666), AtFlags::empty())?;
        Ok(rustix::fs::openat(
            dev,
            "console",
            OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    };
    make().map_err(|error| at("console", error))
}
