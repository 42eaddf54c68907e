//! Asking a run to stop, from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, epoll};

/// A flag that wakes up waiting runs. Clones share it; once set it stays set.
#[derive(Clone, Debug)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    set: AtomicBool,
    wake: OwnedFd,
    parent: Option<Parent>,
}

/// What sets a token with it.
#[derive(Debug)]
struct Parent {
    token: CancelToken,
    /// An epoll set of both tokens' descriptors: readable when either is.
    either: OwnedFd,
}

impl CancelToken {
    /// A token that is not set. Fails where no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(CancelToken {
            shared: Arc::new(Shared {
                set: AtomicBool::new(false),
                wake: wake()?,
                parent: None,
            }),
        })
    }

    /// A token that is set with this one, but can be set alone: for work that ends when its sibling fails.
    pub fn child(&self) -> io::Result<Self> {
        let wake = wake()?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, fd) in [wake.as_fd(), self.fd()].into_iter().enumerate() {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&either, fd, data, epoll::EventFlags::IN)?;
        }
        let parent = Parent {
            token: self.clone(),
            either,
        };
        Ok(CancelToken {
            shared: Arc::new(Shared {
                set: AtomicBool::new(false),
                wake,
                parent: Some(parent),
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
        let parent = self.shared.parent.as_ref();
        self.shared.set.load(Ordering::SeqCst) || parent.is_some_and(|p| p.token.is_cancelled())
    }

    /// A descriptor that is readable once the token is set; it is never to be read from.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.shared.parent {
            Some(parent) => parent.either.as_fd(),
            None => self.shared.wake.as_fd(),
        }
    }
}

fn wake() -> io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(token: &CancelToken) -> bool {
        let fd = token.fd();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n == 1)
    }

    #[test]
    fn a_child_is_set_with_its_parent_but_not_the_other_way_round() {
        let parent = CancelToken::new().expect("a token");
        let (one, two) = (
            parent.child().expect("a child"),
            parent.child().expect("a child"),
        );
        assert!(!readable(&one) && !one.is_cancelled());
        one.cancel();
        assert!(readable(&one) && one.is_cancelled());
        assert!(!readable(&two) && !two.is_cancelled());
        assert!(!readable(&parent) && !parent.is_cancelled());
        parent.cancel();
        assert!(readable(&two) && two.is_cancelled());
    }
}
