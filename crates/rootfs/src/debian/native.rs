//! Unpacking packages without dpkg, into exactly the state in which dpkg leaves them.
//!
//! `dpkg --unpack` takes one package after the other, starts a handful of processes for each and decompresses on one
//! processor. Kiln does the same work in two parts. A [`pool`] holds unpacked contents; it is filled on all processors,
//! and for later layers while an earlier one is being configured. Then [`adopt`] moves the contents into the root,
//! package by package in dpkg's order and by dpkg's rules, and writes what dpkg would write into its database. What a
//! package does beyond the usual is noticed beforehand ([`facts`]), and the root's own dpkg unpacks that package.

mod adopt;
mod database;
mod dress;
mod earlier;
mod extract;
mod facts;
mod filter;
mod index;
mod modules;
mod package;
mod paths;
mod place;
mod placing;
mod pool;
mod stanza;
mod status;
#[cfg(test)]
mod tests;
mod triggers;

use std::path::Path;

use kiln_sandbox::{Call, Say};
use serde::{Deserialize, Serialize};

pub(crate) use adopt::Adopt;
use adopt::{Outcome, adopt};
use extract::extract;
pub(super) use filter::{Filter, digest};
pub(crate) use modules::{CopyModules, Module};
pub(super) use modules::{LISTS, PLACE as MODULES};
use package::Said;
pub(crate) use pool::Fill;
use pool::POOL;
pub(super) use pool::{Pool, PoolItem};

use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};

impl Call for Adopt {
    const NAME: &'static str = "debian.adopt";
    type Handed = ();
    type Message = Said;
    type Answer = Outcome;

    fn run(self, (): (), say: &Say<Said>) -> std::result::Result<Outcome, kiln_sandbox::Error> {
        adopt(Path::new("/"), &self, &mut |said| say.say(said))
    }
}

/// Puts packages of the pool into an empty root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Extract {
    keys: Vec<String>,
}

impl Call for Extract {
    const NAME: &'static str = "debian.extract";
    type Handed = ();
    type Message = Said;
    type Answer = ();

    fn run(self, (): (), say: &Say<Said>) -> std::result::Result<(), kiln_sandbox::Error> {
        extract(Path::new("/"), POOL, &self.keys, &mut |said| say.say(said))
    }
}

/// How a run of [`Batch::adopt`] ended.
pub(super) struct Adopted {
    /// Packages unpacked.
    pub(super) done: usize,
    /// Why the next one was not.
    pub(super) stopped: Option<String>,
    /// Whether that is true of all that follow.
    pub(super) for_good: bool,
}

/// Packages that a pool in the root has.
pub(super) struct Batch<'a> {
    pub(super) keys: Vec<String>,
    pub(super) bootstrap: bool,
    /// Version and architecture of dpkg, where the root's own database may not know it.
    pub(super) dpkg: Option<(&'a str, &'a str)>,
    pub(super) env: Vec<(String, String)>,
}

impl Batch<'_> {
    /// Unpacks the packages as far as Kiln can do it. `unpacked` is told the name of each.
    ///
    /// # Errors
    /// A file cannot be written, two packages have the same file, or a preinst script failed.
    pub(super) fn adopt(
        &self,
        place: &Place<'_>,
        extras: Extras,
        unpacked: &mut dyn FnMut(&str),
    ) -> Result<Adopted> {
        let request = Adopt {
            pool: POOL.to_owned(),
            keys: self.keys.clone(),
            bootstrap: self.bootstrap,
            dpkg: self.dpkg.map(|(version, _)| version.to_owned()),
            architecture: self.dpkg.map(|(_, architecture)| architecture.to_owned()),
            env: self.env.clone(),
        };
        let mut current = None;
        let mut hear = |said| follow(place, said, &mut current, unpacked);
        let called = place.call_and_hear(&request, (), extras, &mut hear);
        let (outcome, _) = called.map_err(|error| named(error, current))?;
        Ok(Adopted {
            done: outcome.done,
            stopped: outcome.stopped,
            for_good: outcome.for_good,
        })
    }
}

/// Puts the files of the essential packages into an empty root.
pub(super) fn extract_all(place: &Place<'_>, keys: &[String], extras: Extras) -> Result<()> {
    let mut current = None;
    let mut hear = |said| {
        if let Said::Unpacking { name, .. } = said {
            place.reporter.progress(0, None, Some(&name));
            current = Some(name);
        }
    };
    let keys = keys.to_vec();
    let called = place.call_and_hear(&Extract { keys }, (), extras, &mut hear);
    called.map(|_| ()).map_err(|error| named(error, current))
}

/// Shows what is told on the way as dpkg would.
fn follow(
    place: &Place<'_>,
    said: Said,
    current: &mut Option<String>,
    unpacked: &mut dyn FnMut(&str),
) {
    let line = |text: String| place.reporter.line(kiln_sandbox::Stream::Stdout, &text);
    match said {
        Said::Unpacking { name, version } => {
            line(format!("Unpacking {name} ({version}) ..."));
            *current = Some(name);
        }
        Said::Unpacked { name } => unpacked(&name),
        Said::Line(text) => line(text),
    }
}

/// Names the package at fault, as a failure of dpkg does.
fn named(mut error: Error, package: Option<String>) -> Error {
    if let Some(name) = package
        && error.kind != ErrorKind::Cancelled
    {
        error.causes.insert(0, std::mem::take(&mut error.message));
        error.message = format!("package {name} could not be installed");
        error.package = Some(name);
    }
    error
}
