//! Functions of this program that run inside.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::Error;
use crate::wire::{self, FromCall};

/// A function that [`crate::Body::Call`] can name. It runs alone in its process, as root of the namespace, with the
/// request's root as `/`; it may start threads, and programs of the root, which are [`crate::confine`]d.
pub type Function = fn(Call) -> Result<Value, Error>;

/// What a function gets.
#[derive(Debug)]
pub struct Call {
    /// The request's argument.
    pub payload: Value,
    /// The descriptors that the caller handed over, in order.
    pub fds: Vec<OwnedFd>,
    /// The way to report progress.
    pub emitter: Emitter,
}

impl Call {
    /// Sends a progress message to [`crate::Io::message`].
    pub fn emit(&self, message: Value) {
        self.emitter.emit(message);
    }
}

/// Sends progress messages to the caller. Clones share the connection; threads may use it at once.
#[derive(Clone, Debug)]
pub struct Emitter {
    socket: Arc<Mutex<OwnedFd>>,
}

impl Emitter {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Emitter {
            socket: Arc::new(Mutex::new(socket)),
        }
    }

    /// Sends one message, waiting while the caller is behind. A caller that is gone hears nothing.
    pub fn emit(&self, message: Value) {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = wire::send(socket.as_fd(), &FromCall::Message(message), &[]);
    }
}
