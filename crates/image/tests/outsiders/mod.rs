//! Running the tools that judge what we wrote. A tool that is missing fails the test and names its package.
#![allow(
    dead_code,
    reason = "every test file is a crate of its own and uses a part"
)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Tool and Debian package.
const TOOLS: &[(&str, &str)] = &[
    ("sfdisk", "fdisk"),
    ("sgdisk", "gdisk"),
    ("fsck.fat", "dosfstools"),
    ("mdir", "mtools"),
    ("mcopy", "mtools"),
    ("mshowfat", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("grub-mkimage", "grub-common"),
    ("grub-bios-setup", "grub2-common"),
    ("grub-script-check", "grub-common"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("gzip", "gzip"),
    ("tar", "tar"),
    ("python3", "python3"),
    ("cmp", "diffutils"),
];

/// The file of a Debian package, or a failure that names the package.
pub(crate) fn file_of(package: &str, path: &str) -> PathBuf {
    let path = PathBuf::from(path);
    assert!(
        path.exists(),
        "{} is missing: install the Debian package {package}",
        path.display()
    );
    path
}

/// A command for one of the tools, found in PATH or where administrators' tools lie.
pub(crate) fn tool(name: &str) -> Command {
    let package = TOOLS
        .iter()
        .find(|(tool, _)| *tool == name)
        .map_or(name, |(_, package)| package);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    let Some(found) = found else {
        panic!("{name} is missing: install the Debian package {package}");
    };
    let mut command = Command::new(found);
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a tool that must succeed; gives what it printed.
pub(crate) fn run<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> String {
    let mut command = tool(name);
    command.args(args);
    let output = command.output().unwrap();
    check(&command, &output)
}

/// Fails with everything that the tool printed unless it succeeded.
pub(crate) fn check(command: &Command, output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}
