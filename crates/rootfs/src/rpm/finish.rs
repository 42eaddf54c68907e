//! What the last step changes in an RPM root, beside what every root needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_plan::{Plan, RpmSource};
use kiln_sandbox::{Call, Error, Say, Silence};
use serde::{Deserialize, Serialize};

use super::install::{FORMAT, NOTE, TRANSACTION};
use super::kernels;
use super::times::SetTimes;
use crate::calls::io_error;
use crate::error::Result;
use crate::finish::{
    Finish, Finished, Installed, Kernels, Sources, call, common, empty_all, forget,
};
use crate::regular;
use crate::run::{Extras, Place, standard_env};
use crate::secrets::{Secrets, Ways};

/// Files that record when and where packages were installed, and nothing that the image needs.
const FORGOTTEN: &[&str] = &[
    NOTE,
    kernels::BROUGHT,
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
    "/var/log/dnf.log",
    "/var/log/dnf.librepo.log",
    "/var/log/dnf.rpm.log",
    "/var/log/hawkey.log",
];
/// Directories that are left, but emptied.
const EMPTIED: &[&str] = &["/var/cache/dnf", "/var/cache/libdnf5"];
/// The ways of RPM distributions with keys. A key that a package brought is told as one that its scripts made.
const WAYS: Ways = Ways {
    databases: &["/var/lib/rpm", "/var/lib/dnf"],
    ..Ways::COMMON
};
/// Where dnf finds repositories, and where their keys are.
const REPOSITORIES: &str = "/etc/yum.repos.d";
const KEYS: &str = "/etc/pki/rpm-gpg";

/// What is installed: as the root's own rpm says, which scripts may have used, after a line with the directory of its database; or as
/// Kiln left it.
const LIST: &str = "for d in /usr/lib/sysimage/rpm /var/lib/rpm; do \
    for f in rpmdb.sqlite Packages.db Packages; do [ ! -x /usr/bin/rpm ] || [ ! -f \"$d/$f\" ] || { echo \"$d\"; exec /usr/bin/rpm --dbpath \"$d\" -qa --qf \"$1$2\"; }; done; \
    done; [ ! -f \"$3\" ] || exec cat \"$3\"";

pub(super) fn finish(
    place: &Place<'_>,
    finish: &Finish,
    packages: Vec<PathBuf>,
) -> Result<Finished> {
    let lines = place.lines(&["/bin/sh", "-c", LIST, "sh", TRANSACTION, FORMAT, NOTE])?;
    let (database, lines) = match lines.split_first() {
        Some((first, rest)) if first.starts_with('/') => (Some(first), rest),
        _ => (None, lines.as_slice()),
    };
    let mut installed: Vec<Installed> = match database {
        None => lines.iter().filter_map(|line| package(line)).collect(),
        Some(_) => {
            let lines = lines.iter().filter_map(|line| line.split_once(' '));
            lines.filter_map(|(_, line)| package(line)).collect()
        }
    };
    installed.sort();
    if let Some(database) = database {
        set_times(place, database, lines)?;
    }
    let (secrets, kernels) = call(place, &FinishRpm(finish.clone()), packages)?;
    Ok(Finished {
        packages: installed,
        secrets,
        kernels,
    })
}

/// Sets the times of what scripts installed: keys, as a rule. `lines` are of [`TRANSACTION`] and [`FORMAT`].
fn set_times(place: &Place<'_>, database: &str, lines: &[String]) -> Result<()> {
    let Ok(epoch) = u32::try_from(place.epoch) else {
        return Ok(());
    };
    let ids = lines
        .iter()
        .filter_map(|line| line.split_once(' ')?.0.parse().ok());
    let transactions: BTreeSet<u32> = ids.filter(|&id| id > epoch).collect();
    if transactions.is_empty() {
        return Ok(());
    }
    let call = SetTimes {
        argv: ["/usr/bin/rpmdb", "--nosignature"]
            .map(str::to_owned)
            .to_vec(),
        environment: standard_env(place.epoch),
        database: database.to_owned(),
        transactions,
        epoch,
    };
    place.call(&call, (), Extras::default())
}

