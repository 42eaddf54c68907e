//! What a build's step on a server may ask of Kiln: the commands that read a definition and write below it. A step's words are
//! parsed as every command line is, and put together again from what was understood.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, FromArgMatches, ValueEnum};
use kiln_server::commands::{Commands, Find};

use crate::args::{Accel, Bus, Expect, Firmware, ImageFormat, Network};
use crate::args::{
    BuildArgs, CheckArgs, Cli, Command, DefinitionArgs, FlattenArgs, Global, Layout, LockArgs,
    LogFormat, PlanArgs, ScriptNetwork, SharedArgs, TestArgs,
};

/// MiB of a step's machine at most.
const MOST_MEMORY: u32 = 4096;

/// Kiln's command line, for steps.
pub(crate) struct Steps;

impl Commands for Steps {
    fn read(&self, args: &[String], threads: u32, find: Find<'_>) -> Result<Vec<OsString>, String> {
        let mut words = vec!["kiln"];
        // As the builder image takes it: a kickstart is built.
        if args
            .first()
            .is_some_and(|first| first.ends_with(".ks") && !first.starts_with('-'))
        {
            words.push("build");
        }
        words.extend(args.iter().map(String::as_str));
        let parsed = Cli::command()
            .try_get_matches_from(words)
            .and_then(|matches| Cli::from_arg_matches(&matches));
        let cli = parsed.map_err(|error| {
            let text = error.render().to_string();
            let line = text
                .lines()
                .next()
                .unwrap_or("")
                .trim_start_matches("error: ");
            format!("kiln does not understand it: {line}")
        })?;
        let mut line = Line {
            words: Vec::new(),
            find,
        };
        line.global(&cli.global)?;
        match &cli.command {
            Command::Build(args) => line.build(args, threads)?,
            Command::Plan(args) => line.plan(args)?,
            Command::Lock(args) => line.lock(args)?,
            Command::Check(args) => line.check(args)?,
            Command::Flatten(args) => line.flatten(args)?,
            Command::Test(args) => line.test(args, threads)?,
            _ => {
                let can = "a step can build, plan, lock, check, flatten and test, nothing else";
                return Err(can.to_owned());
            }
        }
        Ok(line.words)
    }
}

struct Line<'a> {
    words: Vec<OsString>,
    find: Find<'a>,
}

