//! `url`, `repo` and `[[repository]]`.

use super::debian::components;
use super::{Lowering, commands};
use crate::definition::{Definition, RepositoryDefinition};
use crate::model::{Layer, Located, Repository, RpmRepository, RpmSource};
use crate::problem::Problem;

/// The name of the RPM repository that `url` names.
pub(super) const URL: &str = "url";

/// `debian:SUITE` where a kickstart's `url` names a Debian suite.
pub(super) fn suite_of_url(layers: &[Layer]) -> Option<String> {
    let command = commands(layers, "url").last()?;
    let (_, suite) = split_base(command.item.text("--url")?)?;
    Some(format!("debian:{suite}"))
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
            all.extend(self.defined(repository));
        }
        for (name, option) in [("url", "--url"), ("repo", "--baseurl")] {
            for command in commands(layers, name) {
                all.extend(self.kickstart_repository(command, option));
            }
        }
        all
    }

    fn defined(&mut self, definition: &RepositoryDefinition) -> Option<Repository> {
        let keys = match &definition.signed_by {
            None => None,
            Some(path) => match self.files.read(path, self.name) {
                Ok(found) => Some(found),
                Err(reason) => {
                    let message = format!(
                        "the key file `{path}` of repository {} cannot be read: {reason}",
                        definition.url
                    );
                    self.problems.push(Problem::error(message).at(self.name));
                    return None;
                }
            },
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

    /// All RPM repositories that the definition names, in order.
    pub(super) fn rpm_repositories(
        &mut self,
        definition: &Definition,
        layers: &[Layer],
    ) -> Vec<RpmRepository> {
        for repository in &definition.repositories {
            let message = format!("[[repository]] {} is a Debian repository", repository.url);
            let hint = "name RPM repositories with url and repo in a kickstart file";
            self.problems
                .push(Problem::error(message).at(self.name).hint(hint));
        }
        let mut all: Vec<RpmRepository> = Vec::new();
        // As in the reference, the last `url` counts.
        if let Some(url) = commands(layers, "url").last() {
            all.extend(self.rpm_repository(url, "--url"));
        }
        for command in commands(layers, "repo") {
            let Some(repository) = self.rpm_repository(command, "--baseurl") else {
                continue;
            };
            // A repository that is named again replaces the earlier one.
            all.retain(|r| r.name != repository.name);
            all.push(repository);
        }
        all
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
            .map(RpmSource::Base)
            .or_else(|| text("--mirrorlist").map(RpmSource::MirrorList))
            .or_else(|| text("--metalink").map(RpmSource::MetaLink));
        let Some(source) = source else {
            // The installer takes a bare `repo --name=updates` for one that it knows itself.
            if matches!(
                name.as_str(),
                "fedora" | "updates" | "updates-testing" | "rawhide"
            ) {
                return None;
            }
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
            origin: command.origin.clone(),
        })
    }
}
