//! HTTP: agents, proxies, redirects, ranges.

use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ureq::http::{Request, Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};
use url::Url;

use super::attempt::Attempt;
use super::url::{percent_decode, shown};
use super::{Opened, forward, gate};
use crate::{CancelToken, Error, ErrorKind, FetchOptions, Result};

const MAX_REDIRECTS: usize = 8;

/// Agents for each way out. Their connections are reused and shut down on cancellation.
#[derive(Debug)]
pub(super) struct Http {
    direct: Agent,
    /// For `http://` URLs.
    forward: Option<Via>,
    /// For `https://` URLs: a `CONNECT` tunnel.
    tunnel: Option<Agent>,
}

#[derive(Debug)]
struct Via {
    agent: Agent,
    authorization: Option<String>,
}

impl Http {
    pub(super) fn new(options: &FetchOptions, cancel: &CancelToken) -> Result<Self> {
        let present = |p: &Option<String>| {
            p.as_deref()
                .map(str::trim)
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
        };
        let forward = present(&options.proxies.http)
            .map(|p| Via::new(options, &p))
            .transpose()?;
        let tunnel = present(&options.proxies.https)
            .map(|p| tunnel(options, &p))
            .transpose()?;
        let direct = match options.only {
            Some(allows) => gate::agent(config(options, None), allows),
            None => Agent::new_with_config(config(options, None)),
        };
        let all = [
            Some(&direct),
            forward.as_ref().map(|v| &v.agent),
            tunnel.as_ref(),
        ];
        for agent in all.into_iter().flatten().cloned() {
            cancel.on_cancel(move || agent.shutdown());
        }
        Ok(Http {
            direct,
            forward,
            tunnel,
        })
    }

    /// Starts a transfer of `url` from byte `from` on, or "not modified" for a file no younger than `since`.
    pub(super) fn open(
        &self,
        options: &FetchOptions,
        url: &str,
        from: u64,
        since: Option<&str>,
    ) -> Result<Opened, Attempt> {
        let mut uri = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let proxy = proxy(options, &uri).map(|proxy| shown(&with_scheme(proxy)));
            if let (Some(allows), Some(_)) = (options.only, &proxy) {
                gate::ask(url, &uri, allows).map_err(Attempt::last)?;
            }
            let response = self
                .get(options, &uri, from, since)
                .map_err(|e| Attempt::request(url, e).through(proxy.as_deref()))?;
            if !is_redirect(response.status()) {
                return opened(url, from, response).map_err(|a| a.through(proxy.as_deref()));
            }
            uri = redirected(url, &uri, &response)?;
        }
        let message = format!("{}: more than {MAX_REDIRECTS} redirects", shown(url));
        Err(Attempt::last(Error::new(ErrorKind::Refused, message)))
    }

    fn get(
        &self,
        options: &FetchOptions,
        uri: &Uri,
        from: u64,
        since: Option<&str>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::get(uri);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(since) = since {
            request = request.header(header::IF_MODIFIED_SINCE, since);
        }
        if let Some(credentials) = credentials(uri) {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let https = uri.scheme_str() == Some("https");
        let proxied = proxy(options, uri).is_some();
        let agent = match (proxied, https, &self.forward, &self.tunnel) {
            (true, false, Some(via), _) => {
                if let Some(value) = &via.authorization {
                    request = request.header(header::PROXY_AUTHORIZATION, value);
                }
                &via.agent
            }
            (true, true, _, Some(agent)) => agent,
            _ => &self.direct,
        };
        agent.run(request.body(())?)
    }
}

impl Via {
    fn new(options: &FetchOptions, proxy: &str) -> Result<Self> {
        let proxy = with_scheme(proxy);
        let uri: Uri = proxy.parse().map_err(|_| bad_proxy("http_proxy", &proxy))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
            return Err(bad_proxy("http_proxy", &proxy));
        }
        let authorization = credentials(&uri);
        Ok(Via {
            agent: forward::agent(config(options, None), uri),
            authorization,
        })
    }
}

/// The proxy that a request goes through, if any.
fn proxy<'a>(options: &'a FetchOptions, uri: &Uri) -> Option<&'a str> {
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    options.proxies.applying(https, uri.host()?, port)
}

fn with_scheme(proxy: &str) -> String {
    match proxy.contains("://") {
        true => proxy.to_owned(),
        false => format!("http://{proxy}"),
    }
}

