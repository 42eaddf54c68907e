//! Datagrams of a run, each conversation through a socket of its own.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::packet::{Interface, datagram};
use super::policy::Gate;

/// Conversations at once; the one that was silent longest ends for another.
const MOST: usize = 256;
/// A conversation that is silent for so long is over (RFC 4787 asks for two minutes).
const SILENT: Duration = Duration::from_secs(120);
/// Datagrams taken from one conversation before the others get their turn.
const AT_ONCE: u32 = 32;

struct Conversation {
    from: SocketAddr,
    to: SocketAddr,
    host: OwnedFd,
    used: Instant,
}

/// All conversations.
#[derive(Default)]
pub(super) struct Udp(Vec<Conversation>);

impl Udp {
    /// Passes a datagram of the run on; false if its target is refused.
    pub(super) fn take(
        &mut self,
        gate: &mut Gate,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> bool {
        let now = Instant::now();
        let known = self.0.iter().position(|c| (c.from, c.to) == (from, to));
        let index = match known {
            Some(index) => index,
            None => {
                let Some(way) = gate.ask(to) else {
                    return false;
                };
                let Ok(host) = open(way.to) else {
                    return false;
                };
                self.make_room(now);
                self.0.push(Conversation {
                    from,
                    to,
                    host,
                    used: now,
                });
                self.0.len() - 1
            }
        };
        let conversation = &mut self.0[index];
        conversation.used = now;
        // Datagrams may be lost, also to a machine that says that nobody listens.
        let _ = rustix::net::send(&conversation.host, payload, SendFlags::NOSIGNAL);
        true
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|c| now.duration_since(c.used) < SILENT);
        if self.0.len() < MOST {
            return;
        }
        let oldest = (0..self.0.len()).min_by_key(|index| self.0[*index].used);
        if let Some(oldest) = oldest {
            self.0.swap_remove(oldest);
        }
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|c| c.host.as_fd())
    }

    /// Passes on what has come for the run.
    pub(super) fn bring(&mut self, interface: &mut Interface, buffer: &mut [u8]) {
        for conversation in &mut self.0 {
            for _ in 0..AT_ONCE {
                let came = rustix::net::recv(&conversation.host, &mut *buffer, RecvFlags::DONTWAIT);
                let Ok((count, _)) = came else { break };
                conversation.used = Instant::now();
                interface.send(datagram(
                    conversation.to,
                    conversation.from,
                    &buffer[..count],
                ));
            }
        }
    }
}

fn open(to: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}
