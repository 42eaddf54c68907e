//! `firewall`: what may come in.
//!
//! The rules go to `/etc/nftables.conf`, which is small and needs no daemon. Where the definition asks for firewalld by
//! name, `firewall-offline-cmd` is called as the installer calls it.
//!
//! The nftables rules open what the command lists and nothing else (firewalld's default zone has ssh open as well).
//! Files in `/etc/nftables.d` are loaded after them, so that a script can add rules of its own.

use super::{Action, draft::Draft, nearest::did_you_mean};

pub(super) const RULES: &str = "/etc/nftables.conf";

/// Switches that stand for a service. They add up over several lines.
const SWITCHES: [(&str, &str); 4] = [
    ("--ssh", "ssh"),
    ("--http", "http"),
    ("--smtp", "smtp"),
    ("--ftp", "ftp"),
];

pub(super) fn is_service_switch(option: &str) -> bool {
    SWITCHES.iter().any(|(switch, _)| *switch == option)
}

pub(super) fn lower(draft: &mut Draft<'_>) {
    if draft.command.flag("--use-system-defaults") {
        return draft.note("--use-system-defaults: the packages' own settings stay");
    }
    if draft.switch(&["--enable", "--enabled"], &["--disable", "--disabled"]) == Some(false) {
        let disable = ["nftables.service", "firewalld.service", "ufw.service"]
            .map(str::to_owned)
            .to_vec();
        return draft.act(Action::Units {
            disable,
            enable: Vec::new(),
        });
    }
    let Some(ports) = ports(draft) else { return };
    if draft.is_rpm() || draft.asked_for("firewalld") {
        firewalld(draft, &ports)
    } else {
        nftables(draft, &ports)
    }
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    protocol: String,
    first: u16,
    last: u16,
}

impl Port {
    fn range(&self) -> String {
        if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        }
    }
}

fn ports(draft: &mut Draft<'_>) -> Option<Vec<Port>> {
    let mut ports = Vec::new();
    for said in draft.all_lists("--port") {
        match port(said) {
            Some(port) => ports.push(port),
            None => {
                let message = format!("--port={said}: not a port");
                draft.error(
                    message,
                    "write PORT:PROTOCOL or FIRST-LAST:PROTOCOL, for example 8080:tcp",
                );
                return None;
            }
        }
    }
    Some(ports)
}

fn port(said: &str) -> Option<Port> {
    let (numbers, protocol) = said.split_once([':', '/']).unwrap_or((said, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = match first.trim().parse::<u16>() {
        Ok(first) => (first, last.trim().parse::<u16>().ok()?),
        // A service's name stands for its port.
        Err(_) => match service(numbers)?.1 {
            [(_, first, last)] => (*first, *last),
            _ => return None,
        },
    };
    let protocol = protocol.trim().to_ascii_lowercase();
    let known = matches!(protocol.as_str(), "tcp" | "udp" | "sctp" | "dccp");
    (known && first > 0 && first <= last).then_some(Port {
        protocol,
        first,
        last,
    })
}

/// The services to be opened: those named less those removed.
fn services<'a>(draft: &Draft<'a>) -> Vec<&'a str> {
    let switched = SWITCHES
        .iter()
        .filter(|(switch, _)| draft.command.flag(switch))
        .map(|(_, service)| *service);
    let removed = draft.all_lists("--remove-service");
    let mut all: Vec<&str> = draft
        .all_lists("--service")
        .into_iter()
        .chain(switched)
        .collect();
    all.retain(|s| !removed.contains(s));
    all.sort_unstable();
    all.dedup();
    all
}

fn trusted<'a>(draft: &mut Draft<'a>) -> Vec<&'a str> {
    let mut trusted = draft.all_lists("--trust");
    trusted.sort_unstable();
    trusted.dedup();
    for interface in trusted.iter().filter(|i| !is_interface(i)) {
        draft.error(
            format!("--trust={interface}: not the name of a network device"),
            "for example --trust=eth1",
        );
    }
    trusted
}

/// What the kernel takes as a device's name (15 bytes, no slash, no blank), without what nft reads as its own.
pub(super) fn is_interface(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.bytes().all(fine)
}

