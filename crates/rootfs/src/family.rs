//! What differs between distributions: one trait, and the few types that it speaks in.
//!
//! A build knows no distribution. It asks the [`Family`] of its target, which the caller gives it among the [`Families`]:
//!
//! 1. [`Family::world`] reads the repositories; the [`World`] answers what the tools root is made of, what the definition asks for,
//!    which packages that makes, and whether it vouches for what a lock says.
//! 2. [`Family::installer`] returns who installs them, slice by slice: the tools root, the lowest layer, the layers above it.
//! 3. [`Family::finish`] makes the last changes, [`Family::initramfs`] generates the initramfs, and [`Boot`] says where boot
//!    loaders are and what the kernel is told.
//!
//! What a family notes of installed packages ([`Facts`]) is a text of its own: whoever keeps it does not look into it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use kiln_packages::{DownloadStore, Fetcher, Lock, LockedPackage, LockedRepository, Verdict};
use kiln_plan::{Id, Plan, Target};
use kiln_sandbox::CancelToken;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::finish::{Finish, Finished, Sources};
use crate::initramfs::Initramfs;
use crate::requests::Requests;
use crate::run::Place;
use crate::store::{Staging, Store};
use crate::trace::SharedTrace;

/// The families that a build may use.
#[derive(Clone, Debug)]
pub struct Families(Vec<Arc<dyn Family>>);

impl Families {
    /// A registry of these; the first that knows a target has it.
    pub fn new(families: Vec<Arc<dyn Family>>) -> Self {
        Families(families)
    }

    /// The one that a target's distribution belongs to.
    pub fn of(&self, target: &Target) -> Option<Arc<dyn Family>> {
        let mut all = self.0.iter();
        all.find(|family| family.has(target)).cloned()
    }
}

/// A family of distributions: how its packages are found and installed, and how its systems boot.
pub trait Family: fmt::Debug + Send + Sync {
    /// Whether a distribution belongs to it.
    fn has(&self, target: &Target) -> bool;

    /// Part of the id of every step: to be changed whenever the family's code does something else for the same inputs.
    fn code(&self) -> &'static str;

