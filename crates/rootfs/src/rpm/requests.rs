//! What a plan asks for, as package names that the repositories have.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kiln_kickstart::PackageRef;
use kiln_packages::glob_matches;
use kiln_packages::nearest;
use kiln_packages::rpm::Package;
use kiln_packages::rpm::closure::moved;
use kiln_packages::rpm::comps::{Comps, Environment, Group, Member};
use kiln_packages::rpm::modules::Modules;
use kiln_plan::{Layer, Plan, Request};

use super::answer::is_place;
use super::streams::{Absent, choose, hint_of};
use crate::error::{Error, Result};
use crate::requests::{Requests, SYSTEM, Wanted};

/// The group that every kickstart file has unless it says `--nocore`.
const CORE: &str = "core";

/// Collects what a plan asks for, the packages that its commands need among it.
///
/// # Errors
/// A package or group is unknown: all of them are named, each with its place and the nearest names.
pub(super) fn collect(
    plan: &Plan,
    packages: &[Package],
    comps: &Comps,
    modules: &Modules,
) -> Result<Requests> {
    let mut collector = Collector {
        packages,
        names: packages
            .iter()
            .map(|package| package.name.as_str())
            .collect(),
        comps,
        modules,
        streams: BTreeMap::new(),
        requests: Requests::default(),
        unknown: Vec::new(),
        dropped: BTreeSet::new(),
        conditional: Vec::new(),
    };
    collector.requests.recommends = !plan.layers.iter().any(|l| l.package_options.exclude_weak);
    collector.requests.multilib = plan.layers.iter().any(|l| l.package_options.multilib);
    collector.exclusions(plan);
    let system = collector.system(plan);
    collector.requests.layers.push((SYSTEM.to_owned(), system));
    for layer in &plan.layers {
        let wanted = collector.layer(layer);
        collector.requests.layers.push((layer.name.clone(), wanted));
    }
    collector.conditions();
    collector.finish()
}

struct Collector<'a> {
    packages: &'a [Package],
    names: HashSet<&'a str>,
    comps: &'a Comps,
    modules: &'a Modules,
    /// The stream of each module that is asked for, and where.
    streams: BTreeMap<String, (String, String)>,
    requests: Requests,
    unknown: Vec<Unknown>,
    /// Groups that are excluded somewhere: they stay out even where they are asked for again.
    dropped: BTreeSet<String>,
    /// Packages of groups that are taken if another is: layer, package, the other, place.
    conditional: Vec<(usize, &'a str, &'a str, String)>,
}

struct Unknown {
    /// A sentence.
    problem: String,
    origin: String,
    hint: String,
}

/// Which members of a group are meant.
#[derive(Clone, Copy)]
struct Extent {
    defaults: bool,
    optional: bool,
}

const USUAL: Extent = Extent {
    defaults: true,
    optional: false,
};

impl<'a> Collector<'a> {
    /// The last mention of a package decides, over all layers; an excluded group stays out.
    fn exclusions(&mut self, plan: &Plan) {
        for request in plan.layers.iter().flat_map(|l| &l.packages) {
            match &request.what {
                PackageRef::Package(pattern) => {
                    for name in self.expand(pattern) {
                        if request.exclude {
                            self.requests.exclude.insert(name, request.origin.clone());
                        } else {
                            self.requests.exclude.remove(&name);
                        }
                    }
                }
                PackageRef::Group { name, .. } if request.exclude => {
                    self.dropped.insert(name.trim_start_matches('^').to_owned());
                }
                PackageRef::Environment(name) if request.exclude => {
                    self.dropped.insert(name.clone());
                }
                PackageRef::Module { name, stream, .. } if request.exclude => {
                    self.unknown.push(Unknown {
                        problem: format!("`-@{name}:{stream}` is not supported: a stream is enabled by asking for it"),
                        origin: request.origin.clone(),
                        hint: "drop the line that asks for the stream, or exclude packages by name".to_owned(),
                    });
                }
                _ => {}
            }
        }
    }

    fn expand(&self, pattern: &str) -> Vec<String> {
        if !pattern.contains(['*', '?', '[']) {
            return vec![pattern.to_owned()];
        }
        let mut names: Vec<String> = self
            .names
            .iter()
            .filter(|name| glob_matches(pattern.as_bytes(), name.as_bytes()))
            .map(|&name| name.to_owned())
            .collect();
        names.sort();
        names
    }

