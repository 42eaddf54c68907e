//! The plan: everything decided, nothing of the host in it.

use kiln_kickstart::{Certificate, Command, PackageRef, Script, Value};
use serde::{Deserialize, Serialize};

use crate::configure::{self, Change, Need, Notice};
use crate::{Conventions, Disk, Hasher, Id};

/// What will be built. Its JSON can be read back, to show or compare it; a build needs the definition, because secrets are left
/// out of it ([`HIDDEN`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Names the image.
    pub name: String,
    /// What is built for.
    pub target: Target,
    /// Repositories in order; empty if the distribution's defaults are meant (see `default_repositories`).
    pub repositories: Vec<Repository>,
    /// RPM repositories in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rpm_repositories: Vec<RpmRepository>,
    /// Whether the distribution's own repositories come first.
    pub default_repositories: bool,
    /// What Kiln adds by itself.
    pub system: System,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The boot menu.
    pub boot: Boot,
    /// The disk.
    pub disk: Disk,
    /// What a step may take.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// How the root is compressed.
    pub compression: Compression,
    /// What is written.
    pub formats: Vec<Format>,
}

/// What a step may take. It changes no result, so no id has it. `None`: as it fits the machine that builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Minutes after which a step is ended.
    pub step_minutes: u32,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// Bytes of memory of all processes of a step together.
    pub memory: Option<u64>,
    /// Bytes that `/tmp` can hold.
    pub tmp: Option<u64>,
    /// Bytes that `/run` can hold.
    pub run: Option<u64>,
    /// Bytes that `/dev/shm` can hold.
    pub shm: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            step_minutes: 120,
            processes: None,
            memory: None,
            tmp: None,
            run: None,
            shm: None,
        }
    }
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Limits::default()
    }
}

/// Distribution, release and architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `debian`.
    pub distribution: String,
    /// `bookworm`.
    pub release: String,
    /// `amd64`, as the distribution calls it.
    pub architecture: String,
}

/// A distribution that a caller of [`crate::lower`] knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// What `--distribution` calls it.
    pub name: String,
    /// The conventions that its roots follow.
    pub conventions: Conventions,
    /// Its word for the 64-bit PC.
    pub architecture: String,
    /// The packages that every image has, each with the reason.
    pub packages: Vec<Added>,
}

impl Target {
    /// Which packages it is made of; `None` of a distribution that Kiln does not know by itself.
    pub fn conventions(&self) -> Option<Conventions> {
        Conventions::of(&self.distribution)
    }

    /// The level of x86-64 that its programs are made for, from 1 to 3.
    pub fn processor_level(&self) -> u8 {
        let major = self
            .release
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        match (self.distribution.as_str(), major) {
            ("almalinux" | "centos" | "rhel" | "rocky", Some(10u32..)) => 3,
            ("almalinux" | "centos" | "rhel" | "rocky", Some(9)) => 2,
            _ => 1,
        }
    }
}

/// An RPM repository. `$releasever` and `$basearch` stand as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpmRepository {
    /// Its id; `url` for the first one, which has no name.
    pub name: String,
    /// Where its packages are found.
    pub source: RpmSource,
    /// Which of two equal packages is taken; the lower one wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<i64>,
    /// Globs of packages that are not taken from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Globs of packages that are taken from it; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Whether the image knows it, too.
    pub install: bool,
    /// Key material where it is not the distribution's own: name for messages, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<(String, Vec<u8>)>,
    /// What its downloads go through, where it is said; `_none_` for nothing. Its password is not shown.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "without_password"
    )]
    pub proxy: Option<String>,
    /// Whether its metadata has to be signed, where it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_metadata: Option<bool>,
    /// `file:line` that brought it.
    pub origin: String,
}

impl RpmRepository {
    /// The proxy for people and programs that read: without its password.
    pub fn shown_proxy(&self) -> Option<String> {
        self.proxy.as_deref().map(shown_proxy)
    }
}

