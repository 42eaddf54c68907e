//! What the real dnf answers for lines of a kickstart: Debian's package python3-dnf, in the place of a tools root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use kiln_packages::{CancelToken, Digest, FetchOptions, Fetcher, Lock, LockedPackage};
use kiln_rootfs::family::{Family, Metadata};
use kiln_rootfs::rpm::Rpm as Family_;
use kiln_rootfs::{Error, ErrorKind, Place, Store};
use kiln_sandbox::Sandbox;
use kiln_testkit::rpm::Rpm;
use libtest_mimic::Failed;

use super::{Case, Outcome, Warnings, World, has, is, told, tool};

pub(super) const CASES: &[(&str, Case)] = &[
    ("dnf_chooses_what_a_kickstart_says", words),
    ("modules_are_streams_and_profiles", modules),
    ("manifests_pin_versions", manifests),
    ("manifests_prove_nothing", wrong_manifests),
    ("what_dnf_refuses_is_told_with_its_line", refusals),
];

/// Packages, warnings, and a manifest of the packages.
type Solved = Result<(Vec<LockedPackage>, Vec<String>, String), Error>;

impl World {
    /// The lock's packages of a kickstart with these lines in `%packages`, whose header has these options.
    fn solve(
        &self,
        header: &str,
        lines: &str,
    ) -> Result<Result<Vec<LockedPackage>, Error>, Failed> {
        let solved = self.solve_pinned(header, lines, None)?;
        Ok(solved.map(|(chosen, ..)| chosen))
    }

    /// The same with a manifest of the only packages; what is warned of, and the answer as a manifest.
    fn solve_pinned(
        &self,
        header: &str,
        lines: &str,
        pins: Option<&str>,
    ) -> Result<Solved, Failed> {
        let plan = self.plan_with(header, lines)?;
        let fetcher = Fetcher::new(FetchOptions::default(), CancelToken::new())?;
        let metadata = Metadata {
            fetcher: &fetcher,
            directory: &self.dir.join("metadata"),
            now: SystemTime::now(),
        };
        let mut world = Family_.world(&plan, &metadata).map_err(told)?;
        let warnings = match pins.map(|pins| world.pin("pins.yaml", pins)) {
            Some(Err(error)) => return Ok(Err(error)),
            Some(Ok(warnings)) => warnings,
            None => Vec::new(),
        };
        let sandbox = Arc::new(Sandbox::detect().map_err(|error| error.to_string())?);
        let store = Store::open(&self.dir.join("layers"), Arc::clone(&sandbox)).map_err(told)?;
        let staging = store.stage().map_err(told)?;
        let (reporter, cancel) = (Warnings::default(), kiln_sandbox::CancelToken::new()?);
        let place = Place::over(&sandbox, vec!["/".into()], &staging, 0, &reporter, &cancel);
        let solved = world
            .requests(&plan)
            .and_then(|requests| world.solve(&place, &requests));
        Ok(solved.and_then(|chosen| {
            let lock = Lock {
                target: String::new(),
                inputs: Digest::of(b""),
                repositories: Vec::new(),
                layers: Vec::new(),
                packages: chosen.clone(),
            };
            let text = world.manifest(&lock)?;
            Ok((chosen, warnings, text))
        }))
    }

    /// Fails unless dnf chooses these: `name`, with `*` behind it where it was asked for.
    fn gives(&self, header: &str, lines: &str, expected: &str) -> Outcome {
        let chosen = self.solve(header, lines)?.map_err(told)?;
        let mut names: Vec<String> = chosen
            .iter()
            .map(|p| format!("{}{}", p.name, if p.auto { "" } else { "*" }))
            .collect();
        names.sort();
        match names.join(" ") == expected {
            true => Ok(()),
            false => Err(format!("{header} {lines:?} gave {names:?}, not {expected}").into()),
        }
    }

    /// Fails unless this is an error of the definition with these words.
    fn refuses(&self, lines: &str, words: &[&str]) -> Outcome {
        match self.solve("", lines)? {
            Ok(chosen) => Err(format!("{lines:?} gave {chosen:?}").into()),
            Err(error) if error.kind != ErrorKind::Definition => Err(told(error)),
            Err(error) => {
                let place = error.origin.clone().unwrap_or_default();
                let said = format!(
                    "{place}: {error} {:?} {:?} {:?}",
                    error.causes, error.hints, error.others
                );
                has(&said, words)
            }
        }
    }
}

