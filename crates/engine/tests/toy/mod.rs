//! A family of distributions that no part of Kiln knows: packages are tar files, an index is a text, and the package manager is a
//! shell script. It has what [`Family`] asks for, and nothing else.
//!
//! ```text
//! REPOSITORY/index          lines of `NAME VERSION FILE SIZE SHA256 DEPENDS,…`; the "key" is its SHA-256
//! REPOSITORY/NAME.tar       what it puts into a root
//! /lib/toy/installed        lines of `NAME VERSION` in a root
//! /etc/toy/repositories     lines of URLs in a root
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_kickstart::PackageRef;
use kiln_packages::{Digest, DownloadStore, Lock, LockedPackage, LockedRepository, TOOLS, Verdict};
use kiln_plan::{Hasher, Id, Plan, Request, Target};
use kiln_rootfs::family::{Boot, Facts, Family, Install, Installer, Job, Medium, Metadata, World};
use kiln_rootfs::finish::{Finish, Finished, Installed, Kernels, Sources};
use kiln_rootfs::initramfs::{INITRD, Initramfs, keep_boot};
use kiln_rootfs::trace::{SharedTrace, Tracing, taken};
use kiln_rootfs::{Error, Extras, Place, Requests, SYSTEM, Wanted};
use kiln_sandbox::{Mount, Watch};

type Result<T> = std::result::Result<T, Error>;

/// The distribution's name.
pub(crate) const NAME: &str = "toy";
/// A fact of each of its packages.
const CHANNEL: &str = "toys";
/// When all its packages were made.
pub(crate) const BUILT: u64 = 1_700_000_000;
/// A static shell with tools, of the building machine and in the root.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// The package manager in a root.
pub(crate) const MANAGER: &str = "/bin/toy";
/// The package manager's text.
pub(crate) const PROGRAM: &str = include_str!("toy.sh");

/// Where the build's own copies are seen in a root.
const BOX: &str = "/run/toy/busybox";
const SCRIPT: &str = "/run/toy/toy";
const PACKAGES: &str = "/run/toy/packages";

const BOOT: Boot = Boot {
    shim: "boot/shim.efi",
    grub: "boot/grub.efi",
    mok_manager: "boot/no-such-program",
    efi_prefix: "/EFI/toy",
    bios_modules: "boot/i386-pc",
    kernel: "/toy/kernel",
    initrd: "/toy/initrd",
    root_file: "/toy/root",
    excluded: &["/boot/initrd-of-the-toy"],
};

#[derive(Debug)]
pub(crate) struct Toy;

/// Packages with the names of those that they need.
struct Index {
    repository: LockedRepository,
    file: PathBuf,
    packages: BTreeMap<String, (LockedPackage, Vec<String>)>,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::definition(what)
}

/// The one repository of a plan: its URL, directory and key.
fn repository(plan: &Plan) -> Result<(&str, &Path, Digest)> {
    let one = plan.repositories.first();
    let one = one.ok_or_else(|| wrong("a toy needs a [[repository]]"))?;
    let path = one.url.strip_prefix("file://");
    let path = path.ok_or_else(|| wrong(format!("{} is not on this machine", one.url)))?;
    let key = one
        .keys
        .as_ref()
        .map(|(_, bytes)| String::from_utf8_lossy(bytes).trim().parse());
    let key = key.and_then(std::result::Result::ok);
    let key = key.ok_or_else(|| wrong("the key of a toy is its index's SHA-256"))?;
    Ok((&one.url, Path::new(path), key))
}

/// What the index is called where it is kept; builds of other repositories keep theirs in the same directory.
fn kept_name(key: &Digest) -> String {
    format!("index-{key}")
}

impl Index {
    fn read(plan: &Plan, file: &Path) -> Result<Index> {
        let (url, _, key) = repository(plan)?;
        let text = fs::read_to_string(file).map_err(|e| Error::io("reading an index", &e))?;
        if Digest::of(text.as_bytes()) != key {
            return Err(wrong("the index is not what its key says"));
        }
        let packages: Option<_> = text.lines().map(|line| package(url, line)).collect();
        Ok(Index {
            repository: LockedRepository {
                uri: url.to_owned(),
                name: CHANNEL.to_owned(),
                date: UNIX_EPOCH + Duration::from_secs(BUILT),
                release: key,
            },
            file: file.to_owned(),
            packages: packages.ok_or_else(|| wrong("a line of the index is no package"))?,
        })
    }

