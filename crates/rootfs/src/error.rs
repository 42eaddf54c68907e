//! Why making a root failed, with all that is known about it.

use kiln_sandbox::Status;

/// What sort of failure; it decides the exit code in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The definition asks for something that cannot be.
    Definition,
    /// The machine lacks something.
    Environment,
    /// A command, script or package failed.
    Step,
    /// Kiln is wrong.
    Internal,
    /// The caller cancelled.
    Cancelled,
}

/// A failure with its place, its command and its causes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}{}", .causes.iter().map(|cause| format!(": {cause}")).collect::<String>())]
pub struct Error {
    /// What sort.
    pub kind: ErrorKind,
    /// One sentence that names the object.
    pub message: String,
    /// `file:line`.
    pub origin: Option<String>,
    /// The package at fault.
    pub package: Option<String>,
    /// The command, exactly.
    pub command: Option<Vec<String>>,
    /// How the command ended.
    pub status: Option<String>,
    /// The last lines it printed.
    pub tail: Vec<String>,
    /// What was behind it, outermost first.
    pub causes: Vec<String>,
    /// What else is wrong, each with its place: mistakes of the same kind that have nothing to do with the first one.
    pub others: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
}

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure with a kind and a sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            origin: None,
            package: None,
            command: None,
            status: None,
            tail: Vec::new(),
            causes: Vec::new(),
            others: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// The definition is wrong.
    pub fn definition(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Definition, message)
    }

    /// A failed system call on a path of the host.
    pub fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let made = Error::new(ErrorKind::Environment, doing).cause(error.to_string());
        match error.kind() {
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                made.hint("choose a place that you may write")
            }
            _ => made,
        }
    }

    /// Adds a place.
    #[must_use]
    pub fn at(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Adds what was behind it.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// An error of the sandbox itself: the machine lacks something.
pub fn sandbox_error(error: kiln_sandbox::Error) -> Error {
    let mut made = Error::new(ErrorKind::Environment, error.to_string());
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        made.causes.push(cause.to_string());
        source = cause.source();
    }
    made.hints
        .push("`kiln doctor` shows what this machine lacks".to_owned());
    made
}

/// How a run ended, for people.
pub fn describe(status: Status) -> String {
    match status {
        Status::Exited(code) => format!("exit status {code}"),
        Status::Signaled(signal) => format!("killed by {} ({signal})", signal_name(signal)),
        Status::TimedOut => "stopped after its time limit".to_owned(),
        Status::OverMemory => "stopped for the memory that it took".to_owned(),
        Status::Cancelled => "cancelled".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => "a signal",
    }
}

impl From<kiln_packages::Error> for Error {
    fn from(error: kiln_packages::Error) -> Self {
        of_packages(&error)
    }
}

fn of_packages(error: &kiln_packages::Error) -> Error {
    use kiln_packages::Category;
    let kind = match error.kind().category() {
        Category::Input => ErrorKind::Definition,
        Category::Environment => ErrorKind::Environment,
        Category::Step => ErrorKind::Step,
        Category::Internal => ErrorKind::Internal,
        Category::Cancelled => ErrorKind::Cancelled,
    };
    let mut made = Error::new(kind, error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        made.causes.push(cause.to_string());
        source = cause.source();
    }
    made.hints
        .extend(error.hints().iter().map(|h| h.to_string()));
    made.origin = error.origin().map(str::to_owned);
    made
}
