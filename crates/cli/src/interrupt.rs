//! SIGINT and SIGTERM: the first asks for a clean end, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

type Hook = Box<dyn FnOnce() + Send>;

/// What the signals left behind, and who is to be told.
#[derive(Clone)]
pub(crate) struct Interrupt {
    cancelled: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl Interrupt {
    /// Handles both signals from now on.
    ///
    /// # Errors
    /// Where the kernel refuses a handler.
    pub(crate) fn install() -> io::Result<Self> {
        let interrupt = Interrupt {
            cancelled: Arc::default(),
            signal: Arc::default(),
            hooks: Arc::default(),
        };
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it, the second finds it set. Ending the
            // process ends all sandboxes with it, for they live in process id namespaces tied to it.
            flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&interrupt.cancelled),
            )?;
            flag::register_usize(
                signal,
                Arc::clone(&interrupt.signal),
                signal.unsigned_abs() as usize,
            )?;
            flag::register(signal, Arc::clone(&interrupt.cancelled))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let teller = interrupt.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for _ in signals.forever() {
                    teller.tell();
                }
            })?;
        Ok(interrupt)
    }

    /// Runs `hook` at the first signal, on a thread of its own; at once if there was one already.
    pub(crate) fn on_signal(&self, hook: impl FnOnce() + Send + 'static) {
        self.hooks().push(Box::new(hook));
        if self.cancelled.load(Ordering::SeqCst) {
            self.tell();
        }
    }

    /// 130 after SIGINT, 143 after SIGTERM, as shells report a death by signal; `None` if there was none.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }

    fn tell(&self) {
        let hooks = std::mem::take(&mut *self.hooks());
        hooks.into_iter().for_each(|hook| hook());
    }

    fn hooks(&self) -> MutexGuard<'_, Vec<Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