impl Line<'_> {
    fn word(&mut self, word: impl Into<OsString>) {
        self.words.push(word.into());
    }

    fn flag(&mut self, name: &str, given: bool) {
        if given {
            self.word(name);
        }
    }

    /// `--name=value` as one word, so that no value is taken for an option.
    fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.word(format!("{name}={value}"));
        }
    }

    fn path(&mut self, path: &Path) -> Result<(), String> {
        let found = (self.find)(path)?;
        self.word(found);
        Ok(())
    }

    fn paths(&mut self, name: &str, paths: &[PathBuf]) -> Result<(), String> {
        for path in paths {
            self.word(name);
            self.path(path)?;
        }
        Ok(())
    }

    fn global(&mut self, global: &Global) -> Result<(), String> {
        if [&global.cache_dir, &global.state_dir, &global.config_dir]
            .iter()
            .any(|dir| dir.is_some())
        {
            return Err(
                "the server decides about --cache-dir, --state-dir and --config-dir".to_owned(),
            );
        }
        self.flag("--log-format=json", global.log_format == LogFormat::Json);
        // The log has every line, unless the step says otherwise.
        self.word(if global.quiet { "--quiet" } else { "--verbose" });
        Ok(())
    }

    fn definition(&mut self, args: &DefinitionArgs) -> Result<(), String> {
        self.path(&args.definition)?;
        self.option("--profile", args.profile.as_deref());
        self.option("--distribution", args.distribution.as_deref());
        let layout = args.layout.map(|layout| match layout {
            Layout::Gpt => "gpt",
            Layout::Mbr => "mbr",
        });
        self.option("--layout", layout);
        self.paths("--include-path", &args.include_path)
    }

    fn build(&mut self, args: &BuildArgs, threads: u32) -> Result<(), String> {
        let SharedArgs {
            shared_cache,
            shared_cache_mode,
            shared_cache_key,
        } = &args.shared;
        if shared_cache.is_some() || shared_cache_mode.is_some() || shared_cache_key.is_some() {
            return Err("the server decides about the shared cache".to_owned());
        }
        if args.plain_unpacking {
            return Err("--plain-unpacking is no option of steps".to_owned());
        }
        self.word("build");
        self.definition(&args.definition)?;
        self.paths("--output", std::slice::from_ref(&args.output))?;
        let formats = args.format.join(",");
        self.option("--format", (!formats.is_empty()).then_some(&formats));
        self.flag("--offline", args.offline);
        self.flag("--locked", args.locked);
        self.flag("--allow-unsigned-lock", args.allow_unsigned_lock);
        match args.network {
            ScriptNetwork::Own => {}
            ScriptNetwork::None => self.word("--network=none"),
            ScriptNetwork::Host => {
                return Err(
                    "scripts of a server's builds do not reach its network: --network host"
                        .to_owned(),
                );
            }
        }
        self.paths("--vendor", args.vendor.as_slice())?;
        let threads = args.jobs.unwrap_or(threads).to_string();
        self.option("--jobs", Some(&threads));
        Ok(())
    }

    fn plan(&mut self, args: &PlanArgs) -> Result<(), String> {
        self.word("plan");
        self.definition(&args.definition)?;
        self.flag("--json", args.json);
        Ok(())
    }

    fn lock(&mut self, args: &LockArgs) -> Result<(), String> {
        self.word("lock");
        self.definition(&args.definition)?;
        self.paths("--vendor", args.vendor.as_slice())?;
        self.flag("--keep-metadata", args.keep_metadata);
        self.paths("--manifest", args.manifest.as_slice())?;
        self.paths("--from-manifest", args.from_manifest.as_slice())?;
        self.flag("--offline", args.offline);
        Ok(())
    }

    /// Without the network: what an address holds would be printed.
    fn check(&mut self, args: &CheckArgs) -> Result<(), String> {
        self.word("check");
        for file in &args.files {
            self.path(file)?;
        }
        self.option("--version", args.version.as_deref());
        self.flag("--json", args.json);
        self.flag("--followincludes", args.follow_includes);
        self.word("--offline");
        self.paths("--include-path", &args.include_path)
    }

    /// Boots an image of the workspace. It is raw: what reads other formats believes what they say of other files, and another
    /// step can write while QEMU reads. The machine has no network but its own, and no more of this one than the build has.
    fn test(&mut self, args: &TestArgs, threads: u32) -> Result<(), String> {
        let machine = &args.machine;
        if machine
            .image_format
            .is_some_and(|format| format != ImageFormat::Raw)
        {
            return Err("a step tests raw images only: output/disk.raw".to_owned());
        }
        if machine.network == Network::Host {
            return Err(
                "machines of a server's builds do not reach its network: --network host".to_owned(),
            );
        }
        if args.script.is_some() {
            return Err("--script is no option of steps".to_owned());
        }
        if machine.memory > MOST_MEMORY {
            return Err(format!(
                "a step's machine has at most {MOST_MEMORY} MiB of memory"
            ));
        }
        self.word("test");
        self.path(&machine.image)?;
        self.word("--image-format=raw");
        self.option(
            "--firmware",
            chosen(machine.firmware, &Firmware::default()).as_deref(),
        );
        self.option(
            "--accel",
            chosen(machine.accel, &Accel::default()).as_deref(),
        );
        self.option("--bus", chosen(machine.bus, &Bus::default()).as_deref());
        self.option(
            "--network",
            chosen(machine.network, &Network::default()).as_deref(),
        );
        self.option(
            "--expect",
            chosen(args.expect, &Expect::default()).as_deref(),
        );
        self.option("--memory", Some(&machine.memory.to_string()));
        let processors = machine.cpus.unwrap_or(2).min(threads.max(1));
        self.option("--cpus", Some(&processors.to_string()));
        for argument in &machine.append {
            self.option("--append", Some(argument));
        }
        self.flag("--allow-failed-units", args.allow_failed_units);
        let timeout = args.timeout.map(|seconds| seconds.to_string());
        self.option("--timeout", timeout.as_deref());
        self.flag("--json", args.json);
        self.paths("--output", std::slice::from_ref(&args.output))
    }

    /// Without the network, as [`Line::check`].
    fn flatten(&mut self, args: &FlattenArgs) -> Result<(), String> {
        self.word("flatten");
        self.path(&args.file)?;
        self.paths("--include-path", &args.include_path)?;
        self.word("--offline");
        self.option("--version", args.version.as_deref());
        Ok(())
    }
}

