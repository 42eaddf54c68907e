//! A Debian package as an RPM package.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::apt::Control;
use super::deb::{self, Entries, Entry};
use super::loader;
use super::names;
use super::spec::{Spec, Version, file_lines};

/// The names that dependencies may have.
pub(super) struct Known {
    /// Packages, of Debian's and of our own.
    pub(super) packages: BTreeSet<String>,
    /// What packages provide.
    pub(super) provided: BTreeSet<String>,
}

impl Known {
    fn has(&self, name: &str) -> bool {
        !names::is_dropped(name) && (self.packages.contains(name) || self.provided.contains(name))
    }
}

/// One of the alternatives of a dependency: `name (>= version)`.
struct Alternative<'a> {
    name: &'a str,
    version: Option<(&'a str, &'a str)>,
}

fn alternative(text: &str) -> Alternative<'_> {
    let (name, version) = text.trim().split_once('(').unwrap_or((text.trim(), ""));
    let name = name.trim();
    let version = version.trim_end().trim_end_matches(')');
    let digit = version.find(|c: char| !"<>=".contains(c)).unwrap_or(0);
    let (operator, version) = version.split_at(digit);
    Alternative {
        name: name.split(':').next().unwrap_or(name),
        version: (!operator.is_empty()).then(|| (operator, version.trim())),
    }
}

/// The dependencies in a field, each with its alternatives.
fn relations(field: Option<&String>) -> Vec<Vec<Alternative<'_>>> {
    let clauses = field.map_or("", String::as_str).split(',');
    let clauses = clauses.filter(|clause| !clause.trim().is_empty());
    clauses
        .map(|clause| clause.split('|').map(alternative).collect())
        .collect()
}

/// What packages provide beside their names.
pub(super) fn provided(control: &Control) -> Vec<String> {
    let all = relations(control.get("Provides")).into_iter().flatten();
    all.map(|alternative| alternative.name.to_owned()).collect()
}

/// A field's dependencies in rpm's words; what is not in the distribution is left out.
fn dependencies(field: Option<&String>, known: &Known) -> Vec<String> {
    let one = |alternative: &Alternative<'_>| match alternative.version {
        Some(("=", version)) if known.packages.contains(alternative.name) => {
            format!(
                "{} = {}",
                alternative.name,
                Version::of_debian(version).full()
            )
        }
        _ => alternative.name.to_owned(),
    };
    let mut all = Vec::new();
    for alternatives in relations(field) {
        let left = alternatives.iter().filter(|a| known.has(a.name)).map(one);
        let mut left: Vec<String> = left.collect();
        left.dedup();
        match left.len() {
            0 => {}
            1 => all.append(&mut left),
            _ => all.push(format!("({})", left.join(" or "))),
        }
    }
    all
}

fn tags(name: &str, control: &Control, known: &Known) -> Vec<String> {
    let mut tags = Vec::new();
    for (field, tag) in [
        ("Depends", "Requires"),
        ("Pre-Depends", "Requires"),
        ("Recommends", "Recommends"),
    ] {
        let all = dependencies(control.get(field), known);
        tags.extend(all.into_iter().map(|needed| format!("{tag}: {needed}")));
    }
    tags.extend(
        names::requires(name)
            .iter()
            .map(|needed| format!("Requires: {needed}")),
    );
    for alternative in relations(control.get("Provides")).into_iter().flatten() {
        let version = match alternative.version {
            Some(("=", version)) => format!(" = {}", Version::of_debian(version).full()),
            _ => String::new(),
        };
        tags.push(format!("Provides: {}{version}", alternative.name));
    }
    tags.extend(
        names::provides(name)
            .iter()
            .map(|more| format!("Provides: {more}")),
    );
    for alternative in relations(control.get("Conflicts")).into_iter().flatten() {
        if alternative.version.is_none()
            && known.packages.contains(alternative.name)
            && known.has(alternative.name)
        {
            tags.push(format!("Conflicts: {}", alternative.name));
        }
    }
    if name != "libc6" && name != "libgcc-s1" {
        tags.push("Requires(pre): filesystem".to_owned());
    }
    tags
}

/// Units that a package has and that presets decide about.
fn units(entries: &Entries, content: &Path) -> Vec<String> {
    let mut units = Vec::new();
    for path in entries.keys() {
        let Some(name) = path.strip_prefix("usr/lib/systemd/system/") else {
            continue;
        };
        let is_unit = [".service", ".socket", ".timer", ".path"]
            .iter()
            .any(|end| name.ends_with(end));
        let text =
            || fs::read_to_string(content.join(path)).is_ok_and(|text| text.contains("[Install]"));
        if is_unit && !name.contains('/') && text() {
            units.push(name.to_owned());
        }
    }
    units
}

