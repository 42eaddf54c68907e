//! Kiln against the real dpkg of this machine: the same packages into two roots that are the same before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_testkit::Package;
use kiln_testkit::package::Entry;
use tar::EntryType;
use tempfile::TempDir;

use super::adopt::{Adopt, Outcome, adopt};
use super::earlier::Earlier;
use super::extract::extract;
use super::filter::Filter;
use super::package::Said;
use super::pool::{PoolItem, unpack};

const FORCED: [&str; 7] = [
    "--force-not-root",
    "--force-script-chrootless",
    "--force-bad-path",
    "--force-unsafe-io",
    "--force-confdef",
    "--force-confold",
    "--no-triggers",
];

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C");
    command
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; the tests need the package dpkg"));
    let both = [output.stdout.clone(), output.stderr].concat();
    assert!(
        output.status.success(),
        "{command:?}:\n{}",
        String::from_utf8_lossy(&both)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn dpkg(root: &Path) -> Command {
    let mut command = program("dpkg");
    command.arg(format!("--root={}", root.display()));
    command.arg(format!("--log={}", root.join("dpkg.log").display()));
    command.args(FORCED);
    command
}

/// This machine's dpkg: its release and architecture.
fn this_dpkg() -> (String, String) {
    let text = run(program("dpkg").arg("--version"));
    let version = text
        .split_whitespace()
        .find(|w| w.starts_with("1."))
        .expect("a version");
    let architecture = run(program("dpkg").arg("--print-architecture"));
    (version.to_owned(), architecture.trim().to_owned())
}

struct Bench {
    top: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            top: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A package file; everything in it belongs to whoever runs the test.
    fn package(&self, mut package: Package) -> PathBuf {
        let own = fs::metadata(self.top.path()).expect("metadata");
        for entry in &mut package.data {
            entry.owner = (own.uid().into(), own.gid().into());
        }
        let file = self.top.path().join(package.file_name());
        fs::write(&file, package.build()).expect("a package file");
        file
    }

    fn root(&self, name: &str) -> PathBuf {
        let root = self.top.path().join(name);
        for dir in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/triggers",
            "usr/lib",
            "etc",
        ] {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        for file in ["status", "available"] {
            fs::write(root.join("var/lib/dpkg").join(file), "").expect("a file");
        }
        root
    }

    /// What Kiln does with the packages.
    fn adopt(
        &self,
        root: &Path,
        files: &[&PathBuf],
        filters: &[Filter],
        bootstrap: bool,
    ) -> Result<(Outcome, Vec<Said>), String> {
        let pool = root.join(".pool");
        fs::create_dir_all(&pool).expect("a pool");
        let mut keys = Vec::new();
        for file in files {
            let key = file
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let item = PoolItem {
                key: key.clone(),
                file: file.to_path_buf(),
            };
            unpack(&item, &pool, filters, &Earlier::default()).map_err(|e| e.to_string())?;
            keys.push(key);
        }
        let (dpkg, architecture) = this_dpkg();
        let admin = root.join("var/lib/dpkg");
        let env = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LC_ALL", "C"),
            ("DPKG_ADMINDIR", &admin.to_string_lossy()),
            ("DPKG_ROOT", &root.to_string_lossy()),
        ];
        let request = Adopt {
            pool: ".pool".into(),
            keys: keys.clone(),
            bootstrap,
            dpkg: Some(dpkg),
            architecture: Some(architecture),
            env: env.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        };
        let mut said = Vec::new();
        if bootstrap {
            extract(root, ".pool", &keys, &mut |_| {}).map_err(|e| e.to_string())?;
        }
        let outcome = adopt(root, &request, &mut |s| said.push(s)).map_err(|e| e.to_string())?;
        fs::remove_dir_all(&pool).expect("the pool's end");
        Ok((outcome, said))
    }
}

