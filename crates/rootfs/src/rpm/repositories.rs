//! The repositories of a plan, in RPM's terms.

use kiln_packages::LockedPackage;
use kiln_packages::openpgp::Keyring;
use kiln_packages::rpm::manifest::Place;
use kiln_packages::rpm::presets::{KnownRepository, Preset, preset};
use kiln_packages::rpm::{Filter, Proof, Repository, Source};
use kiln_plan::{Hasher, Id, Plan, RpmRepository, RpmSource, Target};

use crate::error::{Error, Result};

/// The field of a lock that says which repository has a package.
pub(super) const REPOSITORY: &str = "repository";

/// The release's own repositories, then the plan's.
///
/// # Errors
/// There are none, or one has no keys or no address.
pub(super) fn repositories(plan: &Plan) -> Result<Vec<Repository>> {
    let target = &plan.target;
    let preset = preset(&target.distribution, &target.release);
    let mut all = Vec::new();
    if let Some(preset) = preset.iter().find(|_| plan.default_repositories) {
        let named =
            |known: &&KnownRepository| plan.rpm_repositories.iter().any(|r| r.name == known.name);
        let known = preset
            .repositories
            .iter()
            .filter(|known| known.is_default && !named(known));
        all.extend(known.map(|known| Repository {
            name: known.name.to_owned(),
            source: known.source.clone(),
            variables: variables(target),
            keys: preset.keys.clone(),
            proof: Proof::Packages,
            cost: Repository::COST,
            filter: Filter::default(),
            proxy: None,
            origin: String::new(),
        }));
    }
    for said in &plan.rpm_repositories {
        all.push(repository(said, target, preset.as_ref())?);
    }
    // Of two equal packages, that of the cheaper repository is the first.
    all.sort_by_key(|repository| repository.cost);
    match all.is_empty() {
        false => Ok(all),
        true => Err(Error::definition("the definition has no repositories")
            .hint("name one with `url` in a kickstart file, or add a [[repository]] to kiln.toml")),
    }
}

/// What the user should know of a release's own repositories, if they are used.
pub(super) fn warning(plan: &Plan, repositories: &[Repository]) -> Option<String> {
    let target = &plan.target;
    let are_own = |repository: &Repository| repository.origin.is_empty();
    let tried = format!(
        "Kiln was tried with generated RPM distributions, but not with the repositories of {}:{}, which its tests do not reach",
        target.distribution, target.release
    );
    repositories.iter().any(are_own).then_some(tried)
}

fn variables(target: &Target) -> Vec<(String, String)> {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        variable("releasever", &target.release),
        variable("basearch", &target.architecture),
        variable("arch", &target.architecture),
    ]
}

fn repository(
    said: &RpmRepository,
    target: &Target,
    preset: Option<&Preset>,
) -> Result<Repository> {
    let name = &said.name;
    let keys = said
        .keys
        .clone()
        .or_else(|| preset.map(|preset| preset.keys.clone()));
    let keys =
        keys.ok_or_else(|| {
            let message = format!("nothing says who signs the packages of the repository {name}");
            Error::definition(message).at(said.origin.clone()).hint(format!(
            "give its public key in kiln.toml: [[repository]] name = \"{name}\", key = \"FILE\""
        ))
        })?;
    let source = match &said.source {
        RpmSource::Base(urls) => Source::Base(urls.clone()),
        RpmSource::MirrorList(url) => Source::MirrorList(url.clone()),
        RpmSource::MetaLink(url) => Source::Metalink(url.clone()),
        RpmSource::Known => {
            let mut known = preset.iter().flat_map(|preset| &preset.repositories);
            let found = known.find(|known| known.name == name);
            found.map(|known| known.source.clone()).ok_or_else(|| {
                let (distribution, release) = (&target.distribution, &target.release);
                let message =
                    format!("{distribution}:{release} has no repository that is known as {name}");
                Error::definition(message)
                    .at(said.origin.clone())
                    .hint("give --baseurl, --mirrorlist or --metalink")
            })?
        }
    };
    Ok(Repository {
        name: name.clone(),
        source,
        variables: variables(target),
        keys,
        proof: match said.signed_metadata {
            Some(true) => Proof::Signature,
            _ => Proof::Packages,
        },
        cost: said.cost.unwrap_or(Repository::COST),
        filter: Filter {
            include: said.include.clone(),
            exclude: said.exclude.clone(),
        },
        proxy: said.proxy.clone(),
        origin: said.origin.clone(),
    })
}

/// Where a lock says that a repository is: the first address, or that of its list of mirrors.
pub(super) fn place(repository: &Repository) -> Result<String> {
    Ok(match repository.expanded()? {
        Source::Base(urls) => urls
            .into_iter()
            .next()
            .unwrap_or_else(|| repository.describe()),
        Source::MirrorList(url) | Source::Metalink(url) => url,
    })
}

/// A repository as a manifest of packages has it.
pub(super) fn place_of(repository: &Repository) -> Result<Place> {
    let how = match &repository.source {
        Source::Base(_) => "baseurl",
        Source::MirrorList(_) => "mirrorlist",
        Source::Metalink(_) => "metalink",
    };
    Ok((repository.name.clone(), (how, place(repository)?)))
}

/// The id of repositories and the keys that may sign them.
pub(super) fn id(repositories: &[Repository]) -> Result<Id> {
    let hasher = Hasher::new("rpm-signed.v1");
    let all = repositories.iter().try_fold(hasher, |hasher, repository| {
        let proof = repository.proof == Proof::Signature;
        Ok::<_, Error>(
            hasher
                .text("name", &repository.name)
                .text("place", &place(repository)?)
                .json("signed", &proof)
                .bytes("key", &repository.keys.1),
        )
    });
    Ok(all?.finish())
}

/// A sentence about a package that lies below none of the repositories. Mirrors are only known to those who ask for them.
pub(super) fn outside(
    repositories: &[Repository],
    package: &LockedPackage,
) -> Result<Option<String>> {
    let mut bases = Vec::new();
    for repository in repositories {
        match repository.expanded()? {
            Source::Base(urls) => bases.extend(urls),
            Source::MirrorList(_) | Source::Metalink(_) => return Ok(None),
        }
    }
    let below = |base: &String| {
        package
            .url
            .starts_with(&format!("{}/", base.trim_end_matches('/')))
    };
    Ok((!bases.iter().any(below)).then(|| {
        format!(
            "{} is below none of the definition's repositories",
            package.url
        )
    }))
}

/// The keys that may have signed a package, by the repository that its lock says.
pub(super) fn keyring(repositories: &[Repository], package: &LockedPackage) -> Result<Keyring> {
    Ok(of(repositories, package)?.keyring()?)
}

/// The repository that a lock says a package comes from.
pub(super) fn of<'a>(
    repositories: &'a [Repository],
    package: &LockedPackage,
) -> Result<&'a Repository> {
    let said = package.facts.get(REPOSITORY);
    let found = repositories.iter().find(|r| said == Some(&r.name));
    found.ok_or_else(|| {
        let name = said.map_or("no repository", String::as_str);
        Error::definition(format!(
            "{} comes from {name}, which the definition has not",
            package.describe()
        ))
        .hint("write the lock anew with `kiln lock`")
    })
}
