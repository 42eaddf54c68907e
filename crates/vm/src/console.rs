//! The serial console: raw bytes become plain lines, plain lines become signs of how the boot goes.
//!
//! The firmware, GRUB, the kernel, the initramfs and systemd all write here. The signs are their own
//! words; the sources are named beside them.

/// Longest line kept, in bytes; the rest of a longer one becomes the next line.
const LINE_LIMIT: usize = 4096;

/// Something on the console that tells how the boot goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A boot loader speaks.
    BootLoader,
    /// The firmware found nothing to start, or what it started found no way on.
    NothingToBoot(String),
    /// Secure Boot refused the boot loader or the kernel.
    Refused(String),
    /// GRUB reports an error; it may still go on.
    GrubError(String),
    /// The kernel runs.
    Kernel,
    /// The kernel stopped for good.
    Panic(String),
    /// The initramfs or the kernel did not find the root file system.
    NoRoot(String),
    /// The system's own init runs.
    Userspace,
    /// systemd could not start a unit.
    UnitFailed(String),
    /// systemd gave up and offers a maintenance shell.
    Emergency(String),
    /// systemd itself crashed.
    InitCrashed(String),
    /// A login prompt stands.
    Login,
    /// The kernel complains about something that may or may not stop the boot.
    Trouble(String),
}

/// Turns console bytes into lines without escape sequences.
#[derive(Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    escape: Escape,
}

#[derive(Default, PartialEq)]
enum Escape {
    #[default]
    None,
    /// ESC was seen.
    Started,
    /// `ESC [`: ends with a byte from 0x40 to 0x7e.
    Control,
    /// `ESC ]` and its like: ends with BEL or ESC \.
    Text,
    /// `ESC (` and its like: one more byte.
    Charset,
}

impl Lines {
    /// Takes bytes and returns the lines that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut done = Vec::new();
        for &byte in bytes {
            if self.plain(byte, &mut done) && self.line.len() >= LINE_LIMIT {
                self.end_line(&mut done);
            }
        }
        done
    }

    /// The unfinished line: a prompt, mostly.
    pub(crate) fn pending(&self) -> String {
        String::from_utf8_lossy(&self.line).trim_end().to_owned()
    }

    /// Returns whether the line grew.
    fn plain(&mut self, byte: u8, done: &mut Vec<String>) -> bool {
        match self.escape {
            Escape::None => return self.text(byte, done),
            Escape::Started => {
                self.escape = match byte {
                    b'[' => Escape::Control,
                    b']' | b'P' | b'^' | b'_' | b'X' => Escape::Text,
                    b'(' | b')' | b'#' | b'%' => Escape::Charset,
                    _ => Escape::None,
                }
            }
            Escape::Control if (0x40..=0x7e).contains(&byte) => {
                self.escape = Escape::None;
                // The cursor jumps or the screen is cleared: what follows is not on the same line.
                if matches!(byte, b'H' | b'f' | b'J') {
                    self.end_line(done);
                }
            }
            Escape::Text if byte == 0x07 => self.escape = Escape::None,
            Escape::Text if byte == 0x1b => self.escape = Escape::Started,
            Escape::Charset => self.escape = Escape::None,
            Escape::Control | Escape::Text => {}
        }
        false
    }

    fn text(&mut self, byte: u8, done: &mut Vec<String>) -> bool {
        match byte {
            0x1b => self.escape = Escape::Started,
            b'\n' | b'\r' => self.end_line(done),
            b'\t' => self.line.push(b' '),
            0x08 => {
                self.line.pop();
            }
            0x00..0x20 | 0x7f => {}
            _ => {
                self.line.push(byte);
                return true;
            }
        }
        false
    }

    fn end_line(&mut self, done: &mut Vec<String>) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if !line.trim().is_empty() {
            done.push(line);
        }
    }
}

type Make = fn(String) -> Sign;

