//! Kernel and initramfs in the layer above a root: where a generator leaves them, and how they come out.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln_sandbox::{Call, Error};
use serde_json::{Value, json};

use crate::calls::{EXPORT, io_error, payload};
use crate::error::Result;
use crate::run::{Extras, Place};
use crate::trace::Trace;

/// Where the generator writes.
pub const INITRD: &str = "/var/tmp/kiln-initrd.img";
/// The kernel's copy beside it.
const KERNEL: &str = "/var/tmp/kiln-vmlinuz";

pub(crate) const KEEP_BOOT: &str = "rootfs.keep-boot";

/// What was generated.
#[derive(Clone, Debug)]
pub struct Initramfs {
    /// The kernel's version.
    pub version: String,
    /// All that the generator looked at; `None` where that could not be told.
    pub trace: Option<Trace>,
}

/// Copies the kernel beside the initramfs, once that is at [`INITRD`].
///
/// # Errors
/// There is no such kernel, or no initramfs.
pub fn keep_boot(place: &Place<'_>, kernel: &str) -> Result<()> {
    place
        .call(KEEP_BOOT, json!(kernel), Extras::default(), &mut |_| {})
        .map(|_| ())
}

pub(crate) fn keep_boot_call(call: Call) -> std::result::Result<Value, Error> {
    let kernel: String = payload(&call)?;
    let keep = || -> io::Result<()> {
        fs::copy(&kernel, KERNEL)?;
        for path in [KERNEL, INITRD] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    };
    keep().map_err(|e| io_error(format!("copying {kernel} of the root"), &e))?;
    Ok(Value::Null)
}

/// Copies kernel and initramfs out of the layer at `layer`. `place` lends its sandbox; its root is not used.
///
/// # Errors
/// They cannot be read.
pub fn export(place: &Place<'_>, layer: PathBuf, kernel: OwnedFd, initrd: OwnedFd) -> Result<()> {
    let mut place = place.with_reporter(place.reporter);
    place.root = kiln_sandbox::Root::Layers { lower: vec![layer] };
    let extras = Extras {
        fds: vec![kernel, initrd],
        bare: true,
        ..Extras::default()
    };
    let paths = json!([KERNEL, INITRD]);
    place.call(EXPORT, paths, extras, &mut |_| {}).map(|_| ())
}