/// Everything in a root that counts, in words.
fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .strip_prefix(root)
                .expect("inside")
                .display()
                .to_string();
            let there = path.symlink_metadata().expect("metadata");
            // Locks are empty; the log has times; status-old is the last state but one, of which dpkg has more.
            let passed = [
                "dpkg.log",
                "var/lib/dpkg/status-old",
                "var/lib/dpkg/lock",
                "var/lib/dpkg/lock-frontend",
                "var/lib/dpkg/triggers/Lock",
                "var/lib/dpkg/triggers/Unincorp",
            ];
            if passed.contains(&name.as_str()) {
                continue;
            }
            // What was made in this test has no fixed time.
            let time = if there.mtime() > 1_700_000_000 {
                0
            } else {
                there.mtime()
            };
            let mut words = format!(
                "{:o} {}:{} t{time} ",
                there.mode(),
                there.uid(),
                there.gid()
            );
            if there.is_symlink() {
                words += &fs::read_link(&path).expect("a link").display().to_string();
            } else if there.is_file() {
                words += &format!("links {} ", there.nlink());
                words += &String::from_utf8_lossy(&fs::read(&path).expect("a file"))
                    .replace(&root.display().to_string(), "ROOT");
            } else if there.is_dir() {
                open.push(path);
            }
            all.insert(name, words);
        }
    }
    all
}

#[track_caller]
fn same(a: &Path, b: &Path) {
    let (left, right) = (picture(a), picture(b));
    for name in left.keys().chain(right.keys()) {
        assert_eq!(
            left.get(name),
            right.get(name),
            "{name}: dpkg's on the left, Kiln's on the right"
        );
    }
}

/// What is in both roots before: packages that are configured, a diversion, links, files that nobody owns.
fn furnish(bench: &Bench, root: &Path) {
    let own = fs::metadata(root).expect("metadata");
    symlink("usr/lib", root.join("lib")).expect("a link");
    let watcher = Package::new("watcher", "1").script(
        "triggers",
        "interest /usr/share/hooks\ninterest-noawait /usr/share\ninterest byname\n",
    );
    let second = Package {
        architecture: this_dpkg().1,
        ..Package::new("libwatch", "1")
    };
    let second = second.field("Multi-Arch", "same").script(
        "triggers",
        "interest-noawait /usr/share/hooks\ninterest byname\n",
    );
    let old = Package::new("old", "1")
        .script("conffiles", "/etc/shared.conf\n")
        .entry(Entry::directory("./etc/"))
        .entry(Entry::file("./etc/shared.conf", "old\n"))
        .entry(Entry::file("./usr/share/old/taken", "old\n"));
    let keeper = Package::new("keeper", "2")
        .field("Replaces", "loser (<< 9)")
        .entry(Entry::file("./usr/share/keeper/file", "keeper\n"));
    let files: Vec<PathBuf> = [watcher, second, old, keeper]
        .into_iter()
        .map(|p| bench.package(p))
        .collect();
    run(dpkg(root).arg("--unpack").args(&files));
    run(dpkg(root).args(["--configure", "--pending"]));
    let divert = ["/usr/bin/tool", "/etc/diverted.conf"];
    for path in divert {
        let admin = root.join("var/lib/dpkg");
        let mut command = program("dpkg-divert");
        command
            .arg("--admindir")
            .arg(admin)
            .args(["--local", "--no-rename", "--add", path]);
        run(&mut command);
    }
    let special = format!("#{} #{} 4750 /usr/share/special\n", own.uid(), own.gid());
    fs::write(root.join("var/lib/dpkg/statoverride"), special).expect("a file");
    fs::create_dir_all(root.join("usr/share/stays/inside")).expect("a directory");
    fs::write(root.join("etc/real.conf"), "real\n").expect("a file");
    symlink("real.conf", root.join("etc/linked.conf")).expect("a link");
    symlink("nowhere", root.join("usr/share/was-a-link")).expect("a link");
    fs::write(root.join("usr/share/was-a-file"), "x").expect("a file");
}

