//! Who writes an upload: the latest request, and never two at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::error::{ApiError, Result};
use super::incoming::Incoming;

/// The uploads that requests are working on, by whichever of the server's routers they came.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Turn>>>);

/// Whose turn it is to write.
#[derive(Debug, Default)]
struct Turn {
    writing: Arc<tokio::sync::Mutex<()>>,
    latest: AtomicU64,
    over: Notify,
}

/// A request's part in an upload; its entry goes with the last.
pub(super) struct Part {
    turns: Arc<Turns>,
    id: String,
    turn: Arc<Turn>,
    number: u64,
}

impl Part {
    /// Waits until no other request writes; none does while the result is there.
    pub(super) async fn writing(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn.writing).lock_owned().await
    }

    /// Whether a later request has taken over.
    pub(super) fn is_over(&self) -> bool {
        self.turn.latest.load(Ordering::Acquire) != self.number
    }

    /// Waits for a client's bytes, unless another request takes over.
    pub(super) async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        let over = self.turn.over.notified();
        if self.is_over() {
            return Err(taken_over());
        }
        tokio::select! {
            () = over => Err(taken_over()),
            bytes = body.next() => bytes,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut all = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One is in the map, one is here.
        if Arc::strong_count(&self.turn) <= 2 {
            all.remove(&self.id);
        }
    }
}

pub(super) fn taken_over() -> ApiError {
    ApiError::conflict("another request has gone on with this upload")
}

impl Turns {
    /// Makes a request the latest of an upload; earlier ones end.
    pub(super) fn take(self: &Arc<Self>, id: &str) -> Part {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(all.entry(id.to_owned()).or_default());
        let number = turn.latest.fetch_add(1, Ordering::AcqRel) + 1;
        turn.over.notify_waiters();
        Part {
            turns: Arc::clone(self),
            id: id.to_owned(),
            turn,
            number,
        }
    }
}
