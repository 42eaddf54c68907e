//! The initramfs as a step of its own, keyed by what its generator really read.
//!
//! What will be read is known only afterwards, so the key has two parts. The first is what is known before: this code, the
//! clock and the level. Under it stand the results that were made so far, each with every path its generator looked at and the
//! state of that path ([`kiln_rootfs::trace`]); the first whose states are all as they were is the result again.
//!
//! ```text
//! <cache>/initramfs/<first part>/<layer id>   a result to try; its time is that of the last use, and what is in it spares this
//!                                             machine reading the same files again ([`Stamps`])
//! <cache>/layers/<layer id>/                  the result: an ordinary layer
//!   fs/var/tmp/kiln-initrd.img, kiln-vmlinuz
//!   looks.json                                paths, what was asked of them, and their states
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use kiln_plan::{Codec, Compression, Hasher, Id};
use kiln_rootfs::initramfs::export;
use kiln_rootfs::trace::{Answers, Observation, Query, SharedTrace, Stamps, queries, states};
use kiln_rootfs::{Family, Layer, Place, Quiet, Reporter, Store};
use kiln_sandbox::{CancelToken, Limits, Root, Sandbox};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::io::{descriptor, write_failure, write_whole};
use crate::means::Session;
use crate::shared::Shared;
use crate::steps::Steps;
use crate::trust::guard::Guard;
use crate::values::{BootFiles, Stack, TRACE};

/// The form of stored results. Another one makes all of them anew.
const RESULTS: &str = "initramfs.v2";
/// Results that are kept for one key; each is about as large as a kernel and its initramfs.
const KEPT: usize = 8;
/// Results of other machines that are tried for a root.
const TRIED: usize = 2;
/// Levels up to this one say that somebody is waiting.
const QUICK: u32 = 3;

/// A stored result: the file that names it, its layer, and what it says.
type Candidate = (PathBuf, Layer, Facts);

/// Whether a stored result is right for a root.
enum Tried {
    /// With what was learnt of the files that its generator read.
    Fits(Box<Candidate>, Option<Stamps>),
    /// No; what is not as it was for the last of them.
    None(Option<Query>),
}

/// Whether the boot files were filled from a stored result.
pub(crate) enum Reused {
    /// The kernel's version, and the result's layer.
    Yes(String, Id),
    /// No; what has changed since the last one.
    No(Option<Query>),
}

/// What a result depends on besides the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Terms {
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: i64,
    /// The compressor's level where the root's configuration names none; `None` for the generator's own.
    level: Option<u32>,
    /// The generator's family and version of Kiln's code for it.
    #[serde(skip)]
    code: &'static str,
}

impl Terms {
    /// An image that is compressed in a hurry has an initramfs that is.
    pub(crate) fn new(family: &dyn Family, compression: &Compression, epoch: i64) -> Self {
        let quick = compression.level.filter(|level| *level <= QUICK);
        Terms {
            epoch,
            level: quick.filter(|_| compression.codec == Codec::Zstd),
            code: family.generator_code(),
        }
    }

    /// Where results for these terms are named, below the cache.
    fn key(self) -> String {
        let hasher = Hasher::new(RESULTS).text("code", self.code);
        hasher.json("terms", &self).finish().to_string()
    }
}

/// A root that the generator runs over.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    /// Overlay directories, the top one first.
    pub(crate) lower: Vec<PathBuf>,
    /// What identifies it.
    pub(crate) root: Id,
    pub(crate) terms: Terms,
}

impl Over {
    pub(crate) fn of(root: &Stack, terms: Terms) -> Self {
        Over {
            lower: root.lower(),
            root: root.id,
            terms,
        }
    }

    /// The layer of the result.
    fn result_id(&self) -> Id {
        Hasher::new(RESULTS)
            .text("code", self.terms.code)
            .id("root", self.root)
            .json("terms", &self.terms)
            .finish()
    }
}

