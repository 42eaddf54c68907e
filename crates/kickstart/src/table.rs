//! The table of commands, sections and options that drives the parser.
//!
//! `data/options.json` holds it: for every command and section a list of variants, each with the versions in
//! which it holds. It is parsed once, on first use.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::Version;

/// What a version makes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is read and takes effect.
    Active,
    /// It is read, warned about and dropped.
    Deprecated,
    /// It is an error.
    Removed,
}

/// What an option does with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArgumentKind {
    /// Stores one value; the last one counts.
    Value,
    /// Takes no value.
    Switch,
    /// Every repetition adds one value.
    Repeat,
    /// Every repetition adds a list of values.
    Extend,
}

/// How many words a positional argument takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Count {
    /// Exactly one.
    #[default]
    One,
    /// None or one.
    Optional,
    /// Any number.
    Many,
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match (value.as_str(), value.as_u64()) {
            (_, Some(1)) => Ok(Count::One),
            (Some("?"), _) => Ok(Count::Optional),
            (Some("*"), _) => Ok(Count::Many),
            _ => Err(serde::de::Error::custom("expected 1, \"?\" or \"*\"")),
        }
    }
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub enum ValueType {
    /// Any text.
    #[default]
    #[serde(rename = "text")]
    Text,
    /// A whole number.
    #[serde(rename = "int")]
    Integer,
    /// Words separated by commas.
    #[serde(rename = "commaSplit")]
    CommaList,
    /// A mount point, which is normalised.
    #[serde(rename = "mountpoint")]
    MountPoint,
    /// `yes`, `no`, `on`, `off`, `true`, `false`, `1`, `0`.
    #[serde(rename = "ksboolean")]
    Boolean,
    /// A Btrfs RAID level.
    #[serde(rename = "level_cb")]
    BtrfsLevel,
    /// A partition with or without `/dev/`.
    #[serde(rename = "part_cb")]
    Partition,
    /// Ports as `port[:protocol]`, separated by commas.
    #[serde(rename = "firewall_port_cb")]
    FirewallPorts,
    /// The scheme of `autopart --type`.
    #[serde(rename = "_type_cb")]
    AutopartType,
    /// `network --teamslaves`.
    #[serde(rename = "_teamslaves_cb")]
    TeamSlaves,
    /// An MD device name.
    #[serde(rename = "_device_cb")]
    RaidDevice,
    /// An MD RAID level.
    #[serde(rename = "_level_cb")]
    RaidLevel,
    /// `snapshot --when`.
    #[serde(rename = "_when_cb")]
    SnapshotTime,
}

/// One option or positional argument.
#[derive(Clone, Debug, Deserialize)]
pub struct Argument {
    /// The spellings with their dashes, the canonical one first; empty for a positional argument.
    #[serde(default, rename = "opts")]
    pub names: Vec<String>,
    /// The key under which the value is kept: options with the same key overwrite each other.
    #[serde(rename = "dest")]
    pub key: String,
    /// What happens with the value.
    pub kind: ArgumentKind,
    /// How many words it takes; for options always one.
    #[serde(default, rename = "nargs")]
    pub count: Count,
    /// What a value must look like.
    #[serde(default, rename = "type")]
    pub value_type: ValueType,
    /// The values that are allowed; empty when all are.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// Whether it is only warned about.
    #[serde(default)]
    pub deprecated: bool,
    /// Whether a later line of the same command that does not give it puts it back to its default; otherwise the
    /// value of an earlier line stays.
    #[serde(default)]
    pub resets: bool,
}

/// What a command is in some versions.
#[derive(Clone, Debug, Deserialize)]
pub struct CommandVariant {
    /// The versions in which this holds.
    pub versions: Vec<Version>,
    /// The reference's name for it: decides the place in flattened output.
    pub class: String,
    /// Active, deprecated or removed.
    pub state: State,
    /// Whether several lines add up; otherwise the last one counts.
    pub repeatable: bool,
    /// The place in flattened output, lower first; `None` where it is never written.
    #[serde(default)]
    pub priority: Option<u32>,
    /// Commands that must not stand in the same file.
    pub conflicts: Vec<String>,
    /// Its options and positional arguments.
    #[serde(rename = "args")]
    pub arguments: Vec<Argument>,
}

/// A command with all its variants.
#[derive(Clone, Debug)]
pub struct CommandEntry {
    /// The name as written.
    pub name: String,
    /// What it is, by version; versions that lack it are in none.
    pub variants: Vec<CommandVariant>,
}

impl CommandEntry {
    /// Returns the variant of a version, if the version has the command.
    pub fn variant(&self, version: Version) -> Option<&CommandVariant> {
        self.variants.iter().find(|v| v.versions.contains(&version))
    }

    /// Returns the versions in which the command is active.
    pub fn active_in(&self) -> Vec<Version> {
        let active = self.variants.iter().filter(|v| v.state == State::Active);
        active.flat_map(|v| v.versions.iter().copied()).collect()
    }
}

/// Returns all commands of all versions, by name.
pub fn command_table() -> &'static [CommandEntry] {
    &table().commands
}

pub(crate) fn command(name: &str) -> Option<&'static CommandEntry> {
    let table = table();
    let index = *table.by_name.get(name)?;
    table.commands.get(index)
}

/// The options of a section's header; empty where it takes none or is opaque.
pub(crate) fn section_arguments(name: &str, version: Version) -> &'static [Argument] {
    let variants = table().sections.get(name);
    variants
        .and_then(|all| all.iter().find(|v| v.versions.contains(&version)))
        .map_or(&[], |v| &v.arguments)
}

/// The names of all sections, with the per cent sign.
pub(crate) const SECTIONS: [&str; 9] = [
    "%packages",
    "%pre",
    "%pre-install",
    "%post",
    "%onerror",
    "%traceback",
    "%certificate",
    "%addon",
    "%anaconda",
];

#[derive(Deserialize)]
struct SectionVariant {
    versions: Vec<Version>,
    #[serde(rename = "args")]
    arguments: Vec<Argument>,
}

#[derive(Deserialize)]
struct Raw {
    commands: std::collections::BTreeMap<String, Vec<CommandVariant>>,
    sections: HashMap<String, Vec<SectionVariant>>,
}

struct Table {
    commands: Vec<CommandEntry>,
    by_name: HashMap<String, usize>,
    sections: HashMap<String, Vec<SectionVariant>>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        // The data is part of the program: a test parses it, so no input can reach this.
        let raw: Raw = serde_json::from_str(include_str!("../data/options.json"))
            .expect("data/options.json is checked by a test");
        let entries = raw.commands.into_iter();
        let commands: Vec<_> = entries
            .map(|(name, variants)| CommandEntry { name, variants })
            .collect();
        let names = commands.iter().enumerate();
        Table {
            by_name: names.map(|(i, c)| (c.name.clone(), i)).collect(),
            commands,
            sections: raw.sections,
        }
    })
}
