//! Building the root out of detached trees, mounting below it, and moving into it.
//!
//! Everything goes by descriptors: no path of the host is walked with the namespace's rights, and no option string
//! holds one. The overlay's directories are named by their descriptor numbers relative to `/proc/self/fd`, so
//! that even the kernel's limit of 500 layers fits into the one page that mount options may fill.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use super::head::Head;
use super::resolve::{Created, Kind, Walker};
use super::sources::{RootTrees, Sources, Writable};
use super::tree::{PLAIN, attach, new_mount, open_path, read_only, sized_tmpfs, subtree, tmpfs};
use super::{cleanup, dev, head};
use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork};
use crate::wire::Source;
use crate::{Limits, Mount, Network, Request};

/// A root that was entered.
pub(super) struct Entered {
    /// Mount points in order, relative to the root.
    pub(super) mounted: Vec<PathBuf>,
    /// Mount points that were made.
    pub(super) created: Vec<Created>,
    /// Files with text at their heads.
    pub(super) heads: Vec<Head>,
    /// Descriptors for the parent to read.
    pub(super) streams: Vec<(Source, OwnedFd)>,
}

/// Mounts everything that the request asks for and makes it the root of this process.
pub(super) fn enter(request: &Request, sources: Sources) -> Result<Entered> {
    make_private()?;
    let staging = Staging::new()?;
    let root = staging.root(sources.root)?;
    let mut mounter = Mounter {
        staging: &staging,
        root: root.as_fd(),
        shared_network: request.network == Network::Host,
        limits: &request.limits,
        binds: sources.binds.into_iter(),
        trees: sources.trees.into_iter(),
        entered: Entered {
            mounted: Vec::new(),
            created: Vec::new(),
            heads: Vec::new(),
            streams: Vec::new(),
        },
    };
    let result = request
        .mounts
        .iter()
        .try_for_each(|mount| mounter.mount(mount));
    let entered = mounter.entered;
    match result.and_then(|()| pivot(root.as_fd())) {
        Ok(()) => Ok(entered),
        Err(error) => {
            // A failed run must not leave its mount points either.
            if rustix::process::fchdir(&root)
                .and_then(|()| rustix::process::chroot("."))
                .is_ok()
            {
                // The error that led here is the one to report.
                let _ = entered.heads.iter().try_for_each(Head::take_away);
                cleanup::take_back(&entered.mounted, &entered.created);
            }
            Err(error)
        }
    }
}

/// Stops mounts from travelling to where this mount namespace was copied from.
pub(super) fn make_private() -> Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).doing("making mounts private")
}

fn pivot(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root).doing("entering the root")?;
    // With both arguments the same, the old root ends up on top of the new one, and the staging tmpfs on top of that,
    // since it covers the old root's `/`. Each call takes the topmost.
    rustix::process::pivot_root(".", ".").doing("changing the root")?;
    for what in ["detaching the staging tmpfs", "detaching the host's root"] {
        rustix::mount::unmount(".", UnmountFlags::DETACH).doing(what)?;
    }
    rustix::process::chdir("/").doing("changing to /")?;
    nothing_on_top(root)
}

/// `..` of a root leads to whatever is mounted over it; that must not be the host.
fn nothing_on_top(root: BorrowedFd<'_>) -> Result<()> {
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let below = rustix::fs::fstat(root).doing("looking at the root")?;
    let above = rustix::fs::stat("/..").doing("looking at /..")?;
    if identity(below) == identity(above) {
        return Ok(());
    }
    Err(Error::internal(
        "the new root of the sandbox is still covered by the host's",
    ))
}

/// A private tmpfs over the namespace's `/` in which trees are attached. Since the process's own root stays
/// below, the host's paths can still be walked; with the host's root it all disappears.
struct Staging {
    tree: OwnedFd,
    next: std::cell::Cell<u32>,
}