/// Where the shared cache lists results for a key.
fn shared_kind(terms: Terms) -> String {
    format!("initramfs-{}", terms.key())
}

/// What a result says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    version: String,
    /// The root for which it was made or last found right.
    root: Id,
    /// BLAKE3 of both files, hexadecimal.
    kernel: String,
    initrd: String,
}

/// Generates initramfs images, and finds those that were generated before.
#[derive(Clone, Copy)]
pub(crate) struct Generator<'a> {
    pub(crate) family: &'a dyn Family,
    pub(crate) store: &'a Store,
    pub(crate) sandbox: &'a Sandbox,
    /// What a step may take.
    pub(crate) limits: &'a Limits,
    pub(crate) steps: &'a Steps<'a>,
    /// Keeps damage of the layers out of what is generated.
    pub(crate) guard: &'a Guard,
    /// Where other machines' results are.
    pub(crate) shared: Option<&'a Shared>,
}

impl<'a> Generator<'a> {
    pub(crate) fn of(session: &'a Session<'_>) -> Self {
        Generator {
            family: &*session.family,
            store: &session.store,
            sandbox: &session.sandbox,
            limits: &session.limits,
            steps: session.steps,
            guard: &session.guard,
            shared: session.shared.as_ref(),
        }
    }

    /// Runs what a step runs.
    pub(crate) fn step_sandbox(&self) -> Sandbox {
        self.sandbox.limited(self.limits.clone())
    }

    /// Where results for these terms are named.
    fn results(&self, terms: Terms) -> PathBuf {
        self.store.root().join("initramfs").join(terms.key())
    }

    /// Whether there are results to try.
    pub(crate) fn has_results(&self, terms: Terms) -> bool {
        !newest_first(&self.results(terms)).is_empty()
    }

    /// Fills `boot` from a stored result that this root would give again, if there is one.
    pub(crate) fn reuse(
        &self,
        over: &Over,
        boot: &BootFiles,
        cancel: &CancelToken,
    ) -> Result<Reused, Failure> {
        let results = &self.results(over.terms);
        let place = Place {
            sandbox: self.sandbox,
            root: Root::Layers {
                lower: over.lower.clone(),
            },
            epoch: over.terms.epoch,
            reporter: &Quiet,
            cancel,
            tracer: None,
        };
        let mut tried = self.fitting(&place, results, over.root)?;
        if matches!(tried, Tried::None(_)) && self.pull_results(results, over) {
            tried = self.fitting(&place, results, over.root)?;
        }
        let fitting = match tried {
            Tried::Fits(fitting, stamps) => (fitting, stamps),
            Tried::None(changed) => return Ok(Reused::No(changed)),
        };
        let (fitting, stamps) = fitting;
        let (path, layer, facts) = &*fitting;
        export(
            &place,
            layer.fs.clone(),
            descriptor(&boot.kernel)?,
            descriptor(&boot.initrd)?,
        )?;
        if digest(&boot.kernel)? != facts.kernel || digest(&boot.initrd)? != facts.initrd {
            self.steps.warn(
                "the stored initramfs is damaged: generating it anew".to_owned(),
                Some(layer.fs.display().to_string()),
                Some("a disk that changes what is stored on it should be replaced".to_owned()),
            );
            self.store.remove(layer.info.id)?;
            for file in [&boot.kernel, &boot.initrd] {
                empty(file)?;
            }
            return Ok(Reused::No(None));
        }
        touch(path, stamps.as_ref());
        self.share_result(over.terms, layer);
        Ok(Reused::Yes(facts.version.clone(), layer.info.id))
    }

