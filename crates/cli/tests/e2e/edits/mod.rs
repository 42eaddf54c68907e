//! Random edits of a definition: after each, the image that the warm cache gives is bit for bit the one that a cold cache gives.
//!
//! The same cache serves all warm builds. The cold one has the layers below the edited files and nothing else: no compressed
//! block, no initramfs, no layer of an edited file. At every tenth edit it has not even those, and resolves the
//! packages itself. Both have the downloads. `KILN_EDITS` says how many edits, `KILN_SEED` which:
//! `KILN_EDITS=50 cargo xtask e2e edits::`.

// What was edited, and how long builds took, is shown when one fails.
#![allow(clippy::print_stdout)]

mod definition;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_testkit::{Key, Mirror, Repository};

use crate::harness::{Ran, Turn, base, cache, text, tool};
use crate::random::{Random, setting};
use crate::residue::names;
use definition::{Definition, LAYERS};

/// The first edits are another version, another owner, and a directory that becomes a link.
const SEED: u64 = 1002;
/// So often the cold cache has nothing but downloads.
const COLDEST: u64 = 10;
/// The repository's first date, in seconds since 1970: long before the distribution's, whose date is the image's clock.
const DATE: u64 = 1_700_000_000;

/// The definition's files, the repository that it names, and both caches.
struct Bench {
    turn: Turn,
    definition: Definition,
    key: Key,
    mirror: Mirror,
    /// States of the repository so far.
    states: u64,
}

impl Bench {
    fn new() -> Self {
        let turn = Turn::warm();
        for directory in ["project", "repository", "cold"] {
            fs::create_dir(turn.path(directory)).expect("a directory");
        }
        let key = Key::generate("edits");
        fs::write(turn.path("project/key.asc"), key.public_armored()).expect("a key");
        fs::rename(turn.path("minimal.ks"), turn.path("project/minimal.ks")).expect("the example");
        let mirror = Mirror::of(turn.path("repository"));
        turn.write(
            "project/kiln.toml",
            &format!(
                "name = \"edits\"\nlayers = [\"minimal.ks\", {:?}, {:?}]\n[[repository]]\nurl = {:?}\n\
                 suite = \"edits\"\ncomponents = [\"main\"]\nsigned-by = \"key.asc\"\n",
                LAYERS[0],
                LAYERS[1],
                mirror.url()
            ),
        );
        let bench = Bench {
            turn,
            definition: Definition::new(),
            key,
            mirror,
            states: 0,
        };
        for shared in ["downloads", "metadata"] {
            std::os::unix::fs::symlink(cache().join(shared), bench.cold().join(shared))
                .expect("a link");
        }
        bench.copy_layers();
        bench
    }

    fn cold(&self) -> PathBuf {
        self.turn.path("cold")
    }

    /// Gives the cold cache the layers below the edited files.
    fn copy_layers(&self) {
        let layers = cache().join("layers");
        fs::create_dir(self.cold().join("layers")).expect("a directory");
        for id in names(&layers) {
            let layer = layers.join(id);
            if is_below_the_edits(&layer) {
                tool(
                    "cp",
                    &["-a", &text(&layer), &text(&self.cold().join("layers"))],
                )
                .assert(0);
            }
        }
    }

    /// Makes the cold cache cold again; entirely, or but for the layers below the edited files.
    fn cool(&self, entirely: bool) {
        for name in names(&self.cold()) {
            let path = self.cold().join(&name);
            if path.is_symlink() || path.is_file() || name == "layers" {
                continue;
            }
            fs::remove_dir_all(path).expect("a part of the cold cache");
        }
        let layers = self.cold().join("layers");
        for id in names(&layers) {
            let layer = layers.join(id);
            if entirely || !is_below_the_edits(&layer) {
                fs::remove_dir_all(layer).expect("a layer");
            }
        }
    }

