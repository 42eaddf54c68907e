//! What `kiln boot` and `kiln test` have in common.

use std::path::{Path, PathBuf};

use kiln_engine::{Failure, FailureKind};
use kiln_vm::{Accel, Bus, Error, ErrorKind, Firmware, Hardware, ImageFormat, Network, Tools};

use super::Context;
use crate::args::{self, MachineArgs};

/// Names of an image in an output directory, the quickest to boot first.
const IMAGES: &[&str] = &["disk.raw", "disk.qcow2", "disk.tar.gz"];

/// The image, or the one in an output directory.
pub(crate) fn image(args: &MachineArgs) -> Result<PathBuf, Failure> {
    let path = &args.image;
    if !path.is_dir() {
        return Ok(path.clone());
    }
    IMAGES
        .iter()
        .map(|name| path.join(name))
        .find(|image| image.is_file())
        .ok_or_else(|| {
            let message = format!("the directory {} has no image", path.display());
            let failure = Failure::new(FailureKind::Definition, message);
            failure.hint(format!(
                "looked for {}; name the image itself, or build one with `kiln build`",
                IMAGES.join(", ")
            ))
        })
}

/// How the image is read, where that was said.
pub(crate) fn image_format(args: &MachineArgs) -> Option<ImageFormat> {
    args.image_format.map(|format| match format {
        args::ImageFormat::Raw => ImageFormat::Raw,
        args::ImageFormat::Qcow2 => ImageFormat::Qcow2,
        args::ImageFormat::Vmdk => ImageFormat::Vmdk,
        args::ImageFormat::Vdi => ImageFormat::Vdi,
    })
}

/// The machine as it was asked for.
pub(crate) fn hardware(args: &MachineArgs, context: &Context<'_>) -> Hardware {
    Hardware {
        firmware: match args.firmware {
            args::Firmware::Bios => Firmware::Bios,
            args::Firmware::Uefi => Firmware::Uefi,
            args::Firmware::Secure => Firmware::Secure,
        },
        accel: match args.accel {
            args::Accel::Auto => Accel::Auto,
            args::Accel::Kvm => Accel::Kvm,
            args::Accel::Tcg => Accel::Tcg,
        },
        memory_mib: args.memory,
        cpus: args
            .cpus
            .unwrap_or_else(|| u32::try_from(context.settings.processors.min(2)).unwrap_or(1)),
        processor_level: processor_level(args),
        bus: match args.bus {
            args::Bus::Virtio => Bus::Virtio,
            args::Bus::Usb => Bus::Usb,
            args::Bus::Sata => Bus::Sata,
        },
        network: match args.network {
            args::Network::None => Network::None,
            args::Network::Isolated => Network::Isolated,
            args::Network::Host => Network::Host,
        },
    }
}

/// What the image's programs need, if its manifest lies beside it: its kernel's version tells.
fn processor_level(args: &MachineArgs) -> u8 {
    let directory = match args.image.is_dir() {
        true => Some(args.image.as_path()),
        false => args.image.parent(),
    };
    let manifest = directory.map(|directory| directory.join("manifest.json"));
    let text = manifest.and_then(|path| std::fs::read(path).ok());
    let manifest = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let kernel = manifest
        .as_ref()
        .and_then(|manifest| manifest["kernel"].as_str());
    kernel.map_or(1, kiln_vm::processor_level)
}

/// QEMU and firmware.
pub(crate) fn tools(context: &Context<'_>) -> Result<Tools, Failure> {
    Tools::find(&context.settings.path).map_err(|error| failure(&error))
}

/// Where sockets and temporary disks go.
pub(crate) fn work(context: &Context<'_>) -> Result<PathBuf, Failure> {
    let cache = context.settings.cache_dir()?;
    context.notices(&kiln_rootfs::store::private(cache).open()?);
    Ok(cache.join("vm"))
}

/// An error of the `vm` crate as a failure.
pub(crate) fn failure(error: &Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::Input => FailureKind::Definition,
        ErrorKind::Environment => FailureKind::Environment,
        ErrorKind::Internal => FailureKind::Internal,
        ErrorKind::Cancelled => FailureKind::Cancelled,
    };
    let mut failure = Failure::new(kind, error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        failure = failure.cause(cause.to_string());
        source = cause.source();
    }
    failure.hints.extend(error.hint_text().map(str::to_owned));
    failure
}

/// A path for people.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