const COMPS: &str = r#"<?xml version="1.0"?><comps>
<group><id>tools</id><name>Tools</name><packagelist><packagereq type="mandatory">app</packagereq><packagereq type="default">games</packagereq></packagelist></group>
<group><id>games</id><name>Games</name><packagelist><packagereq type="mandatory">games</packagereq></packagelist></group>
<environment><id>lab</id><name>Lab</name><grouplist><groupid>tools</groupid></grouplist></environment>
<environment><id>broken</id><name>Broken</name><grouplist><groupid>tools</groupid><groupid>lost</groupid></grouplist></environment>
</comps>"#;

/// Weak dependencies, groups that stay out, globs, exclusions, paths, versions, and the reasons that a lock has.
fn words(dir: &Path) -> Outcome {
    let app = Rpm::new("app", "2")
        .tag("Requires: (lib or otherlib)")
        .tag("Recommends: docs")
        .file("", "/usr/bin/app", "x");
    let packages = [
        app,
        Rpm::new("app", "1"),
        Rpm::new("lib", "1"),
        Rpm::new("otherlib", "1"),
        Rpm::new("docs", "1"),
        Rpm::new("games", "1"),
        Rpm::new("skin", "1").tag("Supplements: app"),
        Rpm::new("kernel", "5").tag("Requires: kernel-core"),
        Rpm::new("kernel-core", "5"),
        Rpm::new("kernel-lt", "4"),
        // Only the list of all files has this one.
        Rpm::new("data", "1").file("", "/usr/share/data/words", "x"),
        Rpm::new("reader", "1").tag("Requires: /usr/share/data/words"),
        Rpm::new("fan", "1").tag("Recommends: /usr/share/data/words"),
        Rpm::new("both", "1").arch("x86_64"),
        Rpm::new("both", "1").arch("i686"),
    ];
    let world = World::new(dir, &packages, Some(COMPS))?;
    world.gives("", "app", "app* docs lib skin")?;
    world.gives("--exclude-weakdeps", "app", "app* lib")?;
    world.gives("", "app\n-docs", "app* lib skin")?;
    // What is excluded is no dependency either: the other one holds.
    world.gives("", "app\n-lib\n-skin\n-docs", "app* otherlib")?;
    world.gives("", "/usr/bin/app\n-skin\n-docs", "app* lib")?;
    world.gives("", "app-1\n-skin", "app*")?;
    world.gives("", "@tools\n-skin\n-docs", "app* games* lib")?;
    world.gives("", "@tools --nodefaults\n-skin\n-docs", "app* lib")?;
    world.gives("", "@^lab\n-@games\n-skin\n-docs", "app* games* lib")?;
    world.gives("", "@games\n@tools\n-@tools", "games*")?;
    world.gives("", "kernel*\n-kernel-lt", "kernel* kernel-core*")?;
    world.gives("", "kernel-lt", "kernel-lt*")?;
    world.gives("", "reader", "data reader*")?;
    world.gives("", "fan", "data fan*")?;
    world.gives("--exclude-weakdeps", "fan", "fan*")?;
    world.gives("", "/usr/share/data/words", "data*")?;
    world.gives("", "both\ngames", "both* games*")?;
    world.gives("--multilib", "both\ngames", "both* both* games*")?;
    Ok(())
}

/// `packages.manifest.yaml` of packages with these names and versions; `more` are further lines of each.
fn manifest(entries: &[(&str, &str, &str)]) -> String {
    let entry = |(name, version, more): &(&str, &str, &str)| {
        format!(
            "        - name: {name}\n          repo_id: elsewhere\n          evr: {version}-1\n{more}"
        )
    };
    let entries: String = entries.iter().map(entry).collect();
    format!(
        "document: rpm-package-manifest\nversion: 0.2.0\ndata:\n    packages:\n      noarch:\n{entries}"
    )
}

fn pinnable(dir: &Path) -> Result<World, Failed> {
    let packages = [
        Rpm::new("app", "1").tag("Requires: lib"),
        Rpm::new("app", "2").tag("Requires: lib"),
        Rpm::new("lib", "1"),
        Rpm::new("lib", "2"),
        Rpm::new("docs", "1"),
    ];
    World::new(dir, &packages, None)
}

/// What PyYAML reads in a manifest: a line of what it is and its repositories, then one for each package.
const READ: &str = "import sys, yaml
d = yaml.safe_load(open(sys.argv[1]))
print(d['document'], d['version'], *(r['id'] + ' ' + r['baseurl'] for r in d['data']['repositories']))
for a, ps in d['data']['packages'].items():
  for p in ps: print(a, p['name'], p['repo_id'], p['evr'], p['size'], p['checksum'], p['location'])";

