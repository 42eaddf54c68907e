//! An RPM distribution that boots, made on the spot of Debian's packages: "Kindling Linux 9". No RPM mirror is needed, and no privilege.
//!
//! Debian's files are moved below `/usr` and packed by rpmbuild, dependencies are translated, and scriptlets, file triggers and
//! presets do what Debian's maintainer scripts did. Groups, environments, a module in two streams and signatures make it what dnf knows.
//! It needs apt, dpkg-deb, rpmbuild, rpmsign, gpg, createrepo_c, grub-mkimage with its modules for UEFI, openssl and sbsign.
//!
//! ```text
//! CACHE/debs/SHA256      package files of Debian's
//! CACHE/rpms/KEY/        what was built of one of them, signed; KEY has all that it was built of
//! CACHE/gnupg/           the key that signs
//! CACHE/secure-boot.*    the key that signs GRUB for UEFI, and its certificate
//! ```

mod apt;
mod deb;
mod kernel;
mod live;
mod loader;
mod names;
mod own;
mod repository;
mod spec;
mod translate;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use apt::{Apt, Control, Listed, digest};
use own::Own;
use translate::Known;

use crate::rpm::Gpg;

/// To be changed when the same inputs make other packages.
const CODE: &str = "3";

/// How much there is of the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// A shell and the package manager: nothing that boots.
    Small,
    /// What boots to a console.
    Base,
    /// What boots to a desktop.
    Desktop,
}

impl Set {
    /// The set that is called so.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "small" => Some(Set::Small),
            "base" => Some(Set::Base),
            "desktop" => Some(Set::Desktop),
            _ => None,
        }
    }

    fn names(self) -> Vec<&'static str> {
        let more: &[&[&str]] = match self {
            Set::Small => &[names::SMALL],
            Set::Base => &[names::SMALL, names::BASE],
            Set::Desktop => &[names::SMALL, names::BASE, names::DESKTOP],
        };
        more.concat()
    }
}

/// A distribution that was made.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// The repository's directory: `repodata`, `Packages`.
    pub directory: PathBuf,
    /// The public key of its packages and metadata.
    pub key: PathBuf,
    /// The certificate, in PEM, of the key that signed its GRUB for UEFI.
    pub certificate: PathBuf,
    /// How many packages it has.
    pub packages: usize,
    /// How many of them were built now; the others were in the cache.
    pub built: usize,
}

/// Makes a distribution in `out`, which is made anew. `cache` keeps what it was made of, and has to be on the same file system; `stores` are directories of Kiln's
/// downloads, which may have package files of Debian's.
///
/// # Panics
/// If a program is missing or fails, or Debian's mirror cannot be reached.
pub fn make(set: Set, out: &Path, cache: &Path, stores: &[PathBuf]) -> Distribution {
    for part in ["debs", "rpms", "work"] {
        fs::create_dir_all(cache.join(part)).expect("a directory of the cache");
    }
    let cache = cache.canonicalize().expect("the cache");
    loader::keep_key(&cache);
    let apt = Apt::new(&cache.join("apt"));
    let all = kept(apt.closure(&Set::Desktop.names()));
    let controls = apt.controls(&all);
    let mut own = own::packages();
    own.extend(live::packages());
    let known = known(&controls, &own);
    let wanted = match set {
        Set::Desktop => all,
        set => kept(apt.closure(&set.names())),
    };
    let mut controls = controls;
    controls.append(&mut apt.controls(&wanted));
    let works: Vec<Work<'_>> = wanted
        .iter()
        .map(Work::Debian)
        .chain(own.iter().map(Work::Own))
        .collect();
    let maker = Maker {
        controls: &controls,
        stores,
        key: digest(format!("{CODE}{:?}{:?}", known.packages, known.provided).as_bytes()),
        known: &known,
        cache: &cache,
    };
    let key = Gpg::keep(&cache.join("gnupg"), "Kindling <kindling@example.org>");
    let (homes, built) = maker.make(&works, &key);
    let packages = publish(&homes, out);
    let work = tempdir(&cache);
    repository::describe(out, &work, &key);
    fs::remove_dir_all(work).expect("removing a directory");
    let certificate = out.join(loader::CERTIFICATE);
    fs::copy(cache.join(loader::CERTIFICATE), &certificate).expect("the certificate");
    Distribution {
        directory: out.to_owned(),
        key: out.join(repository::KEY),
        certificate,
        packages,
        built,
    }
}

