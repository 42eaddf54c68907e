//! What apt answers from repositories that Kiln has verified. The root with apt in it is this machine's own, which is a
//! Debian or one of its kin; a mirror on the loopback interface serves the repositories. Needs root and apt-get.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use kiln_packages::debian::{Keys, Metadata};
use kiln_packages::{CancelToken, FetchOptions, Fetcher};
use kiln_plan::{Files, Input, Plan};
use kiln_rootfs::debian::Indices;
use kiln_rootfs::family::World as _;
use kiln_rootfs::{Place, Reporter};
use kiln_sandbox::{Root, Sandbox, Stream};
use kiln_testkit::package::Compression;
use kiln_testkit::{Key, Mirror, Package, Repository};
use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Failed>;
type Case = fn(&Path) -> Outcome;

const CASES: &[(&str, Case)] = &[
    (
        "another_process_that_refreshes_does_not_disturb_apt",
        refreshed_beside,
    ),
    ("flat_repositories_resolve_whatever_their_suite", flat),
    ("what_was_noted_of_indices_answers_for_them", outlined),
    ("versions_and_suites_are_asked_for_as_apt_knows_them", forms),
    ("forms_that_are_not_supported_are_said_to_be", unsupported),
    (
        "snaps_of_ubuntu_are_refused_and_its_tasks_are_groups",
        ubuntu,
    ),
];

const SUITE: &str = "stable";

fn main() -> ExitCode {
    kiln_sandbox::entry(&[]);
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [_, "--refresh", dir, uri] => refresh_always(Path::new(dir), uri),
        _ => {
            let trials = CASES.iter().map(|(name, case)| trial(name, *case));
            libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
        }
    }
}

fn trial(name: &str, case: Case) -> Trial {
    Trial::test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Err("this test needs root".into());
        }
        if !Path::new("/usr/bin/apt-get").exists() {
            return Err("this test needs apt-get".into());
        }
        let dir = tempfile::tempdir()?;
        case(dir.path())
    })
}

/// Signed repositories on a mirror, and a user's cache.
struct World {
    dir: PathBuf,
    mirror: Mirror,
    suites: Vec<String>,
}

impl World {
    fn new(dir: &Path, repositories: &[Repository]) -> Result<World, Failed> {
        let key = Key::generate("Test <test@example.org>");
        for repository in repositories {
            repository.write(&dir.join("mirror"), &key);
        }
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("key.asc"), key.public_armored())?;
        Ok(World {
            dir: dir.to_owned(),
            mirror: Mirror::of(dir.join("mirror")),
            suites: repositories.iter().map(|r| r.suite.clone()).collect(),
        })
    }

    fn refresh(&self) -> Result<Metadata, Failed> {
        let suites: Vec<&str> = self.suites.iter().map(String::as_str).collect();
        refresh(&self.dir, &self.mirror.url(), &suites, SystemTime::now())
    }

    /// What is chosen for the lines of a `%packages` section: names, versions and architectures.
    fn solve(&self, metadata: &Metadata, lines: &str) -> Result<Vec<String>, Failed> {
        let indices = Indices::read(metadata.clone(), "amd64").map_err(told)?;
        let plan = plan(lines)?;
        let requests = indices.requests(&plan).map_err(told)?;
        let sandbox = Sandbox::detect().map_err(|error| error.to_string())?;
        let cancel = kiln_sandbox::CancelToken::new()?;
        let place = Place {
            sandbox: &sandbox,
            root: Root::Dir {
                path: "/".into(),
                writable: false,
            },
            epoch: 0,
            reporter: &Silence,
            cancel: &cancel,
            tracer: None,
        };
        let solved = indices.solve(&place, &requests).map_err(told)?;
        let mut names: Vec<String> = solved.iter().map(|p| p.describe()).collect();
        names.sort();
        Ok(names)
    }

    fn expect(&self, lines: &str, expected: &[&str]) -> Outcome {
        let found = self.solve(&self.refresh()?, lines)?;
        if found == expected {
            return Ok(());
        }
        Err(format!("{lines:?} of {:?} gave {found:?}", self.suites).into())
    }

    /// The lines are refused with all of these words, and no name is guessed.
    fn refused(&self, lines: &str, words: &[&str]) -> Outcome {
        let said = match self.solve(&self.refresh()?, lines) {
            Ok(names) => return Err(format!("{lines:?} gave {names:?}").into()),
            Err(failed) => failed.message().unwrap_or_default().to_owned(),
        };
        match words.iter().find(|word| !said.contains(**word)) {
            None if !said.contains("did you mean") => Ok(()),
            missing => Err(format!("{lines:?} does not say {missing:?}: {said}").into()),
        }
    }
}