/// A manifest of dnf's pins versions; one that Kiln writes says what the lock says.
fn manifests(dir: &Path) -> Outcome {
    let world = pinnable(dir)?;
    // As published examples have them: a sum that proves nothing, and no size.
    let sha1 = "          checksum: sha1:00\n          size: 0\n";
    let pins = manifest(&[("app", "1", sha1), ("lib", "1", ""), ("docs", "1", "")]);
    let solved = |pins: &str| world.solve_pinned("", "app", Some(pins))?.map_err(told);
    let (chosen, warnings, text) = solved(&pins)?;
    let names = chosen.iter().map(|p| format!("{} {}", p.name, p.version));
    is(
        &names.collect::<Vec<_>>().join(", "),
        "app 1-1, docs 1-1, lib 1-1",
    )?;
    has(
        &warnings.join("; "),
        &["pins.yaml has no SHA-256 of 3 of its 3 packages"],
    )?;
    let (again, warnings, _) = solved(&text)?;
    is(
        &format!("{again:?} {warnings:?}"),
        &format!("{chosen:?} []"),
    )?;
    std::fs::write(dir.join("written.yaml"), &text)?;
    let mut python = Command::new("python3");
    let read = tool(python.args(["-c", READ]).arg(dir.join("written.yaml")))?;
    let url = format!("file://{}", dir.join("repository").display());
    let mut expected = format!("rpm-package-manifest 0.2.0 test {url}\n");
    for p in &chosen {
        let location = p.url.strip_prefix(&format!("{url}/")).ok_or("a place")?;
        expected += &format!(
            "noarch {} test {} {} sha256:{} {location}\n",
            p.name, p.version, p.size, p.sha256
        );
    }
    is(&read, &expected)
}

/// What a manifest says of packages is compared with the metadata, and never believed.
fn wrong_manifests(dir: &Path) -> Outcome {
    let world = pinnable(dir)?;
    let refused = |lines: &str, pins: &str, words: &[&str]| match world.solve_pinned(
        "",
        lines,
        Some(pins),
    )? {
        Ok(chosen) => Err(Failed::from(format!("{chosen:?}"))),
        Err(error) => {
            let kind = error.kind == ErrorKind::Definition;
            let said = format!("{kind} {error} {:?} {:?}", error.origin, error.others);
            has(&said, words)
        }
    };
    let wrong = |name: &str, more: &str| manifest(&[(name, "1", more), ("lib", "1", "")]);
    let sum = format!("          checksum: sha256:{}\n", "0".repeat(64));
    refused(
        "app",
        &wrong("app", &sum),
        &[
            "true",
            "pins.yaml cannot be used",
            "app-1-1.noarch has the SHA-256 000",
            "the metadata of test has",
        ],
    )?;
    refused(
        "app",
        &wrong("app", "          size: 9\n"),
        &["true", "app-1-1.noarch has 9 bytes"],
    )?;
    refused(
        "app",
        &wrong("lost", ""),
        &["true", "it pins lost-1-1.noarch, which no repository has"],
    )?;
    refused(
        "app",
        "packages: []\n",
        &["true", "pins.yaml is no package manifest"],
    )?;
    // What is asked for, or needed, has to be in it.
    let both = manifest(&[("app", "1", ""), ("lib", "1", "")]);
    refused("docs", &both, &["true", "lab.ks:3", "`docs`"])?;
    let one = manifest(&[("app", "1", "")]);
    let words = ["true", "lab.ks:3", "package app-1-1.noarch requires lib"];
    refused("app", &one, &words)
}

const MODULES: &str = r#"---
document: modulemd
version: 2
data:
  name: node
  stream: "18"
  version: 1
  context: c0
  arch: x86_64
  summary: x
  description: x
  license: {module: [MIT]}
  dependencies: [{requires: {platform: [el9]}}]
  profiles:
    common: {rpms: [node, npm]}
    minimal: {rpms: [node]}
  artifacts:
    rpms: ["node-0:18-1.noarch", "npm-0:18-1.noarch"]
...
---
document: modulemd
version: 2
data:
  name: node
  stream: "20"
  version: 1
  context: c1
  arch: x86_64
  summary: x
  description: x
  license: {module: [MIT]}
  dependencies: [{requires: {platform: [el9]}}]
  profiles:
    minimal: {rpms: [node]}
  artifacts:
    rpms: ["node-0:20-1.noarch"]
...
---
document: modulemd
version: 2
data:
  name: lonely
  stream: "1"
  version: 1
  context: c2
  arch: x86_64
  summary: x
  description: x
  license: {module: [MIT]}
  dependencies: [{requires: {platform: [el9]}}]
  artifacts:
    rpms: ["lonely-0:1-1.noarch"]
...
---
document: modulemd-defaults
version: 1
data:
  module: node
  stream: "18"
  profiles:
    "18": [common]
...
"#;

