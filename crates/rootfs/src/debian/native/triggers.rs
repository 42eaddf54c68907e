//! Triggers (deb-triggers(5)): who is interested in what, and what an unpacked package sets off.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::status::{State, Status, write_atomic};
use crate::regular;

/// A line of a package's `triggers` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) interest: bool,
    pub(super) noawait: bool,
    pub(super) trigger: String,
}

/// Reads a package's `triggers` file; `None` if dpkg would refuse it.
pub(super) fn directives(text: &str) -> Option<Vec<Directive>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(directive).collect()
}

fn directive(line: &str) -> Option<Directive> {
    let (word, trigger) = line.split_once([' ', '\t'])?;
    let (interest, noawait) = match word {
        "interest" | "interest-await" => (true, false),
        "interest-noawait" => (true, true),
        "activate" | "activate-await" => (false, false),
        "activate-noawait" => (false, true),
        _ => return None,
    };
    let trigger = trigger.trim().to_owned();
    is_name(&trigger).then_some(Directive {
        interest,
        noawait,
        trigger,
    })
}

/// A path, or a name like a package's.
fn is_name(trigger: &str) -> bool {
    match trigger.strip_prefix('/') {
        Some(path) => {
            path.split('/').all(|part| !part.is_empty())
                && trigger.bytes().all(|b| b > b' ' && b < 127)
        }
        None => {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-+.".contains(&b);
            trigger.starts_with(|c: char| c.is_ascii_alphanumeric()) && trigger.bytes().all(legal)
        }
    }
}

/// A package that wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interest {
    path: OsString,
    /// As dpkg writes it: with the architecture if its instances are told apart.
    label: String,
    noawait: bool,
}

/// The interests of all packages.
pub(super) struct Triggers {
    dir: PathBuf,
    /// Interests in paths, in the order of the file.
    files: Vec<Interest>,
    /// Numbers in `files` by path, the newest first, as dpkg looks through them.
    by_path: HashMap<OsString, Vec<usize>>,
    changed: bool,
}

impl Triggers {
    /// Reads `triggers/File`; `None` if it is not one.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Triggers>> {
        let mut triggers = Triggers {
            dir: dir.to_owned(),
            files: Vec::new(),
            by_path: HashMap::new(),
            changed: false,
        };
        let bytes = match regular::read(dir.join("File")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(triggers)),
            Err(e) => return Err(e),
        };
        for line in bytes.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
            let Some((path, label, noawait)) = interest_line(line) else {
                return Ok(None);
            };
            triggers.interest_in_path(path, label, noawait);
        }
        triggers.changed = false;
        Ok(Some(triggers))
    }

    fn interest_in_path(&mut self, path: &OsStr, label: &str, noawait: bool) {
        let known = self.by_path.entry(path.to_owned()).or_default();
        match known.iter().find(|&&n| self.files[n].label == label) {
            Some(&number) => self.files[number].noawait = noawait,
            None => {
                known.insert(0, self.files.len());
                self.files.push(Interest {
                    path: path.to_owned(),
                    label: label.to_owned(),
                    noawait,
                });
                self.changed = true;
            }
        }
    }

    /// Notes the interests of a package's `triggers` file.
    pub(super) fn add_interests(
        &mut self,
        label: &str,
        directives: &[Directive],
    ) -> io::Result<()> {
        for directive in directives.iter().filter(|d| d.interest) {
            if directive.trigger.starts_with('/') {
                self.interest_in_path(OsStr::new(&directive.trigger), label, directive.noawait);
            } else {
                self.interest_by_name(&directive.trigger, label, directive.noawait)?;
            }
        }
        if std::mem::take(&mut self.changed) {
            self.save()?;
        }
        Ok(())
    }

    /// A package's line goes to the end of the trigger's own file.
    fn interest_by_name(&self, trigger: &str, label: &str, noawait: bool) -> io::Result<()> {
        let mut lines = self.named(trigger)?;
        lines.retain(|(known, _)| known != label);
        lines.push((label.to_owned(), noawait));
        let text: String = lines
            .iter()
            .map(|(label, noawait)| format!("{label}{}\n", option(*noawait)))
            .collect();
        write_atomic(&self.dir.join(trigger), text.as_bytes())
    }

    /// Who is interested in a trigger by its name.
    fn named(&self, trigger: &str) -> io::Result<Vec<(String, bool)>> {
        let text = match regular::text(self.dir.join(trigger)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        Ok(text
            .lines()
            .map(with_option)
            .map(|(l, n)| (l.to_owned(), n))
            .collect())
    }

    fn save(&self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for interest in &self.files {
            bytes.extend_from_slice(interest.path.as_bytes());
            bytes.extend_from_slice(
                format!(" {}{}\n", interest.label, option(interest.noawait)).as_bytes(),
            );
        }
        write_atomic(&self.dir.join("File"), &bytes)
    }

    /// A path of the package `awaiter` was unpacked.
    pub(super) fn path_unpacked(&self, path: &OsStr, awaiter: usize, status: &mut Status) {
        for &number in self.by_path.get(path).into_iter().flatten() {
            let interest = &self.files[number];
            let awaiter = (!interest.noawait).then_some(awaiter);
            record(status, &interest.label, awaiter, &path.to_string_lossy());
        }
    }

    /// The `activate` directives of a package. It is not installed at that time, so dpkg does not note what it waits for.
    pub(super) fn activate(&self, directives: &[Directive], status: &mut Status) -> io::Result<()> {
        for Directive { trigger, .. } in directives.iter().filter(|d| !d.interest) {
            if trigger.starts_with('/') {
                let paths = Path::new(trigger).ancestors();
                for path in paths.filter(|p| p.as_os_str() != "/") {
                    for &number in self.by_path.get(path.as_os_str()).into_iter().flatten() {
                        let label = &self.files[number].label;
                        record(status, label, None, &path.to_string_lossy());
                    }
                }
            } else {
                for (label, _) in self.named(trigger)? {
                    record(status, &label, None, trigger);
                }
            }
        }
        Ok(())
    }
}

