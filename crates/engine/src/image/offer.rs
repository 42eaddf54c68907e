//! Images for other machines: once one is finished, it goes to the shared cache.

use std::fs::File;

use super::follow::Follow;
use super::squash::Locate;
use crate::means::Session;
use crate::means::output::RAW;
use crate::output::current::shared_key;
use crate::shared::ImageFacts;
use crate::values::{Made, Resolved, Stack};
use crate::{Failure, FailureKind};

/// Has a finished image sent, and what was put beside its layers since they were, if results of this build go anywhere.
pub(super) fn offer(
    session: &Session<'_>,
    resolved: &Resolved,
    root: &Stack,
    (disk, follow): (&File, &Follow),
    made: &Made,
    locate: Option<Locate>,
) -> Result<(), Failure> {
    let Some(shared) = &session.shared else {
        return Ok(());
    };
    shared.amend(&root.layers);
    let (Some(locate), Some(root_at)) = (locate, follow.start()) else {
        return Ok(());
    };
    let Some(id) = shared_key(session, resolved) else {
        return Ok(());
    };
    let copied = disk
        .metadata()
        .and_then(|found| Ok((found.len(), disk.try_clone()?)));
    let (size, disk) = copied.map_err(|error| {
        Failure::new(FailureKind::Environment, "sharing the image").cause(error.to_string())
    })?;
    let facts = ImageFacts {
        kernel: made.kernel.clone(),
        squashed: made.squashed.clone(),
        finished: root.finished()?,
        size,
        sha256: made.digests.get(RAW).cloned(),
        root: root_at,
        layers: root.layers.iter().map(|layer| layer.info.id).collect(),
        of_packages: root.last_of_packages(),
    };
    shared.push_image(id, disk, facts, Box::new(|| locate.find()));
    Ok(())
}
