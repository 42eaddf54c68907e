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

use kiln_sandbox::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::database::Database;
use super::facts::{Candidate, Ties, obstacle, root_obstacle};
use super::package::{Package, Result, Said};
use super::paths::{Accounts, Diversions, Owners, overrides, read_or_empty};
use super::place::{Tree, remove};
use super::placing::{Placed, Placing};
use super::status::{Conffile, Known, State, Status, write_atomic};
use super::triggers::Triggers;
use crate::calls::io_error;

/// What dpkg writes for the hash of a configuration file that it has not seen before.
const UNKNOWN: &str = "newconffile";

/// What is to be unpacked, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Adopt {
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

/// How far it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
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

/// The root's database, and what decides whether a package is for dpkg.
struct Adopter<'a> {
    database: Database<'a>,
    request: &'a Adopt,
    admin: PathBuf,
    ties: Ties,
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
        let database = Database {
            root,
            status,
            owners: Owners::default(),
            triggers,
            diversions: Diversions::read(&admin.join("diversions")).map_err(read)?,
            accounts,
            overrides,
        };
        let mut adopter = Adopter {
            database,
            request,
            ties: Ties::default(),
            admin,
            dpkg: version,
            native,
        };
        adopter.know_files().map_err(read)?;
        Ok(Ok(adopter))
    }

    fn know_files(&mut self) -> io::Result<()> {
        for (number, known) in self.database.status.packages.iter().enumerate() {
            if known.state <= State::ConfigFiles {
                continue;
            }
            self.ties.add(number, known);
            for path in list(&self.admin, known)?
                .split(|&b| b == b'\n')
                .filter(|l| !l.is_empty())
            {
                self.database
                    .owners
                    .add(OsStr::from_bytes(path), number as u32);
            }
        }
        Ok(())
    }

    fn obstacle(&self, package: &Package) -> Option<String> {
        let tree = Tree::new(self.database.root, package);
        let (name, mut conffiles) = (&package.known.name, package.conffiles.iter());
        let shared = package.conffiles.iter();
        if let Some((path, _)) = shared.clone().find(|(path, _)| path.to_str().is_none()) {
            let path = Path::new(path).display();
            return Some(format!(
                "the name of its configuration file {path} is not UTF-8"
            ));
        }
        if let Some((path, _)) = shared
            .clone()
            .find(|(path, _)| self.database.owners.of(path).len() > 1)
        {
            let path = Path::new(path).display();
            return Some(format!("its configuration file {path} is many packages'"));
        }
        if let Some((path, _)) = conffiles
            .find(|(path, _)| !tree.takes_conffile(self.database.diversions.target(path, name)))
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
            &self.database.status,
            &self.ties,
            &self.database.owners,
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
        self.database
            .status
            .write(&self.admin.join("status"))
            .map_err(write)
    }

    fn package(&mut self, package: Package, say: &mut dyn FnMut(Said)) -> Result<()> {
        let name = package.known.name.clone();
        let failed = |what: &str, e: &io::Error| io_error(format!("unpacking {name}: {what}"), e);
        let number = self.database.status.add(package.known.clone());
        let directives = package.directives.as_deref().unwrap_or(&[]);
        self.database
            .triggers
            .activate(directives, &mut self.database.status)
            .map_err(|e| failed("setting off triggers", &e))?;
        let known = &mut self.database.status.packages[number];
        (known.state, known.want) = (State::HalfInstalled, "install reinstreq".to_owned());
        let scripts = self
            .unpack_control(&package)
            .map_err(|e| failed("its control files", &e))?;
        self.preinst(&package, &scripts)?;
        let placed = Placing::new(&mut self.database, &package, number).all(say)?;
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
        kiln_sandbox::confine(&mut command);
        let ended = command
            .current_dir("/")
            .stdin(Stdio::null())
            .status()
            .map_err(|e| doing(&e))?;
        if !ended.success() {
            let message = format!("the preinst script of {name} failed: {ended}");
            return Err(Error::new(ErrorKind::Step, message));
        }
        self.database.diversions =
            Diversions::read(&self.admin.join("diversions")).map_err(|e| doing(&e))?;
        self.database.accounts =
            Accounts::read(&self.database.root.join("etc")).map_err(|e| doing(&e))?;
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
        self.database
            .triggers
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
        let known = &mut self.database.status.packages[number];
        known.conffiles = conffiles;
        (known.state, known.want) = (State::Unpacked, "install ok".to_owned());
        self.ties.add(number, &package.known);
        for path in &placed.listed {
            self.database.owners.add(path, number as u32);
        }
        Ok(())
    }

    /// What another package knows of configuration files that now come with this one.
    fn known_hashes(&self, package: &Package) -> HashMap<OsString, String> {
        let hash = |path: &OsString| {
            let owner = *self.database.owners.of(path).first()?;
            let mut conffiles = self.database.status.packages[owner as usize]
                .conffiles
                .iter();
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
                let known = &mut self.database.status.packages[*other as usize];
                let same = |c: &&mut Conffile| {
                    OsStr::new(&c.path) == path && !c.rest.contains(" obsolete")
                };
                if let Some(found) = known.conffiles.iter_mut().find(same) {
                    found.rest.push_str(" obsolete");
                }
            }
        }
        for (other, paths) in changed {
            let known = &self.database.status.packages[other as usize];
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
                .for_each(|path| self.database.owners.remove(path, other));
        }
        Ok(())
    }
}

/// The list of a package's files as it stands on disk.
fn list(admin: &Path, known: &Known) -> io::Result<Vec<u8>> {
    read_or_empty(&admin.join("info").join(format!("{}.list", known.label())))
}

impl<'t> Tree<'t> {
    pub(super) fn new(root: &'t Path, package: &Package) -> Self {
        Tree {
            root,
            pool: package.dir.clone(),
            again: false,
        }
    }
}