/// Phrases that mean something wherever they stand in a line. The first match counts.
const PHRASES: [(&str, Make); 42] = [
    // SeaBIOS, src/boot.c; boot sectors of mke2fs, mkfs.fat, syslinux and Windows
    ("No bootable device", Sign::NothingToBoot),
    ("This is not a bootable disk", Sign::NothingToBoot),
    ("Missing operating system", Sign::NothingToBoot),
    ("Operating system not found", Sign::NothingToBoot),
    ("Invalid partition table", Sign::NothingToBoot),
    // edk2, MdeModulePkg/Universal/BdsDxe
    (
        "No bootable option or device was found",
        Sign::NothingToBoot,
    ),
    ("UEFI Interactive Shell", Sign::NothingToBoot),
    // edk2, shim and GRUB's shim_lock verifier under Secure Boot
    (": Access Denied", Sign::Refused),
    ("Security Violation", Sign::Refused),
    ("bad shim signature", Sign::Refused),
    ("prohibited by secure boot policy", Sign::Refused),
    // GRUB: the shells it falls into
    ("Entering rescue mode", Sign::NothingToBoot),
    ("grub rescue>", Sign::NothingToBoot),
    (
        "Minimal BASH-like line editing is supported",
        Sign::NothingToBoot,
    ),
    // Linux, init/do_mounts.c and init/main.c
    ("VFS: Unable to mount root fs", Sign::NoRoot),
    ("VFS: Cannot open root device", Sign::NoRoot),
    ("No working init found", Sign::NoRoot),
    ("Requested init", Sign::NoRoot),
    ("Kernel panic - not syncing", Sign::Panic),
    // live-boot, initramfs-tools
    (
        "Unable to find a medium containing a live file system",
        Sign::NoRoot,
    ),
    ("Can not mount", Sign::NoRoot),
    ("Gave up waiting for root", Sign::NoRoot),
    ("Gave up waiting for suspend", Sign::Trouble),
    ("No root device specified", Sign::NoRoot),
    ("No init found. Try passing init=", Sign::NoRoot),
    ("Target filesystem doesn't have requested", Sign::NoRoot),
    ("Failed to mount", Sign::Trouble),
    ("(initramfs)", Sign::NoRoot),
    // dracut
    ("dracut: FATAL", Sign::NoRoot),
    ("dracut: Refusing to continue", Sign::NoRoot),
    ("rdsosreport.txt", Sign::NoRoot),
    // systemd, units/emergency.service.in, rescue.service.in; sulogin of util-linux
    ("You are in emergency mode", Sign::Emergency),
    ("You are in rescue mode", Sign::Emergency),
    ("Give root password for maintenance", Sign::Emergency),
    (
        "Cannot open access to console, the root account is locked",
        Sign::Emergency,
    ),
    ("Freezing execution", Sign::InitCrashed),
    // glibc, sysdeps/x86/dl-get-cpu-features.c: programs for a newer processor than the machine has
    ("CPU does not support x86-64-v", Sign::InitCrashed),
    // Linux: what often stands before a hang
    ("SQUASHFS error", Sign::Trouble),
    ("EXT4-fs error", Sign::Trouble),
    ("Out of memory: Killed process", Sign::Trouble),
    ("BUG: kernel NULL pointer", Sign::Trouble),
    ("general protection fault", Sign::Trouble),
];

/// What a finished line tells.
pub(crate) fn read_line(line: &str) -> Option<Sign> {
    if let Some(unit) = failed_unit(line) {
        return Some(Sign::UnitFailed(unit));
    }
    if let Some((_, make)) = PHRASES.iter().find(|(phrase, _)| line.contains(phrase)) {
        return Some(make(tidy(line)));
    }
    read_start(line)
}

/// Signs that a line must begin with, or that need no detail.
fn read_start(line: &str) -> Option<Sign> {
    let text = tidy(line);
    // The firmware's last words may stand on the same line.
    if text.contains("Linux version ") {
        return Some(Sign::Kernel);
    }
    if text.starts_with("error: ") {
        return Some(Sign::GrubError(text));
    }
    if text.contains("GRUB") || text.starts_with("systemd-boot") {
        return Some(Sign::BootLoader);
    }
    let init = (text.starts_with("systemd[1]: systemd ")
        && text.contains("running in system mode"))
        || text.starts_with("Welcome to ");
    (init && !text.to_ascii_lowercase().contains("initramfs")).then_some(Sign::Userspace)
}

/// What an unfinished line tells.
pub(crate) fn read_pending(pending: &str) -> Option<Sign> {
    let line = pending.trim();
    let prompt = line
        .strip_suffix(" login:")
        .is_some_and(|host| !host.is_empty() && !host.contains(' '));
    if prompt {
        return Some(Sign::Login);
    }
    if line == "grub>" || line == "Shell>" {
        return Some(Sign::NothingToBoot(format!("the prompt {line} stands")));
    }
    let shells = [
        "(initramfs)",
        "grub rescue>",
        "Give root password for maintenance",
    ];
    shells
        .iter()
        .any(|shell| line.contains(shell))
        .then(|| read_line(line))
        .flatten()
}

/// systemd's status lines: `[FAILED] Failed to start foo.service - Foo.`
fn failed_unit(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("[FAILED] Failed to ")?;
    // start, mount, listen on, activate swap …: the unit follows the verb.
    let rest = rest
        .strip_prefix("listen on ")
        .or_else(|| rest.strip_prefix("activate swap "))
        .unwrap_or_else(|| rest.split_once(' ').map_or(rest, |(_verb, unit)| unit));
    let unit = rest.split(" - ").next().unwrap_or(rest);
    Some(unit.trim_end_matches('.').to_owned())
}

