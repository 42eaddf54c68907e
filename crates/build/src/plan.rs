//! `kiln plan`: what a build would do, without doing it.

use std::path::Path;

use kiln_plan::{Input, Lowered};

use crate::Failure;
use crate::load::Source;
use crate::pipeline::checked;
use crate::web::{Access, Web};

/// Lowers a definition and refuses it as a build would; the warnings are among the result's problems.
///
/// `%pre` scripts are not run, so what they would bring in is missing.
///
/// # Errors
/// The definition cannot be read or is wrong.
pub fn plan(definition: &Path, input: &Input) -> Result<Lowered, Failure> {
    let source = Source::open(definition, Web::new(Access::planning(), None))?;
    checked(source.lower(&Input {
        before_pre: true,
        ..input.clone()
    }))
}
