//! Packages unpacked ahead of the layers that need them.
//!
//! Configuring a layer's packages keeps one processor busy. Meanwhile another unpacks the packages of the layers to come.
//! Nothing is begun before the first layer asks: if every layer is cached, nobody does.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_rootfs::debian::{Filter, Pool, PoolItem};
use kiln_rootfs::{Error, ErrorKind, Reporter, Store};
use kiln_sandbox::CancelToken;

use crate::{Failure, FailureKind};

/// The pools of a build's layers, filled one after the other on a thread of their own. Dropping it ends that.
pub(crate) struct Pools {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Store,
    downloads: PathBuf,
    threads: usize,
    cancel: CancelToken,
    slots: Vec<Slot>,
    changed: Condvar,
    /// One lock for all slots: they change rarely.
    states: Mutex<Vec<State>>,
}

struct Slot {
    layer: String,
    items: Vec<PoolItem>,
    filters: Vec<Filter>,
}

enum State {
    /// The package that was unpacked last.
    Filling(String),
    Ready(Box<Result<Pool, Error>>),
    Taken,
}

impl Pools {
    /// Layers by name, lowest first, each with its packages and path filters.
    pub(crate) fn new(
        store: &Store,
        downloads: PathBuf,
        threads: usize,
        cancel: &CancelToken,
        layers: Vec<(String, Vec<PoolItem>, Vec<Filter>)>,
    ) -> Result<Pools, Failure> {
        let cancel = cancel.child().map_err(|e| {
            Failure::new(FailureKind::Environment, "making a descriptor").cause(e.to_string())
        })?;
        let slots: Vec<Slot> = layers
            .into_iter()
            .map(|(layer, items, filters)| Slot {
                layer,
                items,
                filters,
            })
            .collect();
        let states = slots.iter().map(|_| State::Filling(String::new()));
        let states = Mutex::new(states.collect());
        let shared = Shared {
            store: store.clone(),
            downloads,
            threads,
            cancel,
            slots,
            changed: Condvar::new(),
            states,
        };
        Ok(Pools {
            shared: Arc::new(shared),
            worker: Mutex::new(None),
        })
    }

    /// The pool of a layer, waiting for it. `None` for a layer without one.
    ///
    /// # Errors
    /// A package cannot be unpacked, or the build was stopped.
    pub(crate) fn take(
        &self,
        layer: &str,
        reporter: &dyn Reporter,
    ) -> Result<Option<Pool>, Failure> {
        let Some(number) = self.shared.slots.iter().position(|s| s.layer == layer) else {
            return Ok(None);
        };
        self.start(number);
        let total = 2 * self.shared.slots[number].items.len() as u64;
        let mut states = self.shared.states();
        loop {
            match &states[number] {
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
                .wait_timeout(states, Duration::from_millis(200));
            states = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match std::mem::replace(&mut states[number], State::Taken) {
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
        for state in self.0.states().iter_mut() {
            if let State::Filling(..) = state {
                let error = Error::new(ErrorKind::Internal, "unpacking ahead ended early");
                *state = State::Ready(Box::new(Err(error)));
            }
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, first: usize) {
        for (number, slot) in self.slots.iter().enumerate().skip(first) {
            let pool = Pool::fill(
                &self.store,
                &self.downloads,
                slot.items.clone(),
                slot.filters.clone(),
                self.threads,
                number > first,
                &self.cancel,
                &mut |name| {
                    self.states()[number] = State::Filling(name.to_owned());
                },
            );
            let failed = pool.is_err();
            self.states()[number] = State::Ready(Box::new(pool));
            self.changed.notify_all();
            if failed {
                // Layers above a failed one are not made.
                return;
            }
        }
    }
}
