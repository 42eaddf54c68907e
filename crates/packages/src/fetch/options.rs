//! How to fetch: time-outs, retries, proxies. Plain values; nothing is read from the environment here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Whether something may be fetched from an address.
pub type Allows = fn(IpAddr) -> bool;

/// How a [`Fetcher`](crate::Fetcher) behaves.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Longest wait for a name look-up and, again, for a connection.
    pub connect_timeout: Duration,
    /// A transfer that brings less than [`FetchOptions::STALL_BYTES`] in this time has stalled.
    pub stall_timeout: Duration,
    /// Tries of one file in a row that bring nothing new before giving up; at least 1.
    pub attempts: u32,
    /// Wait before the second try; doubled for every further one.
    pub backoff: Duration,
    /// Longest wait between two tries, also where the server asks for more.
    pub backoff_max: Duration,
    /// Longest time for one small file or one index, with all its tries: a server that never stalls may still never end.
    pub file_deadline: Duration,
    /// Whether a small file may come without a length, so that nobody can tell whether it is complete. Only for what is
    /// verified afterwards.
    pub unframed: bool,
    /// Files fetched at the same time; at least 1.
    pub parallel: usize,
    /// Proxies.
    pub proxies: Proxies,
    /// Whether every access to the network is an error. `file://` still works.
    pub offline: bool,
    /// The only addresses that anything is fetched from, and no `file://` outside of `files`; everything without it. The address that is
    /// connected to counts, not what a name led to before. Behind a proxy names are the proxy's to look up: those that
    /// lead to a closed address here are refused, and the rest is up to it.
    pub only: Option<Allows>,
    /// The directory that `file://` stays in where `only` is said.
    pub files: Option<PathBuf>,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl FetchOptions {
    /// The least number of bytes that must arrive within the stall time.
    pub const STALL_BYTES: u64 = 256;
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            attempts: 5,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(15),
            file_deadline: Duration::from_secs(30 * 60),
            unframed: true,
            parallel: 6,
            proxies: Proxies::default(),
            offline: false,
            only: None,
            files: None,
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Proxies as the usual environment variables name them. Empty values count as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `http_proxy`: for `http://` URLs.
    pub http: Option<String>,
    /// `https_proxy`: for `https://` URLs.
    pub https: Option<String>,
    /// `no_proxy`: comma-separated host names, domain suffixes, addresses with optional `:port`, or `*`.
    pub exceptions: Option<String>,
}

impl Proxies {
    /// The proxy for a host, if one applies.
    pub(crate) fn applying(&self, https: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if https { &self.https } else { &self.http };
        let proxy = proxy.as_deref().map(str::trim).filter(|p| !p.is_empty())?;
        (!self.excepts(host, port)).then_some(proxy)
    }

    fn excepts(&self, host: &str, port: u16) -> bool {
        let list = self.exceptions.as_deref().unwrap_or("");
        list.split([',', ' '])
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .any(|entry| {
                entry == "*" || exception_matches(entry, host.trim_matches(['[', ']']), port)
            })
    }
}

/// One entry of `no_proxy`: `example.org`, `.example.org`, `*.example.org` (each with its subdomains),
/// `127.0.0.1`, `[::1]:8080`.
fn exception_matches(entry: &str, host: &str, port: u16) -> bool {
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name
        .trim_matches(['[', ']'])
        .trim_start_matches('*')
        .trim_start_matches('.');
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    host == name
        || host
            .strip_suffix(&name)
            .is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(exceptions: &str) -> Proxies {
        Proxies {
            http: Some("http://proxy:3128".into()),
            https: Some(" ".into()),
            exceptions: Some(exceptions.into()),
        }
    }

    #[test]
    fn exceptions_cover_hosts_suffixes_ports_and_addresses() {
        let rules = proxies("localhost, .example.org,*.lan,10.0.0.7:8080,[::1]");
        for (host, port, direct) in [
            ("localhost", 80, true),
            ("mirror.example.org", 80, true),
            ("example.org", 80, true),
            ("badexample.org", 80, false),
            ("a.LAN", 80, true),
            ("10.0.0.7", 8080, true),
            ("10.0.0.7", 80, false),
            ("[::1]", 80, true),
            ("deb.debian.org", 80, false),
        ] {
            assert_eq!(
                rules.applying(false, host, port).is_none(),
                direct,
                "{host}:{port}"
            );
        }
        assert_eq!(proxies("*").applying(false, "a", 80), None);
    }

    #[test]
    fn blank_proxies_are_absent() {
        assert_eq!(proxies("").applying(true, "deb.debian.org", 443), None);
    }
}
