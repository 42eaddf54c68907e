//! Unpacking packages without dpkg, into exactly the state in which dpkg leaves them.
//!
//! `dpkg --unpack` takes one package after the other, starts a handful of processes for each and decompresses on one
//! processor. Kiln does the same work in two parts. A [`pool`] holds unpacked contents; it is filled on all processors,
//! and for later layers while an earlier one is being configured. Then [`adopt`] moves the contents into the root,
//! package by package in dpkg's order and by dpkg's rules, and writes what dpkg would write into its database. What a
//! package does beyond the usual is noticed beforehand ([`facts`]), and the root's own dpkg unpacks that package.

mod adopt;
mod database;
mod extract;
mod facts;
mod index;
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

use kiln_sandbox::Call;
use serde_json::{Value, json};

use adopt::{Adopt, Outcome, adopt};
use extract::extract;
use package::Said;
use pool::POOL;
pub(crate) use pool::{FILL, fill_call};
pub(super) use pool::{Filter, Pool, PoolItem};

use crate::calls::payload;
use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};

pub(crate) const ADOPT: &str = "debian.adopt";
pub(crate) const EXTRACT: &str = "debian.extract";

pub(crate) fn adopt_call(call: Call) -> std::result::Result<Value, kiln_sandbox::Error> {
    let request: Adopt = payload(&call)?;
    let outcome = adopt(Path::new("/"), &request, &mut |said| call.emit(json!(said)))?;
    Ok(json!(outcome))
}

pub(crate) fn extract_call(call: Call) -> std::result::Result<Value, kiln_sandbox::Error> {
    let keys: Vec<String> = payload(&call)?;
    extract(Path::new("/"), POOL, &keys, &mut |said| {
        call.emit(json!(said))
    })?;
    Ok(Value::Null)
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
        let called = {
            let mut message = |value: Value| follow(place, value, &mut current, unpacked);
            place.call(ADOPT, json!(request), extras, &mut message)
        };
        let (value, _) = called.map_err(|error| named(error, current))?;
        let outcome: Outcome = serde_json::from_value(value).map_err(|e| {
            Error::new(
                ErrorKind::Internal,
                "unpacking packages gave no usable answer",
            )
            .cause(e.to_string())
        })?;
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
    let called = {
        let mut message = |value: Value| {
            if let Ok(Said::Unpacking { name, .. }) = serde_json::from_value(value) {
                place.reporter.progress(0, None, Some(&name));
                current = Some(name);
            }
        };
        place.call(EXTRACT, json!(keys), extras, &mut message)
    };
    called.map(|_| ()).map_err(|error| named(error, current))
}

/// Shows what is told on the way as dpkg would.
fn follow(
    place: &Place<'_>,
    value: Value,
    current: &mut Option<String>,
    unpacked: &mut dyn FnMut(&str),
) {
    let line = |text: String| place.reporter.line(kiln_sandbox::Stream::Stdout, &text);
    match serde_json::from_value(value) {
        Ok(Said::Unpacking { name, version }) => {
            line(format!("Unpacking {name} ({version}) ..."));
            *current = Some(name);
        }
        Ok(Said::Unpacked { name }) => unpacked(&name),
        Ok(Said::Line(text)) => line(text),
        Err(_) => {}
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