/// A line without the kernel's time stamp, and without the frame that shim draws around its messages in a terminal's own characters.
fn tidy(line: &str) -> String {
    let text = line.trim_matches(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER);
    let stamped = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "));
    match stamped {
        Some((stamp, rest))
            if !stamp.is_empty()
                && stamp
                    .trim()
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b == b'.') =>
        {
            rest.trim().to_owned()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(text: &[u8]) -> Vec<Sign> {
        let mut lines = Lines::default();
        let mut signs: Vec<Sign> = lines
            .feed(text)
            .iter()
            .filter_map(|line| read_line(line))
            .collect();
        signs.extend(read_pending(&lines.pending()));
        signs
    }

    #[test]
    fn escapes_vanish_and_cursor_jumps_end_lines() {
        let mut lines = Lines::default();
        let mut got = lines.feed(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\nGRUB load");
        got.extend(
            lines.feed(b"ing..\x1b[0;30;47mWelcome\x1b[05;02Hmenu\x1b]0;title\x07 text\x1b(B.\n"),
        );
        assert_eq!(got, ["SeaBIOS", "GRUB loading..Welcome", "menu text."]);
    }

    #[test]
    fn lines_without_end_are_cut_and_any_byte_is_taken() {
        let mut lines = Lines::default();
        let flood = vec![b'x'; 3 * LINE_LIMIT + 5];
        assert_eq!(lines.feed(&flood).len(), 3);
        let every: Vec<u8> = (0..=255).collect();
        lines.feed(&every);
        lines.feed(b"\x1b]never closed");
        assert!(lines.pending().len() <= 3 * LINE_LIMIT);
    }

    #[test]
    fn bios_without_a_boot_loader() {
        let log = b"SeaBIOS (version 1.16.2)\r\nBooting from Hard Disk...\r\nBoot failed: not a bootable disk\r\n\r\nNo bootable device.\r\n";
        assert_eq!(
            signs(log),
            [Sign::NothingToBoot("No bootable device.".into())]
        );
    }

    #[test]
    fn uefi_without_a_boot_loader() {
        let log = b"BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x3,0x0): Not Found\r\n\
            BdsDxe: No bootable option or device was found.\r\n";
        assert_eq!(
            signs(log),
            [Sign::NothingToBoot(
                "BdsDxe: No bootable option or device was found.".into()
            )]
        );
    }

    #[test]
    fn secure_boot_refusals() {
        let log = b"BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0): Access Denied\r\n\
            ERROR\r\n\xb3    Verification failed: (0x1A) Security Violation    \xb3\r\n";
        let [Sign::Refused(_), Sign::Refused(shim)] = &signs(log)[..] else {
            panic!("other signs: {:?}", signs(log));
        };
        assert_eq!(shim, "Verification failed: (0x1A) Security Violation");
    }

    #[test]
    fn grub_that_finds_nothing() {
        assert!(matches!(
            signs(b"Welcome to GRUB!\n\nerror: no such device: B007-CAFE.\nEntering rescue mode...\ngrub rescue> ").as_slice(),
            [Sign::BootLoader, Sign::GrubError(_), Sign::NothingToBoot(_), Sign::NothingToBoot(_)]
        ));
        assert!(matches!(
            signs(b"\n   grub> ").as_slice(),
            [Sign::NothingToBoot(_)]
        ));
    }

    #[test]
    fn kernels_that_stop() {
        let log = b"[    0.000000] Linux version 6.1.0-50-amd64 (debian-kernel@lists.debian.org)\r\n\
            [    3.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n\
            [    9.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n";
        assert_eq!(
            signs(log),
            [
                Sign::Kernel,
                Sign::NoRoot("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)".into()),
                Sign::Panic("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b".into()),
            ]
        );
    }

    #[test]
    fn initramfs_that_finds_no_root() {
        let log = b"[    0.000000] Linux version 6.1.0\nUnable to find a medium containing a live file system\n(initramfs) ";
        assert!(matches!(
            signs(log).as_slice(),
            [Sign::Kernel, Sign::NoRoot(_), Sign::NoRoot(_)]
        ));
    }

    #[test]
    fn failed_units_are_named() {
        let log = "[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mnftables.service\x1b[0m - nftables.\r\n\
            [FAILED] Failed to mount home.mount - /home.\n[FAILED] Failed to listen on foo.socket.\n\
            [FAILED] Failed to start Foo Service.\n";
        let named = [
            "nftables.service",
            "home.mount",
            "foo.socket",
            "Foo Service",
        ];
        assert_eq!(
            signs(log.as_bytes()),
            named.map(|unit| Sign::UnitFailed(unit.into()))
        );
    }

    #[test]
    fn a_system_that_comes_up() {
        let log = b"[    2.0] systemd[1]: systemd 252.39-1~deb12u1 running in system mode (+PAM)\n\
            Welcome to Debian GNU/Linux 12 (bookworm)!\nDebian GNU/Linux 12 kiln ttyS0\n\nkiln login: ";
        assert_eq!(signs(log), [Sign::Userspace, Sign::Userspace, Sign::Login]);
        assert_eq!(read_pending("enter your login:"), None);
        assert_eq!(
            read_line("Welcome to Fedora Linux 42 dracut-105 (Initramfs)!"),
            None
        );
    }
}
