//! The system calls that have no safe wrapper elsewhere. With `parent.rs`, all `unsafe` of Kiln.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Both sides of a fork.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Has the disk begin to write what was written to a file, and waits for none of it. A rename over another file would do that on
/// ext4, and keep its caller meanwhile.
///
/// # Errors
/// The file system cannot do it: then it does so by itself.
pub fn begin_writing(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is handed over, and the descriptor is open for the length of the call.
    let begun =
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    check(begun).map(|_| ())
}

/// Forks. Only for the sandbox child, which has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the caller is the single-threaded sandbox child (`entry` runs before any thread is started), so
    // no lock can be held by a thread that does not exist in the copy.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// Leaves at once: no destructors, no `atexit`, since those belong to the process that was forked.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the hazard of `unshare` is `CLONE_FILES` under other threads' descriptors; it is never passed.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Standard input as an owned descriptor, alone: whatever else the caller's process let through is closed. Called once,
/// first thing in the sandbox child, which got its control socket there.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    const CONTROL: RawFd = 3;
    // SAFETY: nothing in this process owns a descriptor yet but the runtime, which uses 0, 1 and 2 only.
    check(unsafe { libc::dup3(0, CONTROL, libc::O_CLOEXEC) })?;
    close_range(CONTROL as u32 + 1, u32::MAX, false)?;
    // SAFETY: it was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(CONTROL) })
}

/// Puts a copy of `fd` at exactly `number`, kept across exec.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: called in a forked child right before it execs or calls a function; the numbers overwritten (0, 1, 2,
    // 10 and up) are owned by no live `OwnedFd` there because everything else was moved above them.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// A descriptor number that was just placed by [`place`], as an owned descriptor.
pub(crate) fn adopt(number: RawFd) -> OwnedFd {
    // SAFETY: callers pass each number placed by `place` exactly once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Marks (or closes) all descriptors in a range.
pub(crate) fn close_range(first: u32, last: u32, on_exec: bool) -> io::Result<()> {
    let flags = if on_exec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    // SAFETY: with `on_exec` nothing is closed now; without it, it is called where the process owns no descriptors in the
    // range, or will never use or drop those that it owns.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    check(result as libc::c_int).map(drop)
}

/// Sets attributes (`libc::MOUNT_ATTR_*`) on a mount and everything below it.
pub(crate) fn mount_setattr(tree: BorrowedFd<'_>, set: u64, propagation: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated constant, the structure lives across the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result as libc::c_int).map(drop)
}

/// A process that ended.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) status: i32,
}

/// Waits for a child: a given one or any, blocking or not. `None`: none has ended yet. `ECHILD`: none is left.
pub(crate) fn wait(pid: Option<Pid>, block: bool) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` is a valid place for the call to write to.
        match check(unsafe { libc::waitpid(which, &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(pid) => return Ok(Some(Reaped { pid, status })),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills every process of the pid namespace but its init, which is the caller.
pub(crate) fn kill_all() {
    // SAFETY: no memory is involved. The caller is pid 1 of its own namespace, so -1 reaches nothing outside.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// CPU seconds of all children that were waited for, and the largest resident set of one of them in bytes.
pub(crate) fn children_usage() -> (f64, u64) {
    // SAFETY: `rusage` is plain data for which zeros are valid; the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (
        seconds(usage.ru_utime) + seconds(usage.ru_stime),
        (usage.ru_maxrss as u64).saturating_mul(1024),
    )
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable when a child has ended.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `sigset_t` is plain data that `sigemptyset` initialises; all pointers are to live locals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            std::ptr::null_mut(),
        ))?;
        let fd = check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Unblocks every signal and gives each its default action again, as a fresh program expects (Rust ignores
/// SIGPIPE; a `nohup` around Kiln ignores SIGHUP).
pub(crate) fn reset_signals(keep_sigpipe_ignored: bool) {
    for signal in 1..=64 {
        if signal == libc::SIGPIPE && keep_sigpipe_ignored {
            continue;
        }
        // SAFETY: four zero words are a valid `struct sigaction` of the kernel with the default action and an empty mask;
        // refusals (KILL, STOP) are harmless. The C library's wrapper would spare the two signals it keeps for itself.
        unsafe {
            let default = [0u64; 4];
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8,
            );
        }
    }
    // SAFETY: the set is initialised by `sigemptyset` before its use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Installs a seccomp filter for this thread without `no_new_privs`; needs `CAP_SYS_ADMIN` in the namespace.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let description = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions from the slice during the call and keeps a copy.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const description,
        )
    };
    check(result as libc::c_int).map(drop)
}

/// Installs a filter that hands system calls over, and returns where they arrive. As [`install_filter`].
pub(crate) fn install_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let description = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: as in `install_filter`; the result is a descriptor that nothing else owns.
    unsafe {
        let result = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const description,
        );
        let fd = check(result as libc::c_int)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    id: u64,
    /// The thread, as this process sees it.
    pub(crate) process: u32,
    pub(crate) number: i32,
    pub(crate) arch: u32,
    pub(crate) arguments: [u64; 6],
    /// The address of the instruction behind the call.
    pub(crate) instruction: u64,
}

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_SET_FLAGS` of `linux/seccomp.h`.
const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const NOTIF_SET_FLAGS: u64 = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, Linux 6.6.
const SYNC_WAKE_UP: u64 = 1;

