//! The verified metadata of RPM repositories, and what it answers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_packages::rpm::closure::moved;
use kiln_packages::rpm::comps::Comps;
use kiln_packages::rpm::manifest::{self, Pinned};
use kiln_packages::rpm::modules::Modules;
use kiln_packages::rpm::{
    Capability, Evr, Metadata, Package, Repository, VerifiedRepository, add_filelists, load_cached,
};
use kiln_packages::{Digest, Lock, LockedPackage, LockedRepository, TOOLS, Verdict};
use kiln_plan::{Plan, Target};

use super::answer::{Choice, ask};
use super::paths;
use super::pins::{Known, Pins, full, pinned};
use super::question::Question;
use super::repositories::{REPOSITORY, place, place_of};
use super::requests::collect;
use super::tools::{roots, tools};
use super::words::words;
use crate::error::{Error, ErrorKind, Result};
use crate::family::{Metadata as Source, World};
use crate::requests::Requests;
use crate::run::Place;
use crate::slices::{Links, cut};

/// Repositories as they were verified, with all packages of them.
pub struct Repositories {
    metadata: Metadata,
    target: Target,
    packages: Vec<Package>,
    /// For each package the index of its repository.
    of: Vec<usize>,
    comps: Comps,
    modules: Modules,
    /// All that is looked at, if something says so.
    pins: Option<Pins>,
}

