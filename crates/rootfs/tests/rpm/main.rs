//! RPM roots, from signed repositories made on the spot. The tools root is this machine's own, which has rpm (Debian package rpm);
//! packages come from rpmbuild. Needs root, rpm, createrepo_c, gpg, busybox, and dnf 4 for [`solve`].

mod solve;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kiln_packages::{CancelToken, Digest, DownloadStore, FetchOptions, Fetcher, LockedPackage};
use kiln_plan::{Files, Input, Plan};
use kiln_rootfs::family::{Family, Install, InstallOptions, Installer, Job, Metadata};
use kiln_rootfs::finish::Finish;
use kiln_rootfs::rpm::Rpm as Family_;
use kiln_rootfs::{Error, ErrorKind, Place, Reporter, SYSTEM, Store};
use kiln_sandbox::{Sandbox, Stream};
use kiln_testkit::rpm::{Gpg, Rpm, build, createrepo};
use libtest_mimic::{Arguments, Failed, Trial};

type Outcome = Result<(), Failed>;
type Case = fn(&Path) -> Outcome;
/// A root, what was warned of, and how it went.
type Installed = (PathBuf, Vec<String>, Result<(), Error>);

/// The time that packages are installed at.
const EPOCH: i64 = 1_700_000_000;

const CASES: &[(&str, Case)] = &[
    ("a_root_is_what_rpm_makes_of_its_packages", installed),
    ("scriptlets_that_fail_are_named_by_one_rule", scriptlets),
    ("packages_that_collide_are_an_error", collision),
    ("what_is_not_there_is_told_with_its_line", unknown),
    (
        "groups_environments_and_globs_are_names_of_packages",
        groups,
    ),
    ("packages_of_another_key_are_refused", foreign),
    ("an_older_rpm_leaves_no_time_of_the_clock", times),
    (
        "a_key_that_a_script_imports_has_no_time_of_the_clock",
        imported,
    ),
    (
        "a_kernel_is_chosen_by_its_package_and_others_stay",
        several_kernels,
    ),
];