/// How the packages of an RPM repository are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RpmSource {
    /// `--baseurl`, `--url`: all have the same content.
    Base(Vec<String>),
    /// `--mirrorlist`
    MirrorList(String),
    /// `--metalink`
    MetaLink(String),
    /// A bare `repo --name=updates`: the distribution's own repository of that name.
    Known,
}

/// A package repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Base URL.
    pub url: String,
    /// Suite.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// Key material where it is not the distribution's own: name for messages, bytes.
    pub keys: Option<(String, Vec<u8>)>,
    /// Whether an expired Release is an error.
    pub check_valid_until: bool,
    /// `file:line` that brought it.
    pub origin: String,
}

/// What Kiln adds by itself, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Packages of the lowest layer.
    pub packages: Vec<Added>,
    /// Packages that images of other releases get, but this release does not have, each with the reason why it can do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Added>,
    /// `[system] kernel`, if it was said: the package whose kernel boots where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A package that Kiln adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Its name.
    pub package: String,
    /// Why, for `kiln plan`.
    pub why: String,
}

/// One kickstart file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// The file's name without its ending.
    pub name: String,
    /// What `%packages` asks for, in order.
    pub packages: Vec<Request>,
    /// Options of `%packages`.
    pub package_options: PackageOptions,
    /// Commands in source order.
    #[serde(serialize_with = "without_secrets")]
    pub commands: Vec<Located<Command>>,
    /// Certificates in source order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Located<Certificate>>,
    /// Files of the project, parents before what is in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ProjectFile>,
    /// `%pre-install` scripts in source order: they run before the layer's packages are installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_install: Vec<Located<Script>>,
    /// `%post` scripts in source order.
    pub scripts: Vec<Located<Script>>,
    /// What the commands and certificates change in the root, in the order of execution. It follows from the rest of the
    /// plan and holds passwords and keys, so it is in no id and is shown nowhere.
    #[serde(skip)]
    pub changes: Vec<Change>,
    /// What is to be said about the commands and certificates.
    #[serde(skip)]
    pub notices: Vec<Notice>,
}

impl Layer {
    /// A layer that does nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Layer {
            name: name.into(),
            packages: Vec::new(),
            package_options: PackageOptions::default(),
            commands: Vec::new(),
            certificates: Vec::new(),
            files: Vec::new(),
            pre_install: Vec::new(),
            scripts: Vec::new(),
            changes: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// The packages that the changes need, each once.
    pub fn needs(&self) -> Vec<Need> {
        configure::needs(&self.changes)
    }

    /// The commands that go into the id of the step that executes them: names, options and words, no places.
    pub fn command_id(&self) -> Id {
        let hasher = self
            .commands
            .iter()
            .fold(Hasher::new("commands.v1"), |h, c| {
                h.id("command", command_id(&c.item))
            });
        self.certificates
            .iter()
            .fold(hasher, |h, c| {
                let certificate = &c.item;
                h.json(
                    "certificate",
                    &(&certificate.filename, &certificate.dir, &certificate.kind),
                )
                .text("pem", &certificate.body)
            })
            .finish()
    }
}

/// A file of the project that a layer gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectFile {
    /// Its path in the project's directory, under which scripts see it.
    pub from: String,
    /// Its absolute place in the root; `None`: only scripts see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What it is, with its content.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// User and group, names of the root or numbers.
    pub owner: (String, String),
    /// Where it was said.
    pub origin: String,
}

/// Kinds of files that a project can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of its content.
        sha256: Id,
    },
    /// A symbolic link with its text.
    Link(String),
}

impl ProjectFile {
    /// Whether it belongs to root, who is there before any account is made.
    pub fn is_roots(&self) -> bool {
        let root = |name: &String| name == "root" || name == "0";
        root(&self.owner.0) && root(&self.owner.1)
    }

    /// All that decides what it is in the root and what scripts see of it.
    pub fn id(&self) -> Id {
        let ProjectFile {
            from,
            to,
            what,
            mode,
            owner,
            origin: _,
        } = self;
        Hasher::new("file.v1")
            .json("file", &(from, to, what, mode, owner))
            .finish()
    }
}

