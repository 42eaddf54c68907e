//! `cargo xtask rpm`: images of the generated RPM distribution, built in the ways that users build, and booted under each firmware. It
//! shows what Kiln does with such a distribution, not what the packages of a real one do.

mod build;
pub(crate) mod distribution;
pub(crate) mod dnf;
pub(crate) mod kickstarts;
mod secure;
pub(crate) mod served;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::peer::{afresh, trouble};
use crate::{Result, prerequisites, process, workspace};
use build::{Built, Way};
use served::Served;

/// Under emulation, on a busy machine.
const BOOT_SECONDS: &str = "1500";
pub(crate) const SETS: &str = "xtask/sets/rpm-boot";

/// A kickstart file of the set, how it is built, and how the image is booted.
struct Case {
    name: &'static str,
    kickstart: &'static str,
    way: Way,
    boots: &'static [Boot],
}

/// How an image is booted, and what is to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    Bios,
    /// By the menu's entry that reads the root into memory.
    Memory,
    Uefi,
    /// The firmware knows the key that signed GRUB.
    Secure,
    /// The firmware knows Microsoft's keys alone: GRUB is refused.
    SecureStranger,
    /// The firmware knows the key, but GRUB has no signature: it is refused.
    SecureUnsigned,
}

const CASES: &[Case] = &[
    Case {
        name: "console",
        kickstart: "console",
        way: Way::Root,
        boots: &[Boot::Bios],
    },
    Case {
        name: "console-no-path",
        kickstart: "console",
        way: Way::NoPath,
        boots: &[Boot::Uefi],
    },
    Case {
        name: "desktop",
        kickstart: "desktop",
        way: Way::Root,
        boots: &[
            Boot::Bios,
            Boot::Memory,
            Boot::Uefi,
            Boot::Secure,
            Boot::SecureStranger,
            Boot::SecureUnsigned,
        ],
    },
    Case {
        name: "desktop-user",
        kickstart: "desktop",
        way: Way::User,
        boots: &[Boot::Bios, Boot::Uefi],
    },
];

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// A `kiln` that is built already.
    kiln: Option<PathBuf>,
    /// Cases; all if none is named.
    cases: Vec<String>,
}

/// What all cases share.
struct Ground {
    kiln: PathBuf,
    work: PathBuf,
    served: Served,
    /// A firmware's variables with the distribution's key.
    variables: PathBuf,
}

/// Makes the distribution, builds from it, boots, and prints a table.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    let tools = prerequisites::install()?;
    let work = workspace::target_directory()?.join("rpm");
    let served = Served::new(&work)?;
    let variables = secure::variables(&tools, &served.made, &work)?;
    let ground = Ground {
        kiln: options.kiln.map_or_else(program, Ok)?,
        work,
        served,
        variables,
    };
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    let chosen =
        |case: &&Case| options.cases.is_empty() || options.cases.iter().any(|c| c == case.name);
    for case in CASES.iter().filter(chosen) {
        attempt(&ground, case, &mut rows, &mut failed);
    }
    println!("\n| image | built as | packages, time | firmware | seen |\n|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n")),
    }
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--kiln" => {
                let file = words.next().ok_or("--kiln needs a value")?;
                options.kiln = Some(file.into());
            }
            name if CASES.iter().any(|case| case.name == name) => {
                options.cases.push(name.to_owned());
            }
            other => {
                let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
                return Err(format!(
                    "there is no case {other}; there are {}",
                    names.join(", ")
                ));
            }
        }
    }
    Ok(options)
}

/// Compiles Kiln; returns where it is.
fn program() -> Result<PathBuf> {
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "--workspace", "--bin", "kiln"]);
    process::run(&mut build)?;
    Ok(workspace::target_directory()?.join("debug/kiln"))
}

/// Builds a case's image and boots it in all its ways, whatever comes of one.
fn attempt(ground: &Ground, case: &Case, rows: &mut Vec<String>, failed: &mut Vec<String>) {
    let built = match build::image(ground, case.name, case.kickstart, case.way) {
        Ok(built) => built,
        Err(reason) => {
            rows.push(format!(
                "| {} | {} | fails | | |",
                case.kickstart,
                case.way.name()
            ));
            return failed.push(format!("{}: {reason}", case.name));
        }
    };
    for boot in case.boots {
        let seen = start(ground, case, &built, *boot).unwrap_or_else(|reason| {
            println!("{reason}");
            failed.push(format!("{}, {boot:?}: {reason}", case.name));
            "fails".to_owned()
        });
        let row = format!(
            "| {} | {} | {}, {:.0} s | {} | {seen} |",
            case.kickstart,
            case.way.name(),
            built.packages,
            built.seconds,
            boot.name()
        );
        println!("{row}");
        rows.push(row);
    }
}

