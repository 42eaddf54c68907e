//! `cargo xtask rpm-kickstarts`: live kickstarts in the manner of those that Fedora, AlmaLinux and Rocky Linux publish, built against the
//! distribution that `cargo xtask rpm-distribution` makes, and some of them booted and judged from inside.
//!
//! The files are `xtask/sets/rpm`; the repository is served on the loopback interface, with a mirror list, at the place where
//! `$releasever` and `$basearch` lead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::distribution;
use crate::mirror::Mirror;
use crate::peer::{afresh, trouble};
use crate::{Result, prerequisites, process, workspace};

/// Under emulation, on a busy machine.
const BOOT_SECONDS: &str = "1500";
const SETS: &str = "xtask/sets/rpm";

/// A kickstart, and what must come of it.
struct Case {
    name: &'static str,
    /// Packages that the image has, and that it has not.
    has: &'static [&'static str],
    lacks: &'static [&'static str],
    /// What is waited for at a boot, and asked of the running system.
    boot: Option<(&'static str, &'static str)>,
    /// The file of an example, and its disk's layout. Its repository, language and services are replaced, packages that are missing passed over.
    example: Option<(&'static str, &'static str)>,
}

/// The live session's account was made at boot, and nobody else's.
const LIVE_USER: &str =
    "set -e; id liveuser; id -nG liveuser | grep -qw wheel; test -e /.liveimg-configured";
/// It was logged in, too.
const LIVE_SESSION: &str =
    "set -e; id liveuser; test -e /.liveimg-configured; pgrep -u liveuser xfce4-session";

const CASES: &[Case] = &[
    Case {
        name: "base",
        has: &[
            "nano",
            "livesys-scripts",
            "firewalld",
            "selinux-policy-targeted",
        ],
        lacks: &["linux-firmware", "thunar"],
        boot: None,
        example: None,
    },
    Case {
        name: "workstation",
        has: &["xfce4-session", "livesys-scripts", "fonts-dejavu-core"],
        lacks: &["xfce4-terminal"],
        boot: Some(("desktop", LIVE_SESSION)),
        example: None,
    },
    Case {
        name: "kde",
        has: &["greeter-polite", "xfce4-session"],
        lacks: &["linux-firmware"],
        boot: None,
        example: None,
    },
    Case {
        name: "xfce",
        has: &["xfce4-terminal", "livesys-scripts"],
        lacks: &[],
        boot: None,
        example: None,
    },
    Case {
        name: "lxqt",
        has: &["xfwm4", "thunar"],
        lacks: &["xfce4-panel"],
        boot: None,
        example: None,
    },
    Case {
        name: "cinnamon",
        has: &["chkconfig", "xfce4-session"],
        lacks: &["livesys-scripts"],
        boot: Some(("desktop", LIVE_SESSION)),
        example: None,
    },
    Case {
        name: "i3",
        has: &["xfwm4", "lightdm"],
        lacks: &["xfce4-session"],
        boot: None,
        example: None,
    },
    Case {
        name: "alma-live",
        has: &["xfce4-session", "firewalld"],
        lacks: &["nano"],
        boot: None,
        example: None,
    },
    Case {
        name: "rocky-live",
        has: &["sudo", "initscripts"],
        lacks: &["lightdm"],
        boot: Some(("login", LIVE_USER)),
        example: None,
    },
    Case {
        name: "mate",
        has: &["xfce4-panel", "livesys-scripts"],
        lacks: &["xfce4-terminal"],
        boot: None,
        example: None,
    },
    Case {
        name: "centos8-lab",
        has: &["xfce4-session", "lightdm"],
        lacks: &["livesys-scripts"],
        boot: Some(("desktop", "pgrep -u contestant xfce4-session")),
        example: Some(("centos8-lab/centos8.ks", "mbr")),
    },
    Case {
        name: "fedora-live",
        has: &[
            "xfce4-session",
            "livesys-scripts",
            "firewalld",
            "selinux-policy-targeted",
        ],
        lacks: &[],
        boot: None,
        example: Some(("fedora-live.ks", "gpt")),
    },
];

const USAGE: &str = "usage: cargo xtask rpm-kickstarts [--kiln FILE] [--distribution DIR] [--user NAME] [--no-boot] [NAME...]";

