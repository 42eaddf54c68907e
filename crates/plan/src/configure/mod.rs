//! Kickstart commands as changes of a root.
//!
//! [`lower`] is pure: commands of one layer become [`Change`]s (lists of [`Action`]s) and [`Notice`]s, and each
//! change says which packages it needs, so that the plan can ask for them before anything is resolved.
//! `rootfs::changes` executes the changes inside a root.
//!
//! Within a layer the order of execution is fixed (accounts before keys, files before services), as in an
//! installer; [`ORDER`] has it. Between layers it is the order of the layers: a higher layer has the last word.
//!
//! What differs between distributions is asked of [`Conventions`].

mod accounts;
mod action;
mod certificate;
mod draft;
mod firewall;
pub mod groups;
mod keyboard;
mod lang;
mod nearest;
mod network;
mod password;
mod planned;
mod security;
mod services;
mod session;
mod sshkey;
mod table;
mod time;

use std::collections::BTreeSet;

use kiln_kickstart::Command;
use serde::{Deserialize, Serialize};

pub use action::{Account, Action, Secret, XkbLayout};
pub use nearest::{did_you_mean, nearest};
pub use table::{Entry, Handling, RPM, TABLE, entry, markdown};

use crate::Conventions;
use draft::Draft;

/// A command line with its place.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What it says.
    pub command: &'a Command,
    /// `file:line`.
    pub origin: &'a str,
}

/// What lowering may ask about the rest of the definition.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose conventions the root follows.
    pub conventions: Conventions,
    /// Names of packages that the definition asks for, over all layers and Kiln's own additions. They decide
    /// where there are several ways (firewalld or nftables, chrony or systemd-timesyncd).
    pub packages: &'a BTreeSet<String>,
    /// Names of packages that the definition excludes.
    pub excluded: &'a BTreeSet<String>,
    /// Names the definition. Salts of password hashes are made from it and the user's name, never from
    /// the password, so that the same definition gives the same bytes.
    pub salt: &'a str,
}

/// What one command changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `file:line`.
    pub origin: String,
    /// The command's name.
    pub command: String,
    /// What is done, in order.
    pub actions: Vec<Action>,
    /// Packages that must be in the root.
    pub needs: Vec<Need>,
}

/// A package that a command needs in the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Need {
    /// Its name.
    pub package: String,
    /// Why, for `kiln plan` (`lang: generates locales`).
    pub why: String,
    /// `file:line` of the command.
    pub origin: String,
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Says what happens; nothing is to be done.
    Note,
    /// Something that was asked for does not happen, or not quite so.
    Warning,
    /// The build cannot go on.
    Error,
}

/// Something to be said about a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `file:line`.
    pub origin: String,
    /// How much it matters.
    pub level: Level,
    /// One sentence, beginning with the command.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What the commands of a layer mean for its root: the result of [`lower`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// In the order of execution.
    pub changes: Vec<Change>,
    /// In the order of the lines.
    pub notices: Vec<Notice>,
}

/// All packages that changes need, each once.
pub fn needs(changes: &[Change]) -> Vec<Need> {
    let mut seen = BTreeSet::new();
    let all = changes.iter().flat_map(|c| &c.needs);
    all.filter(|n| seen.insert(n.package.as_str()))
        .cloned()
        .collect()
}

/// The order in which the commands of a layer are executed.
pub const ORDER: &[&str] = &[
    "lang",
    "keyboard",
    "timezone",
    "timesource",
    "network",
    "authselect",
    "group",
    "user",
    "rootpw",
    "sshkey",
    "firewall",
    "selinux",
    "xconfig",
    "skipx",
    "firstboot",
    "eula",
    "services",
];

/// Commands that may be given several times, each line for itself.
const REPEATABLE: &[&str] = &[
    "timesource",
    "network",
    "group",
    "user",
    "sshkey",
    "part",
    "repo",
];

