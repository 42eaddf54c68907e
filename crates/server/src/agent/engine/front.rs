//! The engine's socket as steps see it: passes on every request as it is but one.
//!
//! `docker run --rm` waits until its container is removed. Podman 4.3 answers that with exit code 0, whatever the container's was, since
//! it looks for the code when the container is gone. So the wait becomes the one that a run without `--rm` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Bytes of a request's head at most, and of a line about a chunk of its body.
const LONGEST_HEAD: u64 = 1 << 20;

/// Passes on what comes to a socket, until the process ends.
pub(super) fn serve(listener: &UnixListener, engine: &'static Path) {
    for client in listener.incoming().flatten() {
        let both = move || {
            // Whoever ends a connection early knows of it.
            let _ = UnixStream::connect(engine).and_then(|engine| pass(&client, &engine));
        };
        // Without a thread, the client's connection closes.
        let _ = thread::Builder::new().name("front".to_owned()).spawn(both);
    }
}

fn pass(client: &UnixStream, engine: &UnixStream) -> io::Result<()> {
    let (mut from, mut to) = (engine.try_clone()?, client.try_clone()?);
    let back = thread::Builder::new().name("front".to_owned());
    back.spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    })?;
    let mut to: &UnixStream = engine;
    let passed = requests(&mut BufReader::new(client), &mut to);
    engine.shutdown(Shutdown::Write)?;
    passed
}

/// Passes on requests, one after the other. After one that takes the connection over, what follows is no request.
fn requests(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let Some(head) = Head::read(from)? else {
            return Ok(());
        };
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

struct Head {
    text: Vec<u8>,
    body: Body,
}

impl Head {
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
        let digits = String::from_utf8_lossy(&head);
        let digits = digits.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(text: &str) -> String {
        let mut to = Vec::new();
        requests(&mut text.as_bytes(), &mut to).unwrap();
        String::from_utf8(to).unwrap()
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
        ] {
            assert!(requests(&mut text.as_bytes(), &mut Vec::new()).is_err());
        }
        assert_eq!(passed(""), "");
        assert_eq!(passed("GET"), "GET");
    }
}
