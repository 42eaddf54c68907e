//! The initramfs as a step of its own, keyed by what its generator really read.
//!
//! What will be read is known only afterwards, so the key has two parts. The first is what is known before: this code and the
//! clock. Under it stand the results that were made so far, each with every path its generator looked at and the
//! state of that path ([`kiln_rootfs::looks`]); the first whose states are all as they were is the result again.
//!
//! ```text
//! <cache>/initramfs/<first part>/<layer id>   an empty file: a result to try; its time is that of the last use
//! <cache>/layers/<layer id>/                  the result: an ordinary layer
//!   fs/var/tmp/kiln-initrd.img, kiln-vmlinuz
//!   looks.json                                paths, what was asked of them, and their states
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use kiln_plan::{Hasher, Id};
use kiln_rootfs::debian::{export, initramfs};
use kiln_rootfs::looks::{Question, Sight, questions, states};
use kiln_rootfs::{Layer, Place, Reporter};
use kiln_sandbox::{CancelToken, Root};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::image::{BootFiles, descriptor};
use crate::known;
use crate::pipeline::Session;
use crate::root::Stack;
use crate::steps::Step;
use crate::{Failure, Unit};

/// To be raised when results of an older Kiln must not be taken.
const CODE: &str = "2";
/// Results that are kept for one key; each is about as large as a kernel and its initramfs.
const KEPT: usize = 8;
/// Results of other machines that are tried for a root.
const TRIED: usize = 2;
const LOOKS: &str = "looks.json";

/// What was asked, and the answers.
type Now = BTreeMap<Question, String>;

/// A stored result: the file that names it, its layer, and what it says.
type Candidate = (PathBuf, Layer, Facts);

/// The layer of the result for this root.
fn result_id(root: &Stack) -> Id {
    Hasher::new("initramfs.v1")
        .text("code", CODE)
        .id("root", root.id)
        .json("epoch", &root.epoch)
        .finish()
}

/// Where the shared cache lists results for a key.
fn shared_kind(results: &std::path::Path) -> String {
    let key = results.file_name().unwrap_or_default().to_string_lossy();
    format!("initramfs-{key}")
}

/// What a result says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    version: String,
    /// The root for which it was made or last found right.
    root: Id,
    /// SHA-256 of both files, hexadecimal.
    kernel: String,
    initrd: String,
}

