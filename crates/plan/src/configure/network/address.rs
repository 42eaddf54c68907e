//! Addresses, gateways and name servers of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::keyfile::Keyfile;
use crate::configure::draft::{Draft, split_commas};

/// What a connection says about IP.
#[derive(Debug)]
pub(super) struct Addresses {
    ipv4: Ipv4,
    ipv6: Ipv6,
    dns: Vec<IpAddr>,
    search: (Vec<String>, Vec<String>),
    ignore_dns: (bool, bool),
    no_default_route: bool,
}

#[derive(Debug)]
enum Ipv4 {
    Disabled,
    Auto,
    Manual {
        address: Ipv4Addr,
        prefix: u32,
        gateway: Option<Ipv4Addr>,
    },
}

#[derive(Debug)]
enum Ipv6 {
    Disabled,
    Auto,
    Dhcp,
    Manual {
        address: Ipv6Addr,
        prefix: u32,
        gateway: Option<Ipv6Addr>,
    },
}

impl Addresses {
    /// Reads a line; `None` after an error notice.
    pub(super) fn read(draft: &mut Draft<'_>) -> Option<Self> {
        let no_dns = draft.command.flag("--nodns");
        Some(Addresses {
            ipv4: ipv4(draft)?,
            ipv6: ipv6(draft)?,
            dns: dns(draft)?,
            search: (
                search(draft, "--ipv4-dns-search")?,
                search(draft, "--ipv6-dns-search")?,
            ),
            ignore_dns: (
                no_dns || draft.command.flag("--ipv4-ignore-auto-dns"),
                no_dns || draft.command.flag("--ipv6-ignore-auto-dns"),
            ),
            no_default_route: draft.command.flag("--nodefroute"),
        })
    }

    /// No address at all: for a device that only carries others.
    pub(super) fn none(file: &mut Keyfile) {
        file.set("ipv4", "method", "disabled");
        file.set("ipv6", "method", "disabled");
    }

    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.ipv4, Ipv4::Manual { .. }) || matches!(self.ipv6, Ipv6::Manual { .. })
    }

    pub(super) fn write(&self, file: &mut Keyfile) {
        let with = |gateway: Option<String>| gateway.map_or_else(String::new, |g| format!(",{g}"));
        let (method, address) = match &self.ipv4 {
            Ipv4::Disabled => ("disabled", None),
            Ipv4::Auto => ("auto", None),
            Ipv4::Manual {
                address,
                prefix,
                gateway,
            } => (
                "manual",
                Some(format!(
                    "{address}/{prefix}{}",
                    with(gateway.map(|g| g.to_string()))
                )),
            ),
        };
        self.section(file, "ipv4", method, address, IpAddr::is_ipv4);
        let (method, address) = match &self.ipv6 {
            Ipv6::Disabled => ("disabled", None),
            Ipv6::Auto => ("auto", None),
            Ipv6::Dhcp => ("dhcp", None),
            Ipv6::Manual {
                address,
                prefix,
                gateway,
            } => (
                "manual",
                Some(format!(
                    "{address}/{prefix}{}",
                    with(gateway.map(|g| g.to_string()))
                )),
            ),
        };
        self.section(file, "ipv6", method, address, IpAddr::is_ipv6);
    }

    /// One protocol's section. A disabled one has no further keys: NetworkManager refuses them.
    fn section(
        &self,
        file: &mut Keyfile,
        name: &str,
        method: &str,
        address: Option<String>,
        of: fn(&IpAddr) -> bool,
    ) {
        file.set(name, "method", method);
        if method == "disabled" {
            return;
        }
        if let Some(address) = address {
            file.set(name, "address1", address);
        }
        let (search, ignore) = match name {
            "ipv4" => (&self.search.0, self.ignore_dns.0),
            _ => (&self.search.1, self.ignore_dns.1),
        };
        let dns: String = self
            .dns
            .iter()
            .filter(|d| of(d))
            .map(|d| format!("{d};"))
            .collect();
        let search: String = search.iter().map(|s| format!("{s};")).collect();
        for (key, value) in [("dns", dns), ("dns-search", search)] {
            if !value.is_empty() {
                file.set(name, key, value);
            }
        }
        for (key, on) in [
            ("ignore-auto-dns", ignore),
            ("never-default", self.no_default_route),
        ] {
            if on {
                file.set(name, key, "true");
            }
        }
    }
}