/// What is said of streams and profiles that are not there.
const NO_STREAMS: &[(&str, &[&str])] = &[
    (
        "@nodo:18",
        &[
            "lab.ks:3: module `nodo` does not exist",
            "did you mean node?",
        ],
    ),
    (
        "@node:19",
        &[
            "lab.ks:3: stream `@node:19` does not exist",
            "@node:18, @node:20",
        ],
    ),
    (
        "@node:18/server",
        &[
            "lab.ks:3: profile `@node:18/server` does not exist",
            "@node:18/minimal",
        ],
    ),
    (
        "@node:20",
        &[
            "lab.ks:3: default profile of `@node:20` does not exist",
            "@node:20/minimal",
        ],
    ),
    (
        "@lonely",
        &[
            "lab.ks:3: default stream of the module `lonely`",
            "@lonely:1",
        ],
    ),
    (
        "@lonely:1",
        &[
            "lab.ks:3: default profile of `@lonely:1`",
            "has no profiles",
        ],
    ),
    (
        "@node:18\n@node:20/minimal",
        &["lab.ks:4: ", "streams of one module", "lab.ks:3"],
    ),
    (
        "node\n-@node:18",
        &["lab.ks:4: `-@node:18` is not supported"],
    ),
];

fn modules(dir: &Path) -> Outcome {
    let packages = [
        Rpm::new("node", "18"),
        Rpm::new("node", "20"),
        Rpm::new("node", "22"),
        Rpm::new("npm", "18"),
        Rpm::new("lonely", "1"),
    ];
    let world = World::new(dir, &packages, None)?;
    let file = dir.join("modules.yaml");
    std::fs::write(&file, MODULES)?;
    let mut modifyrepo = Command::new("modifyrepo_c");
    modifyrepo.args(["--mdtype", "modules"]).arg(&file);
    tool(modifyrepo.arg(dir.join("repository/repodata")))?;
    let versions = |lines: &str, expected: &[(&str, &str)]| {
        let chosen = world.solve("", lines)?.map_err(told)?;
        let asked = chosen.iter().all(|p| !p.auto && p.layer == "lab");
        let found: BTreeMap<&str, &str> = chosen
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str()))
            .collect();
        let expected: BTreeMap<&str, &str> = expected.iter().copied().collect();
        is(&format!("{asked} {found:?}"), &format!("true {expected:?}"))
    };
    // The default stream hides what is newer and in no module.
    versions("node", &[("node", "18-1")])?;
    versions("@node", &[("node", "18-1"), ("npm", "18-1")])?;
    versions("@node:18", &[("node", "18-1"), ("npm", "18-1")])?;
    versions("@node:18\n-npm", &[("node", "18-1")])?;
    versions("@node:18/minimal", &[("node", "18-1")])?;
    versions("@node:20/minimal", &[("node", "20-1")])?;
    NO_STREAMS
        .iter()
        .try_for_each(|(lines, words)| world.refuses(lines, words))
}

/// Conflicts, exclusions that block, what nobody provides, environments with a group that is not there.
fn refusals(dir: &Path) -> Outcome {
    let packages = [
        Rpm::new("app", "1").tag("Requires: lib"),
        Rpm::new("lib", "1"),
        Rpm::new("games", "1"),
        Rpm::new("enemy", "1").tag("Conflicts: app"),
        Rpm::new("orphan", "1").tag("Requires: never >= 2"),
        Rpm::new("seeker", "1").tag("Requires: /usr/share/never"),
    ];
    let world = World::new(dir, &packages, Some(COMPS))?;
    let refused: &[(&str, &[&str])] = &[
        (
            "app\nenemy",
            &[
                "lab.ks:3: ",
                "cannot be installed together",
                "conflicts with app",
                "`enemy` is asked for by layer lab at lab.ks:4",
            ],
        ),
        (
            "app\n-lib",
            &[
                "lab.ks:3: ",
                "package lib-1-1.noarch is filtered out by exclude filtering",
                "`lib` is excluded at lab.ks:4",
            ],
        ),
        (
            "games\norphan",
            &["lab.ks:4: ", "nothing provides never >= 2 needed by orphan"],
        ),
        (
            "seeker",
            &["lab.ks:3: ", "nothing provides /usr/share/never"],
        ),
        (
            "@^broken",
            &[
                "lab.ks:3: group `@lost`, which the environment `@^broken` is made of, does not exist",
            ],
        ),
        (
            "@^labs",
            &[
                "lab.ks:3: environment `@^labs` does not exist",
                "did you mean lab?",
            ],
        ),
        ("app-9", &["lab.ks:3: package `app-9` does not exist"]),
    ];
    refused
        .iter()
        .try_for_each(|(lines, words)| world.refuses(lines, words))
}