    /// Adds a package with all that it needs.
    fn add(&self, name: &str, layer: &str, auto: bool, to: &mut Vec<LockedPackage>) -> Result<()> {
        if to.iter().any(|p| p.name == name) {
            return Ok(());
        }
        let missing = || wrong(format!("package `{name}` does not exist"));
        let (package, needs) = self.packages.get(name).ok_or_else(missing)?;
        to.push(LockedPackage {
            layer: layer.to_owned(),
            auto,
            ..package.clone()
        });
        needs.iter().try_for_each(|n| self.add(n, layer, true, to))
    }
}

/// A line of an index.
fn package(url: &str, line: &str) -> Option<(String, (LockedPackage, Vec<String>))> {
    let [name, version, file, size, sha256, needs] =
        line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let package = LockedPackage {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "any".to_owned(),
        url: format!("{url}/{file}"),
        sha256: sha256.parse().ok()?,
        size: size.parse().ok()?,
        layer: TOOLS.to_owned(),
        auto: true,
        facts: [("channel".to_owned(), CHANNEL.to_owned())].into(),
    };
    let needs = needs.split(',').filter(|need| !need.is_empty());
    Some((
        name.to_owned(),
        (package, needs.map(str::to_owned).collect()),
    ))
}

impl World for Index {
    fn repositories(&self) -> Vec<LockedRepository> {
        vec![self.repository.clone()]
    }

    fn packages(&self) -> usize {
        self.packages.len()
    }

    fn verdict(&self, package: &LockedPackage) -> Verdict {
        let ours = self.packages.get(&package.name).map(|(ours, _)| ours);
        match ours.filter(|ours| ours.version == package.version) {
            Some(ours) if ours.item() == package.item() => Verdict::Signed,
            Some(_) => Verdict::Differs("the index says something else".to_owned()),
            None => Verdict::Unknown,
        }
    }

    fn files(&self) -> Vec<(String, PathBuf)> {
        vec![(kept_name(&self.repository.release), self.file.clone())]
    }

    fn tools(&self) -> Result<Vec<LockedPackage>> {
        let mut tools = Vec::new();
        for name in ["base", "loaders"] {
            self.add(name, TOOLS, true, &mut tools)?;
        }
        Ok(tools)
    }

    fn requests(&self, plan: &Plan) -> Result<Requests> {
        let mut requests = Requests::default();
        let added = plan.system.packages.iter();
        let system = added.map(|p| Wanted::new(&p.package, &p.why)).collect();
        requests.layers.push((SYSTEM.to_owned(), system));
        for layer in &plan.layers {
            let wanted = |request: &Request| match &request.what {
                PackageRef::Package(name) => Ok(Wanted::new(name, &request.origin)),
                other => Err(wrong(format!("a toy has no {other:?}"))),
            };
            let all: Result<_> = layer.packages.iter().map(wanted).collect();
            requests.layers.push((layer.name.clone(), all?));
        }
        Ok(requests)
    }

    fn solve(&self, _: &Place<'_>, requests: &Requests) -> Result<Vec<LockedPackage>> {
        let mut all = Vec::new();
        for (layer, wanted) in &requests.layers {
            wanted
                .iter()
                .try_for_each(|w| self.add(&w.name, layer, false, &mut all))?;
        }
        Ok(all)
    }
}

impl Family for Toy {
    fn has(&self, target: &Target) -> bool {
        target.distribution == NAME
    }

