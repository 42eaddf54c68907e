//! The sandbox's `/dev`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::mounts::{Mounter, PLAIN, attach, new_mount, open_path, sized_tmpfs, subtree};
use super::resolve::Kind;
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

pub(super) fn mount(mounter: &mut Mounter<'_>) -> Result<()> {
    let dev = sized_tmpfs(0o755, MountAttrFlags::MOUNT_ATTR_NOSUID, Some(OWN_BYTES))?;
    mounter.place(dev.as_fd(), "/dev", Kind::Dir)?;
    for name in NODES {
        node(dev.as_fd(), name)?;
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).map_err(|error| at(name, error))?;
    }
    let terminals = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = new_mount("devpts", &terminals, quiet).doing("making a devpts")?;
    below(dev.as_fd(), "pts", terminals.as_fd())?;
    let shared = sized_tmpfs(0o1777, PLAIN, mounter.limits.shm)?;
    below(dev.as_fd(), "shm", shared.as_fd())?;
    let streams = [
        (Stream::Syslog, log(dev.as_fd())?),
        (Stream::Console, console(dev.as_fd())?),
    ];
    mounter
        .entered
        .streams
        .extend(streams.map(|(stream, fd)| (Source::Lines(stream), fd)));
    Ok(())
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
