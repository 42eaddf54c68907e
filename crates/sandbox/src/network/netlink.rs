//! The little of rtnetlink(7) that a network of one's own needs: an interface with addresses and routes, and where the
//! kernel would send a packet.
//!
//! A message is `struct nlmsghdr` (length, type, flags, sequence number, port), a fixed part by type, then attributes:
//! `u16` length, `u16` type, value, padded to four bytes. Numbers are the machine's own.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const HEADER: usize = 16;
const ERROR: u16 = 2;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL

const UP: u32 = libc::IFF_UP as u32;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
/// A route that leads to another machine.
pub(super) const UNICAST: u8 = 1;
/// A route that leads to this machine itself.
pub(super) const LOCAL: u8 = 2;
/// An address that is usable at once, without asking the neighbours.
const NO_DUPLICATE_DETECTION: u8 = 2;

/// A connection to the kernel's routing of this network namespace.
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Netlink> {
        let family = AddressFamily::NETLINK;
        let socket = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Netlink { socket })
    }

    /// Switches an interface on, with this largest packet.
    pub(crate) fn switch_on(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, REQUEST | ACKNOWLEDGE);
        message.bytes(&[0; 4]).number(index).number(UP).number(UP);
        message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        self.ask(message).map(drop)
    }

    /// Gives an interface an address of its own.
    pub(crate) fn add_address(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let octets = octets(address);
        let mut message = Message::new(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE);
        let whole = (octets.len() * 8) as u8;
        message
            .bytes(&[family(address), whole, NO_DUPLICATE_DETECTION, 0])
            .number(index);
        message.attribute(libc::IFA_LOCAL, &octets);
        message.attribute(libc::IFA_ADDRESS, &octets);
        self.ask(message).map(drop)
    }

    /// Sends everything of the address's family through an interface.
    pub(crate) fn add_default_route(&self, index: u32, like: IpAddr) -> io::Result<()> {
        let scope = if like.is_ipv4() { SCOPE_LINK } else { 0 };
        let mut message = Message::new(NEW_ROUTE, REQUEST | ACKNOWLEDGE | CREATE);
        message
            .bytes(&[family(like), 0, 0, 0])
            .bytes(&[TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST])
            .number(0);
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.ask(message).map(drop)
    }

    /// Of what type the route to an address is (`RTN_*`); an error where there is none.
    pub(super) fn route(&self, to: IpAddr) -> io::Result<u8> {
        let octets = octets(to);
        let mut message = Message::new(GET_ROUTE, REQUEST);
        let whole = (octets.len() * 8) as u8;
        message
            .bytes(&[family(to), whole, 0, 0])
            .bytes(&[0; 4])
            .number(0);
        message.attribute(libc::RTA_DST, &octets);
        let answer = self.ask(message)?;
        match answer.get(HEADER + 7) {
            Some(kind) if number16(&answer, 4) == Some(NEW_ROUTE) => Ok(*kind),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a message and returns the answer, which is an error if the kernel says so.
    fn ask(&self, message: Message) -> io::Result<Vec<u8>> {
        rustix::net::send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut answer = vec![0; 8192];
        let (count, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(count);
        if number16(&answer, 4) == Some(ERROR) {
            let code = answer.get(HEADER..HEADER + 4);
            match code.and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?))) {
                Some(0) => {}
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(answer)
    }
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = Message(vec![0; HEADER]);
        message.0[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        message
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_ne_bytes())
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes(&length.to_ne_bytes())
            .bytes(&kind.to_ne_bytes())
            .bytes(value);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_own_addresses() {
        let netlink = Netlink::open().expect("a netlink socket");
        for own in ["127.0.0.1", "127.9.9.9", "::1"] {
            let own: IpAddr = own.parse().expect("an address");
            assert_eq!(netlink.route(own).ok(), Some(LOCAL), "{own}");
        }
    }
}
