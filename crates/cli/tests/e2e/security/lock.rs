//! A `kiln.lock` is a text that anybody may have changed. What it names is used only where metadata that is signed with the
//! definition's keys says the same.

use std::fs;
use std::path::Path;

use kiln_testkit::{Key, Mirror, Package, Repository};

use crate::harness::{Ran, Turn, cache, digest, text};

/// What the package of an attacker says when it runs.
const RAN: &str = "the-postinst-of-the-attacker-ran";
const PRE_RAN: &str = "the-pre-script-ran";
const VICTIM: &str = "kiln-victim";
/// The layer's own script: how far an accepted build comes without making an image.
const ENDED: &str = "the-script-after-the-packages-ran";

/// A project with a package of a repository on the loopback interface, locked.
struct Project {
    turn: Turn,
    mirror: Mirror,
    key: Key,
    lock: String,
}

/// The fields of a package in a lock, in their order.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn of(text: &str) -> Self {
        let fields = text.split(' ').filter_map(|field| field.split_once('='));
        Fields(fields.map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
    }

    fn get(&mut self, name: &str) -> &mut String {
        let field = self.0.iter_mut().find(|(n, _)| n == name);
        &mut field.expect("the field is there").1
    }
}

/// Versions of the attacker's package: files on the mirror that no index names.
const EVIL: [&str; 2] = ["1.0", "1.5"];

impl Project {
    fn new() -> Self {
        let turn = Turn::warm();
        let key = Key::generate("Test <test@example.org>");
        let files = turn.path("mirror");
        let honest = Package::new(VICTIM, "1.0").script("postinst", "#!/bin/sh\ntrue\n");
        Repository::new("attacked", [honest, Package::new("kiln-other", "1.0")])
            .write(&files, &key);
        let script = format!("#!/bin/sh\necho {RAN}\n");
        for version in EVIL {
            let evil = Package::new(VICTIM, version).script("postinst", &script);
            let path = files.join(format!("pool/main/evil-{version}.deb"));
            fs::write(path, evil.build()).expect("a package");
        }
        let mirror = Mirror::of(files);
        fs::create_dir(turn.path("project")).expect("a directory");
        fs::copy(turn.path("minimal.ks"), turn.path("project/minimal.ks")).expect("a layer");
        turn.write(
            "project/key.asc",
            &String::from_utf8_lossy(&key.public_armored()),
        );
        turn.write(
            "project/kiln.toml",
            &format!(
                "layers = [\"minimal.ks\", \"victim.ks\"]\n[[repository]]\nurl = \"{}\"\nsuite = \"attacked\"\n\
                 components = [\"main\"]\nsigned-by = \"key.asc\"\n",
                mirror.url()
            ),
        );
        turn.write(
            "project/victim.ks",
            &format!(
                "%packages\n{VICTIM}\n%end\n%post --erroronfail\necho {ENDED}\nexit 7\n%end\n"
            ),
        );
        turn.kiln(&["lock", "project"]).assert(0);
        let lock = fs::read_to_string(turn.path("project/kiln.lock")).expect("the lock");
        Project {
            turn,
            mirror,
            key,
            lock,
        }
    }

    /// The lock with another line for a package.
    fn changed(&self, package: &str, change: impl Fn(&mut Fields)) -> String {
        let mut found = 0;
        let start = format!("package {package} ");
        let lines = self.lock.lines().map(|line| {
            let Some(fields) = line.strip_prefix(&start) else {
                return format!("{line}\n");
            };
            found += 1;
            let mut fields = Fields::of(fields);
            change(&mut fields);
            let fields = fields
                .0
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            format!("{start}{}\n", fields.collect::<Vec<_>>().join(" "))
        });
        let text = lines.collect();
        assert!(found > 0, "{package} is not in the lock");
        text
    }

    fn write(&self, lock: &str) {
        self.turn.write("project/kiln.lock", lock);
    }

    fn build(&self, more: &[&str]) -> Ran {
        let words = [
            "build",
            "project",
            "--locked",
            "--verbose",
            "--format",
            "raw",
        ];
        self.mirror.take_requests();
        self.turn.kiln(&[&words[..], more].concat())
    }

    /// The build ends with these words before anything of the attacker's is fetched or runs.
    fn refused(&self, code: i32, words: &[&str], more: &[&str]) {
        let ran = self.build(more);
        ran.assert(code).says(words);
        for never in [RAN, PRE_RAN, ENDED] {
            assert!(!ran.stderr.contains(never), "{}", ran.whole());
        }
        let asked = self.mirror.take_requests();
        let fetched = asked
            .iter()
            .find(|request| request.target.contains("pool/"));
        assert_eq!(fetched, None, "{}", ran.whole());
    }

    /// The build comes as far as the script that fails.
    fn accepted(&self, more: &[&str]) -> Ran {
        let ran = self.build(more);
        ran.assert(4).says(&[ENDED]);
        ran
    }

