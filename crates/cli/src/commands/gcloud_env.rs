//! `kiln gcloud-env`

use kiln_engine::{Failure, FailureKind};

use super::Context;
use crate::args::GcloudEnvArgs;

/// Prints or installs what gcloud needs.
pub(crate) fn run(args: &GcloudEnvArgs, _context: &Context<'_>) -> Result<u8, Failure> {
    let what = if args.install { "installed" } else { "printed" };
    Err(Failure::new(
        FailureKind::Internal,
        format!("the settings for {} cannot be {what}", args.server),
    ))
}
