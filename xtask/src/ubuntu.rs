//! `cargo xtask ubuntu`: an image of Ubuntu from an archive in Ubuntu's layout, which is made of Debian's packages and served on the
//! loopback interface, and that image booted and judged from inside. It shows what Kiln does with such an archive, not what the
//! packages of the real one do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::mirror::Mirror;
use crate::peer::{afresh, trouble};
use crate::{Result, process, workspace};

/// Under emulation, on a busy machine.
const BOOT_SECONDS: &str = "1500";
const SETS: &str = "xtask/sets/ubuntu";

/// What the command line says.
struct Options {
    /// A `kiln` that is built already.
    kiln: Option<PathBuf>,
    /// `bios`, `uefi` or both.
    firmware: Vec<String>,
}

/// Makes the archive, builds from it, and boots.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    let programs = programs(options.kiln)?;
    let work = workspace::target_directory()?.join("ubuntu");
    let archive = archive(&programs, &work)?;
    let (_mirror, url) = Mirror::serve(&programs.mirror, &archive)?;
    let image = build(&programs.kiln, &work, &archive, &url)?;
    for firmware in &options.firmware {
        boot(&programs.kiln, &work, &image, firmware)?;
    }
    Ok(())
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        kiln: None,
        firmware: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match *word {
            "--kiln" => options.kiln = Some(value()?.into()),
            "--firmware" => options.firmware.push((*value()?).to_owned()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.firmware.is_empty() {
        options.firmware = vec!["bios".to_owned(), "uefi".to_owned()];
    }
    Ok(options)
}

/// Where the programs are that this needs.
struct Programs {
    kiln: PathBuf,
    generator: PathBuf,
    mirror: PathBuf,
}

fn programs(kiln: Option<PathBuf>) -> Result<Programs> {
    let mut build = workspace::cargo();
    build.args(["build", "--locked", "--workspace", "--bin", "kiln-ubuntu"]);
    build.args(["--bin", "kiln-mirror", "--bin", "kiln"]);
    process::run(&mut build)?;
    let built = workspace::target_directory()?.join("debug");
    Ok(Programs {
        kiln: kiln.unwrap_or_else(|| built.join("kiln")),
        generator: built.join("kiln-ubuntu"),
        mirror: built.join("kiln-mirror"),
    })
}

/// Kiln with what all runs share.
fn kiln(program: &Path, work: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--cache-dir").arg(work.join("cache"));
    command.arg("--state-dir").arg(work.join("state"));
    command
}

/// A definition of the files in `xtask/sets/ubuntu`.
fn definition(place: &Path, layers: &[&str], rest: &str) -> Result<()> {
    afresh(place)?;
    for name in layers {
        let from = workspace::root().join(SETS).join(name);
        fs::copy(&from, place.join(name)).map_err(trouble("copying", &from))?;
    }
    let text = format!("name = \"ubuntu\"\nlayers = {layers:?}\n{rest}");
    let file = place.join("kiln.toml");
    fs::write(&file, text).map_err(trouble("writing", &file))
}

/// Fetches Debian's packages and makes the archive of them.
fn archive(programs: &Programs, work: &Path) -> Result<PathBuf> {
    let (debian, vendor, archive) = (work.join("debian"), work.join("vendor"), work.join("noble"));
    // What Ubuntu's images have instead of the packages of Debian's.
    let rest = "distribution = \"debian:bookworm\"\n[system]\nwithout = [\"busybox\"]\nadd = [\"busybox-static\"]\n";
    definition(&debian, &["lab.ks", "debian.ks"], rest)?;
    afresh(&vendor)?;
    afresh(&archive)?;
    let mut lock = kiln(&programs.kiln, work);
    lock.arg("lock").arg("--vendor").arg(&vendor).arg(&debian);
    process::output(&mut lock)?;
    let mut generator = Command::new(&programs.generator);
    generator.arg(vendor.join("packages")).arg(&archive);
    let count = process::output(&mut generator)?;
    println!("== an archive of {} packages", count.trim());
    Ok(archive)
}

/// Locks and builds, as Ubuntu; returns the disk.
fn build(program: &Path, work: &Path, archive: &Path, url: &str) -> Result<PathBuf> {
    let (place, output) = (work.join("ubuntu"), work.join("output"));
    let suite = |suffix: &str| {
        format!(
            "[[repository]]\nurl = \"{url}\"\nsuite = \"noble{suffix}\"\nsigned-by = \"key.asc\"\n\
             components = [\"main\", \"restricted\", \"universe\", \"multiverse\"]\n"
        )
    };
    let suites = ["", "-updates", "-security"].map(suite).concat();
    let rest = format!(
        "distribution = \"ubuntu:noble\"\n[system]\nno-default-repositories = true\n{suites}"
    );
    definition(&place, &["lab.ks", "noble.ks"], &rest)?;
    let (from, to) = (archive.join("key.asc"), place.join("key.asc"));
    fs::copy(&from, to).map_err(trouble("copying", &from))?;
    process::output(kiln(program, work).arg("lock").arg(&place))?;
    afresh(&output)?;
    let began = Instant::now();
    let mut command = kiln(program, work);
    command.args(["build", "--locked", "--format", "raw", "-o"]);
    process::output(command.arg(&output).arg(&place))?;
    println!("== built in {:.0} s", began.elapsed().as_secs_f64());
    Ok(output.join("disk.raw"))
}

/// Boots with a firmware, and asks the running system.
fn boot(program: &Path, work: &Path, image: &Path, firmware: &str) -> Result<()> {
    let verdict = work.join(format!("boot-{firmware}"));
    afresh(&verdict)?;
    let mut command = kiln(program, work);
    command.args(["test", "--timeout", BOOT_SECONDS, "--expect", "login"]);
    command.args(["--firmware", firmware, "--script"]);
    command.arg(workspace::root().join(SETS).join("judge.sh"));
    let ended = process::output(command.arg("-o").arg(&verdict).arg(image));
    let report = verdict.join("boot.json");
    let report: Value = fs::read_to_string(&report)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let said = report["script"]["output"].as_str().unwrap_or_default();
    ended.map_err(|error| format!("{error}\n{said}"))?;
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    println!(
        "== login after {seconds:.0} s ({firmware}), {}",
        said.trim()
    );
    Ok(())
}