fn option(noawait: bool) -> &'static str {
    if noawait { "/noawait" } else { "" }
}

/// `PACKAGE[/noawait]`
fn with_option(line: &str) -> (&str, bool) {
    match line.split_once('/') {
        Some((label, option)) => (label, option == "noawait"),
        None => (line, false),
    }
}

/// `PATH PACKAGE[/noawait]`
fn interest_line(line: &[u8]) -> Option<(&OsStr, &str, bool)> {
    let space = line.iter().position(|&b| b == b' ')?;
    let (label, noawait) = with_option(std::str::from_utf8(line.get(space + 1..)?).ok()?);
    Some((OsStr::from_bytes(&line[..space]), label, noawait))
}

/// dpkg's `trig_record_activation`: only packages that are configured have anything to do.
fn record(status: &mut Status, interested: &str, awaiter: Option<usize>, trigger: &str) {
    let Some(number) = status.find(interested) else {
        return;
    };
    if status.packages[number].state < State::TriggersAwaited {
        return;
    }
    status.packages[number].pend(trigger);
    let label = status.packages[number].label();
    if let Some(awaiter) = awaiter {
        let awaiter = &mut status.packages[awaiter];
        if awaiter.awaited.iter().all(|known| *known != label) {
            awaiter.awaited.push(label);
            if awaiter.state > State::TriggersAwaited {
                awaiter.state = State::TriggersAwaited;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::stanza::fields;
    use super::super::status::Known;
    use super::*;

    fn status(lines: &[(&str, &str)]) -> Status {
        let mut status = Status::default();
        for (name, state) in lines {
            let text = format!(
                "Package: {name}\nArchitecture: amd64\nMulti-Arch: {}\nStatus: install ok {state}",
                if name.starts_with("lib") {
                    "same"
                } else {
                    "no"
                }
            );
            status.add(Known::new(fields(&text)).unwrap());
        }
        status
    }

    #[test]
    fn paths_and_names_set_off_what_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("File"),
            "/usr/share/man man-db\n/usr/lib libx:amd64/noawait\n/usr/lib later\n",
        )
        .unwrap();
        fs::write(dir.path().join("hook"), "man-db\n").unwrap();
        let triggers = Triggers::read(dir.path()).unwrap().unwrap();
        let mut all = status(&[
            ("man-db", "installed"),
            ("libx", "installed"),
            ("later", "unpacked"),
            ("new", "half-installed"),
        ]);
        for path in ["/usr", "/usr/lib", "/usr/share/man", "/usr/share/man/man1"] {
            triggers.path_unpacked(OsStr::new(path), 3, &mut all);
        }
        triggers
            .activate(
                &directives("activate hook\nactivate-noawait /usr/lib/x").unwrap(),
                &mut all,
            )
            .unwrap();
        assert_eq!(all.packages[0].pending, ["hook", "/usr/share/man"]);
        assert_eq!(all.packages[1].pending, ["/usr/lib"]);
        assert_eq!(all.packages[1].state, State::TriggersPending);
        assert!(all.packages[2].pending.is_empty());
        // A trigger that nobody waits for leaves the package as it is.
        assert_eq!(all.packages[3].awaited, ["man-db"]);
        assert_eq!(all.packages[3].state, State::HalfInstalled);
    }

    #[test]
    fn interests_are_kept_as_dpkg_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("File"), "/a one\n").unwrap();
        fs::write(dir.path().join("hook"), "two\none\n").unwrap();
        let mut triggers = Triggers::read(dir.path()).unwrap().unwrap();
        let wanted =
            directives("# a remark\n\ninterest-noawait /b\ninterest /a\n interest-noawait hook \n")
                .unwrap();
        triggers.add_interests("libx:amd64", &wanted).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(
            read("File"),
            "/a one\n/b libx:amd64/noawait\n/a libx:amd64\n"
        );
        assert_eq!(read("hook"), "two\none\nlibx:amd64/noawait\n");
        assert_eq!(directives("interested x"), None);
        assert_eq!(directives("interest ../../etc/x"), None);
        assert_eq!(directives("interest"), None);
    }
}
