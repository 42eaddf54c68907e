//! `url`, `repo` and `[[repository]]`.

use super::debian::components;
use super::{Lowering, commands, ubuntu};
use crate::definition::{
    DebianRepositoryDefinition, Definition, RepositoryDefinition, RpmRepositoryDefinition,
};
use crate::model::{Layer, Located, Repository, RpmRepository, RpmSource};
use crate::problem::Problem;

/// The name of the RPM repository that `url` names.
pub(super) const URL: &str = "url";

/// `debian:SUITE` or `ubuntu:SUITE` where a kickstart's `url` names such a suite.
pub(super) fn suite_of_url(layers: &[Layer]) -> Option<String> {
    let command = commands(layers, "url").last()?;
    let (_, suite) = split_base(command.item.text("--url")?)?;
    let distribution = match ubuntu::has_suite(suite) {
        true => "ubuntu",
        false => "debian",
    };
    Some(format!("{distribution}:{suite}"))
}

/// Splits `http://host/debian/dists/bookworm` into its base and its suite.
fn split_base(url: &str) -> Option<(&str, &str)> {
    let (base, suite) = url.trim_end_matches('/').rsplit_once("/dists/")?;
    (!suite.is_empty()).then_some((base, suite))
}

impl Lowering<'_> {
    /// All repositories that the definition names, in order: kiln.toml first, then the kickstart files.
    pub(super) fn repositories(
        &mut self,
        definition: &Definition,
        layers: &[Layer],
    ) -> Vec<Repository> {
        let mut all: Vec<Repository> = Vec::new();
        for repository in &definition.repositories {
            match repository {
                RepositoryDefinition::Debian(repository) => all.extend(self.defined(repository)),
                RepositoryDefinition::Rpm(repository) => {
                    let message = format!(
                        "[[repository]] {} is of RPM packages, which Debian does not install",
                        repository.name
                    );
                    let hint = "name a Debian repository by url, suite and components";
                    self.problems
                        .push(Problem::error(message).at(self.name).hint(hint));
                }
            }
        }
        for (name, option) in [("url", "--url"), ("repo", "--baseurl")] {
            for command in commands(layers, name) {
                all.extend(self.kickstart_repository(command, option));
            }
        }
        all
    }

    fn defined(&mut self, definition: &DebianRepositoryDefinition) -> Option<Repository> {
        let keys = match &definition.signed_by {
            None => None,
            Some(path) => Some(self.key_file(path, &definition.url)?),
        };
        Some(Repository {
            url: definition.url.trim_end_matches('/').to_owned(),
            suite: definition.suite.clone(),
            components: definition.components.clone(),
            keys,
            check_valid_until: definition.check_valid_until,
            origin: self.name.to_owned(),
        })
    }

    /// A repository's keys: the file's name for messages, and its bytes.
    fn key_file(&mut self, path: &str, repository: &str) -> Option<(String, Vec<u8>)> {
        let found = self.files.read(path, self.name);
        found
            .map_err(|reason| {
                let message = format!(
                    "the key file `{path}` of repository {repository} cannot be read: {reason}"
                );
                self.problems.push(Problem::error(message).at(self.name));
            })
            .ok()
    }

    fn kickstart_repository(
        &mut self,
        command: &Located<kiln_kickstart::Command>,
        option: &str,
    ) -> Option<Repository> {
        let Some(url) = command.item.text(option) else {
            let message = format!(
                "`{}` without {option} names no Debian repository",
                command.item.name
            );
            let hint = format!(
                "mirror lists and metalinks are for RPM repositories; give {option}=http://…/dists/SUITE"
            );
            self.problems.push(
                Problem::error(message)
                    .at(command.origin.clone())
                    .hint(hint),
            );
            return None;
        };
        let Some((base, suite)) = split_base(url) else {
            let message = format!("`{url}` is not the address of a Debian suite");
            let hint = "a Debian repository's URL ends in /dists/SUITE, for example http://deb.debian.org/debian/dists/bookworm";
            self.problems.push(
                Problem::error(message)
                    .at(command.origin.clone())
                    .hint(hint),
            );
            return None;
        };
        Some(Repository {
            url: base.to_owned(),
            suite: suite.to_owned(),
            components: components(suite)
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            keys: None,
            check_valid_until: true,
            origin: command.origin.clone(),
        })
    }

    /// All RPM repositories that the definition names, in order: kiln.toml first, then the kickstart files.
    pub(super) fn rpm_repositories(
        &mut self,
        definition: &Definition,
        layers: &[Layer],
    ) -> Vec<RpmRepository> {
        let mut defined: Vec<Defined> = Vec::new();
        for repository in &definition.repositories {
            match repository {
                RepositoryDefinition::Rpm(repository) => {
                    if defined.iter().any(|other| other.name() == repository.name) {
                        let message = format!("two [[repository]] are called {}", repository.name);
                        self.problems.push(Problem::error(message).at(self.name));
                    }
                    defined.extend(self.defined_rpm(repository));
                }
                RepositoryDefinition::Debian(repository) => {
                    let message =
                        format!("[[repository]] {} is a Debian repository", repository.url);
                    let hint =
                        "name an RPM repository by name, key and baseurl, mirrorlist or metalink";
                    self.problems
                        .push(Problem::error(message).at(self.name).hint(hint));
                }
            }
        }
        let mut said: Vec<RpmRepository> = Vec::new();
        // As in the reference, the last `url` counts.
        if let Some(url) = commands(layers, "url").last() {
            said.extend(self.rpm_repository(url, "--url"));
        }
        for command in commands(layers, "repo") {
            let Some(repository) = self.rpm_repository(command, "--baseurl") else {
                continue;
            };
            // A repository that is named again replaces the earlier one.
            said.retain(|r| r.name != repository.name);
            said.push(repository);
        }
        for repository in &mut said {
            let of_name = |defined: &Defined| defined.name() == repository.name;
            if let Some(at) = defined.iter().position(of_name) {
                defined.remove(at).complete(repository);
            }
        }
        let mut all = Vec::new();
        for alone in defined {
            match alone.is_placed {
                true => all.push(alone.repository),
                false => self.no_place(alone.name()),
            }
        }
        all.append(&mut said);
        all
    }

    fn no_place(&mut self, name: &str) {
        let message = format!(
            "[[repository]] {name} does not say where it is, and no kickstart file has a repository of this name"
        );
        self.problems
            .push(Problem::error(message).at(self.name).hint(
                "give baseurl, mirrorlist or metalink; the name of a kickstart's `url` is \"url\"",
            ));
    }

    fn defined_rpm(&mut self, said: &RpmRepositoryDefinition) -> Option<Defined> {
        let keys = match &said.key {
            None => None,
            Some(path) => Some(self.key_file(path, &said.name)?),
        };
        let place = match (&said.mirrorlist, &said.metalink) {
            (Some(url), _) => Some(RpmSource::MirrorList(url.clone())),
            (_, Some(url)) => Some(RpmSource::MetaLink(url.clone())),
            _ if said.baseurl.is_empty() => None,
            _ => Some(RpmSource::Base(said.baseurl.clone())),
        };
        let is_placed = place.is_some();
        let repository = RpmRepository {
            name: said.name.clone(),
            source: place.unwrap_or(RpmSource::Known),
            cost: said.cost,
            exclude: said.exclude.clone(),
            include: said.include.clone(),
            install: false,
            keys,
            proxy: said.proxy.clone(),
            signed_metadata: said.repo_gpgcheck,
            origin: self.name.to_owned(),
        };
        Some(Defined {
            repository,
            is_placed,
        })
    }

    fn rpm_repository(
        &mut self,
        command: &Located<kiln_kickstart::Command>,
        base: &str,
    ) -> Option<RpmRepository> {
        let said = &command.item;
        let name = said.text("--name").unwrap_or(URL).to_owned();
        let text = |option: &str| said.text(option).map(str::to_owned);
        let source = text(base)
            .map(|url| RpmSource::Base(vec![url]))
            .or_else(|| text("--mirrorlist").map(RpmSource::MirrorList))
            .or_else(|| text("--metalink").map(RpmSource::MetaLink));
        // The installer takes a bare `repo --name=updates` for one that it knows itself.
        const KNOWN: &[&str] = &["fedora", "updates", "updates-testing", "rawhide"];
        let known = || KNOWN.contains(&name.as_str()).then_some(RpmSource::Known);
        let Some(source) = source.or_else(known) else {
            let message = format!("`{} --name={name}` does not say where it is", said.name);
            self.problems.push(
                Problem::error(message)
                    .at(command.origin.clone())
                    .hint(format!("give {base}, --mirrorlist or --metalink")),
            );
            return None;
        };
        let list = |option: &str| {
            said.list(option)
                .iter()
                .flat_map(|words| words.split(','))
                .map(|word| word.trim().to_owned())
                .filter(|word| !word.is_empty())
                .collect()
        };
        Some(RpmRepository {
            name,
            source,
            cost: said.int("--cost"),
            exclude: list("--excludepkgs"),
            include: list("--includepkgs"),
            install: said.flag("--install"),
            keys: None,
            proxy: text("--proxy"),
            signed_metadata: None,
            origin: command.origin.clone(),
        })
    }
}

/// A repository of kiln.toml.
struct Defined {
    repository: RpmRepository,
    /// Whether it says where it is.
    is_placed: bool,
}

impl Defined {
    fn name(&self) -> &str {
        &self.repository.name
    }

    /// Adds to a kickstart's repository of the same name what that does not say.
    fn complete(self, said: &mut RpmRepository) {
        let own = self.repository;
        said.keys = own.keys;
        said.signed_metadata = own.signed_metadata;
        said.proxy = said.proxy.take().or(own.proxy);
        said.cost = said.cost.or(own.cost);
        if said.exclude.is_empty() {
            said.exclude = own.exclude;
        }
        if said.include.is_empty() {
            said.include = own.include;
        }
    }
}
