//! What users install: one static program, its completions and manual page, as an archive and as a Debian package.
//!
//! The same source gives the same files: no time but that of the last commit, no owner but root.

mod package;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{output, run};
use crate::{Result, workspace};

/// Everything that goes out, before it is packed.
struct Parts {
    /// Where it lies.
    dir: PathBuf,
    version: String,
    /// Seconds since 1970 of the last commit.
    epoch: String,
}

/// Makes everything in `target/dist`. `--program FILE` takes a program that is there already.
pub(crate) fn run_chore(arguments: &[&str]) -> Result<()> {
    let root = workspace::root();
    let dir = root.join("target/dist");
    let program = match arguments {
        [] => program::build(&root)?,
        ["--program", file] => PathBuf::from(file),
        _ => return Err("dist takes nothing, or --program FILE".to_owned()),
    };
    program::check(&program)?;
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(|error| trouble(&dir, &error))?;
    }
    fs::create_dir_all(&dir).map_err(|error| trouble(&dir, &error))?;
    copy(&program, &dir.join("kiln"), 0o755)?;
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(&root);
    let parts = Parts {
        version: version(&dir)?,
        epoch: output(&mut git)?.trim().to_owned(),
        dir,
    };
    parts.documents(&root)?;
    let archive = parts.archive(&root)?;
    let package = package::build(&parts, &root)?;
    parts.sums(&[archive, package])?;
    parts.builder(&root)?;
    println!("{}", parts.dir.display());
    Ok(())
}

/// What the program says of itself.
fn version(dir: &Path) -> Result<String> {
    let said = output(Command::new(dir.join("kiln")).arg("--version"))?;
    let version = said.trim().strip_prefix("kiln ");
    version
        .map(str::to_owned)
        .ok_or_else(|| format!("`kiln --version` printed {said:?}"))
}

impl Parts {
    fn kiln(&self, words: &[&str]) -> Result<String> {
        output(
            Command::new(self.dir.join("kiln"))
                .args(words)
                .env_clear()
                .env("HOME", &self.dir),
        )
    }

    /// The completions and the manual page, from the program itself.
    fn documents(&self, root: &Path) -> Result<()> {
        for (shell, name) in [
            ("bash", "kiln.bash"),
            ("zsh", "_kiln"),
            ("fish", "kiln.fish"),
        ] {
            write(&self.dir.join(name), &self.kiln(&["completions", shell])?)?;
        }
        write(&self.dir.join("kiln.1"), &self.kiln(&["man"])?)?;
        for name in [
            "LICENSE-MIT",
            "LICENSE-APACHE",
            "README.md",
            "dist/kiln.service",
        ] {
            let from = root.join(name);
            let base = from.file_name().unwrap_or_default();
            copy(&from, &self.dir.join(base), 0o644)?;
        }
        Ok(())
    }

    /// `kiln-VERSION-ARCHITECTURE-linux.tar.gz`
    fn archive(&self, root: &Path) -> Result<String> {
        let top = format!("kiln-{}-{}-linux", self.version, std::env::consts::ARCH);
        let name = format!("{top}.tar.gz");
        let target = root.join("target").join(&name);
        run(Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", self.epoch))
            .arg(format!("--transform=s,^\\.,{top},"))
            .args(["--use-compress-program=gzip -9n", "-cf"])
            .arg(&target)
            .arg("-C")
            .arg(&self.dir)
            .arg("."))?;
        let place = self.dir.join(&name);
        fs::rename(&target, &place).map_err(|error| trouble(&place, &error))?;
        Ok(name)
    }

    /// What `docker build` of the directory needs for the builder's image.
    fn builder(&self, root: &Path) -> Result<()> {
        let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
        copy(certificates, &self.dir.join("ca-certificates.crt"), 0o644)?;
        let name = "Dockerfile";
        copy(
            &root.join("dist/builder").join(name),
            &self.dir.join(name),
            0o644,
        )
    }

    fn sums(&self, names: &[String]) -> Result<()> {
        let mut sums = Command::new("sha256sum");
        let text = output(sums.args(names).current_dir(&self.dir))?;
        print!("{text}");
        write(&self.dir.join("SHA256SUMS"), &text)
    }
}

fn trouble(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| trouble(parent, &error))?;
    }
    fs::write(path, text).map_err(|error| trouble(path, &error))?;
    mode(path, 0o644)
}

fn copy(from: &Path, to: &Path, bits: u32) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| trouble(parent, &error))?;
    }
    fs::copy(from, to).map_err(|error| trouble(from, &error))?;
    mode(to, bits)
}

fn mode(path: &Path, bits: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .map_err(|error| trouble(path, &error))
}
