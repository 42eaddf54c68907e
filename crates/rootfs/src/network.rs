//! What scripts have of the network: how far they reach, how names resolve, which proxies they are told of.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kiln_packages::Proxies;
use kiln_sandbox::{Door, Mount, Network, closed_to_runs};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// How far scripts reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Other machines, from a network of their own.
    #[default]
    Own,
    /// All that this machine reaches, itself included.
    Host,
    /// Nothing.
    None,
}

/// Files in which the C library looks for name servers: the second and third are where a link in the first one's place leads
/// once a script has made systemd-resolved's.
const RESOLVER_FILES: [&str; 3] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/resolv.conf",
];
/// Name servers that the C library asks (`MAXNS`).
const NAME_SERVERS: usize = 3;
/// What name servers and proxies are called inside: addresses that are given to nobody (RFC 1112, "class E"), and that scripts reach in
/// no other way.
const NAME_SERVER: [u8; 4] = [240, 0, 0, 53];
const PROXY: [u8; 4] = [240, 0, 0, 80];

/// What a script gets.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For the sandbox.
    pub network: Network,
    /// Lines of resolv.conf(5) that are lent to the root's.
    resolver: Option<String>,
    /// Variables that name proxies.
    pub env: Vec<(String, String)>,
    /// What is not shown: credentials of proxies in all forms in which programs print them.
    secrets: Vec<String>,
    /// The proxies, without credentials, for messages.
    proxies: Vec<String>,
}

/// This machine's `/etc/resolv.conf`. Where there is none the C library asks this machine, and so does the access.
///
/// # Errors
/// It is there and cannot be read.
pub fn resolv_conf() -> io::Result<String> {
    match std::fs::read("/etc/resolv.conf") {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

impl Access {
    /// What scripts get. `resolv_conf` is this machine's.
    pub fn new(reach: Reach, resolv_conf: &str, proxies: &Proxies) -> Access {
        let mut access = Access::default();
        match reach {
            Reach::None => return access,
            Reach::Host => {
                access.network = Network::Host;
                access.resolver = Some(lent(resolver_lines(resolv_conf)));
            }
            Reach::Own => access.give_own(resolv_conf),
        }
        let given = [
            (["http_proxy", "HTTP_PROXY"], &proxies.http),
            (["https_proxy", "HTTPS_PROXY"], &proxies.https),
        ];
        for (names, value) in given {
            let value = value.as_deref().map(str::trim);
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let told = access.tell_proxy(names[0], value);
                access.set(names, &told);
            }
        }
        if let Some(exceptions) = proxies.exceptions.as_deref().filter(|e| !e.is_empty()) {
            access.set(["no_proxy", "NO_PROXY"], exceptions);
        }
        access
    }

    fn set(&mut self, names: [&str; 2], value: &str) {
        let pairs = names.map(|name| (name.to_owned(), value.to_owned()));
        self.env.extend(pairs);
    }

    fn give_own(&mut self, resolv_conf: &str) {
        let mut doors = Vec::new();
        let mut lines: Vec<String> = resolver_lines(resolv_conf)
            .into_iter()
            .filter(|line| !line.starts_with("nameserver"))
            .collect();
        for (index, server) in name_servers(resolv_conf).into_iter().enumerate() {
            let inside = address(NAME_SERVER, index);
            lines.push(format!("nameserver {inside}"));
            doors.push(Door {
                inside: SocketAddr::new(inside, 53),
                outside: server,
                name: format!("this machine's name server {}", server.ip()),
            });
        }
        self.network = Network::Own { doors };
        self.resolver = Some(lent(lines));
    }

    /// Notes a proxy, and returns it as scripts are to be told of it: what only this machine reaches gets a door.
    fn tell_proxy(&mut self, variable: &str, value: &str) -> String {
        let proxy = Proxy::read(value);
        self.secrets.extend(proxy.secrets());
        self.proxies.push(format!("{} ({variable})", proxy.shown()));
        let Network::Own { doors } = &mut self.network else {
            return value.to_owned();
        };
        let Some(outside) = proxy.only_here() else {
            return value.to_owned();
        };
        let known = doors.iter().find(|door| door.outside == outside);
        let inside = match known {
            Some(door) => door.inside,
            None => {
                let inside = SocketAddr::new(address(PROXY, doors.len()), outside.port());
                doors.push(Door {
                    inside,
                    outside,
                    name: format!("the proxy {} ({variable})", proxy.shown()),
                });
                inside
            }
        };
        proxy.at(inside)
    }

    /// Mounts that make names resolve.
    pub fn mounts(&self) -> Vec<Mount> {
        let heads = self.resolver.iter().flat_map(|text| {
            RESOLVER_FILES.iter().map(|target| Mount::Head {
                target: (*target).to_owned(),
                text: text.clone(),
                // Nobody else writes comments of Kiln, or name servers that no machine is.
                marks: text
                    .lines()
                    .filter(|line| line.starts_with('#') || line.contains(" 240.0.0."))
                    .map(str::to_owned)
                    .collect(),
            })
        });
        heads.collect()
    }

    /// A line without the proxies' credentials.
    pub fn masked<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let mut shown = Cow::Borrowed(line);
        for secret in &self.secrets {
            if shown.contains(secret) {
                shown = Cow::Owned(shown.replace(secret, "***"));
            }
        }
        shown
    }

    /// A hint where a script that has proxies may have failed for one of them.
    pub fn hint(&self, tail: &[String]) -> Option<String> {
        const SIGNS: [&str; 4] = ["proxy", "onnect", "esolve", "407"];
        let concerned = tail
            .iter()
            .any(|line| SIGNS.iter().any(|sign| line.contains(sign)));
        (concerned && !self.proxies.is_empty()).then(|| {
            let proxies = self.proxies.join(" and ");
            format!("the script was told to go through the proxy {proxies}: is it there, and does it let this machine through?")
        })
    }
}

