//! Scriptlets of packages that failed: what rpm says of them, and what follows.
//!
//! The rule is rpm's own: a scriptlet that runs before its package is unpacked (`%pretrans`, `%pre`, and `%preun` of what is
//! replaced) decides whether the package is installed at all, so its failure is an error. Any other comes too late to change that: its
//! failure is a warning, with the package, the scriptlet and what was printed.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use kiln_sandbox::Stream;

use super::facts::Item;
use crate::error::{Error, ErrorKind};
use crate::report::Reporter;

/// Lines that are kept of each package, and of all.
const KEPT: usize = 30;
const FATAL: &[&str] = &["prein", "pre", "pretrans", "preun"];

/// A scriptlet that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// As rpm writes it: `post`, `transfiletriggerin`.
    scriptlet: String,
    /// `NAME-VERSION-RELEASE.ARCHITECTURE`.
    package: String,
    /// `exit status 1`
    status: String,
    /// What was printed since the package's turn began.
    output: Vec<String>,
}

impl Failure {
    /// From a line such as `warning: %post(cups-2.4-1.x86_64) scriptlet failed, exit status 1`.
    fn of(line: &str) -> Option<Failure> {
        let (_, rest) = line
            .split_once(": %")
            .filter(|(severity, _)| ["warning", "error"].contains(severity))?;
        let (what, status) = rest.split_once(" scriptlet failed, ")?;
        let (scriptlet, package) = what.strip_suffix(')')?.split_once('(')?;
        Some(Failure {
            scriptlet: scriptlet.to_owned(),
            package: package.to_owned(),
            status: status.to_owned(),
            output: Vec::new(),
        })
    }

    /// Whether the package is not installed for it.
    pub(super) fn is_fatal(&self) -> bool {
        FATAL.contains(&self.scriptlet.as_str())
    }

    fn sentence(&self) -> String {
        format!(
            "the scriptlet %{} of {} failed ({})",
            self.scriptlet, self.package, self.status
        )
    }

    pub(super) fn error(&self) -> Error {
        let mut error = Error::new(ErrorKind::Step, self.sentence());
        error.package = Some(self.package.clone());
        error.status = Some(self.status.clone());
        error.tail = self.output.clone();
        error.hint("a scriptlet that runs before its package is unpacked decides whether the package is installed")
    }

    /// A sentence, and what may help.
    pub(super) fn warning(&self) -> (String, String) {
        let output = match self.output.is_empty() {
            true => String::new(),
            false => format!(": {}", self.output.join(" / ")),
        };
        let hint =
            "the package is installed; what the scriptlet was to do may be missing".to_owned();
        (format!("{}{output}", self.sentence()), hint)
    }
}

/// What was heard of a transaction.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) failures: Vec<Failure>,
    /// The last lines.
    pub(super) tail: Vec<String>,
}

/// Hears what rpm prints, and passes it on.
pub(super) struct Listener<'a> {
    inner: &'a dyn Reporter,
    /// What rpm prints when it comes to a package.
    labels: HashSet<String>,
    total: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: u64,
    since: Vec<String>,
    failures: Vec<Failure>,
    tail: VecDeque<String>,
}

impl<'a> Listener<'a> {
    pub(super) fn new(inner: &'a dyn Reporter, items: &[Item]) -> Self {
        // Since rpm 4.12 or so with the architecture; of some versions with the epoch.
        let label = |item: &Item| {
            let version = item.version.split_once(':');
            let short = version.map_or(item.version.as_str(), |(_, version)| version);
            let short = format!("{}-{short}", item.name);
            [
                item.nevra(),
                format!("{short}.{}", item.architecture),
                short,
            ]
        };
        Listener {
            inner,
            labels: items.iter().flat_map(label).collect(),
            total: items.len() as u64,
            state: Mutex::default(),
        }
    }

    pub(super) fn take(self) -> Heard {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Heard {
            failures: state.failures,
            tail: state.tail.into(),
        }
    }

    fn hear(&self, line: &str) {
        // What rpm says of itself may come after the first package's name, which is on the other stream.
        if line.starts_with("rpm: ") {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.labels.contains(line.trim()) {
            state.done += 1;
            state.since.clear();
            self.inner.progress(
                state.done.min(self.total),
                Some(self.total),
                Some(line.trim()),
            );
            return;
        }
        if let Some(failure) = Failure::of(line) {
            let output = std::mem::take(&mut state.since);
            state.failures.push(Failure { output, ..failure });
        } else if state.since.len() < KEPT {
            state.since.push(line.to_owned());
        }
        if state.tail.len() == KEPT {
            state.tail.pop_front();
        }
        state.tail.push_back(line.to_owned());
    }
}

impl Reporter for Listener<'_> {
    fn line(&self, stream: Stream, line: &str) {
        if matches!(stream, Stream::Stdout | Stream::Stderr) {
            self.hear(line);
        }
        self.inner.line(stream, line);
    }

    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>) {
        self.inner.progress(done, total, item);
    }

    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.inner.warn(message, origin, hint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Quiet;

    #[test]
    fn failures_have_the_output_of_their_package() {
        let listener = Listener::new(
            &Quiet,
            &[Item::named("a", "1:2-3"), Item::named("b", "1-1")],
        );
        for line in [
            "Updating / installing...",
            "a-2-3.x86_64",
            "from a",
            "b-1-1.x86_64",
            "no such user",
            "warning: %post(b-1-1.x86_64) scriptlet failed, exit status 7",
            "error: %prein(a-1:2-3.x86_64) scriptlet failed, signal 9",
        ] {
            listener.line(Stream::Stderr, line);
        }
        let heard = listener.take();
        let [post, pre] = heard.failures.as_slice() else {
            panic!("{:?}", heard.failures);
        };
        assert_eq!((post.is_fatal(), pre.is_fatal()), (false, true));
        assert_eq!(
            post.warning().0,
            "the scriptlet %post of b-1-1.x86_64 failed (exit status 7): no such user"
        );
        assert_eq!(pre.error().package.as_deref(), Some("a-1:2-3.x86_64"));
        assert!(pre.error().tail.is_empty());
    }

    #[test]
    fn other_lines_are_no_failures() {
        for line in [
            "warning: user x does not exist - using root",
            "%post(b) scriptlet failed",
            "error: Failed dependencies:",
            "note: %post(b) scriptlet failed, exit status 1",
        ] {
            assert_eq!(Failure::of(line), None, "{line}");
        }
    }
}
