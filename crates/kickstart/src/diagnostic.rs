//! What is to be said about a kickstart.

use serde::Serialize;

use crate::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It takes effect, or is harmless, but the author should know.
    Warning,
    /// The file is wrong.
    Error,
}

/// One finding, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
