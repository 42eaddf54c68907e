//! The packets that the interface of a run carries.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpPacket, UDP_HEADER_LEN, UdpPacket,
    UdpRepr,
};

use super::MTU;

/// Packets that may wait to be written.
const WAITING: usize = 4096;

/// What a packet of the run is about.
pub(super) enum Packet<'a> {
    Tcp {
        from: SocketAddr,
        to: SocketAddr,
        /// Whether it opens a connection.
        opens: bool,
    },
    Udp {
        from: SocketAddr,
        to: SocketAddr,
        payload: &'a [u8],
    },
    /// Nothing that is carried: ICMP, fragments, what is damaged.
    Other,
}

/// Looks into a packet.
pub(super) fn look(bytes: &[u8]) -> Packet<'_> {
    let found = match bytes.first().map(|byte| byte >> 4) {
        Some(4) => look_v4(bytes),
        Some(6) => look_v6(bytes),
        _ => None,
    };
    found.unwrap_or(Packet::Other)
}

fn look_v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    transport(packet.next_header(), from, to, packet.payload())
}

fn look_v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    transport(packet.next_header(), from, to, packet.payload())
}

fn transport(
    protocol: IpProtocol,
    from: IpAddress,
    to: IpAddress,
    payload: &[u8],
) -> Option<Packet<'_>> {
    let at = |address: IpAddress, port| SocketAddr::new(address.into(), port);
    match protocol {
        IpProtocol::Tcp => {
            let packet = TcpPacket::new_checked(payload).ok()?;
            Some(Packet::Tcp {
                from: at(from, packet.src_port()),
                to: at(to, packet.dst_port()),
                opens: packet.syn() && !packet.ack(),
            })
        }
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(payload).ok()?;
            Some(Packet::Udp {
                from: at(from, packet.src_port()),
                to: at(to, packet.dst_port()),
                payload: packet.payload(),
            })
        }
        _ => None,
    }
}

/// A datagram from one address to another; both are of one family.
pub(super) fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (source, target) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    let length = UDP_HEADER_LEN + payload.len();
    let ip = IpRepr::new(source, target, IpProtocol::Udp, length, 64);
    let mut bytes = vec![0; ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut bytes[..], &checksums);
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let mut packet = UdpPacket::new_unchecked(&mut bytes[ip.header_len()..]);
    let fill = |buffer: &mut [u8]| buffer.copy_from_slice(payload);
    udp.emit(
        &mut packet,
        &source,
        &target,
        payload.len(),
        fill,
        &checksums,
    );
    bytes
}

/// The run's interface, with packets for the TCP stack and from it.
pub(super) struct Interface {
    tun: OwnedFd,
    chunk: Vec<u8>,
    /// For the TCP stack.
    pub(super) received: VecDeque<Vec<u8>>,
    /// For the run.
    pub(super) sent: VecDeque<Vec<u8>>,
}

impl Interface {
    pub(super) fn new(tun: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&tun, true)?;
        Ok(Interface {
            tun,
            chunk: vec![0; 1 << 16],
            received: VecDeque::new(),
            sent: VecDeque::new(),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }

    /// The next packet of the run; `None` if there is none for now. Fails once the run's network is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match rustix::io::read(&self.tun, &mut self.chunk[..]) {
            Ok(count) => Ok(Some(self.chunk[..count].to_vec())),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what waits; whether all of it went. What the kernel refuses is lost, as packets may be.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(packet) = self.sent.front() {
            if rustix::io::write(&self.tun, packet) == Err(Errno::AGAIN) {
                return false;
            }
            self.sent.pop_front();
        }
        true
    }

    /// Has a packet written; one too many is lost, as packets may be.
    pub(super) fn send(&mut self, packet: Vec<u8>) {
        if self.sent.len() < WAITING {
            self.sent.push_back(packet);
        }
    }
}

impl Device for Interface {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), ToSend(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        (self.sent.len() < WAITING).then_some(ToSend(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU as usize;
        // The kernel made these packets on this machine a moment ago.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

pub(super) struct Received(Vec<u8>);

impl smoltcp::phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(super) struct ToSend<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push_back(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_it_was_written() {
        for (from, to) in [
            ("240.0.0.2:4000", "192.0.2.9:53"),
            ("[fd00::2]:4000", "[2001:db8::9]:53"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) =
                (from.parse().expect("it"), to.parse().expect("it"));
            let bytes = datagram(from, to, b"question");
            match look(&bytes) {
                Packet::Udp {
                    from: seen_from,
                    to: seen_to,
                    payload,
                } => assert_eq!((seen_from, seen_to, payload), (from, to, &b"question"[..])),
                _ => panic!("not a datagram"),
            }
        }
    }

    #[test]
    fn damaged_packets_are_passed_over() {
        let whole = datagram(
            "240.0.0.2:4000".parse().expect("it"),
            "192.0.2.9:53".parse().expect("it"),
            b"question",
        );
        for length in 0..whole.len() {
            assert!(matches!(look(&whole[..length]), Packet::Other), "{length}");
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = look(&damaged);
            }
        }
    }
}