/// Takes the next notification; fails if its process is gone meanwhile.
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: the kernel wants the structure zeroed, fills it, and its size is that of the request's number.
    let got = unsafe {
        let mut got: libc::seccomp_notif = std::mem::zeroed();
        check(libc::ioctl(
            listener.as_raw_fd(),
            NOTIF_RECV as _,
            &raw mut got,
        ))?;
        got
    };
    Ok(Notification {
        id: got.id,
        process: got.pid,
        number: got.data.nr,
        arch: got.data.arch,
        arguments: got.data.args,
        instruction: got.data.instruction_pointer,
    })
}

/// Lets the kernel carry out the system call. Fails only if its process is gone, which is no failure.
pub(crate) fn let_go_on(listener: BorrowedFd<'_>, notification: &Notification) {
    let mut response = libc::seccomp_notif_resp {
        id: notification.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the structure is live and of the size in the request's number.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut response) };
}

/// Asks for a change of process at once with each notification. Only speed depends on it.
pub(crate) fn wake_listener_fast(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a plain number.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Reads the NUL-terminated string at an address of another process.
pub(crate) fn read_path(process: u32, address: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = read_memory(process, address, limit)?;
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?);
    Ok(bytes)
}

/// Reads the pointer at an address of another process.
pub(crate) fn read_pointer(process: u32, address: u64) -> io::Result<u64> {
    let bytes = read_memory(process, address, size_of::<u64>())?;
    let whole = bytes.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    Ok(u64::from_ne_bytes(whole))
}

/// Reads up to `limit` bytes, at most a page, at an address of another process: fewer where its memory ends.
fn read_memory(process: u32, address: u64, limit: usize) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut bytes = vec![0u8; limit];
    // A transfer ends before the first piece that cannot be read, so pieces end where pages do.
    let first = (PAGE - address as usize % PAGE).min(limit);
    let pieces = [
        libc::iovec {
            iov_base: address as *mut libc::c_void,
            iov_len: first,
        },
        libc::iovec {
            iov_base: (address as usize).wrapping_add(first) as *mut libc::c_void,
            iov_len: limit - first,
        },
    ];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: limit,
    };
    // SAFETY: the local piece is the live buffer; the remote ones are only looked up in the other process.
    let count = unsafe {
        libc::process_vm_readv(
            process as libc::pid_t,
            &raw const local,
            1,
            pieces.as_ptr(),
            pieces.len() as libc::c_ulong,
            0,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Replaces the process by a program. Returns only on failure.
pub(crate) fn exec(program: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end in a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Brings the loopback interface of the current network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data; name and flags are the fields that these two requests read and write.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS as _,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        ))?;
    }
    Ok(())
}

/// Makes `fd`, the device `/dev/net/tun`, the other end of a new interface that carries bare IP packets.
pub(crate) fn make_tun(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which zeros are valid; name and flags are the fields that the request reads, and the
    // name, which is shorter than its field, ends in a zero.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        check(libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETIFF as _,
            &raw const request,
        ))?;
    }
    Ok(())
}

/// The login name of a user id, from whatever the system's name services say.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let mut buffer = vec![0 as libc::c_char; 16 << 10];
    // SAFETY: buffer and results are live locals and the buffer's length is given; strings that `found` points to
    // are in `buffer`, which outlives the copy.
    unsafe {
        let mut entry: libc::passwd = std::mem::zeroed();
        let mut found = std::ptr::null_mut();
        let result = libc::getpwuid_r(
            uid,
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        if result != 0 || found.is_null() || entry.pw_name.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(entry.pw_name)
            .to_str()
            .ok()
            .map(str::to_owned)
    }
}
