//! Connections of a run: each ends here, in a TCP stack of our own, and goes on as a connection of the host.
//!
//! The host is asked before the run gets an answer, so that a refused connection is refused inside as well: the packet that
//! opens it waits. Then the stack gets a socket that listens at just this address, and the packet.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpEndpoint;

use super::packet::Interface;
use super::policy::{Gate, Way};

/// Connections at once, those that are being made included. More have to wait: their packets are lost.
const MOST: usize = 1000;
/// Bytes of a connection that wait in each direction.
const BUFFER: usize = 256 << 10;

/// One that the host is making.
struct Making {
    from: SocketAddr,
    to: SocketAddr,
    way: Way,
    host: OwnedFd,
    /// The packet that opened it.
    opening: Vec<u8>,
}

/// One that both sides have.
struct Open {
    socket: SocketHandle,
    host: OwnedFd,
    /// The host's side has sent everything.
    host_ended: bool,
    /// The host's side knows that the run has sent everything.
    run_ended: bool,
}

/// All connections.
#[derive(Default)]
pub(super) struct Tcp {
    making: Vec<Making>,
    open: Vec<Open>,
}

impl Tcp {
    /// Takes a packet that opens a connection. It is given back if the stack has to have it now: as the answer is a refusal, or
    /// it belongs to a connection that is there.
    pub(super) fn opens(
        &mut self,
        gate: &mut Gate,
        sockets: &SocketSet<'_>,
        (from, to): (SocketAddr, SocketAddr),
        packet: Vec<u8>,
    ) -> Option<Vec<u8>> {
        if self.making.iter().any(|m| (m.from, m.to) == (from, to)) {
            return None;
        }
        let known = self.open.iter().any(|open| {
            let socket = sockets.get::<Socket<'_>>(open.socket);
            (socket.remote_endpoint(), socket.local_endpoint())
                == (Some(IpEndpoint::from(from)), Some(IpEndpoint::from(to)))
        });
        if known {
            return Some(packet);
        }
        if self.making.len() + self.open.len() >= MOST {
            return None;
        }
        let Some(way) = gate.ask(to) else {
            return Some(packet);
        };
        match connect(way.to) {
            Ok(host) => {
                self.making.push(Making {
                    from,
                    to,
                    way,
                    host,
                    opening: packet,
                });
                None
            }
            Err(error) => {
                explain(gate, &way, error);
                Some(packet)
            }
        }
    }

    /// What to wait for.
    pub(super) fn fds<'a>(
        &'a self,
        sockets: &'a SocketSet<'_>,
    ) -> impl Iterator<Item = (BorrowedFd<'a>, PollFlags)> {
        let making = self.making.iter().map(|m| (m.host.as_fd(), PollFlags::OUT));
        let open = self.open.iter().filter_map(|open| {
            let socket = sockets.get::<Socket<'_>>(open.socket);
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !open.host_ended && socket.can_send());
            flags.set(PollFlags::OUT, socket.can_recv());
            // A socket that is asked nothing would still report its end, again and again.
            (!flags.is_empty()).then(|| (open.host.as_fd(), flags))
        });
        making.chain(open)
    }

    /// Gives connections that the host has made, or could not make, to the stack.
    pub(super) fn settle(
        &mut self,
        gate: &mut Gate,
        sockets: &mut SocketSet<'_>,
        interface: &mut Interface,
    ) {
        let mut index = 0;
        while let Some(making) = self.making.get(index) {
            match made(making.host.as_fd()) {
                None => {
                    index += 1;
                    continue;
                }
                Some(result) => {
                    let making = self.making.swap_remove(index);
                    match result {
                        Ok(()) => {
                            if let Some(socket) = listening(sockets, making.to) {
                                self.open.push(Open {
                                    socket,
                                    host: making.host,
                                    host_ended: false,
                                    run_ended: false,
                                });
                            }
                        }
                        Err(error) => explain(gate, &making.way, error),
                    }
                    // Without a socket the stack answers that nobody listens.
                    interface.received.push_back(making.opening);
                }
            }
        }
    }

    /// Moves bytes in both directions, as far as both sides take them.
    pub(super) fn carry(&mut self, sockets: &mut SocketSet<'_>) {
        self.open.retain_mut(|open| {
            let socket = sockets.get_mut::<Socket<'_>>(open.socket);
            // One that listens still was made for a packet that the stack did not take.
            if matches!(socket.state(), State::Closed | State::Listen) {
                sockets.remove(open.socket);
                return false;
            }
            if outward(open, socket)
                .and_then(|()| inward(open, socket))
                .is_err()
            {
                // It has to tell the run first; the next time it is closed.
                socket.abort();
            }
            true
        });
    }
}

/// Says why a door could not be used: inside, its address means nothing.
fn explain(gate: &mut Gate, way: &Way, error: Errno) {
    if let Some(door) = &way.door {
        let error = shown(error);
        gate.say(format!("{door} cannot be reached: {error}"));
    }
}

/// The system's words for an error, without its number.
fn shown(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn connect(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Whether a connection was made; `None`: not yet.
fn made(host: BorrowedFd<'_>) -> Option<Result<(), Errno>> {
    match sockopt::socket_error(host) {
        Ok(Err(error)) | Err(error) => Some(Err(error)),
        Ok(Ok(())) => match rustix::net::getpeername(host) {
            Ok(Some(_)) => Some(Ok(())),
            _ => None,
        },
    }
}

fn listening(sockets: &mut SocketSet<'_>, at: SocketAddr) -> Option<SocketHandle> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket.listen(at).ok()?;
    Some(sockets.add(socket))
}

/// From the run to the host.
fn outward(open: &mut Open, socket: &mut Socket<'_>) -> Result<(), Errno> {
    while socket.can_recv() {
        let sent =
            socket.recv(
                |bytes| match rustix::net::send(&open.host, bytes, SendFlags::NOSIGNAL) {
                    Ok(count) => (count, Ok(count)),
                    Err(Errno::AGAIN | Errno::INTR) => (0, Ok(0)),
                    Err(error) => (0, Err(error)),
                },
            );
        match sent {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
    let ended = matches!(
        socket.state(),
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait
    );
    if ended && !open.run_ended {
        open.run_ended = true;
        // A host's side that is gone already needs not be told.
        let _ = rustix::net::shutdown(&open.host, Shutdown::Write);
    }
    Ok(())
}

/// From the host to the run.
fn inward(open: &mut Open, socket: &mut Socket<'_>) -> Result<(), Errno> {
    while !open.host_ended && socket.can_send() {
        let came = socket.send(|buffer| {
            match rustix::net::recv(&open.host, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            }
        });
        match came {
            Ok(Ok(0)) => open.host_ended = true,
            Ok(Ok(_)) => {}
            Ok(Err(Errno::AGAIN | Errno::INTR)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        }
    }
    if open.host_ended && socket.may_send() {
        socket.close();
    }
    Ok(())
}
