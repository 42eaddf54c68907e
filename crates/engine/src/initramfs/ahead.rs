//! The initramfs, generated before the root is finished.
//!
//! Its generator is one process after the other for half a minute, and so are the maintainer scripts of the packages before it.
//! So while the last packages are installed, it runs over what is below them, with the last step's changes, in the hope that
//! nothing that it looks at changes any more. Whether that is so is told by what it looked at, as for any stored
//! result; a wrong guess is a result like others, of which only time was spent.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_plan::{Compression, Hasher};
use kiln_rootfs::finish::Finish;
use kiln_rootfs::trace::{Query, SharedTrace, Stamps, queries, states};
use kiln_rootfs::{Place, Quiet, Reporter, Staging};
use kiln_sandbox::{CancelToken, Root};

use crate::Failure;
use crate::initramfs::generate::{Generator, Over, Terms, say_wrong};
use crate::io::write_failure;
use crate::values::{BootFiles, Stack};

/// What the clock of a stack will be when all packages are on it.
pub(crate) type Clock<'a> = &'a (dyn Fn(&Stack) -> Result<i64, Failure> + Sync);

/// Generates one initramfs ahead, on a thread of its own.
pub(crate) struct Ahead {
    cancel: CancelToken,
    finish: Finish,
    compression: Compression,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where to begin.
    offered: Option<Stack>,
    /// What the generator runs over, and what it has looked at so far.
    running: Option<(Over, SharedTrace)>,
    /// Whether a result was made.
    made: bool,
    /// Nothing is to begin any more.
    closed: bool,
}

impl Ahead {
    /// For a root that gets these last changes; `cancel` is its own.
    pub(crate) fn new(cancel: CancelToken, finish: Finish, compression: Compression) -> Self {
        Ahead {
            cancel,
            finish,
            compression,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Says that packages are about to be installed on a stack, after which no others follow.
    pub(crate) fn offer(&self, stack: &Stack) {
        self.lock().offered = Some(stack.clone());
        self.changed.notify_all();
    }

    /// Nothing begins any more. Whether there is a result, or one under way.
    pub(crate) fn has_guess(&self) -> bool {
        let mut state = self.lock();
        state.closed = true;
        state.running.is_some() || state.made
    }

    /// Nothing begins any more, and what runs ends.
    pub(crate) fn close(&self) {
        self.cancel.cancel();
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for the result if it is under way and looks right for this root. Whether there is one.
    pub(crate) fn settle(
        &self,
        generator: &Generator<'_>,
        root: &Stack,
        reporter: &dyn Reporter,
    ) -> bool {
        let running = self.lock().running.clone();
        if let Some((over, trace)) = running
            && let Err(changed) = alike(generator, &over, &trace, root, &self.cancel)
        {
            say_wrong(reporter, changed.as_ref());
            self.cancel.cancel();
        }
        let mut state = self.lock();
        while state.running.is_some() {
            state = self.wait(state);
        }
        state.made
    }

    /// Waits for an offer and takes it.
    pub(crate) fn work(&self, generator: &Generator<'_>, epoch: Clock<'_>) {
        let mut state = self.lock();
        while state.offered.is_none() && !state.closed {
            state = self.wait(state);
        }
        let Some(stack) = state.offered.take().filter(|_| !state.closed) else {
            return;
        };
        drop(state);
        // The packages, which the build waits for, go first.
        let _ = rustix::process::nice(5);
        let _ending = Ending(self);
        // A failure is the generator's own to report, if it fails over the finished root too.
        let made = self.make(generator, &stack, epoch).is_ok_and(|made| made);
        self.lock().made = made;
    }

    fn make(
        &self,
        generator: &Generator<'_>,
        stack: &Stack,
        epoch: Clock<'_>,
    ) -> Result<bool, Failure> {
        let epoch = epoch(stack)?;
        let terms = Terms::new(generator.family, &self.compression, epoch);
        if generator.has_results(terms) {
            // Chances are that one of them is right.
            return Ok(false);
        }
        let finishing = generator.store.stage()?;
        let over = self.finished(generator, stack, &finishing, terms)?;
        let trace = SharedTrace::default();
        {
            let mut state = self.lock();
            if state.closed {
                return Ok(false);
            }
            state.running = Some((over.clone(), trace.clone()));
        }
        if generator.guard.damage(stack, &self.cancel)?.is_some() {
            return Ok(false);
        }
        let (kernel, initrd) = (spare()?, spare()?);
        let files = BootFiles { kernel, initrd };
        generator.generate(&over, &files, &Quiet, &self.cancel, &trace)?;
        Ok(true)
    }

    /// The stack with the changes of the last step.
    fn finished(
        &self,
        generator: &Generator<'_>,
        stack: &Stack,
        staging: &Staging,
        terms: Terms,
    ) -> Result<Over, Failure> {
        let lower = stack.lower();
        let sandbox = generator.step_sandbox();
        let place = Place::over(
            &sandbox,
            lower.clone(),
            staging,
            terms.epoch,
            &Quiet,
            &self.cancel,
        );
        let family = generator.family;
        family.finish(&place, &self.finish, stack.of_packages())?;
        let root = Hasher::new("initramfs-ahead.v1")
            .id("stack", stack.id)
            .json("finish", &self.finish)
            .finish();
        let lower: Vec<PathBuf> = std::iter::once(staging.fs()).chain(lower).collect();
        Ok(Over { lower, root, terms })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether everything that was looked at so far is the same in both roots, or what is not.
fn alike(
    generator: &Generator<'_>,
    over: &Over,
    trace: &SharedTrace,
    root: &Stack,
    cancel: &CancelToken,
) -> Result<(), Option<Query>> {
    // What a thread left that panicked while it took notes may be incomplete.
    let trace = trace.lock().map_err(|_| None)?.clone();
    let asked = queries(trace);
    let answers = |lower: Vec<PathBuf>, known: &Stamps| {
        let place = Place {
            sandbox: generator.sandbox,
            root: Root::Layers { lower },
            epoch: over.terms.epoch,
            reporter: &Quiet,
            cancel,
            tracer: None,
        };
        states(&place, &asked, known).map_err(|_| None)
    };
    if over.terms.epoch != root.epoch {
        return Err(None);
    }
    let before = answers(over.lower.clone(), &Stamps::new())?;
    let now = answers(root.lower(), &before.stamps)?;
    // Both are in the order of the queries.
    let mut pairs = before.observations.into_iter().zip(now.observations);
    let other = pairs
        .find(|(before, now)| before != now)
        .map(|(before, _)| before);
    other.map_or(Ok(()), |observation| Err(Some(observation.query)))
}

/// A file without a name.
fn spare() -> Result<File, Failure> {
    let memory = rustix::fs::memfd_create("kiln-initramfs", rustix::fs::MemfdFlags::CLOEXEC);
    let file = memory.map(File::from);
    file.map_err(|e| write_failure(std::path::Path::new("initrd"), &e.into()))
}

/// Says that nothing runs any more, however it ended.
struct Ending<'a>(&'a Ahead);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.lock().running = None;
        self.0.changed.notify_all();
    }
}

/// Ends the thread when the build ends, however it does.
pub(crate) struct Closing<'a>(pub(crate) &'a Ahead);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
