//! What a script reaches: other machines, by name and by address; not this machine, however it is named, nor the services that
//! give a machine its credentials. And whose `/etc/resolv.conf` it sees.
//!
//! The same walls are tried at the sandbox, as root and as an ordinary user, in `crates/sandbox/tests/sandbox/cases/network.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Ran, Turn, run};

const SOON: Duration = Duration::from_secs(300);

/// Functions for the scripts below.
const TRY: &str = r#"
reach() { timeout 9 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "reached: $3" || echo "closed: $3"; }
abstract() { perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0);
  exit(connect(S, pack_sockaddr_un("\0$ARGV[0]")) ? 0 : 1)' "$1" && echo "reached: abstract" || echo "closed: abstract"; }
"#;

/// Something on this machine that a script must not hear of.
struct Canaries {
    loopback: SocketAddr,
    everywhere: SocketAddr,
    name: String,
    _abstract: UnixListener,
    heard: Arc<AtomicUsize>,
}

impl Canaries {
    fn new() -> Self {
        let heard = Arc::new(AtomicUsize::new(0));
        let name = format!("kiln-e2e-canary-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).expect("an abstract name");
        Canaries {
            loopback: listen("127.0.0.1:0", heard.clone()),
            everywhere: listen("0.0.0.0:0", heard.clone()),
            _abstract: UnixListener::bind_addr(&address).expect("an abstract socket"),
            name,
            heard,
        }
    }

    /// Lines of a script that try to reach them all.
    fn script(&self) -> String {
        let (loopback, everywhere) = (self.loopback.port(), self.everywhere.port());
        format!(
            "reach 127.0.0.1 {loopback} loopback\nreach {} {everywhere} address\nabstract {}\n",
            own_address(),
            self.name
        )
    }
}

/// Counts who connects, and answers as an HTTP proxy would that has everything.
fn listen(at: &str, heard: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind(at).expect("a listener");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            heard.fetch_add(1, Ordering::SeqCst);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 From the proxy\r\n\r\n");
        }
    });
    address
}

/// An address of this machine that is not its loopback.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent; the address is for documentation.
    socket
        .connect("198.51.100.1:9")
        .expect("a machine with a network");
    socket.local_addr().expect("its address").ip()
}

/// A name server on this machine's loopback. It knows one name by itself, and the mirror as this machine does.
fn name_server() -> Ipv4Addr {
    let address = Ipv4Addr::new(127, 0, 0, 99);
    let socket = UdpSocket::bind((address, 53)).expect("port 53 of 127.0.0.99");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let _ = socket.send_to(&answer(question), from);
        }
    });
    address
}

