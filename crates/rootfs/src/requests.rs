//! What is asked of the repositories for a plan.

use std::collections::BTreeMap;

/// A package name that is asked for, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name; a real package or one that others provide.
    pub name: String,
    /// As the package manager is asked for it: the name, or with a version or a suite.
    pub form: String,
    /// `file:line`, or Kiln's reason.
    pub origin: String,
}

impl Wanted {
    /// A package by its plain name.
    pub fn new(name: &str, origin: &str) -> Self {
        Wanted {
            name: name.to_owned(),
            form: name.to_owned(),
            origin: origin.to_owned(),
        }
    }
}

/// Everything that is asked of the repositories.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// The lowest layer of all is Kiln's own (`system`), then those of the plan.
    pub layers: Vec<(String, Vec<Wanted>)>,
    /// Names that must not be installed, with the place that says so.
    pub exclude: BTreeMap<String, String>,
    /// Whether weak dependencies are installed.
    pub recommends: bool,
    /// Whether a package is taken in all architectures that fit, not only in the best.
    pub multilib: bool,
    /// Things that were passed over: place, sentence.
    pub warnings: Vec<(String, String)>,
}

/// The name of Kiln's own layer.
pub const SYSTEM: &str = "system";