/// An error with its place, causes and hints.
fn told(error: kiln_rootfs::Error) -> Failed {
    format!(
        "{error}; {:?}; {:?}; {:?}; {:?}",
        error.origin, error.causes, error.hints, error.tail
    )
    .into()
}

/// A plan of one layer that asks for these packages and nothing else.
fn plan(lines: &str) -> Result<Plan, Failed> {
    struct Layer(String);
    impl Files for Layer {
        fn read(&self, path: &str, _: &str) -> Result<(String, Vec<u8>), String> {
            Ok((path.to_owned(), self.0.clone().into_bytes()))
        }
    }
    let layer = Layer(format!(
        "rootpw --lock\n%packages --nocore\n{lines}\n%end\n"
    ));
    let definition = "distribution = \"debian:bookworm\"\nlayers = [\"lab.ks\"]\n";
    let lowered = kiln_plan::lower_text("kiln.toml", definition, &Input::default(), &layer);
    let mut plan = lowered.plan.ok_or(format!("{:?}", lowered.problems))?;
    plan.system.packages.clear();
    plan.layers
        .iter_mut()
        .for_each(|layer| layer.changes.clear());
    Ok(plan)
}

/// Hears nothing: what apt prints is in the errors.
struct Silence;

impl Reporter for Silence {
    fn line(&self, _: Stream, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
    fn warn(&self, _: String, _: Option<String>, _: Option<String>) {}
}

fn refresh(dir: &Path, uri: &str, suites: &[&str], now: SystemTime) -> Result<Metadata, Failed> {
    let key = std::fs::read(dir.join("key.asc"))?;
    let repository = |suite: &&str| kiln_packages::debian::Repository {
        uri: uri.to_owned(),
        suite: (*suite).to_owned(),
        components: match *suite {
            "noble" => vec!["main".to_owned(), "universe".to_owned()],
            flat if flat.ends_with('/') => Vec::new(),
            _ => vec!["main".to_owned()],
        },
        architecture: "amd64".to_owned(),
        keys: Keys::Given {
            name: "key.asc".to_owned(),
            bytes: key.clone(),
        },
        check_valid_until: true,
        origin: "lab.ks:1".to_owned(),
    };
    let repositories: Vec<_> = suites.iter().map(repository).collect();
    let fetcher = Fetcher::new(FetchOptions::default(), CancelToken::new())?;
    let metadata =
        kiln_packages::debian::refresh(&fetcher, &repositories, &dir.join("metadata"), now)?;
    Ok(metadata)
}

/// The other process: refreshes until nobody listens. Its clock runs fast, so that every time that it would set is a new one,
/// and that a file of a moment ago is old.
fn refresh_always(dir: &Path, uri: &str) -> ExitCode {
    for round in 1.. {
        let now = SystemTime::now() + Duration::from_secs(round);
        if let Err(error) = refresh(dir, uri, &[SUITE], now) {
            let _ = writeln!(std::io::stderr(), "{error:?}");
            return ExitCode::FAILURE;
        }
        if writeln!(std::io::stdout(), "{round}").is_err() {
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::SUCCESS
}

/// apt reads its indices again and again while it solves. When another build refreshed the same cache meanwhile, this said that
/// the packages "cannot be installed together".
fn refreshed_beside(dir: &Path) -> Outcome {
    const ROUNDS: usize = 50;
    let package =
        |n: usize| Package::new(&format!("p{n}"), "1").field("Depends", &format!("p{}", n + 1));
    let all = (0..2000).map(package).chain([Package::new("p2000", "1")]);
    let world = World::new(dir, &[Repository::new(SUITE, all)])?;
    let metadata = world.refresh()?;
    let mut other = Command::new("/proc/self/exe")
        .args(["--refresh".as_ref(), dir.as_os_str()])
        .arg(world.mirror.url())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(other.stdout.take().ok_or("no pipe")?);
    let mut outcome: Outcome = Ok(());
    let mut refreshes = 0;
    for round in 0..ROUNDS {
        // It is at work, and has been since the last round.
        let mut line = String::new();
        told.read_line(&mut line)?;
        refreshes = line.trim().parse().unwrap_or(refreshes);
        match world.solve(&metadata, "p1900") {
            Ok(names) if names.len() == 101 => {}
            other => outcome = Err(format!("round {round}: {other:?}").into()),
        }
    }
    drop(told);
    other.kill()?;
    other.wait()?;
    outcome?;
    if refreshes < ROUNDS {
        return Err(format!("only {refreshes} refreshes in {ROUNDS} rounds").into());
    }
    Ok(())
}

/// What was noted of the same indices answers without them, and of others there is no note.
fn outlined(dir: &Path) -> Outcome {
    const TOOLS: [&str; 6] = [
        "apt",
        "grub-efi-amd64-signed",
        "grub-pc-bin",
        "mawk",
        "shim-helpers-amd64-signed",
        "shim-signed",
    ];
    let open = |metadata: &Metadata| {
        Indices::outlined(metadata.clone(), "amd64", &dir.join("metadata")).map_err(told)
    };
    let tools = |version: &str| TOOLS.map(|name| Package::new(name, version));
    let world = World::new(dir, &[Repository::new(SUITE, tools("1"))])?;
    let metadata = world.refresh()?;
    let read = open(&metadata)?;
    for index in metadata.repositories.iter().flat_map(|r| &r.indices) {
        std::fs::remove_file(index.path())?;
    }
    let noted = open(&metadata)?;
    let names: Vec<String> = noted
        .tools()
        .map_err(told)?
        .into_iter()
        .map(|p| p.name)
        .collect();
    if names != TOOLS
        || noted.tools().map_err(told)? != read.tools().map_err(told)?
        || noted.packages() != read.packages()
    {
        return Err(format!("another answer: {names:?}").into());
    }
    if noted.requests(&plan("apt")?).is_ok() {
        return Err("an index that is gone was read".into());
    }
    let world = World::new(dir, &[Repository::new(SUITE, tools("2"))])?;
    let renewed = open(&world.refresh()?)?.tools().map_err(told)?;
    match renewed.iter().all(|package| package.version == "2") {
        true => Ok(()),
        false => Err(format!("an old answer: {renewed:?}").into()),
    }
}

/// `suite = "/"` locked, but apt did not find the index under the name that it had.
fn flat(dir: &Path) -> Outcome {
    use Compression::{Gzip, None, Xz};
    for (n, suite) in ["/", "./", "sub/", "a/b_c/"].into_iter().enumerate() {
        for (m, form) in [None, Gzip, Xz].into_iter().enumerate() {
            for list_plain in [true, false] {
                let packages = [
                    Package::new("a", "1").field("Depends", "b"),
                    Package::new("b", "2"),
                ];
                let repository = Repository {
                    forms: vec![form],
                    list_plain,
                    ..Repository::new(suite, packages)
                };
                let dir = dir.join(format!("{n}-{m}-{list_plain}"));
                World::new(&dir, &[repository])?.expect("a", &["a 1 all", "b 2 all"])?;
            }
        }
    }
    Ok(())
}

fn several(dir: &Path) -> Result<World, Failed> {
    let stable = [Package::new("a", "1:1.0"), Package::new("a", "1:1.1")];
    let later = [
        Package::new("a", "2.0~bpo+1").field("Depends", "b (>= 2)"),
        Package::new("a", "1:3").field("Depends", "b (>= 2)"),
        Package::new("b", "2"),
    ];
    let repositories = [
        Repository::new(SUITE, stable),
        Repository::new("later", later),
    ];
    World::new(dir, &repositories)
}

fn forms(dir: &Path) -> Outcome {
    let world = several(dir)?;
    let newest: &[&str] = &["a 1:3 all", "b 2 all"];
    for (lines, expected) in [
        ("a", newest),
        ("a:amd64", newest),
        ("a=1:1.0", &["a 1:1.0 all"]),
        ("a=1:1.*", &["a 1:1.1 all"]),
        ("a:amd64=1:1.0", &["a 1:1.0 all"]),
        ("a/stable", &["a 1:1.1 all"]),
        ("a/later", newest),
        ("a=2.0~bpo+1", &["a 2.0~bpo+1 all", "b 2 all"]),
        ("a\na=1:1.0", &["a 1:1.0 all"]),
    ] {
        world.expect(lines, expected)?;
    }
    Ok(())
}

fn unsupported(dir: &Path) -> Outcome {
    let world = several(dir)?;
    for (lines, words) in [
        (
            "a:i386",
            &[
                "`a:i386` is not supported",
                "amd64",
                "i386",
                "dpkg --add-architecture",
                "lab.ks:3",
            ][..],
        ),
        (
            "a=9",
            &[
                "version `9` of the package `a` does not exist",
                "1:1.0",
                "lab.ks:3",
            ],
        ),
        (
            "a/unstable",
            &["suite `unstable` does not exist", "later, stable"],
        ),
        ("a=", &["`a=` is not supported", "name=version"]),
        ("a*=1", &["`a*=1` is not supported", "pattern"]),
        ("./a_1_all.deb", &["not supported", "repositories"]),
        ("a\n-b=2", &["`-b=2` is not supported", "write `-b`"]),
        ("nothing=1", &["package `nothing` does not exist"]),
    ] {
        world.refused(lines, words)?;
    }
    Ok(())
}

/// Ubuntu's shape: tasks in the index, four components, packages that only install a snap and are newer than all others.
fn ubuntu(dir: &Path) -> Outcome {
    let snap = |name: &str, version: &str| {
        Package::new(name, version).field("Depends", "debconf, snapd (>= 2.54)")
    };
    let of_task = |name: &str| Package::new(name, "1").field("Task", "lab-desktop, lab-minimal");
    let noble = Repository {
        components: vec![
            (
                "main".to_owned(),
                vec![
                    Package::new("ubuntu-desktop-minimal", "1.539")
                        .field("Depends", "shell")
                        .field("Recommends", "firefox, snapd"),
                    Package::new("shell", "46"),
                    Package::new("debconf", "1"),
                    Package::new("snapd", "2.62"),
                    Package::new("needs-snap", "1").field("Depends", "thunderbird"),
                    snap("firefox", "1:1snap1-0ubuntu5"),
                    snap("thunderbird", "2:1snap1-0ubuntu3"),
                    of_task("editor"),
                ],
            ),
            (
                "universe".to_owned(),
                vec![
                    of_task("viewer"),
                    snap("chromium-browser", "2:1snap1-0ubuntu2"),
                ],
            ),
        ],
        ..Repository::new("noble", [])
    };
    let mozilla = Repository::new("mozilla", [Package::new("firefox", "151.0~build1")]);
    let desktop: &[&str] = &[
        "shell 46 all",
        "snapd 2.62 all",
        "ubuntu-desktop-minimal 1.539 all",
    ];
    let alone = World::new(&dir.join("alone"), std::slice::from_ref(&noble))?;
    alone.expect("ubuntu-desktop-minimal", desktop)?;
    // Debian's name of the group, and both ways to write a task of the archive.
    alone.expect("@gnome-desktop", desktop)?;
    let task: &[&str] = &["editor 1 all", "viewer 1 all"];
    alone.expect("@lab-desktop", task)?;
    alone.expect("lab-desktop^", task)?;
    alone.expect("@lab-desktop^", task)?;
    for (lines, words) in [
        ("firefox", &["only installs a snap", "packages.mozilla.org"]),
        (
            "thunderbird=2:1snap1-0ubuntu3",
            &["only installs a snap", "lab.ks:3"],
        ),
        ("needs-snap", &["only installs a snap", "thunderbird"]),
    ] {
        alone.refused(lines, words)?;
    }
    let both = World::new(&dir.join("both"), &[noble, mozilla])?;
    both.expect("firefox", &["firefox 151.0~build1 all"])?;
    let more = ["firefox 151.0~build1 all"].iter().chain(desktop);
    let more: Vec<&str> = more.copied().collect();
    both.expect("ubuntu-desktop-minimal", &more)
}
