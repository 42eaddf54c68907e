//! A network of a run's own.
//!
//! ```text
//!  run's network namespace            relay: another sandbox, in the host's network
//!  program ── kernel ── tun device ═══ descriptor ── TCP stack (smoltcp) ── gate ── sockets of the host
//! ```
//!
//! The run has a loopback interface and a tun device, so its abstract sockets and what listens on its loopback are its own.
//! The relay is a process that has nothing but the device's descriptor: an empty root, no capability, a pid namespace of
//! its own. It opens a connection of the host for every connection of the run, if the [gate](policy) lets it.

mod netlink;
mod packet;
mod policy;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use smoltcp::iface::{Config, Interface as Stack, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::{Body, Call, CancelToken, Door, Limits, Network, Request, Root, Say, handed, sys};
use netlink::Netlink;
use packet::{Interface, Packet, look};
use policy::Gate;
use tcp::Tcp;
use udp::Udp;

/// The device that makes interfaces.
const DEVICE: &str = "/dev/net/tun";
const NAME: &str = "kiln0";
/// Large packets: nothing of it is ever on a wire.
const MTU: u32 = 65520;
/// The run's address, of a range that is given to nobody (RFC 1112, "class E"), and closed to runs, so that it hides no machine.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 2);
/// A local address (RFC 4193), so that names with addresses of both kinds are reached by IPv4 first.
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd6b, 0x696c, 0x6e00, 0, 0, 0, 0, 2);
/// Packets taken before connections get their turn.
const AT_ONCE: u32 = 128;

/// Whether runs can have a network of their own here.
///
/// # Errors
/// What is missing, and what to do.
pub fn own_network() -> Result<()> {
    open_device().map(drop)
}

/// Whether a run with a network of its own cannot reach an address, unless a [`Door`] leads there.
pub fn closed_to_runs(address: IpAddr) -> bool {
    let gate = Gate::new(Vec::new(), Box::new(|_| {}));
    gate.is_ok_and(|mut gate| gate.ask((address, 1).into()).is_none())
}

/// Whether an address is another machine's, and not one that a machine reaches because it is that machine: link-local
/// addresses and the metadata services of clouds. Where the kernel does not say, it is not.
pub fn is_elsewhere(address: IpAddr) -> bool {
    let gate = Gate::new(Vec::new(), Box::new(|_| {}));
    gate.is_ok_and(|mut gate| gate.ask((address, 1).into()).is_some())
}

fn open_device() -> Result<OwnedFd> {
    let opened = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| {
        let hint = match error {
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                "sudo chmod 666 /dev/net/tun, as most distributions have it; in a container: start it with `--device /dev/net/tun`"
            }
            _ => {
                "sudo modprobe tun; in a container: start it with `--device /dev/net/tun`"
            }
        };
        Error::system(format!("opening {DEVICE}"), error).hint(hint)
    })
}

/// Whether this machine has a way to other machines by IPv6. Nothing is sent.
pub(crate) fn has_ipv6() -> bool {
    let beyond = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((beyond, 53)))
        .is_ok()
}

/// Makes the interface in the network namespace that this process has just made, while it still has the caller's
/// identity, to which the device may be open. Returns the other end.
pub(crate) fn make_interface(ipv6: bool) -> Result<OwnedFd> {
    let tun = open_device()?;
    sys::make_tun(tun.as_fd(), NAME).doing("making a network interface")?;
    let set_up = || -> io::Result<()> {
        let netlink = Netlink::open()?;
        let inet = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        let index = rustix::net::netdevice::name_to_index(&inet, NAME)?;
        netlink.switch_on(index, MTU)?;
        let addresses = [Some(IpAddr::V4(ADDRESS)), ipv6.then_some(ADDRESS_V6.into())];
        for address in addresses.into_iter().flatten() {
            netlink.add_address(index, address)?;
            netlink.add_default_route(index, address)?;
        }
        Ok(())
    };
    set_up().doing("setting up a network interface")?;
    Ok(tun)
}

/// The relay of a run; ends with this value.
pub(crate) struct Relay {
    thread: Option<JoinHandle<()>>,
    cancel: CancelToken,
}

