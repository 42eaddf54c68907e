//! The Debian package: the program, its documents, and the server's unit, user and options.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Parts, copy, trouble, write};
use crate::Result;
use crate::process::{output, run};

/// Each installed file: its part, and its place.
const FILES: &[(&str, &str, u32)] = &[
    ("kiln", "usr/bin/kiln", 0o755),
    (
        "kiln.bash",
        "usr/share/bash-completion/completions/kiln",
        0o644,
    ),
    ("_kiln", "usr/share/zsh/vendor-completions/_kiln", 0o644),
    (
        "kiln.fish",
        "usr/share/fish/vendor_completions.d/kiln.fish",
        0o644,
    ),
    ("kiln.1", "usr/share/man/man1/kiln.1", 0o644),
    ("kiln.service", "usr/lib/systemd/system/kiln.service", 0o644),
];

const MAINTAINER: &str = "The Kiln founders <kiln@localhost>";

/// Makes `kiln_VERSION_ARCHITECTURE.deb` and returns its name.
pub(super) fn build(parts: &Parts, root: &Path) -> Result<String> {
    let tree = root.join("target/dist-deb");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|error| trouble(&tree, &error))?;
    }
    for (from, to, bits) in FILES {
        copy(&parts.dir.join(from), &tree.join(to), *bits)?;
    }
    run(Command::new("gzip")
        .arg("-9n")
        .arg(tree.join("usr/share/man/man1/kiln.1")))?;
    copy(
        &root.join("dist/kiln.default"),
        &tree.join("etc/default/kiln"),
        0o644,
    )?;
    documents(&tree, parts, root)?;
    let architecture = architecture()?;
    write(
        &tree.join("DEBIAN/control"),
        &control(&tree, parts, architecture)?,
    )?;
    write(&tree.join("DEBIAN/conffiles"), "/etc/default/kiln\n")?;
    for script in ["postinst", "prerm", "postrm"] {
        let from = root.join("dist/debian").join(script);
        copy(&from, &tree.join("DEBIAN").join(script), 0o755)?;
    }
    checksums(&tree)?;
    directories(&tree)?;
    let name = format!("kiln_{}_{architecture}.deb", parts.version);
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&tree)
        .arg(parts.dir.join(&name))
        .env("SOURCE_DATE_EPOCH", &parts.epoch))?;
    fs::remove_dir_all(&tree).map_err(|error| trouble(&tree, &error))?;
    Ok(name)
}

/// The package's own documents, as Debian's policy has them.
fn documents(tree: &Path, parts: &Parts, root: &Path) -> Result<()> {
    let at = tree.join("usr/share/doc/kiln");
    let read = |name: &str| {
        let path = root.join(name);
        fs::read_to_string(&path).map_err(|error| trouble(&path, &error))
    };
    let licence = format!(
        "Kiln {}, under either of these licences, as you like.\n\n{}\n\nApache License, Version 2.0: /usr/share/common-licenses/Apache-2.0\n",
        parts.version,
        read("LICENSE-MIT")?.trim_end()
    );
    write(&at.join("copyright"), &licence)?;
    // What Debian calls the changelog is the package's own, in a format of its own.
    let mut date = Command::new("date");
    let date = output(date.args(["-uR", "-d", &format!("@{}", parts.epoch)]))?;
    let changes = format!(
        "kiln ({}) unstable; urgency=medium\n\n  * Made by `cargo xtask dist`. What is new is in CHANGELOG.md.gz.\n\n -- {MAINTAINER}  {}\n",
        parts.version,
        date.trim()
    );
    for (name, text) in [
        ("changelog", changes),
        ("CHANGELOG.md", read("CHANGELOG.md")?),
    ] {
        write(&at.join(name), &text)?;
        run(Command::new("gzip").arg("-9n").arg(at.join(name)))?;
    }
    let overrides = tree.join("usr/share/lintian/overrides/kiln");
    copy(
        &root.join("dist/debian/lintian-overrides"),
        &overrides,
        0o644,
    )
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(format!(
            "Debian's name of the architecture {other} is not known here"
        )),
    }
}

fn control(tree: &Path, parts: &Parts, architecture: &str) -> Result<String> {
    let size = output(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(tree),
    )?;
    let size = size.split_whitespace().next().unwrap_or("0").to_owned();
    Ok(format!(
        "Package: kiln
Version: {}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {size}
Depends: passwd, uidmap
Recommends: ca-certificates, qemu-system-x86, ovmf
Section: admin
Priority: optional
Description: kickstart files to bootable live disk images
 Kiln builds bootable live images of Debian and its relatives from kickstart
 files: without root, loop devices or mounts on the host. It is its own build
 server, too, which speaks Cloud Build's API.
",
        parts.version
    ))
}

/// `DEBIAN/md5sums`, which `dpkg --verify` reads.
fn checksums(tree: &Path) -> Result<()> {
    let list = "find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum";
    let mut shell = Command::new("sh");
    let sums = output(shell.args(["-c", list]).current_dir(tree))?;
    write(&tree.join("DEBIAN/md5sums"), &sums)
}

/// Directories as everybody has them, whatever the mask of this process says.
fn directories(tree: &Path) -> Result<()> {
    run(Command::new("find")
        .arg(tree)
        .args(["-type", "d", "-exec", "chmod", "755", "{}", "+"]))
}
