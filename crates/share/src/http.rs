//! HTTP for `object_store` through `ureq`: the workspace's one HTTP client, with its one TLS library.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use ureq::http::{Method, Request, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use crate::{CHUNK_MAX, RECORD_MAX};

/// No answer is larger: objects are chunks and records, and a page of a listing is smaller.
const ANSWER_MAX: u64 = (if CHUNK_MAX > RECORD_MAX {
    CHUNK_MAX
} else {
    RECORD_MAX
} + (1 << 20)) as u64;

#[derive(Debug)]
pub(crate) struct Connector(Agent);

impl Connector {
    pub(crate) fn new(patience: Duration, proxy: Option<Proxy>) -> Connector {
        let roots = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .proxy(proxy)
            .tls_config(roots)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_global(Some(patience.max(Duration::from_secs(1)) * 10))
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Connector(Agent::new_with_config(config))
    }
}

/// The proxy for `https://`; a wrong one is as good as none, since downloads complain about it.
pub(crate) fn proxy(uri: Option<&str>, no_proxy: Option<&str>) -> Option<Proxy> {
    let uri = uri?.trim();
    let (rest, protocol) = match uri.split_once("://") {
        Some(("http", rest)) => (rest, ureq::ProxyProtocol::Http),
        Some(("https", rest)) => (rest, ureq::ProxyProtocol::Https),
        Some(_) => return None,
        None => (uri, ureq::ProxyProtocol::Http),
    };
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    let (name, port) = match host.trim_end_matches('/').rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (host.trim_end_matches('/'), 3128),
    };
    let mut builder = Proxy::builder(protocol).host(name).port(port);
    if let Some((name, password)) = user.and_then(|user| user.split_once(':')) {
        builder = builder.username(name).password(password);
    }
    for exception in no_proxy.unwrap_or("").split(',') {
        builder = builder.no_proxy(exception.trim());
    }
    builder.build().ok()
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Agent);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let agent = self.0.clone();
        let done = tokio::task::spawn_blocking(move || {
            let has_none = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
            let sent = if has_none {
                agent.run(Request::from_parts(parts, ()))
            } else {
                agent.run(Request::from_parts(parts, body.as_ref()))
            };
            received(sent)
        });
        done.await
            .unwrap_or_else(|error| Err(HttpError::new(HttpErrorKind::Unknown, error)))
    }
}

fn received(sent: Result<Response<Body>, ureq::Error>) -> Result<HttpResponse, HttpError> {
    let (parts, body) = sent.map_err(failed)?.into_parts();
    let bytes = body
        .into_with_config()
        .limit(ANSWER_MAX)
        .read_to_vec()
        .map_err(failed)?;
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

fn failed(error: ureq::Error) -> HttpError {
    use std::io::ErrorKind as Io;
    let io = match &error {
        ureq::Error::Io(io) => Some(io.kind()),
        other => other
            .source()
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .map(std::io::Error::kind),
    };
    let kind = match (&error, io) {
        (ureq::Error::Timeout(_), _) | (_, Some(Io::TimedOut | Io::WouldBlock)) => {
            HttpErrorKind::Timeout
        }
        (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed, _)
        | (_, Some(Io::ConnectionRefused)) => HttpErrorKind::Connect,
        (_, Some(_)) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
