//! A package of the pool, and what is told while it is unpacked.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_packages::debian::contents::Kind;
use kiln_sandbox::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::index::{self, Item};
use super::paths::read_or_empty;
use super::stanza;
use super::status::Known;
use super::triggers::{Directive, directives};
use crate::calls::io_error;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// What is told on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// A package is begun.
    Unpacking { name: String, version: String },
    /// A package is unpacked.
    Unpacked { name: String },
    /// Something that dpkg would print.
    Line(String),
}

/// A package of the pool.
pub(super) struct Package {
    /// Its directory there.
    pub(super) dir: PathBuf,
    /// As dpkg will know it.
    pub(super) known: Known,
    pub(super) items: Vec<Item>,
    /// Configuration files in the package's order, and whether an upgrade is to remove them.
    pub(super) conffiles: Vec<(OsString, bool)>,
    pub(super) directives: Option<Vec<Directive>>,
    pub(super) has_sums: bool,
}

impl Package {
    pub(super) fn read(dir: &Path) -> Result<Package> {
        let doing = |what: &str| format!("reading {what} of {}", dir.display());
        let bytes = fs::read(dir.join("index")).map_err(|e| io_error(doing("the index"), &e))?;
        let control = dir.join("control");
        let bytes_of = |name: &str| -> Result<Vec<u8>> {
            read_or_empty(&control.join(name)).map_err(|e| io_error(doing(name), &e))
        };
        let text = |name: &str| -> Result<String> {
            Ok(String::from_utf8_lossy(&bytes_of(name)?).into_owned())
        };
        let broken = |what: &str| {
            Error::new(
                ErrorKind::Step,
                format!("{} has no usable {what}", dir.display()),
            )
        };
        let known = Known::new(stanza::of_control(&text("control")?))
            .ok_or_else(|| broken("control file"))?;
        let conffiles = bytes_of("conffiles")?;
        let conffiles = conffiles
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii_end)
            .filter(|l| !l.is_empty())
            .map(conffile);
        let mut items = index::read(&bytes).ok_or_else(|| broken("index"))?;
        // dpkg makes symbolic links when all else is there.
        items.sort_by_key(|item| matches!(item.entry.kind, Kind::Symlink(_)));
        Ok(Package {
            dir: dir.to_owned(),
            known,
            items,
            conffiles: conffiles
                .collect::<Option<_>>()
                .ok_or_else(|| broken("list of configuration files"))?,
            directives: directives(&text("triggers")?),
            has_sums: control.join("md5sums").exists(),
        })
    }
}

/// `[remove-on-upgrade ]/PATH`
fn conffile(line: &[u8]) -> Option<(OsString, bool)> {
    let (path, removed) = match line.strip_prefix(b"remove-on-upgrade ") {
        Some(path) => (path, true),
        None => (line, false),
    };
    let name = || OsStr::from_bytes(path).to_owned();
    path.starts_with(b"/").then(|| (name(), removed))
}
