//! Unpacking proven packages into a throw-away root, without running anything of them.

use std::io::Read;
use std::path::Path;

use super::files::FileInfo;
use super::package::PackageFile;
use super::payload::Content;
use crate::unpack::{Attributes, Kind, Unpacker};
pub use crate::unpack::{Owners, Unpacked};
use crate::{Error, Result};

/// Unpacks packages into `root`, a directory that stands for `/`. All becomes root's, and nothing has capabilities: whoever runs
/// there is root. Packages that bring links at the top (`/bin`, which leads to `usr/bin`) come first, then the order is the given one.
/// `done` is told after each package.
///
/// # Errors
/// [`crate::ErrorKind::Malformed`] for a package that disagrees with its header or reaches outside; [`crate::ErrorKind::Io`].
pub fn unpack(
    packages: &[PackageFile],
    root: &Path,
    owners: Owners,
    done: &mut dyn FnMut(),
) -> Result<Unpacked> {
    let mut ordered = Vec::with_capacity(packages.len());
    for package in packages {
        ordered.push((!has_top_link(&package.files()?), package));
    }
    ordered.sort_by_key(|(later, _)| *later);
    let mut total = Unpacked::default();
    for (_, package) in ordered {
        total.add(unpack_one(package, root, owners)?);
        done();
    }
    Ok(total)
}

fn has_top_link(files: &[FileInfo]) -> bool {
    let is_link = |file: &FileInfo| file.mode & 0o170_000 == 0o120_000;
    let is_top = |file: &FileInfo| file.path.components().count() == 1;
    files.iter().any(|file| is_top(file) && is_link(file))
}

fn unpack_one(package: &PackageFile, root: &Path, owners: Owners) -> Result<Unpacked> {
    let name = package.name();
    let mut unpacker = Unpacker::open(root, owners)?;
    package.entries(&mut |file, content| {
        let attributes = Attributes::new((0, 0), file.mode, file.time.cast_signed(), Vec::new());
        let mut nothing = std::io::empty();
        let (kind, content): (Kind, &mut dyn Read) = match content {
            Content::File(content) => (Kind::File, content),
            Content::HardLink(to) => (Kind::HardLink(to.to_owned()), &mut nothing),
            Content::Link => (Kind::Symlink(file.link.clone()), &mut nothing),
            Content::Directory => (Kind::Directory, &mut nothing),
            Content::Special if file.mode & 0o170_000 == 0o010_000 => (Kind::Fifo, &mut nothing),
            Content::Special => (Kind::Special, &mut nothing),
        };
        let made = unpacker.entry(&file.path, &kind, attributes, content);
        made.map_err(|failure| failure.into_error(name, &file.path))
    })?;
    let made: std::result::Result<Unpacked, Error> = unpacker
        .finish()
        .map_err(|failure| failure.into_error(name, Path::new("/")));
    made
}
