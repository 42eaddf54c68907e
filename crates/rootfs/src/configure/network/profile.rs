//! What a `network` line says about a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::keyfile::{Keyfile, ssid, uuid};
use crate::configure::draft::{Draft, split_commas};
use crate::configure::firewall::is_interface;

/// One connection, checked.
#[derive(Debug)]
pub(super) struct Profile {
    device: Device,
    kind: Kind,
    vlan: Option<u16>,
    vlan_name: Option<String>,
    pub(super) ssid: Option<String>,
    wpa_key: Option<String>,
    mtu: Option<u32>,
    on_boot: bool,
    ipv4: Ipv4,
    ipv6: Ipv6,
    dns: Vec<IpAddr>,
    search: (Vec<String>, Vec<String>),
    no_default_route: bool,
    ignore_dns: (bool, bool),
}

/// Which device a profile is for.
#[derive(Debug, PartialEq)]
enum Device {
    /// Any that has a link.
    Any,
    Name(String),
    Mac(String),
}

#[derive(Debug)]
enum Kind {
    Plain,
    Bond {
        members: Vec<String>,
        options: Vec<(String, String)>,
    },
    Bridge {
        members: Vec<String>,
        options: Vec<(String, String)>,
    },
    Team {
        members: Vec<(String, String)>,
        config: String,
    },
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

impl Profile {
    /// Reads a line; `None` after an error notice.
    pub(super) fn read(draft: &mut Draft<'_>) -> Option<Profile> {
        let device = device(draft)?;
        let kind = kind(draft)?;
        let named = matches!(device, Device::Name(_));
        let vlan = vlan(draft)?;
        if !named && (vlan.is_some() || !matches!(kind, Kind::Plain)) {
            draft.error(
                "names no device for its bond, bridge, team or VLAN",
                "give --device=NAME",
            );
            return None;
        }
        if draft.command.has("--bindto") && !matches!(device, Device::Mac(_)) {
            draft.warn(
                "--bindto=mac has no effect: the machine's address is not known",
                "give the address as --device",
            );
        }
        let text = |name: &str| {
            draft
                .command
                .text(name)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let (ssid, wpa_key) = (text("--essid"), text("--wpakey"));
        if let Some(key) = &wpa_key
            && !(8..=64).contains(&key.len())
        {
            draft.error(
                "--wpakey: not a WPA key",
                "a passphrase has 8 to 63 letters, a raw key 64 hexadecimal digits",
            );
            return None;
        }
        Some(Profile {
            vlan_name: interface_name(draft)?,
            mtu: mtu(draft)?,
            on_boot: on_boot(draft),
            ipv4: ipv4(draft)?,
            ipv6: ipv6(draft)?,
            dns: dns(draft)?,
            search: (
                search(draft, "--ipv4-dns-search"),
                search(draft, "--ipv6-dns-search"),
            ),
            no_default_route: draft.command.flag("--nodefroute"),
            ignore_dns: (
                draft.command.flag("--nodns") || draft.command.flag("--ipv4-ignore-auto-dns"),
                draft.command.flag("--nodns") || draft.command.flag("--ipv6-ignore-auto-dns"),
            ),
            device,
            kind,
            vlan,
            ssid,
            wpa_key,
        })
    }

    pub(super) fn is_team(&self) -> bool {
        matches!(self.kind, Kind::Team { .. })
    }

    /// The profile's file, before it those of the devices that it joins or rides on.
    pub(super) fn keyfiles(&self) -> Vec<Keyfile> {
        let mut files = self.members();
        let carrier = !matches!(self.kind, Kind::Plain);
        if self.vlan.is_some() && carrier {
            // The addresses are the VLAN's, so the bond, bridge or team below has none.
            let mut below = self.base(self.id());
            below.set("ipv4", "method", "disabled");
            below.set("ipv6", "method", "disabled");
            files.push(below);
        }
        let mut file = match self.vlan {
            Some(id) => self.vlan(id),
            None => self.base(self.id()),
        };
        self.addresses(&mut file);
        files.push(file);
        files
    }

    /// The device's name, or what else tells profiles apart.
    fn id(&self) -> String {
        match (&self.ssid, &self.device) {
            (Some(ssid), _) => ssid.clone(),
            (None, Device::Name(name)) => name.clone(),
            (None, Device::Mac(mac)) => mac.replace(':', "-"),
            (None, Device::Any) => "link".to_owned(),
        }
    }

    fn base(&self, id: String) -> Keyfile {
        let kind = match (&self.kind, &self.ssid) {
            (Kind::Plain, None) => "ethernet",
            (Kind::Plain, Some(_)) => "wifi",
            (Kind::Bond { .. }, _) => "bond",
            (Kind::Bridge { .. }, _) => "bridge",
            (Kind::Team { .. }, _) => "team",
        };
        let mut file = Keyfile::new(&id, kind);
        match &self.device {
            Device::Name(name) => file.set("connection", "interface-name", name.clone()),
            Device::Mac(mac) => file.set(
                if kind == "wifi" { "wifi" } else { "ethernet" },
                "mac-address",
                mac.clone(),
            ),
            // 3 = multiple: the profile may be up on every such device, but a fixed address only on one.
            Device::Any if !matches!(self.ipv4, Ipv4::Manual { .. }) => {
                file.set("connection", "multi-connect", "3")
            }
            Device::Any => {}
        }
        if !self.on_boot {
            file.set("connection", "autoconnect", "false");
        }
        if let Some(mtu) = self.mtu {
            file.set(
                if kind == "wifi" { "wifi" } else { "ethernet" },
                "mtu",
                mtu.to_string(),
            );
        }
        self.wireless(&mut file);
        match &self.kind {
            Kind::Plain => {}
            Kind::Bond { options, .. } => options
                .iter()
                .for_each(|(k, v)| file.set("bond", k, v.clone())),
            Kind::Bridge { options, .. } => options
                .iter()
                .for_each(|(k, v)| file.set("bridge", k, v.clone())),
            Kind::Team { config, .. } if config.is_empty() => {}
            Kind::Team { config, .. } => file.set("team", "config", super::keyfile::escape(config)),
        }
        file
    }

    fn wireless(&self, file: &mut Keyfile) {
        let Some(name) = &self.ssid else { return };
        file.set("wifi", "mode", "infrastructure");
        file.set("wifi", "ssid", ssid(name));
        if let Some(key) = &self.wpa_key {
            file.set("wifi-security", "key-mgmt", "wpa-psk");
            file.set_secret("wifi-security", "psk", key);
        }
    }

    fn vlan(&self, vlan: u16) -> Keyfile {
        let parent = self.id();
        let name = self
            .vlan_name
            .clone()
            .unwrap_or_else(|| format!("{parent}.{vlan}"));
        let mut file = Keyfile::new(&name, "vlan");
        file.set("connection", "interface-name", name);
        if !self.on_boot {
            file.set("connection", "autoconnect", "false");
        }
        file.set("vlan", "id", vlan.to_string());
        file.set("vlan", "parent", parent);
        file
    }

    /// Profiles of the devices that a bond, bridge or team joins.
    fn members(&self) -> Vec<Keyfile> {
        let (kind, members): (&str, Vec<(&str, &str)>) = match &self.kind {
            Kind::Plain => return Vec::new(),
            Kind::Bond { members, .. } => {
                ("bond", members.iter().map(|m| (m.as_str(), "")).collect())
            }
            Kind::Bridge { members, .. } => {
                ("bridge", members.iter().map(|m| (m.as_str(), "")).collect())
            }
            Kind::Team { members, .. } => (
                "team",
                members
                    .iter()
                    .map(|(m, c)| (m.as_str(), c.as_str()))
                    .collect(),
            ),
        };
        let master = self.id();
        let member = |(index, (name, config)): (usize, &(&str, &str))| {
            let mut file = Keyfile::new(&format!("{master}_slave_{}", index + 1), "ethernet");
            file.set("connection", "interface-name", *name);
            file.set("connection", "master", uuid(&master));
            file.set("connection", "slave-type", kind);
            if !config.is_empty() {
                file.set("team-port", "config", super::keyfile::escape(config));
            }
            file
        };
        members.iter().enumerate().map(member).collect()
    }

    fn addresses(&self, file: &mut Keyfile) {
        match &self.ipv4 {
            Ipv4::Disabled => file.set("ipv4", "method", "disabled"),
            Ipv4::Auto => file.set("ipv4", "method", "auto"),
            Ipv4::Manual {
                address,
                prefix,
                gateway,
            } => {
                file.set("ipv4", "method", "manual");
                let gateway = gateway.map_or_else(String::new, |g| format!(",{g}"));
                file.set("ipv4", "address1", format!("{address}/{prefix}{gateway}"));
            }
        }
        match &self.ipv6 {
            Ipv6::Disabled => file.set("ipv6", "method", "disabled"),
            Ipv6::Auto => file.set("ipv6", "method", "auto"),
            Ipv6::Dhcp => file.set("ipv6", "method", "dhcp"),
            Ipv6::Manual {
                address,
                prefix,
                gateway,
            } => {
                file.set("ipv6", "method", "manual");
                let gateway = gateway.map_or_else(String::new, |g| format!(",{g}"));
                file.set("ipv6", "address1", format!("{address}/{prefix}{gateway}"));
            }
        }
        self.names(
            file,
            "ipv4",
            IpAddr::is_ipv4,
            &self.search.0,
            self.ignore_dns.0,
        );
        self.names(
            file,
            "ipv6",
            IpAddr::is_ipv6,
            &self.search.1,
            self.ignore_dns.1,
        );
    }

    fn names(
        &self,
        file: &mut Keyfile,
        section: &str,
        of: fn(&IpAddr) -> bool,
        search: &[String],
        ignore: bool,
    ) {
        let list = |words: Vec<String>| words.iter().map(|w| format!("{w};")).collect::<String>();
        let dns: Vec<String> = self
            .dns
            .iter()
            .filter(|d| of(d))
            .map(IpAddr::to_string)
            .collect();
        if !dns.is_empty() {
            file.set(section, "dns", list(dns));
        }
        if !search.is_empty() {
            file.set(section, "dns-search", list(search.to_vec()));
        }
        if ignore {
            file.set(section, "ignore-auto-dns", "true");
        }
        if self.no_default_route {
            file.set(section, "never-default", "true");
        }
    }
}

fn device(draft: &mut Draft<'_>) -> Option<Device> {
    let said = draft.command.text("--device").unwrap_or("link");
    if matches!(said, "" | "link" | "bootif" | "ibft") {
        return Some(Device::Any);
    }
    let octets: Vec<&str> = said.split(':').collect();
    if octets.len() == 6
        && octets
            .iter()
            .all(|o| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        return Some(Device::Mac(said.to_ascii_uppercase()));
    }
    if is_interface(said) {
        return Some(Device::Name(said.to_owned()));
    }
    let hint = "give a device's name (enp1s0), its hardware address, or `link` for any";
    draft.error(format!("--device={said}: not a network device"), hint);
    None
}

fn interface_name(draft: &mut Draft<'_>) -> Option<Option<String>> {
    let Some(said) = draft
        .command
        .text("--interfacename")
        .filter(|n| !n.is_empty())
    else {
        return Some(None);
    };
    if draft.command.text("--vlanid").is_none() {
        draft.warn(
            "--interfacename has no effect without --vlanid",
            "it names a VLAN's device",
        );
    }
    if !is_interface(said) {
        draft.error(
            format!("--interfacename={said}: not the name of a network device"),
            "use up to 15 letters",
        );
        return None;
    }
    Some(Some(said.to_owned()))
}

fn vlan(draft: &mut Draft<'_>) -> Option<Option<u16>> {
    let Some(said) = draft.command.text("--vlanid") else {
        return Some(None);
    };
    match said.parse::<u16>() {
        Ok(id) if id < 4095 => Some(Some(id)),
        _ => {
            draft.error(
                format!("--vlanid={said}: not a VLAN"),
                "VLANs are numbered from 0 to 4094",
            );
            None
        }
    }
}

fn mtu(draft: &mut Draft<'_>) -> Option<Option<u32>> {
    let said = draft
        .command
        .text("--mtu")
        .map(str::to_owned)
        .or_else(|| draft.command.int("--mtu").map(|n| n.to_string()));
    let Some(said) = said.filter(|s| !s.is_empty()) else {
        return Some(None);
    };
    match said.parse::<u32>() {
        Ok(mtu) if (68..=65535).contains(&mtu) => Some(Some(mtu)),
        _ => {
            draft.error(
                format!("--mtu={said}: not a packet size"),
                "sizes are from 68 to 65535 bytes",
            );
            None
        }
    }
}

fn on_boot(draft: &Draft<'_>) -> bool {
    use kiln_kickstart::Value;
    let last = draft
        .command
        .options
        .iter()
        .rev()
        .find(|o| o.name == "--onboot");
    match last.map(|o| &o.value) {
        Some(Value::Flag(on)) => *on,
        Some(Value::Int(number)) => *number != 0,
        Some(Value::Text(text)) => !matches!(
            text.to_ascii_lowercase().as_str(),
            "no" | "off" | "false" | "0"
        ),
        _ => true,
    }
}

fn kind(draft: &mut Draft<'_>) -> Option<Kind> {
    let bond = draft.all_lists("--bondslaves");
    let bridge = draft.all_lists("--bridgeslaves");
    let team = team_members(&draft.all_lists("--teamslaves").join(","));
    if [bond.is_empty(), bridge.is_empty(), team.is_empty()]
        .iter()
        .filter(|e| !**e)
        .count()
        > 1
    {
        draft.error(
            "is a bond, a bridge and a team at once",
            "give one of --bondslaves, --bridgeslaves, --teamslaves",
        );
        return None;
    }
    let mut names = bond
        .iter()
        .chain(&bridge)
        .copied()
        .chain(team.iter().map(|(n, _)| n.as_str()));
    if let Some(bad) = names.find(|n| !is_interface(n)) {
        draft.error(
            format!("joins {bad}, which is not the name of a network device"),
            "separate devices by commas",
        );
        return None;
    }
    let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
    if !bond.is_empty() {
        return Some(Kind::Bond {
            members: owned(bond),
            options: options(draft, "--bondopts")?,
        });
    }
    if !bridge.is_empty() {
        return Some(Kind::Bridge {
            members: owned(bridge),
            options: options(draft, "--bridgeopts")?,
        });
    }
    if !team.is_empty() {
        let config = draft.command.text("--teamconfig").unwrap_or("").to_owned();
        return Some(Kind::Team {
            members: team,
            config,
        });
    }
    Some(Kind::Plain)
}

/// `mode=active-backup,miimon=100`, or separated by semicolons where values hold commas.
fn options(draft: &mut Draft<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let said = match draft.command.text(name) {
        Some(text) => text.to_owned(),
        None => draft.all_lists(name).join(","),
    };
    let separator = if said.contains(';') { ';' } else { ',' };
    let mut options = Vec::new();
    for pair in said
        .split(separator)
        .map(str::trim)
        .filter(|p| !p.is_empty())
    {
        // The reference's own documents write `miimon-100` as well.
        let split = pair.split_once('=').or_else(|| pair.split_once('-'));
        let sane = |k: &str| {
            !k.is_empty()
                && k.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        match split {
            Some((key, value)) if sane(key) && !value.contains(char::is_control) => {
                options.push((key.to_owned(), super::keyfile::escape(value)));
            }
            _ => {
                draft.error(
                    format!("{name}={said}: not NAME=VALUE pairs"),
                    "for example mode=active-backup,miimon=100",
                );
                return None;
            }
        }
    }
    Some(options)
}

/// `eth1'{"prio": 10}',eth2`: names, each with a configuration in quotes.
fn team_members(said: &str) -> Vec<(String, String)> {
    let mut members = Vec::new();
    let mut rest = said;
    while !rest.is_empty() {
        let end = rest.find([',', '\'']).unwrap_or(rest.len());
        let (name, mut after) = rest.split_at(end);
        let mut config = "";
        if let Some(quoted) = after.strip_prefix('\'') {
            let close = quoted.find('\'').unwrap_or(quoted.len());
            config = &quoted[..close];
            after = quoted[close..].trim_start_matches('\'');
        }
        if !name.trim().is_empty() {
            members.push((name.trim().to_owned(), config.to_owned()));
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    members
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

fn search(draft: &Draft<'_>, option: &str) -> Vec<String> {
    let text = draft
        .command
        .text(option)
        .map(str::to_owned)
        .unwrap_or_else(|| draft.all_lists(option).join(","));
    let sane = |w: &&str| {
        w.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    split_commas(&text)
        .filter(sane)
        .map(str::to_owned)
        .collect()
}
