//! `mkosi` in its incremental mode: it keeps the root as it is before the user's last script, and begins with a copy of that.
//!
//! It makes a directory, so that none of its own ways to compress is measured. Configured for speed: no kernel image, no initrd,
//! no clean-up of apt's lists.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::repository::{Package, SUITE};
use super::{afresh, tool, trouble};
use crate::{Result, prerequisites, process};

/// Debian 12's version: it calls debootstrap and systemd-nspawn, and has other settings than newer ones.
const OLD: u32 = 14;
/// Debian 13's. What lies between has settings of its own.
const NEW: u32 = 25;

/// What it calls its result.
const IMAGE: &str = "image";
/// Where the script writes what tells that it has run.
const WITNESS: &str = "etc/kiln-bench";

/// The version of the `mkosi` in the path; installs Debian's if there is none. An error for a version with other settings.
pub(crate) fn find() -> Result<u32> {
    prerequisites::mkosi()?;
    let said = process::output(tool("mkosi").arg("--version"))?;
    let known = |version: &u32| *version == OLD || *version >= NEW;
    major(&said).filter(known).ok_or_else(|| {
        format!(
            "the comparison knows mkosi {OLD}, and {NEW} or newer; in the path is {}",
            said.trim()
        )
    })
}

/// A project of `mkosi`.
pub(crate) struct Mkosi {
    project: PathBuf,
    version: u32,
}

impl Mkosi {
    /// Makes a project in the directory `project` that installs exactly `packages`, from a repository with a suite. `version` is
    /// what [`find`] found.
    pub(crate) fn prepare(
        version: u32,
        packages: &[Package],
        mirror: &Path,
        project: &Path,
        no_docs: bool,
    ) -> Result<Mkosi> {
        afresh(project)?;
        // What is cached is looked for in directories that are there.
        let directories: &[&str] = if version == OLD {
            // The cache of a build script's root. There is no such script, yet the other cache is made anew in every run
            // without it.
            &["image.cache-pre-dev"]
        } else {
            &["cache", "packages", "workspace"]
        };
        for name in directories {
            let directory = project.join(name);
            fs::create_dir(&directory).map_err(trouble("making", &directory))?;
        }
        let names: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
        let file = project.join("mkosi.conf");
        let text = configuration(version, &names, mirror, no_docs);
        fs::write(&file, text).map_err(trouble("writing", &file))?;
        Ok(Mkosi {
            project: project.to_owned(),
            version,
        })
    }

    /// Name and version, for a table.
    pub(crate) fn name(&self) -> String {
        format!("mkosi {}", self.version)
    }

    /// Gives the one line of the script, which runs in the image after everything else, a number.
    pub(crate) fn mark(&self, number: usize) -> Result<()> {
        let name = if self.version == OLD {
            "mkosi.postinst"
        } else {
            "mkosi.postinst.chroot"
        };
        let file = self.project.join(name);
        let text = format!("#!/bin/sh\necho {number} > /{WITNESS}\n");
        fs::write(&file, text).map_err(trouble("writing", &file))?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&file, mode).map_err(trouble("changing", &file))
    }

    /// Makes the image, and the cache if there is none.
    pub(crate) fn build(&self) -> Command {
        let mut command = tool("mkosi");
        command.arg("--directory").arg(&self.project);
        command.args(["--force", "build"]);
        command
    }

    /// The root that it has made. An error unless the script with that number has run in it.
    pub(crate) fn root(&self, number: usize) -> Result<PathBuf> {
        let root = self.project.join(IMAGE);
        let witness = root.join(WITNESS);
        let text = fs::read_to_string(&witness).map_err(trouble("reading", &witness))?;
        if text.trim() == number.to_string() {
            Ok(root)
        } else {
            Err(format!(
                "{} is of another run: it holds {text}",
                witness.display()
            ))
        }
    }

    /// Removes what it made but not its cache.
    pub(crate) fn forget_root(&self) -> Result<()> {
        let root = self.project.join(IMAGE);
        fs::remove_dir_all(&root).map_err(trouble("removing", &root))
    }
}

/// `mkosi 14`, `mkosi 25.3`, `mkosi 26~devel`.
fn major(said: &str) -> Option<u32> {
    let number = said.trim().strip_prefix("mkosi ")?;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}

/// The file `mkosi.conf`.
fn configuration(version: u32, packages: &[&str], mirror: &Path, no_docs: bool) -> String {
    let docs = if no_docs { "no" } else { "yes" };
    let mut text = format!(
        "[Distribution]\nDistribution=debian\nRelease={SUITE}\nLocalMirror=file://{}\nRepositoryKeyCheck=no\n\n\
         [Output]\nFormat=directory\nOutput={IMAGE}\n",
        mirror.display()
    );
    text += if version == OLD {
        // Where no systemd runs, nobody can give systemd-nspawn a scope.
        "NspawnKeepUnit=yes\n\n[Content]\nBasePackages=no\n"
    } else {
        // No copy of the kernel beside the image, and none of the project's own directory in the image while it is made.
        "SplitArtifacts=\n\n[Build]\nBuildSources=\n\
         CacheDirectory=cache\nPackageCacheDirectory=packages\nWorkspaceDirectory=workspace\n\n[Content]\n"
    };
    let _ = write!(
        text,
        "Bootable=no\nWithDocs={docs}\nCleanPackageMetadata=no\nPackages=\n"
    );
    for name in packages {
        // The old one enables systemd-resolved, which Debian has in a package of its own, for who asks for systemd itself;
        // here it is what others depend on.
        if version != OLD || *name != "systemd" {
            let _ = writeln!(text, "    {name}");
        }
    }
    text + "\n[Build]\nIncremental=yes\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("mkosi 14\n"), Some(14));
        assert_eq!(major("mkosi 25.3\n"), Some(25));
        assert_eq!(major("mkosi 26~devel\n"), Some(26));
        assert_eq!(major("mkosi\n"), None);
        assert_eq!(major("mkosi x\n"), None);
    }

    #[test]
    fn each_kind_has_its_settings() {
        let packages = ["nano", "systemd", "systemd-sysv"];
        let text = |version| configuration(version, &packages, Path::new("/m"), false);
        let (old, new) = (text(14), text(26));
        let list = "Packages=\n    nano\n    systemd-sysv\n\n[Build]\nIncremental=yes\n";
        assert!(old.ends_with(list), "{old}");
        assert!(new.contains("\n    systemd\n"), "{new}");
        for both in [
            "LocalMirror=file:///m\n",
            "Format=directory\n",
            "WithDocs=yes\n",
        ] {
            assert!(old.contains(both) && new.contains(both), "{both}");
        }
        assert!(old.contains("NspawnKeepUnit=yes\n") && !new.contains("NspawnKeepUnit"));
        assert!(new.contains("CacheDirectory=cache\n") && !old.contains("CacheDirectory"));
        let without = configuration(26, &packages, Path::new("/m"), true);
        assert!(without.contains("WithDocs=no\n"));
    }
}
