//! When Kiln unpacks a package itself, and when the real dpkg has to: decided by what is in the root and in the package.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use kiln_packages::debian::relation::{self, Relation};

use super::index::Item;
use super::paths::Owners;
use super::status::{Known, State, Status};
use super::triggers::Directive;

/// Releases of dpkg whose unpacking this module does over again: those of Debian 11, 12 and 13.
const RELEASES: &[&str] = &["1.20.", "1.21.", "1.22."];

/// Lines of dpkg.cfg(5) that change nothing here.
const HARMLESS: &[&str] = &["no-debsig", "log /var/log/dpkg.log"];

/// Why dpkg has to unpack everything in this root, if it has.
pub(super) fn root_obstacle(root: &Path, dpkg: &str) -> io::Result<Option<String>> {
    if !RELEASES.iter().any(|release| dpkg.starts_with(release)) {
        return Ok(Some(format!(
            "dpkg {dpkg} is not one of 1.20, 1.21 and 1.22"
        )));
    }
    let admin = root.join("var/lib/dpkg");
    let updates = match fs::read_dir(admin.join("updates")) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    if updates {
        return Ok(Some("an earlier run of dpkg was interrupted".to_owned()));
    }
    let layout = super::paths::read_or_empty(&admin.join("info/format"))?;
    if !matches!(layout.as_slice(), b"" | b"1\n") {
        return Ok(Some("dpkg's database has an unknown layout".to_owned()));
    }
    configured_otherwise(&root.join("etc/dpkg"), root)
}

/// Settings of the root's own that would make dpkg do something else.
fn configured_otherwise(etc: &Path, root: &Path) -> io::Result<Option<String>> {
    let mut files = vec![etc.join("dpkg.cfg")];
    match fs::read_dir(etc.join("dpkg.cfg.d")) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry?.path());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut verified = true;
    for file in files {
        let bytes = super::paths::read_or_empty(&file)?;
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !HARMLESS.contains(&line) {
                return Ok(Some(format!("/etc/dpkg has the setting `{line}`")));
            }
            verified &= line != "no-debsig";
        }
    }
    let verifier = verified && root.join("usr/bin/debsig-verify").exists();
    Ok(verifier.then(|| "debsig-verify is installed".to_owned()))
}

/// What packages provide and what they conflict with, by name.
#[derive(Default)]
pub(super) struct Ties {
    provided: HashMap<String, Vec<(usize, Option<String>)>>,
    /// Packages that conflict with a name, and the relation's text.
    conflicts: HashMap<String, Vec<(usize, String)>>,
}

impl Ties {
    pub(super) fn add(&mut self, number: usize, known: &Known) {
        for provided in relation::list(known.field("Provides")) {
            let version = provided.version.map(|(_, version)| version.to_owned());
            let all = self.provided.entry(provided.name.to_owned()).or_default();
            all.push((number, version));
        }
        for text in known.field("Conflicts").split(',') {
            if let Some(conflict) = relation::list(text).next() {
                let all = self.conflicts.entry(conflict.name.to_owned()).or_default();
                all.push((number, text.to_owned()));
            }
        }
    }

    /// A package that satisfies a relation in one of the states that `fits` accepts.
    fn satisfying(
        &self,
        status: &Status,
        relation: &Relation<'_>,
        fits: impl Fn(&Known) -> bool,
    ) -> Option<usize> {
        let named = status.named(relation.name).iter().copied();
        let mut named = named.filter(|&n| relation.accepts(&status.packages[n].version));
        let provided = self.provided.get(relation.name).into_iter().flatten();
        let provided = provided.filter(|(_, version)| match (relation.version, version) {
            (None, _) => true,
            (Some(_), Some(version)) => relation.accepts(version),
            (Some(_), None) => false,
        });
        let found = named.find(|&n| fits(&status.packages[n]));
        found.or_else(|| {
            provided
                .map(|(n, _)| *n)
                .find(|&n| fits(&status.packages[n]))
        })
    }
}

/// What is asked about a package before anything of it is in the root.
pub(super) struct Candidate<'a> {
    pub(super) known: &'a Known,
    pub(super) items: &'a [Item],
    pub(super) directives: Option<&'a [Directive]>,
    /// Essential packages are all there, but none is configured.
    pub(super) bootstrap: bool,
}

/// Why dpkg has to unpack this package, if it has.
pub(super) fn obstacle(
    candidate: &Candidate<'_>,
    status: &Status,
    ties: &Ties,
    owners: &Owners,
    native: &str,
) -> Option<String> {
    let known = candidate.known;
    if !status.named(&known.name).is_empty() {
        return Some("dpkg knows the package already".to_owned());
    }
    if known.architecture != "all" && known.architecture != native {
        return Some(format!("it is for {}", known.architecture));
    }
    if known.same && known.architecture == "all" {
        return Some("it cannot be for all architectures and for one".to_owned());
    }
    if candidate.directives.is_none() {
        return Some("its triggers are unusual".to_owned());
    }
    let device = |item: &&Item| item.entry.kind == kiln_packages::debian::contents::Kind::Device;
    if let Some(item) = candidate.items.iter().find(device) {
        return Some(format!("{} is a device", item.entry.path.display()));
    }
    if !candidate.bootstrap
        && let Some(missing) = unconfigured(known, status, ties)
    {
        return Some(format!("{missing} is not configured"));
    }
    if let Some(other) = at_odds(known, status, ties) {
        return Some(format!(
            "it may not be beside {}",
            status.packages[other].name
        ));
    }
    let paths = candidate.items.iter().map(|i| i.entry.path.as_os_str());
    let swallowed = owners.swallowed(paths);
    let other = swallowed
        .first()
        .and_then(|&n| status.packages.get(n as usize))?;
    Some(format!(
        "nothing of its own might be left of {}",
        other.name
    ))
}

