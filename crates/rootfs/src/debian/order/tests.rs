//! The waves, judged by the real dpkg of this machine over generated packages.
//!
//! `KILN_GRAPHS` says over how many, `KILN_SEED` from which seed on:
//! `KILN_GRAPHS=2000 cargo test -p kiln-rootfs --lib order::`.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_packages::debian::relation::list;
use kiln_testkit::Package;
use kiln_testkit::package::Compression;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn deb(name: &str, pre_depends: &str, depends: &str) -> Deb {
    Deb {
        name: name.into(),
        version: "1".into(),
        architecture: "amd64".into(),
        pre_depends: pre_depends.into(),
        depends: depends.into(),
        ..Deb::default()
    }
}

/// Each wave as `unpacked -> configured`.
fn shown(debs: &[Deb], installed: &[Deb]) -> Vec<String> {
    let names = |indices: &[usize]| {
        let names: Vec<&str> = indices.iter().map(|&i| debs[i].name.as_str()).collect();
        names.join(" ")
    };
    let waves = waves(debs, installed).into_iter();
    waves
        .map(|w| format!("{} -> {}", names(&w.unpack), names(&w.configure)))
        .collect()
}

#[test]
fn pre_depends_come_first_with_what_they_depend_on() {
    let debs = [
        deb("app", "lib | other", ""),
        deb("lib", "", "data"),
        deb("data", "", ""),
        deb("x", "", ""),
    ];
    assert_eq!(shown(&debs, &[]), ["lib data x -> lib data", "app -> "]);
    assert_eq!(shown(&debs[..1], &debs[1..3]), ["app -> "]);
}

#[test]
fn a_package_comes_with_all_that_it_needs_and_nothing_else() {
    let debs = [
        deb("python", "minimal", "missing | libc, mime"),
        deb("minimal", "", "python, libc"),
        deb("libc", "", ""),
        deb("other", "", "python"),
        Deb {
            provides: "mime".into(),
            ..deb("media", "", "")
        },
    ];
    let all: Vec<&Deb> = debs.iter().collect();
    assert_eq!(closure(&all, &["python", "nobody"]), [0, 1, 2, 4]);
    assert!(closure(&all, &["nobody"]).is_empty());
}

/// trixie's `@core`: cron-daemon-common was configured before systemd, which it depends on, was unpacked.
#[test]
fn what_waits_for_a_package_that_is_not_unpacked_is_not_configured() {
    let debs = [
        deb("cron", "cron-daemon-common", ""),
        deb("cron-daemon-common", "", "systemd"),
        deb("systemd", "libsystemd0", ""),
        deb("libsystemd0", "", ""),
    ];
    let expected = [
        "cron-daemon-common libsystemd0 -> libsystemd0",
        "systemd -> cron-daemon-common systemd",
        "cron -> ",
    ];
    assert_eq!(shown(&debs, &[]), expected);
}

#[test]
fn versions_and_architectures_decide_who_satisfies() {
    let mut old = deb("api-old", "", "");
    old.provides = "api (= 1)".into();
    let mut new = deb("api-new", "helper", "");
    new.provides = "api (= 2)".into();
    let debs = [
        deb("app", "api (>= 2)", ""),
        old,
        new,
        deb("helper", "", ""),
    ];
    let expected = ["api-old helper -> helper", "api-new -> api-new", "app -> "];
    assert_eq!(shown(&debs, &[]), expected);

    let mut app = deb("app", "lib", "");
    app.architecture = "i386".into();
    let mut lib = deb("lib", "", "");
    lib.architecture = "i386".into();
    let dpkg = deb("dpkg", "", "");
    let debs = [app, deb("lib", "", ""), lib];
    let configured = |debs: &[Deb]| {
        waves(debs, std::slice::from_ref(&dpkg))[0]
            .configure
            .clone()
    };
    assert_eq!(configured(&debs), [2]);
    let [app, mut lib, _] = debs;
    lib.foreign = true;
    assert_eq!(configured(&[app, lib]), [1]);
}

#[test]
fn cycles_and_missing_ones_end() {
    let debs = [
        deb("a", "b", ""),
        deb("b", "a", ""),
        deb("c", "nowhere", ""),
    ];
    let all: usize = waves(&debs, &[]).iter().map(|w| w.unpack.len()).sum();
    assert_eq!(all, 3);
}

/// Packages with all kinds of relations among one another, in layers.
struct Graph {
    debs: Vec<Deb>,
    breaks: Vec<String>,
    layers: Vec<Vec<usize>>,
}

const VIRTUAL: usize = 3;