fn main() -> ExitCode {
    kiln_sandbox::entry(kiln_rootfs::FUNCTIONS);
    let trial = |name: &str, case: Case| {
        Trial::test(name, move || {
            if !rustix::process::geteuid().is_root() {
                return Err("this test needs root".into());
            }
            case(tempfile::tempdir()?.path())
        })
    };
    let trials = CASES
        .iter()
        .chain(solve::CASES)
        .map(|(name, case)| trial(name, *case));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A signed repository, and a user's cache.
struct World {
    dir: PathBuf,
    key: Vec<u8>,
    files: Vec<PathBuf>,
}

impl World {
    fn new(dir: &Path, packages: &[Rpm], comps: Option<&str>) -> Result<World, Failed> {
        let key = Gpg::generate(&dir.join("gpg"), "rpm@example.org");
        let files = build(packages, &dir.join("repository"));
        key.sign_packages(&files);
        let comps_file = dir.join("comps.xml");
        let mut options = Vec::new();
        if let Some(comps) = comps {
            std::fs::write(&comps_file, comps)?;
            options = vec!["-g", comps_file.to_str().ok_or("a path")?];
        }
        createrepo(&dir.join("repository"), &options);
        Ok(World {
            dir: dir.to_owned(),
            key: key.public(),
            files,
        })
    }

    /// A plan of one layer with these lines in `%packages`.
    fn plan(&self, lines: &str) -> Result<Plan, Failed> {
        self.plan_with("", lines)
    }

    /// As [`World::plan`], with options of `%packages`.
    fn plan_with(&self, header: &str, lines: &str) -> Result<Plan, Failed> {
        struct Input_(String, Vec<u8>);
        impl Files for Input_ {
            fn read(&self, path: &str, _: &str) -> Result<(String, Vec<u8>), String> {
                let bytes = match path {
                    "key.asc" => self.1.clone(),
                    _ => self.0.clone().into_bytes(),
                };
                Ok((path.to_owned(), bytes))
            }
        }
        let layer = format!("rootpw --lock\n%packages --nocore {header}\n{lines}\n%end\n");
        let definition = format!(
            "distribution = \"rocky:9\"\nlayers = [\"lab.ks\"]\n[system]\nno-default-repositories = true\n[[repository]]\nname = \"test\"\nbaseurl = \"file://{}\"\nkey = \"key.asc\"\n",
            self.dir.join("repository").display()
        );
        let files = Input_(layer, self.key.clone());
        let lowered = kiln_plan::lower_text("kiln.toml", &definition, &Input::default(), &files);
        let mut plan = lowered.plan.ok_or(format!("{:?}", lowered.problems))?;
        plan.system.packages.clear();
        plan.layers
            .iter_mut()
            .for_each(|layer| layer.changes.clear());
        Ok(plan)
    }

    /// Names of the packages that lines of `%packages` ask for.
    fn requests(&self, lines: &str) -> Result<Result<Vec<String>, Error>, Failed> {
        let plan = self.plan(lines)?;
        let fetcher = Fetcher::new(FetchOptions::default(), CancelToken::new())?;
        let directory = self.dir.join("metadata");
        let metadata = Metadata {
            fetcher: &fetcher,
            directory: &directory,
            now: SystemTime::now(),
        };
        let world = Family_.world(&plan, &metadata).map_err(told)?;
        let requests = world.requests(&plan);
        Ok(requests.map(|requests| {
            let wanted = requests.layers.iter().flat_map(|(_, wanted)| wanted);
            wanted.map(|wanted| wanted.name.clone()).collect()
        }))
    }

    /// The packages, in the download store, as a lock has them.
    fn locked(&self, downloads: &DownloadStore) -> Result<Vec<LockedPackage>, Failed> {
        let mut all = Vec::new();
        for file in &self.files {
            let bytes = std::fs::read(file)?;
            let sha256 = Digest::of(&bytes);
            let place = downloads.path(&sha256);
            std::fs::create_dir_all(place.parent().ok_or("a parent")?)?;
            std::fs::write(&place, &bytes)?;
            let asked = ["-qp", "--qf", "%{NAME}|%{VERSION}-%{RELEASE}|%{ARCH}"];
            let said = tool(Command::new("rpm").args(asked).arg(file))?;
            let [name, version, architecture] = said
                .split('|')
                .collect::<Vec<_>>()
                .try_into()
                .map_err(|_| said.clone())?;
            all.push(LockedPackage {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
                url: format!("file://{}", file.display()),
                sha256,
                size: bytes.len() as u64,
                layer: SYSTEM.to_owned(),
                auto: false,
                facts: [("repository".to_owned(), "test".to_owned())].into(),
            });
        }
        Ok(all)
    }

    /// Installs all packages into a new root; returns where that is and what was warned of.
    fn install(&self) -> Result<Installed, Failed> {
        self.install_with(vec!["/".into()], "root")
    }

    /// The same with the tools of these layers, to a directory of this name.
    fn install_with(&self, tools: Vec<PathBuf>, name: &str) -> Result<Installed, Failed> {
        let plan = self.plan("shell")?;
        let sandbox = Arc::new(Sandbox::detect().map_err(|error| error.to_string())?);
        let store = Store::open(&self.dir.join("layers"), Arc::clone(&sandbox)).map_err(told)?;
        let downloads = DownloadStore::open(self.dir.join("downloads"))?;
        let locked = self.locked(&downloads)?;
        let all: Vec<&LockedPackage> = locked.iter().collect();
        let facts = match Family_.facts(&plan, &all, &downloads, 2) {
            Ok(facts) => facts,
            Err(error) => return Ok((PathBuf::new(), Vec::new(), Err(error))),
        };
        let installer = installer(&plan, &store, &downloads, tools)?;
        let staging = store.stage().map_err(told)?;
        let (reporter, cancel) = (Warnings::default(), kiln_sandbox::CancelToken::new()?);
        let place = Place::over(&sandbox, Vec::new(), &staging, EPOCH, &reporter, &cancel);
        let outcome = installer.bootstrap(&Install {
            place: &place,
            staging: &staging,
            layer: SYSTEM,
            packages: &facts,
            options: &InstallOptions::default(),
        });
        let root = self.dir.join(name);
        tool(Command::new("cp").arg("-a").arg(staging.fs()).arg(&root))?;
        let warnings = reporter
            .0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        Ok((root, warnings, outcome))
    }
}

fn installer(
    plan: &Plan,
    store: &Store,
    downloads: &DownloadStore,
    tools: Vec<PathBuf>,
) -> Result<Box<dyn Installer>, Failed> {
    let job = Job {
        store: store.clone(),
        downloads: downloads.clone(),
        tools,
        target: plan.target.clone(),
        architecture: plan.target.architecture.clone(),
        threads: 2,
        cancel: kiln_sandbox::CancelToken::new()?,
        slices: Vec::new(),
        plain: false,
    };
    Family_.installer(job).map_err(told)
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Reporter for Warnings {
    fn line(&self, _: Stream, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
    fn warn(&self, message: String, _: Option<String>, _: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(message);
    }
}

fn told(error: Error) -> Failed {
    format!(
        "{error}; {:?}; {:?}; {:?}",
        error.origin, error.hints, error.tail
    )
    .into()
}

fn tool(command: &mut Command) -> Result<String, Failed> {
    let output = command.env("LC_ALL", "C").output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The lowest package: a shell for scriptlets.
fn shell() -> Result<Rpm, Failed> {
    let busybox = std::fs::read("/bin/busybox").map_err(|e| format!("/bin/busybox: {e}"))?;
    Ok(Rpm::new("shell", "1")
        .tag("Provides: /bin/sh")
        .file("%attr(0755,root,root)", "/bin/busybox", busybox)
        .file(
            "",
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nmail:x:8:8::/:/bin/sh\n",
        )
        .file("", "/etc/group", "root:x:0:\nmail:x:8:\n")
        .made("ln -s busybox %{buildroot}/bin/sh", "/bin/sh"))
}

fn is(found: &str, expected: &str) -> Outcome {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} instead of {expected:?}").into()),
    }
}

fn has(text: &str, words: &[&str]) -> Outcome {
    match words.iter().find(|word| !text.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("{word:?} is not in {text}").into()),
    }
}

/// Files, owners, set-id bits, capabilities, scriptlets and triggers, and a database in which rpm finds all unchanged.
fn installed(dir: &Path) -> Outcome {
    let app = Rpm::new("app", "2")
        .tag("Requires: shell")
        .file("%attr(4750,root,mail)", "/usr/bin/app", "#!/bin/sh\n")
        .file("%caps(cap_net_raw=ep) %attr(0755,root,root)", "/usr/bin/ping", "x")
        .file("%config(noreplace)", "/etc/app.conf", "a\n")
        .section("%pre\n[ -d /proc/self ] && [ -c /dev/null ]\n%post\n/bin/busybox sed -i s/a/b/ /etc/app.conf");
    let fonts = Rpm::new("fonts", "1")
        .file("", "/usr/share/fonts/x", "x")
        .tag("Requires: shell")
        .tag("ModularityLabel: typography:1.5:20260101:0badcafe:x86_64")
        .section("%transfiletriggerin -- /usr/bin\n/bin/busybox cat > /etc/triggered");
    let world = World::new(dir, &[shell()?, app, fonts], None)?;
    let (root, warnings, outcome) = world.install()?;
    outcome.map_err(told)?;
    is(&warnings.join("; "), "")?;
    let rpm = |words: &[&str]| {
        let mut rpm = Command::new("rpm");
        let rpm = rpm
            .arg("--root")
            .arg(&root)
            .args(["--dbpath", "/var/lib/rpm"]);
        let output = rpm.args(words).env("LC_ALL", "C").output()?;
        Ok::<_, Failed>(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    is(
        &rpm(&["-qa", "--qf", "%{NAME}-%{VERSION}\n"])?
            .lines()
            .count()
            .to_string(),
        "3",
    )?;
    // Only what the scriptlet changed differs from what the packages have.
    is(
        rpm(&[
            "-Va",
            "--nouser",
            "--nogroup",
            "--nomtime",
            "--nofiledigest",
        ])?
        .trim(),
        "",
    )?;
    has(&rpm(&["-Va"])?, &["c /etc/app.conf"])?;
    owned(&root)?;
    is(
        &std::fs::read_to_string(root.join("etc/dnf/modules.d/typography.module"))?,
        "[typography]\nname=typography\nstream=1.5\nprofiles=\nstate=enabled\n\n",
    )?;
    has(
        &std::fs::read_to_string(root.join("etc/triggered"))?,
        &["/usr/bin/app", "/usr/bin/ping"],
    )?;
    has(
        &std::fs::read_to_string(root.join("usr/lib/kiln/rpm-packages"))?,
        &[
            "app 2-1 noarch\n",
            "fonts 1-1 noarch\n",
            "shell 1-1 noarch\n",
        ],
    )
}

/// Owners, modes and capabilities are the packages' own.
fn owned(root: &Path) -> Outcome {
    // Owners are ids of the sandbox, whose root owns /etc/passwd.
    let owner = |path: &str| {
        root.join(path)
            .metadata()
            .map(|m| (m.uid(), m.gid(), m.mode()))
    };
    let ((uid, gid, _), (of_app, of_group, mode)) = (owner("etc/passwd")?, owner("usr/bin/app")?);
    is(
        &format!("{} {} {:o}", of_app - uid, of_group - gid, mode & 0o7777),
        "0 8 4750",
    )?;
    let capabilities = tool(Command::new("getcap").arg(root.join("usr/bin/ping")))?;
    has(&capabilities, &["cap_net_raw=ep"])
}

const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/librpm.so.9";

/// This machine's library of rpm, but it looks for another variable than `SOURCE_DATE_EPOCH`.
fn older_library(place: &Path) -> Outcome {
    let mut library = std::fs::read(Path::new("/").join(LIBRARY))?;
    let name = b"SOURCE_DATE_EPOCH\0";
    let mut windows = library.windows(name.len());
    let at = windows.position(|window| window == name);
    let at = at.ok_or("rpm does not look for SOURCE_DATE_EPOCH")?;
    library[at] = b'X';
    std::fs::create_dir_all(place.parent().ok_or("a parent")?)?;
    Ok(std::fs::write(place, library)?)
}

fn database(root: &Path) -> PathBuf {
    root.join("var/lib/rpm")
}

/// Time and transaction of each package.
fn noted(root: &Path) -> Result<String, Failed> {
    let mut rpm = Command::new("rpm");
    rpm.arg("--dbpath").arg(database(root));
    let format = "%{INSTALLTIME} %{INSTALLTID} %{NAME}\n";
    let said = tool(rpm.args(["-qa", "--qf", format]))?;
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// What rpm finds changed.
fn verified(root: &Path) -> Result<String, Failed> {
    let mut rpm = Command::new("rpm");
    let rpm = rpm.arg("--root").arg(root);
    let output = rpm.args(["--dbpath", "/var/lib/rpm", "-Va"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Enterprise Linux 8 and 9 have an rpm that does not know `SOURCE_DATE_EPOCH`. Here it is this machine's, whose library looks for a
/// variable of another name. Kiln's database has the times that the newer one gives by itself, and is the same each time.
fn times(dir: &Path) -> Outcome {
    let app = Rpm::new("app", "2").tag("Requires: shell");
    let late = Rpm::new("late", "1").tag("Requires: app");
    let world = World::new(dir, &[shell()?, app, late], None)?;
    // A layer below which no other lies: on a file system of its own.
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let older = memory.path().to_owned();
    let place = older.join(LIBRARY);
    older_library(&place)?;
    // Left alone, it notes the clock.
    let alone = dir.join("alone");
    let mut rpm = Command::new("rpm");
    let libraries = place.parent().ok_or("a parent")?;
    rpm.env("LD_LIBRARY_PATH", libraries)
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    rpm.arg("--dbpath").arg(database(&alone));
    tool(
        rpm.args(["-U", "--justdb", "--nodeps", "--nosignature"])
            .args(&world.files),
    )?;
    if noted(&alone)?.contains(&EPOCH.to_string()) {
        return Err("the older rpm knows SOURCE_DATE_EPOCH".into());
    }
    let install = |tools: Vec<PathBuf>, name: &str| {
        let (root, _, outcome) = world.install_with(tools, name)?;
        outcome.map_err(told)?;
        Ok::<_, Failed>(root)
    };
    let newer = install(vec!["/".into()], "newer")?;
    let first = install(vec![older.clone(), "/".into()], "first")?;
    let second = install(vec![older, "/".into()], "second")?;
    let expected = noted(&newer)?;
    has(
        &expected,
        &["1700000000 1700000000 shell", "1700000002 1700000000 late"],
    )?;
    is(&noted(&first)?, &expected)?;
    let read = |root: &Path| std::fs::read(database(root).join("rpmdb.sqlite"));
    if read(&first)? != read(&second)? {
        return Err("two databases differ".into());
    }
    let mut names: Vec<_> = std::fs::read_dir(database(&first))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort_unstable();
    is(
        &format!("{names:?}"),
        r#"[".rpm.lock", "rpmdb.sqlite", "rpmdb.sqlite-shm", "rpmdb.sqlite-wal"]"#,
    )?;
    // rpm reads all of its headers again, and compares their digests.
    tool(
        Command::new("rpmdb")
            .arg("--verifydb")
            .arg("--dbpath")
            .arg(database(&first)),
    )?;
    is(&verified(&first)?, &verified(&newer)?)
}

/// `rpm --import` in `%post`, as the live kickstarts have it, by an older rpm that the root has itself.
fn imported(dir: &Path) -> Outcome {
    let world = World::new(dir, &[shell()?], None)?;
    let (root, _, outcome) = world.install()?;
    outcome.map_err(told)?;
    let files =
        tool(Command::new("ldd").args(["/usr/bin/rpm", "/usr/bin/rpmdb", "/usr/bin/rpmkeys"]))?;
    let files = files
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    let files = files.map(|word| word.trim_end_matches(':'));
    for file in files.chain(["/usr/lib/rpm"]) {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().ok_or("a parent")?)?;
        tool(Command::new("cp").arg("-rLT").arg(file).arg(to))?;
    }
    older_library(&root.join(LIBRARY.trim_start_matches("usr/")))?;
    std::fs::write(root.join("key"), &world.key)?;
    let sandbox = Arc::new(Sandbox::detect().map_err(|error| error.to_string())?);
    let store = Store::open(&dir.join("layers"), Arc::clone(&sandbox)).map_err(told)?;
    let staging = store.stage().map_err(told)?;
    let (reporter, cancel) = (Warnings::default(), kiln_sandbox::CancelToken::new()?);
    let place = Place::over(
        &sandbox,
        vec![root.clone()],
        &staging,
        EPOCH,
        &reporter,
        &cancel,
    );
    let query = |format: &str| {
        let argv = ["rpm", "--dbpath", "/var/lib/rpm", "-qa", "--qf", format];
        place.lines(&argv).map_err(told)
    };
    let import = ["rpm", "--dbpath", "/var/lib/rpm", "--import", "/key"];
    place
        .exec(&import, kiln_rootfs::Extras::default())
        .map_err(told)?;
    let format = "%{NAME} %{INSTALLTID}\\n";
    let before = query(format)?;
    if before.len() != 2 || before.contains(&format!("gpg-pubkey {EPOCH}")) {
        return Err(format!("{before:?}").into());
    }
    let orders = Finish {
        home: None,
        sources: None,
        hostname: "localhost".to_owned(),
        kernel: None,
    };
    let finished = Family_.finish(&place, &orders, vec![root]).map_err(told)?;
    is(&finished.packages.len().to_string(), "1")?;
    let mut after = query(format)?;
    after.sort_unstable();
    is(&after.join("; "), "gpg-pubkey 1700000000; shell 1700000000")
}

/// Two versions of one kernel, which rpm would take for an update, and another kernel: a package's name chooses, or that and a version.
fn several_kernels(dir: &Path) -> Outcome {
    let core = |name: &str, version: &str, kernel: &str| {
        let path = format!("/usr/lib/modules/{kernel}/vmlinuz");
        Rpm::new(name, version)
            .tag("Provides: installonlypkg(kernel)")
            .file("", &path, kernel)
    };
    let package = |name: &str, version: &str| {
        let needs = format!("Requires: {name}-core = {version}");
        Rpm::new(name, version).tag(&needs)
    };
    let packages = [
        shell()?,
        package("kernel", "6.1"),
        core("kernel-core", "6.1", "6.1-1.noarch"),
        package("kernel", "6.9"),
        core("kernel-core", "6.9", "6.9-1.noarch"),
        package("kernel-lt", "5.4"),
        core("kernel-lt-core", "5.4", "5.4-1.lt"),
    ];
    let world = World::new(dir, &packages, None)?;
    let (root, _, outcome) = world.install()?;
    outcome.map_err(told)?;
    let chosen = |said: Option<&str>| -> Result<String, Failed> {
        let sandbox = Arc::new(Sandbox::detect().map_err(|error| error.to_string())?);
        let store = Store::open(&dir.join("layers"), Arc::clone(&sandbox)).map_err(told)?;
        let staging = store.stage().map_err(told)?;
        let (reporter, cancel) = (Warnings::default(), kiln_sandbox::CancelToken::new()?);
        let layers = vec![root.clone()];
        let place = Place::over(&sandbox, layers, &staging, EPOCH, &reporter, &cancel);
        let orders = Finish {
            home: None,
            sources: None,
            hostname: "localhost".to_owned(),
            kernel: said.map(str::to_owned),
        };
        match Family_.finish(&place, &orders, vec![root.clone()]) {
            Ok(finished) => {
                is(
                    &finished.kernels.found.join(" "),
                    "5.4-1.lt 6.1-1.noarch 6.9-1.noarch",
                )?;
                Ok(finished.kernels.boots.ok_or("a choice")?)
            }
            Err(error) => Ok(format!("{error}: {:?}", error.hints)),
        }
    };
    is(&chosen(None)?, "6.9-1.noarch")?;
    is(&chosen(Some("kernel"))?, "6.9-1.noarch")?;
    is(&chosen(Some("kernel-6.1"))?, "6.1-1.noarch")?;
    is(&chosen(Some("kernel-core-6.1-1.noarch"))?, "6.1-1.noarch")?;
    is(&chosen(Some("kernel-lt"))?, "5.4-1.lt")?;
    let refused = chosen(Some("kernel-rt"))?;
    has(&refused, &["kernel-rt", "6.1-1.noarch", "kernel-lt-core"])
}

/// What runs before a package is unpacked decides about it; what runs later is a warning. Both have package, scriptlet and output.
fn scriptlets(dir: &Path) -> Outcome {
    let with =
        |name: &str, section: &str| Rpm::new(name, "1").tag("Requires: shell").section(section);
    let late = with("late", "%post\necho cannot do it\nexit 7");
    let world = World::new(&dir.join("late"), &[shell()?, late], None)?;
    let (_, warnings, outcome) = world.install()?;
    outcome.map_err(told)?;
    // Debian's rpm has a word of its own to say at any time.
    has(
        &warnings.join("; "),
        &[
            "the scriptlet %post of late-1-1.noarch failed (exit status 7): ",
            "cannot do it",
        ],
    )?;
    let early = with("early", "%pre\necho not here >&2\nexit 3");
    let world = World::new(&dir.join("early"), &[shell()?, early], None)?;
    let (_, _, outcome) = world.install()?;
    let error = outcome.err().ok_or("a failed %pre passed as success")?;
    is(
        &error.message,
        "the scriptlet %prein of early-1-1.noarch failed (exit status 3)",
    )?;
    is(error.package.as_deref().unwrap_or(""), "early-1-1.noarch")?;
    has(&error.tail.join("\n"), &["not here"])
}

/// rpm refuses the transaction: its words are the causes.
fn collision(dir: &Path) -> Outcome {
    let with = |name: &str| Rpm::new(name, "1").file("", "/etc/same", name);
    let world = World::new(dir, &[shell()?, with("one"), with("two")], None)?;
    let (_, _, outcome) = world.install()?;
    let error = outcome.err().ok_or("two packages have one file")?;
    has(&format!("{error}"), &["could not be installed"])?;
    has(&error.tail.join("\n"), &["/etc/same", "conflicts"])
}

fn unknown(dir: &Path) -> Outcome {
    let world = World::new(dir, &[shell()?, Rpm::new("thonny", "1")], None)?;
    let refused = |lines: &str, words: &[&str]| match world.requests(lines)? {
        Ok(names) => Err(Failed::from(format!("{lines:?} gave {names:?}"))),
        Err(error) => {
            let kind = error.kind == ErrorKind::Definition;
            has(
                &format!(
                    "{kind} {:?} {error} {:?} {:?}",
                    error.origin, error.hints, error.others
                ),
                words,
            )
        }
    };
    refused(
        "shell\nthony\n@nogroup",
        &[
            "true",
            "lab.ks:4",
            "package `thony` does not exist",
            "did you mean thonny?",
            "lab.ks:5: group `@nogroup`",
        ],
    )?;
    refused(
        "@^desktop",
        &["lab.ks:3", "environment `@^desktop` does not exist"],
    )?;
    refused(
        "q*",
        &["lab.ks:3", "no package of the repositories matches"],
    )?;
    // By file, by version, with an architecture: dnf knows these forms, too.
    is(
        &format!(
            "{:?}",
            world
                .requests("/bin/sh\nshell-1\nthonny.noarch")?
                .map_err(told)?
        ),
        r#"["/bin/sh", "shell", "thonny"]"#,
    )
}

const COMPS: &str = r#"<?xml version="1.0"?><comps>
<group><id>editors</id><name>Editors</name><packagelist><packagereq type="mandatory">vim</packagereq><packagereq type="default">nano</packagereq>
<packagereq type="optional">ed</packagereq><packagereq type="mandatory">of-another-architecture</packagereq>
<packagereq type="conditional" requires="thonny">thonny-vim</packagereq></packagelist></group>
<group><id>fun</id><name>Fun</name><packagelist><packagereq type="mandatory">cowsay</packagereq></packagelist></group>
<environment><id>lab</id><name>Lab</name><grouplist><groupid>editors</groupid></grouplist><optionlist><groupid default="true">fun</groupid></optionlist></environment>
</comps>"#;

fn groups(dir: &Path) -> Outcome {
    let names = ["vim", "nano", "ed", "thonny", "thonny-vim", "cowsay"];
    let packages: Vec<Rpm> = names.iter().map(|name| Rpm::new(name, "1")).collect();
    let world = World::new(dir, &packages, Some(COMPS))?;
    let gives = |lines: &str, expected: &[&str]| {
        let mut found = world.requests(lines)?.map_err(told)?;
        found.sort();
        is(&found.join(" "), &expected.join(" "))
    };
    gives("@editors", &["nano", "vim"])?;
    gives("@editors --optional", &["ed", "nano", "vim"])?;
    gives("@editors --nodefaults", &["vim"])?;
    gives("@editors\nthonny", &["nano", "thonny", "thonny-vim", "vim"])?;
    gives("@^lab", &["cowsay", "nano", "vim"])?;
    gives("@^lab\n-@fun\n-nano", &["vim"])?;
    gives("thonny*\n-thonny-*", &["thonny"])
}

/// A lock says which repository a package comes from, and only that one's keys count.
fn foreign(dir: &Path) -> Outcome {
    let mut world = World::new(dir, &[shell()?], None)?;
    world.key = Gpg::generate(&dir.join("other"), "other@example.org").public();
    let (_, _, outcome) = world.install()?;
    let error = outcome
        .err()
        .ok_or("a package of another key was installed")?;
    is(error.package.as_deref().unwrap_or(""), "shell 1-1 noarch")?;
    has(&format!("{error}"), &["shell 1-1 noarch", "key"])
}
