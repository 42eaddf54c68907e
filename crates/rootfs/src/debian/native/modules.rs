//! Python modules of packages of a pool, put where their compilers find them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_digest::Sha256;
use kiln_packages::debian::contents::Kind;
use kiln_sandbox::{Call, Error, Say, Silence};
use serde::{Deserialize, Serialize};

use super::package::Package;
use crate::calls::io_error;

/// Where a pool is seen.
pub(in crate::debian) const PLACE: &str = "/pool";
/// Where packages' modules are listed, each with a line end after it.
pub(in crate::debian) const LISTS: &str = "/.kiln/lists";
/// Of documentation nobody compiles anything.
const DOCUMENTATION: &str = "/usr/share/doc/";
/// Where compilers look for nothing that they import, if they are told so.
const PUBLIC: &str = "/usr/lib/python3/dist-packages/";

/// Copies the modules of packages into the root, as they are in the packages, and lists them.
#[derive(Serialize, Deserialize)]
pub(crate) struct CopyModules {
    /// Keys of packages in the pool, and the names of their lists.
    pub(in crate::debian) packages: Vec<(String, String)>,
    /// Keys of those that the compilers consist of.
    pub(in crate::debian) compilers: Vec<String>,
}

/// A module of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Module {
    /// Its path.
    pub(crate) path: String,
    /// Of its content, hexadecimal.
    pub(crate) sha256: String,
}

impl Call for CopyModules {
    const NAME: &'static str = "debian.copy-modules";
    type Handed = ();
    type Message = Silence;
    /// The modules of each package; `None` where one is something else than a plain file with a plain name, or where a compiler might
    /// take it for a part of itself.
    type Answer = Vec<Option<Vec<Module>>>;

    fn run(self, (): (), _: &Say<Silence>) -> Result<Self::Answer, Error> {
        let copied = self.packages.iter().map(|(key, list)| {
            let package = Package::read(&Path::new(PLACE).join(key))?;
            let own = self.compilers.contains(key);
            let copied = copy(&package, Path::new("/"), list, own);
            copied.map_err(|e| io_error(format!("copying the modules of {key}"), &e))
        });
        Ok(without_shared(copied.collect::<Result<_, Error>>()?))
    }
}

/// Leaves out packages that have a module in one place with another: there is one file of them, and what was made of it would be the
/// other's answer, too.
fn without_shared(mut packages: Vec<Option<Vec<Module>>>) -> Vec<Option<Vec<Module>>> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for module in packages.iter().flatten().flatten() {
        *counts.entry(module.path.clone()).or_insert(0) += 1;
    }
    for package in &mut packages {
        let is_shared = |m: &Module| counts.get(&m.path).is_some_and(|&count| count > 1);
        if package.iter().flatten().any(is_shared) {
            *package = None;
        }
    }
    packages
}

fn copy(package: &Package, root: &Path, list: &str, own: bool) -> io::Result<Option<Vec<Module>>> {
    let mut modules = Vec::new();
    for item in package.items.iter().filter(|item| !item.filtered) {
        let path = item.entry.path.as_os_str();
        if path.as_encoded_bytes().ends_with(b".py") && item.entry.kind != Kind::Directory {
            let (Some(path), Some(number)) = (plain(path.to_str()), item.blob) else {
                return Ok(None);
            };
            if path.starts_with(DOCUMENTATION) {
                continue;
            }
            if !own && !path.starts_with(PUBLIC) {
                return Ok(None);
            }
            modules.push((path, package.dir.join(number.to_string()), item.entry.mode));
        }
    }
    let mut made = Vec::new();
    let mut text = String::new();
    for (path, from, mode) in modules {
        let content = fs::read(from)?;
        let to = root.join(path.trim_start_matches('/'));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&to, &content)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        text.push_str(path);
        text.push('\n');
        made.push(Module {
            path: path.to_owned(),
            sha256: hex::encode(Sha256::digest(&content)),
        });
    }
    let lists = root.join(LISTS.trim_start_matches('/'));
    fs::create_dir_all(&lists)?;
    fs::write(lists.join(list), text)?;
    Ok(Some(made))
}