    /// What vouched for earlier locks is forgotten.
    fn forget(&self) {
        let _ = fs::remove_dir_all(cache().join("signed"));
    }

    /// The attacker's package at its place on the mirror.
    fn evil(&self, version: &str, fields: &mut Fields) {
        let path = format!("pool/main/evil-{version}.deb");
        let file = self.turn.path("mirror").join(&path);
        let size = fs::metadata(&file).expect("a package").len();
        *fields.get("version") = version.to_owned();
        *fields.get("size") = size.to_string();
        *fields.get("sha256") = digest(&file);
        *fields.get("url") = format!("{}/{path}", self.mirror.url());
    }
}

/// Changed size, content, place and version: an unsigned postinst ran as root in the image for each.
#[test]
fn a_changed_line_of_a_lock_ends_the_build_before_anything_runs() {
    let project = Project::new();
    let elsewhere = Mirror::of(project.turn.path("mirror"));
    let other_host = format!("{}/pool/main/evil-1.5.deb", elsewhere.url());
    let place = "kiln.lock:";
    for (change, words) in [
        (
            (&|fields: &mut Fields| *fields.get("size") = "1".to_owned()) as &dyn Fn(&mut Fields),
            "bytes",
        ),
        (&|fields| *fields.get("sha256") = "0".repeat(64), "SHA-256"),
        (&|fields| project.evil("1.0", fields), "SHA-256"),
        (
            &|fields| fields.get("url").clone_from(&other_host),
            "the lock at http",
        ),
        (
            &|fields| {
                project.evil("1.5", fields);
                fields.get("url").clone_from(&other_host);
            },
            "below none of the definition's repositories",
        ),
        (
            &|fields| {
                project.evil("1.5", fields);
                *fields.get("url") = fields.get("url").replace("/pool/", "/x/../pool/");
            },
            "below none of the definition's repositories",
        ),
    ] {
        project.write(&project.changed(VICTIM, change));
        let words = ["not to be believed", place, VICTIM, words];
        project.refused(1, &words, &["--offline"]);
        project.refused(1, &words, &["--offline", "--allow-unsigned-lock"]);
    }
    project.write(&project.changed(VICTIM, |fields| project.evil("1.0", fields)));
    project.refused(1, &["not to be believed", VICTIM, "SHA-256"], &[]);
    let swapped = project.changed(VICTIM, |fields| project.evil("1.5", fields));
    project.write(&swapped);
    let words = [
        "no signed metadata",
        place,
        VICTIM,
        "1.5",
        "--allow-unsigned-lock",
    ];
    project.refused(1, &words, &[]);
    project.refused(1, &words, &["--offline"]);
    assert_eq!(elsewhere.take_requests(), []);
    // So it would be.
    project
        .accepted(&["--allow-unsigned-lock"])
        .says(&["warning", VICTIM, "nobody signed", RAN]);
}

/// The dates are the image's clock, and the URLs are apt's in it: both were believed.
#[test]
fn a_changed_repository_of_a_lock_ends_the_build() {
    let project = Project::new();
    let line = |change: &dyn Fn(&mut Fields)| {
        let change = |line: &str| match line.strip_prefix("repository ") {
            Some(fields) if line.contains("name=attacked") => {
                let mut fields = Fields::of(fields);
                change(&mut fields);
                let fields = fields.0.iter().map(|(n, v)| format!(" {n}={v}"));
                format!("repository{}\n", fields.collect::<String>())
            }
            _ => format!("{line}\n"),
        };
        project.lock.lines().map(change).collect::<String>()
    };
    let date = |fields: &mut Fields| *fields.get("date") = "2001-02-03T04:05:06Z".to_owned();
    let later = |fields: &mut Fields| *fields.get("date") = "2101-02-03T04:05:06Z".to_owned();
    let url = |fields: &mut Fields| *fields.get("url") = "http://127.0.0.1:1/debian".to_owned();
    let changes: [(&dyn Fn(&mut Fields), &str); 3] = [
        (&date, "its date is not that of"),
        (&later, "its date is"),
        (&url, "no such repository"),
    ];
    for (change, words) in changes {
        project.write(&line(change));
        for more in [&["--offline"][..], &["--allow-unsigned-lock"]] {
            project.refused(
                1,
                &["not to be believed", "kiln.lock:", words, "kiln lock"],
                more,
            );
        }
    }
    project.write(&project.lock.replace("repository url", "# repository url"));
    project.refused(1, &["not to be believed", "and the lock has not"], &[]);
    project.write(&project.lock);
    project.accepted(&[]);
}

