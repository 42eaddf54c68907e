//! What the verbs of a build hand on to each other.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_kickstart::Script;
use kiln_packages::{Lock, LockedPackage};
use kiln_plan::{Id, Located, Plan};
use kiln_rootfs::family::Facts;
use kiln_rootfs::finish::Finished;
use kiln_rootfs::store::{Layer, Staging};
use kiln_sandbox::Root;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Failure, FailureKind};

/// What a definition was resolved to.
pub(crate) struct Resolved {
    pub(crate) plan: Plan,
    pub(crate) lock: Lock,
    /// The root of the build tools. It has no layer before somebody needs it (`root/steps.rs`), but its id.
    pub(crate) tools: Stack,
    /// `%onerror` and `%traceback` scripts.
    pub(crate) on_error: Vec<Located<Script>>,
    pub(crate) pre: Option<Arc<PreFiles>>,
}

impl Resolved {
    /// The image's clock: what the user fixed, or the newest repository's date.
    pub(crate) fn epoch(&self, fixed: Option<i64>) -> i64 {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let date = self.lock.date().map_or(0, seconds);
        fixed.unwrap_or_else(|| i64::try_from(date).unwrap_or(0))
    }

    /// The packages of a layer.
    pub(crate) fn slice<'l>(&'l self, layer: &'l str) -> Vec<&'l LockedPackage> {
        self.lock.of_layer(layer).collect()
    }
}

/// What `%pre` left in `/tmp`, for the scripts that run outside of the root, as in an installer.
pub(crate) struct PreFiles {
    pub(crate) staging: Staging,
    /// Names their content.
    pub(crate) id: Id,
}

impl PreFiles {
    /// Their directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.staging.fs()
    }
}

/// The stack of layers, lowest first, and the id of the top one.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) layers: Vec<Layer>,
    /// Which of them packages made, by their places.
    packages: Vec<usize>,
    pub(crate) id: Id,
    /// `SOURCE_DATE_EPOCH` of steps: the newest package so far.
    pub(crate) epoch: i64,
    /// What is known of every package so far, step by step.
    pub(crate) installed: Vec<Facts>,
    /// Whether the package sources are there.
    pub(crate) has_sources: bool,
}

impl Stack {
    /// A stack without layers; `id` is that of the first one to come.
    pub(crate) fn new(id: Id, epoch: i64) -> Stack {
        Stack {
            layers: Vec::new(),
            packages: Vec::new(),
            id,
            epoch,
            installed: Vec::new(),
            has_sources: false,
        }
    }

    /// Puts a layer on top; `facts` are those of the packages that it installed.
    pub(crate) fn grow(&mut self, layer: Layer, id: Id, facts: Option<Facts>) {
        if let Some(facts) = facts.filter(|facts| facts.built.is_some()) {
            self.packages.push(self.layers.len());
            self.installed.push(facts);
        }
        self.layers.push(layer);
        self.id = id;
    }

    /// Overlay directories, the top one first.
    pub(crate) fn lower(&self) -> Vec<PathBuf> {
        self.layers.iter().rev().map(|l| l.fs.clone()).collect()
    }

    /// What the last step found out and noted.
    pub(crate) fn finished(&self) -> Result<Finished, Failure> {
        let facts = self
            .layers
            .last()
            .map_or(Value::Null, |l| l.info.facts.clone());
        serde_json::from_value(facts).map_err(|e| {
            let message = "the last layer does not say what was found in the root";
            Failure::new(FailureKind::Internal, message).cause(e.to_string())
        })
    }

    /// The highest layer that packages made.
    pub(crate) fn last_of_packages(&self) -> Option<Id> {
        let layer = self.layers.get(*self.packages.last()?)?;
        Some(layer.info.id)
    }

    /// Overlay directories of the layers that packages made, the top one first.
    pub(crate) fn of_packages(&self) -> Vec<PathBuf> {
        let layers = self
            .packages
            .iter()
            .rev()
            .filter_map(|at| self.layers.get(*at));
        layers.map(|l| l.fs.clone()).collect()
    }
}

/// A root over layers whose changes go to a staging directory.
pub(crate) fn overlay(lower: Vec<PathBuf>, staging: &Staging) -> Root {
    Root::Overlay {
        lower,
        upper: staging.fs(),
        work: staging.work(),
    }
}

/// Kernel and initramfs, for the boot partition.
pub(crate) struct BootFiles {
    pub(crate) kernel: File,
    pub(crate) initrd: File,
}

/// The root as a SquashFS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Squashed {
    /// Length of the file system, padded to 4 KiB.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u32,
    /// Bytes of content.
    pub(crate) content_bytes: u64,
    /// Blocks written and blocks reused.
    pub(crate) blocks: u64,
    /// What SquashFS cannot hold and the image lacks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) lost: Vec<Lost>,
}

/// An attribute of a file that the image lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// The file's absolute path.
    pub(crate) path: String,
    /// The attribute's name.
    pub(crate) attribute: String,
}

/// What the image step found out.
pub(crate) struct Made {
    /// The kernel's version.
    pub(crate) kernel: String,
    /// The root's file system.
    pub(crate) squashed: Squashed,
    /// Artifacts whose SHA-256 is known already, hexadecimal.
    pub(crate) digests: HashMap<&'static str, String>,
}

/// What lies beside a layer, by its name there: what the packages that it installed say of themselves, which a later build needs,
/// but not the packages.
pub(crate) const FACTS: &str = "packages.json";
/// What its step was made from, for people.
pub(crate) const INPUTS: &str = "inputs.json";
/// What the generator of the initramfs in it read: the states of its trace, under the name that caches know.
pub(crate) const TRACE: &str = "looks.json";
