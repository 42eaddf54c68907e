//! The initramfs: generated once, from the finished root, and never into it.

use kiln_sandbox::Watch;

use crate::error::{Error, ErrorKind, Result};
use crate::initramfs::{INITRD, Initramfs, keep_boot};
use crate::kernels::CHOICE;
use crate::run::{Extras, Place};
use crate::trace::{SharedTrace, Trace, Tracing, taken};

/// Available memory from which on the generator's files are kept there: several times what they take.
const SCRATCH: u64 = 2 << 30;
/// Places whose content is this run's own.
const PRIVATE: &[&str] = &["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];

/// The kernel is the last step's choice, or the newest; where the root's configuration (initramfs.conf(5)) names no level, `level` is the
/// compressor's.
pub(super) fn initramfs(
    place: &Place<'_>,
    level: Option<u32>,
    trace: &SharedTrace,
) -> Result<Initramfs> {
    let version = kernel_version(place)?;
    let argv = ["mkinitramfs", "-o", INITRD, &version];
    let generator = super::generator::generator(place)?;
    let extras = Extras {
        mounts: generator.mounts,
        env: environment(level),
        tracing: Some(Tracing {
            watch: Watch {
                ignored: PRIVATE.iter().map(|&path| path.to_owned()).collect(),
                changes: false,
            },
            globs: generator.globs,
            trace: SharedTrace::clone(trace),
        }),
        ..Extras::default()
    };
    let outcome = place.exec(&argv, extras).map_err(|mut error| {
        error.message = format!("the initramfs of kernel {version} could not be generated");
        error
    })?;
    let kernel = format!("/boot/vmlinuz-{version}");
    keep_boot(place, &kernel)?;
    let trace = taken(trace, &outcome).filter(|trace| trace.incomplete.is_none());
    Ok(Initramfs {
        version,
        trace: trace.map(|trace| with_kernel(trace, kernel)),
    })
}

/// What the generator is told; nothing of it changes the result but the level.
fn environment(level: Option<u32>) -> Vec<(String, String)> {
    // It starts some 20,000 processes, each of which would read the 28 files of C.UTF-8; both locales sort by bytes.
    let locale = ("LC_ALL", "C".to_owned());
    let level = level.map(|level| ("COMPRESSLEVEL", level.to_string()));
    // Thousands of files that live for half a minute: in memory, where there is enough. There is a tmpfs on `/tmp`.
    let scratch =
        (kiln_sandbox::available_memory() >= SCRATCH).then(|| ("TMPDIR", "/tmp".to_owned()));
    let all = [Some(locale), level, scratch].into_iter().flatten();
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Which kernels there are, and the one that was taken.
fn with_kernel(mut trace: Trace, kernel: String) -> Trace {
    trace.paths.entry("/boot".to_owned()).or_default().names = true;
    trace.paths.entry(kernel).or_default().content = true;
    let choice = trace.paths.entry(CHOICE.to_owned()).or_default();
    choice.content = true;
    trace
}

/// The version of the kernel that the last step chose, or of the newest, as dpkg orders versions.
fn kernel_version(place: &Place<'_>) -> Result<String> {
    let script = "[ ! -s /usr/lib/kiln/kernel ] || exec cat /usr/lib/kiln/kernel; for k in /boot/vmlinuz-*; do [ -f \"$k\" ] && echo \"${k#/boot/vmlinuz-}\"; done";
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