fn candidates() -> Vec<Package> {
    let script = "#!/bin/sh\nset -e\nenv | grep ^DPKG_MAINTSCRIPT | sort > \"$DPKG_ROOT/said\"\n\
                  echo \"$1 $#\" >> \"$DPKG_ROOT/said\"\nls \"$DPKG_ADMINDIR/tmp.ci\" >> \"$DPKG_ROOT/said\"\n\
                  grep -A2 '^Package: libm$' \"$DPKG_ADMINDIR\"/status \"$DPKG_ADMINDIR\"/updates/* 2>/dev/null | grep -o 'Status:.*' >> \"$DPKG_ROOT/said\"\n\
                  dpkg-divert --admindir \"$DPKG_ADMINDIR\" --package libm --no-rename --divert /usr/share/moved.libm --add /usr/share/moved\n";
    let conffiles = "/etc/taker.conf\n/etc/linked.conf\n/etc/shared.conf\n/etc/diverted.conf\n/etc/hard.conf\nremove-on-upgrade /etc/gone.conf\n";
    vec![
        Package { architecture: this_dpkg().1, ..Package::new("libm", "1:2.0-1") }
            .field("Multi-Arch", "same")
            .field("Depends", "watcher(>=1)|absent:any,\n old (<<3)")
            .field("Section", "libs")
            .field("Priority", "Optional")
            .field("X-Own", "kept")
            .field("Description", "short\n long\n .\n more")
            .script("preinst", script)
            .script("md5sums", "0123  usr/share/libm/version\n")
            .script("shlibs", "libm 6 libm\n")
            .script("has.dot", "left out\n")
            .entry(Entry::file("./usr/share/moved", "libm's own\n")),
        Package::new("taker", "3")
            .field("Replaces", "old (<< 2), other")
            .field("Essential", "no")
            .script("conffiles", conffiles)
            .script("triggers", "# a remark\nactivate byname\nactivate-noawait /usr/share/hooks/deep/er\ninterest /usr/share/mine\ninterest-noawait hook\n")
            .entry(Entry::directory("./etc/"))
            .entry(Entry::file("./etc/taker.conf", "taker\n").mode(0o600))
            .entry(Entry::file("./etc/linked.conf", "linked\n"))
            .entry(Entry::file("./etc/shared.conf", "taker\n"))
            .entry(Entry::file("./etc/diverted.conf", "diverted\n"))
            .entry(Entry::hard_link("./etc/hard.conf", "./etc/taker.conf").mode(0o600))
            .entry(Entry::file("./usr/share/old/taken", "taker\n"))
            .entry(Entry::file("./usr/share/moved", "taker's, diverted\n"))
            .entry(Entry::directory("./usr/bin/"))
            .entry(Entry::file("./usr/bin/tool", "tool\n").mode(0o755))
            .entry(Entry::hard_link("./usr/bin/tool2", "./usr/bin/tool").mode(0o755))
            .entry(Entry::symlink("./usr/bin/tool3", "tool"))
            .entry(Entry::file("./usr/share/special", "special\n"))
            .entry(Entry::directory("./usr/share/hooks/"))
            .entry(Entry::file("./usr/share/hooks/x", "x\n"))
            .entry(Entry::directory("./lib/"))
            .entry(Entry::file("./lib/through", "through\n").mode(0o6711))
            .entry(Entry::symlink("./usr/share/stays", "elsewhere"))
            .entry(Entry::file("./usr/share/was-a-link", "file\n"))
            .entry(Entry::directory("./usr/share/was-a-file/").mode(0o1777))
            .entry(Entry::symlink("./usr/share/dangling", "/no/such/place"))
            .entry(Entry::special("./usr/share/pipe", EntryType::Fifo).mode(0o622))
            .entry(Entry::directory("./usr/share/empty/").mode(0o750)),
        Package::new("loser", "4")
            .entry(Entry::directory("./usr/share/keeper/"))
            .entry(Entry::file("./usr/share/keeper/file", "loser\n"))
            .entry(Entry::directory("./usr/share/doc/"))
            .entry(Entry::directory("./usr/share/doc/loser/"))
            .entry(Entry::file("./usr/share/doc/loser/copyright", "free\n"))
            .entry(Entry::file("./usr/share/doc/loser/README", "long\n"))
            .entry(Entry::directory("./usr/share/man/"))
            .entry(Entry::directory("./usr/share/man/man1/"))
            .entry(Entry::file("./usr/share/man/man1/x.1", "long\n")),
    ]
}

fn filters() -> Vec<Filter> {
    let filter = |include, pattern: &str| Filter {
        include,
        pattern: pattern.to_owned(),
    };
    vec![
        filter(false, "/usr/share/doc/*"),
        filter(false, "/usr/share/man/*"),
        filter(true, "/usr/share/doc/*/copyright"),
    ]
}