/// `%pre` scripts run in the tools root before the definition is read for good.
#[test]
fn a_changed_tool_ends_the_build_before_pre_scripts_run() {
    let project = Project::new();
    let victim = fs::read_to_string(project.turn.path("project/victim.ks")).expect("a layer");
    let with_pre = format!("%pre\necho {PRE_RAN}\n%end\n{victim}");
    project.turn.write("project/victim.ks", &with_pre);
    project.write(&project.changed("mawk", |fields| {
        let version = fields.get("version").clone();
        project.evil("1.5", fields);
        *fields.get("version") = version;
    }));
    project.refused(1, &["not to be believed", "mawk", "SHA-256"], &[]);
    project.write(&project.lock);
    project.accepted(&[]).says(&[PRE_RAN]);
}

#[test]
fn a_changed_lock_in_a_vendored_directory_ends_the_build() {
    let project = Project::new();
    let turn = &project.turn;
    turn.kiln(&["lock", "project", "--vendor", "carried"])
        .assert(0);
    let lock = project.changed(VICTIM, |fields| project.evil("1.0", fields));
    // The attacker knows how such a directory is made.
    let evil = turn.path("mirror/pool/main/evil-1.0.deb");
    let package = format!("carried/packages/{}-evil-1.0.deb", &digest(&evil)[..12]);
    fs::copy(&evil, turn.path(&package)).expect("a package");
    let old = digest(&turn.path("carried/kiln.lock"));
    turn.write("carried/kiln.lock", &lock);
    let new = digest(&turn.path("carried/kiln.lock"));
    let sums = fs::read_to_string(turn.path("carried/SHA256SUMS")).expect("sums");
    assert!(sums.contains(&old), "{sums}");
    turn.write("carried/SHA256SUMS", &sums.replace(&old, &new));
    for more in [
        &["--vendor", "carried"][..],
        &["--vendor", "carried", "--allow-unsigned-lock"],
    ] {
        project.refused(1, &["not to be believed", VICTIM, "SHA-256"], more);
    }
}

/// Metadata is needed once. What has left the repository counts while signed metadata is kept, or where the user says so.
#[test]
fn a_package_that_left_its_repository_needs_signed_metadata_or_a_flag() {
    let project = Project::new();
    let metadata = |project: &Project| {
        let requests = project.mirror.take_requests();
        requests
            .iter()
            .filter(|r| r.target.contains("dists/"))
            .count()
    };
    project.forget();
    project.accepted(&[]);
    project.accepted(&[]);
    assert_eq!(metadata(&project), 0, "metadata was fetched again");

    project
        .turn
        .kiln(&["lock", "project", "--keep-metadata"])
        .assert(0);
    project.write(&project.lock);
    let newer = [
        Package::new(VICTIM, "2.0"),
        Package::new("kiln-other", "1.0"),
    ];
    let mut repository = Repository::new("attacked", newer);
    repository.date += std::time::Duration::from_secs(60);
    repository.write(&project.turn.path("mirror"), &project.key);
    let kept = project.turn.path("project/kiln.lock.metadata");
    let away = project.turn.path("away");
    fs::rename(&kept, &away).expect("the kept metadata");

    project.forget();
    // Another project has refreshed the same cache meanwhile.
    let lock = ["lock", "project"];
    project.turn.kiln(&lock).assert(0);
    project.write(&project.lock);
    let left = [
        "no signed metadata",
        VICTIM,
        "--keep-metadata",
        "--allow-unsigned-lock",
    ];
    project.refused(1, &left, &[]);
    project.refused(1, &["no signed metadata", VICTIM], &["--offline"]);
    project
        .accepted(&["--allow-unsigned-lock"])
        .says(&["warning", VICTIM, "nobody signed"]);
    // It is not remembered.
    project.refused(1, &left, &[]);

    fs::rename(&away, &kept).expect("the kept metadata");
    damage(&kept, |file| {
        let ran = project.build(&[]);
        ran.assert(1)
            .says(&["no signed metadata", VICTIM, &text(file)]);
    });
    project.accepted(&["--offline"]);
    fs::remove_dir_all(&kept).expect("the kept metadata");
    project.accepted(&["--offline"]);

    // Without any metadata nothing can be said.
    let empty = text(&project.turn.path("empty"));
    project.refused(
        3,
        &["cannot be verified"],
        &["--offline", "--cache-dir", &empty],
    );
}

/// Does something while one byte of the kept index is another.
fn damage(kept: &Path, meanwhile: impl Fn(&Path)) {
    let sums = fs::read_to_string(kept.join("SHA256SUMS")).expect("sums");
    let indices = sums.lines().filter_map(|line| line.split_once("  "));
    let index = indices
        .map(|(_, name)| kept.join(name))
        .find(|path| {
            fs::read_to_string(path)
                .is_ok_and(|text| text.starts_with(&format!("Package: {VICTIM}")))
        })
        .expect("the index");
    let whole = fs::read(&index).expect("the index");
    let changed = String::from_utf8_lossy(&whole).replace("1.0", "1.1");
    fs::write(&index, changed).expect("damage");
    meanwhile(&index);
    fs::write(&index, whole).expect("the index");
}
