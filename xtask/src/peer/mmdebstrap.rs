//! `mmdebstrap` over the flat repository.

use std::path::Path;
use std::process::Command;

use super::repository::{Package, SUITE};
use super::tool;

/// What dpkg is told for `--excludedocs`: Kiln's meaning of it.
const NO_DOCS: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/doc-base/*",
    "path-exclude=/usr/share/gtk-doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// Debian 12 leaves the links of a merged `/usr` to the installer. These are debootstrap's for amd64.
const MERGED_USR: &str = r#"for name in bin sbin lib lib32 lib64 libx32; do
    mkdir -p "$1/usr/$name" && ln -s "usr/$name" "$1/$name"
done"#;

/// As Kiln does: scripts that link pages of their own fail without these directories.
const PLACES_FOR_PAGES: &str =
    r#"for section in 1 2 3 4 5 6 7 8 9; do mkdir -p "$1/usr/share/man/man$section"; done"#;

/// Installs exactly `packages` into the directory `root`.
///
/// The repository holds one version of each package and all are named, so that apt has nothing to choose.
pub(crate) fn command(packages: &[Package], mirror: &Path, root: &Path, no_docs: bool) -> Command {
    let names: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    let mut command = tool("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=essential"]);
    command.args(["--format=directory", "--skip=check/empty"]);
    command.arg(format!("--setup-hook={MERGED_USR}"));
    if no_docs {
        command.args(NO_DOCS.iter().map(|option| format!("--dpkgopt={option}")));
        command.arg(format!("--extract-hook={PLACES_FOR_PAGES}"));
    }
    command.arg(format!("--include={}", names.join(",")));
    // `copy:`, because with `file:` the repository would have to be mounted into the root.
    command.arg(SUITE).arg(root);
    command.arg(format!("deb [trusted=yes] copy://{} ./", mirror.display()));
    command
}
