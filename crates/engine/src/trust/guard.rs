//! Sees to it that nothing damaged gets from a stored layer into what a build makes.
//!
//! Whatever reads a stored layer may read a byte that the disk has changed. An image compares what it reads (`kiln_image::tree`).
//! What runs for long, packages and the generator of the initramfs, has all layers compared beside it. What is over soon, commands
//! and scripts, would wait for that: it is watched instead, and what it has opened, executed, listed or changed is compared
//! with the layers' manifests before its result is kept. A damaged layer is taken out of the store with those above it,
//! and the build makes them again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_image::tree::{Expected, Manifest, Overlay, first_other};
use kiln_plan::Id;
use kiln_rootfs::trace::{Access, LOADERS, Trace, interpreters};
use kiln_rootfs::{Extras, Layer, Place, Quiet, Store, Tracer};
use kiln_sandbox::{Call, CancelToken, Error, ErrorKind, Root, Sandbox, Say, Silence, handed};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::trust::known;
use crate::values::Stack;
use crate::{Failure, FailureKind};

/// What a build knows of the layers it stands on.
pub(crate) struct Guard {
    store: Store,
    sandbox: Arc<Sandbox>,
    threads: usize,
    /// Layers that this build has made or compared.
    sound: Mutex<HashSet<Id>>,
    manifests: Mutex<HashMap<Id, Arc<Manifest>>>,
    evicted: AtomicBool,
}

/// What is compared.
#[derive(Serialize, Deserialize)]
struct Question {
    expected: Vec<Expected>,
    executed: BTreeSet<String>,
}

/// What came out.
#[derive(Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The first that is not as expected, by its place in the list.
    other: Option<usize>,
    /// What ran what was executed.
    interpreters: BTreeSet<String>,
}

impl Guard {
    pub(crate) fn new(store: &Store, sandbox: &Arc<Sandbox>, threads: usize) -> Self {
        Guard {
            store: store.clone(),
            sandbox: Arc::clone(sandbox),
            threads,
            sound: Mutex::default(),
            manifests: Mutex::default(),
            evicted: AtomicBool::new(false),
        }
    }

    /// A layer that this build made, so that nothing can have happened to it.
    pub(crate) fn trust(&self, id: Id) {
        lock(&self.sound).insert(id);
    }

    fn is_sound(&self, layer: &Layer) -> bool {
        lock(&self.sound).contains(&layer.info.id)
    }

    fn all_sound(&self, stack: &Stack) -> bool {
        stack.layers.iter().all(|layer| self.is_sound(layer))
    }

    /// A damaged layer was found and is out of the store, so that it is worth to begin again. Said once.
    pub(crate) fn take_evicted(&self) -> bool {
        self.evicted.swap(false, Ordering::Relaxed)
    }

    /// As [`Guard::take_evicted`], which will say it still.
    pub(crate) fn has_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Somebody has taken a damaged layer out.
    pub(crate) fn set_evicted(&self) {
        self.evicted.store(true, Ordering::Relaxed);
    }

