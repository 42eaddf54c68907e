//! Looks after layers as soon as they are finished, while the next ones are made.
//!
//! An image needs the content of every file, and a layer that is damaged later can only be told from a sound one if somebody
//! looked before. A layer that is not recorded here, because the build failed or was killed, is recorded by the first image.
//!
//! What is recorded is then compressed, as far as the image's blocks can be told from one layer alone. Maintainer scripts are one
//! process after the other and leave a processor idle; the image then finds most of its blocks made. It does not
//! wait: what is not compressed when it begins, it compresses itself.
//!
//! Short files share blocks, and which do depends on the names of all. While the last packages are installed, what lies below them
//! is most of the image already, and most of its short files will share blocks with the same others: these blocks are made
//! as well. Every new layer interrupts that.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_plan::{Compression, Id};
use kiln_rootfs::{Layer, Place, Store};
use kiln_sandbox::{CancelToken, Root, Sandbox};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::initramfs::Quiet;
use crate::squash::Blocks;
use crate::{Failure, FailureKind, known, squash};

/// A thread that looks after layers one after the other. Dropping it ends it.
pub(crate) struct Recorder {
    cancel: CancelToken,
    /// Ends the compressing alone.
    hurry: CancelToken,
    work: Mutex<Option<Work>>,
    added: Mutex<HashSet<Id>>,
    prepared: Arc<AtomicU64>,
    urgent: Arc<Urgent>,
}

/// What is to be looked after.
enum Job {
    /// A layer that was finished.
    Layer(Layer),
    /// Layers, the lowest first, that are most of an image, and the directory of one in the making above them.
    Stack(Vec<Layer>, Option<PathBuf>),
}

/// What interrupts the compressing.
#[derive(Default)]
struct Urgent {
    /// Layers that wait.
    layers: AtomicUsize,
    /// Closed to interrupt work on a stack.
    stop: Mutex<Option<OwnedFd>>,
    /// Whether blocks are being compressed.
    busy: Mutex<bool>,
    rested: Condvar,
}

/// How long an interrupted process has for the block that it is at. On a machine with much else to do it may not get a processor at
/// all; then what it did since its last full pack is lost.
const GRACE: Duration = Duration::from_secs(1);

impl Urgent {
    fn stop(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_busy(&self, busy: bool) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        self.rested.notify_all();
    }

    /// Waits for the compressing to end; whether it did.
    fn rests(&self) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rested.wait_timeout_while(busy, GRACE, |busy| *busy);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What ends with the last layer.
struct Work {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
    /// Closed when the image begins.
    stop: OwnedFd,
}

impl Recorder {
    /// For images that are compressed in one way.
    pub(crate) fn start(
        sandbox: &Arc<Sandbox>,
        store: &Store,
        cancel: &CancelToken,
        compression: Compression,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(FailureKind::Environment, "making a descriptor").cause(error.to_string())
        };
        let cancel = cancel.child().map_err(failed)?;
        let hurry = cancel.child().map_err(failed)?;
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (stopped, stop) = rustix::pipe::pipe_with(flags).map_err(|e| failed(e.into()))?;
        let (sender, jobs) = channel();
        let prepared = Arc::default();
        let urgent: Arc<Urgent> = Arc::default();
        let worker = Worker {
            sandbox: Arc::clone(sandbox),
            store: store.clone(),
            cancel: cancel.clone(),
            hurry: hurry.clone(),
            compression,
            stopped,
            prepared: Arc::clone(&prepared),
            urgent: Arc::clone(&urgent),
        };
        let thread = std::thread::spawn(move || worker.work(&jobs));
        Ok(Recorder {
            cancel,
            hurry,
            work: Mutex::new(Some(Work {
                jobs: sender,
                thread,
                stop,
            })),
            added: Mutex::default(),
            prepared,
            urgent,
        })
    }

    /// Has a finished layer looked after.
    pub(crate) fn add(&self, layer: &Layer) {
        if let Ok(mut added) = self.added.lock() {
            added.insert(layer.info.id);
        }
        self.urgent.layers.fetch_add(1, Ordering::SeqCst);
        self.send(Job::Layer(layer.clone()));
        drop(self.urgent.stop().take());
    }

    /// Has the blocks made that short files of a stack share, as long as no further layer comes; with the directory of what will be
    /// the next layer, in which all packages are unpacked, also its own blocks.
    pub(crate) fn offer(&self, layers: &[Layer], new: Option<PathBuf>) {
        if layers.len() < known::MOST {
            self.send(Job::Stack(layers.to_vec(), new));
        }
    }

