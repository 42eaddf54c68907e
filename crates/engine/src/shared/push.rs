//! From the store into the shared cache, on a thread of its own beside the build.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_plan::Id;
use kiln_rootfs::{Layer, Place, Quiet, Reporter, Store, archive};
use kiln_sandbox::{CancelToken, Root};
use kiln_share::{Chunk, Record, Share};
use serde_json::{Value, json};

use super::blocks::Packs;
use super::images::{Image, ImageFacts, Located};
use super::pull::pipe;
use super::{ARCHIVE, LAYERS, Shared, is_attachment};
use crate::steps::{Steps, locked};
use crate::{Failure, Unit};

/// A layer that is there is looked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);

/// Something to be sent.
pub(super) enum Job {
    /// A layer, unless it is there; if it is to be replaced, also then.
    Layer { layer: Layer, replace: bool },
    /// Adds what was put beside a layer since it was sent.
    Amend(Layer),
    /// A record without files.
    Name { kind: String, id: String },
    /// What an image's blocks lie in.
    Packs(Packs),
    /// An image, whose packs were sent before.
    Image(Box<Image>),
}

/// The thread that sends.
pub(super) struct Pusher {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Counts>,
}

/// What the thread says of itself.
#[derive(Default)]
struct Counts {
    /// Bytes handed to the shared cache.
    bytes: AtomicU64,
    /// Results that it did not have.
    results: AtomicU64,
    troubles: Mutex<Vec<kiln_share::Error>>,
}

impl Shared {
    /// Sends a layer, if results are to go there. Returns at once.
    pub(crate) fn push(&self, layer: &Layer) {
        if !self.has_pulled(layer.info.id) {
            let replace = locked(&self.spoiled).contains(&layer.info.id);
            let layer = layer.clone();
            self.send(Job::Layer { layer, replace });
        }
    }

    /// Sends what was put beside the layers since they were sent.
    pub(crate) fn amend(&self, layers: &[Layer]) {
        for layer in layers.iter().filter(|l| !self.has_pulled(l.info.id)) {
            self.send(Job::Amend(layer.clone()));
        }
    }

    /// Notes that a layer is a result to try for a key.
    pub(crate) fn name(&self, kind: String, id: Id) {
        let id = id.to_string();
        self.send(Job::Name { kind, id });
    }

    /// Sends the packs that an image's blocks lie in; `new` of its `all` blocks were compressed for it.
    pub(crate) fn push_blocks(
        &self,
        directory: PathBuf,
        names: Vec<String>,
        encoder: &Value,
        layers: &[Id],
        (new, all): (u64, u64),
    ) {
        self.send(Job::Packs(Packs::new(
            directory,
            names,
            encoder,
            layers,
            new * 10 > all,
        )));
    }

    /// Whether results of this build go there.
    pub(crate) fn is_writable(&self) -> bool {
        self.pusher.is_some()
    }

    /// Sends an image, after its packs. `locate` says where its blocks are.
    pub(crate) fn push_image(
        &self,
        id: Id,
        disk: File,
        facts: ImageFacts,
        locate: Box<dyn FnOnce() -> Option<Located> + Send>,
    ) {
        let replace = locked(&self.spoiled).contains(&id);
        self.send(Job::Image(Box::new(Image {
            id,
            disk,
            facts,
            locate,
            replace,
        })));
    }

    fn send(&self, job: Job) {
        if let Some(pusher) = &self.pusher
            && let Some(jobs) = &*locked(&pusher.jobs)
        {
            // The thread ends only when the build does.
            let _ = jobs.send(job);
        }
    }
}

impl Pusher {
    pub(super) fn start(share: Arc<Share>, store: Store, cancel: CancelToken) -> Pusher {
        let (jobs, waiting) = channel();
        let counts = Arc::new(Counts::default());
        let worker = Worker {
            share,
            store,
            cancel,
            counts: Arc::clone(&counts),
            sent: HashMap::new(),
            packs: BTreeMap::new(),
        };
        let thread = std::thread::spawn(move || worker.run(&waiting));
        Pusher {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            shared: counts,
        }
    }

    /// Waits until everything is sent, with a line that says so if it takes a while.
    pub(super) fn finish(&self, url: &str, steps: &Steps<'_>) {
        drop(locked(&self.jobs).take());
        let Some(thread) = locked(&self.thread).take() else {
            return;
        };
        if !thread.is_finished() || self.shared.results.load(Ordering::Relaxed) > 0 {
            let title = format!("sharing results with {url}");
            // It cannot fail: troubles are warnings.
            let _ = steps.step(&title, None, Unit::Bytes, |step| {
                while !thread.is_finished() {
                    step.progress(self.shared.bytes.load(Ordering::Relaxed), None, None);
                    std::thread::sleep(Duration::from_millis(50));
                }
                let results = self.shared.results.load(Ordering::Relaxed);
                let bytes = self.shared.bytes.load(Ordering::Relaxed);
                step.summarise(format!("{results} new, {} MB", bytes / 1_000_000));
                Ok(())
            });
        }
        let _ = thread.join();
        // The others mostly follow from the first.
        let troubles = std::mem::take(&mut *locked(&self.shared.troubles));
        if let Some(error) = troubles.first() {
            let more = match troubles.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let hint = "the build is complete; a later one sends what is missing".to_owned();
            let message = format!("shared cache: sending failed: {error}{more}");
            steps.warn(message, None, Some(hint));
        }
    }
}