    /// Names of the fields that its packages have in a lock beside the common ones.
    fn lock_facts(&self) -> &'static [&'static str] {
        &[]
    }

    /// Fetches, verifies and reads the metadata of a plan's repositories, the distribution's own among them.
    ///
    /// # Errors
    /// The definition has no repositories, or they cannot be had or verified.
    fn world(&self, plan: &Plan, source: &Metadata<'_>) -> Result<Box<dyn World>>;

    /// Reads what [`Family::world`] left in a directory, and verifies it again. What is not there is left out; what is there, but
    /// not to be used, is told beside the world.
    ///
    /// # Errors
    /// The definition has no repositories.
    fn kept_world(
        &self,
        plan: &Plan,
        directory: &Path,
        now: SystemTime,
    ) -> Result<(Box<dyn World>, Vec<String>)>;

    /// A plan's repositories as a lock names them, the distribution's own among them: base URL and name.
    ///
    /// # Errors
    /// The definition has no repositories.
    fn repositories(&self, plan: &Plan) -> Result<Vec<(String, String)>>;

    /// The id of a plan's repositories and the keys that may sign them: what these vouched for once is remembered by it.
    ///
    /// # Errors
    /// The definition has no repositories.
    fn repositories_id(&self, plan: &Plan) -> Result<Id>;

    /// A sentence about a locked package that lies below none of the plan's repositories.
    ///
    /// # Errors
    /// The definition has no repositories.
    fn outside(&self, plan: &Plan, package: &LockedPackage) -> Result<Option<String>>;

    /// Tells the fetcher of package files where mirrors have the same ones, as far as the plan and the metadata in the directory say it.
    /// Nobody is asked.
    ///
    /// # Errors
    /// The definition has no repositories, or an address that cannot be used.
    fn know_mirrors(&self, _: &Plan, _: &Metadata<'_>) -> Result<()> {
        Ok(())
    }

    /// `file:line` of the plan that brought the repository of a locked package; `None` where that is not known.
    fn brought(&self, _: &Plan, _: &LockedPackage) -> Option<String> {
        None
    }

    /// Reads what later steps have to know of package files, which are what a lock says. Where packages prove themselves, they have to
    /// do so here, by the keys of the plan's repositories.
    ///
    /// # Errors
    /// A file is missing or damaged, or nobody whom the plan trusts made it.
    fn facts(
        &self,
        plan: &Plan,
        packages: &[&LockedPackage],
        downloads: &DownloadStore,
        threads: usize,
    ) -> Result<Facts>;

    /// Facts of so many packages from the text in which they were kept; `None` where it is not what this family writes.
    fn recalled(&self, text: Vec<u8>, packages: usize) -> Option<Facts>;

    /// When a package was made, in seconds since 1970.
    ///
    /// # Errors
    /// Its file cannot be read, or nobody whom the plan trusts made it.
    fn built(&self, plan: &Plan, package: &LockedPackage, downloads: &DownloadStore)
    -> Result<i64>;

    /// Who installs the packages of a build.
    ///
    /// # Errors
    /// This machine lacks something.
    fn installer(&self, job: Job) -> Result<Box<dyn Installer>>;

    /// The package sources of the image, and of scripts in it.
    fn sources(&self, plan: &Plan, lock: &Lock) -> Sources;

    /// Whether a root with these packages has something that reads package sources.
    fn reads_sources(&self, installed: &[Facts]) -> bool;

    /// Writes package sources into a root.
    ///
    /// # Errors
    /// The root cannot be changed.
    fn write_sources(&self, place: &Place<'_>, sources: &Sources) -> Result<()>;

    /// Environment variables of scripts, beside those that every distribution's have.
    fn script_environment(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Runs scripts in the root, and sees to it that packages which they install start no daemon.
    ///
    /// # Errors
    /// Those of `scripts`, or what keeps daemons out cannot be made or removed.
    fn without_daemons(
        &self,
        place: &Place<'_>,
        scripts: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;

    /// Makes the last changes to a root, and reads what it has in the end. `packages` are the layers below that packages made, the
    /// top one first.
    ///
    /// # Errors
    /// The root cannot be changed, or the kernel that the definition names is not there.
    fn finish(
        &self,
        place: &Place<'_>,
        finish: &Finish,
        packages: Vec<PathBuf>,
    ) -> Result<Finished>;

    /// Part of the key of every stored initramfs: to be changed when those that were made before must not be taken.
    fn generator_code(&self) -> &'static str;

    /// Generates the initramfs of the root's kernel and leaves both in `place`, for [`crate::initramfs::export`]. `place` is over
    /// the finished root with a staging directory of its own. `level` is the compressor's where the root's configuration names none.
    /// What the generator accesses can be seen in `trace` while it runs.
    ///
    /// # Errors
    /// There is no kernel or no generator in the root, or the generator failed.
    fn initramfs(
        &self,
        place: &Place<'_>,
        level: Option<u32>,
        trace: &SharedTrace,
    ) -> Result<Initramfs>;

    /// Where boot loaders and kernels are.
    fn boot(&self, target: &Target) -> &'static Boot;

    /// What the kernel is told so that the initramfs finds the root on a medium.
    fn arguments(&self, medium: &Medium) -> Vec<String>;
}

/// Where metadata comes from, and where it is kept.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    /// Fetches it.
    pub fetcher: &'a Fetcher,
    /// Keeps it.
    pub directory: &'a Path,
    /// The clock.
    pub now: SystemTime,
}

/// The verified metadata of a plan's repositories, read.
pub trait World: Send + Sync {
    /// The repositories as a lock has them.
    fn repositories(&self) -> Vec<LockedRepository>;

    /// How many packages they have.
    fn packages(&self) -> usize;

    /// What the user should know although it was no reason to stop.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the metadata says of a locked package.
    fn verdict(&self, package: &LockedPackage) -> Verdict;

    /// The files that [`Family::kept_world`] needs to read this world again: their paths in its directory, and where they are.
    fn files(&self) -> Vec<(String, PathBuf)>;

    /// The keys that may sign the repositories, for people: file names and bytes.
    fn keys(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// Has the packages of a manifest in the package manager's own format, and no others, be what the requests ask for. `what` names the
    /// file. Returns what the user should know.
    ///
    /// # Errors
    /// The family has no manifests, this is none, or it contradicts the metadata: that says what a package is, a manifest never.
    fn pin(&mut self, what: &str, _: &str) -> Result<Vec<String>> {
        Err(Error::definition(format!(
            "{what} cannot be used: the distribution's package manager has no manifests"
        )))
    }

    /// The packages of a lock, but for the tools, as a manifest in the package manager's own format.
    ///
    /// # Errors
    /// The family has no manifests.
    fn manifest(&self, _: &Lock) -> Result<String> {
        Err(Error::definition(
            "no manifest can be written: the distribution's package manager has none",
        ))
    }

    /// The packages of the tools root, as a lock has them.
    ///
    /// # Errors
    /// The repositories lack one.
    fn tools(&self) -> Result<Vec<LockedPackage>>;

    /// What a plan asks for, the packages that its commands need among it.
    ///
    /// # Errors
    /// A package or group is unknown: all of them are named, each with its place and the nearest names.
    fn requests(&self, plan: &Plan) -> Result<Requests>;

    /// The packages that the requests make, each in the lowest layer that needs it. `place` is over the tools root.
    ///
    /// # Errors
    /// There is no solution: the error says which requests take part in the conflict, and where they stand.
    fn solve(&self, place: &Place<'_>, requests: &Requests) -> Result<Vec<LockedPackage>>;
}

/// What a family notes of the packages of a step, so that later builds do not need them.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When the newest of the packages was made, in seconds since 1970; `None` without packages.
    pub built: Option<i64>,
    text: Arc<[u8]>,
}

impl Facts {
    /// Facts in the words of a family.
    pub fn new(built: Option<i64>, text: Vec<u8>) -> Self {
        Facts {
            built,
            text: text.into(),
        }
    }

    /// The text that is kept.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

/// What `%packages` says about how packages are unpacked. It is part of the ids of layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallOptions {
    /// Leave documentation out, but for licences.
    pub exclude_docs: bool,
    /// Leave translations out but for these.
    pub languages: Option<Vec<String>>,
    /// The packages are the first of a root: their files are there, but the package manager, which is one of them, does not know
    /// them yet.
    pub bootstrap: bool,
}

/// All packages of a build.
pub struct Job {
    /// Where layers are made.
    pub store: Store,
    /// Where package files are.
    pub downloads: DownloadStore,
    /// The layers of the tools root, the top one first; none while it is made itself.
    pub tools: Vec<PathBuf>,
    /// What is built for.
    pub target: Target,
    /// The distribution's word for the image's architecture.
    pub architecture: String,
    /// Threads for what can be spread.
    pub threads: usize,
    /// Stops what runs beside the steps.
    pub cancel: CancelToken,
    /// The layers' packages, lowest first, where they are known.
    pub slices: Vec<Slice>,
    /// Nothing is done but by the distribution's own package manager: slower, the same result, for comparisons.
    pub plain: bool,
}

/// The packages of a layer.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The layer.
    pub layer: String,
    /// Its packages.
    pub packages: Vec<LockedPackage>,
    /// How they are unpacked.
    pub options: InstallOptions,
}

/// Installs packages into roots. All package files are at hand when one of its functions is called.
pub trait Installer: Sync {
    /// Unpacks the tools root's packages into an empty root, without running anything of them.
    ///
    /// # Errors
    /// A package file is damaged, or the root cannot be written.
    fn tools(&self, place: &Place<'_>, packages: &Facts) -> Result<()>;

    /// Installs the first packages of a root.
    ///
    /// # Errors
    /// A package cannot be installed; the error names it.
    fn bootstrap(&self, work: &Install<'_>) -> Result<()>;

    /// Installs packages over those that are installed, one text of facts for each slice.
    ///
    /// # Errors
    /// A package cannot be installed; the error names it.
    fn install(&self, work: &Install<'_>, installed: &[Facts]) -> Result<()>;
}

/// One step of installing.
pub struct Install<'a> {
    /// The root.
    pub place: &'a Place<'a>,
    /// The layer in the making.
    pub staging: &'a Staging,
    /// Its name.
    pub layer: &'a str,
    /// Its packages.
    pub packages: &'a Facts,
    /// How they are unpacked.
    pub options: &'a InstallOptions,
}

/// Where boot loaders and kernels are.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// The signed loader that firmware starts, in the tools root.
    pub shim: &'static str,
    /// GRUB's EFI program, which it starts, in the tools root.
    pub grub: &'static str,
    /// The program that enrols keys, in the tools root, where there is one.
    pub mok_manager: &'static str,
    /// The directory on the EFI system partition that is built into GRUB's EFI program.
    pub efi_prefix: &'static str,
    /// The directory of GRUB's modules for BIOS, in the tools root.
    pub bios_modules: &'static str,
    /// The kernel's path on the boot partition.
    pub kernel: &'static str,
    /// The initramfs's.
    pub initrd: &'static str,
    /// The root's, on disks where it has no partition of its own.
    pub root_file: &'static str,
    /// Initramfs images in the root, which the image leaves out: patterns over absolute paths.
    pub excluded: &'static [&'static str],
}

/// Where a system starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// The partition's UUID in the partition table, as under `/dev/disk/by-partuuid/`.
    pub partition: String,
    /// Whether the root is [`Boot::root_file`] of the partition's file system, and not all that the partition has.
    pub is_file: bool,
    /// Whether the root is copied to memory, if that is large enough.
    pub in_memory: bool,
}
