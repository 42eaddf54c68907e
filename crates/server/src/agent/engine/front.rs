//! The engine's socket as steps see it: passes on every request as it is but two.
//!
//! `docker run --rm` waits until its container is removed. Podman 4.3 answers that with exit code 0, whatever the container's was, since
//! it looks for the code when the container is gone. So the wait becomes the one that a run without `--rm` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;

use super::limits;

/// Bytes of a request's head at most, and of a line about a chunk of its body.
const LONGEST_HEAD: u64 = 1 << 20;
/// Bytes of the body of a request that makes a container at most.
const LONGEST_BODY: u64 = 4 << 20;

/// Passes on what comes to a socket, until the process ends. `limited` is told that there is a container with limits.
pub(super) fn serve(listener: &UnixListener, engine: &'static Path, limited: &Sender<()>) {
    for client in listener.incoming().flatten() {
        let limited = limited.clone();
        let both = move || {
            // Whoever ends a connection early knows of it.
            let _ = UnixStream::connect(engine).and_then(|engine| pass(&client, &engine, &limited));
        };
        // Without a thread, the client's connection closes.
        let _ = thread::Builder::new().name("front".to_owned()).spawn(both);
    }
}

fn pass(client: &UnixStream, engine: &UnixStream, limited: &Sender<()>) -> io::Result<()> {
    let (mut from, mut to) = (engine.try_clone()?, client.try_clone()?);
    let back = thread::Builder::new().name("front".to_owned());
    back.spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    })?;
    let mut to: &UnixStream = engine;
    let passed = requests(&mut BufReader::new(client), &mut to, limited);
    engine.shutdown(Shutdown::Write)?;
    passed
}

/// Passes on requests, one after the other. After one that takes the connection over, what follows is no request.
fn requests(from: &mut impl BufRead, to: &mut impl Write, limited: &Sender<()>) -> io::Result<()> {
    loop {
        let Some(head) = Head::read(from)? else {
            return Ok(());
        };
        if head.makes_container() {
            let mut body = head.body.read(from)?;
            if let Some(labelled) = limits::labelled(&body) {
                body = labelled;
                // Whoever watches goes with the process.
                let _ = limited.send(());
            }
            to.write_all(&head.with_length(body.len()))?;
            to.write_all(&body)?;
            to.flush()?;
            continue;
        }
        to.write_all(&head.text)?;
        match head.body {
            Body::Bytes(size) => {
                io::copy(&mut from.by_ref().take(size), to)?;
            }
            Body::Chunks => chunks(from, to)?,
            Body::Connection => {
                io::copy(from, to)?;
                return Ok(());
            }
        }
        to.flush()?;
    }
}

/// How a body ends.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunks,
    Connection,
}

impl Body {
    /// All of it, without the lines about its chunks.
    fn read(&self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let (mut raw, mut body) = (Vec::new(), Vec::new());
        let mut from = from.take(LONGEST_BODY);
        match self {
            Body::Bytes(size) => {
                from.take(*size).read_to_end(&mut body)?;
                if (body.len() as u64) < *size {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                return Ok(body);
            }
            Body::Chunks => chunks(&mut from, &mut raw)?,
            Body::Connection => {}
        }
        let mut raw = raw.as_slice();
        loop {
            let size = chunk_size(&line(&mut raw)?)?;
            if size == 0 {
                return Ok(body);
            }
            (&mut raw).take(size).read_to_end(&mut body)?;
            line(&mut raw)?;
        }
    }
}

struct Head {
    text: Vec<u8>,
    body: Body,
}

impl Head {
    /// Whether it is a request to make a container.
    fn makes_container(&self) -> bool {
        let first = self.text.split(|byte| *byte == b'\n').next();
        let target = first.and_then(|first| first.split(|byte| *byte == b' ').nth(1));
        let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
        let path =
            path.filter(|_| self.body != Body::Connection && self.text.starts_with(b"POST "));
        path.is_some_and(|path| path.ends_with(b"/containers/create"))
    }

    /// The same with a body of this size, in one piece.
    fn with_length(&self, size: usize) -> Vec<u8> {
        let is_of_body = |line: &&[u8]| {
            let line = String::from_utf8_lossy(line).to_ascii_lowercase();
            line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
        };
        let lines = self.text.split_inclusive(|byte| *byte == b'\n');
        let lines: Vec<&[u8]> = lines.filter(|line| !is_of_body(line)).collect();
        let (first, rest) = lines
            .split_first()
            .map_or((&[][..], &[][..]), |(first, rest)| (*first, rest));
        let length = format!("Content-Length: {size}\r\n");
        [first, length.as_bytes(), &rest.concat()].concat()
    }

