//! Plain `http://` through a forward proxy: requests in absolute form (RFC 9112 section 3.2.2).
//!
//! The HTTP client only knows `CONNECT` tunnels, which most proxies refuse for port 80, and which a caching
//! proxy cannot cache. So the connection goes to the proxy whatever the URL's host is, and the request line is
//! rewritten as it leaves: `GET /debian/…` becomes `GET http://deb.debian.org/debian/…`.

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Error};

/// An agent that sends everything to `proxy` (a URI with scheme `http` and an authority).
pub(super) fn agent(config: Config, proxy: Uri) -> Agent {
    let connector = ().chain(TcpConnector::default()).chain(AbsoluteForm);
    Agent::with_parts(
        config,
        connector,
        ToProxy {
            proxy,
            inner: DefaultResolver::default(),
        },
    )
}

#[derive(Debug)]
struct ToProxy {
    proxy: Uri,
    inner: DefaultResolver,
}

impl Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.inner.resolve(&self.proxy, config, timeout)
    }
}

#[derive(Debug)]
struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Rewriting<In>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let authority = details.uri.authority();
        let authority = authority.ok_or(Error::BadUri("it has no host".to_owned()))?;
        let authority = authority.host_and_port();
        Ok(chained.map(|inner| Rewriting {
            inner,
            prefix: format!("http://{authority}"),
        }))
    }
}

/// `host` or `host:port`, without credentials.
trait HostAndPort {
    fn host_and_port(&self) -> String;
}

impl HostAndPort for ureq::http::uri::Authority {
    fn host_and_port(&self) -> String {
        match self.port_u16() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }
}

#[derive(Debug)]
struct Rewriting<T> {
    inner: T,
    prefix: String,
}

const METHOD: &[u8] = b"GET ";

impl<T: Transport> Transport for Rewriting<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.inner.buffers().output();
        let (at, added) = (METHOD.len(), self.prefix.len());
        let begins_request = output[..amount].starts_with(b"GET /");
        if !begins_request {
            return self.inner.transmit_output(amount, timeout);
        }
        if amount + added > output.len() {
            return Err(Error::LargeResponseHeader(amount + added, output.len()));
        }
        output.copy_within(at..amount, at + added);
        output[at..at + added].copy_from_slice(self.prefix.as_bytes());
        self.inner.transmit_output(amount + added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
