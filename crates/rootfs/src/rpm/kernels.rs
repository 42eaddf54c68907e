//! Which of several kernels boots.
//!
//! A root need not have rpm, so what its database says of kernels is noted when packages are installed: after a step that leaves several
//! kernels, [`BROUGHT`] has a line for each package that brings one of them, itself or by what it needs. The last step chooses by it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use kiln_packages::rpm::version;
use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::{io_error, text_if_there};
use crate::finish::Kernels;
use crate::kernels;

/// Lines `KERNEL NAME VERSION ARCHITECTURE`: packages, and the version of the kernel that each leads to.
pub(super) const BROUGHT: &str = "/usr/lib/kiln/kernels";
/// What [`brought`] reads of each package, in rpm's query language, around the line of a package: what it provides, what it requires.
pub(super) const PACKAGE: &str = "@ ";
pub(super) const RELATIONS: &str = "[+ %{PROVIDENEVRS}\\n][- %{REQUIRENEVRS}\\n]";

/// Notes in the root which kernel boots, if there are several: that of the package `said`, or the one with the highest version.
pub(super) fn choose(root: &Path, said: Option<&str>) -> Result<Kernels, Error> {
    kernels::choose(root, found(root)?, said, |package, found| {
        let path = root.join(BROUGHT.trim_start_matches('/'));
        let noted =
            text_if_there(path).map_err(|e| io_error("reading what is noted of kernels", &e))?;
        of_package(&noted, package, found).ok_or_else(|| missing(package, found, &noted))
    })
}

fn missing(package: &str, found: &[String], noted: &str) -> Error {
    let message = format!(
        "[system] kernel = {package:?}: neither this package nor what it needs brings one of the kernels {}",
        found.join(", ")
    );
    let mut names: Vec<&str> = noted.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    names.sort_unstable();
    names.dedup();
    let hint = match names.as_slice() {
        [] => "leave one kernel in the root".to_owned(),
        names => format!(
            "name one of the packages that do, with a version where several have the name: {}",
            names.join(", ")
        ),
    };
    Error::new(ErrorKind::Input, message).hint(hint)
}

/// The kernel of a package, which is named as dnf takes it; the newest one where several packages have the name.
fn of_package(noted: &str, said: &str, found: &[String]) -> Option<String> {
    let is_meant = |line: &&str| {
        let Some([_, name, evr, architecture]) = fields(line) else {
            return false;
        };
        let Some(rest) = said.strip_prefix(name) else {
            return false;
        };
        let rest = rest
            .strip_suffix(&format!(".{architecture}"))
            .unwrap_or(rest);
        let without_epoch = evr.split_once(':').map_or(evr, |(_, rest)| rest);
        let version = without_epoch
            .split_once('-')
            .map_or(without_epoch, |(version, _)| version);
        rest.is_empty()
            || rest
                .strip_prefix('-')
                .is_some_and(|rest| [evr, without_epoch, version].contains(&rest))
    };
    let meant: Vec<&str> = noted
        .lines()
        .filter(is_meant)
        .filter_map(|line| line.split(' ').next())
        .collect();
    let is_one = |version: &&String| meant.contains(&version.as_str());
    found.iter().rev().find(is_one).cloned()
}

fn fields(line: &str) -> Option<[&str; 4]> {
    line.split(' ').collect::<Vec<_>>().try_into().ok()
}

/// Versions of the kernels, the lowest first.
fn found(root: &Path) -> Result<Vec<String>, Error> {
    let read = || -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(root.join("usr/lib/modules")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().join("vmlinuz").is_file() {
                versions.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        versions.sort_by(|a, b| version::compare(a, b).then_with(|| a.cmp(b)));
        Ok(versions)
    };
    read().map_err(|e| io_error("looking for kernels in /usr/lib/modules", &e))
}

/// Looks for kernels in the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct FindKernels {}

impl Call for FindKernels {
    const NAME: &'static str = "rpm.find-kernels";
    type Handed = ();
    type Message = Silence;
    type Answer = Vec<String>;

    fn run(self, (): (), _: &Say<Silence>) -> Result<Vec<String>, Error> {
        found(Path::new("/"))
    }
}

/// A package of rpm's database, with the texts of what it provides and needs.
#[derive(Default)]
struct Known<'a> {
    line: &'a str,
    provides: Vec<&'a str>,
    requires: Vec<&'a str>,
}

/// The lines of [`BROUGHT`]. `owners` are kernels, the lowest first, with the packages that have them; `relations` is what
/// rpm says of all packages, in the form of [`PACKAGE`] and [`RELATIONS`].
pub(super) fn brought(owners: &[(String, String)], relations: &[String]) -> String {
    let packages = read(relations);
    // By the name that each needs.
    let mut needing: HashMap<&str, Vec<(usize, &str)>> = HashMap::new();
    for (at, package) in packages.iter().enumerate() {
        for needed in &package.requires {
            let name = needed.split(' ').next().unwrap_or(needed);
            needing.entry(name).or_default().push((at, needed));
        }
    }
    let mut nearest: BTreeMap<usize, &str> = BTreeMap::new();
    let mut pending = VecDeque::new();
    // Of two that are as near, the newer one counts.
    for (kernel, owner) in owners.iter().rev() {
        let its = (0..packages.len()).filter(|&at| packages[at].line == owner);
        pending.extend(its.map(|at| (at, kernel.as_str())));
    }
    while let Some((at, kernel)) = pending.pop_front() {
        if nearest.contains_key(&at) {
            continue;
        }
        nearest.insert(at, kernel);
        for provided in &packages[at].provides {
            let name = provided.split(' ').next().unwrap_or(provided);
            let all = needing.get(name).into_iter().flatten();
            let fit = all.filter(|(_, needed)| fits(provided, needed));
            pending.extend(fit.map(|(other, _)| (*other, kernel)));
        }
    }
    let lines = nearest
        .iter()
        .map(|(at, kernel)| format!("{kernel} {}\n", packages[*at].line));
    lines.collect()
}

