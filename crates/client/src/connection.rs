//! Requests to a server, and what their failures mean.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use url::{Host, Url};

use crate::{Error, Kind};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the server may say nothing.
const STALL: Duration = Duration::from_secs(60);
/// Bytes of an answer in JSON at most.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Characters of a part of a path that stay as they are.
const PART: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A part of an address's path.
pub fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, PART).to_string()
}

/// A server, and who asks.
pub struct Connection {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// `Range`.
    pub range: Option<String>,
    body: Body,
}

impl Answer {
    /// The body, as it comes.
    pub fn reader(&mut self) -> impl Read + '_ {
        self.body.as_reader()
    }
}

impl Connection {
    /// A server at an address, `http://HOST[:PORT]` or `https://…`, perhaps with the path of a proxy.
    ///
    /// # Errors
    /// The address is none, or the token has characters that no token has.
    pub fn new(address: &str, token: Option<String>) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::new(
                Kind::Usage,
                format!("the server's address {address:?} cannot be used: {why}"),
            )
            .hint("an address is http://HOST:PORT or https://HOST")
        };
        let url = Url::parse(address).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it does not begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("a token does not belong into it"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has more than a host, a port and a path"));
        }
        let token = token.map(|token| token.trim().to_owned());
        if token
            .as_ref()
            .is_some_and(|token| token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(Error::new(
                Kind::Usage,
                "the token is empty, or has characters that no token has",
            ));
        }
        let roots = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            // A server of one's own; what a proxy would see of it is the token.
            .proxy(None)
            .tls_config(roots)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(STALL))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Ok(Connection {
            agent: Agent::new_with_config(config),
            base: url.as_str().trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The server's address, without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether the token goes over a network that others may listen to.
    pub fn is_bare(&self) -> bool {
        let Some(url) = Url::parse(&self.base).ok().filter(|_| self.token.is_some()) else {
            return false;
        };
        let here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => true,
        };
        url.scheme() == "http" && !here
    }

    /// Sends a request with a body of bytes. An answer of 400 and more is an error, except 404, 412 and 416.
    ///
    /// # Errors
    /// There is no answer, or one that says why not.
    pub fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let url = match path.starts_with("http://") || path.starts_with("https://") {
            true => path.to_owned(),
            false => format!("{}{path}", self.base),
        };
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        // The address of an upload comes from the server: the token goes to nobody else.
        let own = url.strip_prefix(&self.base);
        if let Some(token) = &self.token
            && own.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let sent = match *method {
            Method::GET | Method::DELETE => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            _ => request
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        let answer = sent.map_err(|error| self.failed(&error))?;
        let status = answer.status();
        let text = |name: header::HeaderName| {
            let value = answer.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let mut answer = Answer {
            status: status.as_u16(),
            location: text(header::LOCATION),
            range: text(header::RANGE),
            body: answer.into_body(),
        };
        let is_answer = !(status.is_client_error() || status.is_server_error())
            || matches!(
                status,
                StatusCode::NOT_FOUND
                    | StatusCode::PRECONDITION_FAILED
                    | StatusCode::RANGE_NOT_SATISFIABLE
            );
        if is_answer {
            return Ok(answer);
        }
        Err(self.refused(&mut answer))
    }

    /// Sends and receives JSON. An answer of 404 is an error here too.
    ///
    /// # Errors
    /// As of [`Connection::send`]; or the answer is no JSON.
    pub fn json(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let bytes = body.map_or_else(String::new, Value::to_string);
        let headers = [("Content-Type", "application/json".to_owned())];
        let headers = if body.is_some() { &headers[..] } else { &[] };
        let mut answer = self.send(method, path, headers, bytes.as_bytes())?;
        if answer.status >= 400 {
            return Err(self.refused(&mut answer));
        }
        self.value(&mut answer)
    }

    /// The JSON of an answer.
    ///
    /// # Errors
    /// It is none.
    pub fn value(&self, answer: &mut Answer) -> Result<Value, Error> {
        let mut bytes = Vec::new();
        let read = answer.reader().take(LONGEST_ANSWER).read_to_end(&mut bytes);
        read.map_err(|error| self.cut(error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(
                Kind::Environment,
                format!("{} does not answer as a build server does", self.base),
            )
            .cause(format!("no JSON: {error}"))
            .hint("is it the address of `kiln serve`?")
        })
    }

    /// What it means that a body ended early.
    pub fn cut(&self, error: std::io::Error) -> Error {
        match error.downcast::<ureq::Error>() {
            Ok(inner) => self.failed(&inner),
            Err(io) => self.failed(&ureq::Error::Io(io)),
        }
    }

    fn failed(&self, error: &ureq::Error) -> Error {
        use ureq::Error as U;
        let base = &self.base;
        let (what, hint) = match error {
            U::HostNotFound => (
                format!("the name of the server {base} cannot be looked up"),
                "is the address right? --server, KILN_SERVER or `kiln login` says it",
            ),
            U::Io(error) if error.to_string().contains("lookup address") => (
                format!("the name of the server {base} cannot be looked up"),
                "is the address right? --server, KILN_SERVER or `kiln login` says it",
            ),
            U::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => (
                format!("no server answers at {base}"),
                "start one there with `kiln serve`, or name another with --server or KILN_SERVER",
            ),
            U::Tls(_) | U::Rustls(_) | U::Pem(_) => {
                let message = format!("there is no trusted TLS connection to {base}");
                return Error::new(Kind::Environment, message).cause(error).hint(
                    "a certificate of your own authority: install it for this machine, or name its file in SSL_CERT_FILE",
                );
            }
            U::Timeout(_) => (
                format!("{base} does not answer in time"),
                "is the machine up, and is its port open to this one?",
            ),
            U::Http(_) | U::BadUri(_) => {
                let message = format!("{base} cannot be asked");
                return Error::new(Kind::Usage, message).cause(error);
            }
            _ => (
                format!("the connection to {base} was lost"),
                "try again; what the server has queued goes on",
            ),
        };
        Error::new(Kind::Unreachable, what).cause(error).hint(hint)
    }

    /// What an answer of 400 and more means, in the server's own words where it has some.
    pub fn refused(&self, answer: &mut Answer) -> Error {
        let mut bytes = Vec::new();
        // Without them the status still says something.
        let _ = answer.reader().take(64 << 10).read_to_end(&mut bytes);
        let words = serde_json::from_slice::<Value>(&bytes).ok();
        let words = words
            .as_ref()
            .and_then(|value| value["error"]["message"].as_str());
        let base = &self.base;
        let status = answer.status;
        let error = match status {
            401 => {
                let what = match self.token {
                    None => format!("{base} wants a token"),
                    Some(_) => format!("{base} does not take the token"),
                };
                let hint = "an administrator of the server makes one: `kiln token create NAME --role submit`; then `kiln login`, KILN_TOKEN or --token-file";
                Error::new(Kind::Environment, what).hint(hint)
            }
            403 => Error::new(Kind::Environment, format!("{base} does not allow that")).hint(
                "a token with another role allows it: `kiln token create NAME --role submit`",
            ),
            413 => Error::new(Kind::Input, format!("{base} takes nothing so large")),
            429 | 500.. => Error::new(
                Kind::Unreachable,
                format!("{base} cannot do it now (HTTP status {status})"),
            ),
            400 | 404 | 409 | 412 => Error::new(Kind::Input, format!("{base} refuses it")),
            _ => Error::new(
                Kind::Environment,
                format!("{base} does not answer as a build server does (HTTP status {status})"),
            )
            .hint("is it the address of `kiln serve`?"),
        };
        let error = match words {
            Some(words) => error.cause(words),
            None => error,
        };
        Error {
            status: Some(status),
            ..error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_bare_tokens_noticed() {
        for (address, token, bare) in [
            ("http://127.0.0.1:8470", Some("kiln_x"), false),
            ("http://[::1]:8470/", Some("kiln_x"), false),
            ("http://localhost", Some("kiln_x"), false),
            ("http://lab.example:8470", Some("kiln_x\n"), true),
            ("http://lab.example:8470", None, false),
            ("https://lab.example/kiln/", Some("kiln_x"), false),
        ] {
            let connection = Connection::new(address, token.map(str::to_owned)).unwrap();
            assert_eq!(connection.is_bare(), bare, "{address}");
            assert!(!connection.base().ends_with('/'));
            assert!(!format!("{connection:?}").contains("kiln_x"));
        }
        for (address, token) in [
            ("lab:8470", None),
            ("ftp://lab", None),
            ("http://user:kiln_x@lab", None),
            ("http://lab?x", None),
            ("http://lab", Some("")),
            ("http://lab", Some("kiln_x\r\nHost: y")),
        ] {
            assert!(
                Connection::new(address, token.map(str::to_owned)).is_err(),
                "{address}"
            );
        }
    }
}
