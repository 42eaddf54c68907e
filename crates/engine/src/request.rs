//! What a caller asks for, and what it gets.

use std::path::PathBuf;

use kiln_packages::{Lock, Proxies};
use kiln_plan::Input;
use kiln_rootfs::{Families, Reach};

use crate::define::confined::Files;
use crate::shared::SharedCache;

/// What is to be built, and with what means. Everything that depends on the environment is said here.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// How the definition and what it names are read.
    pub files: Files,
    /// A `.ks`, a `kiln.toml` or its directory.
    pub definition: PathBuf,
    /// What the command line adds to it.
    pub input: Input,
    /// Where artifacts go.
    pub output: PathBuf,
    /// The cache's directory.
    pub cache: PathBuf,
    /// The state directory: what failed builds leave goes there, or to the cache where there is none.
    pub state: Option<PathBuf>,
    /// No network at all: not for packages, not for scripts.
    pub offline: bool,
    /// How far scripts reach, unless the build is offline.
    pub network: Reach,
    /// A missing or stale lock is an error.
    pub locked: bool,
    /// Proxies for fetching.
    pub proxies: Proxies,
    /// Nothing is fetched from this machine, nor from what only it reaches: the definition is a stranger's.
    pub from_elsewhere: bool,
    /// `SOURCE_DATE_EPOCH`, if the user fixed it.
    pub epoch: Option<i64>,
    /// Threads for what can be spread.
    pub threads: usize,
    /// A directory that [`lock`] made, from which everything comes; [`BuildRequest::offline`] goes with it.
    pub vendor: Option<PathBuf>,
    /// Locked packages that no signed metadata has are used with a warning.
    pub allow_unsigned_lock: bool,
    /// A cache that other machines use too.
    pub shared: Option<SharedCache>,
    /// Packages are unpacked by the distribution's own package manager alone: slower, the same result, for comparisons.
    pub plain_unpacking: bool,
    /// The families of distributions that can be built.
    pub families: Families,
}

/// What [`crate::lock`] does beside resolving.
#[derive(Clone, Debug, Default)]
pub struct LockOptions {
    /// Everything that a build needs is put into this directory.
    pub vendor: Option<PathBuf>,
    /// The signed metadata that vouches for the lock lies beside it afterwards.
    pub keep_metadata: bool,
    /// The packages are also told as a manifest in the package manager's own format.
    pub manifest: bool,
    /// The packages of this manifest, and no others, are taken: a name for messages, and its text.
    pub pins: Option<(String, String)>,
}

/// What [`crate::lock`] found.
#[derive(Clone, Debug)]
pub struct Locked {
    /// Where the lock belongs.
    pub path: PathBuf,
    /// The lock.
    pub lock: Lock,
    /// The manifest, if it was asked for.
    pub manifest: Option<String>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// Where the artifacts are.
    pub output: PathBuf,
    /// Their files.
    pub artifacts: Vec<PathBuf>,
    /// Wall-clock seconds.
    pub seconds: f64,
}