fn ipv4(draft: &mut Draft<'_>) -> Option<Ipv4> {
    if draft.command.flag("--noipv4") {
        return Some(Ipv4::Disabled);
    }
    match draft.command.text("--bootproto").unwrap_or("dhcp") {
        "dhcp" | "bootp" => {
            for option in ["--ip", "--netmask", "--gateway"] {
                if draft.command.has(option) {
                    draft.warn(
                        format!("{option} has no effect without --bootproto=static"),
                        "add --bootproto=static",
                    );
                }
            }
            Some(Ipv4::Auto)
        }
        "static" if draft.command.has("--ip") => manual_ipv4(draft),
        // A static line with an IPv6 address alone.
        "static" if draft.command.has("--ipv6") => Some(Ipv4::Disabled),
        "static" => {
            draft.error(
                "--bootproto=static without an address",
                "give --ip and --netmask",
            );
            None
        }
        other => {
            let hint = "an image can use dhcp or static";
            draft.error(
                format!("--bootproto={other}: not possible in an image"),
                hint,
            );
            None
        }
    }
}

fn manual_ipv4(draft: &mut Draft<'_>) -> Option<Ipv4> {
    let (address, prefix) = draft.command.text("--ip").map(split_prefix)?;
    let address = parse::<Ipv4Addr>(draft, "--ip", address)?;
    let mask = draft.command.text("--netmask").or(prefix);
    let Some(mask) = mask.map(str::to_owned) else {
        draft.error(
            "--ip without --netmask",
            "for example --netmask=255.255.255.0",
        );
        return None;
    };
    let Some(prefix) = prefix_of(&mask) else {
        draft.error(
            format!("--netmask={mask}: not a network mask"),
            "for example 255.255.255.0, or 24",
        );
        return None;
    };
    let gateway = match draft.command.text("--gateway").filter(|g| !g.is_empty()) {
        Some(gateway) => Some(parse::<Ipv4Addr>(draft, "--gateway", gateway)?),
        None => None,
    };
    Some(Ipv4::Manual {
        address,
        prefix,
        gateway,
    })
}

fn split_prefix(text: &str) -> (&str, Option<&str>) {
    text.split_once('/')
        .map_or((text, None), |(a, p)| (a, Some(p)))
}

/// `255.255.255.0` or `24`.
fn prefix_of(mask: &str) -> Option<u32> {
    if let Ok(prefix) = mask.parse::<u32>() {
        return (prefix <= 32).then_some(prefix);
    }
    let bits = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then_some(ones)
}

fn parse<T: std::str::FromStr>(draft: &mut Draft<'_>, option: &str, said: &str) -> Option<T> {
    let parsed = said.trim().parse().ok();
    if parsed.is_none() {
        draft.error(
            format!("{option}={said}: not an IP address"),
            "names are not looked up here; give the number",
        );
    }
    parsed
}

fn ipv6(draft: &mut Draft<'_>) -> Option<Ipv6> {
    if draft.command.flag("--noipv6") {
        return Some(Ipv6::Disabled);
    }
    match draft.command.text("--ipv6").unwrap_or("auto") {
        "" | "auto" => Some(Ipv6::Auto),
        "dhcp" => Some(Ipv6::Dhcp),
        "ignore" => Some(Ipv6::Disabled),
        said => {
            let (address, prefix) = split_prefix(said);
            let address = parse::<Ipv6Addr>(draft, "--ipv6", address)?;
            let prefix = match prefix.unwrap_or("64").parse::<u32>() {
                Ok(prefix) if prefix <= 128 => prefix,
                _ => {
                    draft.error(
                        format!("--ipv6={said}: not an address with a prefix"),
                        "for example 2001:db8::5/64",
                    );
                    return None;
                }
            };
            let gateway = match draft
                .command
                .text("--ipv6gateway")
                .filter(|g| !g.is_empty())
            {
                Some(gateway) => Some(parse::<Ipv6Addr>(draft, "--ipv6gateway", gateway)?),
                None => None,
            };
            Some(Ipv6::Manual {
                address,
                prefix,
                gateway,
            })
        }
    }
}

fn dns(draft: &mut Draft<'_>) -> Option<Vec<IpAddr>> {
    let said = draft.all_lists("--nameserver");
    said.into_iter()
        .map(|s| parse::<IpAddr>(draft, "--nameserver", s))
        .collect()
}

fn search(draft: &mut Draft<'_>, option: &str) -> Option<Vec<String>> {
    let text = draft.all_lists(option).join(",");
    let sane = |w: &str| {
        w.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    if let Some(bad) = split_commas(&text).find(|w| !sane(w)) {
        draft.error(
            format!("{option}={bad}: not a domain"),
            "separate domains by commas",
        );
        return None;
    }
    Some(split_commas(&text).map(str::to_owned).collect())
}
