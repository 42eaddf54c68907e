//! What the target's own dnf is asked: the question, and the repositories as it reads them.

use std::collections::BTreeSet;

use kiln_packages::rpm::VerifiedRepository;
use kiln_packages::rpm::repomd::FILELISTS;
use kiln_plan::Target;
use kiln_sandbox::Mount;
use serde::Serialize;

use crate::requests::Requests;

/// dnf's whole world lies below this.
const WORLD: &str = "/run/kiln/dnf";
/// The question's place.
pub(super) const QUESTION: &str = "/run/kiln/dnf/question.json";
/// The script that asks.
pub(super) const SCRIPT: &str = "/run/kiln/dnf/resolve.py";
const RESOLVE: &str = include_str!("resolve.py");

#[derive(Serialize)]
pub(super) struct Question {
    scratch: &'static str,
    architecture: String,
    release: String,
    platform: String,
    weak: bool,
    multilib: bool,
    /// Whether there are lists of all files, which newer ones read only when they are told to.
    filelists: bool,
    repositories: Vec<Asked>,
    install: Vec<String>,
    modules: Vec<String>,
    exclude: Vec<String>,
    /// The only packages that there are, each with its repository before it.
    only: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Asked {
    name: String,
    path: String,
    cost: i64,
    include: Vec<String>,
    exclude: Vec<String>,
}

impl Question {
    /// What `requests` ask for, of these repositories.
    pub(super) fn new(
        metadata: &[VerifiedRepository],
        target: &Target,
        requests: &Requests,
    ) -> Self {
        let repositories = metadata.iter().map(|verified| &verified.repository);
        let asked = repositories.map(|repository| Asked {
            name: repository.name.clone(),
            path: path(&repository.name),
            cost: repository.cost,
            include: repository.filter.include.clone(),
            exclude: repository.filter.exclude.clone(),
        });
        let wanted = requests.layers.iter().flat_map(|(_, wanted)| wanted);
        // Packages of a module's profile are asked for by name, since some of them may be excluded; the stream is enabled before.
        let (mut install, mut modules) = (BTreeSet::new(), BTreeSet::new());
        for wanted in wanted {
            match stream(&wanted.form) {
                Some(stream) => {
                    modules.insert(stream.to_owned());
                    install.insert(wanted.name.clone());
                }
                None => {
                    install.insert(wanted.form.clone());
                }
            }
        }
        Question {
            scratch: "/tmp",
            architecture: target.architecture.clone(),
            release: target.release.clone(),
            platform: platform(target),
            weak: requests.recommends,
            multilib: requests.multilib,
            filelists: metadata
                .iter()
                .any(|verified| verified.files.iter().any(|(kind, _)| kind == FILELISTS)),
            repositories: asked.collect(),
            install: install.into_iter().collect(),
            modules: modules.into_iter().collect(),
            exclude: requests.exclude.keys().cloned().collect(),
            only: None,
        }
    }

    /// The same question where these packages are all that there is: `REPOSITORY NAME-EPOCH:VERSION-RELEASE.ARCHITECTURE`.
    pub(super) fn only(mut self, packages: Option<Vec<String>>) -> Self {
        self.only = packages;
        self
    }

    /// The script, the question, and what was verified of the repositories.
    pub(super) fn mounts(&self, metadata: &[VerifiedRepository]) -> serde_json::Result<Vec<Mount>> {
        let mut mounts = vec![
            file(SCRIPT.to_owned(), RESOLVE.as_bytes().to_vec()),
            file(QUESTION.to_owned(), serde_json::to_vec(self)?),
        ];
        for verified in metadata {
            let directory = path(&verified.repository.name);
            mounts.push(file(
                format!("{directory}/repodata/repomd.xml"),
                repomd(verified).into_bytes(),
            ));
            for (kind, source) in &verified.files {
                if let Some(listed) = verified.listed(kind) {
                    mounts.push(Mount::Bind {
                        source: source.clone(),
                        target: format!("{directory}/{}", inner(kind, &listed.href)),
                        writable: false,
                    });
                }
            }
        }
        Ok(mounts)
    }
}

/// `module:stream` of what is asked for as `@module:stream/profile`.
pub(super) fn stream(form: &str) -> Option<&str> {
    let form = form.strip_prefix('@')?;
    Some(form.split_once('/').map_or(form, |(stream, _)| stream))
}

/// What a module's packages have to fit; dnf.conf(5), `module_platform_id`.
fn platform(target: &Target) -> String {
    let release = target.release.split('.').next().unwrap_or(&target.release);
    let letters = match target.distribution.as_str() {
        "fedora" => "f",
        _ => "el",
    };
    format!("platform:{letters}{release}")
}

fn path(repository: &str) -> String {
    format!("{WORLD}/repositories/{repository}")
}

fn file(target: String, content: Vec<u8>) -> Mount {
    Mount::File {
        target,
        content,
        mode: 0o644,
    }
}

/// Where a file of metadata is below its repository. The end of its name says how it is compressed.
fn inner(kind: &str, href: &str) -> String {
    let name = href.rsplit('/').next().unwrap_or(href);
    let ending = name.split_once(".xml").or_else(|| name.split_once(".yaml"));
    let compression = ending.map_or("", |(_, rest)| rest);
    let format = if kind == "modules" { "yaml" } else { "xml" };
    format!("repodata/{kind}.{format}{compression}")
}

/// A `repomd.xml` with the files that were verified, and no others: dnf fetches whatever it names.
fn repomd(verified: &VerifiedRepository) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\">\n<revision>1</revision>\n",
    );
    let kinds = verified.files.iter().map(|(kind, _)| kind.as_str());
    let all = kinds.filter_map(|kind| Some((kind, verified.listed(kind)?)));
    for (kind, listed) in all {
        let open = listed.open.as_ref().map_or(String::new(), |(size, sha256)| {
            format!("<open-checksum type=\"sha256\">{sha256}</open-checksum><open-size>{size}</open-size>")
        });
        text += &format!(
            "<data type=\"{kind}\"><checksum type=\"sha256\">{}</checksum>{open}<location href=\"{}\"/><timestamp>1</timestamp><size>{}</size></data>\n",
            listed.sha256,
            inner(kind, &listed.href),
            listed.size
        );
    }
    text + "</repomd>\n"
}
