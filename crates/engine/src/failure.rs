//! Why a build failed, with everything needed to say so well.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The kind picks the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The definition or another input is wrong.
    Definition,
    /// The command line is wrong.
    Usage,
    /// The environment lacks something.
    Environment,
    /// A step failed.
    Step,
    /// Kiln is wrong.
    Internal,
    /// The user stopped it.
    Cancelled,
}

impl FailureKind {
    /// The process exit code: 1 definition, 2 usage, 3 environment, 4 step, 5 internal, 130 cancelled.
    pub fn exit_code(self) -> u8 {
        match self {
            FailureKind::Definition => 1,
            FailureKind::Usage => 2,
            FailureKind::Environment => 3,
            FailureKind::Step => 4,
            FailureKind::Internal => 5,
            FailureKind::Cancelled => 130,
        }
    }
}

/// Why a build failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// One sentence that names what failed.
    pub message: String,
    /// The layer.
    pub layer: Option<String>,
    /// `file:line` of the kickstart.
    pub origin: Option<String>,
    /// The kickstart line with a caret, as [`kiln_kickstart::render`] shows it.
    pub excerpt: Option<String>,
    /// The package whose scriptlet or file failed.
    pub package: Option<String>,
    /// The exact command.
    pub command: Option<Vec<String>>,
    /// `exit status 7`, `killed by SIGKILL (9)`.
    pub status: Option<String>,
    /// The last lines it printed, 30 at most.
    pub tail: Vec<String>,
    /// What was behind it, outermost first.
    pub causes: Vec<String>,
    /// What else is wrong, each with its place: further mistakes, none of which is the reason of the first one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// The command that reopens the failed root.
    pub reopen: Option<String>,
    /// The log of the build that failed, with `failure.json` beside it.
    pub log: Option<PathBuf>,
    /// Whether it was told apart already as that of a full disk.
    #[serde(skip)]
    pub disk_full: bool,
}

impl Failure {
    /// A failure with a kind and a sentence.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            layer: None,
            origin: None,
            excerpt: None,
            package: None,
            command: None,
            status: None,
            tail: Vec::new(),
            causes: Vec::new(),
            others: Vec::new(),
            hints: Vec::new(),
            reopen: None,
            log: None,
            disk_full: false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what was behind it.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }
}