/// The scriptlets of a package, with what presets need, and what they need in their turn.
fn scriptlets(name: &str, entries: &Entries, content: &Path, tags: &mut Vec<String>) -> String {
    let mut sections = names::sections(name);
    let units = units(entries, content);
    if !units.is_empty() && name != "systemd" {
        let preset = format!(
            "%post\n[ ! -x /usr/bin/systemctl ] || systemctl --no-reload preset {} >/dev/null 2>&1 || :\n",
            units.join(" ")
        );
        match sections.contains("%post\n") {
            true => sections = sections.replace("%post\n", &preset),
            false => sections.push_str(&preset),
        }
    }
    for (section, when) in [("%pre\n", "pre"), ("%post\n", "post")] {
        if sections.contains(section) {
            tags.push(format!("Requires({when}): bash setup"));
        }
    }
    if sections.contains("useradd") {
        tags.push("Requires(pre): passwd libc-bin coreutils".to_owned());
    }
    sections
}

/// Unpacks a package below `content`, with the changes that the tables name.
pub(super) fn unpack(name: &str, deb: &Path, content: &Path) -> Entries {
    fs::create_dir_all(content).expect("a directory");
    let mut entries = deb::unpack(deb, content);
    for path in names::without(name) {
        if entries.remove(*path).is_some() {
            fs::remove_file(content.join(path)).expect("a file");
        }
    }
    let place = |path: &str| {
        let place = content.join(path);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
        let _ = fs::remove_file(&place);
        place
    };
    for (path, target) in names::links(name) {
        symlink(target, place(path)).expect("a link");
        entries.insert((*path).to_owned(), Entry::of(0o777, false));
    }
    for (from, path) in names::copies(name) {
        fs::copy(content.join(from), place(path)).expect("a copy");
        entries.insert((*path).to_owned(), Entry::of(0o755, false));
    }
    for (path, (mode, user, group)) in names::OWNERS {
        if let Some(entry) = entries.get_mut(*path) {
            (entry.mode, entry.user, entry.group) =
                (*mode, (*user).to_owned(), (*group).to_owned());
        }
    }
    for (path, capabilities) in names::CAPABILITIES {
        if let Some(entry) = entries.get_mut(*path) {
            entry.capabilities = Some(capabilities);
        }
    }
    entries
}

/// A package of Debian's.
pub(super) struct Package<'a> {
    pub(super) name: &'a str,
    pub(super) control: &'a Control,
    pub(super) file: &'a Path,
    /// The generator's cache, which has the key for GRUB.
    pub(super) cache: &'a Path,
}

/// Builds a package into a directory.
pub(super) fn build(package: &Package<'_>, known: &Known, work: &Path, into: &Path) {
    let Package {
        name,
        control,
        file,
        cache,
    } = *package;
    let content = work.join("content");
    let mut entries = unpack(name, file, &content);
    if name == "grub-efi-amd64-signed" {
        let path = format!("boot/efi/EFI/{}/grubx64.efi", loader::DIRECTORY);
        let place = content.join(&path);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
        loader::make(cache, work, &place);
        entries.insert(path, Entry::of(0o755, false));
    }
    let version = Version::of_debian(&control["Version"]);
    if name.starts_with("linux-image-") {
        return super::kernel::build(name, &version, entries, work, into);
    }
    let conffiles = deb::conffiles(file);
    let mut tags = tags(name, control, known);
    let sections = scriptlets(name, &entries, &content, &mut tags);
    let list = work.join("files");
    let lines = file_lines(&entries, entries.keys(), |path| conffiles.contains(path));
    fs::write(&list, lines).expect("a list of files");
    let mut seen = BTreeSet::new();
    tags.retain(|tag| seen.insert(tag.clone()));
    let summary = control.get("Description").map_or(name, String::as_str);
    let spec = Spec {
        name: name.to_owned(),
        version,
        summary: summary.replace('%', ""),
        is_noarch: control["Architecture"] == "all",
        tags,
        sections: format!("{sections}%files -f {}\n", list.display()),
    };
    spec.build(&content, work, into);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_translated() {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known = Known {
            packages: all(&["libc6", "bash", "udev", "dpkg"]),
            provided: all(&["awk"]),
        };
        let field =
            "libc6 (>= 2.36), bash (= 1:5.2-1) | zsh, awk | bash:any, dpkg (>= 1.19), not-there"
                .to_owned();
        let expected = ["libc6", "bash = 1:5.2-1.kd9", "(awk or bash)"];
        assert_eq!(dependencies(Some(&field), &known), expected);
        assert!(dependencies(None, &known).is_empty());
    }
}
