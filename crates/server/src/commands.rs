//! What a step may ask of Kiln. Who reads Kiln's command line is above this crate.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Finds the place on this machine of a path as a step knows it, or says why there is none.
pub type Find<'a> = &'a mut dyn FnMut(&Path) -> Result<PathBuf, String>;

/// Kiln's own command line, as far as steps may use it.
pub trait Commands: Send + Sync {
    /// Reads the arguments of a step and returns those for the program, with each path replaced by its place. A build has
    /// `threads` threads unless it says how many.
    ///
    /// # Errors
    /// The words are no command that a step may run. Says why, in one sentence.
    fn read(&self, args: &[String], threads: u32, find: Find<'_>) -> Result<Vec<OsString>, String>;
}
