//! Requests to a repository.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Request, Response, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Error as Trouble};
use url::Url;

use crate::{Credentials, Error, Options, Result};

const MOST_REDIRECTS: usize = 5;
const CONNECTING: Duration = Duration::from_secs(30);
const LISTING: &str = "/info/refs";
const SERVICE: &str = "git-upload-pack";

/// Reads the address of a repository.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(text: &str) -> std::result::Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not https://HOST/PATH"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The address is not repeated: it is going to be seen.
        return Err(
            "the address has a name or a password, which everybody would see who sees the build: the server's file of credentials is for them".to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has more than a path behind its host"));
    }
    Ok(url)
}

/// Requests to a repository, wherever the first redirects have led.
pub(crate) struct Http {
    agent: Agent,
    credentials: Credentials,
    /// The repository's own address.
    pub(crate) base: Url,
}

impl Http {
    /// Asks a repository for what it can do.
    pub(crate) fn open(url: &Url, options: &Options<'_>) -> Result<(Self, Response<Body>)> {
        let mut http = Http {
            agent: agent(options),
            credentials: options.credentials.clone(),
            base: url.clone(),
        };
        let mut at = with_path(url, LISTING);
        at.set_query(Some(&format!("service={SERVICE}")));
        for _ in 0..=MOST_REDIRECTS {
            let answer = http.send(&at, Request::get(at.as_str()), Vec::new())?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                http.base = base(&at).ok_or_else(|| {
                    http.wrong("it leads to an address that is none of a repository".to_owned())
                })?;
                http.check(&answer)?;
                return Ok((http, answer));
            }
            at = http.redirected(&at, &answer)?;
        }
        Err(http.wrong(format!("more than {MOST_REDIRECTS} redirects")))
    }

    /// Sends a command. What answers it is where the first request was answered.
    pub(crate) fn command(&self, body: Vec<u8>) -> Result<Response<Body>> {
        let at = with_path(&self.base, &format!("/{SERVICE}"));
        let request = Request::post(at.as_str())
            .header(
                header::CONTENT_TYPE,
                format!("application/x-{SERVICE}-request"),
            )
            .header(header::ACCEPT, format!("application/x-{SERVICE}-result"));
        let answer = self.send(&at, request, body)?;
        self.check(&answer)?;
        Ok(answer)
    }

    fn send(
        &self,
        at: &Url,
        request: ureq::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Response<Body>> {
        let mut request = request.header("Git-Protocol", "version=2");
        if let Some(value) = self.credentials.header(at) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let sent = match body.is_empty() {
            true => request
                .body(())
                .map_err(Trouble::from)
                .and_then(|r| self.agent.run(r)),
            false => request
                .body(body)
                .map_err(Trouble::from)
                .and_then(|r| self.agent.run(r)),
        };
        sent.map_err(|error| self.wrong(at_where(&self.base, at, text(&error))))
    }

    fn check(&self, answer: &Response<Body>) -> Result<()> {
        let status = answer.status().as_u16();
        let what = match status {
            200 => return Ok(()),
            401 | 403 => "it wants other credentials than the server has for it, or has none",
            404 => "there is no such repository, or it is not shown without credentials",
            300..=399 => "it leads elsewhere once more, which is refused",
            _ => "it does not answer as a repository does",
        };
        Err(self.wrong(format!("HTTP status {status}: {what}")))
    }

    fn redirected(&self, from: &Url, answer: &Response<Body>) -> Result<Url> {
        let location = answer.headers().get(header::LOCATION);
        let to = location
            .and_then(|location| from.join(location.to_str().ok()?).ok())
            .ok_or_else(|| self.wrong("a redirect that leads nowhere".to_owned()))?;
        let refused = |why: &str| {
            let host = to.host_str().unwrap_or("nowhere");
            self.wrong(format!("a redirect to {}://{host}, {why}", to.scheme()))
        };
        match (from.scheme(), to.scheme()) {
            ("http", "http" | "https") | ("https", "https") => {}
            _ => return Err(refused("which is refused: it is less than HTTPS")),
        }
        if !to.username().is_empty() || to.password().is_some() || base(&to).is_none() {
            return Err(refused("which is not where a repository is"));
        }
        Ok(to)
    }

    /// An error that names the repository.
    pub(crate) fn wrong(&self, what: String) -> Error {
        Error::Repository {
            url: self.base.to_string(),
            what,
        }
    }

    /// What went wrong while an answer was read.
    pub(crate) fn broken(&self, error: io::Error) -> Error {
        let what = match error.kind() {
            io::ErrorKind::UnexpectedEof => "its answer breaks off".to_owned(),
            io::ErrorKind::InvalidData => error.to_string(),
            _ => match error.downcast::<Trouble>() {
                Ok(trouble) => text(&trouble),
                Err(error) => error.to_string(),
            },
        };
        self.wrong(what)
    }
}

/// An address with something behind its path.
fn with_path(url: &Url, end: &str) -> Url {
    let mut at = url.clone();
    at.set_path(&format!("{}{end}", url.path().trim_end_matches('/')));
    at
}

/// The repository whose listing is at an address.
fn base(at: &Url) -> Option<Url> {
    let mut base = at.clone();
    base.set_path(at.path().strip_suffix(LISTING)?);
    base.set_query(None);
    base.set_fragment(None);
    Some(base)
}

fn at_where(base: &Url, at: &Url, what: String) -> String {
    match base.origin() == at.origin() {
        true => what,
        false => format!("at {}: {what}", at.origin().ascii_serialization()),
    }
}

fn text(error: &Trouble) -> String {
    match error {
        Trouble::Timeout(which) => format!("it took too long ({which})"),
        Trouble::Other(inner) => inner.to_string(),
        other => other.to_string(),
    }
}

fn agent(options: &Options<'_>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder()
        .proxy(None)
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(options.patience))
        .timeout_resolve(Some(CONNECTING))
        .timeout_connect(Some(CONNECTING))
        .timeout_recv_response(Some(options.silence))
        .timeout_per_read(Some(options.silence))
        .timeout_per_write(Some(options.silence))
        .user_agent(concat!("git/kiln-", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .build();
    let gate = Gate {
        only: options.only,
        inner: DefaultResolver::default(),
    };
    Agent::with_parts(config, DefaultConnector::default(), gate)
}

/// Looks names up, and forgets the addresses that are closed: what is left is what is connected to.
#[derive(Debug)]
struct Gate {
    only: Option<fn(IpAddr) -> bool>,
    inner: DefaultResolver,
}

impl Resolver for Gate {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, Trouble> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let Some(only) = self.only else {
            return Ok(found);
        };
        let mut open = self.empty();
        for address in found.iter().filter(|address| only(address.ip())) {
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
#[error(
    "it leads to {0}, which is this machine or only its to reach: sources of builds do not come from there, unless the server is started with --downloads-from-this-machine"
)]
struct Closed(IpAddr);

/// An answer's bytes, as long as nobody wishes for the end.
pub(crate) struct Content<'a, R> {
    pub(crate) inner: R,
    pub(crate) stop: &'a dyn Fn() -> bool,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.stop)() {
            true => Err(io::Error::other(Error::Stopped)),
            false => self.inner.read(buffer),
        }
    }
}
