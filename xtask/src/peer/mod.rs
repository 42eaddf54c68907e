//! What comparisons with other tools share: Kiln's own binary, a copy of a definition, a repository of the very
//! packages that Kiln used, and `mmdebstrap` to install them.

pub(crate) mod definition;
pub(crate) mod disk;
mod leftovers;
pub(crate) mod mkosi;
pub(crate) mod mmdebstrap;
pub(crate) mod repository;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use leftovers::Leftovers;

use crate::prerequisites::search_path;
use crate::{Result, process, workspace};

/// What comes from the network, below a comparison's directory: the next run need not fetch it again.
pub(crate) const FETCHED: &[&str] = &["warm/downloads", "warm/metadata"];

/// What the command line of a comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The definition; each comparison has a default.
    pub(crate) definition: Option<PathBuf>,
    /// Kiln's binary; built if it is not given.
    pub(crate) kiln: Option<PathBuf>,
    /// A cache whose downloads are used, so that nothing is fetched twice.
    pub(crate) warm: Option<PathBuf>,
    /// Profile of a project.
    pub(crate) profile: Option<PathBuf>,
    /// Everything that the comparison made stays.
    pub(crate) keep: bool,
}

impl Options {
    /// `[--definition DEF | DEF] [--kiln FILE] [--warm CACHE] [--profile NAME] [--keep]`
    pub(crate) fn parse(words: &[&str]) -> Result<Options> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().map(PathBuf::from);
                value
                    .map(Some)
                    .ok_or_else(|| format!("{word} needs a value"))
            };
            match *word {
                "--definition" => options.definition = value()?,
                "--kiln" => options.kiln = value()?,
                "--warm" => options.warm = value()?,
                "--profile" => options.profile = value()?,
                "--keep" => options.keep = true,
                other if other.starts_with('-') => return Err(format!("unknown option {other}")),
                path if options.definition.is_none() => options.definition = Some(path.into()),
                more => return Err(format!("one definition is enough, {more} is a second")),
            }
        }
        Ok(options)
    }

    /// Clears `work` when the comparison ends. `kept` stays for this reason, and the packages if no other cache has them.
    pub(crate) fn leftovers(&self, work: &Path, kept: &[&str], reason: &'static str) -> Leftovers {
        if self.keep {
            return Leftovers::all(work);
        }
        let fetched: &[&str] = match self.warm {
            Some(_) => &[],
            None => FETCHED,
        };
        Leftovers::new(work, &[kept, fetched].concat(), reason)
    }

    /// Kiln's release binary.
    pub(crate) fn kiln(&self) -> Result<PathBuf> {
        if let Some(given) = &self.kiln {
            return Ok(given.clone());
        }
        let build = ["build", "--release", "--locked", "--package", "kiln-cli"];
        process::run(workspace::cargo().args(build))?;
        Ok(workspace::target_directory()?.join("release/kiln"))
    }

    /// A cache below `work` that holds every package of the definition at `project` and its lock.
    pub(crate) fn warm_cache(&self, kiln: &Path, project: &Path, work: &Path) -> Result<PathBuf> {
        let cache = work.join("warm");
        if let Some(given) = &self.warm {
            afresh(&cache)?;
            link_downloads(given, &cache)?;
        }
        process::run(&mut lock_command(kiln, &cache, project))?;
        let store = cache.join("downloads");
        let packages = repository::read_lock(&definition::lock_of(project)?)?;
        if packages.iter().all(|package| package.is_in(&store)) {
            return Ok(cache);
        }
        let output = work.join("warm-output");
        process::run(&mut build_command(kiln, &cache, project, &output))?;
        fs::remove_dir_all(&output).map_err(trouble("removing", &output))?;
        Ok(cache)
    }
}

/// `kiln lock` with a cache of its own.
fn lock_command(kiln: &Path, cache: &Path, project: &Path) -> Command {
    let mut command = kiln_command(kiln, cache);
    command.arg("lock").arg(project).args(distribution(project));
    command
}

/// `kiln build --locked` with a cache of its own.
pub(crate) fn build_command(kiln: &Path, cache: &Path, project: &Path, output: &Path) -> Command {
    let mut command = resolving_command(kiln, cache, project, output);
    command.arg("--locked");
    command
}

/// `kiln build` with a cache of its own, which needs no lock.
pub(crate) fn resolving_command(
    kiln: &Path,
    cache: &Path,
    project: &Path,
    output: &Path,
) -> Command {
    let mut command = kiln_command(kiln, cache);
    command.args(["build", "-o"]).arg(output);
    command.arg(project).args(distribution(project));
    command
}

/// A kickstart file does not say what distribution it is for; a project does.
fn distribution(project: &Path) -> &'static [&'static str] {
    if project.is_dir() {
        &[]
    } else {
        &["--distribution", "debian:bookworm"]
    }
}

fn kiln_command(kiln: &Path, cache: &Path) -> Command {
    let mut command = Command::new(kiln);
    command.arg("--cache-dir").arg(cache);
    command.arg("--state-dir").arg(cache.join("state"));
    command
}

/// Gives `to` the downloads and the verified metadata of the cache `from`. Hard links: both keep the files, none is
/// copied.
pub(crate) fn link_downloads(from: &Path, to: &Path) -> Result<()> {
    for (name, how) in [("downloads", "-alT"), ("metadata", "-aT")] {
        if from.join(name).is_dir() {
            let mut copy = Command::new("cp");
            copy.arg(how).arg(from.join(name)).arg(to.join(name));
            process::run(&mut copy)?;
        }
    }
    Ok(())
}

/// An empty directory, whatever was there before.
pub(crate) fn afresh(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(trouble("removing", directory))?;
    }
    fs::create_dir_all(directory).map_err(trouble("making", directory))
}

/// A system tool, also where the `PATH` of an ordinary user does not lead.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::join_paths(search_path()).unwrap_or_default();
    command.env("PATH", path);
    command
}

/// Tells what was being done to which path.
pub(crate) fn trouble<'a>(
    doing: &'a str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("{doing} {}: {error}", path.display())
}

/// Fails for an ordinary user.
pub(crate) fn need_root(who: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(format!(
            "{who} compares with tools that need root; run it as root"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["a.ks", "--warm", "/w"]).unwrap();
        assert_eq!(options.definition.as_deref(), Some(Path::new("a.ks")));
        assert_eq!(options.warm.as_deref(), Some(Path::new("/w")));
        assert!(Options::parse(&["a.ks", "b.ks"]).is_err());
        assert!(Options::parse(&["--keep"]).unwrap().keep && !options.keep);
        assert!(Options::parse(&["--kiln"]).is_err());
        assert!(Options::parse(&["--fast"]).is_err());
    }
}