fn firewalld(draft: &mut Draft<'_>, ports: &[Port]) {
    let mut argv = vec!["firewall-offline-cmd".to_owned(), "--enabled".to_owned()];
    for interface in trusted(draft) {
        argv.push(format!("--trust={interface}"));
    }
    for port in ports {
        argv.push(format!("--port={}:{}", port.range(), port.protocol));
    }
    for service in draft.all_lists("--remove-service") {
        argv.push(format!("--remove-service={service}"));
    }
    for service in services(draft) {
        argv.push(format!("--service={service}"));
    }
    draft.need("firewalld", "holds the firewall's rules");
    // Without its /etc/protocols firewalld cannot load its own services.
    draft.need("netbase", "names the protocols for firewalld");
    let purpose = "setting the firewall's rules".to_owned();
    draft.act(Action::Run {
        argv,
        purpose,
        only_if_present: false,
    });
    let enable = vec!["firewalld.service".to_owned()];
    draft.act(Action::Units {
        disable: vec!["nftables.service".to_owned()],
        enable,
    });
}

fn nftables(draft: &mut Draft<'_>, ports: &[Port]) {
    let mut open = ports.to_vec();
    for name in services(draft) {
        let Some((_, found)) = service(name) else {
            let hint = did_you_mean(name, SERVICES.iter().map(|(n, _)| *n));
            let message = format!("--service={name}: not a service that Kiln knows the ports of");
            draft.error(
                message,
                format!("{hint} give its ports with --port, or add firewalld to %packages").trim(),
            );
            continue;
        };
        open.extend(found.iter().map(|(protocol, first, last)| Port {
            protocol: (*protocol).to_owned(),
            first: *first,
            last: *last,
        }));
    }
    open.sort();
    open.dedup();
    let trusted = trusted(draft);
    draft.need("nftables", "holds and loads the firewall's rules");
    draft.write(RULES, 0o755, rules(&trusted, &open));
    draft.act(Action::Units {
        disable: Vec::new(),
        enable: vec!["nftables.service".to_owned()],
    });
}

/// The rule file. `inet` covers IPv4 and IPv6; `reject` tells the caller, as firewalld does.
fn rules(trusted: &[&str], open: &[Port]) -> String {
    let mut text = HEAD.to_owned();
    if !trusted.is_empty() {
        let names: Vec<String> = trusted.iter().map(|i| format!("\"{i}\"")).collect();
        text.push_str(&format!("\t\tiifname {{ {} }} accept\n", names.join(", ")));
    }
    for protocol in ["tcp", "udp", "sctp", "dccp"] {
        let ranges = ranges(open.iter().filter(|p| p.protocol == protocol));
        if !ranges.is_empty() {
            text.push_str(&format!(
                "\t\t{protocol} dport {{ {} }} accept\n",
                ranges.join(", ")
            ));
        }
    }
    text.push_str(TAIL);
    text
}

/// Ports as nft writes them; ranges that overlap, which a set does not take, are joined.
fn ranges<'a>(open: impl Iterator<Item = &'a Port>) -> Vec<String> {
    let mut joined: Vec<Port> = Vec::new();
    for port in open {
        match joined.last_mut() {
            Some(last) if port.first <= last.last => last.last = last.last.max(port.last),
            _ => joined.push(port.clone()),
        }
    }
    joined.iter().map(Port::range).collect()
}

const HEAD: &str = "#!/usr/sbin/nft -f
# Written by Kiln from the kickstart's `firewall` command: what may come in.
# Rules of your own go into files in /etc/nftables.d, which are loaded after these.

flush ruleset

table inet firewall {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tct state established,related accept
\t\tct state invalid drop
\t\tiif \"lo\" accept
\t\tmeta l4proto { 1, 58 } accept comment \"ICMP and ICMPv6; by number, for names need /etc/protocols\"
\t\tip6 daddr fe80::/64 udp dport 546 accept comment \"DHCPv6 answers\"
";

const TAIL: &str = "\t\treject with icmpx admin-prohibited
\t}

\tchain forward {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}

include \"/etc/nftables.d/*.nft\"
";

