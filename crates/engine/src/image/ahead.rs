//! Looks after layers as soon as they are finished, while the next ones are made.
//!
//! An image needs the content of every file, and a layer that is damaged later can only be told from a sound one if somebody
//! looked before. So a build that fails waits for that, too. A layer that is not recorded here, because the build was cancelled or
//! killed, is recorded by the first image.
//!
//! What is recorded is then compressed, as far as the image's blocks can be told from one layer alone. Maintainer scripts are one
//! process after the other and leave a processor idle; the image then finds most of its blocks made. It does not
//! wait: what is not compressed when it begins, it compresses itself.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_plan::Compression;
use kiln_rootfs::{Layer, Place, Quiet, Store};
use kiln_sandbox::{CancelToken, Root, Sandbox};

use crate::image::inside::is_closed;
use crate::image::squash;
use crate::trust::known;
use crate::{Failure, FailureKind};

/// A thread that looks after layers one after the other. Dropping it waits as [`Recorder::finish`] does.
pub(crate) struct Recorder {
    work: Mutex<Option<Work>>,
    prepared: Arc<AtomicU64>,
}

/// What ends with the last layer.
struct Work {
    /// Whether a layer's blocks are compressed, beside it.
    layers: Sender<(Layer, bool)>,
    thread: JoinHandle<()>,
    /// Closed when the image begins.
    stop: OwnedFd,
}

impl Recorder {
    /// For images that are compressed in one way, and leave certain paths out.
    pub(crate) fn start(
        sandbox: &Arc<Sandbox>,
        store: &Store,
        cancel: &CancelToken,
        compression: Compression,
        excluded: &'static [&'static str],
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(FailureKind::Environment, "making a descriptor").cause(error.to_string())
        };
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (stopped, stop) = rustix::pipe::pipe_with(flags).map_err(|e| failed(e.into()))?;
        let (sender, layers) = channel();
        let prepared = Arc::default();
        let worker = Worker {
            sandbox: Arc::clone(sandbox),
            store: store.clone(),
            cancel: cancel.clone(),
            compression,
            excluded,
            stopped,
            prepared: Arc::clone(&prepared),
        };
        let thread = std::thread::spawn(move || worker.work(&layers));
        Ok(Recorder {
            work: Mutex::new(Some(Work {
                layers: sender,
                thread,
                stop,
            })),
            prepared,
        })
    }

    /// Has a finished layer recorded, and its blocks compressed.
    pub(crate) fn add(&self, layer: &Layer) {
        self.send(layer, true);
    }

    /// Has a layer recorded that is no part of the image.
    pub(crate) fn record(&self, layer: &Layer) {
        self.send(layer, false);
    }

    fn send(&self, layer: &Layer, compress: bool) {
        if let Some(work) = &*self.work() {
            // If the thread is gone, whoever needs the manifest makes it.
            let _ = work.layers.send((layer.clone(), compress));
        }
    }

    /// Waits until what was added is recorded, and ends the compressing. Returns the number of blocks compressed.
    pub(crate) fn finish(&self) -> u64 {
        let work = self.work().take();
        if let Some(work) = work {
            drop((work.stop, work.layers));
            let _ = work.thread.join();
        }
        self.prepared.load(Ordering::Relaxed)
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Worker {
    sandbox: Arc<Sandbox>,
    store: Store,
    cancel: CancelToken,
    compression: Compression,
    /// What the image leaves out.
    excluded: &'static [&'static str],
    /// Readable when the other end is closed.
    stopped: OwnedFd,
    prepared: Arc<AtomicU64>,
}

impl Worker {
    /// A failure is left to the image, which tries again and reports it.
    fn work(&self, layers: &Receiver<(Layer, bool)>) {
        for (layer, compress) in layers {
            let place = Place {
                sandbox: &self.sandbox,
                root: Root::Dir {
                    path: layer.fs.clone(),
                    writable: false,
                },
                epoch: 0,
                reporter: &Quiet,
                cancel: &self.cancel,
                tracer: None,
            };
            let size = self.compression.block_size;
            let Ok(manifest) = known::ensure_recorded(&place, &layer, size, 1) else {
                return;
            };
            if !compress || is_closed(&self.stopped) {
                continue;
            }
            let (compression, excluded) = (&self.compression, self.excluded);
            if let (Ok((_, blocks)), Ok(stop)) =
                (known::open_blocks(&self.store), self.stopped.try_clone())
                && let Ok(count) =
                    squash::prepare(&place, manifest, blocks, stop, compression, excluded)
            {
                self.prepared.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}
