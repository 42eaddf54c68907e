//! Packages of the pool into the root, each into the state that dpkg calls unpacked.
//!
//! This does over again what `dpkg --unpack` does with packages that are not installed yet: the preinst script, the
//! files, the files of `info/`, the interests in triggers and the triggers that are set off, the files that other
//! packages lose by `Replaces`, and at last the stanza in the status file. Whatever else may happen to a package is
//! [`super::facts`]' business to notice before anything is touched.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_packages::debian::contents::Kind;
use kiln_packages::debian::relation;
use kiln_sandbox::{CallError, ErrorKind};
use serde::{Deserialize, Serialize};

use super::facts::{Candidate, Ties, obstacle, root_obstacle};
use super::index::{self, Item};
use super::paths::{Accounts, Diversions, Overrides, Owners, overrides, read_or_empty};
use super::place::{Dress, NEW, Tree, is_plain, remove};
use super::stanza;
use super::status::{Conffile, Known, State, Status, write_atomic};
use super::triggers::{Directive, Triggers, directives};
use crate::calls::io_error;

type Result<T> = std::result::Result<T, CallError>;

/// What dpkg writes for the hash of a configuration file that it has not seen before.
const UNKNOWN: &str = "newconffile";

/// What is to be unpacked, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Adopt {
    /// The pool's directory in the root.
    pub(super) pool: String,
    /// Packages of the pool, in order.
    pub(super) keys: Vec<String>,
    /// The packages' files are in the root already, and their dependencies do not count.
    pub(super) bootstrap: bool,
    /// The version of dpkg, if the root's own database does not tell it.
    pub(super) dpkg: Option<String>,
    /// The architecture of the root, if the root's own database does not tell it.
    pub(super) architecture: Option<String>,
    /// What maintainer scripts find in their environment.
    pub(super) env: Vec<(String, String)>,
}

/// What is told on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// A package is begun.
    Unpacking { name: String, version: String },
    /// A package is unpacked.
    Unpacked { name: String },
    /// Something that dpkg would print.
    Line(String),
}

/// How far it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Packages unpacked.
    pub(super) done: usize,
    /// Why the next one was not, if there is a next one.
    pub(super) stopped: Option<String>,
    /// Whether that is true of all that follow.
    pub(super) for_good: bool,
}

/// Unpacks packages in order until all are done or one is for dpkg.
pub(super) fn adopt(root: &Path, request: &Adopt, say: &mut dyn FnMut(Said)) -> Result<Outcome> {
    let stopped = |done, why: String, for_good| Outcome {
        done,
        stopped: Some(why),
        for_good,
    };
    let mut adopter = match Adopter::open(root, request)? {
        Ok(adopter) => adopter,
        Err(why) => return Ok(stopped(0, why, true)),
    };
    for (done, key) in request.keys.iter().enumerate() {
        let package = Package::read(&root.join(&request.pool).join(key))?;
        if let Some(why) = adopter.obstacle(&package) {
            adopter.save()?;
            return Ok(stopped(done, why, false));
        }
        let (name, version) = (package.known.name.clone(), package.known.version.clone());
        say(Said::Unpacking {
            name: name.clone(),
            version,
        });
        adopter.package(package, say)?;
        say(Said::Unpacked { name });
    }
    adopter.save()?;
    Ok(Outcome {
        done: request.keys.len(),
        stopped: None,
        for_good: false,
    })
}

/// A package of the pool.
struct Package {
    /// Its directory there.
    dir: PathBuf,
    /// As dpkg will know it.
    known: Known,
    items: Vec<Item>,
    /// Configuration files in the package's order, and whether an upgrade is to remove them.
    conffiles: Vec<(OsString, bool)>,
    directives: Option<Vec<Directive>>,
    has_sums: bool,
}

