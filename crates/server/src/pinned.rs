//! The commit of a source from git over a build's attempts.

use crate::git::{GitTask, Pin};
use crate::store::Record;

/// What a build that is to be made again was made of.
pub(crate) fn pin_of(earlier: &Record) -> Option<Pin> {
    let task = earlier.task.git.as_ref()?;
    let known = earlier.build.source_provenance.as_ref();
    let known = known.and_then(|known| known.resolved_git_source.as_ref()?.revision.clone());
    match known {
        Some(commit) => Some(Pin {
            commit,
            reference: task.pin.as_ref().and_then(|pin| pin.reference.clone()),
        }),
        None => task.pin.clone(),
    }
}

/// The source of a new attempt: that of an earlier attempt at the same build, where there was one.
pub(crate) fn to_fetch(record: &Record) -> Option<GitTask> {
    Some(GitTask {
        pin: pin_of(record),
        ..record.task.git.clone()?
    })
}
