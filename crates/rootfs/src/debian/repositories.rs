//! The repositories of a plan, in Debian's terms: what is read for a build, and what apt finds in the image.

use kiln_packages::debian::{Archive, Keys, Repository, default_repositories};
use kiln_packages::{Lock, LockedRepository};
use kiln_plan::{Hasher, Id, Plan};

use crate::error::{Error, Result};
use crate::finish::Sources;

/// The plan's repositories with the release's own before them.
///
/// # Errors
/// There are none, or the release is unknown.
pub(super) fn repositories(plan: &Plan) -> Result<Vec<Repository>> {
    let (release, architecture) = (&plan.target.release, &plan.target.architecture);
    let archive = Archive::of(&plan.target.distribution);
    let mut all = Vec::new();
    if plan.default_repositories {
        all = default_repositories(archive, release, architecture)?;
    }
    for repository in &plan.repositories {
        let keys = match &repository.keys {
            None => Keys::Builtin(archive),
            Some((name, bytes)) => Keys::Given {
                name: name.clone(),
                bytes: bytes.clone(),
            },
        };
        let made = Repository {
            uri: repository.url.clone(),
            suite: repository.suite.clone(),
            components: repository.components.clone(),
            architecture: architecture.clone(),
            keys,
            check_valid_until: repository.check_valid_until,
            origin: repository.origin.clone(),
        };
        // A kickstart's `url` usually names one of the distribution's own suites again.
        all.retain(|r| r.uri != made.uri || r.suite != made.suite);
        all.push(made);
    }
    if all.is_empty() {
        return Err(Error::definition("the definition has no repositories")
            .hint("drop `no-default-repositories`, or add a [[repository]]"));
    }
    Ok(all)
}

/// The id of repositories and the keys that may sign them.
pub(super) fn id(repositories: &[Repository]) -> Id {
    let all = repositories.iter().fold(Hasher::new("signed.v1"), |h, r| {
        let h = h
            .text("uri", &r.uri)
            .text("suite", &r.suite)
            .json("components", &r.components)
            .text("architecture", &r.architecture);
        match &r.keys {
            Keys::Builtin(archive) => archive
                .files()
                .fold(h, |h, (_, bytes)| h.bytes("builtin", bytes)),
            Keys::Given { bytes, .. } => h.bytes("key", bytes),
        }
    });
    all.finish()
}

/// apt's sources in the image: the repositories that it was built from.
pub(super) fn sources(plan: &Plan, lock: &Lock) -> Sources {
    let keyring = match Archive::of(&plan.target.distribution) {
        Archive::Debian => "/usr/share/keyrings/debian-archive-keyring.gpg",
        Archive::Ubuntu => "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    };
    let mut keys = Vec::new();
    let mut text =
        String::from("# Written by Kiln: the repositories that this image was built from.\n");
    // A repository on the builder's own disk means nothing to the image's users.
    let public = |r: &&LockedRepository| !r.uri.starts_with("file:");
    for locked in lock.repositories.iter().filter(public) {
        let mut named = plan.repositories.iter();
        let given = named.find(|r| r.url == locked.uri && r.suite == locked.name);
        let components = match given {
            Some(repository) => repository.components.clone(),
            None => default_components(plan, &locked.name),
        };
        let signed_by = match given.and_then(|r| r.keys.as_ref()) {
            None => keyring.to_owned(),
            Some((_, bytes)) => {
                let armored = bytes.starts_with(b"-----BEGIN");
                let (number, ending) = (keys.len() + 1, if armored { "asc" } else { "gpg" });
                let path = format!("/etc/apt/keyrings/kiln-{number}.{ending}");
                keys.push((path.clone(), bytes.clone()));
                path
            }
        };
        text += &format!(
            "\nTypes: deb\nURIs: {}\nSuites: {}\n",
            locked.uri, locked.name
        );
        if !components.is_empty() {
            text += &format!("Components: {}\n", components.join(" "));
        }
        text += &format!("Signed-By: {signed_by}\n");
    }
    Sources {
        files: vec![("kiln.sources".to_owned(), text)],
        keys,
    }
}

fn default_components(plan: &Plan, suite: &str) -> Vec<String> {
    let main = || vec!["main".to_owned()];
    let target = &plan.target;
    let archive = Archive::of(&target.distribution);
    let all = default_repositories(archive, &target.release, &target.architecture);
    let Ok(all) = all else { return main() };
    all.into_iter()
        .find(|r| r.suite == suite)
        .map_or_else(main, |r| r.components)
}
