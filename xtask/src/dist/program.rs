//! The program: linked statically, so that it runs on any distribution of its architecture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::{output, run};

/// Compiles it. With `--target`, the flags are for the program alone and not for what helps to compile it.
pub(super) fn build(root: &Path) -> Result<PathBuf> {
    let said = output(Command::new("rustc").arg("-vV"))?;
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or("`rustc -vV` names no host")?;
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        host.to_ascii_uppercase().replace('-', "_")
    );
    run(Command::new("cargo")
        .args([
            "build",
            "--profile",
            "dist",
            "--locked",
            "--package",
            "kiln-cli",
        ])
        .args(["--target", host])
        .env(flags, "-C target-feature=+crt-static")
        .current_dir(root))?;
    Ok(root.join("target").join(host).join("dist/kiln"))
}

/// Whether it is what it is said to be: an ELF program that needs no loader and no library.
pub(super) fn check(program: &Path) -> Result<()> {
    let bytes = fs::read(program).map_err(|error| super::trouble(program, &error))?;
    match is_static(&bytes) {
        Some(true) => Ok(()),
        Some(false) => Err(format!(
            "{} needs a loader of the system: it is not linked statically",
            program.display()
        )),
        None => Err(format!("{} is no 64-bit ELF program", program.display())),
    }
}

/// Whether no program header asks for an interpreter (`PT_INTERP`). `None`: no 64-bit little-endian ELF file.
fn is_static(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(length)?)?;
        let value = field
            .iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for entry in 0..count {
        let at = table.checked_add(entry.checked_mul(size)?)?;
        if number(at, 4)? == INTERPRETER as usize {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_seen() {
        // This test's own program is linked as Cargo does it, and a shell as the distribution does.
        let shell = fs::read("/bin/sh").unwrap();
        assert_eq!(is_static(&shell), Some(false));
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        let mut none = shell.clone();
        none[0x38..0x3a].copy_from_slice(&[0, 0]);
        assert_eq!(is_static(&none), Some(true));
        for length in 0..200 {
            is_static(&shell[..length]);
        }
    }
}