impl Boot {
    fn name(self) -> &'static str {
        match self {
            Boot::Bios => "BIOS",
            Boot::Memory => "BIOS, into memory",
            Boot::Uefi => "UEFI",
            Boot::Secure => "Secure Boot",
            Boot::SecureStranger => "Secure Boot, GRUB's key is not enrolled",
            Boot::SecureUnsigned => "Secure Boot, GRUB without a signature",
        }
    }

    fn firmware(self) -> &'static str {
        match self {
            Boot::Bios | Boot::Memory => "bios",
            Boot::Uefi => "uefi",
            Boot::Secure | Boot::SecureStranger | Boot::SecureUnsigned => "secure",
        }
    }

    fn is_refused(self) -> bool {
        matches!(self, Boot::SecureStranger | Boot::SecureUnsigned)
    }
}

/// Boots, asks the running system, and returns what was seen.
fn start(ground: &Ground, case: &Case, built: &Built, boot: Boot) -> Result<String> {
    let place = ground.work.join(format!("boot-{}-{boot:?}", case.name));
    afresh(&place)?;
    let mut image = built.disk.clone();
    if matches!(boot, Boot::Memory | Boot::SecureUnsigned) {
        image = place.join("changed.raw");
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"])
            .arg(&built.disk);
        process::output(copy.arg(&image))?;
        match boot {
            Boot::Memory => secure::choose_memory(&image, &place)?,
            _ => secure::strip(&image, &place)?,
        }
    }
    let mut command = match boot {
        Boot::Secure | Boot::SecureUnsigned => {
            secure::with_variables(&ground.kiln, &ground.variables)?
        }
        _ => Command::new(&ground.kiln),
    };
    command.arg("--state-dir").arg(ground.work.join("state"));
    command.args([
        "test",
        "--timeout",
        BOOT_SECONDS,
        "--firmware",
        boot.firmware(),
    ]);
    let expect = if case.kickstart == "desktop" {
        "desktop"
    } else {
        "login"
    };
    command.args(["--expect", expect, "--script"]);
    command.arg(workspace::root().join(SETS).join("judge.sh"));
    let ended = process::output(command.arg("-o").arg(&place).arg(&image));
    if image != built.disk {
        fs::remove_file(&image).map_err(trouble("removing", &image))?;
    }
    let report: Value = fs::read_to_string(place.join("boot.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    if boot.is_refused() {
        return refused(ended, &report);
    }
    let said = report["script"]["output"].as_str().unwrap_or_default();
    ended.map_err(|error| format!("{error}\n{said}"))?;
    judged(boot, expect, said, &report)
}

/// The machine must have stopped at GRUB, and for no other reason.
fn refused(ended: Result<String>, report: &Value) -> Result<String> {
    match (ended, report["reason"].as_str()) {
        (Err(_), Some("secure-boot")) => {
            let detail = report["detail"].as_str().unwrap_or_default();
            Ok(format!("refused: {detail}"))
        }
        (Ok(_), _) => Err("an image whose GRUB nobody vouches for was started".to_owned()),
        (Err(error), reason) => Err(format!("it ended for another reason ({reason:?}): {error}")),
    }
}

/// What only some boots must show.
fn judged(boot: Boot, expect: &str, said: &str, report: &Value) -> Result<String> {
    let has = |line: &str| said.lines().any(|said| said.trim() == line);
    let must: &[&str] = match boot {
        Boot::Secure => &["Secure Boot: 1"],
        Boot::Memory => &["in memory: yes"],
        _ => &[],
    };
    if let Some(lacks) = must.iter().find(|line| !has(line)) {
        return Err(format!("{lacks:?} is not what the system says:\n{said}"));
    }
    if expect == "desktop" && !has("home: ext4") {
        return Err(format!("/home is not its partition:\n{said}"));
    }
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    Ok(format!("{expect} after {seconds:.0} s, sound"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn cases_are_chosen_by_name() {
        let options = parse(&["desktop", "--kiln", "/k"]).unwrap();
        assert_eq!(options.cases, ["desktop"]);
        assert_eq!(options.kiln.as_deref(), Some(Path::new("/k")));
        assert!(parse(&["sarge"]).unwrap_err().contains("desktop-user"));
    }

    #[test]
    fn a_refusal_is_one_for_that_reason_alone() {
        let report = |reason: &str| serde_json::json!({"reason": reason, "detail": "no"});
        let failed = || Err("exit status: 4".to_owned());
        assert!(refused(failed(), &report("secure-boot")).is_ok());
        assert!(refused(failed(), &report("no-login")).is_err());
        assert!(refused(Ok(String::new()), &report("secure-boot")).is_err());
    }
}