/// Commands as a plan shows them: passwords and keys stay out of what is printed, stored or sent.
fn without_secrets<S: serde::Serializer>(
    commands: &[Located<Command>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(commands.iter().map(|located| {
        let mut shown = located.clone();
        redact(&mut shown.item);
        shown
    }))
}

fn without_password<S: serde::Serializer>(
    proxy: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown = proxy.as_deref().map(shown_proxy);
    shown.serialize(serializer)
}

/// A proxy's address without user name and password.
fn shown_proxy(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{HIDDEN}@{host}"),
        None => proxy.to_owned(),
    }
}

/// What replaces a secret where people or programs read.
pub const HIDDEN: &str = "«secret»";

fn redact(command: &mut Command) {
    if matches!(command.name.as_str(), "rootpw" | "sshpw" | "autopart") {
        command
            .args
            .iter_mut()
            .for_each(|arg| *arg = HIDDEN.to_owned());
    }
    const SECRET: &[&str] = &[
        "--password",
        "--passphrase",
        "--wpakey",
        "--wepkey",
        "--bindpw",
    ];
    for option in command
        .options
        .iter_mut()
        .filter(|o| SECRET.contains(&o.name.as_str()))
    {
        option.value = Value::Text(HIDDEN.to_owned());
    }
}

fn command_id(command: &Command) -> Id {
    let mut hasher = Hasher::new("command.v1").text("name", &command.name);
    for option in &command.options {
        let (kind, text) = match &option.value {
            Value::Flag(on) => ("flag", on.to_string()),
            Value::Int(number) => ("int", number.to_string()),
            Value::Text(text) => ("text", text.clone()),
            Value::List(words) => ("list", words.join("\0")),
        };
        hasher = hasher.text("option", &option.name).text(kind, &text);
    }
    command
        .args
        .iter()
        .fold(hasher, |h, arg| h.text("arg", arg))
        .finish()
}

/// Something with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located<T> {
    /// `file:line`.
    pub origin: String,
    /// The thing.
    pub item: T,
}

/// A line of `%packages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `file:line`.
    pub origin: String,
    /// Whether it is kept out.
    pub exclude: bool,
    /// What it names.
    pub what: PackageRef,
}

/// Options of `%packages`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageOptions {
    /// `--nocore`
    pub no_core: bool,
    /// `--excludedocs`
    pub exclude_docs: bool,
    /// `--ignoremissing`
    pub ignore_missing: bool,
    /// `--exclude-weakdeps`
    pub exclude_weak: bool,
    /// `--inst-langs`, if given: locales that are kept.
    pub languages: Option<Vec<String>>,
    /// `--multilib`, where a distribution has packages of several architectures in one repository. Left out where it is not said, so
    /// that the ids of what was made before stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multilib: bool,
}

/// The boot menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Shown in the menu.
    pub title: String,
    /// Further kernel arguments, in order.
    pub append: Vec<String>,
    /// Seconds.
    pub timeout: u32,
    /// The entry that starts by itself.
    pub default: MenuEntry,
}

/// An entry of the boot menu.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MenuEntry {
    /// From the stick.
    #[default]
    Start,
    /// Copied to memory first.
    Ram,
    /// With safe graphics.
    Safe,
}

impl MenuEntry {
    /// Its id in the menu.
    pub fn id(self) -> &'static str {
        match self {
            MenuEntry::Start => "start",
            MenuEntry::Ram => "ram",
            MenuEntry::Safe => "safe",
        }
    }

    /// The entry that `bootloader --default` names, by its id or its place in the menu.
    pub(crate) fn read(said: &str) -> Option<MenuEntry> {
        match said {
            "start" | "0" => Some(MenuEntry::Start),
            "ram" | "1" => Some(MenuEntry::Ram),
            "safe" | "2" => Some(MenuEntry::Safe),
            _ => None,
        }
    }
}

/// SquashFS compression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Which.
    pub codec: Codec,
    /// Level in the codec's own scale; `None` where it has none.
    pub level: Option<u32>,
    /// Block size in bytes.
    pub block_size: u32,
}

