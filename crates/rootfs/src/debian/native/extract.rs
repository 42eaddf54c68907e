//! The first packages of all, before any program can run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_packages::debian::contents::Kind;

use super::index::Item;
use super::package::{Package, Result, Said};
use super::place::Tree;
use crate::calls::io_error;

/// Puts the files of essential packages into an empty root, where no program runs yet and dpkg knows nothing:
/// configuration files and all, and without taking anything out of the pool.
pub(super) fn extract(
    root: &Path,
    pool: &str,
    keys: &[String],
    say: &mut dyn FnMut(Said),
) -> Result<()> {
    for key in keys {
        let package = Package::read(&root.join(pool).join(key))?;
        let name = package.known.name.clone();
        say(Said::Unpacking {
            name: name.clone(),
            version: package.known.version.clone(),
        });
        let tree = Tree {
            again: true,
            ..Tree::new(root, &package)
        };
        let mut made = Vec::new();
        for item in package.items.iter().filter(|item| !item.filtered) {
            let path = item.entry.path.as_os_str();
            let shown = Path::new(path).display();
            let done = extract_item(&tree, &package, item, &mut made);
            done.map_err(|e| io_error(format!("unpacking {shown} of {name}"), &e))?;
        }
        for (place, mtime) in made {
            let times = super::dress::times(mtime);
            let set = rustix::fs::utimensat(
                rustix::fs::CWD,
                &place,
                &times,
                rustix::fs::AtFlags::empty(),
            );
            set.map_err(|e| {
                io_error(
                    format!("unpacking {} of {name}", place.display()),
                    &e.into(),
                )
            })?;
        }
        say(Said::Unpacked { name });
    }
    Ok(())
}

fn extract_item(
    tree: &Tree<'_>,
    package: &Package,
    item: &Item,
    made: &mut Vec<(PathBuf, i64)>,
) -> io::Result<()> {
    let path = item.entry.path.as_os_str();
    let there = tree.look(path)?;
    // The links of a merged /usr were made for packages that do not bring them. Those that do (base-files since Debian 13) have them as
    // they are in the package; dpkg, which would leave a link to the same directory alone, knows of none yet.
    let is_link = |m: &fs::Metadata| m.is_symlink();
    let link_again =
        matches!(item.entry.kind, Kind::Symlink(_)) && there.as_ref().is_some_and(is_link);
    let is_there = !link_again && tree.is_there(item, path, there.as_ref())?;
    if is_there || item.entry.kind == Kind::Device {
        return Ok(());
    }
    if let Some(parent) = tree.at(path).parent() {
        fs::create_dir_all(parent)?;
    }
    let dress = (item.entry.owner.0, item.entry.owner.1, item.entry.mode);
    let conffile = package.conffiles.iter().any(|(known, _)| known == path);
    if conffile && matches!(item.entry.kind, Kind::File(_)) {
        return tree.copy(item, path, dress);
    }
    let link = match &item.entry.kind {
        Kind::HardLink(target) => Some(target.as_os_str()),
        _ => None,
    };
    tree.make(item, path, there.as_ref(), dress, link)?;
    if item.entry.kind == Kind::Directory {
        made.push((tree.at(path), item.entry.mtime));
    }
    Ok(())
}
