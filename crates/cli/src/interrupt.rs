//! SIGINT and SIGTERM: the first asks for a clean end, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_engine::{Failure, FailureKind};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

type Hook = Box<dyn FnOnce() + Send>;

/// What the signals left behind, and who is to be told.
///
/// Nothing is handled before the first [`Interrupt::on_signal`]: a command that cannot end cleanly in the middle of its
/// work had better end at once.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    cancelled: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    hooks: Arc<Mutex<Hooks>>,
}

#[derive(Default)]
struct Hooks {
    installed: bool,
    waiting: Vec<Hook>,
}

impl Interrupt {
    /// Runs `hook` at the first signal, on a thread of its own; at once if there was one already.
    ///
    /// # Errors
    /// The kernel refuses a handler or a thread.
    pub(crate) fn on_signal(&self, hook: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let mut hooks = self.hooks();
        hooks.waiting.push(Box::new(hook));
        if !hooks.installed {
            self.install().map_err(|error| {
                let failure = Failure::new(FailureKind::Environment, "signals cannot be handled");
                failure.cause(error.to_string())
            })?;
            hooks.installed = true;
        }
        drop(hooks);
        if self.cancelled.load(Ordering::SeqCst) {
            self.tell();
        }
        Ok(())
    }

    fn install(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it, the second finds it set. Ending the
            // process ends all sandboxes with it, for they live in process id namespaces tied to it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&self.cancelled))?;
            flag::register_usize(
                signal,
                Arc::clone(&self.signal),
                signal.unsigned_abs() as usize,
            )?;
            flag::register(signal, Arc::clone(&self.cancelled))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let teller = self.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for _ in signals.forever() {
                    teller.tell();
                }
            })?;
        Ok(())
    }

    /// 130 after SIGINT, 143 after SIGTERM, as shells report a death by signal; `None` if there was none.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }

    fn tell(&self) {
        let hooks = std::mem::take(&mut self.hooks().waiting);
        hooks.into_iter().for_each(|hook| hook());
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
