//! What `kiln.toml` says, field by field, before anything is decided.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A `kiln.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// Names the artifacts' manifest and the boot menu's title.
    pub name: Option<String>,
    /// `debian:bookworm`.
    pub distribution: Option<String>,
    /// Debian architecture name; `amd64` unless said.
    pub architecture: Option<String>,
    /// Kickstart files, lowest layer first.
    #[serde(default)]
    pub layers: Vec<String>,
    /// Directories beside its own from which the definition may read layers, includes and keys; relative to it.
    #[serde(default)]
    pub include_path: Vec<String>,
    /// Repositories beside those of the kickstart files.
    #[serde(default, rename = "repository")]
    pub repositories: Vec<RepositoryDefinition>,
    /// Files of the project that go into the root.
    #[serde(default)]
    pub files: Vec<FilesDefinition>,
    /// What Kiln adds by itself.
    #[serde(default)]
    pub system: SystemDefinition,
    /// The disk.
    #[serde(default)]
    pub disk: DiskDefinition,
    /// What a step may take.
    #[serde(default)]
    pub limits: LimitsDefinition,
    /// Named settings for `--profile`.
    #[serde(default, rename = "profile")]
    pub profiles: BTreeMap<String, ProfileDefinition>,
}

/// `[[repository]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RepositoryDefinition {
    /// Base URL, what comes before `/dists`.
    pub url: String,
    /// Suite or codename; ends in `/` for a flat repository.
    pub suite: String,
    /// Components; empty only for a flat repository.
    #[serde(default)]
    pub components: Vec<String>,
    /// OpenPGP public keys, armored or binary, relative to the definition. The distribution's own unless said.
    pub signed_by: Option<String>,
    /// Whether an expired `Valid-Until` is an error.
    #[serde(default = "yes")]
    pub check_valid_until: bool,
}

/// `[[files]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilesDefinition {
    /// A file or a directory of the project, relative to the definition.
    pub from: String,
    /// Its absolute place in the root; ends in `/` where the name stays. Only scripts see it unless said.
    pub to: Option<String>,
    /// The layer that gets it; the last one unless said.
    pub layer: Option<String>,
    /// `USER` or `USER:GROUP`, names of the root or numbers; `root:root` unless said.
    pub owner: Option<String>,
    /// Permission bits of files in octal, `0644` or, for programs, `0755` unless said. A directory can be entered by those
    /// who can read in it.
    pub mode: Option<String>,
}

/// `[system]`: overrides for what Kiln adds by itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SystemDefinition {
    /// The kernel's package.
    pub kernel: Option<String>,
    /// Firmware packages.
    pub firmware: Option<Vec<String>>,
    /// Further packages for the lowest layer.
    #[serde(default)]
    pub add: Vec<String>,
    /// Packages that Kiln would add, but shall not.
    #[serde(default)]
    pub without: Vec<String>,
    /// Replaces the distribution's default repositories with those given here and in the kickstart files.
    #[serde(default)]
    pub no_default_repositories: bool,
}

/// `[disk]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskDefinition {
    /// `gpt` or `mbr`; `gpt` unless said.
    pub layout: Option<String>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsDefinition {
    /// Minutes that a step may take.
    pub step_minutes: Option<u32>,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// MiB of memory of all processes of a step together, with what they put into `/tmp`, `/run` and `/dev/shm`.
    pub memory_mib: Option<u64>,
    /// MiB that `/tmp` can hold.
    pub tmp_mib: Option<u64>,
    /// MiB that `/run` can hold.
    pub run_mib: Option<u64>,
    /// MiB that `/dev/shm` can hold.
    pub shm_mib: Option<u64>,
}

/// `[profile.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProfileDefinition {
    /// `CODEC` or `CODEC:LEVEL`.
    pub compression: Option<String>,
    /// SquashFS block size in bytes, a power of two from 4096 to 1048576.
    pub block_size: Option<u32>,
    /// Artifact formats: `raw`, `tar.gz`.
    pub formats: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}