/// A SquashFS codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// zlib.
    Gzip,
    /// Zstandard.
    Zstd,
    /// LZMA2 in xz.
    Xz,
    /// LZ4 HC.
    Lz4,
}

/// An artifact's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `disk.raw`
    Raw,
    /// `disk.tar.gz` with `disk.raw` in it.
    TarGz,
}

impl Plan {
    /// The plan's id: of everything but the places in files.
    pub fn id(&self) -> Id {
        let mut hasher = Hasher::new("plan.v1")
            .text("name", &self.name)
            .json("target", &self.target)
            .json("boot", &self.boot)
            .json("disk", &self.disk.identity())
            .json("compression", &self.compression)
            .json("formats", &self.formats)
            .id("request", self.request_id());
        if let Some(kernel) = &self.system.kernel {
            hasher = hasher.text("kernel", kernel);
        }
        for layer in &self.layers {
            hasher = hasher
                .text("layer", &layer.name)
                .id("commands", layer.command_id());
            for file in &layer.files {
                hasher = hasher.id("file", file.id());
            }
            for script in layer.pre_install.iter().chain(&layer.scripts) {
                hasher = hasher.id("script", script_id(&script.item));
            }
        }
        hasher.finish()
    }

    /// The id of all that decides which packages are chosen; `kiln.lock` carries it to know when it is stale.
    pub fn request_id(&self) -> Id {
        let mut hasher = Hasher::new("request.v1")
            .json("target", &self.target)
            .json("default-repositories", &self.default_repositories)
            .json(
                "system",
                &self
                    .system
                    .packages
                    .iter()
                    .map(|p| &p.package)
                    .collect::<Vec<_>>(),
            );
        for repository in &self.repositories {
            let Repository {
                url,
                suite,
                components,
                keys,
                check_valid_until,
                origin: _,
            } = repository;
            let keys = keys.as_ref().map(|(_, bytes)| hex::encode(bytes));
            hasher = hasher.json(
                "repository",
                &(url, suite, components, keys, check_valid_until),
            );
        }
        for repository in &self.rpm_repositories {
            let RpmRepository {
                name,
                source,
                cost,
                exclude,
                include,
                install,
                keys,
                // How files come changes none of them.
                proxy: _,
                signed_metadata,
                origin: _,
            } = repository;
            let keys = keys.as_ref().map(|(_, bytes)| hex::encode(bytes));
            let filters = (cost, exclude, include);
            hasher = hasher.json(
                "rpm-repository",
                &(name, source, filters, install, keys, signed_metadata),
            );
        }
        for layer in &self.layers {
            hasher = hasher
                .text("layer", &layer.name)
                .json("options", &layer.package_options);
            for request in &layer.packages {
                hasher = hasher.json("item", &(request.exclude, &request.what));
            }
            // Commands bring packages of their own (`lang` needs locales), so they count as well.
            hasher = hasher.id("commands", layer.command_id());
        }
        hasher.finish()
    }
}

/// The id of a script: all that decides what it does.
pub fn script_id(script: &Script) -> Id {
    Hasher::new("script.v1")
        .json("kind", &script.kind)
        .text("interpreter", &script.interpreter)
        .json("chroot", &script.chroot)
        .json("log", &script.log)
        .json("error-on-fail", &script.error_on_fail)
        .text("body", &script.body)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kickstart::{NoIncludes, Options, parse};

    #[test]
    fn passwords_are_not_shown() {
        let text = b"rootpw --plaintext hunter2\nuser --name=u --password=hunter2\n";
        let parsed = parse("t.ks", text, &Options::default(), &mut NoIncludes);
        let commands = parsed.kickstart.items.iter().filter_map(|item| match item {
            kiln_kickstart::Item::Command(command) => Some(Located {
                origin: "t.ks:1".to_owned(),
                item: command.clone(),
            }),
            _ => None,
        });
        let layer = Layer {
            commands: commands.collect(),
            ..Layer::new("t")
        };
        let shown = serde_json::to_string(&layer).unwrap();
        assert_eq!(layer.commands.len(), 2);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