struct Worker {
    share: Arc<Share>,
    store: Store,
    cancel: CancelToken,
    counts: Arc<Counts>,
    /// Records that this build made.
    sent: HashMap<Id, Record>,
    /// The chunks of packs that are there.
    packs: BTreeMap<String, Vec<Chunk>>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.cancel.is_cancelled() || self.share.is_given_up() {
                continue;
            }
            let done = match job {
                Job::Layer { layer, replace } => self.layer(&layer, replace),
                Job::Amend(layer) => self.amend(&layer),
                Job::Name { kind, id } => self.name(&kind, &id),
                Job::Packs(packs) => packs
                    .send(&self.share, &mut |bytes| self.moved(bytes))
                    .map(|there| self.packs = there),
                Job::Image(image) => image
                    .send(&self.share, &self.packs, &mut |bytes| self.moved(bytes))
                    .map(|new| {
                        let new = u64::from(new);
                        self.counts.results.fetch_add(new, Ordering::Relaxed);
                    }),
            };
            if let Err(error) = done
                && error.kind() != kiln_share::ErrorKind::Stopped
            {
                locked(&self.counts.troubles).push(error);
            }
        }
    }

    fn layer(&mut self, layer: &Layer, replace: bool) -> kiln_share::Result<()> {
        let (id, marker) = (layer.info.id, self.marker(layer));
        if !replace && marker.as_ref().is_some_and(|marker| is_recent(marker)) {
            return Ok(());
        }
        let name = id.to_string();
        // A record that cannot be used is as good as none.
        if replace || !matches!(self.share.find(LAYERS, &name), Ok(Some(_))) {
            let mut record = Record {
                facts: json!({ "title": layer.info.title, "facts": layer.info.facts }),
                ..Record::default()
            };
            let archive = self.archive(layer)?;
            record.files.insert(ARCHIVE.to_owned(), archive);
            self.attach(layer, &mut record)?;
            self.share.publish(LAYERS, &name, &record)?;
            self.counts.results.fetch_add(1, Ordering::Relaxed);
            self.sent.insert(id, record);
        }
        if let Some(marker) = marker {
            // Without it the next build asks again.
            let _ = File::create(marker);
        }
        Ok(())
    }

    fn name(&self, kind: &str, id: &str) -> kiln_share::Result<()> {
        match self.share.has(kind, id)? {
            true => Ok(()),
            false => self.share.publish(kind, id, &Record::default()),
        }
    }

    fn amend(&mut self, layer: &Layer) -> kiln_share::Result<()> {
        let Some(mut record) = self.sent.remove(&layer.info.id) else {
            return Ok(());
        };
        if self.attach(layer, &mut record)? {
            let name = layer.info.id.to_string();
            self.share.publish(LAYERS, &name, &record)?;
        }
        Ok(())
    }

    /// Sends what lies beside a layer and is not in the record yet; whether there was any.
    fn attach(&self, layer: &Layer, record: &mut Record) -> kiln_share::Result<bool> {
        let mut news = false;
        let directory = layer.fs.parent().and_then(|dir| fs::read_dir(dir).ok());
        for entry in directory.into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !is_attachment(&name) || record.files.contains_key(&name) {
                continue;
            }
            // It may have gone; then it is only made again elsewhere.
            let Ok(mut file) = File::open(entry.path()) else {
                continue;
            };
            let chunks = self
                .share
                .store(&mut file, &mut |bytes| self.moved(bytes))?;
            record.files.insert(name, chunks);
            news = true;
        }
        Ok(news)
    }

    fn archive(&self, layer: &Layer) -> kiln_share::Result<Vec<Chunk>> {
        let place = Place {
            sandbox: self.store.sandbox(),
            root: Root::Dir {
                path: layer.fs.clone(),
                writable: false,
            },
            epoch: 0,
            reporter: &Quiet as &dyn Reporter,
            cancel: &self.cancel,
            tracer: None,
        };
        let (from, to) = pipe().map_err(|failure| local(&failure))?;
        std::thread::scope(|scope| {
            let stored = scope.spawn(|| {
                let mut from = File::from(from);
                self.share.store(&mut from, &mut |bytes| self.moved(bytes))
            });
            let packed = archive::pack_layer(&place, to.into(), 1);
            let stored = stored.join().unwrap_or_else(|_| {
                Err(kiln_share::Error::local_failure("sending", "it panicked"))
            })?;
            // An archive that ended early must not be taken for one.
            packed.map_err(|error| local(&Failure::from(error)))?;
            Ok(stored)
        })
    }

    fn moved(&self, bytes: u64) -> bool {
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        !self.cancel.is_cancelled()
    }

    /// Beside a layer, for each shared cache that has it.
    fn marker(&self, layer: &Layer) -> Option<PathBuf> {
        let url = kiln_plan::Hasher::new("shared.v1")
            .text("url", self.share.url())
            .finish();
        Some(layer.fs.parent()?.join(format!("shared-{}", url.short())))
    }
}

/// Whether the shared cache had the layer lately: what is deleted there comes back.
fn is_recent(marker: &Path) -> bool {
    let made = fs::metadata(marker).and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < ASK_AGAIN))
}

fn local(failure: &Failure) -> kiln_share::Error {
    let causes = failure.causes.join(": ");
    kiln_share::Error::local_failure(&failure.message, &causes)
}
