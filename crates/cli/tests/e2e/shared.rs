//! Caches that machines share, and directories that are carried to machines without a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::disk;
use crate::harness::{LONGEST, Ran, Turn, base, run, text, tool};
use crate::residue::names;

const COMMANDS: &str = "executing";
const SCRIPT: &str = "running 1 script";
const FINISH: &str = "finishing";
/// The second machine's output.
const IMAGE: &str = "image-b";

/// The image of the machine that filled the shared cache, once.
static FILLED: OnceLock<String> = OnceLock::new();

/// Where that image is kept.
fn first_image() -> PathBuf {
    base().join("shared.raw")
}

/// A shared cache in a directory, and the machines that use it: their caches are directories of the turn.
struct Setting {
    turn: Turn,
}

impl Setting {
    /// The machine whose cache is warm has filled the shared cache; gives its image's digest.
    fn filled() -> (Setting, String) {
        let setting = Setting { turn: Turn::warm() };
        let key = "a secret of the test, long enough\n";
        setting.turn.write_secret("key", key);
        let kept = base().join("shared");
        let right = FILLED.get_or_init(|| {
            let _ = fs::remove_dir_all(&kept);
            let ran = setting.turn.kiln(&setting.arguments(&["-o", "a"]));
            ran.assert(0).says(&["sharing results with file://"]);
            no_warning(&ran);
            fs::rename(setting.turn.path("share"), &kept)
                .or_else(|_| link(&setting.turn.path("share"), &kept))
                .expect("kept");
            let disk = setting.turn.path("a").join("disk.raw");
            fs::rename(&disk, first_image())
                .or_else(|_| fs::copy(&disk, first_image()).map(drop))
                .expect("kept");
            digest(&first_image())
        });
        // Damages replace files and never write into them.
        link(&kept, &setting.turn.path("share")).expect("a copy");
        (setting, right.clone())
    }

    fn url(&self) -> String {
        format!("file://{}", text(&self.turn.path("share")))
    }

    fn arguments<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let url: &'static str = Box::leak(self.url().into_boxed_str());
        let common = [
            "build",
            "--format",
            "raw",
            "--shared-cache",
            url,
            "--shared-cache-key",
            "key",
            "minimal.ks",
        ];
        [&common, more].concat()
    }

    /// A build of the machine with this cache, which has nothing but the lock.
    fn build(&self, cache: &str, more: &[&str]) -> Ran {
        let cache = text(&self.turn.path(cache));
        // Artifacts that are there would be kept.
        let _ = fs::remove_dir_all(self.turn.path(IMAGE));
        let output = ["--locked", "-o", IMAGE, "--cache-dir", &cache];
        let ran = self.turn.kiln(&self.arguments(&[&output, more].concat()));
        ran.assert(0);
        ran
    }

    /// The image is that of the machine that filled the shared cache; what differs is named.
    fn assert_right(&self, output: &str, right: &str, said: &str) {
        let disk = self.turn.path(output).join("disk.raw");
        if digest(&disk) == right {
            return;
        }
        let differences = disk::differences(&first_image(), &disk, &self.turn.path("compared"));
        panic!("{output} is not what the first machine made: {differences}\n{said}");
    }

    fn share(&self, object: &str) -> PathBuf {
        self.turn.path("share/kiln1").join(object)
    }

    /// The layer of a machine's cache whose title begins so.
    fn layer(&self, cache: &str, title: &str) -> String {
        let layers = self.turn.path(cache).join("layers");
        let found = names(&layers).into_iter().find(|id| {
            let note = fs::read(layers.join(id).join("layer.json")).expect("a layer");
            let note: Value = serde_json::from_slice(&note).expect("JSON");
            note["title"].as_str().is_some_and(|t| t.starts_with(title))
        });
        found.unwrap_or_else(|| panic!("no layer {title}"))
    }

    fn record(&self, layer: &str) -> PathBuf {
        self.share(&format!("layers/{layer}"))
    }

    /// The first chunk of a layer's archive.
    fn chunk(&self, layer: &str) -> PathBuf {
        let chunk = &body(&self.record(layer))["files"]["fs.tar.zst"][0]["sha256"];
        let chunk = chunk.as_str().expect("a chunk");
        self.share(&format!("chunks/{}/{chunk}", &chunk[..2]))
    }

    /// Takes layers from a machine's cache and damages objects of the shared one; the build makes the same image, and
    /// says of each object, but those that are just missing, that there is something wrong with it.
    fn survives(&self, right: &str, damages: &[(&str, PathBuf, Damage)]) {
        for (title, ..) in damages {
            let layer = self.layer("b", title);
            fs::remove_dir_all(self.turn.path("b/layers").join(layer)).expect("a layer");
        }
        for (_, object, damage) in damages {
            damage.inflict(object);
        }
        let ran = self.build("b", &[]);
        self.assert_right(IMAGE, right, &ran.whole());
        for (title, object, damage) in damages {
            let name = object.file_name().expect("a name").to_string_lossy();
            let warned = ran.stderr.lines().any(|line| line.contains(&*name));
            let record = object.parent().is_some_and(|dir| dir.ends_with("layers"));
            let quiet = record && matches!(damage, Damage::Delete);
            assert_eq!(warned, !quiet, "{title}: {damage:?}\n{}", ran.whole());
            assert!(
                ran.stderr.contains(&format!("done minimal: {title}"))
                    || ran.stderr.contains(&format!("done {title}")),
                "{title} was not made anew\n{}",
                ran.whole()
            );
        }
    }
}

