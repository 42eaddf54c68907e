//! Why a layer is made although there is one of its kind: the inputs of the stored one are kept beside it, and compared.
//!
//! ```text
//! <layer>/inputs.json    what the layer is for, and each input: its kind, its name, a value for people or a short digest
//! ```
//! Only the id decides whether a layer is reused; this is for people. Digests are cut to 32 bits: enough to tell that
//! something changed, too little to find a password by trying.

use std::collections::BTreeMap;
use std::fs;
use std::time::SystemTime;

use kiln_packages::LockedPackage;
use kiln_plan::{Hasher, Id};
use kiln_rootfs::{Layer, Store};
use serde::{Deserialize, Serialize};

use crate::values::INPUTS;

/// Names that are said of each kind of change.
const SAID: usize = 3;

/// The id of a step in the making, and what goes into it.
#[derive(Clone)]
pub(crate) struct Inputs {
    hasher: Hasher,
    note: Note,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    role: String,
    inputs: Vec<Input>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    kind: Kind,
    name: String,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Package,
    Command,
    File,
    Script,
    /// One of its kind; the name is a sentence's subject.
    Single,
    /// The layers below. Said only when nothing else changed: it changes with every other reason further down.
    Below,
}

impl Inputs {
    /// `role` is what stays the same when the inputs change: whose layer it is, and for what.
    pub(crate) fn new(kind: &str, role: String) -> Self {
        let note = Note {
            role,
            inputs: Vec::new(),
        };
        Inputs {
            hasher: Hasher::new(kind),
            note,
        }
    }

    /// An input of which there is one. `subject` goes before "changed".
    pub(crate) fn json<T: Serialize>(mut self, label: &str, value: &T, subject: &str) -> Self {
        self.hasher = self.hasher.json(label, value);
        let alone = Hasher::new(label).json(label, value).finish();
        self.add(Kind::Single, subject, cut(&alone.short()));
        self
    }

    /// The layers below.
    pub(crate) fn below(mut self, id: Id) -> Self {
        self.hasher = self.hasher.id("parent", id);
        self.add(Kind::Below, "the layers below", cut(&id.short()));
        self
    }

    /// Something else that has an id. `subject` goes before "changed".
    pub(crate) fn other(mut self, label: &str, id: Id, subject: &str) -> Self {
        self.hasher = self.hasher.id(label, id);
        self.add(Kind::Single, subject, cut(&id.short()));
        self
    }

    /// A package: its content, and whether it was asked for.
    pub(crate) fn package(mut self, package: &LockedPackage) -> Self {
        let sha256 = package.sha256.to_string();
        self.hasher = self
            .hasher
            .text("package", &package.name)
            .text("sha256", &sha256)
            .json("auto", &package.auto);
        let asked = if package.auto { "" } else { ", asked for" };
        let value = format!(
            "{}{asked} ({})",
            package.version,
            sha256.get(..8).unwrap_or("")
        );
        self.add(Kind::Package, &package.name, value);
        self
    }

    /// A command that is executed, or part of one.
    pub(crate) fn command<T: Serialize>(mut self, name: &str, actions: &T) -> Self {
        let value = (name, actions);
        self.hasher = self.hasher.json("change", &value);
        let digest = Hasher::new("change").json("change", &value).finish();
        let number = self.count(Kind::Command, name);
        self.add(Kind::Command, &numbered(name, number), cut(&digest.short()));
        self
    }

    /// A file of the project.
    pub(crate) fn file(mut self, name: &str, id: Id) -> Self {
        self.hasher = self.hasher.id("file", id);
        self.add(Kind::File, name, cut(&id.short()));
        self
    }

    /// A script, known by its number.
    pub(crate) fn script(mut self, id: Id) -> Self {
        self.hasher = self.hasher.id("script", id);
        let number = self.note.inputs.iter().filter(|i| i.kind == Kind::Script);
        let name = format!("script {}", number.count() + 1);
        self.add(Kind::Script, &name, cut(&id.short()));
        self
    }

    /// The step's id.
    pub(crate) fn id(&self) -> Id {
        self.hasher.clone().finish()
    }

    /// What lies beside the layer.
    ///
    /// # Errors
    /// None that could be met: names and values are strings, which have a JSON.
    pub(crate) fn note(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.note)
    }

    /// What is different in the newest stored layer of the same role; `None` if there is no such layer.
    pub(crate) fn why_not_reused(&self, store: &Store) -> Option<String> {
        let layers = store.layers().ok()?;
        let notes = layers.iter().filter_map(|layer| {
            let note: Note =
                serde_json::from_slice(&fs::read(layer.attachment(INPUTS)?).ok()?).ok()?;
            (note.role == self.note.role).then(|| (made(layer), note))
        });
        let (_, newest) = notes.max_by_key(|(made, _)| *made)?;
        Some(difference(&newest, &self.note))
    }

    fn add(&mut self, kind: Kind, name: &str, value: String) {
        self.note.inputs.push(Input {
            kind,
            name: name.to_owned(),
            value,
        });
    }

    fn count(&self, kind: Kind, name: &str) -> usize {
        let mut number = 1;
        while self
            .note
            .inputs
            .iter()
            .any(|i| i.kind == kind && i.name == numbered(name, number))
        {
            number += 1;
        }
        number
    }
}