/// A path that needs no quoting in a list.
fn plain(path: Option<&str>) -> Option<&str> {
    path.filter(|path| {
        path.starts_with('/') && !path.contains(|c: char| c.is_control() || c == '\\')
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_testkit::Package as Made;
    use kiln_testkit::package::Entry;

    use super::super::earlier::Earlier;
    use super::super::pool::{PoolItem, unpack};
    use super::*;

    /// The modules of a package with these entries, and the root that they are copied to.
    fn copied(entries: Vec<Entry>, own: bool) -> (tempfile::TempDir, Option<Vec<Module>>) {
        let top = tempfile::tempdir().expect("a directory");
        let mut made = Made::new("tool", "1");
        made.data.clear();
        for entry in entries {
            made = made.entry(entry);
        }
        let user = rustix::process::getuid().as_raw().into();
        let group = rustix::process::getgid().as_raw().into();
        for entry in &mut made.data {
            entry.owner = (user, group);
        }
        let file = top.path().join("deb");
        fs::write(&file, made.build()).expect("a package file");
        let (pool, root) = (top.path().join("pool"), top.path().join("root"));
        fs::create_dir(&pool).expect("a pool");
        let key = "tool_1_all".to_owned();
        let item = PoolItem {
            key: key.clone(),
            file,
        };
        unpack(&item, &pool, &[], &Earlier::default()).expect("unpacked");
        let package = Package::read(&pool.join(key)).expect("a package");
        let modules = copy(&package, &root, "tool", own).expect("copied");
        (top, modules)
    }

    #[test]
    fn modules_are_copied_with_their_digests() {
        let entries = vec![
            Entry::directory("./usr/lib/odd.py"),
            Entry::file("./usr/lib/odd.py/__init__.py", "one\n"),
            Entry::file("./usr/lib/b c.py", "").mode(0o755),
            Entry::file("./usr/lib/data.txt", "x"),
            Entry::file("./usr/share/doc/tool/example.py", "x"),
            Entry::symlink("./usr/lib/other", "b c.py"),
        ];
        let (top, modules) = copied(entries, true);
        let modules = modules.expect("modules");
        let found: BTreeMap<&str, &str> = modules
            .iter()
            .map(|m| (m.path.as_str(), m.sha256.as_str()))
            .collect();
        let sum = |text: &str| hex::encode(Sha256::digest(text));
        let (one, none) = (sum("one\n"), sum(""));
        let expected = [
            ("/usr/lib/b c.py", none.as_str()),
            ("/usr/lib/odd.py/__init__.py", one.as_str()),
        ];
        assert_eq!(found, BTreeMap::from(expected));
        let root = top.path().join("root");
        let mode = fs::metadata(root.join("usr/lib/b c.py")).expect("a module");
        assert_eq!(mode.permissions().mode() & 0o7777, 0o755);
        assert!(!root.join("usr/share").exists() && !root.join("usr/lib/data.txt").exists());
        let list = fs::read_to_string(root.join(".kiln/lists/tool")).expect("a list");
        assert_eq!(list.lines().count(), 2);
    }

    #[test]
    fn a_package_with_an_odd_module_is_left_to_its_script() {
        for odd in [
            Entry::symlink("./usr/lib/b.py", "a.py"),
            Entry::hard_link("./usr/lib/b.py", "./usr/lib/a.py"),
            Entry::file("./usr/lib/b\\c.py", ""),
        ] {
            let (_top, modules) = copied(vec![Entry::file("./usr/lib/a.py", ""), odd], true);
            assert_eq!(modules, None);
        }
    }

    #[test]
    fn packages_that_share_a_module_are_left_to_their_scripts() {
        let package = |paths: &[&str]| {
            let module = |path: &&str| Module {
                path: (*path).to_owned(),
                sha256: String::new(),
            };
            Some(paths.iter().map(module).collect::<Vec<_>>())
        };
        let packages = vec![
            package(&["/six.py", "/a.py"]),
            package(&["/b.py"]),
            None,
            package(&["/six.py"]),
        ];
        let expected = vec![None, package(&["/b.py"]), None, None];
        assert_eq!(without_shared(packages), expected);
    }

    #[test]
    fn a_module_that_a_compiler_might_import_is_left_to_its_script() {
        for (path, is_copied) in [
            ("./usr/lib/python3/dist-packages/msvcrt.py", true),
            ("./usr/lib/python3.11/msvcrt.py", false),
            ("./usr/lib/pypy3.9/msvcrt.py", false),
            ("./usr/share/python3/debpython/extra.py", false),
            ("./usr/bin/argparse.py", false),
            ("./usr/lib/python3/dist-packages.py", false),
        ] {
            let (_top, modules) = copied(vec![Entry::file(path, "")], false);
            assert_eq!(modules.is_some(), is_copied, "{path}");
        }
    }
}
