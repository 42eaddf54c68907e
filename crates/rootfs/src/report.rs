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

/// Reports nothing: for what is not worth a line.
pub struct Quiet;

impl Reporter for Quiet {
    fn line(&self, _: Stream, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
    fn warn(&self, _: String, _: Option<String>, _: Option<String>) {}
}

/// Passes lines on and keeps the last ones for a failure's message.
pub(crate) struct Tail<'a> {
    reporter: &'a dyn Reporter,
    last: Mutex<Last>,
}

/// The last lines of a run: what the programs printed, and where these were silent also what was said to the system's log. A
/// program that sends a line there for each thing that it does must not push out the one that says why another failed.
#[derive(Debug, Default)]
pub(crate) struct Last {
    count: u64,
    printed: VecDeque<(u64, String)>,
    logged: VecDeque<(u64, String)>,
}

/// Lines that a failure shows.
const KEPT: usize = 30;
/// Of these, lines of the system's log at most.
const LOGGED: usize = 10;

impl Last {
    pub(crate) fn push(&mut self, stream: Stream, line: &str) {
        let (lines, most) = match stream {
            Stream::Stdout | Stream::Stderr => (&mut self.printed, KEPT),
            Stream::Syslog | Stream::Console => (&mut self.logged, LOGGED),
        };
        if lines.len() == most {
            lines.pop_front();
        }
        lines.push_back((self.count, line.to_owned()));
        self.count += 1;
    }

    /// The lines in the order in which they came.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let room = KEPT.saturating_sub(self.printed.len());
        let old = self.logged.len().saturating_sub(room);
        let mut lines: Vec<_> = self.logged.drain(..).skip(old).collect();
        lines.extend(self.printed.drain(..));
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

impl<'a> Tail<'a> {
    pub(crate) fn new(reporter: &'a dyn Reporter) -> Self {
        Tail {
            reporter,
            last: Mutex::default(),
        }
    }

    pub(crate) fn line(&self, stream: Stream, line: &str) {
        self.reporter.line(stream, line);
        self.last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(stream, line);
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_log_leaves_room_for_what_was_printed() {
        let mut last = Last::default();
        for count in 0..40 {
            last.push(Stream::Stderr, &format!("printed {count}"));
            for _ in 0..50 {
                last.push(Stream::Syslog, "useradd[7]: new group");
            }
        }
        let lines = last.take();
        let expected: Vec<String> = (10..40).map(|count| format!("printed {count}")).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_systems_log_is_shown_where_little_was_printed() {
        let mut last = Last::default();
        last.push(Stream::Stdout, "starting");
        (0..99).for_each(|count| last.push(Stream::Syslog, &format!("logged {count}")));
        last.push(Stream::Stderr, "it failed");
        let lines = last.take();
        assert_eq!(lines.len(), 2 + LOGGED, "{lines:?}");
        assert_eq!(lines[0], "starting");
        assert_eq!(lines[1], "logged 89");
        assert_eq!(lines[LOGGED + 1], "it failed");
    }
}