fn tunnel(options: &FetchOptions, proxy: &str) -> Result<Agent> {
    let parsed = Proxy::new(proxy).map_err(|_| bad_proxy("https_proxy", proxy))?;
    Ok(Agent::new_with_config(config(options, Some(parsed))))
}

fn bad_proxy(variable: &str, value: &str) -> Error {
    // The value may hold a password; only its scheme is shown.
    let scheme = value
        .split("://")
        .next()
        .filter(|s| s.len() < value.len())
        .unwrap_or("?");
    Error::new(
        ErrorKind::Input,
        format!("the proxy in {variable} (scheme {scheme}) cannot be used"),
    )
    .with_hint("Kiln understands http://[USER:PASSWORD@]HOST[:PORT].")
}

fn config(options: &FetchOptions, proxy: Option<Proxy>) -> ureq::config::Config {
    let roots = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    Agent::config_builder()
        .proxy(proxy)
        .tls_config(roots)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.stall_timeout))
        .timeout_per_write(Some(options.stall_timeout))
        .timeout_recv_response(Some(options.stall_timeout))
        .max_idle_connections_per_host(options.parallel.max(1))
        .max_idle_connections(options.parallel.max(1) * 2)
        .user_agent(options.user_agent.clone())
        .accept_encoding("identity")
        .build()
}

fn parse(url: &str) -> Result<Uri, Attempt> {
    url.parse::<Uri>()
        .ok()
        .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))
        .ok_or_else(|| {
            Attempt::last(Error::new(
                ErrorKind::Input,
                format!("{:?} is not a valid URL", shown(url)),
            ))
        })
}

/// `Basic` credentials from the user information of a URL (RFC 7617).
fn credentials(uri: &Uri) -> Option<String> {
    let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
    Some(format!("Basic {}", BASE64.encode(percent_decode(user))))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirected(url: &str, from: &Uri, response: &Response<Body>) -> Result<Uri, Attempt> {
    let bad = |why: &str| {
        Attempt::last(Error::new(
            ErrorKind::Refused,
            format!("{}: {why}", shown(url)),
        ))
    };
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|v| v.to_str().ok());
    let location = location.ok_or_else(|| bad("a redirect without a target"))?;
    let to = Url::parse(&from.to_string()).and_then(|from| from.join(location));
    let to = to
        .ok()
        .and_then(|to| to.as_str().parse::<Uri>().ok())
        .filter(|to| to.host().is_some())
        .ok_or_else(|| bad("a redirect to something that is no URL"))?;
    match (from.scheme_str(), to.scheme_str()) {
        (Some("http"), Some("http" | "https")) | (Some("https"), Some("https")) => Ok(to),
        _ => Err(bad("a redirect away from HTTPS, which is refused")),
    }
}

fn opened(url: &str, from: u64, response: Response<Body>) -> Result<Opened, Attempt> {
    let text = |name| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let status = response.status().as_u16();
    let modified = text(header::LAST_MODIFIED);
    let length = text(header::CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
    let chunked =
        text(header::TRANSFER_ENCODING).is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let range = text(header::CONTENT_RANGE);
    let wait = text(header::RETRY_AFTER)
        .and_then(|v| v.parse().ok())
        .map(Duration::from_secs);
    let (start, length) = match status {
        200 => (0, length),
        206 if range_start(range.as_deref()) == Some(from) => (from, length.map(|l| l + from)),
        // A range that the server could not serve or mixed up: the next try starts at zero.
        206 | 416 => return Ok(Opened::useless()),
        304 => {
            return Ok(Opened {
                not_modified: true,
                ..Opened::useless()
            });
        }
        _ => return Err(Attempt::status(url, status, wait)),
    };
    let body: Box<dyn Read> = Box::new(response.into_body().into_reader());
    Ok(Opened {
        start,
        length,
        framed: chunked || length.is_some(),
        modified,
        body: Some(body),
        not_modified: false,
    })
}

/// `bytes 100-199/200` begins at 100 (RFC 9110 section 14.4).
fn range_start(value: Option<&str>) -> Option<u64> {
    value?
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_start(Some("bytes 100-199/200")), Some(100));
        assert_eq!(range_start(Some("bytes */200")), None);
        assert_eq!(range_start(None), None);
    }
}
