//! A loopback object store: as much of S3's and Google Cloud Storage's XML interface as a client needs that puts, gets, looks at and
//! lists objects, with faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is wrong with every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This status and nothing else.
    Status(u16),
    /// No answer, until the server ends.
    Silence,
    /// The body ends half-way; its length was promised.
    Cut,
    /// One bit of the body is another one.
    Flip,
    /// The body is this.
    Replace(Vec<u8>),
}

/// A store with objects by path, `bucket/name`. Dropping it ends it.
pub struct Bucket {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    trouble: Mutex<Option<Trouble>>,
    /// Methods and targets.
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Bucket {
    /// Starts an empty store.
    pub fn start() -> Bucket {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stop.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                if let Ok(stream) = stream {
                    thread::spawn(move || connection(&stream, &state));
                }
            }
        });
        Bucket {
            address,
            shared,
            listener: Some(listener),
        }
    }

    /// Returns its address, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every answer to a `GET` or `HEAD` is troubled; with a status, every answer.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        *locked(&self.shared.trouble) = trouble;
    }

    /// Returns the paths of all objects.
    pub fn names(&self) -> Vec<String> {
        locked(&self.shared.objects).keys().cloned().collect()
    }

    /// Removes an object.
    pub fn remove(&self, name: &str) {
        locked(&self.shared.objects).remove(name);
    }

    /// Returns methods and targets of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.shared.requests).clone()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Request {
    method: String,
    target: String,
    body: Vec<u8>,
}

fn connection(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = request(&mut reader) {
        let line = format!("{} {}", request.method, request.target);
        locked(&shared.requests).push(line);
        if answer(stream, shared, &request).is_none() {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

fn request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        target,
        body,
    })
}

/// `None` ends the connection.
fn answer(stream: &TcpStream, shared: &Shared, request: &Request) -> Option<()> {
    let trouble = locked(&shared.trouble).clone();
    if let Some(Trouble::Status(status)) = trouble {
        return send(stream, status, b"", 0, request);
    }
    if trouble == Some(Trouble::Silence) {
        let began = Instant::now();
        while !shared.stop.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(600) {
            thread::sleep(Duration::from_millis(20));
        }
        return None;
    }
    let (status, mut body) = found(shared, request);
    let mut cut = 0;
    match trouble {
        Some(Trouble::Flip) if status == 200 && !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Trouble::Replace(other)) if status == 200 => body = other,
        Some(Trouble::Cut) => cut = body.len() - body.len() / 2,
        _ => {}
    }
    send(stream, status, &body, cut, request).filter(|()| cut == 0)
}

fn found(shared: &Shared, request: &Request) -> (u16, Vec<u8>) {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let path = decoded(path.trim_start_matches('/'));
    let mut objects = locked(&shared.objects);
    match request.method.as_str() {
        "PUT" => {
            objects.insert(path, request.body.clone());
            (200, Vec::new())
        }
        "GET" if query.contains("list-type=2") => (200, listing(&objects, &path, query)),
        "GET" | "HEAD" => match objects.get(&path) {
            Some(bytes) => (200, bytes.clone()),
            None => (404, Vec::new()),
        },
        _ => (405, Vec::new()),
    }
}

fn listing(objects: &BTreeMap<String, Vec<u8>>, bucket: &str, query: &str) -> Vec<u8> {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="));
    let start = format!("{}/", bucket.trim_end_matches('/'));
    let prefix = format!("{start}{}", decoded(prefix.unwrap_or("")));
    let mut text =
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        let key = name.strip_prefix(&start).unwrap_or(name);
        let size = bytes.len();
        text += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>\"x\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    text += "</ListBucketResult>";
    text.into_bytes()
}

fn decoded(text: &str) -> String {
    let (first, rest) = text
        .split_once('%')
        .map_or((text, None), |(first, rest)| (first, Some(rest)));
    let mut out = first.as_bytes().to_vec();
    for part in rest.iter().flat_map(|rest| rest.split('%')) {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        out.extend(u8::from_str_radix(hex, 16));
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Sends all but the last `cut` bytes.
fn send(
    mut stream: &TcpStream,
    status: u16,
    body: &[u8],
    cut: usize,
    request: &Request,
) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nETag: \"x\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n\r\n",
        body.len()
    );
    let body = match request.method.as_str() {
        "HEAD" => &[][..],
        _ => &body[..body.len() - cut],
    };
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
