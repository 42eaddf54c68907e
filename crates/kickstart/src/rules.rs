//! What single commands demand beyond the option table.

use std::collections::HashSet;

use crate::report::Report;
use crate::{Command, Version};

/// What the rules remember from line to line.
#[derive(Default)]
pub(crate) struct Memory {
    /// Names that may be defined once: (command, name).
    names: HashSet<(&'static str, String)>,
}

/// Checks one command line.
pub(crate) fn check(command: &Command, version: Version, memory: &mut Memory, report: &mut Report) {
    let _ = (command, version, memory, report);
}
