//! As much of HTTP as a load needs: one connection that stays, requests with a body, answers with a length.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::Result;

/// How long an answer may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to the server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Client> {
        let connect = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream =
            connect().map_err(|e: std::io::Error| format!("connecting to {address}: {e}"))?;
        Ok(Client {
            stream: BufReader::with_capacity(128 << 10, stream),
            host: address.to_string(),
        })
    }

    /// Sends a request and returns the answer's status and body.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let mut answer = Vec::new();
        let mut keep = |_, piece: &[u8]| {
            answer.extend_from_slice(piece);
            Ok(())
        };
        let status = self.exchange(&format!("{method} {path}"), headers, body, &mut keep)?;
        Ok((status, answer))
    }

    /// Sends a request without a body, shows the answer's status and body piece by piece, and returns the status.
    pub(crate) fn read(
        &mut self,
        path: &str,
        headers: &str,
        see: &mut dyn FnMut(u16, &[u8]) -> Result<()>,
    ) -> Result<u16> {
        self.exchange(&format!("GET {path}"), headers, b"", see)
    }

    fn exchange(
        &mut self,
        what: &str,
        headers: &str,
        body: &[u8],
        see: &mut dyn FnMut(u16, &[u8]) -> Result<()>,
    ) -> Result<u16> {
        let (status, mut left) = self
            .ask(what, headers, body)
            .map_err(|e| format!("{what}: {e}"))?;
        while left > 0 {
            let buffer = self.stream.fill_buf().map_err(|e| format!("{what}: {e}"))?;
            let length = buffer.len().min(left);
            if length == 0 {
                return Err(format!("{what}: the answer ends too early"));
            }
            see(status, &buffer[..length])?;
            self.stream.consume(length);
            left -= length;
        }
        Ok(status)
    }

    /// Sends a request, and reads the head of the answer: the status and the length of what follows.
    fn ask(&mut self, what: &str, headers: &str, body: &[u8]) -> std::io::Result<(u16, usize)> {
        let head = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.host,
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let status = status.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok((status.unwrap_or(0), length))
    }

    /// Asks for JSON; an answer other than 200 is a failure.
    pub(crate) fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let kind = "Content-Type: application/json\r\n";
        let (status, answer) = self.request(method, path, kind, body.as_bytes())?;
        let text = String::from_utf8_lossy(&answer);
        if status != 200 {
            return Err(format!("{method} {path}: {status} {text}"));
        }
        serde_json::from_str(&text).map_err(|e| format!("{method} {path}: {e}: {text}"))
    }
}