impl Staging {
    fn new() -> Result<Staging> {
        let tree = tmpfs(0o755, PLAIN)?;
        rustix::mount::move_mount(&tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .doing("mounting the staging tmpfs")?;
        Ok(Staging {
            tree,
            next: 0.into(),
        })
    }

    /// A new directory in the staging area.
    fn dir(&self) -> Result<OwnedFd> {
        let name = self.next.replace(self.next.get() + 1).to_string();
        let made = rustix::fs::mkdirat(&self.tree, &*name, Mode::from_raw_mode(0o755));
        made.map_err(std::io::Error::from)
            .and_then(|()| open_path(self.tree.as_fd(), &name))
            .doing("making a staging directory")
    }

    /// Attaches a tree somewhere, because the kernel builds overlays of attached trees only.
    fn park(&self, tree: BorrowedFd<'_>) -> Result<()> {
        attach(tree, self.dir()?.as_fd()).doing("attaching a source")
    }

    fn root(&self, trees: RootTrees) -> Result<OwnedFd> {
        match trees {
            RootTrees::Empty => {
                let strict =
                    PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
                let tree = tmpfs(0o555, strict)?;
                self.park(tree.as_fd())?;
                Ok(tree)
            }
            RootTrees::Dir { tree, writable } => {
                if !writable {
                    read_only(tree.as_fd()).doing("making the root read-only")?;
                }
                self.park(tree.as_fd())?;
                Ok(tree)
            }
            RootTrees::Overlay { lower, writable } => self.overlay(&lower, writable.as_ref()),
        }
    }

    fn overlay(&self, lower: &[OwnedFd], writable: Option<&Writable>) -> Result<OwnedFd> {
        for tree in lower {
            self.park(tree.as_fd())?;
        }
        if let Some(writable) = writable {
            self.park(writable.tree.as_fd())?;
            forget_volatile(writable.work.as_fd());
        }
        let name = self.next.get().to_string();
        let target = self.dir()?;
        let numbers = rustix::fs::open(
            "/proc/self/fd",
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        numbers
            .and_then(rustix::process::fchdir)
            .doing("entering /proc/self/fd")?;
        let options = overlay_options(lower, writable);
        let options =
            std::ffi::CString::new(options).map_err(|_| Error::internal("NUL in mount options"))?;
        let flags = if writable.is_some() {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        let target_number = target.as_raw_fd().to_string();
        rustix::mount::mount(
            "overlay",
            &*target_number,
            "overlay",
            flags,
            options.as_c_str(),
        )
        .map_err(|error| overlay_refused(error, lower.len()))?;
        rustix::process::chdir("/").doing("changing to /")?;
        open_path(self.tree.as_fd(), &name).doing("opening the overlay")
    }
}

/// `userxattr` because a user namespace may not write `trusted.overlay.*`; `volatile` because a root that was not finished
/// is thrown away, so that unmounting it need not write back the whole file system.
fn overlay_options(lower: &[OwnedFd], writable: Option<&Writable>) -> String {
    let lower: Vec<String> = lower
        .iter()
        .map(|tree| tree.as_raw_fd().to_string())
        .collect();
    let mut options = format!("lowerdir={},userxattr", lower.join(":"));
    if let Some(writable) = writable {
        let (upper, work) = (writable.upper.as_raw_fd(), writable.work.as_raw_fd());
        options += &format!(",index=off,volatile,upperdir={upper},workdir={work}");
    }
    options
}

/// After a volatile mount the kernel refuses its directories until this mark is gone (`ovl_create_volatile_dirty` in
/// fs/overlayfs/super.c). It guards against a crash of the machine; here the writer has ended in order, or the directories
/// are thrown away.
fn forget_volatile(work: BorrowedFd<'_>) {
    let _ = rustix::fs::unlinkat(work, "work/incompat/volatile/dirty", AtFlags::empty());
    for path in ["work/incompat/volatile", "work/incompat"] {
        let _ = rustix::fs::unlinkat(work, path, AtFlags::REMOVEDIR);
    }
}

fn overlay_refused(error: rustix::io::Errno, layers: usize) -> Error {
    use rustix::io::Errno;
    let hint = match error {
        Errno::PERM | Errno::ACCESS => "overlays in user namespaces need a kernel of 5.12 or newer",
        Errno::NODEV => "the kernel has no overlayfs; as root: `modprobe overlay`",
        Errno::INVAL => {
            "the store's file system may not carry an overlay (it needs d_type and user xattrs): ext4, xfs, btrfs and tmpfs do; `kiln doctor` tries it"
        }
        _ => "`kiln doctor` tries overlays on the store's file system",
    };
    Error::system(format!("mounting an overlay of {layers} layers"), error).hint(hint)
}

/// Carries out the mounts of a request below the root.
struct Mounter<'a> {
    staging: &'a Staging,
    root: BorrowedFd<'a>,
    shared_network: bool,
    limits: &'a Limits,
    binds: std::vec::IntoIter<OwnedFd>,
    trees: std::vec::IntoIter<RootTrees>,
    entered: Entered,
}

impl Mounter<'_> {
    fn mount(&mut self, mount: &Mount) -> Result<()> {
        match mount {
            Mount::Proc => self.proc(),
            Mount::Sys => self.sys(),
            Mount::Dev => {
                let tree = dev::tree()?;
                self.place(tree.as_fd(), "/dev", Kind::Dir)?;
                let streams = dev::fill(tree.as_fd(), self.limits.shm)?;
                self.entered.streams.extend(streams);
                Ok(())
            }
            Mount::Tmpfs { target, mode } => {
                let size = match target.as_str() {
                    "/run" => self.limits.run,
                    _ => self.limits.tmp,
                };
                let tree = sized_tmpfs(*mode, PLAIN, size)?;
                self.place(tree.as_fd(), target, Kind::Dir)
            }
            Mount::Bind {
                source,
                target,
                writable,
            } => self.bind(source, target, *writable),
            Mount::Tree { target, .. } => self.tree(target),
            Mount::File {
                target,
                content,
                mode,
            } => self.file(target, content, *mode),
            Mount::Head {
                target,
                text,
                marks,
            } => {
                let head = head::add(&mut self.walker(), target, text, marks)?;
                self.entered.heads.extend(head);
                Ok(())
            }
            Mount::Symlink { target, to } => {
                let (dir, name) = self.walker().open_parent(target)?;
                rustix::fs::symlinkat(&**to, dir, &name)
                    .doing_at("making the link", Path::new(target))
            }
        }
    }

    fn walker(&mut self) -> Walker<'_> {
        Walker {
            root: self.root,
            created: &mut self.entered.created,
        }
    }

