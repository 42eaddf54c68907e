//! What is wrong with, or noteworthy in, a definition.

use kiln_kickstart::Severity;
use serde::{Deserialize, Serialize};

/// One finding about the definition, with its place and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it stops the build.
    pub severity: Severity,
    /// `file:line`, or the file alone.
    pub origin: Option<String>,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
    /// The finding as shown to people where there is more than a line (a source excerpt with a caret).
    #[serde(skip)]
    pub rendered: Option<String>,
}

impl Problem {
    /// A finding that stops the build.
    pub fn error(message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Error,
            origin: None,
            message: message.into(),
            hints: Vec::new(),
            rendered: None,
        }
    }

    /// A finding that does not.
    pub fn warning(message: impl Into<String>) -> Self {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(message)
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}