impl Package {
    fn read(dir: &Path) -> Result<Package> {
        let doing = |what: &str| format!("reading {what} of {}", dir.display());
        let bytes = fs::read(dir.join("index")).map_err(|e| io_error(doing("the index"), &e))?;
        let control = dir.join("control");
        let text = |name: &str| -> Result<String> {
            let bytes =
                read_or_empty(&control.join(name)).map_err(|e| io_error(doing(name), &e))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let broken = |what: &str| {
            CallError::new(
                ErrorKind::Step,
                format!("{} has no usable {what}", dir.display()),
            )
        };
        let known = Known::new(stanza::of_control(&text("control")?))
            .ok_or_else(|| broken("control file"))?;
        let conffiles = text("conffiles")?;
        let conffiles = conffiles
            .lines()
            .map(str::trim_end)
            .filter(|l| !l.is_empty())
            .map(conffile);
        let mut items = index::read(&bytes).ok_or_else(|| broken("index"))?;
        // dpkg makes symbolic links when all else is there.
        items.sort_by_key(|item| matches!(item.entry.kind, Kind::Symlink(_)));
        Ok(Package {
            dir: dir.to_owned(),
            known,
            items,
            conffiles: conffiles
                .collect::<Option<_>>()
                .ok_or_else(|| broken("list of configuration files"))?,
            directives: directives(&text("triggers")?),
            has_sums: control.join("md5sums").exists(),
        })
    }
}

/// `[remove-on-upgrade ]/PATH`
fn conffile(line: &str) -> Option<(OsString, bool)> {
    let (path, removed) = match line.strip_prefix("remove-on-upgrade ") {
        Some(path) => (path, true),
        None => (line, false),
    };
    path.starts_with('/').then(|| (path.into(), removed))
}

/// dpkg's database, and what it says about paths.
struct Adopter<'a> {
    root: &'a Path,
    request: &'a Adopt,
    admin: PathBuf,
    status: Status,
    ties: Ties,
    owners: Owners,
    triggers: Triggers,
    diversions: Diversions,
    accounts: Accounts,
    overrides: Overrides,
    dpkg: String,
    native: String,
}

impl<'a> Adopter<'a> {
    /// Reads the database; the inner error is why dpkg has to do everything here.
    fn open(root: &'a Path, request: &'a Adopt) -> Result<std::result::Result<Self, String>> {
        let admin = root.join("var/lib/dpkg");
        let read = |e: io::Error| io_error("reading dpkg's database", &e);
        let Some(status) = Status::read(&admin.join("status")).map_err(read)? else {
            return Ok(Err("its status file is unusual".to_owned()));
        };
        let dpkg = status.named("dpkg").first().map(|&n| &status.packages[n]);
        let version = dpkg
            .map(|k| k.version.clone())
            .or_else(|| request.dpkg.clone());
        let native = dpkg
            .map(|k| k.architecture.clone())
            .or_else(|| request.architecture.clone());
        let (Some(version), Some(native)) = (version, native) else {
            return Ok(Err("the version of dpkg is unknown".to_owned()));
        };
        if let Some(why) = root_obstacle(root, &version).map_err(read)? {
            return Ok(Err(why));
        }
        let dir = admin.join("triggers");
        if !dir.is_dir() {
            // As dpkg does in a root that has never seen it.
            fs::create_dir_all(&dir).map_err(read)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(read)?;
        }
        let Some(triggers) = Triggers::read(&admin.join("triggers")).map_err(read)? else {
            return Ok(Err("its triggers are unusual".to_owned()));
        };
        let accounts = Accounts::read(&root.join("etc")).map_err(read)?;
        let Some(overrides) = overrides(&admin.join("statoverride"), &accounts).map_err(read)?
        else {
            return Ok(Err("a stat override names somebody unknown".to_owned()));
        };
        let mut adopter = Adopter {
            root,
            request,
            status,
            ties: Ties::default(),
            owners: Owners::default(),
            triggers,
            diversions: Diversions::read(&admin.join("diversions")).map_err(read)?,
            accounts,
            overrides,
            admin,
            dpkg: version,
            native,
        };
        adopter.know_files().map_err(read)?;
        Ok(Ok(adopter))
    }