impl Repositories {
    /// Reads the metadata of verified repositories.
    ///
    /// # Errors
    /// A file of it is malformed.
    pub fn read(metadata: Metadata, plan: &Plan) -> Result<Self> {
        let read = |verified: &VerifiedRepository| -> kiln_packages::Result<_> {
            Ok((verified.packages()?, verified.comps()?, verified.modules()?))
        };
        let panicked = || {
            kiln_packages::Error::new(
                kiln_packages::ErrorKind::Internal,
                "reading repository metadata panicked",
            )
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads = metadata
                .repositories
                .iter()
                .map(|v| scope.spawn(|| read(v)));
            let threads: Vec<_> = threads.collect();
            let joined = threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(panicked())));
            joined.collect()
        });
        let mut world = Repositories {
            metadata,
            target: plan.target.clone(),
            packages: Vec::new(),
            of: Vec::new(),
            comps: Comps::default(),
            modules: Modules::default(),
            pins: None,
        };
        for (at, outcome) in all.into_iter().enumerate() {
            let (packages, comps, modules) = outcome?;
            world.of.extend(packages.iter().map(|_| at));
            world.packages.extend(packages);
            world.comps.join(comps);
            world.modules.join(modules);
        }
        Ok(world)
    }

    /// Looks into the lists of all files, where something that may be installed for a plan needs a path that `primary` does not have.
    ///
    /// # Errors
    /// A list cannot be had, or is malformed.
    pub(super) fn look_for_paths(&mut self, plan: &Plan, source: &Source<'_>) -> Result<()> {
        // What is asked for by a path is known afterwards, and may need others.
        let mut looked = HashSet::new();
        loop {
            // What is wrong with the requests is told when they are made.
            let requests = collect(plan, &self.packages, &self.comps, &self.modules);
            let requests = requests.unwrap_or_else(|_| Requests {
                recommends: true,
                ..Requests::default()
            });
            let asked = requests.layers.iter().flat_map(|(_, wanted)| wanted);
            let mut names: Vec<&str> = asked.map(|wanted| wanted.name.as_str()).collect();
            for root in roots() {
                names.push(root);
            }
            let wanted = paths::unknown(&self.packages, plan, names, requests.recommends);
            let wanted: HashSet<String> = wanted.difference(&looked).cloned().collect();
            if wanted.is_empty() {
                return Ok(());
            }
            add_filelists(source.fetcher, &mut self.metadata, source.directory)?;
            self.add_files(&wanted)?;
            looked.extend(wanted);
        }
    }

    /// Notes which packages have these paths.
    fn add_files(&mut self, wanted: &HashSet<String>) -> Result<()> {
        for (of, verified) in self.metadata.repositories.iter().enumerate() {
            let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
            for (package, path) in verified.with_files(wanted)? {
                found.entry(package).or_default().push(path);
            }
            let its = self.of.iter().zip(&mut self.packages);
            for (_, package) in its.filter(|(its, _)| **its == of) {
                let more = package.sha256.and_then(|sha256| found.remove(&sha256));
                package.files.extend(more.into_iter().flatten());
            }
        }
        Ok(())
    }

    /// Reads what a directory has of repositories. What is not there, or not signed as it has to be, does not count; why the latter
    /// does not is told.
    pub(super) fn kept(
        repositories: &[Repository],
        plan: &Plan,
        directory: &Path,
        now: SystemTime,
    ) -> (Self, Vec<String>) {
        let mut metadata = Metadata {
            repositories: Vec::new(),
            warnings: Vec::new(),
        };
        let mut unfit = Vec::new();
        for repository in repositories {
            match load_cached(std::slice::from_ref(repository), directory, now) {
                Ok(one) => metadata.repositories.extend(one.repositories),
                Err(error) if error.kind() == kiln_packages::ErrorKind::Offline => {}
                Err(error) => unfit.push(error.to_string()),
            }
        }
        let none = Repositories {
            metadata: Metadata {
                repositories: Vec::new(),
                warnings: Vec::new(),
            },
            target: plan.target.clone(),
            packages: Vec::new(),
            of: Vec::new(),
            comps: Comps::default(),
            modules: Modules::default(),
            pins: None,
        };
        let world = Repositories::read(metadata, plan).unwrap_or_else(|error| {
            unfit.push(error.to_string());
            none
        });
        (world, unfit)
    }

    fn repository(&self, at: usize) -> &VerifiedRepository {
        &self.metadata.repositories[self.of[at]]
    }

    /// The package that a lock has.
    fn index(&self, package: &LockedPackage) -> Option<usize> {
        let repository = package.facts.get(REPOSITORY);
        let is_it = |at: &usize| {
            let ours = &self.packages[*at];
            ours.name == package.name
                && ours.arch == package.architecture
                && ours.evr.to_string() == package.version
                && Some(&self.repository(*at).repository.name) == repository
        };
        (0..self.packages.len()).find(is_it)
    }

    fn locked(&self, at: usize, layer: &str, auto: bool) -> LockedPackage {
        let (package, verified) = (&self.packages[at], self.repository(at));
        LockedPackage {
            name: package.name.clone(),
            version: package.evr.to_string(),
            architecture: package.arch.clone(),
            url: verified.url(package),
            // The reader of metadata takes no package without one.
            sha256: package
                .sha256
                .unwrap_or_else(|| kiln_packages::Digest::of(b"")),
            size: package.size,
            layer: layer.to_owned(),
            auto,
            facts: BTreeMap::from([(REPOSITORY.to_owned(), verified.repository.name.clone())]),
        }
    }

    /// The error of the build tools, which nobody asks for: where the repositories that they come from are named, and what to do.
    fn of_tools(&self, mut error: Error) -> Error {
        let all = self.metadata.repositories.iter().map(|v| &v.repository);
        let named = |repository: &Repository| match repository.origin.as_str() {
            "" => repository.name.clone(),
            origin => format!("{} ({origin})", repository.name),
        };
        let names: Vec<String> = all.clone().map(named).collect();
        error.causes.push(format!(
            "the build tools (dnf, rpm and what they need) are made of packages of the repositories {}",
            names.join(", ")
        ));
        let origin = all.map(|repository| &repository.origin);
        let origin = origin.into_iter().find(|origin| !origin.is_empty());
        error.origin = error.origin.or_else(|| origin.cloned());
        if error.kind == ErrorKind::Step {
            return error;
        }
        error.hint(
            "name the distribution's own repositories, all of one release, beside those with your packages: \
             `url` or `repo` in a kickstart file, or [[repository]] in kiln.toml",
        )
    }

    /// The packages of dnf's answer.
    fn find(&self, choices: &[Choice]) -> Result<Vec<usize>> {
        let key = |at: &usize| {
            let package = &self.packages[*at];
            (
                self.repository(*at).repository.name.as_str(),
                package.nevra(),
            )
        };
        let all: HashMap<(&str, String), usize> =
            (0..self.packages.len()).map(|at| (key(&at), at)).collect();
        let find = |choice: &Choice| {
            let evr = Evr {
                epoch: choice.epoch,
                version: choice.version.clone(),
                release: choice.release.clone(),
            };
            let nevra = format!("{}-{evr}.{}", choice.name, choice.architecture);
            let found = all.get(&(choice.repository.as_str(), nevra.clone()));
            found.copied().ok_or_else(|| {
                let message = format!(
                    "dnf chose {nevra} of {}, which no metadata has",
                    choice.repository
                );
                Error::new(ErrorKind::Internal, message)
            })
        };
        choices.iter().map(find).collect()
    }

    /// What the cut into layers has to know of the packages of a solution.
    fn links(&self, chosen: &[usize], choices: &[Choice]) -> Vec<Links> {
        let mut all: Vec<Links> = chosen
            .iter()
            .zip(choices)
            .map(|(&at, choice)| links(&self.packages[at], choice))
            .collect();
        // A package that supplements others comes with them.
        for choice in choices {
            for word in choice.supplements.iter().flat_map(|text| words(text)) {
                for link in &mut all {
                    if link.name == word || link.provides.contains(&word) {
                        link.recommends.push(vec![choice.name.clone()]);
                    }
                }
            }
        }
        all
    }
}