/// A line of [`FORMAT`]; `None` for keys, which rpm has among the packages.
fn package(line: &str) -> Option<Installed> {
    let [name, version, architecture] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    (name != "gpg-pubkey").then(|| Installed {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: architecture.to_owned(),
    })
}

/// Makes the last changes of an RPM root.
#[derive(Serialize, Deserialize)]
pub(crate) struct FinishRpm(Finish);

impl Call for FinishRpm {
    const NAME: &'static str = "rpm.finish";
    type Handed = ();
    type Message = Silence;
    type Answer = (Secrets, Kernels);

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<Self::Answer, Error> {
        let kernels = kernels::choose(Path::new("/"), self.0.kernel.as_deref())?;
        forget(FORGOTTEN)?;
        // Kiln's own directory goes, unless it holds the choice of a kernel.
        let _ = fs::remove_dir(Path::new(NOTE).with_file_name(""));
        empty_all(EMPTIED)?;
        let secrets = common(&self.0, &WAYS)?;
        if let Some(sources) = &self.0.sources {
            write(sources)?;
        }
        Ok((secrets, kernels))
    }
}

/// Repositories that the image is to know, too (`repo --install`): the distribution's own come with its packages.
pub(super) fn sources(plan: &Plan) -> Sources {
    let mut sources = Sources::default();
    for said in plan.rpm_repositories.iter().filter(|said| said.install) {
        let (key, value) = match &said.source {
            RpmSource::Base(urls) => ("baseurl", urls.join(" ")),
            RpmSource::MirrorList(url) => ("mirrorlist", url.clone()),
            RpmSource::MetaLink(url) => ("metalink", url.clone()),
            RpmSource::Known => continue,
        };
        // A repository on the builder's own disk means nothing to the image's users.
        if value.starts_with("file:") {
            continue;
        }
        let name = &said.name;
        let mut text = format!(
            "# Written by Kiln for `repo --install`.\n[{name}]\nname={name}\n{key}={value}\nenabled=1\n"
        );
        if let Some((_, bytes)) = &said.keys {
            let path = format!("{KEYS}/RPM-GPG-KEY-kiln-{name}");
            text += &format!("gpgcheck=1\ngpgkey=file://{path}\n");
            sources.keys.push((path, bytes.clone()));
        }
        if said.signed_metadata == Some(true) {
            text += "repo_gpgcheck=1\n";
        }
        if let Some(cost) = said.cost {
            text += &format!("cost={cost}\n");
        }
        for (key, globs) in [
            ("excludepkgs", &said.exclude),
            ("includepkgs", &said.include),
        ] {
            if !globs.is_empty() {
                text += &format!("{key}={}\n", globs.join(" "));
            }
        }
        sources.files.push((format!("{name}.repo"), text));
    }
    sources
}

pub(super) fn write_sources(place: &Place<'_>, sources: &Sources) -> Result<()> {
    place.call(&WriteSources(sources.clone()), (), Extras::default())
}

/// Writes package sources into the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct WriteSources(Sources);

impl Call for WriteSources {
    const NAME: &'static str = "rpm.write-sources";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<(), Error> {
        write(&self.0)
    }
}

fn write(sources: &Sources) -> std::result::Result<(), Error> {
    let texts = sources
        .files
        .iter()
        .map(|(name, text)| (format!("{REPOSITORIES}/{name}"), text.as_bytes()));
    let keys = sources
        .keys
        .iter()
        .map(|(path, bytes)| (path.clone(), bytes.as_slice()));
    for (path, bytes) in texts.chain(keys) {
        let write = || {
            if let Some(parent) = Path::new(&path).parent() {
                fs::create_dir_all(parent)?;
            }
            regular::write(&path, bytes)
        };
        write().map_err(|e: io::Error| io_error(format!("writing {path}"), &e))?;
    }
    Ok(())
}