fn arguments() -> Vec<String> {
    let argument = |f: Filter| {
        format!(
            "--path-{}={}",
            if f.include { "include" } else { "exclude" },
            f.pattern
        )
    };
    filters().into_iter().map(argument).collect()
}

#[test]
fn unpacked_is_what_dpkg_calls_unpacked() {
    let bench = Bench::new();
    let (a, b) = (bench.root("a"), bench.root("b"));
    for root in [&a, &b] {
        furnish(&bench, root);
    }
    same(&a, &b);
    let files: Vec<PathBuf> = candidates().into_iter().map(|p| bench.package(p)).collect();
    run(dpkg(&a).args(arguments()).arg("--unpack").args(&files));
    let (outcome, said) = bench
        .adopt(&b, &files.iter().collect::<Vec<_>>(), &filters(), false)
        .expect("unpacked");
    assert_eq!(
        outcome,
        Outcome {
            done: 3,
            stopped: None,
            for_good: false
        }
    );
    assert!(
        said.contains(&Said::Line(
            "Replacing files in old package old (1) ...".into()
        )),
        "{said:?}"
    );
    assert!(said.contains(&Said::Line(
        "Replaced by files in installed package keeper (2) ...".into()
    )));
    same(&a, &b);
    // And what dpkg makes of it.
    for root in [&a, &b] {
        run(dpkg(root).args(["--configure", "--pending"]));
        assert_eq!(run(dpkg(root).arg("--audit")), "");
    }
    same(&a, &b);
}

#[test]
fn the_first_packages_come_without_a_database() {
    let bench = Bench::new();
    let (a, b) = (bench.root("a"), bench.root("b"));
    for root in [&a, &b] {
        fs::remove_dir_all(root.join("usr")).expect("no directory");
    }
    let base = Package::new("base", "1")
        .script("conffiles", "/etc/base.conf\n")
        .script("preinst", "#!/bin/sh\ntest -e \"$DPKG_ROOT/etc/base.conf\" || echo none > \"$DPKG_ROOT/etc/made\"\n")
        .entry(Entry::directory("./etc/"))
        .entry(Entry::file("./etc/base.conf", "base\n"))
        .entry(Entry::hard_link("./usr/share/base/again", "./usr/share/base/version"));
    let file = bench.package(base);
    // dpkg finds the files as a bootstrap leaves them.
    run(program("dpkg-deb").arg("--extract").arg(&file).arg(&a));
    run(dpkg(&a).arg("--unpack").arg(&file));
    bench.adopt(&b, &[&file], &[], true).expect("unpacked");
    same(&a, &b);
    assert!(!b.join("etc/made").exists());
    run(dpkg(&b).args(["--configure", "--pending"]));
    assert_eq!(run(dpkg(&b).arg("--verify")), "");
    assert!(b.join("etc/base.conf").exists() && !b.join("etc/base.conf.dpkg-new").exists());
}

#[test]
fn preinst_scripts_get_no_privileges_and_no_descriptors() {
    let bench = Bench::new();
    let root = bench.root("a");
    let script = "#!/bin/sh\ngrep -e ^NoNewPrivs -e ^CapEff /proc/self/status > \"$DPKG_ROOT/rights\"\nls /proc/self/fd >> \"$DPKG_ROOT/rights\"\n";
    let file = bench.package(Package::new("asks", "1").script("preinst", script));
    // A descriptor that a careless library leaves open across exec.
    let open = fs::File::open("/dev/null").expect("a file");
    let kept = rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty());
    kept.expect("a flag");
    bench.adopt(&root, &[&file], &[], true).expect("unpacked");
    let rights = fs::read_to_string(root.join("rights")).expect("what the script saw");
    let lines: Vec<&str> = rights.lines().collect();
    assert!(lines.contains(&"NoNewPrivs:\t1"), "{rights}");
    // SYS_ADMIN, SYS_PTRACE and NET_ADMIN of capabilities(7).
    let effective = lines.iter().find_map(|l| l.strip_prefix("CapEff:\t"));
    let effective = u64::from_str_radix(effective.expect("a set"), 16).expect("digits");
    assert_eq!(effective & (1 << 21 | 1 << 19 | 1 << 12), 0, "{rights}");
    assert_eq!(lines[2..], ["0", "1", "2", "3"], "{rights}");
}

