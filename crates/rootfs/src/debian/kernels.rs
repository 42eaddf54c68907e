//! Which of several kernels boots.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use kiln_packages::debian::{control, relation, version};
use kiln_sandbox::{Error, ErrorKind};

use crate::calls::{io_error, text_if_there};
use crate::finish::Kernels;
use crate::kernels;
use crate::regular;

/// Notes in the root which kernel boots, if there are several: that of the package `said`, or the one with the highest version.
pub(super) fn choose(root: &Path, said: Option<&str>) -> Result<Kernels, Error> {
    let found = found(root).map_err(|e| io_error("looking for kernels in /boot", &e))?;
    kernels::choose(root, found, said, |package, found| {
        of_package(root, package, found)
            .map_err(|e| io_error("reading dpkg's records", &e))?
            .ok_or_else(|| missing(package, found))
    })
}

fn missing(package: &str, found: &[String]) -> Error {
    let message = format!(
        "[system] kernel = {package:?}: neither this package nor what it depends on brings one of the kernels {}",
        found.join(", ")
    );
    Error::new(ErrorKind::Input, message)
        .hint("name the package of the kernel that is to boot, and leave it in the root")
}

/// Versions of the kernels in `/boot`, the lowest first.
fn found(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root.join("boot")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-")
            && entry.path().is_file()
        {
            versions.push(version.to_owned());
        }
    }
    versions.sort_by(|a, b| version::compare(a, b).then_with(|| a.cmp(b)));
    Ok(versions)
}

/// The kernel that a package brings: itself, or the nearest package that it depends on.
fn of_package(root: &Path, package: &str, versions: &[String]) -> io::Result<Option<String>> {
    let status = regular::text(root.join("var/lib/dpkg/status"))?;
    let mut stanzas: HashMap<&str, &str> = HashMap::new();
    for stanza in control::stanzas(&status) {
        if let Some(name) = control::field(stanza, "Package") {
            stanzas.insert(name, stanza);
        }
    }
    let (mut pending, mut seen) = (VecDeque::from([package]), vec![package]);
    while let Some(package) = pending.pop_front() {
        let Some(stanza) = stanzas.get(package) else {
            continue;
        };
        let architecture = control::field(stanza, "Architecture");
        let qualified = architecture.map(|a| format!("{package}:{a}.list"));
        for file in [Some(format!("{package}.list")), qualified]
            .into_iter()
            .flatten()
        {
            // One of the two names is there, or none: a package that is not installed has no list.
            let list = text_if_there(root.join("var/lib/dpkg/info").join(file))?;
            let brings = |version: &&String| {
                let path = format!("/boot/vmlinuz-{version}");
                list.lines().any(|line| line == path)
            };
            if let Some(version) = versions.iter().rev().find(brings) {
                return Ok(Some(version.clone()));
            }
        }
        for field in ["Pre-Depends", "Depends"] {
            let depends = control::field(stanza, field).map(relation::groups);
            let depends = depends.into_iter().flatten().flatten();
            for name in depends.map(|relation| relation.name) {
                if !seen.contains(&name) {
                    seen.push(name);
                    pending.push_back(name);
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::CHOICE;

    fn root() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let mut status = String::new();
        for (flavour, version) in [
            ("amd64", "6.1.0-9-amd64"),
            ("cloud-amd64", "6.1.0-10-cloud-amd64"),
        ] {
            let image = format!("linux-image-{version}");
            write(&format!("boot/vmlinuz-{version}"), "");
            write(
                &format!("var/lib/dpkg/info/{image}.list"),
                &format!("/boot\n/boot/vmlinuz-{version}\n"),
            );
            status += &format!(
                "Package: linux-image-{flavour}\nArchitecture: amd64\nDepends: {image} (= 6.1)\n\n"
            );
            status += &format!(
                "Package: {image}\nArchitecture: amd64\nDepends: kmod, initramfs-tools | linux-initramfs-tool\n\n"
            );
        }
        write("var/lib/dpkg/status", &status);
        place
    }

    fn choice(place: &tempfile::TempDir) -> String {
        fs::read_to_string(place.path().join(&CHOICE[1..])).unwrap()
    }

    #[test]
    fn the_named_kernel_boots() {
        let place = root();
        let kernels = choose(place.path(), Some("linux-image-amd64")).unwrap();
        assert_eq!(kernels.boots.as_deref(), Some("6.1.0-9-amd64"));
        assert!(kernels.said);
        assert_eq!(choice(&place), "6.1.0-9-amd64\n");
        let kernels = choose(place.path(), Some("linux-image-6.1.0-10-cloud-amd64")).unwrap();
        assert_eq!(kernels.boots.as_deref(), Some("6.1.0-10-cloud-amd64"));
    }

    #[test]
    fn without_a_word_the_newest_boots_and_all_are_told() {
        let place = root();
        let kernels = choose(place.path(), None).unwrap();
        assert_eq!(kernels.found, ["6.1.0-9-amd64", "6.1.0-10-cloud-amd64"]);
        assert_eq!(kernels.boots.as_deref(), Some("6.1.0-10-cloud-amd64"));
        assert!(!kernels.said);
    }

    #[test]
    fn a_package_without_a_kernel_is_an_error_and_one_kernel_no_choice() {
        let place = root();
        let error = choose(place.path(), Some("linux-image-rt-amd64")).unwrap_err();
        assert!(error.message.contains("linux-image-rt-amd64"), "{error:?}");
        fs::remove_file(place.path().join("boot/vmlinuz-6.1.0-9-amd64")).unwrap();
        let kernels = choose(place.path(), Some("linux-image-amd64")).unwrap();
        assert_eq!((kernels.boots, kernels.found.len()), (None, 1));
    }
}
