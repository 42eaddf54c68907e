//! What a plan asks for, as package names that the repositories have.

use std::collections::BTreeSet;

use kiln_kickstart::PackageRef;
use kiln_packages::debian::Universe;
use kiln_plan::configure::groups::{self, GroupMeaning, Priority};
use kiln_plan::{Layer, Plan, Request};

use crate::error::{Error, Result};
use crate::requests::{Requests, SYSTEM, Wanted};

use super::form::{Form, is_special};
use super::snaps;

/// Collects what a plan asks for, the packages that its commands need among it.
///
/// # Errors
/// A package or group is unknown: all of them are named, each with its place and the nearest names.
pub(super) fn collect(plan: &Plan, universe: &Universe) -> Result<Requests> {
    let mut collector = Collector {
        universe,
        architecture: &plan.target.architecture,
        requests: Requests::default(),
        unknown: Vec::new(),
        dropped: BTreeSet::new(),
    };
    collector.requests.recommends = !plan.layers.iter().any(|l| l.package_options.exclude_weak);
    collector.exclusions(plan);
    let system = collector.system(plan);
    collector.requests.layers.push((SYSTEM.to_owned(), system));
    for layer in &plan.layers {
        let wanted = collector.layer(layer);
        collector.requests.layers.push((layer.name.clone(), wanted));
    }
    collector.finish()
}

struct Collector<'a> {
    universe: &'a Universe,
    /// The image's.
    architecture: &'a str,
    requests: Requests,
    unknown: Vec<Unknown>,
    /// Groups that are excluded somewhere: they stay out even where they are asked for again.
    dropped: BTreeSet<String>,
}

struct Unknown {
    /// A sentence.
    problem: String,
    origin: String,
    hint: String,
}