    fn know_files(&mut self) -> io::Result<()> {
        for (number, known) in self.status.packages.iter().enumerate() {
            if known.state <= State::ConfigFiles {
                continue;
            }
            self.ties.add(number, known);
            for path in list(&self.admin, known)?
                .split(|&b| b == b'\n')
                .filter(|l| !l.is_empty())
            {
                self.owners.add(OsStr::from_bytes(path), number as u32);
            }
        }
        Ok(())
    }

    fn obstacle(&self, package: &Package) -> Option<String> {
        let tree = Tree::new(self.root, package);
        let (name, mut conffiles) = (&package.known.name, package.conffiles.iter());
        let shared = package.conffiles.iter();
        if let Some((path, _)) = shared
            .clone()
            .find(|(path, _)| self.owners.of(path).len() > 1)
        {
            let path = Path::new(path).display();
            return Some(format!("its configuration file {path} is many packages'"));
        }
        if let Some((path, _)) =
            conffiles.find(|(path, _)| !tree.takes_conffile(self.diversions.target(path, name)))
        {
            let path = Path::new(path).display();
            return Some(format!(
                "the place of its configuration file {path} is taken"
            ));
        }
        let candidate = Candidate {
            known: &package.known,
            items: &package.items,
            directives: package.directives.as_deref(),
            bootstrap: self.request.bootstrap,
        };
        obstacle(
            &candidate,
            &self.status,
            &self.ties,
            &self.owners,
            &self.native,
        )
    }

    /// Writes what only the next program will read.
    fn save(&self) -> Result<()> {
        let write = |e: io::Error| io_error("writing dpkg's status file", &e);
        let layout = self.admin.join("info/format");
        if !layout.exists() {
            fs::create_dir_all(self.admin.join("info")).map_err(write)?;
            write_atomic(&layout, b"1\n").map_err(write)?;
        }
        self.status.write(&self.admin.join("status")).map_err(write)
    }

    fn package(&mut self, package: Package, say: &mut dyn FnMut(Said)) -> Result<()> {
        let name = package.known.name.clone();
        let failed = |what: &str, e: &io::Error| io_error(format!("unpacking {name}: {what}"), e);
        let number = self.status.add(package.known.clone());
        let directives = package.directives.as_deref().unwrap_or(&[]);
        self.triggers
            .activate(directives, &mut self.status)
            .map_err(|e| failed("setting off triggers", &e))?;
        let known = &mut self.status.packages[number];
        (known.state, known.want) = (State::HalfInstalled, "install reinstreq".to_owned());
        let scripts = self
            .unpack_control(&package)
            .map_err(|e| failed("its control files", &e))?;
        self.preinst(&package, &scripts)?;
        let placed = Placing::new(self, &package, number).all(say)?;
        self.register(&package, number, &scripts, placed)
            .map_err(|e| failed("dpkg's database", &e))
    }

    /// The control archive where maintainer scripts look for it.
    fn unpack_control(&self, package: &Package) -> io::Result<PathBuf> {
        let scripts = self.admin.join("tmp.ci");
        remove(&scripts)?;
        fs::create_dir_all(self.admin.join("info"))?;
        fs::rename(package.dir.join("control"), &scripts)?;
        Ok(scripts)
    }

