//! dpkg's status file, read and written as dpkg does.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::stanza::{self, Field};
use crate::regular;

/// How far a package is (dpkg(1), "PACKAGE STATES"), in dpkg's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    NotInstalled,
    ConfigFiles,
    HalfInstalled,
    Unpacked,
    HalfConfigured,
    TriggersAwaited,
    TriggersPending,
    Installed,
}

const STATES: &[(&str, State)] = &[
    ("not-installed", State::NotInstalled),
    ("config-files", State::ConfigFiles),
    ("half-installed", State::HalfInstalled),
    ("unpacked", State::Unpacked),
    ("half-configured", State::HalfConfigured),
    ("triggers-awaited", State::TriggersAwaited),
    ("triggers-pending", State::TriggersPending),
    ("installed", State::Installed),
];

/// A configuration file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conffile {
    pub(super) path: String,
    /// Hash and flags, as in the status file.
    pub(super) rest: String,
}

/// A package that dpkg knows.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) version: String,
    /// `Multi-Arch: same`: its files are told apart by architecture.
    pub(super) same: bool,
    /// What is wanted, and the error flag: `install ok`.
    pub(super) want: String,
    pub(super) state: State,
    pub(super) conffiles: Vec<Conffile>,
    /// Newest first, as dpkg has them in memory and writes them.
    pub(super) pending: Vec<String>,
    pub(super) awaited: Vec<String>,
    fields: Vec<Field>,
}

impl Known {
    /// A package out of its fields, new or from the status file.
    pub(super) fn new(mut fields: Vec<Field>) -> Option<Known> {
        let mut take = |name: &str| {
            let at = fields.iter().position(|f| f.name == name)?;
            Some(fields.remove(at).value)
        };
        let status = take("Status");
        let (want, state) = match &status {
            Some(status) => {
                let (want, state) = status.rsplit_once(' ')?;
                let state = STATES.iter().find(|(n, _)| *n == state)?.1;
                (want.to_owned(), state)
            }
            None => ("install ok".to_owned(), State::NotInstalled),
        };
        let conffiles = take("Conffiles");
        let words = |text: Option<String>| -> Vec<String> {
            let words = text.iter().flat_map(|text| text.split_whitespace());
            words.map(str::to_owned).collect()
        };
        // dpkg puts each that it reads in front of the others.
        let mut pending = words(take("Triggers-Pending"));
        pending.reverse();
        let awaited = words(take("Triggers-Awaited"));
        let get = |name: &str| {
            fields
                .iter()
                .find(|f| f.name == name)
                .map(|f| f.value.as_str())
        };
        // Of a package that was purged dpkg may know no more than the name.
        let or_empty = |name| get(name).map_or_else(String::new, str::to_owned);
        Some(Known {
            name: get("Package")?.to_owned(),
            architecture: or_empty("Architecture"),
            version: or_empty("Version"),
            same: get("Multi-Arch") == Some("same"),
            want,
            state,
            conffiles: conffiles
                .iter()
                .flat_map(|text| text.lines())
                .filter_map(conffile)
                .collect(),
            pending,
            awaited,
            fields,
        })
    }

    /// A field that is kept as it is.
    pub(super) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|f| f.name == name);
        found.map_or("", |f| f.value.as_str())
    }

    /// Its name where dpkg tells instances of one package apart by architecture only if it must.
    pub(super) fn label(&self) -> String {
        if self.same {
            format!("{}:{}", self.name, self.architecture)
        } else {
            self.name.clone()
        }
    }

    /// Adds a pending trigger; the package is installed or has triggers already (`trig_note_pend`).
    pub(super) fn pend(&mut self, trigger: &str) {
        if self.pending.iter().all(|known| known != trigger) {
            self.pending.insert(0, trigger.to_owned());
            self.state = if self.awaited.is_empty() {
                State::TriggersPending
            } else {
                State::TriggersAwaited
            };
        }
    }

    fn write(&self, out: &mut String) {
        let field = |name: &str, value: String| Field {
            name: name.to_owned(),
            value,
        };
        let state = STATES.iter().find(|(_, s)| *s == self.state);
        let state = state.map_or("not-installed", |(name, _)| name);
        let mut more = vec![field("Status", format!("{} {state}", self.want))];
        if !self.conffiles.is_empty() {
            let lines = self
                .conffiles
                .iter()
                .map(|c| format!("\n {} {}", c.path, c.rest));
            more.push(field("Conffiles", lines.collect()));
        }
        for (name, words) in [
            ("Triggers-Pending", &self.pending),
            ("Triggers-Awaited", &self.awaited),
        ] {
            if !words.is_empty() {
                more.push(field(name, words.join(" ")));
            }
        }
        // While a package is half installed dpkg tells little of it.
        let shown = |f: &&Field| {
            self.state != State::HalfInstalled
                || [
                    "Package",
                    "Priority",
                    "Section",
                    "Architecture",
                    "Multi-Arch",
                    "Version",
                ]
                .contains(&f.name.as_str())
        };
        stanza::write(self.fields.iter().filter(shown).chain(&more), out);
    }
}