#[test]
fn what_is_not_usual_stops_before_anything_is_touched() {
    let bench = Bench::new();
    let root = bench.root("a");
    furnish(&bench, &root);
    let before = picture(&root);
    let unusual = [
        Package::new("old", "2"),
        Package::new("enemy", "1").field("Conflicts", "keeper"),
        Package::new("early", "1").field("Pre-Depends", "absent"),
        Package::new("foreign", "1").script("triggers", "interested /x\n"),
        Package {
            architecture: "pdp11".into(),
            ..Package::new("odd", "1")
        },
        Package::new("node", "1").entry(Entry::special("./dev-null", EntryType::Char)),
        // All that watcher has.
        Package::new("swallow", "1")
            .entry(Entry::directory("./usr/share/watcher/"))
            .entry(Entry::file("./usr/share/watcher/version", "")),
    ];
    for package in unusual {
        let name = package.name.clone();
        let file = bench.package(package);
        let (outcome, _) = bench.adopt(&root, &[&file], &[], false).expect("an answer");
        assert!(
            outcome.done == 0 && outcome.stopped.is_some() && !outcome.for_good,
            "{name}: {outcome:?}"
        );
        assert_eq!(picture(&root), before, "{name}");
    }
}

#[test]
fn failures_name_the_package_and_the_file() {
    let bench = Bench::new();
    let root = bench.root("a");
    furnish(&bench, &root);
    let clash = Package::new("clash", "1").entry(Entry::file("./usr/share/old/taken", "x"));
    let file = bench.package(clash);
    let error = bench
        .adopt(&root, &[&file], &[], false)
        .expect_err("a conflict");
    assert!(
        error.contains("unpacking clash")
            && error.contains("/usr/share/old/taken")
            && error.contains("package old 1"),
        "{error}"
    );
    // dpkg thinks so too.
    assert!(
        !dpkg(&root)
            .arg("--unpack")
            .arg(&file)
            .output()
            .expect("dpkg")
            .status
            .success()
    );

    for path in ["./usr/../../x", "../x"] {
        let hostile = bench.package(Package::new("hostile", "1").entry(Entry::file(path, "x")));
        let pool = tempfile::tempdir().expect("a directory");
        let item = PoolItem {
            key: "hostile_1_all".into(),
            file: hostile,
        };
        let error = unpack(&item, pool.path(), &[], &Earlier::default())
            .expect_err("a bad path")
            .to_string();
        assert!(
            error.contains("hostile_1_all") && error.contains("path"),
            "{error}"
        );
    }

    let mut bytes = fs::read(bench.package(
        Package::new("torn", "1").entry(Entry::file("./usr/share/big", vec![7; 1 << 20])),
    ))
    .expect("bytes");
    let end = bytes.len() - 40;
    bytes[end - 60..end].fill(0x55);
    let torn = bench.top.path().join("torn_1_all.deb");
    fs::write(&torn, bytes).expect("a file");
    let error = bench
        .adopt(&root, &[&torn], &[], false)
        .expect_err("damage");
    assert!(error.contains("torn_1_all"), "{error}");

    let script = Package::new("cross", "1").script("preinst", "#!/bin/sh\nexit 7\n");
    let error = bench
        .adopt(&root, &[&bench.package(script)], &[], false)
        .expect_err("a script");
    assert!(
        error.contains("preinst script of cross failed") && error.contains('7'),
        "{error}"
    );
}

#[test]
fn a_script_that_is_not_executable_is_made_so() {
    let bench = Bench::new();
    let root = bench.root("a");
    let file = bench.package(
        Package::new("plain", "1").script("preinst", "#!/bin/sh\ntouch \"$DPKG_ROOT/ran\"\n"),
    );
    let pool = root.join(".pool");
    fs::create_dir_all(&pool).expect("a directory");
    bench.adopt(&root, &[&file], &[], false).expect("unpacked");
    assert!(root.join("ran").exists());
    let script = root.join("var/lib/dpkg/info/plain.preinst");
    assert_eq!(
        script.metadata().expect("metadata").permissions().mode() & 0o777,
        0o755
    );
}