impl Collector<'_> {
    /// The last mention of a package decides, over all layers; an excluded group stays out.
    fn exclusions(&mut self, plan: &Plan) {
        for request in plan.layers.iter().flat_map(|l| &l.packages) {
            match &request.what {
                PackageRef::Package(name) if task(name).is_some() => {
                    if let (true, Some(name)) = (request.exclude, task(name)) {
                        self.dropped.insert(name.to_owned());
                    }
                }
                PackageRef::Package(pattern) if request.exclude && is_special(pattern) => {
                    self.unknown.push(Unknown {
                        problem: format!(
                            "`-{pattern}` is not supported: a package stays out as a whole"
                        ),
                        origin: request.origin.clone(),
                        hint: format!("write `-{}`", Form::of(pattern).name),
                    });
                }
                PackageRef::Package(pattern) => {
                    let pattern = Form::of(pattern).name;
                    for name in self.expand(pattern) {
                        if request.exclude {
                            self.requests.exclude.insert(name, request.origin.clone());
                        } else {
                            self.requests.exclude.remove(&name);
                        }
                    }
                }
                PackageRef::Group { name, .. } if request.exclude => {
                    self.dropped.insert(task(name).unwrap_or(name).to_owned());
                }
                _ => {}
            }
        }
    }

    fn expand(&self, pattern: &str) -> Vec<String> {
        if is_glob(pattern) {
            return self
                .universe
                .matching(pattern)
                .map(|p| p.name().to_owned())
                .collect();
        }
        vec![pattern.to_owned()]
    }

    /// dpkg's essential set, the core group, and what Kiln adds.
    fn system(&mut self, plan: &Plan) -> Vec<Wanted> {
        let essential = self.universe.latest().filter(|p| p.is_essential());
        let mut wanted: Vec<Wanted> = essential
            .map(|p| Wanted::new(p.name(), "essential in Debian"))
            .collect();
        let core = !plan.layers.iter().any(|l| l.package_options.no_core)
            && !self.dropped.contains("core");
        if core && let Ok(meaning) = groups::resolve("core") {
            self.group(
                &meaning,
                "@core, which a kickstart has unless it says --nocore",
                &mut wanted,
            );
        }
        for added in &plan.system.packages {
            self.package(
                &added.package,
                &format!("added by Kiln: {}", added.why),
                false,
                &mut wanted,
            );
        }
        wanted
    }

    fn layer(&mut self, layer: &Layer) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let lenient = layer.package_options.ignore_missing;
        for request in layer.packages.iter().filter(|r| !r.exclude) {
            self.request(request, lenient, &mut wanted);
        }
        for need in layer.needs() {
            self.package(
                &need.package,
                &format!("{} ({})", need.origin, need.why),
                false,
                &mut wanted,
            );
        }
        wanted
    }

    fn request(&mut self, request: &Request, lenient: bool, wanted: &mut Vec<Wanted>) {
        match &request.what {
            PackageRef::Package(name) if task(name).is_none() => {
                self.package(name, &request.origin, lenient, wanted);
            }
            PackageRef::Package(name)
            | PackageRef::Group { name, .. }
            | PackageRef::Environment(name) => {
                let name = task(name).unwrap_or(name);
                if self.dropped.contains(name) {
                    return;
                }
                match self.meaning(name) {
                    Ok(meaning) => self.group(&meaning, &request.origin, wanted),
                    Err(hint) => {
                        self.missing(format!("group `@{name}`"), &request.origin, hint, lenient)
                    }
                }
            }
            PackageRef::Module { name, stream, .. } => {
                let hint =
                    "modules are a thing of RPM distributions; name the package instead".to_owned();
                self.missing(
                    format!("module `@{name}:{stream}`"),
                    &request.origin,
                    hint,
                    lenient,
                );
            }
        }
    }

    /// A group is what Kiln's table says, a task of the archive, or the metapackage of one.
    fn meaning(&self, name: &str) -> Result<GroupMeaning, String> {
        let unknown = match groups::resolve(name) {
            Ok(meaning) => return Ok(meaning),
            Err(unknown) => unknown,
        };
        let metapackage = format!("task-{name}");
        if self.universe.best(&metapackage).is_some() {
            return Ok(GroupMeaning {
                packages: vec![metapackage],
                priorities: Vec::new(),
            });
        }
        let members: Vec<String> = self
            .universe
            .task(name)
            .map(|p| p.name().to_owned())
            .collect();
        if members.is_empty() {
            Err(unknown.hint())
        } else {
            Ok(GroupMeaning {
                packages: members,
                priorities: Vec::new(),
            })
        }
    }

    fn group(&mut self, meaning: &GroupMeaning, origin: &str, wanted: &mut Vec<Wanted>) {
        for name in &meaning.packages {
            let name = self.task_package(name);
            if self.requests.exclude.contains_key(name) {
                continue;
            }
            if snaps::only_snap(self.universe, name) {
                let message = format!(
                    "{name} is left out of the group, because it only installs a snap: {}",
                    snaps::hint(name)
                );
                self.requests.warnings.push((origin.to_owned(), message));
                continue;
            }
            self.package(name, origin, false, wanted);
        }
        let universe = self.universe;
        let members = universe.latest().filter(|p| {
            meaning
                .priorities
                .iter()
                .any(|&m| p.priority() == priority(m))
        });
        for package in members.filter(|p| !self.requests.exclude.contains_key(p.name())) {
            wanted.push(Wanted::new(package.name(), origin));
        }
    }

    /// The name that the archive has for the metapackage of one of Debian's tasks.
    fn task_package<'n>(&self, name: &'n str) -> &'n str {
        if self.universe.best(name).is_some() {
            return name;
        }
        let other = OF_UBUNTU.iter().find(|(task, _)| *task == name);
        let other = other.map(|(_, package)| *package);
        let there = other.filter(|package| self.universe.best(package).is_some());
        there.unwrap_or(name)
    }

    /// Whether a package that was asked for is refused, because it only installs a snap.
    fn refused(&mut self, name: &str, origin: &str) -> bool {
        let is_snap = snaps::only_snap(self.universe, name);
        if is_snap {
            self.unknown.push(Unknown {
                problem: format!(
                    "package `{name}` only installs a snap, which needs the running system"
                ),
                origin: origin.to_owned(),
                hint: snaps::hint(name).to_owned(),
            });
        }
        is_snap
    }

    fn package(&mut self, pattern: &str, origin: &str, lenient: bool, wanted: &mut Vec<Wanted>) {
        if is_special(pattern) {
            return self.special(pattern, origin, lenient, wanted);
        }
        let names = self.expand(pattern);
        if names.is_empty() {
            let hint = "no package of the repositories matches the pattern".to_owned();
            return self.missing(format!("pattern `{pattern}`"), origin, hint, lenient);
        }
        for name in names {
            let is_pattern = name != pattern;
            if self.requests.exclude.contains_key(&name)
                || (is_pattern && snaps::only_snap(self.universe, &name))
                || self.refused(&name, origin)
            {
                continue;
            }
            if self.universe.best(&name).is_some()
                || self.universe.providers(&name).next().is_some()
            {
                wanted.push(Wanted::new(&name, origin));
            } else {
                let hint = self.hint(&name);
                self.missing(format!("package `{name}`"), origin, hint, lenient);
            }
        }
    }

    /// `name:architecture`, `name=version`, `name/suite`: what apt-get(8) takes beside names.
    fn special(&mut self, text: &str, origin: &str, lenient: bool, wanted: &mut Vec<Wanted>) {
        let form = Form::of(text);
        let name = form.name;
        if let Some((why, hint)) = form.unsupported(text, self.architecture) {
            return self.unknown.push(Unknown {
                problem: format!("`{text}` is not supported: {why}"),
                origin: origin.to_owned(),
                hint,
            });
        }
        if self.requests.exclude.contains_key(name) || self.refused(name, origin) {
            return;
        }
        if self.universe.best(name).is_none() {
            let hint = self.hint(name);
            return self.missing(format!("package `{name}`"), origin, hint, lenient);
        }
        if let Err((what, hint)) = form.find(self.universe) {
            return self.missing(what, origin, hint, lenient);
        }
        wanted.push(Wanted {
            form: form.for_apt(),
            ..Wanted::new(name, origin)
        });
    }

    fn hint(&self, name: &str) -> String {
        if name.contains([' ', '\t', ',', ';']) {
            return "the whole line is one name: write one package a line, and nothing after it"
                .to_owned();
        }
        let near = self.universe.nearest(name);
        if near.is_empty() {
            return "no repository of the definition has it; is a repository or a component missing?".to_owned();
        }
        format!("did you mean {}?", near.join(", "))
    }

    fn missing(&mut self, what: String, origin: &str, hint: String, lenient: bool) {
        if lenient {
            self.requests.warnings.push((
                origin.to_owned(),
                format!("{what} does not exist and is left out (--ignoremissing)"),
            ));
        } else {
            self.unknown.push(Unknown {
                problem: format!("{what} does not exist"),
                origin: origin.to_owned(),
                hint,
            });
        }
    }

    fn finish(self) -> Result<Requests> {
        let Some(first) = self.unknown.first() else {
            return Ok(self.requests);
        };
        let mut error = Error::definition(first.problem.clone())
            .at(first.origin.clone())
            .hint(first.hint.clone());
        for more in &self.unknown[1..] {
            error
                .others
                .push(format!("{}: {} ({})", more.origin, more.problem, more.hint));
        }
        Err(error)
    }
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Required => "required",
        Priority::Important => "important",
        Priority::Standard => "standard",
    }
}