/// What can become of an object.
#[derive(Debug)]
enum Damage {
    Flip,
    Truncate,
    Replace(PathBuf),
    Delete,
}

impl Damage {
    fn inflict(&self, object: &Path) {
        let mut bytes = fs::read(object).unwrap_or_else(|e| panic!("{}: {e}", object.display()));
        match self {
            Damage::Flip => bytes[90] ^= 1,
            Damage::Truncate => bytes.truncate(bytes.len() / 2),
            Damage::Replace(other) => bytes = fs::read(other).expect("another object"),
            Damage::Delete => return fs::remove_file(object).expect("an object"),
        }
        // Other copies may share the file.
        fs::remove_file(object).expect("an object");
        fs::write(object, bytes).expect("an object");
    }
}

/// A copy of a directory that has the same files; real copies where the other file system is another one.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            link(&from, &to)?;
        } else {
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
        }
    }
    Ok(())
}

/// A record without its seal.
fn body(record: &Path) -> Value {
    let text = fs::read(record).unwrap_or_else(|e| panic!("{}: {e}", record.display()));
    let start = text.iter().position(|b| *b == b'\n').expect("a seal") + 1;
    serde_json::from_slice(&text[start..]).expect("JSON")
}

fn digest(path: &Path) -> String {
    let sum = tool("sha256sum", &[&text(path)]);
    let digest = sum.assert(0).stdout.split_whitespace().next();
    digest.expect("a digest").to_owned()
}

fn no_warning(ran: &Ran) {
    assert!(!ran.stderr.contains("warning"), "{}", ran.whole());
}