    fn preinst(&mut self, package: &Package, scripts: &Path) -> Result<()> {
        let script = scripts.join("preinst");
        let name = &package.known.name;
        let Ok(metadata) = script.symlink_metadata() else {
            return Ok(());
        };
        let doing = |e: &io::Error| io_error(format!("running the preinst script of {name}"), e);
        if metadata.permissions().mode() & 0o555 != 0o555 {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
                .map_err(|e| doing(&e))?;
        }
        self.save()?;
        let mut command = Command::new(&script);
        command
            .arg("install")
            .env_clear()
            .envs(self.request.env.iter().cloned());
        command.envs([
            ("DPKG_MAINTSCRIPT_PACKAGE", name.as_str()),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_MAINTSCRIPT_ARCH", &package.known.architecture),
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_DEBUG", "0"),
            ("DPKG_RUNNING_VERSION", &self.dpkg),
        ]);
        let ended = command
            .current_dir("/")
            .stdin(Stdio::null())
            .status()
            .map_err(|e| doing(&e))?;
        if !ended.success() {
            let message = format!("the preinst script of {name} failed: {ended}");
            return Err(CallError::new(ErrorKind::Step, message));
        }
        self.diversions =
            Diversions::read(&self.admin.join("diversions")).map_err(|e| doing(&e))?;
        self.accounts = Accounts::read(&self.root.join("etc")).map_err(|e| doing(&e))?;
        Ok(())
    }

    /// The files of `info/`, interests, the other packages' lists, and the package's own stanza.
    fn register(
        &mut self,
        package: &Package,
        number: usize,
        scripts: &Path,
        placed: Placed,
    ) -> io::Result<()> {
        let label = package.known.label();
        let info = |name: &str| self.admin.join("info").join(format!("{label}.{name}"));
        let mut lines = Vec::new();
        for path in &placed.listed {
            lines.extend_from_slice(path.as_bytes());
            lines.push(b'\n');
        }
        write_atomic(&info("list"), &lines)?;
        self.triggers
            .add_interests(&label, package.directives.as_deref().unwrap_or(&[]))?;
        for entry in fs::read_dir(scripts)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if !file.contains('.') && file != "control" && file != "list" {
                fs::rename(entry.path(), info(&file))?;
            }
        }
        remove(scripts)?;
        if !package.has_sums {
            write_atomic(&info("md5sums"), &placed.sums)?;
        }
        let hashes = self.known_hashes(package);
        self.take_from_others(&placed)?;
        let flags = |path: &OsString, removed: bool| {
            let obsolete = if placed.kept.contains(path) {
                " obsolete"
            } else {
                ""
            };
            let removed = if removed { " remove-on-upgrade" } else { "" };
            format!(
                "{}{obsolete}{removed}",
                hashes.get(path).map_or(UNKNOWN, String::as_str)
            )
        };
        let conffiles = package.conffiles.iter().map(|(path, removed)| Conffile {
            path: path.to_string_lossy().into_owned(),
            rest: flags(path, *removed),
        });
        let conffiles = conffiles.collect();
        let known = &mut self.status.packages[number];
        known.conffiles = conffiles;
        (known.state, known.want) = (State::Unpacked, "install ok".to_owned());
        self.ties.add(number, &package.known);
        for path in &placed.listed {
            self.owners.add(path, number as u32);
        }
        Ok(())
    }

    /// What another package knows of configuration files that now come with this one.
    fn known_hashes(&self, package: &Package) -> HashMap<OsString, String> {
        let hash = |path: &OsString| {
            let owner = *self.owners.of(path).first()?;
            let mut conffiles = self.status.packages[owner as usize].conffiles.iter();
            let known = conffiles.find(|c| OsStr::new(&c.path) == path)?;
            Some(known.rest.split(' ').next()?.to_owned())
        };
        let paths = package.conffiles.iter().map(|(path, _)| path);
        paths
            .filter_map(|path| Some((path.clone(), hash(path)?)))
            .collect()
    }

    /// Files that were other packages' are so no longer.
    fn take_from_others(&mut self, placed: &Placed) -> io::Result<()> {
        let mut changed: HashMap<u32, HashSet<&OsStr>> = HashMap::new();
        for (path, other, conffile) in &placed.taken {
            changed.entry(*other).or_default().insert(path);
            if *conffile {
                let known = &mut self.status.packages[*other as usize];
                let same = |c: &&mut Conffile| {
                    OsStr::new(&c.path) == path && !c.rest.contains(" obsolete")
                };
                if let Some(found) = known.conffiles.iter_mut().find(same) {
                    found.rest.push_str(" obsolete");
                }
            }
        }
        for (other, paths) in changed {
            let known = &self.status.packages[other as usize];
            let file = self
                .admin
                .join("info")
                .join(format!("{}.list", known.label()));
            let old = read_or_empty(&file)?;
            let lines = old.split_inclusive(|&b| b == b'\n');
            let kept = lines.filter(|l| !paths.contains(OsStr::from_bytes(l.trim_ascii_end())));
            write_atomic(&file, &kept.collect::<Vec<_>>().concat())?;
            paths
                .into_iter()
                .for_each(|path| self.owners.remove(path, other));
        }
        Ok(())
    }
}

