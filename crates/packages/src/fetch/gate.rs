//! Downloads that may not come from everywhere: a build server fetches what strangers name.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error as Trouble};

use super::options::Allows;
use super::url::{file_path, shown};
use crate::{Error, ErrorKind};

const HINT: &str = "Name a mirror on another machine, or ask whoever runs this server to start it with --downloads-from-this-machine.";

/// An agent that connects to allowed addresses only.
pub(super) fn agent(config: Config, allows: Allows) -> Agent {
    let resolver = Gate {
        allows,
        inner: DefaultResolver::default(),
    };
    Agent::with_parts(config, DefaultConnector::default(), resolver)
}

/// Looks names up, and forgets the addresses that are closed: what is left is what is connected to.
#[derive(Debug)]
struct Gate {
    allows: Allows,
    inner: DefaultResolver,
}

impl Resolver for Gate {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Trouble> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut open = self.empty();
        for address in found.iter().filter(|address| (self.allows)(address.ip())) {
            open.push(*address);
        }
        match found.first() {
            Some(first) if open.is_empty() => Err(Trouble::Other(Box::new(Closed(first.ip())))),
            _ => Ok(open),
        }
    }
}

/// The address is closed.
#[derive(Debug, thiserror::Error)]
#[error("{0} is closed to downloads")]
struct Closed(IpAddr);

/// What a failure of the HTTP client means, if the gate was the reason.
pub(super) fn refusal(url: &str, error: &Trouble) -> Option<Error> {
    match error {
        Trouble::Other(inner) => inner.downcast_ref().map(|Closed(ip)| closed(url, *ip)),
        _ => None,
    }
}

fn closed(url: &str, ip: IpAddr) -> Error {
    let message = format!(
        "{} leads to {ip}, which is this machine or only its to reach: builds of others get nothing from there",
        shown(url)
    );
    Error::new(ErrorKind::Refused, message).with_hint(HINT)
}

/// Refuses files of this machine, but for those in a directory that is the build's own.
pub(super) fn ask_file(url: &str, own: Option<&Path>) -> Result<(), Error> {
    let is_own = || {
        own?.canonicalize()
            .ok()
            .zip(file_path(url)?.canonicalize().ok())
    };
    match is_own() {
        Some((own, file)) if file.starts_with(&own) => Ok(()),
        _ => Err(no_files(url)),
    }
}

fn no_files(url: &str) -> Error {
    let message = format!(
        "{} is on this machine: builds of others get nothing from there",
        shown(url)
    );
    Error::new(ErrorKind::Refused, message).with_hint(HINT)
}

/// Refuses what goes through a proxy to a closed address, as far as that can be told here.
pub(super) fn ask(url: &str, uri: &Uri, allows: Allows) -> Result<(), Error> {
    let host = uri.host().unwrap_or("").trim_matches(['[', ']']);
    // A name that only the proxy can look up has no address here.
    let mut found = (host, 0).to_socket_addrs().into_iter().flatten();
    let shut = found.find(|address: &SocketAddr| !allows(address.ip()));
    shut.map_or(Ok(()), |address| Err(closed(url, address.ip())))
}