fn address([a, b, c, d]: [u8; 4], index: usize) -> IpAddr {
    let index = u8::try_from(index).unwrap_or(u8::MAX);
    Ipv4Addr::new(a, b, c, d.saturating_add(index)).into()
}

/// The lines of resolv.conf(5) that say something.
fn resolver_lines(text: &str) -> Vec<String> {
    const KEYWORDS: [&str; 5] = ["nameserver", "search", "domain", "options", "sortlist"];
    text.lines()
        .map(str::trim)
        .filter(|line| {
            let keyword = line.split_whitespace().next();
            keyword.is_some_and(|keyword| KEYWORDS.contains(&keyword))
        })
        .map(str::to_owned)
        .collect()
}

/// The name servers that the C library would ask.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = resolver_lines(text)
        .iter()
        .filter_map(|line| name_server(line.strip_prefix("nameserver")?.trim()))
        .take(NAME_SERVERS)
        .collect();
    if found.is_empty() {
        found.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    found
}

/// `192.0.2.1`, `2001:db8::1` or `fe80::1%eth0`.
fn name_server(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, 53));
    };
    let scope = zone.parse().ok().or_else(|| {
        let index = std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex"));
        index.ok()?.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
}

fn lent(lines: Vec<String>) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    format!(
        "# Kiln lends these lines to the scripts of a build; the image does not get them.\n{lines}# So far Kiln.\n"
    )
}

/// A proxy's address, in pieces: `http://user:password@host:3128/`.
#[derive(Debug, PartialEq, Eq)]
struct Proxy<'a> {
    scheme: &'a str,
    credentials: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
    rest: &'a str,
}

