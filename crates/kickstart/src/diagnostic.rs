//! What is to be said about a kickstart.

use serde::{Deserialize, Serialize};

use crate::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It takes effect, or is harmless, but the author should know.
    Warning,
    /// The file is wrong.
    Error,
}

/// One finding, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for programs (`unknown-option`).
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// Where; `None` only for findings about the whole input.
    pub span: Option<Span>,
    /// What to do, one sentence each.
    pub help: Vec<String>,
}

/// Codes of warnings about what the reference accepts silently.
const LINTS: [&str; 15] = [
    "blank-lookalike",
    "continuation-accepted",
    "cut-word",
    "dash-lookalike",
    "given-again",
    "open-include",
    "packages-again",
    "placeholder",
    "quote-lookalike",
    "script-crlf",
    "several-packages",
    "unknown-keymap",
    "unknown-layout",
    "unknown-locale",
    "unknown-zone",
];

/// Codes of those of them that come from a list, about which the target's own data knows better.
const LISTED: [&str; 4] = [
    "unknown-keymap",
    "unknown-layout",
    "unknown-locale",
    "unknown-zone",
];

impl Diagnostic {
    /// Returns whether the reference's validator reports this, too: it rejects a file for every error and warning of its
    /// own, while a remark that only Kiln makes must not change the verdict.
    pub fn counts(&self) -> bool {
        !LINTS.contains(&self.code)
    }

    /// Returns whether it rests on a list of Kiln's, and so is for those only who have nothing better at hand.
    pub fn is_from_a_list(&self) -> bool {
        LISTED.contains(&self.code)
    }
}