fn kept(all: Vec<Listed>) -> Vec<Listed> {
    let kept = all
        .into_iter()
        .filter(|listed| !names::is_dropped(&listed.name));
    kept.collect()
}

fn known(controls: &BTreeMap<String, Control>, own: &[Own]) -> Known {
    let names = controls.keys().cloned();
    Known {
        packages: names
            .chain(own.iter().map(|own| own.name.to_owned()))
            .collect(),
        provided: controls.values().flat_map(translate::provided).collect(),
    }
}

/// Links the packages into `OUT/Packages`.
fn publish(homes: &[PathBuf], out: &Path) -> usize {
    let _ = fs::remove_dir_all(out);
    let into = out.join("Packages");
    fs::create_dir_all(&into).expect("a directory for the packages");
    let mut count = 0;
    for home in homes {
        for file in fs::read_dir(home)
            .expect("packages that were built")
            .flatten()
        {
            fs::hard_link(file.path(), into.join(file.file_name())).expect("a package");
            count += 1;
        }
    }
    count
}

enum Work<'a> {
    Debian(&'a Listed),
    Own(&'a Own),
}

struct Maker<'a> {
    controls: &'a BTreeMap<String, Control>,
    known: &'a Known,
    stores: &'a [PathBuf],
    /// What all packages depend on: the code, and the names.
    key: String,
    cache: &'a Path,
}

impl Maker<'_> {
    /// Builds and signs what is not in the cache. Returns where the packages are, and how many were built.
    fn make(&self, works: &[Work<'_>], key: &Gpg) -> (Vec<PathBuf>, usize) {
        let homes: Vec<PathBuf> = works.iter().map(|work| self.home(work)).collect();
        let mut missing: Vec<(&Work<'_>, &PathBuf)> = works
            .iter()
            .zip(&homes)
            .filter(|(_, home)| !home.exists())
            .collect();
        // The kernel takes longest: it must not be the last one.
        missing.sort_by_key(|(work, _)| match work {
            Work::Debian(listed) => u64::MAX - listed.size,
            Work::Own(_) => u64::MAX,
        });
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((work, home)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.build(work, home);
            }
        };
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(work)));
        });
        let unsigned: Vec<PathBuf> = missing
            .iter()
            .flat_map(|(_, home)| files(&part(home)))
            .collect();
        repository::sign(key, &unsigned, threads);
        for (_, home) in &missing {
            fs::rename(part(home), home).expect("packages in the cache");
        }
        let built = missing.len();
        (homes, built)
    }

    fn home(&self, work: &Work<'_>) -> PathBuf {
        let of = match work {
            Work::Debian(listed) => format!("{} {}", listed.name, listed.sha256),
            Work::Own(own) => own.key(),
        };
        let key = digest(format!("{} {of}", self.key).as_bytes());
        self.cache.join("rpms").join(&key[..32])
    }

    fn build(&self, what: &Work<'_>, home: &Path) {
        let into = part(home);
        let _ = fs::remove_dir_all(&into);
        fs::create_dir_all(&into).expect("a directory for packages");
        let work = tempdir(self.cache);
        match what {
            Work::Own(own) => own.build(&work, &into),
            Work::Debian(listed) => {
                let file = apt::obtain(listed, &self.cache.join("debs"), self.stores);
                let control = &self.controls[&listed.name];
                let package = translate::Package {
                    name: &listed.name,
                    control,
                    file: &file,
                    cache: self.cache,
                };
                translate::build(&package, self.known, &work, &into);
            }
        }
        fs::remove_dir_all(work).expect("removing what building left");
    }
}

/// Where packages are before they are signed.
fn part(home: &Path) -> PathBuf {
    home.with_extension("part")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).expect("packages that were built");
    files.flatten().map(|file| file.path()).collect()
}

/// A new directory for one package's work.
fn tempdir(cache: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = cache.join(format!("work/{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a directory to work in");
    path
}

/// Runs a program, and returns what it prints.
fn run(command: &mut Command) -> Vec<u8> {
    crate::rpm::run(command)
}