/// A name, and (protocol, first port, last port).
type Service = (&'static str, &'static [(&'static str, u16, u16)]);

fn service(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|(n, _)| *n == name)
}

/// Services by firewalld's names, with the ports that IANA gives them.
const SERVICES: &[Service] = &[
    (
        "bacula",
        &[
            ("tcp", 9101, 9101),
            ("tcp", 9102, 9102),
            ("tcp", 9103, 9103),
        ],
    ),
    ("bacula-client", &[("tcp", 9102, 9102)]),
    ("cockpit", &[("tcp", 9090, 9090)]),
    ("dhcp", &[("udp", 67, 67)]),
    ("dhcpv6", &[("udp", 547, 547)]),
    ("dhcpv6-client", &[("udp", 546, 546)]),
    ("dns", &[("tcp", 53, 53), ("udp", 53, 53)]),
    ("dns-over-tls", &[("tcp", 853, 853)]),
    ("finger", &[("tcp", 79, 79)]),
    ("ftp", &[("tcp", 21, 21)]),
    ("git", &[("tcp", 9418, 9418)]),
    ("http", &[("tcp", 80, 80)]),
    ("http3", &[("udp", 443, 443)]),
    ("https", &[("tcp", 443, 443)]),
    ("imap", &[("tcp", 143, 143)]),
    ("imaps", &[("tcp", 993, 993)]),
    ("ipp", &[("tcp", 631, 631), ("udp", 631, 631)]),
    ("ipp-client", &[("udp", 631, 631)]),
    ("jetdirect", &[("tcp", 9100, 9100)]),
    ("kdeconnect", &[("tcp", 1714, 1764), ("udp", 1714, 1764)]),
    ("kerberos", &[("tcp", 88, 88), ("udp", 88, 88)]),
    ("ldap", &[("tcp", 389, 389)]),
    ("ldaps", &[("tcp", 636, 636)]),
    ("llmnr", &[("tcp", 5355, 5355), ("udp", 5355, 5355)]),
    ("mdns", &[("udp", 5353, 5353)]),
    ("mosh", &[("udp", 60000, 61000)]),
    ("mountd", &[("tcp", 20048, 20048), ("udp", 20048, 20048)]),
    ("mqtt", &[("tcp", 1883, 1883)]),
    ("mysql", &[("tcp", 3306, 3306)]),
    ("nfs", &[("tcp", 2049, 2049)]),
    ("ntp", &[("udp", 123, 123)]),
    ("openvpn", &[("udp", 1194, 1194)]),
    ("pop3", &[("tcp", 110, 110)]),
    ("pop3s", &[("tcp", 995, 995)]),
    ("postgresql", &[("tcp", 5432, 5432)]),
    ("prometheus", &[("tcp", 9090, 9090)]),
    ("prometheus-node-exporter", &[("tcp", 9100, 9100)]),
    ("proxy-dhcp", &[("udp", 4011, 4011)]),
    ("rdp", &[("tcp", 3389, 3389)]),
    ("redis", &[("tcp", 6379, 6379)]),
    ("rpc-bind", &[("tcp", 111, 111), ("udp", 111, 111)]),
    ("rsyncd", &[("tcp", 873, 873), ("udp", 873, 873)]),
    (
        "samba",
        &[
            ("udp", 137, 137),
            ("udp", 138, 138),
            ("tcp", 139, 139),
            ("tcp", 445, 445),
        ],
    ),
    ("samba-client", &[("udp", 137, 137), ("udp", 138, 138)]),
    ("sip", &[("tcp", 5060, 5060), ("udp", 5060, 5060)]),
    ("smtp", &[("tcp", 25, 25)]),
    ("smtp-submission", &[("tcp", 587, 587)]),
    ("smtps", &[("tcp", 465, 465)]),
    ("snmp", &[("tcp", 161, 161), ("udp", 161, 161)]),
    ("squid", &[("tcp", 3128, 3128)]),
    ("ssh", &[("tcp", 22, 22)]),
    ("syslog", &[("udp", 514, 514)]),
    ("syslog-tls", &[("tcp", 6514, 6514), ("udp", 6514, 6514)]),
    ("telnet", &[("tcp", 23, 23)]),
    ("tftp", &[("udp", 69, 69)]),
    (
        "transmission-client",
        &[("tcp", 51413, 51413), ("udp", 51413, 51413)],
    ),
    ("vnc-server", &[("tcp", 5900, 5903)]),
    ("wireguard", &[("udp", 51820, 51820)]),
    ("ws-discovery", &[("tcp", 5357, 5357), ("udp", 3702, 3702)]),
    ("x2go", &[("tcp", 22, 22)]),
    ("xdmcp", &[("tcp", 177, 177), ("udp", 177, 177)]),
    ("xmpp-client", &[("tcp", 5222, 5222)]),
    ("xmpp-server", &[("tcp", 5269, 5269)]),
    ("zabbix-agent", &[("tcp", 10050, 10050)]),
    ("zabbix-server", &[("tcp", 10051, 10051)]),
];
