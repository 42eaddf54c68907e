//! Asking a run to stop, from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::EventfdFlags;

/// A flag that wakes up waiting runs. Clones share it; once set it stays set.
#[derive(Clone, Debug)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    set: AtomicBool,
    wake: OwnedFd,
}

impl CancelToken {
    /// A token that is not set. Fails where no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(CancelToken {
            shared: Arc::new(Shared {
                set: AtomicBool::new(false),
                wake,
            }),
        })
    }

    /// Sets it. Every run that waits on it is ended with [`crate::Status::Cancelled`]. Safe in a signal handler.
    pub fn cancel(&self) {
        self.shared.set.store(true, Ordering::SeqCst);
        // The counter can only be full if it is readable already, so a failure loses nothing.
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.shared.set.load(Ordering::SeqCst)
    }

    /// A descriptor that is readable once the token is set; it is never to be read from.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}
