//! The repositories of a plan, in RPM's terms.

use kiln_packages::LockedPackage;
use kiln_packages::openpgp::Keyring;
use kiln_packages::rpm::repository::Filter;
use kiln_packages::rpm::{Proof, Repository, Source};
use kiln_plan::{Hasher, Id, Plan, RpmRepository, RpmSource, Target};

use crate::error::{Error, Result};

/// The plan's repositories.
///
/// # Errors
/// There are none, or one has no keys.
pub(super) fn repositories(plan: &Plan) -> Result<Vec<Repository>> {
    let mut all: Vec<Repository> = plan
        .rpm_repositories
        .iter()
        .map(|said| repository(said, &plan.target))
        .collect::<Result<_>>()?;
    // Of two equal packages, that of the cheaper repository is the first.
    all.sort_by_key(|repository| repository.cost);
    match all.is_empty() {
        false => Ok(all),
        true => Err(Error::definition("the definition has no repositories")
            .hint("name one with `url` in a kickstart file, or add a [[repository]] to kiln.toml")),
    }
}

fn repository(said: &RpmRepository, target: &Target) -> Result<Repository> {
    let Some(keys) = &said.keys else {
        let message = format!(
            "nothing says who signs the packages of the repository {}",
            said.name
        );
        return Err(Error::definition(message)
            .at(said.origin.clone())
            .hint(format!(
                "give its public key in kiln.toml: [[repository]] name = \"{}\", key = \"FILE\"",
                said.name
            )));
    };
    let source = match &said.source {
        RpmSource::Base(urls) => Source::Base(urls.clone()),
        RpmSource::MirrorList(url) => Source::MirrorList(url.clone()),
        RpmSource::MetaLink(url) => Source::Metalink(url.clone()),
        RpmSource::Known => {
            let message = format!("where the repository {} is was not said", said.name);
            return Err(Error::definition(message)
                .at(said.origin.clone())
                .hint("give --baseurl, --mirrorlist or --metalink"));
        }
    };
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Ok(Repository {
        name: said.name.clone(),
        source,
        variables: vec![
            variable("releasever", &target.release),
            variable("basearch", &target.architecture),
            variable("arch", &target.architecture),
        ],
        keys: keys.clone(),
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
        Source::Base(urls) => urls.into_iter().next().unwrap_or(String::new()),
        Source::MirrorList(url) | Source::Metalink(url) => url,
    })
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
    let said = package.facts.get(super::facts::REPOSITORY);
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
