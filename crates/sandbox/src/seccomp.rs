//! The system call filter of everything that runs inside.
//!
//! A classic BPF program over `struct seccomp_data` (`linux/seccomp.h`: `nr` at byte 0, `arch` at byte 4). It is
//! written by hand because ready-made compilers kill the process on a foreign architecture, while a maintainer script of
//! an i386 package on amd64 has to run.

use libc::sock_filter;

/// `AUDIT_ARCH_*` of `linux/audit.h`.
const ARCH_X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const ARCH_I386: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const ARCH_AARCH64: u32 = 0xc000_00b7;
#[cfg(target_arch = "aarch64")]
const ARCH_ARM: u32 = 0x4000_0028;
/// Set in the number of an x32 system call, which reports the architecture of x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// What to do with which system calls of an architecture.
struct Table {
    arch: u32,
    /// Flushing to disk: succeeds without doing anything, because the root is thrown away or committed as a whole.
    flush: &'static [u32],
    /// What no build needs and what could reach beyond the namespaces: `EPERM`.
    deny: &'static [u32],
    /// Ways around this filter with a fallback in every program: `ENOSYS`.
    missing: &'static [u32],
    /// What is refused for its first argument: the call, the argument, the error. See [`VSOCK`].
    refused: &'static [(u32, u32, i32)],
}

/// Sockets to the hypervisor and to other virtual machines (vsock(7)). They belong to no network namespace, so that a script
/// would have the machine's own; programs take the error for a kernel that lacks them.
const VSOCK: (u32, i32) = (libc::AF_VSOCK as u32, libc::EAFNOSUPPORT);
/// `SYS_SOCKET` of `linux/net.h`: makes a socket of a family that is written in memory, where no filter can read it. The C library
/// of 32-bit x86 has no other way, so that its programs have no sockets.
#[cfg(target_arch = "x86_64")]
const UNREADABLE_SOCKET: (u32, i32) = (1, libc::EPERM);

#[cfg(target_arch = "x86_64")]
const TABLES: [Table; 2] = [
    Table {
        arch: ARCH_X86_64,
        flush: NATIVE_FLUSH,
        deny: NATIVE_DENY,
        missing: NATIVE_MISSING,
        refused: NATIVE_REFUSED,
    },
    // Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
    Table {
        arch: ARCH_I386,
        flush: &[36, 118, 144, 148, 314, 344],
        deny: &[
            87, 88, 101, 103, 110, 115, 128, 129, 283, 286, 287, 288, 336, 342, 350, 357, 374,
        ],
        missing: &[425],
        refused: &[
            (359, VSOCK.0, VSOCK.1),
            (102, UNREADABLE_SOCKET.0, UNREADABLE_SOCKET.1),
        ],
    },
];

#[cfg(target_arch = "aarch64")]
const TABLES: [Table; 2] = [
    Table {
        arch: ARCH_AARCH64,
        flush: NATIVE_FLUSH,
        deny: NATIVE_DENY,
        missing: NATIVE_MISSING,
        refused: NATIVE_REFUSED,
    },
    // Numbers of arch/arm/tools/syscall.tbl.
    Table {
        arch: ARCH_ARM,
        flush: &[36, 118, 144, 148, 341, 373],
        deny: &[
            87, 88, 103, 115, 128, 129, 309, 310, 311, 347, 364, 371, 379, 386, 388, 401,
        ],
        missing: &[425],
        refused: &[(281, VSOCK.0, VSOCK.1)],
    },
];

const NATIVE_FLUSH: &[u32] = &[
    libc::SYS_fsync as u32,
    libc::SYS_fdatasync as u32,
    libc::SYS_sync as u32,
    libc::SYS_syncfs as u32,
    libc::SYS_sync_file_range as u32,
    libc::SYS_msync as u32,
];

const NATIVE_DENY: &[u32] = &[
    libc::SYS_keyctl as u32,
    libc::SYS_add_key as u32,
    libc::SYS_request_key as u32,
    libc::SYS_bpf as u32,
    libc::SYS_perf_event_open as u32,
    libc::SYS_kexec_load as u32,
    libc::SYS_kexec_file_load as u32,
    libc::SYS_init_module as u32,
    libc::SYS_finit_module as u32,
    libc::SYS_delete_module as u32,
    libc::SYS_reboot as u32,
    libc::SYS_userfaultfd as u32,
    libc::SYS_open_by_handle_at as u32,
    libc::SYS_swapon as u32,
    libc::SYS_swapoff as u32,
    libc::SYS_syslog as u32,
];

const NATIVE_MISSING: &[u32] = &[libc::SYS_io_uring_setup as u32];

const NATIVE_REFUSED: &[(u32, u32, i32)] = &[(libc::SYS_socket as u32, VSOCK.0, VSOCK.1)];

