//! Paths that dependencies name, and that `primary` does not have: only the lists of all files say whose they are, and these are long.

use std::collections::{HashMap, HashSet};

use kiln_kickstart::PackageRef;
use kiln_packages::rpm::Package;
use kiln_packages::rpm::closure::moved;
use kiln_plan::Plan;

use super::words::words;

/// The paths that a plan asks for, or that anything needs or recommends which may be installed for these names. More than what will be
/// installed is looked at: whatever could satisfy a dependency counts.
pub(super) fn unknown<'n>(
    packages: &[Package],
    plan: &Plan,
    names: impl IntoIterator<Item = &'n str>,
    weak: bool,
) -> HashSet<String> {
    let known = Known::of(packages);
    let requests = plan.layers.iter().flat_map(|layer| &layer.packages);
    let asked = requests.filter_map(|request| match &request.what {
        PackageRef::Package(path) if !request.exclude && is_path(path) => Some(path.clone()),
        _ => None,
    });
    let mut wanted: HashSet<String> = asked.filter(|path| known.by(path).is_empty()).collect();
    let mut reached: Vec<bool> = packages.iter().map(|p| weak && p.supplements).collect();
    let mut queue: Vec<usize> = (0..packages.len()).filter(|&at| reached[at]).collect();
    let mut reach = |name: &str, queue: &mut Vec<usize>, wanted: &mut HashSet<String>| {
        let by = known.by(name);
        if by.is_empty() && is_path(name) {
            wanted.insert(name.to_owned());
        }
        for at in by {
            if !std::mem::replace(&mut reached[at], true) {
                queue.push(at);
            }
        }
    };
    names
        .into_iter()
        .for_each(|name| reach(name, &mut queue, &mut wanted));
    while let Some(at) = queue.pop() {
        let package = &packages[at];
        let needs = package.requires.iter().map(|c| c.name.as_str());
        let recommends = package.recommends.iter().map(String::as_str);
        for text in needs.chain(recommends.filter(|_| weak)) {
            // A library's name has no space in it, and is most of what there is.
            match text.starts_with('(') {
                true => words(text).for_each(|word| reach(&word, &mut queue, &mut wanted)),
                false => reach(text, &mut queue, &mut wanted),
            }
        }
    }
    // Where `/usr` was merged, either place will do.
    let others: Vec<String> = wanted.iter().filter_map(|path| moved(path)).collect();
    wanted.extend(others);
    wanted
}

fn is_path(name: &str) -> bool {
    name.starts_with('/')
}

/// Who has a name or a path, as far as `primary` says it.
struct Known<'a>(HashMap<&'a str, Vec<usize>>);

impl<'a> Known<'a> {
    fn of(packages: &'a [Package]) -> Self {
        let mut all: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, package) in packages.iter().enumerate() {
            let provided = package.provides.iter().map(|c| c.name.as_str());
            let files = package.files.iter().map(String::as_str);
            for name in provided.chain(files).chain([package.name.as_str()]) {
                let by = all.entry(name).or_default();
                if by.last() != Some(&at) {
                    by.push(at);
                }
            }
        }
        Known(all)
    }

    fn by(&self, name: &str) -> Vec<usize> {
        let found = self.0.get(name);
        let other = || self.0.get(moved(name)?.as_str());
        found.or_else(other).cloned().unwrap_or_else(Vec::new)
    }
}

#[cfg(test)]
mod tests {
    use kiln_packages::rpm::Capability;
    use kiln_plan::{Files, Input, lower_text};

    use super::*;

    struct One(&'static str);

    impl Files for One {
        fn read(&self, path: &str, _: &str) -> Result<(String, Vec<u8>), String> {
            let text = format!("%packages --nocore\n{}\n%end\n", self.0);
            Ok((path.to_owned(), text.into_bytes()))
        }
    }

    fn package(name: &str, requires: &[&str], recommends: &[&str]) -> Package {
        let capability = |name: &&str| Capability {
            name: (*name).to_owned(),
            version: None,
        };
        Package {
            name: name.to_owned(),
            requires: requires.iter().map(capability).collect(),
            recommends: recommends.iter().map(|name| (*name).to_owned()).collect(),
            files: vec![format!("/usr/bin/{name}")],
            ..Package::default()
        }
    }

    #[test]
    fn only_what_may_be_installed_counts() {
        let packages = [
            package("app", &["lib", "/bin/lib"], &["docs"]),
            package("lib", &["(/usr/share/a if other)"], &[]),
            package("docs", &["/usr/lib/b"], &[]),
            package("other", &["/usr/share/c"], &[]),
            package("stranger", &["/usr/share/d"], &[]),
        ];
        let text = "distribution = \"rocky:9\"\nlayers = [\"a.ks\"]\n";
        let of = |lines: &'static str, names: &[&'static str], weak: bool| {
            let lowered = lower_text("kiln.toml", text, &Input::default(), &One(lines));
            let found = unknown(
                &packages,
                &lowered.plan.expect("a plan"),
                names.iter().copied(),
                weak,
            );
            let mut found: Vec<String> = found.into_iter().collect();
            found.sort();
            found.join(" ")
        };
        assert_eq!(of("app", &["app"], false), "/usr/share/a /usr/share/c");
        assert_eq!(
            of("app", &["app"], true),
            "/lib/b /usr/lib/b /usr/share/a /usr/share/c"
        );
        assert_eq!(of("/usr/share/x\n-/usr/share/y", &[], true), "/usr/share/x");
        assert_eq!(of("lib", &["docs"], true), "/lib/b /usr/lib/b");
    }
}