/// Lowers the commands of one layer, given in source order.
///
/// Nothing is dropped: a command without changes has a notice that says what happens to it.
pub fn lower(lines: &[Line<'_>], context: &Context<'_>) -> Meaning {
    let mut meaning = Meaning::default();
    let merged = merge(lines, &mut meaning.notices);
    let mut drafts: Vec<(usize, Draft<'_>)> = Vec::new();
    for line in &merged {
        let mut draft = Draft::new(context, &line.command, &line.origin);
        lower_one(&mut draft, &merged);
        drafts.push((rank(&line.command.name), draft));
    }
    // Stable: lines of one command keep their order.
    drafts.sort_by_key(|(rank, _)| *rank);
    for (_, draft) in drafts {
        draft.finish(&mut meaning);
    }
    let place = |origin: &str| lines.iter().position(|l| l.origin == origin);
    meaning.notices.sort_by_key(|n| place(&n.origin));
    meaning
}

/// Lowers a `%certificate` section, given as a command of that name with the section's text.
pub fn lower_certificate(line: Line<'_>, body: &str, context: &Context<'_>) -> Meaning {
    let mut meaning = Meaning::default();
    let mut draft = Draft::new(context, line.command, line.origin);
    certificate::lower(&mut draft, body);
    draft.finish(&mut meaning);
    meaning
}

/// A line of a command that may be repeated, or all lines of one that may not.
struct Merged {
    command: Command,
    origin: String,
}

fn rank(command: &str) -> usize {
    ORDER
        .iter()
        .position(|c| *c == command)
        .unwrap_or(ORDER.len())
}

/// Joins the lines of commands that are not repeatable as the reference does: an option with a value keeps it until a
/// later line sets it anew, switches count in the last line only.
fn merge(lines: &[Line<'_>], notices: &mut Vec<Notice>) -> Vec<Merged> {
    let mut merged: Vec<Merged> = Vec::new();
    for line in lines {
        let earlier = merged
            .iter()
            .position(|m| m.command.name == line.command.name)
            .filter(|_| !REPEATABLE.contains(&line.command.name.as_str()));
        let mut command = line.command.clone();
        if let Some(index) = earlier {
            let earlier = merged.remove(index);
            notices.push(superseded(&earlier, line));
            command = join(earlier.command, command);
        }
        merged.push(Merged {
            command,
            origin: line.origin.to_owned(),
        });
    }
    merged
}

fn superseded(earlier: &Merged, line: &Line<'_>) -> Notice {
    Notice {
        origin: earlier.origin.clone(),
        // Where that takes something back in one file, the reader of the language warns of it.
        level: Level::Note,
        message: format!(
            "{}: given again at {}; what both lines set is taken from there",
            line.command.name, line.origin
        ),
        hint: None,
    }
}

fn join(earlier: Command, later: Command) -> Command {
    let mut joined = later;
    let mut options = earlier.options;
    options.retain(|o| {
        !matches!(o.value, kiln_kickstart::Value::Flag(_)) || firewall::is_service_switch(&o.name)
    });
    options.append(&mut joined.options);
    joined.options = options;
    if joined.args.is_empty() {
        joined.args = earlier.args;
    }
    joined
}

/// One command. The other commands of the layer are there for those that read several (`timezone` and `timesource`).
fn lower_one(draft: &mut Draft<'_>, all: &[Merged]) {
    match draft.command.name.as_str() {
        "lang" => lang::lower(draft),
        "keyboard" => keyboard::lower(draft),
        "timezone" => time::timezone(draft, all.iter().any(|m| m.command.name == "timesource")),
        "timesource" => {
            let sources: Vec<&Command> = all
                .iter()
                .map(|m| &m.command)
                .filter(|c| c.name == "timesource")
                .collect();
            time::timesource(draft, &sources);
        }
        "network" => network::lower(draft),
        "authselect" => security::authselect(draft),
        "selinux" => security::selinux(draft),
        "group" => accounts::group(draft),
        "user" => accounts::user(draft),
        "rootpw" => accounts::rootpw(draft),
        "sshkey" => sshkey::lower(draft),
        "firewall" => firewall::lower(draft),
        "xconfig" => session::xconfig(draft, all.iter().any(|m| m.command.name == "skipx")),
        "skipx" => session::skipx(draft),
        "firstboot" => session::firstboot(draft),
        "eula" => session::eula(draft),
        "services" => services::lower(draft),
        "part" => planned::part(draft),
        "url" | "repo" => planned::repository(draft),
        "bootloader" => planned::bootloader(draft),
        "autopart" => planned::autopart(draft),
        _ => table::answer(draft),
    }
}
