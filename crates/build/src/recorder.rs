//! Records what layers hold as soon as they are finished, while the next ones are made.
//!
//! An image needs the content of every file, and a layer that is damaged later can only be told from a sound one if somebody
//! looked before. A layer that is not recorded here, because the build failed or was killed, is recorded by the first image.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_plan::Id;
use kiln_rootfs::{Layer, Place};
use kiln_sandbox::{CancelToken, Root, Sandbox};

use crate::initramfs::Quiet;
use crate::{Failure, FailureKind, known};

/// A thread that records layers one after the other. Dropping it ends it.
pub(crate) struct Recorder {
    cancel: CancelToken,
    work: Mutex<Option<(Sender<Layer>, JoinHandle<()>)>>,
    added: Mutex<HashSet<Id>>,
}

impl Recorder {
    /// For images of a block size in bytes.
    pub(crate) fn start(
        sandbox: &Arc<Sandbox>,
        cancel: &CancelToken,
        block_size: u32,
    ) -> Result<Self, Failure> {
        let cancel = cancel.child().map_err(|error| {
            Failure::new(FailureKind::Environment, "making a descriptor").cause(error.to_string())
        })?;
        let (sender, layers) = channel();
        let (sandbox, inside) = (Arc::clone(sandbox), cancel.clone());
        let worker = std::thread::spawn(move || record(&layers, &sandbox, &inside, block_size));
        Ok(Recorder {
            cancel,
            work: Mutex::new(Some((sender, worker))),
            added: Mutex::default(),
        })
    }

    /// Has a finished layer recorded.
    pub(crate) fn add(&self, layer: &Layer) {
        if let Ok(mut added) = self.added.lock() {
            added.insert(layer.info.id);
        }
        if let Some((sender, _)) = &*self.work() {
            // If the thread is gone, the image records the layer.
            let _ = sender.send(layer.clone());
        }
    }

    /// Whether a layer was added.
    pub(crate) fn added(&self, id: Id) -> bool {
        self.added.lock().is_ok_and(|added| added.contains(&id))
    }

    /// Waits for what was added.
    pub(crate) fn finish(&self) {
        let work = self.work().take();
        if let Some((sender, worker)) = work {
            drop(sender);
            let _ = worker.join();
        }
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Option<(Sender<Layer>, JoinHandle<()>)>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.finish();
    }
}

/// A failure is left to the image, which tries again and reports it.
fn record(layers: &Receiver<Layer>, sandbox: &Sandbox, cancel: &CancelToken, block_size: u32) {
    for layer in layers {
        let place = Place {
            sandbox,
            root: Root::Dir {
                path: layer.fs.clone(),
                writable: false,
            },
            epoch: 0,
            reporter: &Quiet,
            cancel,
        };
        if known::ensure_recorded(&place, &layer, block_size, 1).is_err() {
            return;
        }
    }
}
