//! The initramfs: generated once, from the finished root, and never into it.

use std::os::fd::OwnedFd;

use serde_json::json;

use crate::calls::EXPORT;
use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};

/// Where the generator writes, in the throw-away layer above the root.
const OUTPUT: &str = "/var/tmp/kiln-initrd.img";

/// Generates the initramfs of the newest kernel in the root and copies kernel and initramfs to `kernel` and
/// `initrd`. `place` is over the finished root with a staging directory that is thrown away. Returns the kernel's version.
///
/// # Errors
/// There is no kernel or no generator in the root, or the generator failed.
pub fn initramfs(place: &Place<'_>, kernel: OwnedFd, initrd: OwnedFd) -> Result<String> {
    let version = kernel_version(place)?;
    let argv = ["mkinitramfs", "-o", OUTPUT, &version];
    place.exec(&argv, Extras::default()).map_err(|mut error| {
        error.message = format!("the initramfs of kernel {version} could not be generated");
        error
    })?;
    let paths = json!([format!("/boot/vmlinuz-{version}"), OUTPUT]);
    place.call(
        EXPORT,
        paths,
        Extras {
            fds: vec![kernel, initrd],
            ..Extras::default()
        },
        &mut |_| {},
    )?;
    Ok(version)
}

/// The newest kernel's version, as dpkg orders versions.
fn kernel_version(place: &Place<'_>) -> Result<String> {
    let script = "for k in /boot/vmlinuz-*; do [ -f \"$k\" ] && echo \"${k#/boot/vmlinuz-}\"; done";
    let lines = place.lines(&["sh", "-c", script])?;
    lines.into_iter().reduce(newer).ok_or_else(|| {
        Error::new(ErrorKind::Definition, "there is no kernel in the root: /boot has no vmlinuz-*")
            .hint("keep the kernel package that Kiln adds, or name another: [system] kernel = \"linux-image-…\"")
    })
}

fn newer(a: String, b: String) -> String {
    if kiln_packages::debian::version::compare(&a, &b).is_lt() {
        b
    } else {
        a
    }
}
