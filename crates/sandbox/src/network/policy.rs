//! Which addresses a run with a network of its own may reach through the host.
//!
//! Other machines, also those with private addresses: a laboratory's mirror is one of them. Not this machine, whatever
//! address of it is named, and not what a machine reaches because it is that machine: neighbours by link-local address and
//! the metadata services of clouds, which hand out credentials.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::netlink::{LOCAL, Netlink, UNICAST};
use crate::Door;

const LINK_LOCAL: &str =
    "link-local addresses, under which clouds hand out credentials, are closed to scripts";
const METADATA: &str =
    "it is a cloud's metadata service, which hands out credentials, and closed to scripts";
const OWN: &str = "it is this machine itself, which is closed to scripts";
const NO_HOST: &str = "";

/// Metadata services outside of the link-local ranges: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// Google's.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
/// How the kernel says that it has no way to an address.
const NO_WAY: [i32; 4] = [
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::EACCES,
    libc::EINVAL,
];
/// Different addresses whose refusal is said; a script that scans a network shall not fill the log.
const SAID: usize = 20;

/// Why an address is closed, as far as the address alone tells. An empty reason is not worth a line.
fn closed(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => closed_v4(address),
        IpAddr::V6(address) => closed_v6(address),
    }
}

fn closed_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets()[0] {
        _ if address.is_link_local() => Some(LINK_LOCAL),
        _ if METADATA_V4.contains(&address) => Some(METADATA),
        0 | 127 => Some(OWN),
        224.. => Some(NO_HOST),
        _ => None,
    }
}

fn closed_v6(address: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        let (a, b) = (high.to_be_bytes(), low.to_be_bytes());
        closed_v4(Ipv4Addr::new(a[0], a[1], b[0], b[1]))
    };
    match address.segments() {
        // Unspecified, loopback, and IPv4 addresses in their old and new form.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Some(OWN),
        // The two forms of IPv4 through a translator, and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, ..] => Some(NO_HOST),
        [0x2002, high, low, ..] => embedded(high, low),
        // Amazon.
        [0xfd00, 0xec2, ..] => Some(METADATA),
        _ if address == METADATA_V6 => Some(METADATA),
        [0xfe80..=0xfeff, ..] => Some(LINK_LOCAL),
        [0xff00..=0xffff, ..] => Some(NO_HOST),
        _ => None,
    }
}

/// Decides about every connection.
pub(super) struct Gate {
    doors: HashMap<SocketAddr, Door>,
    routes: Netlink,
    said: HashSet<String>,
    say: Box<dyn FnMut(String)>,
}

/// Where a connection is to go.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) to: SocketAddr,
    /// What the door is called, if it is one.
    pub(super) door: Option<String>,
}

impl Gate {
    pub(super) fn new(doors: Vec<Door>, say: Box<dyn FnMut(String)>) -> io::Result<Gate> {
        Ok(Gate {
            doors: doors.into_iter().map(|door| (door.inside, door)).collect(),
            routes: Netlink::open()?,
            said: HashSet::new(),
            say,
        })
    }

    /// The way to an address as the run sees it; `None` if it is closed, which is then said.
    pub(super) fn ask(&mut self, to: SocketAddr) -> Option<Way> {
        if let Some(door) = self.doors.get(&to) {
            return Some(Way {
                to: door.outside,
                door: Some(door.name.clone()),
            });
        }
        let reason = closed(to.ip()).or_else(|| self.not_elsewhere(to.ip()));
        match reason {
            None => Some(Way { to, door: None }),
            Some("") => None,
            Some(reason) => {
                let (ip, port) = (to.ip(), to.port());
                self.say(format!("{ip} port {port} is refused: {reason}"));
                None
            }
        }
    }

    /// Says something, but not twice, and not without end.
    pub(super) fn say(&mut self, line: String) {
        if self.said.len() < SAID && self.said.insert(line.clone()) {
            (self.say)(line);
        }
    }

    /// What the kernel would not send to another machine is closed, whatever addresses this one has. Where it knows no way
    /// at all, connecting fails by itself.
    fn not_elsewhere(&self, to: IpAddr) -> Option<&'static str> {
        match self.routes.route(to) {
            Ok(UNICAST) => None,
            Ok(LOCAL) => Some(OWN),
            Ok(_) => Some(NO_HOST),
            Err(error) if NO_WAY.map(Some).contains(&error.raw_os_error()) => None,
            Err(_) => Some(NO_HOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_of_metadata_services_are_closed() {
        for (address, reason) in [
            ("169.254.169.254", LINK_LOCAL),
            ("169.254.170.2", LINK_LOCAL),
            ("168.63.129.16", METADATA),
            ("100.100.100.200", METADATA),
            ("fd00:ec2::254", METADATA),
            ("fd20:ce::254", METADATA),
            ("fe80::1", LINK_LOCAL),
            ("fec0::1", LINK_LOCAL),
            ("::ffff:169.254.169.254", OWN),
            ("::ffff:127.0.0.1", OWN),
            ("::169.254.169.254", OWN),
            ("64:ff9b::a9fe:a9fe", LINK_LOCAL),
            ("64:ff9b::7f00:1", OWN),
            ("2002:a9fe:a9fe::1", LINK_LOCAL),
            ("64:ff9b:1::a9fe:a9fe", NO_HOST),
            ("127.0.0.1", OWN),
            ("127.255.0.9", OWN),
            ("0.0.0.0", OWN),
            ("::", OWN),
            ("::1", OWN),
            ("224.0.0.251", NO_HOST),
            ("255.255.255.255", NO_HOST),
            ("ff02::fb", NO_HOST),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(closed(parsed), Some(reason), "{address}");
        }
        for open in [
            "1.1.1.1",
            "10.0.0.1",
            "192.168.1.1",
            "2a04:4e42::644",
            "fd00::3",
            "64:ff9b::101:101",
        ] {
            assert_eq!(closed(open.parse().expect("an address")), None, "{open}");
        }
    }

    #[test]
    fn every_address_of_this_machine_is_found_by_its_route() {
        let mut gate = Gate::new(Vec::new(), Box::new(|_| {})).expect("a netlink socket");
        assert!(gate.ask("127.0.0.1:80".parse().expect("it")).is_none());
        assert_eq!(
            gate.not_elsewhere("127.0.0.7".parse().expect("it")),
            Some(OWN)
        );
    }

    #[test]
    fn doors_lead_to_what_is_closed_otherwise() {
        let door = Door {
            inside: "240.0.0.53:53".parse().expect("it"),
            outside: "127.0.0.53:53".parse().expect("it"),
            name: "the name server".to_owned(),
        };
        let mut gate = Gate::new(vec![door.clone()], Box::new(|_| {})).expect("a netlink socket");
        let way = gate.ask(door.inside).expect("a way");
        assert_eq!(way.to, door.outside);
        let other = SocketAddr::new(door.inside.ip(), 54);
        assert!(gate.ask(other).is_none_or(|way| way.door.is_none()));
    }

    #[test]
    fn a_scan_does_not_fill_the_log() {
        let lines = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = lines.clone();
        let say = Box::new(move |_| count.set(count.get() + 1));
        let mut gate = Gate::new(Vec::new(), say).expect("a netlink socket");
        for port in 1..=1000 {
            let address = SocketAddr::new(Ipv4Addr::new(169, 254, 169, 254).into(), port);
            assert!(gate.ask(address).is_none());
        }
        assert_eq!(lines.get(), SAID);
    }
}