    fn code(&self) -> &'static str {
        "toy.1"
    }

    fn lock_facts(&self) -> &'static [&'static str] {
        &["channel"]
    }

    fn world(&self, plan: &Plan, source: &Metadata<'_>) -> Result<Box<dyn World>> {
        let (_, directory, key) = repository(plan)?;
        let kept = source.directory.join(kept_name(&key));
        // Another build may be reading what is there: it is replaced at once.
        let keep = || -> std::io::Result<()> {
            fs::create_dir_all(source.directory)?;
            let file = tempfile::NamedTempFile::new_in(source.directory)?;
            fs::copy(directory.join("index"), file.path())?;
            file.persist(&kept)?;
            Ok(())
        };
        keep().map_err(|e| Error::io("keeping the index", &e))?;
        Ok(Box::new(Index::read(plan, &kept)?))
    }

    fn kept_world(
        &self,
        plan: &Plan,
        directory: &Path,
        _: SystemTime,
    ) -> Result<(Box<dyn World>, Vec<String>)> {
        let (.., key) = repository(plan)?;
        let index = Index::read(plan, &directory.join(kept_name(&key)))?;
        Ok((Box::new(index), Vec::new()))
    }

    fn repositories(&self, plan: &Plan) -> Result<Vec<(String, String)>> {
        let (url, ..) = repository(plan)?;
        Ok(vec![(url.to_owned(), CHANNEL.to_owned())])
    }

    fn repositories_id(&self, plan: &Plan) -> Result<Id> {
        let (url, _, key) = repository(plan)?;
        let hasher = Hasher::new("toy.v1").text("url", url);
        Ok(hasher.bytes("key", key.as_bytes()).finish())
    }

    fn outside(&self, plan: &Plan, package: &LockedPackage) -> Result<Option<String>> {
        let (url, ..) = repository(plan)?;
        let inside = package.url.starts_with(&format!("{url}/"));
        Ok((!inside).then(|| format!("{} is elsewhere", package.url)))
    }

    /// The package manager's arguments, a line for each package.
    fn facts(
        &self,
        plan: &Plan,
        packages: &[&LockedPackage],
        downloads: &DownloadStore,
        _: usize,
    ) -> Result<Facts> {
        let mut text = String::new();
        let mut newest = None;
        for package in packages {
            let file = downloads.path(&package.sha256);
            newest = newest.max(Some(self.built(plan, package, downloads)?));
            let inside = file
                .strip_prefix(downloads.root())
                .unwrap_or(&file)
                .display();
            let (name, version) = (&package.name, &package.version);
            text += &format!("{name} {version} {PACKAGES}/{inside}\n");
        }
        Ok(Facts::new(newest, text.into_bytes()))
    }

    fn recalled(&self, text: Vec<u8>, packages: usize) -> Option<Facts> {
        let lines = std::str::from_utf8(&text).ok()?.lines().count();
        let built = (lines > 0).then(|| BUILT.cast_signed());
        (lines == packages).then(|| Facts::new(built, text))
    }

    /// tar(5): the time of the first member, octal.
    fn built(&self, _: &Plan, package: &LockedPackage, downloads: &DownloadStore) -> Result<i64> {
        let file = downloads.path(&package.sha256);
        let mut digits = [0; 11];
        let read = File::open(file).and_then(|f| f.read_exact_at(&mut digits, 136));
        read.map_err(|e| Error::io("reading a package", &e))?;
        Ok(i64::from_str_radix(&String::from_utf8_lossy(&digits), 8).unwrap_or(0))
    }

    fn installer(&self, job: Job) -> Result<Box<dyn Installer>> {
        Ok(Box::new(Shell(job.downloads)))
    }

    fn sources(&self, _: &Plan, lock: &Lock) -> Sources {
        let urls = lock.repositories.iter().map(|r| format!("{}\n", r.uri));
        Sources {
            files: vec![("repositories".to_owned(), urls.collect())],
            keys: Vec::new(),
        }
    }

    fn reads_sources(&self, _: &[Facts]) -> bool {
        true
    }

    fn write_sources(&self, place: &Place<'_>, sources: &Sources) -> Result<()> {
        let write = r#"mkdir -p /etc/toy && printf %s "$2" > "/etc/toy/$1""#;
        for (name, content) in &sources.files {
            sh(place, write, &[name, content], Extras::default())?;
        }
        Ok(())
    }

    fn script_environment(&self) -> &'static [(&'static str, &'static str)] {
        &[("TOY", "yes")]
    }

    fn without_daemons(
        &self,
        _: &Place<'_>,
        scripts: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        scripts()
    }

    fn finish(
        &self,
        place: &Place<'_>,
        finish: &Finish,
        packages: Vec<PathBuf>,
    ) -> Result<Finished> {
        let secrets = kiln_rootfs::finish::finish(place, finish, packages)?;
        if let Some(sources) = &finish.sources {
            self.write_sources(place, sources)?;
        }
        let lines = place.lines(&[BUSYBOX, "sort", "/lib/toy/installed"])?;
        let package = |line: &String| {
            let (name, version) = line.split_once(' ')?;
            Some(installed(name, version))
        };
        Ok(Finished {
            packages: lines.iter().filter_map(package).collect(),
            secrets,
            kernels: Kernels {
                found: vec!["1".to_owned()],
                ..Kernels::default()
            },
        })
    }

    fn generator_code(&self) -> &'static str {
        "toy.1"
    }

    fn initramfs(
        &self,
        place: &Place<'_>,
        _: Option<u32>,
        trace: &SharedTrace,
    ) -> Result<Initramfs> {
        let ignored = ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"].map(str::to_owned);
        let extras = Extras {
            tracing: Some(Tracing {
                watch: Watch {
                    ignored: ignored.to_vec(),
                    changes: false,
                },
                globs: Vec::new(),
                trace: SharedTrace::clone(trace),
            }),
            ..Extras::default()
        };
        // An archive would hold times and numbers of inodes.
        let make = "mkdir -p /var/tmp; cat /lib/modules/* > \"$1\"";
        let outcome = sh(place, make, &[INITRD], extras)?;
        keep_boot(place, "/boot/kernel")?;
        let trace = taken(trace, &outcome).filter(|trace| trace.incomplete.is_none());
        Ok(Initramfs {
            version: "1".to_owned(),
            trace,
        })
    }

    fn boot(&self, _: &Target) -> &'static Boot {
        &BOOT
    }

    fn arguments(&self, medium: &Medium) -> Vec<String> {
        let root = format!("toy.root={}", medium.partition);
        let copy = medium.in_memory.then(|| "toy.copy".to_owned());
        std::iter::once(root).chain(copy).collect()
    }
}