    /// Attaches a tree at a target.
    fn place(&mut self, tree: BorrowedFd<'_>, target: &str, kind: Kind) -> Result<()> {
        let (point, path) = self.walker().open(target, kind)?;
        attach(tree, point.as_fd()).doing_at("mounting", Path::new(target))?;
        self.entered.mounted.push(path);
        Ok(())
    }

    fn bind(&mut self, source: &Path, target: &str, writable: bool) -> Result<()> {
        let tree = self
            .binds
            .next()
            .ok_or_else(|| Error::internal("a bind source is missing"))?;
        let stat = rustix::fs::fstat(&tree).doing_at("looking at", source)?;
        let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if !writable {
            read_only(tree.as_fd()).doing_at("making read-only", source)?;
        }
        self.place(
            tree.as_fd(),
            target,
            if is_dir { Kind::Dir } else { Kind::File },
        )
    }

    fn tree(&mut self, target: &str) -> Result<()> {
        let trees = self
            .trees
            .next()
            .ok_or_else(|| Error::internal("a tree to mount is missing"))?;
        let mounted = self.staging.root(trees)?;
        let copy = subtree(mounted.as_fd(), ".").doing_at("cloning", Path::new(target))?;
        self.place(copy.as_fd(), target, Kind::Dir)
    }

