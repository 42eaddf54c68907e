//! How a step tells what it does while it does it.

use std::collections::VecDeque;
use std::sync::Mutex;

use kiln_sandbox::Stream;

/// Receives what a step prints and how far it is. Called from several threads.
pub trait Reporter: Sync {
    /// A line that a command printed.
    fn line(&self, stream: Stream, line: &str);
    /// Units done, units in all, and what is being worked on.
    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>);
    /// Something that the user should know although the step goes on.
    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>);
}

/// Passes lines on and keeps the last ones for a failure's message.
pub(crate) struct Tail<'a> {
    reporter: &'a dyn Reporter,
    last: Mutex<VecDeque<String>>,
}

/// Lines that a failure shows.
const KEPT: usize = 30;

impl<'a> Tail<'a> {
    pub(crate) fn new(reporter: &'a dyn Reporter) -> Self {
        Tail {
            reporter,
            last: Mutex::new(VecDeque::with_capacity(KEPT)),
        }
    }

    pub(crate) fn line(&self, stream: Stream, line: &str) {
        self.reporter.line(stream, line);
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        last.drain(..).collect()
    }
}