    /// The core group, and what Kiln adds.
    fn system(&mut self, plan: &Plan) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let no_core = plan.layers.iter().any(|l| l.package_options.no_core);
        if !no_core && !self.dropped.contains(CORE) {
            let origin = "@core, which a kickstart has unless it says --nocore";
            match self.comps.groups.get(CORE) {
                Some(group) => self.group(group, USUAL, origin, &mut wanted),
                None => self.unknown.push(Unknown {
                    problem: "no repository has the group `@core`, which a kickstart has unless it says --nocore".to_owned(),
                    origin: plan.layers.first().map_or(String::new(), |l| l.name.clone()),
                    hint: "is the repository with the distribution's groups missing? without them write `%packages --nocore`".to_owned(),
                }),
            }
        }
        for added in &plan.system.packages {
            let origin = format!("added by Kiln: {}", added.why);
            self.package(&added.package, &origin, false, &mut wanted);
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
            let origin = format!("{} ({})", need.origin, need.why);
            self.package(&need.package, &origin, false, &mut wanted);
        }
        wanted
    }

    fn request(&mut self, request: &Request, lenient: bool, wanted: &mut Vec<Wanted>) {
        let origin = &request.origin;
        match &request.what {
            PackageRef::Package(name) => self.package(name, origin, lenient, wanted),
            PackageRef::Group {
                name,
                nodefaults,
                optional,
            } => {
                let extent = Extent {
                    defaults: !nodefaults,
                    optional: *optional,
                };
                self.groups(name, extent, origin, lenient, wanted);
            }
            PackageRef::Environment(name) => self.environment(name, origin, lenient, wanted),
            PackageRef::Module {
                name,
                stream,
                profile,
            } => {
                self.module(name, stream, profile.as_deref(), origin, lenient, wanted);
            }
        }
    }

    /// Packages of a module's profile, or of its default ones. All of them are asked for by the module's name.
    fn module(
        &mut self,
        name: &str,
        stream: &str,
        profile: Option<&str>,
        origin: &str,
        lenient: bool,
        wanted: &mut Vec<Wanted>,
    ) {
        let chosen = match choose(self.modules, name, stream, profile) {
            Ok(chosen) => chosen,
            Err(Absent { what, hint }) => return self.missing(what, origin, hint, lenient),
        };
        let before = self.streams.get(name);
        if let Some((other, place)) = before.filter(|(other, _)| other != chosen.stream) {
            let stream = chosen.stream;
            self.unknown.push(Unknown {
                problem: format!("`@{name}:{stream}` and `@{name}:{other}` are streams of one module, of which only one can be enabled"),
                origin: origin.to_owned(),
                hint: format!("the other is asked for at {place}: drop one of them"),
            });
            return;
        }
        let said = (chosen.stream.to_owned(), origin.to_owned());
        self.streams.entry(name.to_owned()).or_insert(said);
        let mut form = format!("@{name}:{}", chosen.stream);
        if let Some(profile) = profile {
            form = format!("{form}/{profile}");
        }
        let packages = chosen.packages.iter();
        wanted.extend(
            packages
                .filter(|p| !self.requests.exclude.contains_key(**p))
                .map(|package| Wanted {
                    form: form.clone(),
                    ..Wanted::new(package, origin)
                }),
        );
    }

    fn groups(
        &mut self,
        name: &str,
        extent: Extent,
        origin: &str,
        lenient: bool,
        wanted: &mut Vec<Wanted>,
    ) {
        if self.dropped.contains(name) {
            return;
        }
        match self.comps.groups.get(name) {
            Some(group) => self.group(group, extent, origin, wanted),
            // Anaconda takes `@name` for an environment, too.
            None if self.comps.environments.contains_key(name) => {
                self.environment(name, origin, lenient, wanted);
            }
            None if self.modules.streams.iter().any(|s| s.module == name) => {
                self.module(name, "", None, origin, lenient, wanted);
            }
            None => {
                let known = self.comps.groups.keys().map(String::as_str);
                let hint = hint_of("group", nearest(name, known, 3));
                self.missing(format!("group `@{name}`"), origin, hint, lenient);
            }
        }
    }

    fn environment(&mut self, name: &str, origin: &str, lenient: bool, wanted: &mut Vec<Wanted>) {
        if self.dropped.contains(name) {
            return;
        }
        let comps = self.comps;
        let Some(environment) = comps.environments.get(name) else {
            let known = comps.environments.keys().map(String::as_str);
            let hint = hint_of("environment", nearest(name, known, 3));
            return self.missing(format!("environment `@^{name}`"), origin, hint, lenient);
        };
        for group in members(environment)
            .filter(|group| !self.dropped.contains(*group))
            .collect::<Vec<_>>()
        {
            match comps.groups.get(group) {
                Some(group) => self.group(group, USUAL, origin, wanted),
                None => {
                    let what =
                        format!("group `@{group}`, which the environment `@^{name}` is made of,");
                    let hint = "the repository with this group is missing".to_owned();
                    self.missing(what, origin, hint, lenient);
                }
            }
        }
    }

    /// Members that no repository has are passed over, as dnf does: a list is for all architectures.
    fn group(&mut self, group: &'a Group, extent: Extent, origin: &str, wanted: &mut Vec<Wanted>) {
        for (name, member) in &group.packages {
            let is_meant = match member {
                Member::Mandatory => true,
                Member::Default => extent.defaults,
                Member::Optional => extent.optional,
                Member::Conditional(other) => {
                    let layer = self.requests.layers.len();
                    self.conditional
                        .push((layer, name, other, origin.to_owned()));
                    false
                }
            };
            if is_meant {
                self.member(name, origin, wanted);
            }
        }
    }

    fn member(&self, name: &str, origin: &str, wanted: &mut Vec<Wanted>) {
        if self.names.contains(name) && !self.requests.exclude.contains_key(name) {
            wanted.push(Wanted::new(name, origin));
        }
    }

    /// Takes members of groups whose condition was asked for.
    fn conditions(&mut self) {
        for (layer, name, other, origin) in std::mem::take(&mut self.conditional) {
            let mut asked = self.requests.layers.iter().flat_map(|(_, wanted)| wanted);
            if asked.any(|wanted| wanted.name == other) {
                let mut more = Vec::new();
                self.member(name, &origin, &mut more);
                if let Some((_, wanted)) = self.requests.layers.get_mut(layer) {
                    wanted.append(&mut more);
                }
            }
        }
    }

    fn package(&mut self, pattern: &str, origin: &str, lenient: bool, wanted: &mut Vec<Wanted>) {
        let names = self.expand(pattern);
        if names.is_empty() {
            let hint = "no package of the repositories matches the pattern".to_owned();
            return self.missing(format!("pattern `{pattern}`"), origin, hint, lenient);
        }
        for name in names {
            if self.requests.exclude.contains_key(&name) {
                continue;
            }
            match self.real_name(&name) {
                Some(real) => wanted.push(Wanted {
                    form: name,
                    ..Wanted::new(&real, origin)
                }),
                None => {
                    let hint = self.hint(&name);
                    self.missing(format!("package `{name}`"), origin, hint, lenient);
                }
            }
        }
    }

    /// The package that is meant: by its name, by that with a version or an architecture, or by something that it provides.
    fn real_name(&self, asked: &str) -> Option<String> {
        if self.names.contains(asked) {
            return Some(asked.to_owned());
        }
        let is_meant = |package: &&Package| {
            let Some(rest) = asked.strip_prefix(package.name.as_str()) else {
                return false;
            };
            let evr = &package.evr;
            let versions = [
                evr.version.clone(),
                format!("{}-{}", evr.version, evr.release),
                evr.to_string(),
            ];
            let arch = &package.arch;
            rest == format!(".{arch}")
                || versions
                    .iter()
                    .any(|v| rest == format!("-{v}") || rest == format!("-{v}.{arch}"))
        };
        if let Some(package) = self.packages.iter().find(is_meant) {
            return Some(package.name.clone());
        }
        let path = moved(asked);
        let provides = |package: &&Package| {
            let is_it = |name: &str| name == asked || path.as_deref() == Some(name);
            package.provides.iter().any(|c| is_it(&c.name))
                || package.files.iter().any(|f| is_it(f))
        };
        self.packages
            .iter()
            .any(|package| provides(&package))
            .then(|| asked.to_owned())
    }

    fn hint(&self, name: &str) -> String {
        if name.contains([' ', '\t', ',', ';']) {
            return "the whole line is one name: write one package a line, and nothing after it"
                .to_owned();
        }
        hint_of("package", nearest(name, self.names.iter().copied(), 3))
    }

    fn missing(&mut self, what: String, origin: &str, hint: String, lenient: bool) {
        if lenient {
            let sentence = format!("{what} does not exist and is left out (--ignoremissing)");
            self.requests.warnings.push((origin.to_owned(), sentence));
        } else {
            self.unknown.push(Unknown {
                problem: format!("{what} does not exist"),
                origin: origin.to_owned(),
                hint,
            });
        }
    }

    fn finish(self) -> Result<Requests> {
        // What the definition says itself comes before what Kiln adds to it.
        let (mut unknown, added): (Vec<_>, Vec<_>) = self
            .unknown
            .into_iter()
            .partition(|one| is_place(&one.origin));
        unknown.extend(added);
        let Some(first) = unknown.first() else {
            return Ok(self.requests);
        };
        let mut error = Error::definition(first.problem.clone())
            .at(first.origin.clone())
            .hint(first.hint.clone());
        for more in &unknown[1..] {
            let sentence = format!("{}: {} ({})", more.origin, more.problem, more.hint);
            error.others.push(sentence);
        }
        Err(error)
    }
}

/// The groups that an environment has unless they are left out.
fn members(environment: &Environment) -> impl Iterator<Item = &str> {
    let options = environment
        .options
        .iter()
        .filter(|(_, is_default)| *is_default);
    let options = options.map(|(group, _)| group.as_str());
    environment.groups.iter().map(String::as_str).chain(options)
}
