//! What a Debian package has in it, with `/usr` merged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use tar::{Archive, EntryType};

use super::run;

/// Directories that are links into `/usr`.
pub(super) const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64", "lib32", "libx32"];

/// What is left out: documentation, translations, and what only Debian's own tools read.
const UNWANTED: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/help",
    "usr/share/gtk-doc",
    "usr/share/doc-base",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/apport",
    "usr/share/initramfs-tools",
    "etc/init.d",
    "etc/default/grub.d",
    "etc/cron.daily",
    "etc/cron.weekly",
    "etc/rc0.d",
    "etc/rc6.d",
    "etc/rcS.d",
];

/// A file of a package; its path is relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) user: String,
    pub(super) group: String,
    pub(super) is_directory: bool,
    /// As `%caps` takes them.
    pub(super) capabilities: Option<&'static str>,
}

impl Entry {
    /// One of root's.
    pub(super) fn of(mode: u32, is_directory: bool) -> Self {
        Entry {
            mode,
            user: "root".to_owned(),
            group: "root".to_owned(),
            is_directory,
            capabilities: None,
        }
    }
}

/// Paths, and what is there.
pub(super) type Entries = BTreeMap<String, Entry>;

/// Where a path lies with `/usr` merged.
pub(super) fn merged(path: &str) -> String {
    let top = path.split('/').next().unwrap_or(path);
    match MERGED.contains(&top) {
        true => format!("usr/{path}"),
        false => path.to_owned(),
    }
}

fn is_unwanted(path: &str) -> bool {
    let below = |top: &str| {
        path.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let conversion = path.strip_prefix("usr/lib/x86_64-linux-gnu/gconv/");
    UNWANTED.iter().any(|top| below(top))
        || conversion.is_some_and(|name| !name.starts_with("UTF") && !name.starts_with("gconv"))
}

/// `a/./b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The way from a directory to a path.
fn relative(from: &str, to: &str) -> String {
    let from: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    let to: Vec<&str> = to.split('/').collect();
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - same);
    up.chain(to[same..].iter().copied())
        .collect::<Vec<_>>()
        .join("/")
}

/// Where a link leads to after the merge; `None` for one that would lead to itself.
fn target(at: &str, path: &str, target: &str) -> Option<String> {
    if let Some(absolute) = target.strip_prefix('/') {
        return (merged(&normal(absolute)) != path).then(|| target.to_owned());
    }
    let before = normal(&format!("{}/{target}", parent(at)));
    let after = merged(&before);
    let is_moved = after != before || at != path;
    match after == path {
        true => None,
        false if is_moved => Some(relative(parent(path), &after)),
        false => Some(target.to_owned()),
    }
}

/// Unpacks a package's files below `root`.
pub(super) fn unpack(deb: &Path, root: &Path) -> Entries {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .expect("dpkg-deb");
    let mut archive = Archive::new(child.stdout.take().expect("its output"));
    let (mut entries, mut hard) = (Entries::new(), Vec::new());
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let at = normal(&entry.path().expect("a path").to_string_lossy());
        let path = merged(&at);
        if at.is_empty() || MERGED.contains(&path.as_str()) || is_unwanted(&path) {
            continue;
        }
        let place = root.join(&path);
        let header = entry.header().clone();
        let name = |name: Option<&str>| name.filter(|n| !n.is_empty()).unwrap_or("root").to_owned();
        let mut made = Entry {
            mode: header.mode().expect("a mode") & 0o7777,
            user: name(header.username().expect("a user")),
            group: name(header.groupname().expect("a group")),
            is_directory: header.entry_type() == EntryType::Directory,
            capabilities: None,
        };
        fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
        let link = entry
            .link_name()
            .expect("a link")
            .map(|link| link.to_string_lossy().into_owned());
        match (header.entry_type(), link) {
            (EntryType::Directory, _) => fs::create_dir_all(&place).expect("a directory"),
            (EntryType::Symlink, Some(link)) => {
                let Some(target) =
                    target(&at, &path, &link).filter(|_| !entries.contains_key(&path))
                else {
                    continue;
                };
                symlink(target, &place).expect("a link");
                made = Entry::of(0o777, false);
            }
            (EntryType::Link, Some(link)) => {
                hard.push((merged(&normal(&link)), path, made));
                continue;
            }
            _ => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("a file");
                let _ = fs::remove_file(&place);
                fs::write(&place, bytes).expect("a file");
                let mode = fs::Permissions::from_mode(made.mode & 0o777 | 0o600);
                fs::set_permissions(&place, mode).expect("its mode");
            }
        }
        entries.insert(path, made);
    }
    for (from, path, made) in hard {
        fs::hard_link(root.join(from), root.join(&path)).expect("a hard link");
        entries.insert(path, made);
    }
    assert!(
        child.wait().expect("dpkg-deb").success(),
        "dpkg-deb reads {}",
        deb.display()
    );
    entries
}

/// The files that a package says are configuration.
pub(super) fn conffiles(deb: &Path) -> BTreeSet<String> {
    let control = run(Command::new("dpkg-deb").arg("--ctrl-tarfile").arg(deb));
    let mut archive = Archive::new(&control[..]);
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        if entry.path().is_ok_and(|path| path.ends_with("conffiles")) {
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            let paths = text
                .lines()
                .filter_map(|line| line.split_whitespace().last());
            return paths
                .map(|path| merged(path.trim_start_matches('/')))
                .collect();
        }
    }
    BTreeSet::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_same_place_after_the_merge() {
        for (at, link, expected) in [
            ("lib/x/a.so", "a.so.1", Some("a.so.1")),
            ("lib/x/a.so", "../../usr/lib/x/a.so", None),
            ("bin/nano", "../usr/bin/nano-full", Some("nano-full")),
            ("usr/lib/x/b.so", "../../../lib/x/b.so.1", Some("b.so.1")),
            (
                "sbin/init",
                "/lib/systemd/systemd",
                Some("/lib/systemd/systemd"),
            ),
            ("bin/which", "/usr/bin/which", None),
            ("etc/alternatives/x", "../../bin/x", Some("../../usr/bin/x")),
        ] {
            let found = target(at, &merged(at), link);
            assert_eq!(found.as_deref(), expected, "{at} -> {link}");
        }
    }
}
