//! `kiln plan`: what a build would do, without doing it.

use std::path::{Path, PathBuf};

use kiln_plan::configure::Level;
use kiln_plan::{Input, Lowered, Problem};

use crate::Failure;
use crate::define::check::checked;
use crate::define::confined::Files;
use crate::define::load::Source;
use crate::define::web::{Access, Web};

/// Lowers a definition and gives everything that is to be said about it, right or wrong: the problems of its files in
/// their order, then what is to be said about its commands where there is a plan.
///
/// # Errors
/// The definition cannot be read at all.
pub fn examine(
    files: &Files,
    definition: &Path,
    input: &Input,
    web: Web,
) -> Result<Vec<Problem>, Failure> {
    let source = Source::open(files, definition, web)?;
    let lowered = source.lower(&Input {
        before_pre: true,
        ..input.clone()
    });
    let mut problems = lowered.problems;
    let layers = lowered.plan.into_iter().flat_map(|plan| plan.layers);
    for notice in layers.flat_map(|layer| layer.notices) {
        let problem = match notice.level {
            Level::Note => continue,
            Level::Warning => Problem::warning(notice.message),
            Level::Error => Problem::error(notice.message),
        };
        let mut problem = problem.at(notice.origin);
        problem.hints.extend(notice.hint);
        problems.push(problem);
    }
    Ok(problems)
}

/// What a build would do.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan, its warnings and the scripts that run outside of it.
    pub lowered: Lowered,
    /// Directories beside the definition's own that it may read.
    pub include_path: Vec<PathBuf>,
}

/// Lowers a definition and refuses it as a build would; the warnings are among the result's problems.
///
/// `%pre` scripts are not run, so what they would bring in is missing.
///
/// # Errors
/// The definition cannot be read or is wrong.
pub fn plan(files: &Files, definition: &Path, input: &Input) -> Result<Planned, Failure> {
    let web = Web::new(Access::planning(), None);
    let source = Source::open(files, definition, web)?;
    let lowered = checked(source.lower(&Input {
        before_pre: true,
        ..input.clone()
    }))?;
    // A machine that cannot build at all can still plan.
    if let (Some(plan), Ok(ids)) = (&lowered.plan, kiln_sandbox::IdMap::detect()) {
        crate::define::owners::fit(plan, &ids)?;
    }
    Ok(Planned {
        lowered,
        include_path: source.include_path,
    })
}