/// The first of a name goes without a number.
fn numbered(name: &str, number: usize) -> String {
    match number {
        1 => format!("`{name}`"),
        _ => format!("`{name}` number {number}"),
    }
}

fn cut(digest: &str) -> String {
    digest.get(..8).unwrap_or(digest).to_owned()
}

fn made(layer: &Layer) -> SystemTime {
    let note = layer
        .attachment("layer.json")
        .and_then(|path| path.metadata().ok());
    note.and_then(|note| note.modified().ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

type Table<'n> = BTreeMap<&'n str, &'n str>;

fn of_kind(note: &Note, kind: Kind) -> Table<'_> {
    let inputs = note.inputs.iter().filter(|input| input.kind == kind);
    inputs
        .map(|input| (input.name.as_str(), input.value.as_str()))
        .collect()
}

/// One sentence without an end.
fn difference(stored: &Note, wanted: &Note) -> String {
    let mut said = Vec::new();
    for kind in [
        Kind::Single,
        Kind::Package,
        Kind::Command,
        Kind::File,
        Kind::Script,
    ] {
        let (old, new) = (of_kind(stored, kind), of_kind(wanted, kind));
        let with_versions = kind == Kind::Package;
        let one_sided = |a: &Table<'_>, b: &Table<'_>| -> Vec<String> {
            let names = a.keys().filter(|name| !b.contains_key(*name));
            names.map(|name| (*name).to_owned()).collect()
        };
        let changed = new.iter().filter_map(|(name, value)| {
            let before = old.get(name).filter(|before| *before != value)?;
            Some(match with_versions {
                true => format!("{name} {before} → {value}"),
                false => (*name).to_owned(),
            })
        });
        said.extend(listed(changed.collect(), "changed"));
        said.extend(listed(one_sided(&new, &old), "new"));
        said.extend(listed(one_sided(&old, &new), "gone"));
    }
    if !said.is_empty() {
        return said.join("; ");
    }
    match of_kind(stored, Kind::Below) == of_kind(wanted, Kind::Below) {
        false => "a layer below it is new".to_owned(),
        true => "its order of inputs changed, or the stored one is damaged".to_owned(),
    }
}

/// `vim, nano and 3 more are new`
fn listed(names: Vec<String>, what: &str) -> Option<String> {
    let verb = match (names.len(), what) {
        (0, _) => return None,
        (_, "changed") => "",
        (1, _) => "is ",
        _ => "are ",
    };
    let shown = names
        .iter()
        .take(SAID)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = match names.len().saturating_sub(SAID) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{shown}{more} {verb}{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(script: &str, commands: &[(&str, u32)], below: &str) -> Inputs {
        let id = |text: &str| Hasher::new("t").text("t", text).finish();
        let start = Inputs::new("scripts", "lab/contest/scripts".to_owned())
            .json("network", &true, "--offline")
            .below(id(below))
            .script(id(script));
        commands
            .iter()
            .fold(start, |inputs, (name, value)| inputs.command(name, value))
    }

    fn why(a: &Inputs, b: &Inputs) -> String {
        difference(&a.note, &b.note)
    }

    #[test]
    fn what_changed_is_named() {
        let old = inputs("echo", &[("user", 1), ("user", 2), ("lang", 1)], "a");
        let script = inputs("exit", &[("user", 1), ("user", 2), ("lang", 1)], "b");
        assert_eq!(why(&old, &script), "script 1 changed");
        let commands = inputs("echo", &[("user", 1), ("user", 3), ("eula", 1)], "a");
        assert_eq!(
            why(&old, &commands),
            "`user` number 2 changed; `eula` is new; `lang` is gone"
        );
        let below = inputs("echo", &[("user", 1), ("user", 2), ("lang", 1)], "b");
        assert_eq!(why(&old, &below), "a layer below it is new");
    }

    #[test]
    fn the_note_has_all_and_no_more_than_a_short_digest() {
        let old = inputs("echo", &[("rootpw", 1)], "a");
        let text = String::from_utf8(old.note().unwrap()).unwrap();
        let read: Note = serde_json::from_str(&text).unwrap();
        assert_eq!(read, old.note);
        assert!(
            read.inputs.iter().all(|input| input.value.len() <= 8),
            "{text}"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let names = (0..7).map(|n| format!("p{n}")).collect();
        assert_eq!(
            listed(names, "new").unwrap(),
            "p0, p1, p2 and 4 more are new"
        );
    }
}