    /// Reads a request's head; `None` at the end.
    fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let first = line(from)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut body = match takes_over(&first) {
            true => Body::Connection,
            false => Body::Bytes(0),
        };
        let mut text = rewritten(first);
        loop {
            let line = line(from)?;
            text.extend_from_slice(&line);
            if text.len() as u64 > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if line.is_empty() || line == b"\r\n" || line == b"\n" {
                return Ok(Some(Head { text, body }));
            }
            let line = String::from_utf8_lossy(&line).to_ascii_lowercase();
            // A line without a colon is the engine's to refuse.
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            match (name, value.trim()) {
                _ if body == Body::Connection => {}
                ("upgrade", _) => body = Body::Connection,
                ("transfer-encoding", _) => body = Body::Chunks,
                ("content-length", size) if body == Body::Bytes(0) => {
                    let size = size.parse().map_err(|_| io::ErrorKind::InvalidData)?;
                    body = Body::Bytes(size);
                }
                _ => {}
            }
        }
    }
}

/// Whether what follows a request's line is no HTTP once it is answered, even if it does not say so.
fn takes_over(line: &[u8]) -> bool {
    let target = line.split(|byte| *byte == b' ').nth(1);
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    let Some(path) = path else {
        return false;
    };
    line.starts_with(b"POST ")
        && (path.ends_with(b"/attach") || path.ends_with(b"/start") && contains(path, b"/exec/"))
}

/// A request's line: the wait for a container's removal becomes that for its end.
fn rewritten(line: Vec<u8>) -> Vec<u8> {
    const REMOVED: &[u8] = b"/wait?condition=removed";
    let at = line.windows(REMOVED.len()).position(|part| part == REMOVED);
    match at {
        Some(at) if line.starts_with(b"POST ") && contains(&line, b"/containers/") => {
            let rest = &line[at + REMOVED.len()..];
            [&line[..at], b"/wait?condition=next-exit", rest].concat()
        }
        _ => line,
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|found| found == part)
}

/// A line with its end; nothing at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.by_ref()
        .take(LONGEST_HEAD)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

fn chunks(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let head = line(from)?;
        to.write_all(&head)?;
        let size = chunk_size(&head)?;
        if size > 0 {
            // With the end of its line.
            io::copy(&mut from.by_ref().take(size.saturating_add(2)), to)?;
            continue;
        }
        loop {
            let trailer = line(from)?;
            to.write_all(&trailer)?;
            if trailer.is_empty() || trailer == b"\r\n" || trailer == b"\n" {
                return Ok(());
            }
        }
    }
}

fn chunk_size(head: &[u8]) -> io::Result<u64> {
    let digits = String::from_utf8_lossy(head);
    let digits = digits.split(';').next().unwrap_or("").trim();
    u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn passed(text: &str) -> String {
        let mut to = Vec::new();
        requests(&mut text.as_bytes(), &mut to, &mpsc::channel().0).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn limits_of_a_container_become_labels_however_the_body_comes() {
        let body = r#"{"HostConfig":{"Memory":4096}}"#;
        let (one, two) = body.split_at(9);
        let requests = [
            format!(
                "POST /v1.41/containers/create?name=a HTTP/1.1\r\ncontent-length: {}\r\nHost: d\r\n\r\n{body}",
                body.len()
            ),
            format!(
                "POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
                one.len(),
                two.len()
            ),
        ];
        let next = "GET /_ping HTTP/1.1\r\n\r\n";
        for request in requests {
            let passed = passed(&format!("{request}{next}"));
            let (head, rest) = passed.split_once("\r\n\r\n").unwrap();
            let made = rest.strip_suffix(next).unwrap();
            assert!(made.contains("\"kiln.limits\":\"4096 -\""), "{passed}");
            assert!(
                head.contains(&format!("Content-Length: {}", made.len())),
                "{passed}"
            );
            assert!(
                head.contains("Host: d") && !head.contains("chunked"),
                "{passed}"
            );
        }
        let none = "POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(passed(none), none);
    }

    #[test]
    fn only_the_wait_for_a_removal_changes() {
        const WAIT: &str =
            "POST /v1.41/containers/a/wait?condition=removed HTTP/1.1\r\nHost: d\r\n\r\n";
        const ENDS: &str =
            "POST /v1.41/containers/a/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n";
        let same = [
            "GET /_ping HTTP/1.1\r\n\r\n".to_owned(),
            format!(
                "POST /build HTTP/1.1\r\nContent-Length: {}\r\n\r\n{WAIT}",
                WAIT.len()
            ),
            format!(
                "POST /build HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x};a\r\n{WAIT}\r\n0\r\nA: b\r\n\r\n",
                WAIT.len()
            ),
        ];
        let before = same.concat();
        // What follows a request that takes the connection over is the container's.
        let after = format!("POST /containers/a/attach?stdin=1 HTTP/1.1\r\n\r\n{WAIT}");
        assert_eq!(
            passed(&format!("{before}{WAIT}{before}{after}")),
            format!("{before}{ENDS}{before}{after}")
        );
        let upgraded = format!("POST /session HTTP/1.1\r\nUpgrade: h2c\r\n\r\n{WAIT}");
        assert_eq!(passed(&upgraded), upgraded);
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "POST /containers/create HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}",
            "POST /containers/create HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n{}",
        ] {
            assert!(requests(&mut text.as_bytes(), &mut Vec::new(), &mpsc::channel().0).is_err());
        }
        assert_eq!(passed(""), "");
        assert_eq!(passed("GET"), "GET");
    }
}