fn links(package: &Package, choice: &Choice) -> Links {
    let provided = package
        .provides
        .iter()
        .map(|capability| capability.name.clone());
    let needs = |capability: &Capability| groups(&capability.name);
    Links {
        name: package.name.clone(),
        provides: provided.chain(package.files.iter().cloned()).collect(),
        depends: package.requires.iter().flat_map(needs).collect(),
        recommends: choice
            .recommends
            .iter()
            .flat_map(|text| groups(text))
            .collect(),
    }
}

/// Or-groups of a dependency. What a rich one names is taken as if all of it was needed, as far as the solution has it.
fn groups(text: &str) -> Vec<Vec<String>> {
    let group = |word: String| {
        let other = moved(&word);
        std::iter::once(word).chain(other).collect()
    };
    words(text).map(group).collect()
}

impl World for Repositories {
    fn repositories(&self) -> Vec<LockedRepository> {
        let all = self.metadata.repositories.iter();
        all.map(|verified| LockedRepository {
            uri: place(&verified.repository).unwrap_or_else(|_| verified.repository.describe()),
            name: verified.repository.name.clone(),
            date: verified.repomd.date.unwrap_or(UNIX_EPOCH),
            release: verified.release,
        })
        .collect()
    }

    fn packages(&self) -> usize {
        self.packages.len()
    }

    fn warnings(&self) -> Vec<String> {
        self.metadata.warnings.clone()
    }

    fn verdict(&self, package: &LockedPackage) -> Verdict {
        let Some(at) = self.index(package) else {
            return Verdict::Unknown;
        };
        let ours = &self.packages[at];
        // Any mirror has the file at the same place.
        let is_there = package.url.ends_with(&format!("/{}", ours.href))
            || package.url == self.repository(at).url(ours);
        match ours.sha256 == Some(package.sha256) && ours.size == package.size && is_there {
            true => Verdict::Signed,
            false => Verdict::Differs(format!(
                "the metadata of {} has it with the SHA-256 {} and {} bytes at {}",
                self.repository(at).repository.name,
                ours.sha256
                    .map_or(String::new(), |sha256| sha256.to_string()),
                ours.size,
                ours.href
            )),
        }
    }