    /// A stored result that this root would give again.
    fn fitting(
        &self,
        place: &Place<'_>,
        results: &std::path::Path,
        root: Id,
    ) -> Result<Tried, Failure> {
        let mut candidates: Vec<Candidate> = newest_first(results)
            .into_iter()
            .filter_map(|path| {
                let id: Id = path.file_name()?.to_str()?.parse().ok()?;
                let layer = self.store.layer(id)?;
                let facts = serde_json::from_value(layer.info.facts.clone()).ok()?;
                Some((path, layer, facts))
            })
            .collect();
        let mut fitting = candidates
            .iter()
            .position(|(_, _, facts)| facts.root == root);
        let (mut changed, mut stamps) = (None, None);
        if fitting.is_none() && !candidates.is_empty() {
            let observations: Vec<Vec<Observation>> =
                candidates.iter().map(|(_, layer, _)| read(layer)).collect();
            let known = candidates
                .iter()
                .filter_map(|(path, _, _)| known(path))
                .flatten();
            let Answers {
                observations: now,
                stamps: seen,
            } = now(place, &observations, &known.collect())?;
            stamps = Some(seen);
            let now: BTreeMap<Query, String> = now
                .into_iter()
                .map(|observation| (observation.query, observation.state))
                .collect();
            let other = |observation: &&Observation| {
                now.get(&observation.query) != Some(&observation.state)
            };
            let first_other =
                |observations: &Vec<Observation>| observations.iter().find(other).cloned();
            fitting = observations.iter().position(|observations| {
                !observations.is_empty() && first_other(observations).is_none()
            });
            changed = observations.first().and_then(first_other);
        }
        Ok(match fitting {
            Some(index) => Tried::Fits(Box::new(candidates.swap_remove(index)), stamps),
            None => Tried::None(changed.map(|observation| observation.query)),
        })
    }

    /// Gets results of other machines: the one for this very root, or the newest for its key. Whether there is any.
    fn pull_results(&self, results: &std::path::Path, over: &Over) -> bool {
        let Some(shared) = self.shared else {
            return false;
        };
        let pull = |id: Id| {
            let layer = self
                .store
                .layer(id)
                .or_else(|| shared.pull(self.store, self.steps, id, None));
            if layer.is_some() {
                self.name_result(results, id);
            }
            layer.is_some()
        };
        pull(over.result_id())
            || shared
                .newest(self.steps, &shared_kind(over.terms), TRIED)
                .into_iter()
                .filter(|id| !results.join(id.to_string()).exists())
                .map(pull)
                .fold(false, |any, one| any | one)
    }

    /// Generates it over a root, none of whose layers is damaged.
    pub(crate) fn generate_sound(
        &self,
        root: &Stack,
        over: &Over,
        boot: &BootFiles,
        step: &dyn Reporter,
        cancel: &CancelToken,
    ) -> Result<String, Failure> {
        // A damaged file of a layer must not get into the initramfs either. Comparing takes a fraction of the time.
        self.guard.beside(root, cancel, || {
            self.generate(over, boot, step, cancel, &SharedTrace::default())
        })
    }

    /// Generates it over a root, and keeps the result; returns the kernel's version.
    pub(crate) fn generate(
        &self,
        over: &Over,
        boot: &BootFiles,
        reporter: &dyn Reporter,
        cancel: &CancelToken,
        trace: &SharedTrace,
    ) -> Result<String, Failure> {
        let results = self.results(over.terms);
        let staging = self.store.stage()?;
        let (lower, epoch) = (over.lower.clone(), over.terms.epoch);
        let sandbox = self.step_sandbox();
        let place = Place::over(&sandbox, lower, &staging, epoch, reporter, cancel);
        let made = self.family.initramfs(&place, over.terms.level, trace)?;
        export(
            &place,
            staging.fs(),
            descriptor(&boot.kernel)?,
            descriptor(&boot.initrd)?,
        )?;
        let Some(trace) = made.trace else {
            reporter.line(
                kiln_sandbox::Stream::Stdout,
                "the generator could not be watched, so its result is not kept",
            );
            return Ok(made.version);
        };
        let untouched = Place {
            root: Root::Layers {
                lower: over.lower.clone(),
            },
            ..place
        };
        let asked = queries(trace);
        let Answers {
            observations,
            stamps,
        } = states(&untouched, &asked, &Stamps::new())?;
        let facts = Facts {
            version: made.version.clone(),
            root: over.root,
            kernel: digest(&boot.kernel)?,
            initrd: digest(&boot.initrd)?,
        };
        let text = serde_json::to_vec(&observations).map_err(|e| internal(&e))?;
        let id = over.result_id();
        staging.attach(TRACE, &text)?;
        let facts = serde_json::to_value(facts).map_err(|e| internal(&e))?;
        let layer = staging.commit(id, "initramfs", facts)?;
        self.name_result(&results, id);
        touch(&results.join(id.to_string()), Some(&stamps));
        self.share_result(over.terms, &layer);
        Ok(made.version)
    }