/// RFC 1035: the header, the question as it came, and an A record for it if there is one.
fn answer(question: &[u8]) -> Vec<u8> {
    let (mut at, mut name) = (12, String::new());
    while let Some(&length) = question.get(at).filter(|length| **length > 0) {
        let label = &question[at + 1..at + 1 + usize::from(length)];
        name = format!("{name}{}.", String::from_utf8_lossy(label));
        at += 1 + usize::from(length);
    }
    let end = at + 5;
    let wants_v4 = question[at + 1..at + 3] == [0, 1];
    let known = match name.as_str() {
        "canary.kiln.test." => Some(Ipv4Addr::new(198, 51, 100, 7)),
        "deb.debian.org." => ("deb.debian.org", 80)
            .to_socket_addrs()
            .into_iter()
            .flatten()
            .find_map(|found| match found.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
        _ => None,
    };
    let found = known.filter(|_| wants_v4);
    let mut reply = question[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    reply.extend(&question[12..end]);
    if let Some(found) = found {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(found.octets());
    }
    reply
}

/// Builds the minimal image with a script that ends with 7, in mounts of its own that `prepare` changes.
fn build(turn: &Turn, script: &str, prepare: &str, more: &[&str], env: &[(&str, &str)]) -> Ran {
    turn.minimal_with(&format!(
        "%post --interpreter=/bin/bash --erroronfail\n{TRY}{script}\nexit 7\n%end\n"
    ));
    let build = turn.command(&[&["build", "--locked", "minimal.ks"], more].concat());
    in_own_mounts(turn, &build, prepare, env)
}

fn in_own_mounts(turn: &Turn, inner: &Command, prepare: &str, env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new("unshare");
    let script = format!("{prepare} || exit 99; exec \"$@\"");
    command
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let variables = inner
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .env_clear()
        .envs(variables)
        .envs(env.iter().copied())
        .current_dir(turn.path("."));
    run(&mut command, SOON)
}

fn says_no(ran: &Ran, what: &str) {
    assert!(
        !ran.stderr.contains(what),
        "{what:?} is said\n{}",
        ran.whole()
    );
}

#[test]
fn a_script_reaches_other_machines_and_not_this_one() {
    let turn = Turn::warm();
    let canaries = Canaries::new();
    turn.write("resolv.conf", &format!("nameserver {}\n", name_server()));
    let heard_proxy = Arc::new(AtomicUsize::new(0));
    let proxy = listen("127.0.0.1:0", heard_proxy.clone());
    // Nobody listens there any more.
    let refused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let refused = refused.expect("a port");
    let script = format!(
        r#"{}
reach 169.254.169.254 80 metadata
perl -e 'use Socket; socket(L, PF_INET, SOCK_STREAM, 0); bind(L, pack_sockaddr_in(7777, INADDR_LOOPBACK)); listen(L, 1); open(F, ">", "/tmp/listens"); alarm 60; accept(S, L)' &
for i in {{1..300}}; do [ -e /tmp/listens ] && break; sleep 0.1; done
reach 127.0.0.1 7777 "own loopback"
getent ahostsv4 canary.kiln.test
exec 4<>/dev/tcp/deb.debian.org/80
printf 'HEAD /debian/dists/bookworm/InRelease HTTP/1.0\r\nHost: deb.debian.org\r\n\r\n' >&4
read -r -t 20 first <&4; echo "mirror: $first"
echo "http: $http_proxy https: $HTTPS_PROXY no: $NO_PROXY"
ask() {{ exec 5<>/dev/tcp/${{1%:*}}/${{1##*:}} && {{ echo "GET http://example.org/" >&5; read -r -t 20 first <&5; echo "proxy: $first"; }}; }}
ask "${{http_proxy#*@}}"
ask "${{https_proxy#*//}}"
echo "options rotate" >> /etc/resolv.conf"#,
        canaries.script()
    );
    let prepare = "mount --bind resolv.conf /etc/resolv.conf";
    let (http, https) = (
        format!("http://me:se%40cret@{proxy}"),
        format!("http://{refused}"),
    );
    let env = [
        ("http_proxy", http.as_str()),
        ("https_proxy", &https),
        ("no_proxy", "localhost"),
    ];
    let ran = build(&turn, &script, prepare, &[], &env);
    ran.assert(4).says(&[
        "closed: loopback",
        "closed: address",
        "closed: abstract",
        "closed: metadata",
        "169.254.169.254 port 80 is refused",
        "it is this machine itself, which is closed to scripts",
        "reached: own loopback",
        "198.51.100.7",
        "mirror: HTTP/1.",
        "no: localhost",
        "proxy: HTTP/1.0 200 From the proxy",
        &format!("the proxy {https} (https_proxy) cannot be reached: Connection refused"),
        &format!("http://***@{proxy} (http_proxy)"),
    ]);
    says_no(&ran, "cret");
    assert_eq!(canaries.heard.load(Ordering::SeqCst), 0, "{}", ran.whole());
    assert_eq!(heard_proxy.load(Ordering::SeqCst), 1, "{}", ran.whole());
    let log = fs::read_dir(turn.path("output"))
        .into_iter()
        .flatten()
        .flatten();
    for file in log.filter_map(|entry| fs::read_to_string(entry.path()).ok()) {
        assert!(!file.contains("cret"), "{file}");
    }
    // What it wrote is in the root that it left, and nothing that was lent to it.
    let kept = turn.command(&[
        "shell",
        "--last",
        "--",
        "tail",
        "-n",
        "1",
        "/etc/resolv.conf",
    ]);
    let kept = in_own_mounts(&turn, &kept, "true", &[]);
    assert_eq!(
        kept.assert(0).stdout,
        "options rotate\n",
        "{}",
        kept.whole()
    );
    turn.assert_clean(&ran);
}

#[test]
fn only_a_user_who_says_so_gives_scripts_the_network_of_this_machine() {
    let turn = Turn::warm();
    let canaries = Canaries::new();
    let script = format!("{}ls /sys/class/net", canaries.script());
    // Without the device there is no network, and no other instead.
    let without = "mount -t tmpfs none /dev/net";
    let ran = build(&turn, &script, without, &[], &[]);
    ran.assert(4).says(&[
        "scripts have no network: opening /dev/net/tun: No such file or directory",
        "modprobe tun",
        "--network host",
        "closed: loopback",
        "closed: address",
        "closed: abstract",
    ]);
    let doctor = turn.command(&["doctor"]);
    let doctor = in_own_mounts(&turn, &doctor, without, &[]);
    for word in ["script-network", "/dev/net/tun", "modprobe tun"] {
        assert!(doctor.stdout.contains(word), "{}", doctor.whole());
    }
    let none = build(&turn, &script, "true", &["--network", "none"], &[]);
    none.assert(4)
        .says(&["closed: loopback", "closed: abstract"]);
    says_no(&none, "scripts have no network");
    assert_eq!(canaries.heard.load(Ordering::SeqCst), 0, "{}", none.whole());
    let host = build(&turn, &script, "true", &["--network", "host"], &[]);
    host.assert(4)
        .says(&["reached: loopback", "reached: address", "reached: abstract"]);
    assert_eq!(canaries.heard.load(Ordering::SeqCst), 2, "{}", host.whole());
    let both = turn.kiln(&["build", "minimal.ks", "--network", "host", "--offline"]);
    both.assert(2).says(&["--network", "--offline"]);
    turn.assert_clean(&host);
}

#[test]
fn what_a_script_makes_of_resolv_conf_is_in_the_root() {
    let turn = Turn::warm();
    let look =
        "if [ -L /etc/resolv.conf ]; then readlink /etc/resolv.conf; else cat /etc/resolv.conf; fi";
    turn.minimal_with(&format!(
        "%post --erroronfail\nls -l /etc/resolv.conf; getent ahostsv4 deb.debian.org\n\
         cat > /etc/resolv.conf <<X\nnameserver 192.0.2.1\nX\n%end\n\
         %post --erroronfail\ngetent ahostsv4 deb.debian.org\nrm /etc/resolv.conf; ln -s ../run/stub /etc/resolv.conf\n%end\n\
         %post --erroronfail\ngetent ahostsv4 deb.debian.org\n%end\n\
         %post --nochroot --erroronfail\necho outside: $({}); exit 7\n%end\n",
        look.replace("/etc/resolv.conf", "/mnt/sysimage/etc/resolv.conf")
    ));
    let ran = turn.kiln(&["build", "--locked", "minimal.ks"]);
    ran.assert(4).says(&["outside: ../run/stub"]);
    turn.assert_clean(&ran);
}
