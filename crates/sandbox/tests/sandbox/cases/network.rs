//! A network of a run's own.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_sandbox::{Door, Request};

use super::functions::Asked;
use super::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Tries to connect to addresses and abstract sockets: for each an empty text or the error.
pub(super) fn reach(call: &Asked<'_>) -> Result<Value, Error> {
    let try_one = |name: &str| -> std::io::Result<()> {
        match name.parse::<SocketAddr>() {
            Ok(address) => TcpStream::connect_timeout(&address, PATIENCE).map(drop),
            Err(_) => UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?).map(drop),
        }
    };
    let names: Vec<String> = serde_json::from_value(call.payload.clone()).unwrap_or_default();
    let tried = names
        .iter()
        .map(|name| try_one(name).err().map_or(String::new(), |e| e.to_string()));
    Ok(json!(tried.collect::<Vec<_>>()))
}

/// Sends bytes by TCP to an address and says how many came back, and a datagram.
pub(super) fn converse(call: &Asked<'_>) -> Result<Value, Error> {
    let failed = |error: std::io::Error| Error::new(ErrorKind::Step, "talking").because(error);
    let wanted: (SocketAddr, SocketAddr, usize) =
        serde_json::from_value(call.payload.clone()).unwrap_or_else(|error| panic!("{error}"));
    let (stream, datagrams, count) = wanted;
    let talk = || -> std::io::Result<(usize, bool, String)> {
        let mut stream = TcpStream::connect(stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut writing = stream.try_clone()?;
        let sent: Vec<u8> = (0..count).map(|at| (at * 7 % 251) as u8).collect();
        let wanted = sent.clone();
        let writer = std::thread::spawn(move || {
            writing.write_all(&sent)?;
            writing.shutdown(std::net::Shutdown::Write)
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        writer.join().unwrap_or_else(|_| panic!("a writer"))?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(datagrams)?;
        socket.send(b"question")?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        Ok((back.len(), back == wanted, answer))
    };
    talk().map(|result| json!(result)).map_err(failed)
}

/// Sends back what comes, by TCP until the end of it, by UDP once.
fn echo() -> Result<(SocketAddr, SocketAddr), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let found = (listener.local_addr()?, socket.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let copy = stream.try_clone();
                let _ = copy.and_then(|mut copy| std::io::copy(&mut &stream, &mut copy));
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = [b"answer to ", &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(found)
}

fn own(mut request: Request, doors: Vec<Door>) -> Request {
    request.network = Network::Own { doors };
    request
}

fn door(inside: &str, outside: SocketAddr, name: &str) -> Result<Door, Failed> {
    Ok(Door {
        inside: inside.parse()?,
        outside,
        name: name.to_owned(),
    })
}

/// An address of this machine that is not its loopback, if it has one.
fn address_of_this_machine() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; the address is for documentation.
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// A host's listener that must hear nothing.
fn canary(at: SocketAddr) -> Result<(SocketAddr, Arc<AtomicUsize>), Failed> {
    let listener = TcpListener::bind(at)?;
    let (address, heard) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let counter = heard.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok((address, heard))
}

pub(super) fn walls(f: &Fixture) -> Outcome {
    let (loopback, heard) = canary("127.0.0.1:0".parse()?)?;
    let (everywhere, heard_too) = canary("0.0.0.0:0".parse()?)?;
    let name = format!("kiln-canary-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name)?)?;
    let mut names = vec![
        loopback.to_string(),
        name.clone(),
        "169.254.169.254:80".to_owned(),
        "100.100.100.200:80".to_owned(),
    ];
    let own_address = address_of_this_machine();
    names.extend(own_address.map(|ip| SocketAddr::new(ip, everywhere.port()).to_string()));
    let began = Instant::now();
    let seen = f.run(&own(f.call("reach", json!(names)), Vec::new()))?;
    let errors: Vec<String> = match seen.outcome.value.clone() {
        Some(Ok(value)) => serde_json::from_value(value)?,
        other => return Err(format!("{other:?}").into()),
    };
    equal(errors.len(), names.len())?;
    let open = errors.iter().position(String::is_empty);
    check(open.is_none(), || format!("{names:?} {errors:?}"))?;
    // None of it has to be waited for.
    check(began.elapsed() < PATIENCE, || {
        format!("{:?}", began.elapsed())
    })?;
    equal(
        (
            heard.load(Ordering::SeqCst),
            heard_too.load(Ordering::SeqCst),
        ),
        (0, 0),
    )?;
    let said = seen.text(Stream::Stderr);
    for word in [
        "kiln: network: 169.254.169.254 port 80 is refused",
        "100.100.100.200 port 80",
    ] {
        check(said.contains(word), || said.clone())?;
    }
    if own_address.is_some() {
        check(said.contains("it is this machine itself"), || said.clone())?;
    }
    // The loopback is the run's own, and works. A listener whose own input is at its end says so, and whoever called may leave
    // before it has sent anything.
    let up = "busybox mkfifo /root/held && exec 3<>/root/held
        nc -l -p 7777 <&3 > /root/got & until echo loop | nc 127.0.0.1 7777; do sleep 0.1; done; wait
        cat /root/got; ls /sys/class/net";
    equal(
        f.run(&own(f.script(up), Vec::new()))?.stdout(),
        "loop\nkiln0\nlo".into(),
    )
}

pub(super) fn doors(f: &Fixture) -> Outcome {
    let (stream, datagrams) = echo()?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let doors = vec![
        door("240.0.0.80:3128", stream, "the echo")?,
        door("240.0.0.53:53", datagrams, "the name server")?,
        door("240.0.0.81:3128", closed, "the proxy 127.0.0.1:3128")?,
    ];
    let payload = json!(["240.0.0.80:3128", "240.0.0.53:53", 5_000_000]);
    let seen = f.run(&own(f.call("converse", payload), doors.clone()))?;
    equal(
        seen.outcome.value,
        Some(Ok(json!([5_000_000, true, "answer to question"]))),
    )?;
    // Another port of a door's address is no door, and one that leads nowhere is named.
    let names = ["240.0.0.81:3128", "240.0.0.80:1"];
    let seen = f.run(&own(f.call("reach", json!(names[..1])), doors))?;
    let said = seen.text(Stream::Stderr);
    check(
        said.contains("the proxy 127.0.0.1:3128 cannot be reached: Connection refused"),
        || said.clone(),
    )?;
    let refused = json!(["Connection refused (os error 111)"]);
    equal(seen.outcome.value, Some(Ok(refused)))
}

pub(super) fn carries(f: &Fixture) -> Outcome {
    let (stream, _) = echo()?;
    let doors = vec![door("240.0.0.80:3128", stream, "the echo")?];
    // Sixty at once, each with what it sent and nothing else.
    let script = "for n in $(seq 1 60); do \
                  (dd if=/dev/urandom of=/root/$n bs=1000 count=200 2>/dev/null; \
                   nc 240.0.0.80 3128 < /root/$n > /root/$n.back; \
                   [ \"$(wc -c < /root/$n.back)\" = 200000 ] || echo short $n) & done; wait; echo done";
    let seen = f.run(&own(f.script(script), doors))?;
    equal(seen.stdout(), "done".into())
}

pub(super) fn ends(f: &Fixture) -> Outcome {
    let relays = || -> Result<usize, Failed> {
        let own = std::process::id().to_string();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        Ok(children.unwrap_or_default().split_whitespace().count())
    };
    let before = relays()?;
    let seen = f.run(&own(f.script("exit 3"), Vec::new()))?;
    equal(seen.outcome.status, Status::Exited(3))?;
    let cancel = CancelToken::new()?;
    let switch = cancel.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        switch.cancel();
    });
    let with = With {
        cancel: Some(&cancel),
        ..With::default()
    };
    let seen = f.run_with(&own(f.script("sleep 60"), Vec::new()), with)?;
    stopper.join().map_err(|_| "a thread panicked")?;
    equal(seen.outcome.status, Status::Cancelled)?;
    equal(relays()?, before)
}