    /// Other machines may try a result that is right here.
    fn share_result(&self, terms: Terms, layer: &Layer) {
        if let Some(shared) = self.shared {
            shared.push(layer);
            shared.name(shared_kind(terms), layer.info.id);
        }
    }

    /// A result that is not named is not found again; nothing else depends on it.
    fn name_result(&self, results: &std::path::Path, id: Id) {
        let path = results.join(id.to_string());
        let _ = fs::create_dir_all(results).and_then(|()| File::create(&path));
        for old in newest_first(results).into_iter().skip(KEPT) {
            let id = old
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse().ok());
            if let Some(id) = id {
                let _ = self.store.collect(id);
            }
            let _ = fs::remove_file(old);
        }
    }
}

/// What a root answers to everything that any candidate asked.
fn now(
    place: &Place<'_>,
    observations: &[Vec<Observation>],
    known: &Stamps,
) -> Result<Answers, Failure> {
    let asked = observations
        .iter()
        .flatten()
        .map(|observation| observation.query.clone());
    Ok(states(place, &asked.collect(), known)?)
}

/// Says in the log why what was begun ahead is of no use.
pub(crate) fn say_wrong(step: &dyn Reporter, changed: Option<&Query>) {
    let what = changed.map_or(String::new(), |what| format!(": {what} has changed"));
    let line = format!("what was begun beside the last packages is of no use{what}");
    step.line(kiln_sandbox::Stream::Stdout, &line);
}

/// Names in a directory, the last used first. Those whose layer is gone cost a look each, until they are too many.
fn newest_first(results: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(results).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Unreadable notes are none: the result is not taken.
fn read(layer: &Layer) -> Vec<Observation> {
    let text = layer.attachment(TRACE).and_then(|path| fs::read(path).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// What was noted of files when a result was used last. Where the note cannot be read, the files are.
fn known(path: &std::path::Path) -> Option<Stamps> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Notes that a result was used, and what is known of files, where that is news. A note that cannot be written costs the next build some
/// reading.
fn touch(path: &std::path::Path, stamps: Option<&Stamps>) {
    let news = stamps.filter(|stamps| known(path).as_ref() != Some(stamps));
    let news = news.and_then(|stamps| serde_json::to_vec(stamps).ok());
    let _ = match news {
        Some(text) => write_whole(path, &text),
        None => File::open(path).and_then(|file| file.set_modified(SystemTime::now())),
    };
}

fn digest(file: &File) -> Result<String, Failure> {
    use std::os::unix::fs::FileExt;
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at).map_err(|e| unreadable(&e))?;
        if count == 0 {
            return Ok(hash.finalize().to_hex().to_string());
        }
        hash.update(&buffer[..count]);
        at += count as u64;
    }
}

fn empty(mut file: &File) -> Result<(), Failure> {
    use std::io::Seek;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .map_err(|e| unreadable(&e))
}

fn unreadable(error: &std::io::Error) -> Failure {
    write_failure(std::path::Path::new("initrd"), error)
}

fn internal(error: &serde_json::Error) -> Failure {
    Failure::new(
        crate::FailureKind::Internal,
        "the notes of the initramfs cannot be written",
    )
    .cause(error.to_string())
}
