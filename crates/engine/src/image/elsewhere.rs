//! Images that other machines made: they come from the shared cache whole, without their layers.

use std::fs::File;
use std::os::fd::AsFd;

use kiln_plan::Format;
use kiln_rootfs::Reporter;

use super::disk::{panicked, say_lost, tar_gz};
use super::follow::{Closing, Follow};
use crate::means::Session;
use crate::means::output::{Output, RAW, TAR_GZ};
use crate::output::current::shared_key;
use crate::shared::{ImageFacts, Placed, Shared, SharedImage};
use crate::steps::Step;
use crate::values::{Made, Resolved};
use crate::{Failure, Unit};

/// Takes the image from the shared cache, where that has it and this machine has not even its packages' layers: with them, making it
/// costs less than fetching it.
pub(crate) fn take(
    session: &Session<'_>,
    resolved: &Resolved,
    output: &Output,
) -> Result<Option<(ImageFacts, Made)>, Failure> {
    let Some(shared) = &session.shared else {
        return Ok(None);
    };
    let id = shared_key(session, resolved);
    let Some(image) = id.and_then(|id| shared.image(session.steps, id)) else {
        return Ok(None);
    };
    let is_here = |id| session.store.layer(id).is_some();
    if image.facts.of_packages.is_none_or(is_here) {
        return Ok(None);
    }
    let title = "fetching the image from the shared cache";
    let disk = session.steps.step(title, None, Unit::Bytes, |step| {
        let received = receive(session, shared, &image, output, step)?;
        match received {
            Some(_) => step.summarise(format!("{} MB", image.bytes() / 1_000_000)),
            None => step.summarise("it cannot be used".to_owned()),
        }
        Ok(received)
    })?;
    session.cancel.check()?;
    let Some(disk) = disk else { return Ok(None) };
    let (facts, formats) = (image.facts, &resolved.plan.formats);
    let mut made = Made {
        kernel: facts.kernel.clone(),
        squashed: facts.squashed.clone(),
        digests: facts.sha256.iter().map(|d| (RAW, d.clone())).collect(),
    };
    if formats.contains(&Format::TarGz) {
        let epoch = resolved.epoch(session.request.epoch);
        let digest = tar_gz(session, &disk, output, epoch)?;
        made.digests.insert(TAR_GZ, digest);
    }
    Ok(Some((facts, made)))
}

/// The disk, unless something is wrong with it.
fn receive(
    session: &Session<'_>,
    shared: &Shared,
    image: &SharedImage,
    output: &Output,
    step: &Step<'_, '_>,
) -> Result<Option<File>, Failure> {
    let (disk, file) = (output.create(RAW)?, output.reopen(RAW)?);
    let (facts, follow) = (&image.facts, &Follow::default());
    let (total, mut done) = (image.bytes(), 0);
    let mut progress = |bytes: u64| {
        done += bytes;
        step.progress(done, Some(total), None);
        !session.cancel.is_cancelled()
    };
    let placed = |placed| match placed {
        Placed::Around => follow.surround(facts.root),
        Placed::Root(bytes) => follow.reach(bytes),
    };
    let received = std::thread::scope(|scope| -> Result<kiln_share::Result<()>, Failure> {
        let _closing = Closing(follow);
        let digest = scope.spawn(|| follow.digest(&file));
        follow.expect(facts.squashed.bytes);
        let received = shared.receive_image(image, &disk, &mut progress, &placed);
        if received.is_err() {
            follow.close();
        }
        // Beside the rest of the digest, as for an image that is made here.
        scope.spawn(|| kiln_sandbox::begin_writing(disk.as_fd()));
        let digest = digest.join().map_err(|_| panicked("hashing disk.raw"))?;
        let is_right =
            || matches!(&digest, Ok(Some(_)) if digest.as_ref().ok() == Some(&facts.sha256));
        Ok(match received {
            Ok(()) if !is_right() => Err(image.is_another()),
            received => received,
        })
    });
    match received? {
        Ok(()) => {
            say_lost(step, &facts.squashed);
            Ok(Some(disk))
        }
        Err(error) => {
            shared.spoil(session.steps, image, &error);
            Ok(None)
        }
    }
}
