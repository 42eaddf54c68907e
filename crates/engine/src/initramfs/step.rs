//! The initramfs of a build: a stored one, one that was begun ahead, or a new one.

use kiln_sandbox::CancelToken;

use crate::initramfs::ahead::Ahead;
use crate::initramfs::generate::{Generator, Over, Reused, Terms, say_wrong};
use crate::values::{BootFiles, Stack};
use crate::{Failure, Unit};

/// Fills `boot` with the kernel and its initramfs; returns the kernel's version.
pub(crate) fn initramfs(
    generator: &Generator<'_>,
    root: &Stack,
    boot: &BootFiles,
    terms: Terms,
    ahead: &Ahead,
    cancel: &CancelToken,
) -> Result<String, Failure> {
    const TITLE: &str = "generating the initramfs";
    let over = Over::of(root, terms);
    let guess = ahead.has_guess();
    let mut why = None;
    if !guess {
        match generator.reuse(&over, boot, cancel)? {
            Reused::Yes(version, id) => {
                let pulled = generator.shared.is_some_and(|s| s.has_pulled(id));
                generator.steps.cached_here(TITLE, None, pulled);
                return Ok(version);
            }
            Reused::No(changed) => why = changed.map(|what| format!("{what} changed")),
        }
    }
    let steps = generator.steps;
    steps.step_because(why, TITLE, None, Unit::Bytes, |step| {
        let mut beside = "";
        let mut version = None;
        if guess && ahead.settle(generator, root, step) {
            match generator.reuse(&over, boot, cancel)? {
                Reused::Yes(made, _) => {
                    version = Some(made);
                    beside = ", begun beside the last packages";
                }
                Reused::No(changed) => say_wrong(step, changed.as_ref()),
            }
        }
        let version = match version {
            Some(version) => version,
            None => generator.generate_sound(root, &over, boot, step, cancel)?,
        };
        let bytes = boot.initrd.metadata().map_or(0, |m| m.len());
        step.summarise(format!(
            "kernel {version}, {} MB{beside}",
            bytes / 1_000_000
        ));
        Ok(version)
    })
}
