//! The entries of one package into the root: who keeps what, and what is placed where.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln_packages::debian::contents::Kind;
use kiln_packages::debian::relation;
use kiln_sandbox::{Error, ErrorKind};

use super::database::Database;
use super::index::Item;
use super::package::{Package, Result, Said};
use super::place::{Dress, NEW, Tree, is_plain, remove};
use super::status::{Conffile, Known};
use crate::calls::io_error;

/// What became of a package's entries.
#[derive(Default)]
pub(super) struct Placed {
    /// Paths in the package's list.
    pub(super) listed: Vec<OsString>,
    /// Configuration files of which another package keeps its own.
    pub(super) kept: HashSet<OsString>,
    /// Paths that another package had, and whether as a configuration file of both.
    pub(super) taken: Vec<(OsString, u32, bool)>,
    /// Lines of `md5sums`, if the package has none.
    pub(super) sums: Vec<u8>,
}

/// The entries of one package on their way into the root.
pub(super) struct Placing<'a, 'b> {
    database: &'a mut Database<'b>,
    package: &'a Package,
    number: usize,
    tree: Tree<'a>,
    conffiles: HashSet<&'a OsStr>,
    /// MD5 by path, for hard links.
    sums: HashMap<&'a OsStr, &'a str>,
    /// Whether this package replaces another's files, or the other way round, once it is known.
    replaces: HashMap<u32, bool>,
    placed: Placed,
}

impl<'a, 'b> Placing<'a, 'b> {
    pub(super) fn new(database: &'a mut Database<'b>, package: &'a Package, number: usize) -> Self {
        let tree = Tree::new(database.root, package);
        let conffiles = package.conffiles.iter().filter(|(_, removed)| !removed);
        Placing {
            conffiles: conffiles.map(|(path, _)| path.as_os_str()).collect(),
            database,
            package,
            number,
            tree,
            sums: HashMap::new(),
            replaces: HashMap::new(),
            placed: Placed::default(),
        }
    }

    pub(super) fn all(mut self, say: &mut dyn FnMut(Said)) -> Result<Placed> {
        let package = self.package;
        for item in &package.items {
            self.item(item, say)?;
        }
        Ok(self.placed)
    }

    fn item(&mut self, item: &'a Item, say: &mut dyn FnMut(Said)) -> Result<()> {
        let path = item.entry.path.as_os_str();
        let name = &self.package.known.name;
        let failed = |e: io::Error| {
            let shown = Path::new(path).display();
            io_error(format!("unpacking {shown} of {name}"), &e)
        };
        self.check(path)?;
        let target = self.database.diversions.target(path, name).to_owned();
        self.database
            .triggers
            .path_unpacked(&target, self.number, &mut self.database.status);
        let conffile = self.conffiles.contains(path);
        // Where a link is in the place of a configuration file, dpkg does not follow it until it configures.
        let there = self.tree.look(&target).map_err(failed)?;
        let existing = self
            .tree
            .is_there(item, &target, there.as_ref())
            .map_err(failed)?;
        if !existing && self.others_keep(item, there.as_ref(), conffile, say)? {
            if conffile {
                self.placed.kept.insert(path.to_owned());
            }
            return Ok(());
        }
        self.placed.listed.push(path.to_owned());
        if item.filtered || existing {
            return Ok(());
        }
        self.make(item, &target, there.as_ref(), conffile)
            .map_err(failed)?;
        self.sum(item);
        self.take(path, conffile);
        Ok(())
    }

    /// What dpkg refuses whatever is in the root.
    fn check(&self, path: &OsStr) -> Result<()> {
        let shown = Path::new(path).display();
        let name = &self.package.known.name;
        if let Some(source) = self.database.diversions.source(path) {
            let message = format!(
                "unpacking {name}: {shown} is where {} was diverted to",
                Path::new(source).display()
            );
            return Err(Error::new(ErrorKind::Step, message));
        }
        let removed = |(known, removed): &(OsString, bool)| *removed && known == path;
        if self.package.conffiles.iter().any(removed) {
            let message = format!(
                "unpacking {name}: {shown} is in the package although its upgrade is to remove it"
            );
            return Err(Error::new(ErrorKind::Step, message));
        }
        Ok(())
    }