impl Relay {
    /// Starts it: `serve` runs it until it is cancelled. What there is to say goes to `log`, a line at a time.
    pub(crate) fn start(
        log: OwnedFd,
        serve: impl FnOnce(&CancelToken, &dyn Fn(&str)) -> Result<()> + Send + 'static,
    ) -> Result<Relay> {
        let cancel = CancelToken::new().doing("making a descriptor for a relay")?;
        let switch = cancel.clone();
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                let say = |line: &str| {
                    // A reader that is gone hears nothing.
                    let _ = rustix::io::write(&log, format!("kiln: network: {line}\n").as_bytes());
                };
                if let Err(error) = serve(&switch, &say) {
                    say(&format!("it is gone: {error}"));
                }
            });
        Ok(Relay {
            thread: Some(thread.doing("starting a thread")?),
            cancel,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cancel.cancel();
        // A thread that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What a relay runs in: nothing but its interface, which it is handed, and the host's network.
pub(crate) fn relay_request(doors: &[Door], interface: OwnedFd) -> Result<(Request, Vec<OwnedFd>)> {
    let (body, fds) = Body::call(&Carry(doors.to_vec()), Ends { interface })?;
    let request = Request {
        root: Root::Empty,
        mounts: Vec::new(),
        body,
        env: Vec::new(),
        cwd: "/".to_owned(),
        network: Network::Host,
        limits: Limits {
            address_space: Some(4 << 30),
            ..Limits::default()
        },
        hostname: "relay".to_owned(),
        no_new_privs: true,
        watch: None,
    };
    Ok((request, fds))
}

/// The relay itself: runs until it is killed or the interface is gone.
#[derive(Serialize, Deserialize)]
pub(crate) struct Carry(Vec<Door>);

handed! {
    pub(crate) struct Ends {
        interface: OwnedFd,
    }
}

impl Call for Carry {
    const NAME: &'static str = "kiln-sandbox/relay";
    type Handed = Ends;
    type Message = String;
    type Answer = ();

    fn run(self, ends: Ends, say: &Say<String>) -> Result<()> {
        carry(self.0, ends.interface, say.clone())
    }
}

fn carry(doors: Vec<Door>, tun: OwnedFd, say: Say<String>) -> Result<()> {
    let failed = |what: &'static str| {
        move |error: io::Error| Error::new(ErrorKind::Environment, what).because(error)
    };
    crate::child::drop_all_capabilities()
        .map_err(io::Error::from)
        .map_err(failed("dropping the relay's capabilities"))?;
    let say = Box::new(move |line| say.say(line));
    let state = Gate::new(doors, say).and_then(|gate| State::new(tun, gate));
    let mut state = state.map_err(failed("starting the relay of a network"))?;
    match state.serve() {
        Err(error) if error.raw_os_error() != Some(libc::EBADFD) => {
            Err(failed("relaying a network")(error))
        }
        _ => Ok(()),
    }
}

/// What the relay works with.
struct State {
    interface: Interface,
    stack: Stack,
    sockets: SocketSet<'static>,
    gate: Gate,
    tcp: Tcp,
    udp: Udp,
    buffer: Vec<u8>,
    began: std::time::Instant,
}

impl State {
    fn new(tun: OwnedFd, gate: Gate) -> io::Result<Self> {
        let mut interface = Interface::new(tun)?;
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from_ne_bytes(seed);
        let mut stack = Stack::new(config, &mut interface, Instant::ZERO);
        // It stands for every address there is: these are only where its routes lead.
        let (v4, v6) = (Ipv4Addr::new(240, 0, 0, 1), Ipv6Addr::LOCALHOST);
        stack.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(v4.into(), 32));
            let _ = addresses.push(IpCidr::new(v6.into(), 128));
        });
        stack.set_any_ip(true);
        let routes = stack.routes_mut();
        let full = |_| io::Error::other("no room for a route");
        routes.add_default_ipv4_route(v4).map_err(full)?;
        routes.add_default_ipv6_route(v6).map_err(full)?;
        Ok(State {
            interface,
            stack,
            sockets: SocketSet::new(Vec::new()),
            gate,
            tcp: Tcp::default(),
            udp: Udp::default(),
            buffer: vec![0; 1 << 16],
            began: std::time::Instant::now(),
        })
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.take_packets()?;
            self.udp.bring(&mut self.interface, &mut self.buffer);
            let (gate, interface) = (&mut self.gate, &mut self.interface);
            self.tcp.settle(gate, &mut self.sockets, interface);
            // The stack may have bytes for the host, and then room for bytes from it.
            for _ in 0..2 {
                let now = self.now();
                self.stack.poll(now, &mut self.interface, &mut self.sockets);
                self.tcp.carry(&mut self.sockets);
            }
            let now = self.now();
            self.stack.poll(now, &mut self.interface, &mut self.sockets);
            let flushed = self.interface.flush();
            self.wait(flushed)?;
        }
    }

    fn take_packets(&mut self) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            let Some(packet) = self.interface.next()? else {
                return Ok(());
            };
            let for_stack = match look(&packet) {
                Packet::Tcp {
                    from,
                    to,
                    opens: true,
                } => self
                    .tcp
                    .opens(&mut self.gate, &self.sockets, (from, to), packet),
                Packet::Tcp { .. } => Some(packet),
                // The stack knows no datagrams, and says so to who sent one.
                Packet::Udp { from, to, payload } => {
                    let taken = self.udp.take(&mut self.gate, from, to, payload);
                    (!taken).then_some(packet)
                }
                Packet::Other => None,
            };
            self.interface.received.extend(for_stack);
        }
        Ok(())
    }

    fn wait(&mut self, flushed: bool) -> io::Result<()> {
        let now = self.now();
        let delay = self.stack.poll_delay(now, &self.sockets);
        let delay = delay.map(|delay| Duration::from_micros(delay.total_micros()));
        let timeout = delay.and_then(|delay| Timespec::try_from(delay).ok());
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !flushed);
        let tun = PollFd::from_borrowed_fd(self.interface.fd(), flags);
        let udp = self.udp.fds().map(|fd| (fd, PollFlags::IN));
        let others = udp.chain(self.tcp.fds(&self.sockets));
        let others = others.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
        let mut fds: Vec<PollFd<'_>> = std::iter::once(tun).chain(others).collect();
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
