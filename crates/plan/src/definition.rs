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
#[serde(try_from = "RepositoryFields")]
pub enum RepositoryDefinition {
    /// With `url` and `suite`.
    Debian(DebianRepositoryDefinition),
    /// With `name`.
    Rpm(RpmRepositoryDefinition),
}

/// `[[repository]]` in Debian's format.
#[derive(Clone, Debug, PartialEq)]
pub struct DebianRepositoryDefinition {
    /// Base URL, what comes before `/dists`.
    pub url: String,
    /// Suite or codename; ends in `/` for a flat repository.
    pub suite: String,
    /// Components; empty only for a flat repository.
    pub components: Vec<String>,
    /// OpenPGP public keys, armored or binary, relative to the definition. The distribution's own unless said.
    pub signed_by: Option<String>,
    /// Whether an expired `Valid-Until` is an error.
    pub check_valid_until: bool,
}

/// `[[repository]]` of RPM packages. Without an address it adds to the kickstart files' repository of its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RpmRepositoryDefinition {
    /// Its name; that of a kickstart's `url` is `url`.
    pub name: String,
    /// Base URLs, all with the same content.
    pub baseurl: Vec<String>,
    /// The URL of a list of base URLs.
    pub mirrorlist: Option<String>,
    /// The URL of a metalink.
    pub metalink: Option<String>,
    /// OpenPGP public keys, armored or binary, relative to the definition. The distribution's own unless said.
    pub key: Option<String>,
    /// Of two equal packages the one of the lower cost is taken; 1000 unless said.
    pub cost: Option<i64>,
    /// Globs of the packages that are taken from it; all unless said.
    pub include: Vec<String>,
    /// Globs of packages that are not taken from it.
    pub exclude: Vec<String>,
    /// What its downloads go through; as the environment says unless said.
    pub proxy: Option<String>,
    /// Whether its metadata has to be signed.
    pub repo_gpgcheck: Option<bool>,
}

/// All that `[[repository]]` can have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RepositoryFields {
    url: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    components: Vec<String>,
    signed_by: Option<String>,
    check_valid_until: Option<bool>,
    name: Option<String>,
    baseurl: Option<OneOrMore>,
    mirrorlist: Option<String>,
    metalink: Option<String>,
    key: Option<String>,
    cost: Option<i64>,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    proxy: Option<String>,
    repo_gpgcheck: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl TryFrom<RepositoryFields> for RepositoryDefinition {
    type Error = String;

    fn try_from(fields: RepositoryFields) -> Result<Self, String> {
        let debian = fields.debian();
        let rpm = fields.rpm();
        match (debian, rpm) {
            (Some(debian), Some(rpm)) => Err(format!(
                "`{debian}` is for a repository in Debian's format and `{rpm}` for one of RPM packages: [[repository]] is one of them"
            )),
            (_, Some(_)) => fields.into_rpm().map(RepositoryDefinition::Rpm),
            (_, None) => fields.into_debian().map(RepositoryDefinition::Debian),
        }
    }
}

impl RepositoryFields {
    /// A field that only repositories in Debian's format have.
    fn debian(&self) -> Option<&'static str> {
        let said = [
            ("url", self.url.is_some()),
            ("suite", self.suite.is_some()),
            ("components", !self.components.is_empty()),
            ("signed-by", self.signed_by.is_some()),
            ("check-valid-until", self.check_valid_until.is_some()),
        ];
        first(&said)
    }

    /// A field that only repositories of RPM packages have.
    fn rpm(&self) -> Option<&'static str> {
        let said = [
            ("baseurl", self.baseurl.is_some()),
            ("mirrorlist", self.mirrorlist.is_some()),
            ("metalink", self.metalink.is_some()),
            ("name", self.name.is_some()),
            ("key", self.key.is_some()),
            ("cost", self.cost.is_some()),
            ("include", !self.include.is_empty()),
            ("exclude", !self.exclude.is_empty()),
            ("proxy", self.proxy.is_some()),
            ("repo-gpgcheck", self.repo_gpgcheck.is_some()),
        ];
        first(&said)
    }

    fn into_debian(self) -> Result<DebianRepositoryDefinition, String> {
        Ok(DebianRepositoryDefinition {
            url: self.url.ok_or("missing field `url`")?,
            suite: self.suite.ok_or("missing field `suite`")?,
            components: self.components,
            signed_by: self.signed_by,
            check_valid_until: self.check_valid_until.unwrap_or(true),
        })
    }

    fn into_rpm(self) -> Result<RpmRepositoryDefinition, String> {
        let name = self.name.ok_or("missing field `name`")?;
        let fit = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if name.is_empty() || !name.chars().all(fit) {
            return Err(format!(
                "name = {name:?}: a repository's name has letters, digits and - _ . : only"
            ));
        }
        let baseurl = match self.baseurl {
            None => Vec::new(),
            Some(OneOrMore::One(url)) => vec![url],
            Some(OneOrMore::More(urls)) if urls.is_empty() => {
                return Err("baseurl = [] has no URL".to_owned());
            }
            Some(OneOrMore::More(urls)) => urls,
        };
        let places = [
            !baseurl.is_empty(),
            self.mirrorlist.is_some(),
            self.metalink.is_some(),
        ];
        if places.iter().filter(|said| **said).count() > 1 {
            return Err(format!(
                "the repository {name} has more than one of baseurl, mirrorlist and metalink"
            ));
        }
        Ok(RpmRepositoryDefinition {
            name,
            baseurl,
            mirrorlist: self.mirrorlist,
            metalink: self.metalink,
            key: self.key,
            cost: self.cost,
            include: self.include,
            exclude: self.exclude,
            proxy: self.proxy,
            repo_gpgcheck: self.repo_gpgcheck,
        })
    }
}

fn first(said: &[(&'static str, bool)]) -> Option<&'static str> {
    said.iter().find(|(_, said)| *said).map(|(name, _)| *name)
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