impl Graph {
    fn new(seed: u64) -> Graph {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.gen_range(3..10);
        let mut debs: Vec<Deb> = (0..count)
            .map(|i| Deb {
                version: rng.gen_range(1..4).to_string(),
                architecture: "all".into(),
                provides: provides(&mut rng),
                ..deb(&format!("p{i}"), "", "")
            })
            .collect();
        for i in 0..count {
            let relations = |rng: &mut StdRng, most: usize| {
                let groups: Vec<String> = (0..rng.gen_range(0..=most))
                    .map(|_| group(rng, count))
                    .collect();
                groups.join(", ")
            };
            let (pre_depends, depends) = (relations(&mut rng, 1), relations(&mut rng, 2));
            debs[i].pre_depends = satisfiable(&debs, i, &pre_depends);
            debs[i].depends = satisfiable(&debs, i, &depends);
        }
        let breaks = (0..count).map(|i| breaks(&mut rng, &debs, i)).collect();
        let lowest = closed(&debs, rng.gen_range(0..count));
        let rest = (0..count).filter(|i| !lowest.contains(i)).collect();
        Graph {
            debs,
            breaks,
            layers: vec![lowest, rest],
        }
    }

    fn write(&self, dir: &Path) -> Vec<PathBuf> {
        let own = fs::metadata(dir).expect("metadata");
        let write = |(deb, breaks): (&Deb, &String)| {
            let fields = [
                ("Pre-Depends", &deb.pre_depends),
                ("Depends", &deb.depends),
                ("Provides", &deb.provides),
                ("Breaks", breaks),
            ];
            let mut package = Package::new(&deb.name, &deb.version).compressed(Compression::None);
            for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                package = package.field(name, value);
            }
            for entry in &mut package.data {
                entry.owner = (own.uid().into(), own.gid().into());
            }
            let file = dir.join(package.file_name());
            fs::write(&file, package.build()).expect("a package file");
            file
        };
        self.debs.iter().zip(&self.breaks).map(write).collect()
    }
}

fn provides(rng: &mut StdRng) -> String {
    let mut all = Vec::new();
    for i in 0..VIRTUAL {
        match rng.gen_range(0..8) {
            0 => all.push(format!("v{i}")),
            1 => all.push(format!("v{i} (= {})", rng.gen_range(1..4))),
            _ => {}
        }
    }
    all.join(", ")
}

fn group(rng: &mut StdRng, count: usize) -> String {
    let one = |rng: &mut StdRng| {
        let name = match rng.gen_range(0..10) {
            0..7 => format!("p{}", rng.gen_range(0..count)),
            7..9 => format!("v{}", rng.gen_range(0..VIRTUAL)),
            _ => "nowhere".to_owned(),
        };
        let operator = ["<<", "<=", "=", ">=", ">>"][rng.gen_range(0..5)];
        match rng.gen_bool(0.3) {
            true => format!("{name} ({operator} {})", rng.gen_range(1..4)),
            false => name,
        }
    };
    let alternatives: Vec<String> = (0..rng.gen_range(1..=2)).map(|_| one(rng)).collect();
    alternatives.join(" | ")
}

/// Without the groups that nothing satisfies: a resolver's answer has none.
fn satisfiable(debs: &[Deb], of: usize, text: &str) -> String {
    let all: Vec<&Deb> = debs.iter().collect();
    let offers = Offers::new(&all);
    let fits = |needs: Needs| needs.iter().all(|group| !group.is_empty());
    let kept = text
        .split(", ")
        .filter(|group| fits(offers.needs(&debs[of], group)));
    kept.collect::<Vec<_>>().join(", ")
}

/// A version that is not there, and a name that the package alone provides: neither is in anybody's way.
fn breaks(rng: &mut StdRng, debs: &[Deb], of: usize) -> String {
    let mut all = Vec::new();
    if rng.gen_bool(0.3) {
        let other = &debs[rng.gen_range(0..debs.len())];
        all.push(format!("{} (<< {})", other.name, other.version));
    }
    let provided = |deb: &Deb, name: &str| list(&deb.provides).any(|p| p.name == name);
    for name in (0..VIRTUAL).map(|i| format!("v{i}")) {
        let providers = debs.iter().filter(|d| provided(d, &name)).count();
        if providers == 1 && provided(&debs[of], &name) && rng.gen_bool(0.5) {
            all.push(name);
        }
    }
    all.join(", ")
}

/// A package with all that it needs.
fn closed(debs: &[Deb], first: usize) -> Vec<usize> {
    let all: Vec<&Deb> = debs.iter().collect();
    let offers = Offers::new(&all);
    let (mut found, mut pending) = (vec![false; debs.len()], vec![first]);
    while let Some(index) = pending.pop() {
        if !std::mem::replace(&mut found[index], true) {
            let deb = &debs[index];
            let texts = [&deb.pre_depends, &deb.depends];
            let needs = texts.into_iter().flat_map(|text| offers.needs(deb, text));
            pending.extend(needs.filter_map(|group| group.first().copied()));
        }
    }
    (0..debs.len()).filter(|&i| found[i]).collect()
}

/// A root that dpkg installs into.
struct Dpkg {
    root: PathBuf,
}

impl Dpkg {
    fn new(root: PathBuf) -> Dpkg {
        let admin = root.join("var/lib/dpkg");
        for dir in ["info", "updates", "triggers"] {
            fs::create_dir_all(admin.join(dir)).expect("a directory");
        }
        for file in ["status", "available"] {
            fs::write(admin.join(file), "").expect("a file");
        }
        Dpkg { root }
    }