    fn files(&self) -> Vec<(String, PathBuf)> {
        let all = self.metadata.repositories.iter();
        all.flat_map(VerifiedRepository::kept).collect()
    }

    fn keys(&self) -> Vec<(String, Vec<u8>)> {
        let all = self
            .metadata
            .repositories
            .iter()
            .map(|verified| &verified.repository);
        all.map(|repository| {
            (
                format!("{}.key", repository.name),
                repository.keys.1.clone(),
            )
        })
        .collect()
    }

    fn tools(&self) -> Result<Vec<LockedPackage>> {
        let origin = |at: usize| self.repository(at).repository.origin.as_str();
        let found = tools(&self.packages, &self.target.architecture, &origin)
            .map_err(|error| self.of_tools(error))?;
        let mut all: Vec<_> = found
            .into_iter()
            .map(|at| self.locked(at, TOOLS, true))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn pin(&mut self, what: &str, text: &str) -> Result<Vec<String>> {
        let repositories = self.metadata.repositories.iter();
        let names: Vec<&str> = repositories.map(|v| v.repository.name.as_str()).collect();
        let known = Known {
            packages: &self.packages,
            of: &self.of,
            repositories: &names,
        };
        let (pins, warnings) = pinned(what, text, &self.target.architecture, &known)?;
        self.pins = Some(pins);
        Ok(warnings)
    }

    fn manifest(&self, lock: &Lock) -> Result<String> {
        let repositories = self.metadata.repositories.iter().map(|v| &v.repository);
        let places = repositories.map(place_of).collect::<Result<Vec<_>>>()?;
        let mut all = Vec::new();
        let locked = lock.packages.iter().filter(|p| p.layer != TOOLS);
        for package in locked {
            let at = self.index(package).ok_or_else(|| {
                let message = format!("no metadata has {}", package.describe());
                Error::new(ErrorKind::Internal, message)
            })?;
            let ours = &self.packages[at];
            all.push(Pinned {
                name: ours.name.clone(),
                evr: ours.evr.clone(),
                arch: ours.arch.clone(),
                repository: Some(self.repository(at).repository.name.clone()),
                sha256: Some(package.sha256),
                size: Some(package.size),
                location: ours.href.clone(),
            });
        }
        Ok(manifest::write(&places, &all))
    }

    fn requests(&self, plan: &Plan) -> Result<Requests> {
        let mut requests = collect(plan, &self.packages, &self.comps, &self.modules)?;
        if let (Some(pins), Some((_, last))) = (&self.pins, requests.layers.last_mut()) {
            last.extend(pins.wanted(&self.packages));
        }
        Ok(requests)
    }

    fn solve(&self, place: &Place<'_>, requests: &Requests) -> Result<Vec<LockedPackage>> {
        let only = self.pins.as_ref().map(|pins| {
            let all = pins.packages.iter();
            let named = |&at: &usize| {
                let repository = &self.repository(at).repository.name;
                format!("{repository} {}", full(&self.packages[at]))
            };
            all.map(named).collect()
        });
        let question = Question::new(&self.metadata.repositories, &self.target, requests);
        let question = question.only(only);
        let asked = ask(place, &question, &self.metadata.repositories, requests);
        let mut choices = asked.map_err(|error| match error.kind {
            ErrorKind::Step => self.of_tools(error),
            _ => error,
        })?;
        choices.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let chosen = self.find(&choices)?;
        let names: Vec<Vec<String>> = requests
            .layers
            .iter()
            .map(|(_, wanted)| wanted.iter().map(|w| w.name.clone()).collect())
            .collect();
        let layers = cut(&self.links(&chosen, &choices), &names);
        let locked = |((&at, choice), layer): ((&usize, &Choice), usize)| {
            let auto = !choice.asked;
            self.locked(at, &requests.layers[layer].0, auto)
        };
        Ok(chosen
            .iter()
            .zip(&choices)
            .zip(layers)
            .map(locked)
            .collect())
    }
}