impl Session<'_> {
    /// Fills `boot` with the kernel and its initramfs; returns the kernel's version.
    pub(crate) fn initramfs(
        &self,
        root: &Stack,
        boot: &BootFiles,
        cancel: &CancelToken,
    ) -> Result<String, Failure> {
        const TITLE: &str = "generating the initramfs";
        let results = self.results(root);
        if let Some((version, id)) = self.reuse(&results, root, boot, cancel)? {
            let pulled = self.shared.as_ref().is_some_and(|s| s.has_pulled(id));
            self.steps.cached_here(TITLE, None, pulled);
            return Ok(version);
        }
        self.steps.step(TITLE, None, Unit::Bytes, |step| {
            let version = self.generate(&results, root, boot, step, cancel)?;
            let bytes = boot.initrd.metadata().map_or(0, |m| m.len());
            step.summarise(format!("kernel {version}, {} MB", bytes / 1_000_000));
            Ok(version)
        })
    }

    /// Where results for this root's key are named.
    fn results(&self, root: &Stack) -> PathBuf {
        let key = Hasher::new("initramfs.v1")
            .text("code", CODE)
            .json("epoch", &root.epoch)
            .finish();
        self.store.root().join("initramfs").join(key.to_string())
    }

    fn reuse(
        &self,
        results: &std::path::Path,
        root: &Stack,
        boot: &BootFiles,
        cancel: &CancelToken,
    ) -> Result<Option<(String, Id)>, Failure> {
        let quiet = Quiet;
        let place = Place {
            sandbox: &self.sandbox,
            root: Root::Layers {
                lower: root.lower(),
            },
            epoch: root.epoch,
            reporter: &quiet,
            cancel,
        };
        let mut fitting = self.fitting(&place, results, root)?;
        if fitting.is_none() && self.pull_results(results, root) {
            fitting = self.fitting(&place, results, root)?;
        }
        let Some((path, layer, facts)) = &fitting else {
            return Ok(None);
        };
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
            return Ok(None);
        }
        touch(path);
        self.share_result(results, layer);
        Ok(Some((facts.version.clone(), layer.info.id)))
    }

    /// A stored result that this root would give again.
    fn fitting(
        &self,
        place: &Place<'_>,
        results: &std::path::Path,
        root: &Stack,
    ) -> Result<Option<Candidate>, Failure> {
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
            .position(|(_, _, facts)| facts.root == root.id);
        if fitting.is_none() && !candidates.is_empty() {
            let sights: Vec<Vec<Sight>> =
                candidates.iter().map(|(_, layer, _)| read(layer)).collect();
            let now = self.now(place, &sights)?;
            let same = |sight: &Sight| now.get(&sight.question) == Some(&sight.state);
            fitting = sights
                .iter()
                .position(|sights| !sights.is_empty() && sights.iter().all(same));
        }
        Ok(fitting.map(|index| candidates.swap_remove(index)))
    }

    /// Gets results of other machines: the one for this very root, or the newest for its key. Whether there is any.
    fn pull_results(&self, results: &std::path::Path, root: &Stack) -> bool {
        let Some(shared) = &self.shared else {
            return false;
        };
        let pull = |id: Id| {
            let layer = self
                .store
                .layer(id)
                .or_else(|| shared.pull(&self.store, self.steps, id, None));
            if layer.is_some() {
                self.name_result(results, id);
            }
            layer.is_some()
        };
        pull(result_id(root))
            || shared
                .newest(self.steps, &shared_kind(results), TRIED)
                .into_iter()
                .filter(|id| !results.join(id.to_string()).exists())
                .map(pull)
                .fold(false, |any, one| any | one)
    }

    /// What this root answers to everything that any candidate asked.
    fn now(&self, place: &Place<'_>, sights: &[Vec<Sight>]) -> Result<Now, Failure> {
        let asked = sights.iter().flatten().map(|sight| sight.question.clone());
        let found = states(place, &asked.collect())?.into_iter();
        Ok(found.map(|sight| (sight.question, sight.state)).collect())
    }

    fn generate(
        &self,
        results: &std::path::Path,
        root: &Stack,
        boot: &BootFiles,
        step: &Step<'_, '_>,
        cancel: &CancelToken,
    ) -> Result<String, Failure> {
        let staging = self.store.stage()?;
        let place = Place::over(
            &self.sandbox,
            root.lower(),
            &staging,
            root.epoch,
            step,
            cancel,
        );
        // A damaged file of a layer must not get into the initramfs either. Comparing takes a fraction of the time.
        let (made, sound) = std::thread::scope(|scope| {
            let sound = scope.spawn(|| self.check_layers(root, cancel));
            (initramfs(&place), sound.join())
        });
        sound.unwrap_or_else(|_| Err(known::panicked()))?;
        let made = made?;
        export(
            &place,
            staging.fs(),
            descriptor(&boot.kernel)?,
            descriptor(&boot.initrd)?,
        )?;
        let Some(looks) = made.looks else {
            step.line(
                kiln_sandbox::Stream::Stdout,
                "the generator could not be watched, so its result is not kept",
            );
            return Ok(made.version);
        };
        let untouched = Place {
            root: Root::Layers {
                lower: root.lower(),
            },
            ..place
        };
        let sights = states(&untouched, &questions(looks))?;
        let facts = Facts {
            version: made.version.clone(),
            root: root.id,
            kernel: digest(&boot.kernel)?,
            initrd: digest(&boot.initrd)?,
        };
        let text = serde_json::to_vec(&sights).map_err(|e| internal(&e))?;
        let id = result_id(root);
        staging.attach(LOOKS, &text)?;
        let facts = serde_json::to_value(facts).map_err(|e| internal(&e))?;
        let layer = staging.commit(id, "initramfs", facts)?;
        self.name_result(results, id);
        self.share_result(results, &layer);
        Ok(made.version)
    }

    /// Other machines may try a result that is right here.
    fn share_result(&self, results: &std::path::Path, layer: &Layer) {
        if let Some(shared) = &self.shared {
            shared.push(layer);
            shared.name(shared_kind(results), layer.info.id);
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

/// Looking for a result is not worth a line.
pub(crate) struct Quiet;

impl Reporter for Quiet {
    fn line(&self, _: kiln_sandbox::Stream, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
    fn warn(&self, _: String, _: Option<String>, _: Option<String>) {}
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
fn read(layer: &Layer) -> Vec<Sight> {
    let text = layer.attachment(LOOKS).and_then(|path| fs::read(path).ok());
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn touch(path: &std::path::Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

fn digest(file: &File) -> Result<String, Failure> {
    use std::os::unix::fs::FileExt;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at).map_err(|e| unreadable(&e))?;
        if count == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(buffer.get(..count).unwrap_or_default());
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
    crate::output::write_failure(std::path::Path::new("initrd"), error)
}

fn internal(error: &serde_json::Error) -> Failure {
    Failure::new(
        crate::FailureKind::Internal,
        "the notes of the initramfs cannot be written",
    )
    .cause(error.to_string())
}
