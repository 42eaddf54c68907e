//! The initramfs: generated once by dracut, from the finished root, and never into it.

use kiln_sandbox::Watch;

use crate::error::{Error, ErrorKind, Result};
use crate::initramfs::{INITRD, Initramfs, keep_boot};
use crate::kernels::CHOICE;
use crate::run::{Extras, Place};
use crate::trace::{SharedTrace, Tracing, taken};

/// Places whose content is this run's own.
const PRIVATE: &[&str] = &["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];
/// The file systems of media, and what is put over them.
const FILE_SYSTEMS: &str = "squashfs overlay ext4 vfat iso9660";
/// The compressor's level where nobody says one.
const LEVEL: u32 = 3;

/// The version of the kernel, and where it is.
const KERNEL: &str = "[ ! -s /usr/lib/kiln/kernel ] || cat /usr/lib/kiln/kernel; \
    for k in /usr/lib/modules/*/vmlinuz; do [ -f \"$k\" ] && k=${k%/vmlinuz} && echo \"${k##*/}\"; done; :";

/// Character sets without which no FAT file system is mounted, the medium of the layout `mbr`: those that are modules of the kernel (of
/// Enterprise Linux' and Fedora's they are parts). dracut takes them for nobody's and fails where one that it is told is missing.
const CHARACTER_SETS: &str = "cd \"/usr/lib/modules/$1/kernel/fs/nls\" 2> /dev/null || exit 0; \
    for m in nls_cp437 nls_ascii nls_iso8859-1 nls_utf8; do for f in \"$m\".ko*; do [ ! -f \"$f\" ] || echo \"$m\"; done; done";

pub(super) fn initramfs(
    place: &Place<'_>,
    level: Option<u32>,
    trace: &SharedTrace,
) -> Result<Initramfs> {
    let version = place.lines(&["/bin/sh", "-c", KERNEL])?.into_iter().next();
    let version = version.ok_or_else(|| {
        Error::new(ErrorKind::Definition, "there is no kernel in the root: /usr/lib/modules has no */vmlinuz")
            .hint("keep the kernel package that Kiln adds, or name another: [system] kernel = \"kernel-…\"")
    })?;
    let compress = format!("zstd -q -T0 -{}", level.unwrap_or(LEVEL));
    let sets = place.lines(&["/bin/sh", "-c", CHARACTER_SETS, "sh", &version])?;
    let sets = sets.join(" ");
    let mut argv = vec![
        "dracut",
        "--force",
        "--quiet",
        "--reproducible",
        "--no-hostonly",
        "--tmpdir",
        "/var/tmp",
        "--add",
        "dmsquash-live",
        "--filesystems",
        FILE_SYSTEMS,
        "--compress",
        &compress,
    ];
    if !sets.is_empty() {
        argv.extend(["--add-drivers", &sets]);
    }
    argv.extend([INITRD, &version]);
    let extras = Extras {
        tracing: Some(Tracing {
            watch: Watch {
                ignored: PRIVATE.iter().map(|&path| path.to_owned()).collect(),
                changes: false,
            },
            globs: Vec::new(),
            trace: SharedTrace::clone(trace),
        }),
        ..Extras::default()
    };
    let outcome = place.exec(&argv, extras).map_err(|mut error| {
        error.message = format!("the initramfs of kernel {version} could not be generated");
        error
    })?;
    let kernel = format!("/usr/lib/modules/{version}/vmlinuz");
    keep_boot(place, &kernel)?;
    let trace = taken(trace, &outcome).filter(|trace| trace.incomplete.is_none());
    Ok(Initramfs {
        version,
        trace: trace.map(|mut trace| {
            // Which kernels there are, and the one that was taken.
            trace
                .paths
                .entry("/usr/lib/modules".to_owned())
                .or_default()
                .names = true;
            trace.paths.entry(kernel).or_default().content = true;
            trace.paths.entry(CHOICE.to_owned()).or_default().content = true;
            trace
        }),
    })
}
