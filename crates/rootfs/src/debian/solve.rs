//! From requests to exact packages, cut into layers.

use std::collections::HashSet;

use kiln_packages::debian::relation::{groups, list};
use kiln_packages::debian::{Metadata, Package, Universe};

use super::apt::{Choice, Question, resolve};
use super::snaps;
use crate::error::{Error, ErrorKind, Result};
use crate::requests::Requests;
use crate::run::Place;
use crate::slices::{Links, cut};

/// A package of the solution.
#[derive(Clone, Debug)]
pub(super) struct Solved {
    /// What the index says of it.
    pub package: Package,
    /// Index into [`Requests::layers`].
    pub layer: usize,
    /// Whether nobody asked for it by name.
    pub auto: bool,
}

/// Asks the tools root's apt for the packages of all layers and cuts its answer into them.
///
/// # Errors
/// There is no solution: the error says which requests take part in the conflict, and where they stand.
pub(super) fn solve(
    place: &Place<'_>,
    universe: &Universe,
    metadata: &Metadata,
    requests: &Requests,
    architecture: &str,
) -> Result<Vec<Solved>> {
    let mut question = question(metadata, requests, architecture);
    question.refused = snaps::all(universe);
    let choices = resolve(place, &question).map_err(|e| locate(e, requests, &question.refused))?;
    let packages = choices
        .iter()
        .map(|choice| find(universe, choice))
        .collect::<Result<Vec<Package>>>()?;
    let links: Vec<Links> = packages
        .iter()
        .map(|p| links(p, requests.recommends))
        .collect();
    let names: Vec<Vec<String>> = requests
        .layers
        .iter()
        .map(|(_, wanted)| wanted.iter().map(|w| w.name.clone()).collect())
        .collect();
    let layers = cut(&links, &names);
    let asked = |name: &str| names.iter().flatten().any(|n| n == name);
    Ok(packages
        .into_iter()
        .zip(layers)
        .map(|(package, layer)| Solved {
            auto: !asked(package.name()),
            package,
            layer,
        })
        .collect())
}

fn question(metadata: &Metadata, requests: &Requests, architecture: &str) -> Question {
    let mut question = Question {
        install: forms(requests),
        exclude: requests.exclude.keys().cloned().collect(),
        recommends: requests.recommends,
        architecture: architecture.to_owned(),
        ..Question::default()
    };
    for verified in &metadata.repositories {
        let repository = &verified.repository;
        let components = repository.components.join(" ");
        question.sources.push(format!(
            "deb [trusted=yes arch={architecture}] {} {} {components}",
            repository.uri, repository.suite
        ));
        question.lists.extend(
            verified
                .apt_lists()
                .into_iter()
                .map(|(name, path)| (name, path.to_owned())),
        );
    }
    question
}

/// What apt is asked to install. A version or suite that one layer names holds for all.
fn forms(requests: &Requests) -> Vec<String> {
    let wanted = || requests.layers.iter().flat_map(|(_, wanted)| wanted);
    let special: HashSet<&str> = wanted()
        .filter(|w| w.form != w.name)
        .map(|w| w.name.as_str())
        .collect();
    let mut forms: Vec<String> = wanted()
        .filter(|w| w.form != w.name || !special.contains(w.name.as_str()))
        .map(|w| w.form.clone())
        .collect();
    forms.sort();
    forms.dedup();
    forms
}

fn find(universe: &Universe, choice: &Choice) -> Result<Package> {
    let fits =
        |p: &&Package| p.version() == choice.version && p.architecture() == choice.architecture;
    universe
        .versions(&choice.name)
        .iter()
        .find(fits)
        .cloned()
        .ok_or_else(|| {
            let message = format!(
                "apt chose {} {} {}, which no index has",
                choice.name, choice.version, choice.architecture
            );
            Error::new(ErrorKind::Internal, message)
        })
}

fn links(package: &Package, recommends: bool) -> Links {
    let names = |text: &str| -> Vec<Vec<String>> {
        groups(text)
            .map(|group| group.iter().map(|r| r.name.to_owned()).collect())
            .collect()
    };
    let mut depends = names(package.pre_depends());
    depends.extend(names(package.depends()));
    Links {
        name: package.name().to_owned(),
        provides: list(package.field("Provides").unwrap_or(""))
            .map(|r| r.name.to_owned())
            .collect(),
        depends,
        recommends: if recommends {
            names(package.recommends())
        } else {
            Vec::new()
        },
    }
}

/// Says where the packages of a conflict were asked for, or excluded.
fn locate(mut error: Error, requests: &Requests, refused: &[(String, String)]) -> Error {
    let mut places: Vec<String> = Vec::new();
    for cause in &error.causes {
        let words: Vec<&str> = cause
            .split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)))
            .collect();
        for (layer, wanted) in &requests.layers {
            places.extend(
                wanted
                    .iter()
                    .filter(|w| words.contains(&w.name.as_str()))
                    .map(|w| format!("`{}` is asked for by layer {layer} at {}", w.name, w.origin)),
            );
        }
        places.extend(
            requests
                .exclude
                .iter()
                .filter(|(name, _)| words.contains(&name.as_str()))
                .map(|(name, origin)| format!("`{name}` is excluded at {origin}")),
        );
        let snaps = refused.iter().map(|(name, _)| name.as_str());
        let snaps = snaps.filter(|name| words.contains(name));
        places.extend(snaps.map(|name| {
            let hint = snaps::hint(name);
            format!("`{name}` is refused, because it only installs a snap: {hint}")
        }));
    }
    places.dedup();
    error.causes.extend(places);
    error
}