    fn send(&self, job: Job) {
        if let Some(work) = &*self.work() {
            // If the thread is gone, the image does it.
            let _ = work.jobs.send(job);
        }
    }

    /// Whether a layer was added.
    pub(crate) fn added(&self, id: Id) -> bool {
        self.added.lock().is_ok_and(|added| added.contains(&id))
    }

    /// Waits until what was added is recorded, and ends the compressing. Gives the number of blocks compressed.
    pub(crate) fn finish(&self) -> u64 {
        let work = self.work().take();
        if let Some(work) = work {
            drop((work.stop, work.jobs));
            drop(self.urgent.stop().take());
            if !self.urgent.rests() {
                self.hurry.cancel();
            }
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
        self.cancel.cancel();
        self.finish();
    }
}

struct Worker {
    sandbox: Arc<Sandbox>,
    store: Store,
    cancel: CancelToken,
    hurry: CancelToken,
    compression: Compression,
    /// Readable when the other end is closed.
    stopped: OwnedFd,
    prepared: Arc<AtomicU64>,
    urgent: Arc<Urgent>,
}

impl Worker {
    /// A failure is left to the image, which tries again and reports it.
    fn work(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            let done = match job {
                Job::Layer(layer) => {
                    self.urgent.layers.fetch_sub(1, Ordering::SeqCst);
                    self.layer(&layer)
                }
                Job::Stack(layers, new) => self.stack(&layers, new.as_deref()),
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn layer(&self, layer: &Layer) -> Result<(), Failure> {
        let place = self.place(Root::Dir {
            path: layer.fs.clone(),
            writable: false,
        });
        let size = self.compression.block_size;
        let manifest = known::ensure_recorded(&place, layer, size, 1)?;
        if let Ok(stop) = self.stopped.try_clone() {
            self.prepare(&place, vec![manifest], stop, &Blocks::Long);
        }
        Ok(())
    }

    fn stack(&self, layers: &[Layer], new: Option<&Path>) -> Result<(), Failure> {
        if self.is_over() {
            return Ok(());
        }
        let place = self.place(Root::Layers {
            lower: layers.iter().rev().map(|layer| layer.fs.clone()).collect(),
        });
        let size = self.compression.block_size;
        let recorded = |layer| known::ensure_recorded(&place, layer, size, 1);
        let manifests = layers.iter().rev().map(recorded);
        let mut manifests = manifests.collect::<Result<Vec<_>, _>>()?;
        if let Some(fs) = new {
            match known::glance(&place, fs, size) {
                Ok(manifest) => manifests.insert(0, manifest),
                Err(_) => return Ok(()),
            }
        }
        let Ok((stopped, stop)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
            return Ok(());
        };
        // Whoever comes after this finds something to close, whoever came before it is seen below.
        *self.urgent.stop() = Some(stop);
        if !self.is_over() {
            let blocks = Blocks::Short { new };
            self.prepare(&place, manifests, stopped, &blocks);
        }
        drop(self.urgent.stop().take());
        Ok(())
    }

    /// Whether a layer waits, or the image.
    fn is_over(&self) -> bool {
        self.urgent.layers.load(Ordering::SeqCst) > 0 || is_closed(&self.stopped)
    }

    /// Blocks that cannot be made now, the image makes.
    fn prepare(&self, place: &Place<'_>, manifests: Vec<File>, stop: OwnedFd, wanted: &Blocks<'_>) {
        let Ok((_, blocks)) = known::open_blocks(&self.store) else {
            return;
        };
        let place = Place {
            root: place.root.clone(),
            cancel: &self.hurry,
            ..*place
        };
        // Said before the last look, so that whoever closes the pipe after it finds somebody to wait for.
        self.urgent.set_busy(true);
        if !is_closed(&stop)
            && let Ok(count) =
                squash::prepare(&place, manifests, blocks, stop, (&self.compression, wanted))
        {
            self.prepared.fetch_add(count, Ordering::Relaxed);
        }
        self.urgent.set_busy(false);
    }

    fn place(&self, root: Root) -> Place<'_> {
        Place {
            sandbox: &self.sandbox,
            root,
            epoch: 0,
            reporter: &Quiet,
            cancel: &self.cancel,
        }
    }
}

/// Whether the other end of a pipe is closed.
pub(crate) fn is_closed(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    !matches!(
        rustix::event::poll(&mut fds, Some(&Timespec::default())),
        Ok(0)
    )
}