/// The first of the Pre-Depends that no configured package satisfies.
fn unconfigured(known: &Known, status: &Status, ties: &Ties) -> Option<String> {
    let configured = |k: &Known| k.state >= State::TriggersPending;
    let unsatisfied = |group: &Vec<Relation<'_>>| {
        group
            .iter()
            .all(|relation| ties.satisfying(status, relation, configured).is_none())
    };
    let group = relation::groups(known.field("Pre-Depends")).find(unsatisfied)?;
    Some(group.first()?.name.to_owned())
}

/// A package that this one conflicts with or breaks, or that conflicts with this one.
fn at_odds(known: &Known, status: &Status, ties: &Ties) -> Option<usize> {
    let there = |k: &Known| k.state > State::ConfigFiles && k.name != known.name;
    let own = ["Conflicts", "Breaks"]
        .into_iter()
        .flat_map(|field| relation::list(known.field(field)));
    let mut own = own.filter_map(|relation| ties.satisfying(status, &relation, there));
    let provided = relation::list(known.field("Provides"));
    let provided = provided.map(|p| (p.name, p.version.map(|(_, version)| version)));
    let mut names = provided.chain([(known.name.as_str(), Some(known.version.as_str()))]);
    own.next().or_else(|| {
        names.find_map(|(name, version)| {
            let against = ties.conflicts.get(name).into_iter().flatten();
            let hit = |(number, text): &&(usize, String)| {
                there(&status.packages[*number])
                    && relation::list(text).any(|r| match (r.version, version) {
                        (None, _) => true,
                        (Some(_), Some(version)) => r.accepts(version),
                        (Some(_), None) => false,
                    })
            };
            against.into_iter().find(hit).map(|(number, _)| *number)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::stanza::fields;
    use super::*;

    fn known(text: &str) -> Known {
        Known::new(fields(text)).unwrap()
    }

    fn judge(installed: &[&str], new: &str) -> Option<String> {
        let (mut status, mut ties) = (Status::default(), Ties::default());
        for text in installed {
            let number = status.add(known(&format!("{text}\nArchitecture: amd64\nVersion: 2")));
            ties.add(number, &status.packages[number]);
        }
        let new = known(&format!("{new}\nArchitecture: amd64\nVersion: 2"));
        let candidate = Candidate {
            known: &new,
            items: &[],
            directives: Some(&[]),
            bootstrap: false,
        };
        obstacle(&candidate, &status, &ties, &Owners::default(), "amd64")
    }

    #[test]
    fn what_dpkg_would_judge_is_left_to_dpkg() {
        let a = "Package: a\nStatus: install ok installed\nProvides: mta, api (= 3)";
        assert_eq!(
            judge(
                &[a],
                "Package: b\nPre-Depends: a (>= 1), api (= 3)\nBreaks: a (<< 2)"
            ),
            None
        );
        for new in [
            "Package: a",
            "Package: b\nPre-Depends: a (>= 3)",
            "Package: b\nPre-Depends: api (= 4)",
            "Package: b\nConflicts: mta",
            "Package: b\nBreaks: a (<< 3)",
        ] {
            assert!(judge(&[a], new).is_some(), "{new}");
        }
        let unpacked = "Package: a\nStatus: install ok unpacked\nConflicts: b (<< 3), virtual";
        assert!(judge(&[unpacked], "Package: c\nPre-Depends: a").is_some());
        assert!(judge(&[unpacked], "Package: b").is_some());
        assert!(judge(&[unpacked], "Package: c\nProvides: virtual").is_some());
        assert_eq!(judge(&[unpacked], "Package: c\nProvides: b"), None);
        // A package may conflict with what it provides itself.
        assert_eq!(
            judge(&[], "Package: c\nProvides: mta\nConflicts: mta"),
            None
        );
    }

    #[test]
    fn settings_of_the_root_are_dpkgs_business() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc/dpkg/dpkg.cfg.d")).unwrap();
        fs::write(
            root.join("etc/dpkg/dpkg.cfg"),
            "# x\nno-debsig\nlog /var/log/dpkg.log\n",
        )
        .unwrap();
        assert_eq!(root_obstacle(root, "1.21.22").unwrap(), None);
        assert!(root_obstacle(root, "1.19.8").unwrap().is_some());
        fs::write(
            root.join("etc/dpkg/dpkg.cfg.d/x"),
            "path-exclude=/usr/share/doc/*\n",
        )
        .unwrap();
        assert!(
            root_obstacle(root, "1.22.1")
                .unwrap()
                .unwrap()
                .contains("path-exclude")
        );
    }
}