/// What the command line says.
#[derive(Default)]
struct Options {
    /// A `kiln` that is built already.
    kiln: Option<PathBuf>,
    /// What `rpm-distribution --set desktop` made.
    distribution: Option<PathBuf>,
    /// Somebody who is not root and has subordinate ids.
    user: Option<String>,
    only_built: bool,
    names: Vec<String>,
}

/// Builds all of them, or those that are named.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--locked", "--workspace"]);
    build.args(["--bin", "kiln-mirror"]);
    if options.kiln.is_none() {
        build.args(["--bin", "kiln"]);
    }
    process::run(&mut build)?;
    let target = workspace::target_directory()?;
    let work = target.join("rpm-kickstarts");
    let distribution = match &options.distribution {
        Some(directory) => directory.clone(),
        None => {
            let place = work.join("distribution");
            prerequisites::install()?;
            distribution::make("desktop", &place)?;
            place
        }
    };
    let tree = tree(&work, &distribution)?;
    let (_mirror, url) = Mirror::serve(&target.join("debug/kiln-mirror"), &tree)?;
    let url = url.trim_end_matches('/').to_owned();
    let list = tree.join("mirrorlist-9-x86_64");
    write(&list, &format!("{url}/9/x86_64/os/\n"))?;
    let kiln = options.kiln.clone();
    let runner = Runner {
        kiln: kiln.unwrap_or_else(|| target.join("debug/kiln")),
        key: distribution.join("RPM-GPG-KEY-kindling"),
        options,
        work,
        url,
    };
    CASES
        .iter()
        .filter(|case| runner.is_asked_for(case))
        .try_for_each(|case| runner.case(case))
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("{word} needs a value\n{USAGE}"))
        };
        match word {
            "--kiln" => options.kiln = Some(value()?.into()),
            "--distribution" => options.distribution = Some(value()?.into()),
            "--user" => options.user = Some((*value()?).to_owned()),
            "--no-boot" => options.only_built = true,
            name if CASES.iter().any(|case| case.name == name) => {
                options.names.push(name.to_owned())
            }
            other => return Err(format!("{other} is no option and no kickstart\n{USAGE}")),
        }
    }
    Ok(options)
}

/// A directory to serve, where the repository is at its release's and architecture's place.
fn tree(work: &Path, distribution: &Path) -> Result<PathBuf> {
    let tree = work.join("served");
    afresh(&tree)?;
    let place = tree.join("9/x86_64");
    fs::create_dir_all(&place).map_err(trouble("making", &place))?;
    let mut copy = Command::new("cp");
    copy.arg("-a")
        .arg("--reflink=auto")
        .arg(distribution)
        .arg(place.join("os"));
    process::output(&mut copy)?;
    Ok(tree)
}

struct Runner {
    options: Options,
    kiln: PathBuf,
    key: PathBuf,
    work: PathBuf,
    url: String,
}

impl Runner {
    fn is_asked_for(&self, case: &Case) -> bool {
        let names = &self.options.names;
        names.is_empty() || names.iter().any(|name| name == case.name)
    }

    fn case(&self, case: &Case) -> Result<()> {
        let place = self.definition(case)?;
        let output = self.work.join("output").join(case.name);
        afresh(&output)?;
        self.give(&output)?;
        let began = Instant::now();
        let mut build = self.kiln();
        build.args(["build", "--format", "raw", "-o"]).arg(&output);
        process::output(build.arg(&place))?;
        println!(
            "== {}: built in {:.0} s",
            case.name,
            began.elapsed().as_secs_f64()
        );
        check(case, &output)?;
        match case.boot {
            Some((expected, script)) if !self.options.only_built => {
                self.boot(case.name, &output, expected, script)
            }
            _ => Ok(()),
        }
    }

    /// The kickstart and what it includes, with the server's address.
    fn definition(&self, case: &Case) -> Result<PathBuf> {
        let place = self.work.join("definitions").join(case.name);
        afresh(&place)?;
        match case.example {
            Some((file, layout)) => self.example(case.name, &place, file, layout)?,
            None => self.set(case.name, &place)?,
        }
        let to = place.join("key.asc");
        fs::copy(&self.key, to).map_err(trouble("copying", &self.key))?;
        self.give(&place)?;
        Ok(place)
    }

