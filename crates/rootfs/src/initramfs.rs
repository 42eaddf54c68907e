//! Kernel and initramfs in the layer above a root: where a generator leaves them, and how they come out.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use kiln_sandbox::{Call, Error, Say, Silence, handed};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;
use crate::error::Result;
use crate::regular;
use crate::run::{Extras, Place};
use crate::trace::Trace;

/// Where the generator writes.
pub const INITRD: &str = "/var/tmp/kiln-initrd.img";
/// The kernel's copy beside it.
const KERNEL: &str = "/var/tmp/kiln-vmlinuz";

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
    let kernel = kernel.to_owned();
    place.call(&KeepBoot { kernel }, (), Extras::default())
}

/// Copies a kernel to [`KERNEL`].
#[derive(Serialize, Deserialize)]
pub(crate) struct KeepBoot {
    kernel: String,
}

impl Call for KeepBoot {
    const NAME: &'static str = "rootfs.keep-boot";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<(), Error> {
        let keep = || -> io::Result<()> {
            fs::copy(&self.kernel, KERNEL)?;
            for path in [KERNEL, INITRD] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
            }
            Ok(())
        };
        keep().map_err(|e| io_error(format!("copying {} of the root", self.kernel), &e))
    }
}

/// Copies kernel and initramfs out of the layer at `layer`. `place` lends its sandbox; its root is not used.
///
/// # Errors
/// They cannot be read.
pub fn export(place: &Place<'_>, layer: PathBuf, kernel: OwnedFd, initrd: OwnedFd) -> Result<()> {
    let mut place = place.with_reporter(place.reporter);
    place.root = kiln_sandbox::Root::Layers { lower: vec![layer] };
    place.call(&ExportBoot {}, BootFiles { kernel, initrd }, Extras::bare())
}

handed! {
    /// Where kernel and initramfs go.
    pub(crate) struct BootFiles {
        kernel: OwnedFd,
        initrd: OwnedFd,
    }
}

/// Copies what is at [`KERNEL`] and [`INITRD`].
#[derive(Serialize, Deserialize)]
pub(crate) struct ExportBoot {}

impl Call for ExportBoot {
    const NAME: &'static str = "rootfs.export-boot";
    type Handed = BootFiles;
    type Message = Silence;
    type Answer = ();

    fn run(self, to: BootFiles, _: &Say<Silence>) -> std::result::Result<(), Error> {
        for (path, fd) in [(KERNEL, to.kernel), (INITRD, to.initrd)] {
            let copy = || io::copy(&mut regular::open(path)?, &mut File::from(fd));
            copy().map_err(|e| io_error(format!("reading {path} of the root"), &e))?;
        }
        Ok(())
    }
}
