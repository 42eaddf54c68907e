//! A switch that stops long work from another thread.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result};

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    hooks: Vec<Hook>,
}

/// A switch that can be turned once. Clones share it.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<(Mutex<State>, Condvar)>);

impl CancelToken {
    /// Makes a token that is not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops all work under this token: transfers end at once, waits are cut short.
    pub fn cancel(&self) {
        let hooks = {
            let mut state = self.state();
            state.cancelled = true;
            std::mem::take(&mut state.hooks)
        };
        self.0.1.notify_all();
        hooks.into_iter().for_each(|hook| hook());
    }

    /// Returns whether the switch was turned.
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// # Errors
    /// [`ErrorKind::Cancelled`] once it was turned.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "the transfer was stopped")),
            false => Ok(()),
        }
    }

    /// Waits.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] as soon as the token is turned.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut state = self.state();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if state.cancelled || left.is_zero() {
                break;
            }
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.check()
    }

    /// Runs `hook` when the token is turned; at once if it already is.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.cancelled {
            drop(state);
            hook();
        } else {
            state.hooks.push(Box::new(hook));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another holder cannot leave the flag half-set, so poisoning is of no concern.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken")
            .field(&self.is_cancelled())
            .finish()
    }
}