    /// Whether another package keeps its own file here.
    fn others_keep(
        &mut self,
        item: &Item,
        there: Option<&fs::Metadata>,
        conffile: bool,
        say: &mut dyn FnMut(Said),
    ) -> Result<bool> {
        let path = item.entry.path.as_os_str();
        let mut keep = false;
        for other in self.database.owners.of(path).to_vec() {
            let known = &self.database.status.packages[other as usize];
            let diverted = self.database.diversions.by(path).flatten();
            if diverted.is_some_and(|by| by == known.name || by == self.package.known.name) {
                continue;
            }
            if there.is_none() && item.entry.kind == Kind::Directory {
                continue;
            }
            if conffile && is_plain(there) && has_obsolete(known, path) {
                continue;
            }
            match self.replaces.get(&other) {
                Some(true) => continue,
                Some(false) => keep = true,
                None => {
                    let ours = self.settle(path, other, there, say)?;
                    self.replaces.insert(other, ours);
                    keep |= !ours;
                }
            }
        }
        Ok(keep)
    }

    /// Whose file it is by `Replaces`: whether this package's.
    fn settle(
        &self,
        path: &OsStr,
        other: u32,
        there: Option<&fs::Metadata>,
        say: &mut dyn FnMut(Said),
    ) -> Result<bool> {
        let known = &self.database.status.packages[other as usize];
        let (name, version) = (&known.name, &known.version);
        if does_replace(&self.package.known, known) {
            say(Said::Line(format!(
                "Replacing files in old package {} ({version}) ...",
                known.label()
            )));
            return Ok(true);
        }
        if does_replace(known, &self.package.known) {
            say(Said::Line(format!(
                "Replaced by files in installed package {} ({version}) ...",
                known.label()
            )));
            return Ok(false);
        }
        let shown = Path::new(path).display();
        let directory = there.is_some_and(fs::Metadata::is_dir);
        let what = if directory {
            "trying to overwrite the directory"
        } else {
            "trying to overwrite"
        };
        let message = format!(
            "unpacking {}: {what} {shown}, which is also in package {name} {version}",
            self.package.known.name
        );
        Err(Error::new(ErrorKind::Step, message)
            .hint("two packages bring the same file and neither says that it replaces the other: leave one of them out"))
    }

    fn make(
        &self,
        item: &Item,
        real: &OsStr,
        there: Option<&fs::Metadata>,
        conffile: bool,
    ) -> io::Result<()> {
        let dress = self.dress(item);
        let link = match &item.entry.kind {
            Kind::HardLink(target) => {
                let target = target.as_os_str();
                let mut place = self
                    .database
                    .diversions
                    .target(target, &self.package.known.name)
                    .to_owned();
                if self.conffiles.contains(target) {
                    place.push(NEW);
                }
                Some(place)
            }
            _ => None,
        };
        if !conffile {
            return self.tree.make(item, real, there, dress, link.as_deref());
        }
        let mut new = real.to_owned();
        new.push(NEW);
        remove(&self.tree.at(&new))?;
        self.tree.make(item, &new, None, dress, link.as_deref())
    }

    fn dress(&self, item: &Item) -> Dress {
        match self.database.overrides.get(item.entry.path.as_os_str()) {
            Some(wanted) => *wanted,
            None => {
                let (user, group) = self
                    .database
                    .accounts
                    .owner(&item.entry.names, item.entry.owner);
                (user, group, item.entry.mode)
            }
        }
    }

    fn sum(&mut self, item: &'a Item) {
        let path = item.entry.path.as_os_str();
        let sum = match &item.entry.kind {
            Kind::File(_) => Some(item.md5.as_str()),
            Kind::HardLink(target) => self.sums.get(target.as_os_str()).copied(),
            _ => None,
        };
        if let Some(sum) = sum.filter(|sum| !sum.is_empty()) {
            self.sums.insert(path, sum);
            self.placed
                .sums
                .extend_from_slice(format!("{sum}  ").as_bytes());
            let relative = path.as_bytes();
            let relative = relative.strip_prefix(b"/").unwrap_or(relative);
            self.placed.sums.extend_from_slice(relative);
            self.placed.sums.push(b'\n');
        }
    }

    /// Notes what other packages lose to this one.
    fn take(&mut self, path: &OsStr, conffile: bool) {
        let diverted = self.database.diversions.by(path).flatten();
        if diverted == Some(self.package.known.name.as_str()) {
            return;
        }
        for &other in self.database.owners.of(path) {
            let known = &self.database.status.packages[other as usize];
            if diverted != Some(known.name.as_str()) {
                self.placed.taken.push((path.to_owned(), other, conffile));
            }
        }
    }
}

fn has_obsolete(known: &Known, path: &OsStr) -> bool {
    let obsolete = |c: &Conffile| c.rest.contains(" obsolete") && OsStr::new(&c.path) == path;
    known.conffiles.iter().any(obsolete)
}

/// Whether `new` says that it replaces files of `old`.
fn does_replace(new: &Known, old: &Known) -> bool {
    relation::list(new.field("Replaces")).any(|r| r.name == old.name && r.accepts(&old.version))
}