    /// Whether dpkg did all of it, and what it said.
    fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> (bool, String) {
        let mut command = Command::new("dpkg");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .arg(format!("--root={}", self.root.display()))
            .arg(format!("--log={}", self.root.join("log").display()))
            .args(["--force-not-root", "--force-unsafe-io", "--no-triggers"])
            .args(["--abort-after=1000"])
            .args(words);
        let output = command
            .output()
            .unwrap_or_else(|e| panic!("{e}; the tests need the package dpkg"));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    }

    fn status(&self) -> String {
        fs::read_to_string(self.root.join("var/lib/dpkg/status")).expect("a status file")
    }

    fn count(&self, state: &str) -> usize {
        let line = format!("Status: install ok {state}");
        self.status().lines().filter(|l| *l == line).count()
    }

    /// What dpkg can do at most: it is asked for everything again and again until nothing changes.
    fn try_everything(&self, files: &[&str]) {
        loop {
            let before = self.status();
            let known = |file: &&&str| {
                let file = Path::new(file).file_name().unwrap_or_default();
                let file = file.to_string_lossy();
                let line = format!("Package: {}\n", file.split('_').next().unwrap_or_default());
                // dpkg notes also what it failed to unpack.
                let unpacked = |s: &str| s.starts_with(&line) && !s.contains("not-installed\n");
                before.split("\n\n").any(unpacked)
            };
            let open: Vec<&str> = files.iter().filter(|f| !known(f)).copied().collect();
            if !open.is_empty() {
                self.run(std::iter::once("--unpack").chain(open));
            }
            self.run(["--configure", "--pending"]);
            if self.status() == before {
                return;
            }
        }
    }

    /// What Kiln does. The inner error is dpkg's.
    fn in_waves(&self, debs: &[Deb], files: &[&str], installed: &[Deb]) -> Result<(), String> {
        let tried = |(fine, said): (bool, String)| if fine { Ok(()) } else { Err(said) };
        for wave in waves(debs, installed) {
            if !wave.unpack.is_empty() {
                let files = wave.unpack.iter().map(|&i| files[i]);
                tried(self.run(std::iter::once("--unpack").chain(files)))?;
            }
            if !wave.configure.is_empty() {
                let names = wave.configure.iter().map(|&i| debs[i].name.as_str());
                tried(self.run(std::iter::once("--configure").chain(names)))?;
            }
        }
        tried(self.run(["--configure", "--pending"]))
    }
}

/// Whether dpkg could install the graph at all.
fn judge(seed: u64) -> bool {
    let graph = Graph::new(seed);
    let top = tempfile::tempdir().expect("a directory");
    let files = graph.write(top.path());
    let (most, ours) = (
        Dpkg::new(top.path().join("most")),
        Dpkg::new(top.path().join("ours")),
    );
    let mut installed: Vec<Deb> = Vec::new();
    for layer in &graph.layers {
        let debs: Vec<Deb> = layer.iter().map(|&i| graph.debs[i].clone()).collect();
        let files: Vec<&str> = layer
            .iter()
            .map(|&i| files[i].to_str().expect("a plain path"))
            .collect();
        most.try_everything(&files);
        let result = ours.in_waves(&debs, &files, &installed);
        installed.extend(debs);
        let possible = most.count("installed") == installed.len();
        let context = || {
            let mut text = format!("KILN_SEED={seed} KILN_GRAPHS=1\n");
            for deb in &graph.debs {
                let Deb {
                    name,
                    version,
                    pre_depends,
                    depends,
                    provides,
                    ..
                } = deb;
                let _ = writeln!(
                    text,
                    "{name} {version}: pre-depends [{pre_depends}] depends [{depends}] provides [{provides}]"
                );
            }
            text + &format!("layers {:?}\n", graph.layers)
        };
        match (possible, result) {
            (true, Err(said)) => panic!("dpkg can, but not in Kiln's order: {}{said}", context()),
            (false, Ok(())) => panic!("dpkg did what it cannot: {}", context()),
            (false, Err(_)) => return false,
            (true, Ok(())) => assert_eq!(ours.count("installed"), installed.len(), "{}", context()),
        }
    }
    true
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |t| {
        t.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

#[test]
fn dpkg_accepts_the_order_of_every_generated_graph_that_it_can_install() {
    let (graphs, seed) = (setting("KILN_GRAPHS", 40), setting("KILN_SEED", 1));
    let threads = 2;
    let possible: u64 = std::thread::scope(|scope| {
        let run = |thread| {
            move || {
                (seed..seed + graphs)
                    .skip(thread)
                    .step_by(threads)
                    .map(|s| u64::from(judge(s)))
                    .sum::<u64>()
            }
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(run(thread)))
            .collect();
        running
            .into_iter()
            .map(|t| t.join().expect("dpkg agrees"))
            .sum()
    });
    assert!(
        possible * 2 > graphs || graphs < 10,
        "{possible} of {graphs} graphs can be installed"
    );
}