/// The word of a choice that is not the one that is made without it.
fn chosen<T: ValueEnum + PartialEq>(choice: T, default: &T) -> Option<String> {
    let value = (choice != *default).then(|| choice.to_possible_value())??;
    Some(value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut find =
            |path: &Path| Ok(Path::new("/w").join(path.strip_prefix("/workspace").unwrap_or(path)));
        let words = Steps.read(&args, 2, &mut find)?;
        let words: Vec<String> = words
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        Ok(words.join(" "))
    }

    #[test]
    fn paths_are_found_and_choices_kept() {
        for (args, expected) in [
            (
                &["/workspace/lab.ks"][..],
                "--verbose build /w/lab.ks --output /w/output --jobs=2",
            ),
            (
                &[
                    "build",
                    "lab",
                    "-o",
                    "x",
                    "--offline",
                    "-j1",
                    "--format",
                    "raw,qcow2",
                    "--distribution=debian:bookworm",
                ],
                "--verbose build /w/lab --distribution=debian:bookworm --output /w/x --format=raw,qcow2 --offline --jobs=1",
            ),
            (
                &["check", "-q", "a.ks", "b.ks"],
                "--quiet check /w/a.ks /w/b.ks --offline",
            ),
            (
                &["flatten", "a.ks", "--include-path", "inc"],
                "--verbose flatten /w/a.ks --include-path /w/inc --offline",
            ),
            (&["plan", ".", "--json"], "--verbose plan /w/. --json"),
            (
                &["lock", "a.ks", "--vendor", "v"],
                "--verbose lock /w/a.ks --vendor /w/v",
            ),
            (
                &["test", "output/disk.raw"],
                "--verbose test /w/output/disk.raw --image-format=raw --memory=2048 --cpus=2 --output /w/output",
            ),
            (
                &[
                    "test",
                    "output",
                    "--firmware",
                    "uefi",
                    "--cpus=64",
                    "--append=-x",
                    "--expect=login",
                    "--timeout=60",
                    "-o",
                    "seen",
                ],
                "--verbose test /w/output --image-format=raw --firmware=uefi --expect=login --memory=2048 --cpus=2 --append=-x --timeout=60 --output /w/seen",
            ),
        ] {
            assert_eq!(read(args).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_steps_may_not_say_is_refused() {
        for (args, expected) in [
            (&["serve"][..], "nothing else"),
            (&["build", "a.ks", "--cache-dir", "/x"], "--cache-dir"),
            (&["build", "a.ks", "--network", "host"], "--network host"),
            (
                &["build", "a.ks", "--shared-cache", "file:///x"],
                "the shared cache",
            ),
            (&["test", "x", "--image-format", "qcow2"], "raw images only"),
            (&["test", "x", "--network", "host"], "--network host"),
            (&["test", "x", "--script", "s"], "--script"),
            (&["test", "x", "--memory", "999999"], "4096 MiB"),
            (&["boot", "x"], "nothing else"),
            (&["bild"], "unrecognized subcommand 'bild'"),
            (&[], "does not understand"),
            (&["--version"], "does not understand"),
        ] {
            let error = read(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