fn instruction(code: u32, k: u32, jump_true: u8, jump_false: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

/// Skips the next instruction unless the accumulator equals `value`.
fn unless_equal(value: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, 1)
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn section(table: &Table) -> Vec<sock_filter> {
    let mut body = vec![load(0)];
    if table.arch == ARCH_X86_64 {
        body.push(instruction(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            X32_BIT,
            0,
            1,
        ));
        body.push(answer(errno(libc::ENOSYS)));
    }
    let groups = [
        (table.flush, errno(0)),
        (table.deny, errno(libc::EPERM)),
        (table.missing, errno(libc::ENOSYS)),
    ];
    for (numbers, action) in groups {
        body.extend(
            numbers
                .iter()
                .flat_map(|number| [unless_equal(*number), answer(action)]),
        );
    }
    for (number, first, error) in table.refused {
        let is_call = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        body.extend([
            instruction(is_call, *number, 0, 4),
            // The upper half of a register does not count: the kernel takes an `int`.
            load(argument(0)),
            unless_equal(*first),
            answer(errno(*error)),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    body.push(answer(libc::SECCOMP_RET_ALLOW));
    body
}

/// What a watched system call is about: numbers of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathCall {
    /// Attributes, existence or the target of a link.
    Status { at: Option<u8>, path: u8 },
    /// Content, or a way to it.
    Open { at: Option<u8>, path: u8 },
    /// A program.
    Execute { at: Option<u8>, path: u8 },
    /// The names in the directory of the first argument.
    List,
}

const fn status(at: Option<u8>, path: u8) -> PathCall {
    PathCall::Status { at, path }
}

const fn open(at: Option<u8>, path: u8) -> PathCall {
    PathCall::Open { at, path }
}

/// Every system call by which a program can learn of a path. Moving and linking give a file another name, by which it can
/// then be read, so they count as opening.
const WATCHED: &[(libc::c_long, PathCall)] = &[
    (libc::SYS_openat, open(Some(0), 1)),
    (libc::SYS_openat2, open(Some(0), 1)),
    (libc::SYS_linkat, open(Some(0), 1)),
    (libc::SYS_renameat, open(Some(0), 1)),
    (libc::SYS_renameat2, open(Some(0), 1)),
    (libc::SYS_truncate, open(None, 0)),
    (libc::SYS_execve, PathCall::Execute { at: None, path: 0 }),
    (
        libc::SYS_execveat,
        PathCall::Execute {
            at: Some(0),
            path: 1,
        },
    ),
    (libc::SYS_newfstatat, status(Some(0), 1)),
    (libc::SYS_statx, status(Some(0), 1)),
    (libc::SYS_faccessat, status(Some(0), 1)),
    (libc::SYS_faccessat2, status(Some(0), 1)),
    (libc::SYS_readlinkat, status(Some(0), 1)),
    (libc::SYS_chdir, status(None, 0)),
    (libc::SYS_getxattr, status(None, 0)),
    (libc::SYS_lgetxattr, status(None, 0)),
    (libc::SYS_listxattr, status(None, 0)),
    (libc::SYS_llistxattr, status(None, 0)),
    (libc::SYS_getdents64, PathCall::List),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, status(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, status(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, status(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, status(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_getdents, PathCall::List),
];

/// Every further system call by which a file's attributes change. An overlay copies the file up for it, with its content. What has a
/// descriptor instead of a path has opened it.
const CHANGING: &[(libc::c_long, PathCall)] = &[
    (libc::SYS_fchmodat, open(Some(0), 1)),
    (FCHMODAT2, open(Some(0), 1)),
    (libc::SYS_fchownat, open(Some(0), 1)),
    (libc::SYS_utimensat, open(Some(0), 1)),
    (libc::SYS_setxattr, open(None, 0)),
    (libc::SYS_lsetxattr, open(None, 0)),
    (libc::SYS_removexattr, open(None, 0)),
    (libc::SYS_lremovexattr, open(None, 0)),
    (SETXATTRAT, open(Some(0), 1)),
    (REMOVEXATTRAT, open(Some(0), 1)),
    (FILE_SETATTR, open(Some(0), 1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utime, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utimes, open(None, 0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_futimesat, open(Some(0), 1)),
];

// The same numbers on all architectures (scripts/syscall.tbl of Linux).
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;
const FILE_SETATTR: libc::c_long = 469;

/// `AUDIT_ARCH_*` of this program.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = ARCH_X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = ARCH_AARCH64;

/// What a call that was handed over is about; `None` if that is not known.
pub(crate) fn path_call(arch: u32, number: i32) -> Option<PathCall> {
    let known = WATCHED
        .iter()
        .chain(CHANGING)
        .find(|(watched, _)| arch == NATIVE && *watched == libc::c_long::from(number));
    known.map(|(_, seen)| *seen)
}

/// `fstat(3)` of the C library: the call asks for a descriptor's own attributes, and somebody has opened that.
const OF_DESCRIPTORS: &[(libc::c_long, u32)] = &[(libc::SYS_newfstatat, 3), (libc::SYS_statx, 2)];

/// Byte of an argument's lower half in `struct seccomp_data`.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// A program that hands over every system call that names a path to learn of it, and all of foreign architectures; with `changes` also
/// those that only change attributes.
///
/// Left out is what has the flags of `fstat(3)` (exactly `AT_EMPTY_PATH`) and a descriptor: it is a third of all calls. A
/// path beside that flag alone would be missed; programs that use the flag so pass `AT_SYMLINK_NOFOLLOW` with it.
pub(crate) fn watching(changes: bool) -> Vec<sock_filter> {
    let mut program = vec![
        load(4),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, NATIVE, 1, 0),
        answer(libc::SECCOMP_RET_USER_NOTIF),
        load(0),
    ];
    for (number, flags) in OF_DESCRIPTORS {
        program.extend([
            instruction(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                *number as u32,
                0,
                6,
            ),
            load(argument(*flags)),
            instruction(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                libc::AT_EMPTY_PATH as u32,
                0,
                2,
            ),
            load(argument(0)),
            // A descriptor is no negative number; AT_FDCWD is.
            instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1 << 31, 0, 1),
            answer(libc::SECCOMP_RET_USER_NOTIF),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    let changing = CHANGING.iter().filter(|_| changes);
    for (number, _) in WATCHED.iter().chain(changing) {
        program.extend([
            unless_equal(*number as u32),
            answer(libc::SECCOMP_RET_USER_NOTIF),
        ]);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// The whole program.
pub(crate) fn program() -> Vec<sock_filter> {
    let mut program = vec![load(4)];
    for table in &TABLES {
        let body = section(table);
        // Conditional jumps reach 255 instructions; a plain jump over the section has no such limit.
        program.push(instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            table.arch,
            1,
            0,
        ));
        program.push(instruction(
            libc::BPF_JMP | libc::BPF_JA,
            body.len() as u32,
            0,
            0,
        ));
        program.extend(body);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(arch: u32, number: u32) -> u32 {
        verdict_with(arch, number, 0)
    }

    /// Runs the program as the kernel would, for the instructions that it uses.
    fn verdict_with(arch: u32, number: u32, first: u32) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1;
            match u32::from(code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match k {
                        0 => number,
                        4 => arch,
                        16 => first,
                        other => panic!("nobody reads byte {other}"),
                    };
                }
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += jump(accumulator == k)
                }
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += jump(accumulator >= k)
                }
                code if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                code if code == libc::BPF_RET | libc::BPF_K => return k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_architecture_has_its_own_numbers() {
        for table in &TABLES {
            for (numbers, wanted) in [
                (table.flush, 0),
                (table.deny, libc::EPERM),
                (table.missing, libc::ENOSYS),
            ] {
                for number in numbers {
                    assert_eq!(
                        verdict(table.arch, *number),
                        errno(wanted),
                        "{:#x} {number}",
                        table.arch
                    );
                }
            }
            // `write` and `openat` on each of them.
            for number in [1, 4, 56, 64, 257, 295, 322] {
                assert_eq!(
                    verdict(table.arch, number),
                    libc::SECCOMP_RET_ALLOW,
                    "{:#x} {number}",
                    table.arch
                );
            }
        }
        assert_eq!(verdict(0x1234, 1), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn sockets_to_the_hypervisor_are_refused_on_every_architecture() {
        for table in &TABLES {
            assert!(!table.refused.is_empty());
            for (number, first, error) in table.refused {
                let with = |first| verdict_with(table.arch, *number, first);
                assert_eq!(with(*first), errno(*error), "{:#x} {number}", table.arch);
                for other in [libc::AF_UNIX as u32, libc::AF_INET as u32, *number] {
                    let wanted = match other == *first {
                        true => errno(*error),
                        false => libc::SECCOMP_RET_ALLOW,
                    };
                    assert_eq!(with(other), wanted, "{:#x} {number} {other}", table.arch);
                }
            }
        }
        let socket = libc::SYS_socket as u32;
        let vsock = verdict_with(NATIVE, socket, libc::AF_VSOCK as u32);
        assert_eq!(vsock, errno(libc::EAFNOSUPPORT));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_do_not_leak_from_one_architecture_to_the_other() {
        let fsync = libc::SYS_fsync as u32;
        assert_eq!(verdict(ARCH_I386, fsync), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(ARCH_I386, 118), errno(0));
        assert_eq!(verdict(ARCH_X86_64, 118), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(ARCH_X86_64, X32_BIT | fsync), errno(libc::ENOSYS));
    }
}