    fn set(&self, name: &str, place: &Path) -> Result<()> {
        let from = workspace::root().join(SETS);
        let files = fs::read_dir(&from).map_err(trouble("reading", &from))?;
        for file in files.flatten() {
            let text = read(&file.path())?;
            let text = text.replace("@URL@", &self.url).replace("NAME", name);
            write(&place.join(file.file_name()), &text)?;
        }
        Ok(())
    }

    fn example(&self, name: &str, place: &Path, file: &str, layout: &str) -> Result<()> {
        let text = read(&workspace::root().join("examples").join(file))?;
        let url = format!("url --url={}/$releasever/$basearch/os/\n", self.url);
        let lines = text.lines().map(|line| match line.split(' ').next() {
            Some("repo") => String::new(),
            Some("lang") => "lang C.UTF-8\n".to_owned(),
            Some("services") => "services --enabled=NetworkManager\n".to_owned(),
            Some("%packages") => format!("{line} --ignoremissing\n"),
            _ => format!("{line}\n"),
        });
        let text: String = std::iter::once(url).chain(lines).collect();
        write(&place.join(format!("{name}.ks")), &text)?;
        let toml = format!(
            "name = \"{name}\"\ndistribution = \"centos:9\"\nlayers = [\"{name}.ks\"]\n[disk]\nlayout = \"{layout}\"\n\
             [[repository]]\nname = \"url\"\nkey = \"key.asc\"\n[profile.dev]\ncompression = \"zstd:3\"\n"
        );
        write(&place.join("kiln.toml"), &toml)
    }

    /// Lets the user write where root has made a directory.
    fn give(&self, path: &Path) -> Result<()> {
        let Some(user) = &self.options.user else {
            return Ok(());
        };
        let mut chown = Command::new("chown");
        process::output(chown.arg("-R").arg(user).arg(path)).map(drop)
    }

    /// Kiln, as the user if one is said, whose layers are another store.
    fn kiln(&self) -> Command {
        let Some(user) = &self.options.user else {
            let mut command = Command::new(&self.kiln);
            command.arg("--cache-dir").arg(self.work.join("cache"));
            command.arg("--state-dir").arg(self.work.join("state"));
            return command;
        };
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            user,
            "--regid",
            user,
            "--init-groups",
            "--reset-env",
        ]);
        command.arg(&self.kiln);
        command
    }

    /// Boots, and asks the running system.
    fn boot(&self, name: &str, output: &Path, expected: &str, script: &str) -> Result<()> {
        let verdict = self.work.join(format!("boot-{name}"));
        afresh(&verdict)?;
        self.give(&verdict)?;
        let judge = verdict.join("judge.sh");
        write(&judge, script)?;
        let mut command = self.kiln();
        command.args(["test", "--timeout", BOOT_SECONDS, "--expect", expected]);
        command.arg("--script").arg(&judge).arg("-o").arg(&verdict);
        let ended = process::output(command.arg(output));
        let report = verdict.join("boot.json");
        let report: Value = fs::read_to_string(&report)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let said = report["script"]["output"].as_str().unwrap_or_default();
        ended.map_err(|error| format!("{error}\n{said}"))?;
        let seconds = report["seconds"].as_f64().unwrap_or_default();
        println!("== {name}: {expected} after {seconds:.0} s");
        Ok(())
    }
}

/// Looks for the packages in the image's manifest.
fn check(case: &Case, output: &Path) -> Result<()> {
    let path = output.join("manifest.json");
    let text = read(&path)?;
    let manifest: Value =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let packages = manifest["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let there = |name: &str| packages.iter().any(|package| package["name"] == name);
    let missing = case
        .has
        .iter()
        .filter(|name| !there(name))
        .map(|name| format!("{name} is missing"));
    let present = case
        .lacks
        .iter()
        .filter(|name| there(name))
        .map(|name| format!("{name} is there"));
    let wrong: Vec<String> = missing.chain(present).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{}: {}", case.name, wrong.join(", "))),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(trouble("reading", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(trouble("writing", path))
}