fn installed(name: &str, version: &str) -> Installed {
    let [name, version, architecture] = [name, version, "any"].map(str::to_owned);
    Installed {
        name,
        version,
        architecture,
    }
}

/// Runs a line of shell in a root.
fn sh(
    place: &Place<'_>,
    script: &str,
    words: &[&str],
    extras: Extras,
) -> Result<kiln_sandbox::Outcome> {
    let shell = [BUSYBOX, "sh", "-e", "-c", script, "sh"];
    place.exec(&[&shell, words].concat(), extras)
}

/// Installs with the script above.
struct Shell(DownloadStore);

impl Shell {
    /// By the build's own copies, or by those of the root.
    fn run(&self, place: &Place<'_>, facts: &Facts, [program, script]: [&str; 2]) -> Result<()> {
        let text = String::from_utf8_lossy(facts.text());
        let argv: Vec<&str> = [program, "sh", script]
            .into_iter()
            .chain(text.split_whitespace())
            .collect();
        let bind = |source: PathBuf, target: &str| Mount::Bind {
            source,
            target: target.to_owned(),
            writable: false,
        };
        let manager = Mount::File {
            target: SCRIPT.to_owned(),
            content: PROGRAM.as_bytes().to_vec(),
            mode: 0o755,
        };
        let extras = Extras {
            mounts: vec![
                bind(self.0.root().to_owned(), PACKAGES),
                bind(BUSYBOX.into(), BOX),
                manager,
            ],
            env: vec![("BOX".to_owned(), program.to_owned())],
            ..Extras::default()
        };
        place.exec(&argv, extras).map(|_| ())
    }
}

impl Installer for Shell {
    fn tools(&self, place: &Place<'_>, packages: &Facts) -> Result<()> {
        self.run(place, packages, [BOX, SCRIPT])
    }

    fn bootstrap(&self, work: &Install<'_>) -> Result<()> {
        self.run(work.place, work.packages, [BOX, SCRIPT])
    }

    fn install(&self, work: &Install<'_>, installed: &[Facts]) -> Result<()> {
        assert!(!installed.is_empty(), "nothing is installed below a layer");
        self.run(work.place, work.packages, [BUSYBOX, MANAGER])
    }
}