    fn file(&mut self, target: &str, content: &[u8], mode: u32) -> Result<()> {
        let home = tmpfs(0o755, PLAIN)?;
        self.staging.park(home.as_fd())?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&home, "file", flags, Mode::from_raw_mode(0o600))
            .doing("making a file")?;
        write_all(file.as_fd(), content).doing_at("writing the content of", Path::new(target))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .doing_at("setting the mode of", Path::new(target))?;
        let tree = subtree(home.as_fd(), "file").doing_at("cloning", Path::new(target))?;
        read_only(tree.as_fd()).doing_at("making read-only", Path::new(target))?;
        self.place(tree.as_fd(), target, Kind::File)
    }

    fn proc(&mut self) -> Result<()> {
        let strict = PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = new_mount("proc", &[], strict).map_err(|error| {
            Error::system("mounting /proc", error).hint(
                "the kernel refuses it where the host's own /proc is partly covered, as in most containers; \
                 start the container with an uncovered /proc (`--privileged`, `--security-opt systempaths=unconfined`)",
            )
        })?;
        self.place(proc.as_fd(), "/proc", Kind::Dir)?;
        if let Some(processes) = self.limits.processes {
            limit_pids(proc.as_fd(), processes);
        }
        for name in ["sys", "sysrq-trigger", "irq", "bus", "fs"] {
            guard(proc.as_fd(), name, |tree| read_only(tree).map(|()| None))?;
        }
        for name in [
            "kcore",
            "keys",
            "timer_list",
            "sched_debug",
            "latency_stats",
            "kpagecount",
            "kpageflags",
        ] {
            guard(proc.as_fd(), name, |_| Ok(Some(subtree(CWD, "/dev/null")?)))?;
        }
        hide_root_of_init(proc.as_fd());
        for name in ["acpi", "scsi"] {
            guard(proc.as_fd(), name, |_| {
                let mode = &[("mode", "0000")];
                Ok(Some(new_mount(
                    "tmpfs",
                    mode,
                    strict | MountAttrFlags::MOUNT_ATTR_RDONLY,
                )?))
            })?;
        }
        Ok(())
    }

    fn sys(&mut self) -> Result<()> {
        let strict = PLAIN | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let (point, path) = self.walker().open("/sys", Kind::Dir)?;
        let mounted = match self.shared_network {
            false => new_mount("sysfs", &[], strict)
                .is_ok_and(|sys| attach(sys.as_fd(), point.as_fd()).is_ok()),
            true => sys_of_other_network(point.as_fd(), strict)?,
        };
        if !mounted {
            let empty = tmpfs(0o555, strict)?;
            attach(empty.as_fd(), point.as_fd()).doing("mounting an empty /sys")?;
        }
        self.entered.mounted.push(path);
        Ok(())
    }
}

/// sysfs belongs to a network namespace, and the host's is not ours to show. A helper process makes one that lives as
/// long as the mount does. Returns whether it could be mounted.
fn sys_of_other_network(point: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<bool> {
    match sys::fork().doing("starting a helper to mount /sys")? {
        Fork::Child => {
            let mounted = sys::unshare(UnshareFlags::NEWNET).is_ok()
                && new_mount("sysfs", &[], attributes)
                    .is_ok_and(|sys| attach(sys.as_fd(), point).is_ok());
            sys::exit(i32::from(!mounted))
        }
        Fork::Parent(pid) => {
            let ended = sys::wait(Some(pid), true).doing("waiting for a helper")?;
            Ok(ended.is_some_and(|ended| ended.status == 0))
        }
    }
}

/// Bounds the processes of the whole namespace, whatever ids they take; before Linux 6.14 there is only the limit of each id
/// (`RLIMIT_NPROC`), and the value that this would set is the host's and closed.
fn limit_pids(proc: BorrowedFd<'_>, processes: u64) {
    /// Numbers that the kernel gives out only once (`RESERVED_PIDS` in kernel/pid.c).
    const RESERVED: u64 = 300;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, "sys/kernel/pid_max", flags, Mode::empty());
    if let Ok(file) = file {
        let _ = rustix::io::write(
            &file,
            processes.saturating_add(RESERVED).to_string().as_bytes(),
        );
    }
}

/// Makes `/proc/1/root` and `/proc/1/mountinfo` something else than a program's own, which is how systemctl and udevadm (the
/// first) and ischroot(1) (the second) know that no service manager runs here. Uncovered the first could not be read, and they would
/// try to reach one. Where a kernel refuses to mount on a link, they go by the environment.
fn hide_root_of_init(proc: BorrowedFd<'_>) {
    for name in ["1/root", "1/mountinfo"] {
        let cover = || -> std::io::Result<()> {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = rustix::fs::openat(proc, name, flags, Mode::empty())?;
            attach(subtree(CWD, "/dev/null")?.as_fd(), entry.as_fd())
        };
        let _ = cover();
    }
}

/// Covers an entry of a mounted tree: with a changed copy of itself, or with what `cover` returns. Entries that this
/// kernel does not have are passed over.
fn guard(
    tree: BorrowedFd<'_>,
    name: &str,
    cover: impl FnOnce(BorrowedFd<'_>) -> std::io::Result<Option<OwnedFd>>,
) -> Result<()> {
    let copy = match subtree(tree, name) {
        Ok(copy) => copy,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(error) => return Err(Error::system(format!("covering /proc/{name}"), error)),
    };
    let covered = cover(copy.as_fd()).and_then(|other| {
        let point = open_path(tree, name)?;
        attach(other.unwrap_or(copy).as_fd(), point.as_fd())
    });
    covered.map_err(|error| Error::system(format!("covering /proc/{name}"), error))
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = &bytes[count..];
    }
    Ok(())
}