#[test]
fn a_second_machine_takes_the_image_whole_and_survives_every_damage() {
    let (setting, right) = Setting::filled();
    let whole = |cache: &str| {
        let ran = setting.build(cache, &[]);
        no_warning(&ran);
        ran.says(&["done fetching the image from the shared cache"]);
        setting.assert_right(IMAGE, &right, &ran.whole());
        for what in ["layers", "blocks", "downloads/sha256"] {
            let here = setting.turn.path(cache).join(what);
            let here = here.is_dir().then(|| names(&here)).unwrap_or_default();
            assert!(here.is_empty(), "{what}: {here:?}\n{}", ran.whole());
        }
    };
    whole("whole");
    // What is there need not come again, and no layer for that answer either.
    let cache = text(&setting.turn.path("whole"));
    let again = ["--locked", "-o", IMAGE, "--cache-dir", &cache];
    let ran = setting.turn.kiln(&setting.arguments(&again));
    ran.assert(0).says(&["cached making the image"]);
    assert!(names(&setting.turn.path("whole/layers")).is_empty());

    let record = setting
        .share("images")
        .join(&names(&setting.share("images"))[0]);
    let chunk = |file: &str| {
        let record = body(&record);
        let files = record["files"].as_object().expect("files");
        let found = files.iter().find(|(name, _)| name.ends_with(file));
        let chunk = found.and_then(|(_, chunks)| chunks[0]["sha256"].as_str());
        let chunk = chunk.expect("a chunk");
        setting.share(&format!("chunks/{}/{chunk}", &chunk[..2]))
    };
    // Each time another machine without anything; it sends what it had to make, so the next damage is to sound objects.
    let damages: [(&str, &dyn Fn() -> PathBuf, Damage); 3] = [
        ("record", &|| record.clone(), Damage::Flip),
        ("rest", &|| chunk("rest"), Damage::Flip),
        ("blocks", &|| chunk(".pack"), Damage::Delete),
    ];
    for (what, object, damage) in damages {
        let object = object();
        damage.inflict(&object);
        let ran = setting.build(what, &[]);
        let name = object.file_name().expect("a name").to_string_lossy();
        ran.says(&["warning shared cache", &name, "done compressing the root"]);
        setting.assert_right(IMAGE, &right, &format!("{what}: {}", ran.whole()));
        whole(&format!("after-{what}"));
        for cache in [what.to_owned(), format!("after-{what}")] {
            fs::remove_dir_all(setting.turn.path(&cache)).expect("a cache");
        }
    }
    let left = setting.turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_image_that_comes_whole_is_packed_as_it_was() {
    let (setting, _) = Setting::filled();
    let url = setting.url();
    let sharing = ["--shared-cache", &url, "--shared-cache-key", "key"];
    let build = |more: &[&str]| {
        let words = ["build", "minimal.ks", "--locked", "--format", "tar.gz"];
        let ran = setting.turn.kiln(&[&words[..], &sharing, more].concat());
        ran.assert(0);
        ran
    };
    build(&["-o", "first"]);
    let cache = text(&setting.turn.path("second-cache"));
    let ran = build(&["-o", "second", "--cache-dir", &cache]);
    ran.says(&["done fetching the image from the shared cache"]);
    assert!(!setting.turn.path("second/disk.raw").exists());
    let [first, second] =
        ["first", "second"].map(|output| digest(&setting.turn.path(output).join("disk.tar.gz")));
    assert_eq!(first, second);
    let read = |output: &str| {
        let text = fs::read(setting.turn.path(output).join("manifest.json"));
        let mut said: Value = serde_json::from_slice(&text.expect("it")).expect("JSON");
        let of_the_build = ["steps", "seconds", "warnings"];
        let manifest = said.as_object_mut().expect("an object");
        manifest.retain(|name, _| !of_the_build.contains(&name.as_str()));
        for artifact in manifest["artifacts"].as_array_mut().expect("a list") {
            artifact.as_object_mut().expect("one").remove("allocated");
        }
        said
    };
    assert_eq!(read("first"), read("second"));
    let packages = |output: &str| fs::read(setting.turn.path(output).join("packages.txt"));
    assert_eq!(
        packages("first").expect("it"),
        packages("second").expect("it")
    );
}

#[test]
fn a_second_machine_starts_warm_and_survives_every_damage() {
    let (setting, right) = Setting::filled();
    // With it no layer would come.
    fs::remove_dir_all(setting.share("images")).expect("the image");
    let ran = setting.build("b", &[]);
    no_warning(&ran);
    setting.assert_right(IMAGE, &right, &ran.whole());
    ran.says(&[
        "cached tools: unpacking the build tools (from the shared cache)",
        "cached generating the initramfs (from the shared cache)",
        " 0 new blocks",
    ]);
    let fetched = names(&setting.turn.path("b/downloads/sha256"));
    assert!(fetched.is_empty(), "packages were fetched\n{}", ran.whole());
    // What names chunks are is what they hold: an outsider's tool says so.
    for shard in names(&setting.share("chunks")) {
        for name in names(&setting.share(&format!("chunks/{shard}"))) {
            let object = setting.share(&format!("chunks/{shard}/{name}"));
            assert_eq!(digest(&object), name);
        }
    }

    let [commands, script, finish] =
        [COMMANDS, SCRIPT, FINISH].map(|title| setting.layer("b", title));
    let other = setting.record(&setting.layer("b", "installing"));
    setting.survives(
        &right,
        &[
            (COMMANDS, setting.record(&commands), Damage::Flip),
            (SCRIPT, setting.record(&script), Damage::Truncate),
            (FINISH, setting.record(&finish), Damage::Replace(other)),
        ],
    );
    // They were replaced, so the next damages are to sound objects again.
    let foreign = setting.chunk(&setting.layer("b", "installing"));
    setting.survives(
        &right,
        &[
            (COMMANDS, setting.chunk(&commands), Damage::Flip),
            (SCRIPT, setting.chunk(&script), Damage::Replace(foreign)),
            (FINISH, setting.record(&finish), Damage::Delete),
        ],
    );
    setting.survives(
        &right,
        &[
            (COMMANDS, setting.chunk(&commands), Damage::Truncate),
            (SCRIPT, setting.chunk(&script), Damage::Delete),
        ],
    );
    blocks_survive(&setting, &right);
    let left = setting.turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

/// A flipped bit in compressed blocks: some are made anew, and a wrong secret means that nothing is taken.
fn blocks_survive(setting: &Setting, right: &str) {
    let directory = setting.share("blocks");
    let record = body(&directory.join(&names(&directory)[0]));
    let files = record["files"].as_object().expect("files");
    let pack = files.iter().find(|(name, _)| name.ends_with(".pack"));
    let chunk = pack.and_then(|(_, chunks)| chunks[0]["sha256"].as_str());
    let chunk = chunk.expect("a chunk");
    Damage::Flip.inflict(&setting.share(&format!("chunks/{}/{chunk}", &chunk[..2])));
    fs::remove_dir_all(setting.turn.path("b/blocks")).expect("blocks");
    let ran = setting.build("b", &["--shared-cache-mode", "read"]);
    ran.says(&[chunk]);
    assert!(!ran.stderr.contains(" 0 new blocks"), "{}", ran.whole());
    setting.assert_right(IMAGE, right, &ran.whole());

    setting
        .turn
        .write("key", "another secret, also long enough\n");
    let finish = setting.layer("b", FINISH);
    fs::remove_dir_all(setting.turn.path("b/layers").join(&finish)).expect("a layer");
    let ran = setting.build("b", &["--shared-cache-mode", "read"]);
    ran.says(&[&finish, "another key", "done finishing"]);
    setting.assert_right(IMAGE, right, &ran.whole());
}

#[test]
fn what_makes_no_sense_is_refused_and_what_is_absent_is_not_missed() {
    let turn = Turn::warm();
    let build =
        |more: &[&str]| turn.kiln(&[&["build", "minimal.ks", "--format", "raw"], more].concat());
    build(&["--shared-cache", "s3://bucket/x"])
        .assert(2)
        .says(&["s3://bucket/x", "key", "docs/shared-cache.md"]);
    build(&["--shared-cache", "ftp://x.example/"])
        .assert(2)
        .says(&["ftp://x.example/", "s3://"]);
    build(&[
        "--shared-cache",
        "file:///tmp",
        "--shared-cache-key",
        "no-key",
    ])
    .assert(3)
    .says(&["no-key", "openssl rand"]);
    let absent = format!("file://{}", text(&turn.path("absent")));
    let ran = build(&["--shared-cache", &absent, "--shared-cache-mode", "read"]);
    ran.assert(0).says(&["warning", &absent]);
}

/// The same command where there is no network at all, not even one that refuses.
fn without_network(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.arg("--net").arg(command.get_program());
    inside.args(command.get_args()).env_clear();
    inside.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    inside.current_dir(command.get_current_dir().expect("a directory"));
    inside
}

#[test]
fn a_vendored_directory_builds_without_a_network() {
    let (setting, right) = Setting::filled();
    let turn = &setting.turn;
    let directory = turn.path("carried");
    let vendor = ["lock", "--offline", "--vendor", "carried", "minimal.ks"];
    interrupted(turn, &vendor, &directory);
    turn.kiln(&vendor).assert(0);
    assert!(!turn.path(".carried.kiln-part").exists());
    let sums = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&directory)
        .status();
    assert!(sums.expect("sha256sum").success());

    fs::remove_dir_all(setting.share("images")).expect("the image");
    // The tools are unpacked and the upper layers made here, for which all packages are taken from the directory. What takes
    // longest, the system's layer and the initramfs, comes from the other machine.
    let layers = setting.share("layers");
    for id in names(&layers) {
        let title = body(&layers.join(&id))["facts"]["title"].clone();
        let title = title.as_str().expect("a title");
        let packages = title.strip_prefix("installing ").and_then(|rest| {
            let (number, _) = rest.split_once(' ')?;
            number.parse::<u32>().ok()
        });
        if title != "initramfs" && packages.is_none_or(|number| number < 50) {
            fs::remove_file(layers.join(&id)).expect("a record");
        }
    }
    fs::remove_file(turn.path("minimal.kiln.lock")).expect("a lock");
    let cache = text(&turn.path("c"));
    let more = [
        "-o",
        "c",
        "--cache-dir",
        &cache,
        "--vendor",
        "carried",
        "--shared-cache-mode",
        "read",
    ];
    let build = || {
        run(
            &mut without_network(&turn.command(&setting.arguments(&more))),
            LONGEST,
        )
    };

    let package = turn.path("carried/packages").join(
        names(&turn.path("carried/packages"))
            .into_iter()
            .find(|name| name.contains("-apt_"))
            .expect("apt"),
    );
    let name = package
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let whole = fs::read(&package).expect("a package");
    Damage::Flip.inflict(&package);
    let ran = build();
    assert_ne!(ran.code, Some(0), "{}", ran.whole());
    ran.says(&[&name, "SHA-256", "kiln lock --vendor"]);
    fs::remove_file(&package).expect("a package");
    let ran = build();
    assert_ne!(ran.code, Some(0), "{}", ran.whole());
    ran.says(&[&name, "kiln lock --vendor"]);
    fs::write(&package, whole).expect("a package");
    for (file, words) in [("metadata", "was changed"), ("keys", "was changed")] {
        let file = first_file(&turn.path("carried").join(file));
        let whole = fs::read(&file).expect("a file");
        Damage::Flip.inflict(&file);
        let ran = build();
        ran.assert(1).says(&[&text(&file), words]);
        fs::write(&file, whole).expect("a file");
    }

    let ran = build();
    ran.assert(0).says(&[
        "done tools: unpacking",
        "done minimal: installing",
        "cached generating the initramfs (from the shared cache)",
    ]);
    setting.assert_right("c", &right, &ran.whole());
}

/// The first file, depth first, that is longer than a few bytes.
fn first_file(directory: &Path) -> PathBuf {
    let mut paths: Vec<PathBuf> = names(directory).iter().map(|n| directory.join(n)).collect();
    paths.sort();
    let found = paths.iter().find_map(|path| match path.is_dir() {
        true => Some(first_file(path)),
        false => (fs::metadata(path).expect("a file").len() > 100).then(|| path.clone()),
    });
    found.expect("a file")
}

/// A vendoring that is killed leaves no directory.
fn interrupted(turn: &Turn, arguments: &[&str], directory: &Path) {
    let mut command = turn.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("kiln");
    let part = turn.path(".carried.kiln-part/packages");
    let began = Instant::now();
    while !part.is_dir() || names(&part).len() < 5 {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "nothing is vendored"
        );
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it ended early"
        );
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a child to kill");
    child.wait().expect("a killed child");
    assert!(!directory.exists(), "a part of a directory");
}