fn read(relations: &[String]) -> Vec<Known<'_>> {
    let mut packages: Vec<Known<'_>> = Vec::new();
    for line in relations {
        if let Some(line) = line.strip_prefix(PACKAGE) {
            packages.push(Known {
                line,
                ..Known::default()
            });
        } else if let Some(last) = packages.last_mut() {
            last.provides.extend(line.strip_prefix("+ "));
            last.requires.extend(line.strip_prefix("- "));
        }
    }
    packages
}

/// Whether what is provided is what is needed, where both have the same name: `NAME`, or `NAME = VERSION`, whose release may be left
/// out; of other comparisons the name is enough, since rpm has taken the packages together.
fn fits(provided: &str, needed: &str) -> bool {
    let version = |text| str::split_once(text, " = ").map(|(_, version)| version);
    version(needed).is_none_or(|wanted| {
        let rest = version(provided).unwrap_or("").strip_prefix(wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::CHOICE;

    const RELATED: &str = "@ kernel 6.1-2 x86_64\n+ kernel = 6.1-2\n- kernel-core = 6.1-2\n\
        @ kernel-core 6.1-2 x86_64\n+ kernel-core = 6.1-2\n- bash\n\
        @ kernel 6.1-1 x86_64\n+ kernel = 6.1-1\n- kernel-core = 6.1-1\n\
        @ kernel-core 6.1-1 x86_64\n+ kernel-core = 6.1-1\n\
        @ kernel-lt 5.4-1 x86_64\n+ kernel-lt = 5.4-1\n+ kernel-any\n\
        @ lt-meta 9 noarch\n- kernel-lt >= 5\n\
        @ modules 6.1-1 noarch\n- kernel-core = 6.1\n\
        @ bash 5 x86_64\n+ bash = 5\n";

    fn noted() -> String {
        let lines: Vec<String> = RELATED.lines().map(str::to_owned).collect();
        let owner = |kernel: &str, line: &str| (kernel.to_owned(), line.to_owned());
        let owners = [
            owner("5.4-1.lt", "kernel-lt 5.4-1 x86_64"),
            owner("6.1-1", "kernel-core 6.1-1 x86_64"),
            owner("6.1-2", "kernel-core 6.1-2 x86_64"),
        ];
        brought(&owners, &lines)
    }

    fn chosen(said: &str) -> Option<String> {
        let found = ["5.4-1.lt", "6.1-1", "6.1-2"].map(str::to_owned);
        of_package(&noted(), said, &found)
    }

    #[test]
    fn a_package_leads_to_the_kernel_that_it_needs() {
        assert_eq!(chosen("kernel-lt").as_deref(), Some("5.4-1.lt"));
        assert_eq!(chosen("lt-meta").as_deref(), Some("5.4-1.lt"));
        assert_eq!(chosen("kernel-core-6.1-1").as_deref(), Some("6.1-1"));
        assert_eq!(chosen("kernel-6.1-1.x86_64").as_deref(), Some("6.1-1"));
        assert!(!noted().contains("bash"));
        // Several packages have the name, or what is needed.
        assert_eq!(chosen("kernel").as_deref(), Some("6.1-2"));
        assert_eq!(chosen("kernel-6.1").as_deref(), Some("6.1-2"));
        assert_eq!(chosen("modules").as_deref(), Some("6.1-2"));
        assert_eq!(chosen("kernel-rt"), None);
        assert_eq!(chosen("bash"), None);
    }

    #[test]
    fn the_choice_is_noted_and_a_wrong_one_names_the_packages_that_there_are() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for version in ["5.4-1.lt", "6.1-1", "6.1-2"] {
            let home = root.join("usr/lib/modules").join(version);
            fs::create_dir_all(&home).unwrap();
            fs::write(home.join("vmlinuz"), "").unwrap();
        }
        fs::create_dir_all(root.join("usr/lib/kiln")).unwrap();
        fs::write(root.join(&BROUGHT[1..]), noted()).unwrap();
        let kernels = choose(root, Some("kernel-lt")).unwrap();
        assert!(kernels.said);
        let choice = fs::read_to_string(root.join(&CHOICE[1..])).unwrap();
        assert_eq!(choice, "5.4-1.lt\n");
        let kernels = choose(root, None).unwrap();
        assert_eq!(kernels.boots.as_deref(), Some("6.1-2"));
        let error = choose(root, Some("kernel-rt")).unwrap_err();
        let said = format!("{error:?}");
        assert!(
            said.contains("5.4-1.lt, 6.1-1, 6.1-2") && said.contains("kernel-core, kernel-lt"),
            "{said}"
        );
    }
}
