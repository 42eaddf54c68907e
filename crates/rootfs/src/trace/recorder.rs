//! Makes a trace of what the sandbox tells of a run, and knows what some programs mean by what they access.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};

use kiln_sandbox::{AccessKind, Observer, Outcome, PathAccess, Watch};

use super::access::{Access, SharedTrace, Trace};
use super::linker::CACHE;
use super::search::{self, Search};

/// Words of find(1) that are read: more of them are no search.
const WORDS: usize = 64;

/// How a run is traced.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// What the sandbox tells of it.
    pub watch: Watch,
    /// What scripts are known to search for when they list a directory.
    pub globs: Vec<Glob>,
    /// The trace, which grows while the run goes on.
    pub trace: SharedTrace,
}

/// What a script searches for. Only of the process that runs the script, not of what it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// The script, as it is started.
    pub script: String,
    /// The names, and the directory that is listed for them.
    pub search: Search,
}

impl Tracing {
    /// Returns who makes the trace.
    pub(crate) fn recorder(self) -> Recorder {
        Recorder {
            trace: self.trace,
            globs: self.globs,
            known: HashMap::new(),
        }
    }
}

/// Takes the trace of a run that has ended; `None` of one that was not watched from its beginning to its end.
pub fn taken(trace: &SharedTrace, outcome: &Outcome) -> Option<Trace> {
    outcome.watched.then(|| std::mem::take(&mut *lock(trace)))
}

/// Writes down the accesses of one run.
pub(crate) struct Recorder {
    trace: SharedTrace,
    globs: Vec<Glob>,
    /// What processes run of which it is known what they search for.
    known: HashMap<u32, Known>,
}

/// A program of which it is known what it searches for.
enum Known {
    /// find(1).
    Find(Vec<Search>),
    /// A script, by its path.
    Script(String),
}

impl Observer for Recorder {
    fn accessed(&mut self, of: &PathAccess<'_>) {
        let mut access = Access {
            content: matches!(of.kind, AccessKind::Open | AccessKind::Execute),
            names: of.kind == AccessKind::List,
            executed: of.kind == AccessKind::Execute,
            linked: false,
        };
        if access.executed {
            self.executes(of);
        } else if self.is_search(of) {
            return;
        }
        // Every program opens it, but for a few of its lines only.
        if of.path == CACHE && access.content && is_linker(of) {
            (access.content, access.linked) = (false, true);
        }
        let path = of.path.to_owned();
        lock(&self.trace).paths.entry(path).or_default().add(access);
    }

    fn incomplete(&mut self, why: String) {
        lock(&self.trace).incomplete.get_or_insert(why);
    }
}

impl Recorder {
    /// Remembers what a process becomes.
    fn executes(&mut self, of: &PathAccess<'_>) {
        self.known.remove(&of.process());
        if self.globs.iter().any(|glob| glob.script == of.path) {
            let script = Known::Script(of.path.to_owned());
            self.known.insert(of.process(), script);
        } else if of.path.ends_with("/find")
            && let Some(words) = of.command_line(WORDS)
            && let Some(at) = of.working_directory()
            && let Some(searches) = search::of_find(&words, &at)
        {
            self.known.insert(of.process(), Known::Find(searches));
        }
    }

    /// Whether an access belongs to a search, which is noted instead.
    fn is_search(&mut self, of: &PathAccess<'_>) -> bool {
        let lists = of.kind == AccessKind::List;
        let found = match self.known.get(&of.process()) {
            None => return false,
            Some(Known::Script(script)) => {
                let mut globs = self.globs.iter();
                let is_meant = |glob: &&Glob| {
                    lists && glob.script == *script && glob.search.directory == of.path
                };
                let glob = globs.find(is_meant).filter(|_| runs_script(of, script));
                glob.map(|glob| vec![glob.search.clone()])
            }
            // What it does to walk. What it needs to run at all it opens by whole paths.
            Some(Known::Find(searches)) => {
                let walks = lists || of.is_below_descriptor();
                (walks && is_find(of) && is_within(of.path, searches)).then(|| searches.clone())
            }
        };
        let is_search = found.is_some();
        lock(&self.trace)
            .searches
            .extend(found.into_iter().flatten());
        is_search
    }
}

fn lock(trace: &SharedTrace) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_within(path: &str, searches: &[Search]) -> bool {
    let mut directories = searches.iter().map(|search| &search.directory);
    directories.any(|directory| Path::new(path).starts_with(directory))
}

/// Whether the program that a process meant to run is the one that runs: executing it may have failed.
fn is_find(of: &PathAccess<'_>) -> bool {
    of.program()
        .is_some_and(|program| program.ends_with("/find"))
}

/// The same of a script: its interpreter has it as the first argument (execve(2)).
fn runs_script(of: &PathAccess<'_>, script: &str) -> bool {
    let words = of.own_command_line();
    words.is_some_and(|words| words.get(1).map(Vec::as_slice) == Some(script.as_bytes()))
}

/// Whether a call was made by the code of the dynamic linker. In doubt it was not.
fn is_linker(of: &PathAccess<'_>) -> bool {
    of.caller().is_some_and(|file| {
        let name = file.rsplit('/').next().unwrap_or(&file);
        name.starts_with("ld-linux") || name.starts_with("ld-2.")
    })
}