/// ` PATH HASH [FLAGS]`
fn conffile(line: &str) -> Option<Conffile> {
    let line = line.trim();
    let hash = |flags: &str| -> usize {
        flags
            .trim_end_matches(" remove-on-upgrade")
            .trim_end_matches(" obsolete")
            .rfind(' ')
            .unwrap_or(0)
    };
    let (path, rest) = line.split_at_checked(hash(line))?;
    (!path.is_empty()).then(|| Conffile {
        path: path.to_owned(),
        rest: rest.trim().to_owned(),
    })
}

/// All packages that dpkg knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    pub(super) packages: Vec<Known>,
    by_name: HashMap<String, Vec<usize>>,
}

impl Status {
    /// Reads the status file; where there is none, no package is known. `None` for a file that dpkg would not have written.
    pub(super) fn read(file: &Path) -> io::Result<Option<Status>> {
        let text = match regular::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Status::default())),
            Err(e) => return Err(e),
        };
        Ok(String::from_utf8(text).ok().and_then(|t| Status::parse(&t)))
    }

    fn parse(text: &str) -> Option<Status> {
        let mut status = Status::default();
        for stanza in text.split("\n\n").filter(|s| !s.trim().is_empty()) {
            status.add(Known::new(stanza::fields(stanza))?);
        }
        Some(status)
    }

    /// Adds a package and returns its number.
    pub(super) fn add(&mut self, known: Known) -> usize {
        let number = self.packages.len();
        self.by_name
            .entry(known.name.clone())
            .or_default()
            .push(number);
        self.packages.push(known);
        number
    }

    /// The packages of a name, one for each architecture.
    pub(super) fn named(&self, name: &str) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The package that `name` or `name:architecture` means.
    pub(super) fn find(&self, label: &str) -> Option<usize> {
        match label.split_once(':') {
            None => self.named(label).first().copied(),
            Some((name, architecture)) => {
                let of = |number: &&usize| self.packages[**number].architecture == architecture;
                self.named(name).iter().find(of).copied()
            }
        }
    }

    /// Writes the file as dpkg does: sorted, in place of the old one, which stays as `status-old`.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let mut sorted: Vec<&Known> = self.packages.iter().collect();
        sorted.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let mut text = String::with_capacity(sorted.len() * 1200);
        for known in sorted {
            known.write(&mut text);
            text.push('\n');
        }
        let old = file.with_file_name("status-old");
        match fs::remove_file(&old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match fs::hard_link(file, &old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        write_atomic(file, text.as_bytes())
    }
}

/// Writes a database file as dpkg does: beside the old one, mode 0644, then renamed.
pub(super) fn write_atomic(file: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut new = file.as_os_str().to_owned();
    new.push("-new");
    let write = || -> io::Result<()> {
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
        fs::rename(&new, file)
    };
    write().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Package: a\nEssential: yes\nStatus: install ok triggers-pending\nPriority: required\nArchitecture: amd64\n\
                        Multi-Arch: same\nVersion: 1\nConffiles:\n /etc/a b newconffile\n /etc/c 0123 obsolete\nDescription: x\n y\n\
                        Triggers-Pending: one two\nX-More: z\n\nPackage: b\nStatus: install ok unpacked\nVersion: 2\n\n";

    #[test]
    fn a_status_file_comes_back_as_dpkg_would_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("status");
        fs::write(&file, TEXT).unwrap();
        let status = Status::read(&file).unwrap().unwrap();
        assert_eq!(status.packages[0].conffiles[0].path, "/etc/a b");
        assert_eq!(status.packages[0].conffiles[1].rest, "0123 obsolete");
        assert_eq!(status.find("a:amd64"), Some(0));
        assert_eq!(status.find("a:arm64"), None);
        status.write(&file).unwrap();
        // Each reading turns the order of pending triggers round, as dpkg's does.
        let turned = TEXT.replace("one two", "two one");
        assert_eq!(fs::read_to_string(&file).unwrap(), turned);
        assert_eq!(
            fs::read_to_string(dir.path().join("status-old")).unwrap(),
            TEXT
        );
    }

    #[test]
    fn triggers_are_noted_once_and_the_newest_first() {
        let mut known =
            Known::new(stanza::fields("Package: a\nStatus: install ok installed")).unwrap();
        ["one", "two", "one"].iter().for_each(|t| known.pend(t));
        assert_eq!(known.pending, ["two", "one"]);
        assert_eq!(known.state, State::TriggersPending);
    }
}