    /// Writes the definition as it is now, and the lock if the old one no longer counts.
    fn write(&mut self, relock: bool) {
        for (name, text) in LAYERS.iter().zip(self.definition.kickstarts()) {
            self.turn.write(&format!("project/{name}"), &text);
        }
        if !relock {
            return;
        }
        self.states += 1;
        let package = self.definition.package_of_its_own();
        let mut repository = Repository::new("edits", [package]);
        repository.date = SystemTime::UNIX_EPOCH + Duration::from_secs(DATE + self.states);
        repository.write(&self.turn.path("repository"), &self.key);
        self.turn.kiln(&["lock", "project"]).assert(0);
    }

    fn build(&self, output: &str, cache: &Path) -> Ran {
        let cache = text(cache);
        let options = ["--locked", "--format", "raw", "--cache-dir", &cache];
        let words = ["build", "project", "-o", output];
        let ran = self.turn.kiln(&[&words[..], &options].concat());
        ran.assert(0);
        println!("  {output}: {:.1?}", ran.time);
        ran
    }

    /// The packages are what the cold cache finds too.
    fn resolve_again(&self) {
        let lock = self.turn.path("project/kiln.lock");
        let warm = fs::read(&lock).expect("the lock");
        let cache = text(&self.cold());
        let words = ["lock", "--offline", "project", "--cache-dir", &cache];
        self.turn.kiln(&words).assert(0);
        assert!(
            fs::read(&lock).expect("the lock") == warm,
            "the cold cache resolves otherwise"
        );
    }

    /// Builds with both caches and compares. `told` says after what.
    fn compare(&self, entirely: bool, told: &str) {
        let warm = self.build("warm", &cache());
        warm.says(&["cached system: installing"]);
        self.cool(entirely);
        if entirely {
            self.resolve_again();
        }
        let cold = self.build("cold-output", &self.cold());
        cold.says(&[
            "done generating the initramfs",
            "done edited-last: installing",
        ]);
        let [one, other] = ["warm", "cold-output"].map(|o| self.turn.path(o).join("disk.raw"));
        let verdict = tool("cmp", &[&text(&one), &text(&other)]);
        if verdict.code != Some(0) {
            let kept = self.keep(&[&one, &other, &self.turn.path("project")]);
            panic!(
                "{told}: warm and cold differ; both are kept in {}\n{}\nwarm: {}\ncold: {}",
                kept.display(),
                verdict.whole(),
                warm.whole(),
                cold.whole()
            );
        }
    }

    /// Puts what shows a difference where it stays.
    fn keep(&self, files: &[&Path]) -> PathBuf {
        let kept = base().join("edits-differ");
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).expect("a directory");
        for (number, file) in files.iter().enumerate() {
            let name = file.file_name().expect("a name").to_string_lossy();
            let to = kept.join(format!("{number}-{name}"));
            tool("cp", &["-a", &text(file), &text(&to)]).assert(0);
        }
        kept
    }
}

/// Whether a layer of a cache is none of the edited files', and no image's last one.
fn is_below_the_edits(layer: &Path) -> bool {
    let note = fs::read(layer.join("inputs.json")).unwrap_or_default();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap_or_default();
    let role = note["role"].as_str().unwrap_or("edited");
    !["edited", "finish"].iter().any(|word| role.contains(word))
}

#[test]
fn warm_is_cold_after_every_edit() {
    let (edits, seed) = (setting("KILN_EDITS", 3), setting("KILN_SEED", SEED));
    let mut random = Random::new(seed);
    let mut bench = Bench::new();
    bench.write(true);
    bench.build("warm", &cache());
    for number in 1..=edits {
        let edited = bench.definition.edit(&mut random);
        let told = format!("edit {number} of {edits}, seed {seed}: {}", edited.what);
        println!("{told}");
        bench.write(edited.relock);
        bench.compare(number % COLDEST == 0, &told);
    }
    drop(bench.mirror.take_requests());
    let left = bench.turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}
