//! Packages unpacked ahead of the layers that need them.
//!
//! Configuring a layer's packages keeps one processor busy. Meanwhile another unpacks the packages of the layers to come.
//! Nothing is begun before the first layer asks: if every layer is cached, nobody does.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_sandbox::CancelToken;

use super::native::{Filter, Pool, PoolItem};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Reporter;
use crate::store::Store;

/// The pools of a build's layers, filled one after the other on a thread of their own. Dropping it ends that.
pub(super) struct Pools {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Store,
    downloads: PathBuf,
    threads: usize,
    cancel: CancelToken,
    changed: Condvar,
    /// One lock for all slots: they change rarely.
    slots: Mutex<Vec<Slot>>,
}

/// The packages of a layer that are unpacked together, and what is left out of them.
pub(super) struct Ahead {
    pub(super) layer: String,
    pub(super) items: Vec<PoolItem>,
    pub(super) filters: Vec<Filter>,
}

struct Slot {
    layer: String,
    items: Vec<PoolItem>,
    filters: Vec<Filter>,
    state: State,
}

impl Slot {
    fn new(of: Ahead) -> Self {
        Slot {
            layer: of.layer,
            items: of.items,
            filters: of.filters,
            state: State::Filling(String::new()),
        }
    }
}

enum State {
    /// The package that was unpacked last.
    Filling(String),
    Ready(Box<Result<Pool>>),
    Taken,
}

impl Pools {
    /// The layers, lowest first.
    pub(super) fn new(
        store: &Store,
        downloads: PathBuf,
        threads: usize,
        cancel: &CancelToken,
        layers: Vec<Ahead>,
    ) -> Result<Pools> {
        let cancel = cancel
            .child()
            .map_err(|e| Error::io("making a descriptor", &e))?;
        let slots = layers.into_iter().map(Slot::new).collect();
        let shared = Shared {
            store: store.clone(),
            downloads,
            threads,
            cancel,
            changed: Condvar::new(),
            slots: Mutex::new(slots),
        };
        Ok(Pools {
            shared: Arc::new(shared),
            worker: Mutex::new(None),
        })
    }

    /// Has these packages of a layer unpacked before its others, in a pool of their own: [`Pools::take`] gives them first.
    /// Without effect once a pool was asked for.
    pub(super) fn first(&self, layer: &str, keys: &HashSet<String>) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.shared.slots();
        if let Some(number) = slots.iter().position(|s| s.layer == layer)
            && worker.is_none()
        {
            let slot = &mut slots[number];
            let items = std::mem::take(&mut slot.items);
            let (first, rest) = items.into_iter().partition(|item| keys.contains(&item.key));
            slot.items = first;
            let rest = Slot::new(Ahead {
                layer: layer.to_owned(),
                items: rest,
                filters: slot.filters.clone(),
            });
            slots.insert(number + 1, rest);
        }
    }

    /// The next pool of a layer, waiting for it. `None` for a layer that has none, or no more.
    ///
    /// # Errors
    /// A package cannot be unpacked, or the build was stopped.
    pub(super) fn take(&self, layer: &str, reporter: &dyn Reporter) -> Result<Option<Pool>> {
        let left = |slot: &Slot| slot.layer == layer && !matches!(slot.state, State::Taken);
        let number = self.shared.slots().iter().position(left);
        let Some(number) = number else {
            return Ok(None);
        };
        self.start(number);
        let mut slots = self.shared.slots();
        let of_layer = slots.iter().filter(|slot| slot.layer == layer);
        let total = 2 * of_layer.map(|slot| slot.items.len() as u64).sum::<u64>();
        loop {
            match &slots[number].state {
                State::Ready(_) => break,
                State::Taken => return Ok(None),
                State::Filling(name) => {
                    let name = (!name.is_empty()).then_some(name.as_str());
                    reporter.progress(0, Some(total), name);
                }
            }
            let waited = self
                .shared
                .changed
                .wait_timeout(slots, Duration::from_millis(200));
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match std::mem::replace(&mut slots[number].state, State::Taken) {
            State::Ready(pool) => Ok(Some((*pool)?)),
            _ => Ok(None),
        }
    }

    /// Begins with a layer, if nothing was begun yet; the layers below it were cached.
    fn start(&self, first: usize) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() {
            let shared = Arc::clone(&self.shared);
            *worker = Some(std::thread::spawn(move || {
                let end = End(&shared);
                shared.fill(first);
                drop(end);
            }));
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }
}

/// However the worker ends, nobody waits for it any longer.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        for slot in self.0.slots().iter_mut() {
            if let State::Filling(..) = slot.state {
                let error = Error::new(ErrorKind::Internal, "unpacking ahead ended early");
                slot.state = State::Ready(Box::new(Err(error)));
            }
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, first: usize) {
        for number in first.. {
            let Some((items, filters)) = self.what(number) else {
                return;
            };
            let pool = Pool::fill(
                &self.store,
                &self.downloads,
                items,
                filters,
                self.threads,
                number > first,
                &self.cancel,
                &mut |name| {
                    self.set(number, State::Filling(name.to_owned()));
                },
            );
            let failed = pool.is_err();
            self.set(number, State::Ready(Box::new(pool)));
            self.changed.notify_all();
            if failed {
                // Layers above a failed one are not made.
                return;
            }
        }
    }

    fn what(&self, number: usize) -> Option<(Vec<PoolItem>, Vec<Filter>)> {
        let slots = self.slots();
        let slot = slots.get(number)?;
        Some((slot.items.clone(), slot.filters.clone()))
    }

    fn set(&self, number: usize, state: State) {
        if let Some(slot) = self.slots().get_mut(number) {
            slot.state = state;
        }
    }
}
