//! What a build leaves: artifacts in the output directory, or the record of its failure.

pub(crate) mod artifacts;
pub(crate) mod current;
pub(crate) mod record;