impl<'a> Proxy<'a> {
    fn read(text: &'a str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (authority, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, server) = match authority.rsplit_once('@') {
            Some((credentials, server)) => (Some(credentials), server),
            None => (None, authority),
        };
        let (host, port) = match server.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (host, digits.parse().ok())
            }
            _ => (server, None),
        };
        Proxy {
            scheme,
            credentials,
            host,
            port,
            rest,
        }
    }

    fn shown(&self) -> String {
        let credentials = self.credentials.map_or("", |_| "***@");
        let port = self
            .port
            .map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{credentials}{}{port}", self.scheme, self.host)
    }

    /// The same proxy at another address.
    fn at(&self, server: SocketAddr) -> String {
        let credentials = self
            .credentials
            .map_or_else(String::new, |c| format!("{c}@"));
        format!("{}://{credentials}{server}{}", self.scheme, self.rest)
    }

    /// Where it is, if scripts with a network of their own cannot get there.
    fn only_here(&self) -> Option<SocketAddr> {
        let default = match self.scheme {
            "https" => 443,
            "http" => 80,
            _ => 1080,
        };
        let host = self.host.trim_matches(['[', ']']);
        let found = (host, self.port.unwrap_or(default))
            .to_socket_addrs()
            .ok()?;
        let found: Vec<SocketAddr> = found.collect();
        let first = *found.first()?;
        found
            .iter()
            .all(|address| closed_to_runs(address.ip()))
            .then_some(first)
    }

    /// Forms in which the credentials may be printed. Short words are no secrets, and would mask half of a log.
    fn secrets(&self) -> Vec<String> {
        let Some(credentials) = self.credentials else {
            return Vec::new();
        };
        let plain = percent_decode_str(credentials)
            .decode_utf8_lossy()
            .into_owned();
        let password = |text: &str| text.split_once(':').map(|(_, word)| word.to_owned());
        let forms = [
            Some(credentials.to_owned()),
            Some(BASE64.encode(&plain)),
            password(credentials),
            password(&plain),
            Some(plain),
        ];
        let mut forms: Vec<String> = forms
            .into_iter()
            .flatten()
            .filter(|f| f.len() > 3)
            .collect();
        // The longest first: it may contain the others.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        forms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(reach: Reach, resolv_conf: &str, http: &str, exceptions: &str) -> Access {
        let proxies = Proxies {
            http: Some(http.to_owned()),
            https: None,
            exceptions: Some(exceptions.to_owned()),
        };
        Access::new(reach, resolv_conf, &proxies)
    }

    fn doors(access: &Access) -> Vec<(String, String)> {
        match &access.network {
            Network::Own { doors } => doors
                .iter()
                .map(|d| (d.inside.to_string(), d.outside.to_string()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn name_servers_of_this_machine_are_lent_whatever_their_address() {
        let text = "# comment\nsearch a.example\nnameserver 127.0.0.53\nnameserver 2001:db8::1\noptions edns0\n\
                    nameserver 10.0.0.1\nnameserver 10.0.0.2\n";
        let given = access(Reach::Own, text, "", "");
        assert_eq!(
            doors(&given),
            pairs(&[
                ("240.0.0.53:53", "127.0.0.53:53"),
                ("240.0.0.54:53", "[2001:db8::1]:53"),
                ("240.0.0.55:53", "10.0.0.1:53"),
            ])
        );
        let lines = given.resolver.expect("lines");
        assert!(
            lines.contains("search a.example\noptions edns0\nnameserver 240.0.0.53\n"),
            "{lines}"
        );
        assert!(!lines.contains("127.0.0.53"), "{lines}");
        let none = access(Reach::Own, "", "", "");
        assert_eq!(doors(&none), pairs(&[("240.0.0.53:53", "127.0.0.1:53")]));
        assert!(
            access(Reach::Host, text, "", "")
                .resolver
                .expect("lines")
                .contains("nameserver 10.0.0.2")
        );
        assert!(
            access(Reach::None, text, "http://h:1", "")
                .mounts()
                .is_empty()
        );
    }

    #[test]
    fn a_proxy_on_this_machine_gets_a_door_and_another_does_not() {
        for (proxy, told, door) in [
            (
                "http://u:p@127.0.0.1:3128/",
                "http://u:p@240.0.0.81:3128/",
                Some("127.0.0.1:3128"),
            ),
            (
                "localhost:8080",
                "http://240.0.0.81:8080",
                Some("127.0.0.1:8080"),
            ),
            (
                "http://[::1]:8080",
                "http://240.0.0.81:8080",
                Some("[::1]:8080"),
            ),
            ("http://10.1.2.3:3128", "http://10.1.2.3:3128", None),
        ] {
            let given = access(Reach::Own, "nameserver 10.0.0.1", proxy, "localhost,.corp");
            let expected = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let env = [
                expected("http_proxy", told),
                expected("HTTP_PROXY", told),
                expected("no_proxy", "localhost,.corp"),
                expected("NO_PROXY", "localhost,.corp"),
            ];
            assert_eq!(given.env, env, "{proxy}");
            let more = doors(&given).get(1).map(|door| door.1.clone());
            // The system decides which of the two loopback addresses a name has first.
            let port = |text: &str| text.rsplit_once(':').map(|(_, port)| port.to_owned());
            assert_eq!(
                more.as_deref().and_then(port),
                door.and_then(port),
                "{proxy}"
            );
        }
        let host = access(Reach::Host, "", "http://127.0.0.1:3128", "");
        assert_eq!(host.env[0].1, "http://127.0.0.1:3128");
    }

    #[test]
    fn both_schemes_share_the_door_of_one_proxy() {
        let proxies = Proxies {
            http: Some("http://127.0.0.1:3128".to_owned()),
            https: Some("http://127.0.0.1:3128".to_owned()),
            exceptions: None,
        };
        let given = Access::new(Reach::Own, "nameserver 10.0.0.1", &proxies);
        assert_eq!(doors(&given).len(), 2);
        assert_eq!(given.env[0].1, given.env[2].1);
    }

    #[test]
    fn credentials_are_masked_in_every_form() {
        let given = access(Reach::Own, "", "http://me:se%40cret@127.0.0.1:3128", "");
        for line in [
            "http_proxy=http://me:se%40cret@240.0.0.81:3128",
            "the password is se@cret",
            "Proxy-Authorization: Basic bWU6c2VAY3JldA==",
        ] {
            let shown = given.masked(line);
            assert!(shown.contains("***"), "{shown}");
            for secret in ["se%40cret", "se@cret", "bWU6c2VAY3JldA"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        assert_eq!(given.masked("nothing of it"), "nothing of it");
        let hint = given.hint(&["curl: (7) Failed to connect".to_owned()]);
        let hint = hint.expect("a hint");
        assert!(
            hint.contains("http://***@127.0.0.1:3128 (http_proxy)"),
            "{hint}"
        );
        assert!(given.hint(&["exit".to_owned()]).is_none());
    }
}
