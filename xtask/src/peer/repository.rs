//! A flat repository of the very package files that Kiln used: nothing else can be installed from it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{afresh, trouble};
use crate::{Result, process};

/// The lock's layer of the packages that do not go into the image.
const TOOLS: &str = "tools";

/// What the repository says it is. `mmdebstrap` looks for Essential packages of the suite it is told.
pub(crate) const SUITE: &str = "bookworm";
/// Of the suite that [`add_suite`] adds.
const COMPONENT: &str = "main";
/// Debian's name of the packages' architecture.
const ARCHITECTURE: &str = "amd64";

/// What the lock file says of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    version: String,
    architecture: String,
    size: String,
    sha256: String,
    layer: String,
}

impl Package {
    /// Its file in a download store.
    fn file(&self, store: &Path) -> PathBuf {
        let directory = self.sha256.get(..2).unwrap_or("");
        store.join("sha256").join(directory).join(&self.sha256)
    }

    /// Whether a download store has it.
    pub(crate) fn is_in(&self, store: &Path) -> bool {
        self.file(store).is_file()
    }

    /// An RPM package as dnf is asked for it: this one and no other.
    pub(crate) fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.version, self.architecture)
    }

    /// Whether it is part of the image.
    fn is_installed(&self) -> bool {
        self.layer != TOOLS
    }
}

/// All packages of a lock file, the tools root's among them.
pub(crate) fn read_lock(path: &Path) -> Result<Vec<Package>> {
    let text = fs::read_to_string(path).map_err(trouble("reading", path))?;
    let packages = parse_lock(&text);
    if packages.is_empty() {
        return Err(format!("{} names no package", path.display()));
    }
    Ok(packages)
}

/// The image's packages of a lock file.
pub(crate) fn installed(path: &Path) -> Result<Vec<Package>> {
    let mut packages = read_lock(path)?;
    packages.retain(Package::is_installed);
    Ok(packages)
}

/// `layer NAME`, and `package NAME FIELD=VALUE…` with its version, a size and a SHA-256; other lines are of no interest.
fn parse_lock(text: &str) -> Vec<Package> {
    let mut layer = "";
    let mut packages = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let field = |name: &str| {
            let mut values = words.iter().filter_map(|word| word.strip_prefix(name));
            values.next().unwrap_or_default().to_owned()
        };
        match words[..] {
            ["layer", name] => layer = name,
            ["package", name, ..] => packages.push(Package {
                name: name.to_owned(),
                version: field("version="),
                architecture: field("architecture="),
                size: field("size="),
                sha256: field("sha256="),
                layer: layer.to_owned(),
            }),
            _ => {}
        }
    }
    packages
}

/// Makes the repository in `target`. Hard links, because symbolic ones would lead out of what a chroot sees; the index's
/// stanzas are the packages' own. The files' names begin with the packages', because mkosi reads them there.
pub(crate) fn make(packages: &[Package], store: &Path, target: &Path) -> Result<()> {
    afresh(target)?;
    let mut index = String::new();
    for package in packages {
        let Package {
            name, size, sha256, ..
        } = package;
        let file = format!("{name}_{sha256}.deb");
        let link = target.join(&file);
        fs::hard_link(package.file(store), &link).map_err(trouble("linking", &link))?;
        let control = process::output(Command::new("dpkg-deb").arg("--field").arg(&link))?;
        let control = control.trim_end();
        let _ = write!(
            index,
            "{control}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n\n"
        );
    }
    let path = target.join("Packages");
    fs::write(&path, &index).map_err(trouble("writing", &path))?;
    release(target, "Packages", "")
}

/// Makes a repository that [`make`] made one with a suite too, for tools that know no flat ones: debootstrap, and mkosi.
pub(crate) fn add_suite(repository: &Path) -> Result<()> {
    let suite = repository.join("dists").join(SUITE);
    let index = format!("{COMPONENT}/binary-{ARCHITECTURE}/Packages");
    let target = suite.join(&index);
    let directory = target.parent().unwrap_or(&suite);
    fs::create_dir_all(directory).map_err(trouble("making", directory))?;
    // Both name files as seen from the repository's own directory.
    let flat = repository.join("Packages");
    fs::copy(&flat, &target).map_err(trouble("copying", &flat))?;
    let more = format!("Components: {COMPONENT}\nArchitectures: {ARCHITECTURE}\n");
    release(&suite, &index, &more)
}

/// Writes the file `Release` of a directory with one index; `more` fields go in front of the digest.
fn release(directory: &Path, index: &str, more: &str) -> Result<()> {
    let path = directory.join(index);
    let size = fs::metadata(&path)
        .map_err(trouble("reading", &path))?
        .len();
    let digest = process::output(Command::new("sha256sum").arg(&path))?;
    let digest = digest.split_whitespace().next().unwrap_or("");
    let release = directory.join("Release");
    let text =
        format!("Suite: {SUITE}\nCodename: {SUITE}\n{more}SHA256:\n {digest} {size} {index}\n");
    fs::write(&release, text).map_err(trouble("writing", &release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_are_read_from_a_lock() {
        let text = "format 2\nrepository url=a name=b\n\nlayer tools\npackage apt version=2.6 size=1 sha256=ff\n\
                    layer base.ks\npackage libc6 version=2.36-9 architecture=amd64 size=2752360 sha256=abcd url=u\n";
        let packages = parse_lock(text);
        assert_eq!(packages.len(), 2);
        assert!(!packages[0].is_installed());
        let expected = Package {
            name: "libc6".into(),
            version: "2.36-9".into(),
            architecture: "amd64".into(),
            size: "2752360".into(),
            sha256: "abcd".into(),
            layer: "base.ks".into(),
        };
        assert_eq!(packages[1], expected);
    }

    #[test]
    fn a_suite_has_the_same_index() {
        let here = tempfile::tempdir().unwrap();
        let index = "Package: a\nFilename: ./a_ff.deb\n\n";
        fs::write(here.path().join("Packages"), index).unwrap();
        add_suite(here.path()).unwrap();
        let suite = here.path().join("dists/bookworm");
        let same = fs::read_to_string(suite.join("main/binary-amd64/Packages")).unwrap();
        assert_eq!(same, index);
        let release = fs::read_to_string(suite.join("Release")).unwrap();
        let said = format!(" {} main/binary-amd64/Packages\n", index.len());
        assert!(release.ends_with(&said), "{release}");
        assert!(
            release.contains("\nComponents: main\nArchitectures: amd64\nSHA256:\n "),
            "{release}"
        );
    }
}
