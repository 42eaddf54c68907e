//! apt's sources in the root, and the packages that dpkg has there in the end.

use std::fs;
use std::io;
use std::path::Path;

use kiln_packages::debian::control::{field, stanzas};
use kiln_sandbox::{Call, Error, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;
use crate::error::Result;
use crate::finish::{Installed, Sources};
use crate::regular;
use crate::run::{Extras, Place};

/// Writes apt's sources; a root without apt stays as it is.
///
/// # Errors
/// The root cannot be changed.
pub(super) fn write_sources(place: &Place<'_>, sources: &Sources) -> Result<()> {
    place.call(&WriteSources(sources.clone()), (), Extras::default())
}

/// Writes apt's sources.
#[derive(Serialize, Deserialize)]
pub(crate) struct WriteSources(Sources);

impl Call for WriteSources {
    const NAME: &'static str = "debian.sources";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<(), Error> {
        write(Path::new("/"), &self.0).map_err(|e| io_error("writing apt's sources", &e))
    }
}

/// A source that is there already, from a package or a file of the definition, stays.
pub(super) fn write(root: &Path, sources: &Sources) -> io::Result<()> {
    if !root.join("etc/apt").is_dir() {
        return Ok(());
    }
    let dir = root.join("etc/apt/sources.list.d");
    fs::create_dir_all(&dir)?;
    for (name, content) in &sources.files {
        let path = dir.join(name);
        if path.symlink_metadata().is_err() {
            regular::write(path, content)?;
        }
    }
    for (path, content) in &sources.keys {
        let path = root.join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        regular::write(path, content)?;
    }
    Ok(())
}

/// The packages of which the root has the files, sorted.
pub(super) fn installed(root: &Path) -> io::Result<Vec<Installed>> {
    let status = match regular::read(root.join("var/lib/dpkg/status")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let status = String::from_utf8_lossy(&status);
    let package = |stanza: &str| {
        let state = field(stanza, "Status")?.split_whitespace().last()?;
        let text = |name| field(stanza, name).map(str::to_owned);
        (!matches!(state, "not-installed" | "config-files")).then_some(Installed {
            name: text("Package")?,
            version: text("Version")?,
            architecture: text("Architecture")?,
        })
    };
    let mut all: Vec<Installed> = stanzas(&status).filter_map(package).collect();
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_and_without_apt_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let sources = Sources {
            files: vec![("kiln.sources".into(), "new".into())],
            keys: vec![("/etc/apt/keyrings/kiln-1.asc".into(), b"key".to_vec())],
        };
        write(root, &sources).unwrap();
        assert!(!root.join("etc").exists());
        let list = root.join("etc/apt/sources.list.d/kiln.sources");
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        write(root, &sources).unwrap();
        assert_eq!(fs::read(&list).unwrap(), b"new");
        assert!(root.join("etc/apt/keyrings/kiln-1.asc").exists());
        fs::write(&list, "own").unwrap();
        write(root, &sources).unwrap();
        assert_eq!(fs::read(&list).unwrap(), b"own");
    }

    #[test]
    fn what_dpkg_has_left_is_not_installed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        let stanza = |name: &str, state: &str| {
            format!(
                "Package: {name}\nStatus: install ok {state}\nArchitecture: all\nDescription: x\n more\nVersion: 1:2\n\n"
            )
        };
        let text =
            stanza("b", "installed") + &stanza("a", "unpacked") + &stanza("c", "config-files");
        fs::write(dir.path().join("var/lib/dpkg/status"), text).unwrap();
        let names: Vec<String> = installed(dir.path())
            .unwrap()
            .into_iter()
            .map(|p| p.name + &p.version)
            .collect();
        assert_eq!(names, ["a1:2", "b1:2"]);
        assert_eq!(installed(&dir.path().join("etc")).unwrap(), []);
    }
}