/// The list of a package's files as it stands on disk.
fn list(admin: &Path, known: &Known) -> io::Result<Vec<u8>> {
    read_or_empty(&admin.join("info").join(format!("{}.list", known.label())))
}

/// What became of a package's entries.
#[derive(Default)]
struct Placed {
    /// Paths in the package's list.
    listed: Vec<OsString>,
    /// Configuration files of which another package keeps its own.
    kept: HashSet<OsString>,
    /// Paths that another package had, and whether as a configuration file of both.
    taken: Vec<(OsString, u32, bool)>,
    /// Lines of `md5sums`, if the package has none.
    sums: Vec<u8>,
}

/// The entries of one package on their way into the root.
struct Placing<'a, 'b> {
    adopter: &'a mut Adopter<'b>,
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
    fn new(adopter: &'a mut Adopter<'b>, package: &'a Package, number: usize) -> Self {
        let tree = Tree::new(adopter.root, package);
        let conffiles = package.conffiles.iter().filter(|(_, removed)| !removed);
        Placing {
            conffiles: conffiles.map(|(path, _)| path.as_os_str()).collect(),
            adopter,
            package,
            number,
            tree,
            sums: HashMap::new(),
            replaces: HashMap::new(),
            placed: Placed::default(),
        }
    }

    fn all(mut self, say: &mut dyn FnMut(Said)) -> Result<Placed> {
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
            let error = io_error(
                format!("unpacking {} of {name}", Path::new(path).display()),
                &e,
            );
            match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.hint("the disk that holds the cache is full: free some space, or move it with --cache-dir"),
                _ => error,
            }
        };
        self.check(path)?;
        let target = self.adopter.diversions.target(path, name).to_owned();
        self.adopter
            .triggers
            .path_unpacked(&target, self.number, &mut self.adopter.status);
        let conffile = self.conffiles.contains(path);
        // Where a link is in the place of a configuration file, dpkg does not follow it until it configures.
        let real = target;
        let there = self.tree.look(&real).map_err(failed)?;
        let existing = self
            .tree
            .is_there(item, &real, there.as_ref())
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
        self.make(item, &real, there.as_ref(), conffile)
            .map_err(failed)?;
        self.sum(item);
        self.take(path, conffile);
        Ok(())
    }

    /// What dpkg refuses whatever is in the root.
    fn check(&self, path: &OsStr) -> Result<()> {
        let shown = Path::new(path).display();
        let name = &self.package.known.name;
        if let Some(source) = self.adopter.diversions.source(path) {
            let message = format!(
                "unpacking {name}: {shown} is where {} was diverted to",
                Path::new(source).display()
            );
            return Err(CallError::new(ErrorKind::Step, message));
        }
        let removed = |(known, removed): &(OsString, bool)| *removed && known == path;
        if self.package.conffiles.iter().any(removed) {
            let message = format!(
                "unpacking {name}: {shown} is in the package although its upgrade is to remove it"
            );
            return Err(CallError::new(ErrorKind::Step, message));
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
        for other in self.adopter.owners.of(path).to_vec() {
            let known = &self.adopter.status.packages[other as usize];
            let diverted = self.adopter.diversions.by(path).flatten();
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
        let known = &self.adopter.status.packages[other as usize];
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
        Err(CallError::new(ErrorKind::Step, message)
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
                    .adopter
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
        match self.adopter.overrides.get(item.entry.path.as_os_str()) {
            Some(wanted) => *wanted,
            None => {
                let (user, group) = self
                    .adopter
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
            self.placed
                .sums
                .extend_from_slice(path.as_bytes().get(1..).unwrap_or_default());
            self.placed.sums.push(b'\n');
        }
    }

    /// Notes what other packages lose to this one.
    fn take(&mut self, path: &OsStr, conffile: bool) {
        let diverted = self.adopter.diversions.by(path).flatten();
        if diverted == Some(self.package.known.name.as_str()) {
            return;
        }
        for &other in self.adopter.owners.of(path) {
            let known = &self.adopter.status.packages[other as usize];
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

impl<'t> Tree<'t> {
    fn new(root: &'t Path, package: &Package) -> Self {
        Tree {
            root,
            pool: package.dir.clone(),
            again: false,
        }
    }
}

/// Whether `new` says that it replaces files of `old`.
fn does_replace(new: &Known, old: &Known) -> bool {
    relation::list(new.field("Replaces")).any(|r| r.name == old.name && r.accepts(&old.version))
}

/// Puts the files of essential packages into an empty root, where no program runs yet and dpkg knows nothing:
/// configuration files and all, and without taking anything out of the pool.
pub(super) fn extract(
    root: &Path,
    pool: &str,
    keys: &[String],
    say: &mut dyn FnMut(Said),
) -> Result<()> {
    for key in keys {
        let package = Package::read(&root.join(pool).join(key))?;
        let name = package.known.name.clone();
        say(Said::Unpacking {
            name: name.clone(),
            version: package.known.version.clone(),
        });
        let tree = Tree {
            again: true,
            ..Tree::new(root, &package)
        };
        let mut made = Vec::new();
        for item in package.items.iter().filter(|item| !item.filtered) {
            let path = item.entry.path.as_os_str();
            let shown = Path::new(path).display();
            let done = extract_item(&tree, &package, item, &mut made);
            done.map_err(|e| io_error(format!("unpacking {shown} of {name}"), &e))?;
        }
        for (place, mtime) in made {
            let times = super::pool::times(mtime);
            let set = rustix::fs::utimensat(
                rustix::fs::CWD,
                &place,
                &times,
                rustix::fs::AtFlags::empty(),
            );
            set.map_err(|e| {
                io_error(
                    format!("unpacking {} of {name}", place.display()),
                    &e.into(),
                )
            })?;
        }
        say(Said::Unpacked { name });
    }
    Ok(())
}

fn extract_item(
    tree: &Tree<'_>,
    package: &Package,
    item: &Item,
    made: &mut Vec<(PathBuf, i64)>,
) -> io::Result<()> {
    let path = item.entry.path.as_os_str();
    let there = tree.look(path)?;
    if tree.is_there(item, path, there.as_ref())? || item.entry.kind == Kind::Device {
        return Ok(());
    }
    if let Some(parent) = tree.at(path).parent() {
        fs::create_dir_all(parent)?;
    }
    let dress = (item.entry.owner.0, item.entry.owner.1, item.entry.mode);
    let conffile = package.conffiles.iter().any(|(known, _)| known == path);
    if conffile && matches!(item.entry.kind, Kind::File(_)) {
        return tree.copy(item, path, dress);
    }
    let link = match &item.entry.kind {
        Kind::HardLink(target) => Some(target.as_os_str()),
        _ => None,
    };
    tree.make(item, path, there.as_ref(), dress, link)?;
    if item.entry.kind == Kind::Directory {
        made.push((tree.at(path), item.entry.mtime));
    }
    Ok(())
}