    /// Runs something short over a stack; `place` is over it. Nobody may keep what it has made where this fails.
    pub(crate) fn watched<T>(
        &self,
        stack: &Stack,
        place: &Place<'_>,
        block_size: u32,
        run: impl FnOnce(&Place<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.all_sound(stack) {
            return run(place);
        }
        let tracer = Tracer::default();
        let (result, overlay) = std::thread::scope(|scope| {
            // Reading the manifests takes about as long as a short script.
            let overlay = scope.spawn(|| self.overlay(stack, place.cancel, block_size));
            let watched = Place {
                tracer: Some(&tracer),
                ..place.with_reporter(place.reporter)
            };
            (run(&watched), overlay.join())
        });
        if result.as_ref().is_err_and(is_cancelled) {
            return result;
        }
        let overlay = overlay.unwrap_or_else(|_| Err(known::panicked()))?;
        self.compare(stack, overlay.as_ref(), &tracer.take(), place.cancel)?;
        result
    }

    /// Runs something long over a stack, and compares all layers meanwhile. As [`Guard::watched`].
    pub(crate) fn beside<T>(
        &self,
        stack: &Stack,
        cancel: &CancelToken,
        run: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.all_sound(stack) {
            return run();
        }
        let (result, sound) = std::thread::scope(|scope| {
            let sound = scope.spawn(|| self.check(stack, cancel));
            (run(), sound.join())
        });
        if result.as_ref().is_err_and(is_cancelled) {
            return result;
        }
        sound.unwrap_or_else(|_| Err(known::panicked()))?;
        result
    }

    /// Compares all layers of a stack that earlier builds made, as far as they have a manifest.
    pub(crate) fn check(&self, stack: &Stack, cancel: &CancelToken) -> Result<(), Failure> {
        match self.damage(stack, cancel)? {
            Some((number, path)) => Err(self.evict(&stack.layers, number, &path)),
            None => Ok(()),
        }
    }

    /// The first damaged layer of a stack, counted from the lowest, and what in it is damaged.
    pub(crate) fn damage(
        &self,
        stack: &Stack,
        cancel: &CancelToken,
    ) -> Result<Option<(usize, Vec<u8>)>, Failure> {
        let place = self.place(stack, cancel);
        for (number, layer) in stack.layers.iter().enumerate() {
            if self.is_sound(layer) {
                continue;
            }
            let damaged = known::differences(&place, layer, 1)?;
            if let Some(path) = damaged.into_iter().next() {
                return Ok(Some((number, path)));
            }
            self.trust(layer.info.id);
        }
        Ok(None)
    }

    /// Compares files of the one layer that the tools root is, which the parent itself has read.
    pub(crate) fn check_tools(
        &self,
        tools: &Stack,
        paths: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        let [layer] = tools.layers.as_slice() else {
            return Ok(());
        };
        let manifest = known::any_manifest(layer).map(|(_, manifest)| Arc::new(manifest));
        let overlay = manifest.and_then(|manifest| Overlay::new(vec![manifest]));
        let Some(overlay) = overlay.filter(|_| !self.is_sound(layer)) else {
            return Ok(());
        };
        let mut expected = HashSet::new();
        for path in paths {
            overlay.expect(path.as_bytes(), false, &mut expected);
        }
        let expected: Vec<Expected> = expected.into_iter().collect();
        match first_other(&layer.fs, &expected, 1)? {
            Some(other) => Err(self.evict(&tools.layers, 0, &other.path)),
            None => Ok(()),
        }
    }

    /// Takes a layer out of the store, and those above it, which were made on top of it.
    fn evict(&self, layers: &[Layer], number: usize, path: &[u8]) -> Failure {
        let mut above = layers.iter().skip(number);
        if let Err(error) = above.try_for_each(|layer| self.store.remove(layer.info.id)) {
            return error.into();
        }
        let mut manifests = lock(&self.manifests);
        for layer in layers.iter().skip(number) {
            manifests.remove(&layer.info.id);
            lock(&self.sound).remove(&layer.info.id);
        }
        self.set_evicted();
        let message = format!(
            "/{} does not hold what it held when its layer was finished: the disk, or something that writes to it, damaged it",
            String::from_utf8_lossy(path)
        );
        let title = layers.get(number).map_or("", |layer| &layer.info.title);
        Failure::new(FailureKind::Step, message).cause(known::again(title))
    }

    fn place<'p>(&'p self, stack: &Stack, cancel: &'p CancelToken) -> Place<'p> {
        Place {
            sandbox: &self.sandbox,
            root: Root::Layers {
                lower: stack.lower(),
            },
            epoch: stack.epoch,
            reporter: &Quiet,
            cancel,
            tracer: None,
        }
    }

    /// What the layers' manifests say; `None` where they cannot say it all.
    fn overlay(
        &self,
        stack: &Stack,
        cancel: &CancelToken,
        block_size: u32,
    ) -> Result<Option<Overlay>, Failure> {
        let place = self.place(stack, cancel);
        let mut manifests = Vec::with_capacity(stack.layers.len());
        for layer in stack.layers.iter().rev() {
            let id = layer.info.id;
            let known = lock(&self.manifests).get(&id).cloned();
            let manifest = match known {
                Some(manifest) => manifest,
                None => {
                    known::ensure_recorded(&place, layer, block_size, self.threads)?;
                    let Some((_, manifest)) = known::any_manifest(layer) else {
                        return Ok(None);
                    };
                    let manifest = Arc::new(manifest);
                    lock(&self.manifests).insert(id, Arc::clone(&manifest));
                    manifest
                }
            };
            manifests.push(manifest);
        }
        Ok(Overlay::new(manifests))
    }

    fn compare(
        &self,
        stack: &Stack,
        overlay: Option<&Overlay>,
        trace: &Trace,
        cancel: &CancelToken,
    ) -> Result<(), Failure> {
        let Some(overlay) = overlay.filter(|_| trace.incomplete.is_none()) else {
            return self.check(stack, cancel);
        };
        let mut paths = read(trace);
        let mut executed: BTreeSet<String> = trace
            .paths
            .iter()
            .filter(|(_, access)| access.executed)
            .map(|(path, _)| path.clone())
            .collect();
        if !executed.is_empty() {
            paths.extend(LOADERS.iter().map(|&loader| (loader.to_owned(), false)));
        }
        let mut asked = BTreeSet::new();
        while !paths.is_empty() {
            let expected = self.expected(stack, overlay, &paths);
            asked.extend(std::mem::take(&mut paths).into_keys());
            let question = Question {
                expected,
                executed: std::mem::take(&mut executed),
            };
            let answer = self.ask(stack, &question, cancel)?;
            if let Some(other) = answer.other.and_then(|index| question.expected.get(index)) {
                let number = stack.layers.len().saturating_sub(other.layer + 1);
                return Err(self.evict(&stack.layers, number, &other.path));
            }
            let fresh = answer.interpreters.into_iter();
            let fresh = fresh.filter(|path| !asked.contains(path));
            paths = fresh.map(|path| (path, false)).collect();
        }
        Ok(())
    }

    fn expected(
        &self,
        stack: &Stack,
        overlay: &Overlay,
        paths: &BTreeMap<String, bool>,
    ) -> Vec<Expected> {
        let mut expected = HashSet::new();
        for (path, names) in paths {
            overlay.expect(path.as_bytes(), *names, &mut expected);
        }
        let sound: Vec<bool> = stack
            .layers
            .iter()
            .rev()
            .map(|l| self.is_sound(l))
            .collect();
        let doubtful = |one: &Expected| !sound.get(one.layer).copied().unwrap_or(false);
        expected.into_iter().filter(doubtful).collect()
    }

    fn ask(
        &self,
        stack: &Stack,
        question: &Question,
        cancel: &CancelToken,
    ) -> Result<Answer, Failure> {
        let unsaid = |error: std::io::Error| {
            let doing = "handing over what a step has read";
            Failure::new(FailureKind::Environment, doing).cause(error.to_string())
        };
        let memory = rustix::fs::memfd_create("kiln-compare", MemfdFlags::CLOEXEC);
        let mut file = File::from(memory.map_err(|error| unsaid(error.into()))?);
        let text = serde_json::to_vec(question).map_err(|error| unsaid(error.into()))?;
        file.write_all(&text).map_err(unsaid)?;
        let compare = Compare {
            threads: self.threads,
        };
        let place = self.place(stack, cancel);
        Ok(place.call(&compare, Asked { question: file }, Extras::bare())?)
    }
}

/// Paths of which more than the attributes were seen, and whether their names were.
fn read(trace: &Trace) -> BTreeMap<String, bool> {
    let counts =
        |access: &Access| access.content || access.names || access.executed || access.linked;
    let paths = trace.paths.iter().filter(|(_, access)| counts(access));
    paths
        .map(|(path, access)| (path.clone(), access.names))
        .collect()
}

handed! {
    /// A [`Question`], which is too long for a request.
    pub(crate) struct Asked {
        question: File,
    }
}

/// Compares files of the stack that is the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Compare {
    threads: usize,
}

impl Call for Compare {
    const NAME: &'static str = "build.compare";
    type Handed = Asked;
    type Message = Silence;
    type Answer = Answer;

    fn run(self, asked: Asked, _: &Say<Silence>) -> Result<Answer, Error> {
        let doing = || Error::new(ErrorKind::Step, "comparing what a step has read");
        let mut file = asked.question;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(|error| doing().because(error))?;
        let question: Question = serde_json::from_slice(&text).map_err(|error| {
            let message = "the comparison got an unknown question";
            Error::new(ErrorKind::Internal, message).because(error)
        })?;
        let other = first_other(Path::new("/"), &question.expected, self.threads)
            .map_err(|error| doing().because(error))?;
        let place = |one: &Expected| question.expected.iter().position(|e| e == one);
        Ok(Answer {
            other: other.and_then(place),
            interpreters: interpreters(question.executed),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_cancelled(failure: &Failure) -> bool {
    failure.kind == FailureKind::Cancelled
}