/// Packages of Ubuntu that stand for Debian's tasks, for the groups that are known by these.
const OF_UBUNTU: &[(&str, &str)] = &[
    ("task-cinnamon-desktop", "ubuntucinnamon-desktop"),
    ("task-desktop", "ubuntu-desktop-minimal"),
    ("task-gnome-desktop", "ubuntu-desktop-minimal"),
    ("task-kde-desktop", "kubuntu-desktop"),
    ("task-lxqt-desktop", "lubuntu-desktop"),
    ("task-mate-desktop", "ubuntu-mate-desktop"),
    ("task-ssh-server", "openssh-server"),
    ("task-web-server", "apache2"),
    ("task-xfce-desktop", "xubuntu-desktop"),
];

/// The task in `name^`, as apt-get(8) takes tasks.
fn task(text: &str) -> Option<&str> {
    text.strip_suffix('^').filter(|name| !name.is_empty())
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_several_names_is_not_a_misspelt_one() {
        let universe = Universe::default();
        let collector = Collector {
            architecture: "amd64",
            universe: &universe,
            requests: Requests::default(),
            unknown: Vec::new(),
            dropped: BTreeSet::new(),
        };
        for name in ["vim nano", "vim,", "vim\tnano"] {
            assert!(
                collector.hint(name).contains("one package a line"),
                "{name}"
            );
        }
        assert!(!collector.hint("vimm").contains("one package a line"));
    }
}
