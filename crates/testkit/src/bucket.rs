//! A loopback object store: as much of S3's and Google Cloud Storage's XML interface, and of Azure's Blob Storage, as a client needs that
//! puts, gets, looks at, removes and lists objects, whole, in ranges and in parts, with faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::azure;
use crate::fault::matches;
use crate::uri::decoded;

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
    /// The connection ends without an answer, and nothing is done.
    Close,
    /// What was asked for is done, and the connection ends without an answer.
    Forget,
}

/// Trouble with some requests only.
#[derive(Clone, Debug)]
struct Fault {
    /// `METHOD TARGET`, with `*` for any text.
    pattern: String,
    /// Requests that go well before.
    after: u32,
    /// Requests that it hits then.
    times: u32,
    trouble: Trouble,
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
    /// Uploads in parts, by their id: where they go, and the parts by number.
    uploads: Mutex<BTreeMap<String, Upload>>,
    /// Azure's blocks of blobs that are not complete.
    blocks: Mutex<azure::Blocks>,
    trouble: Mutex<Option<Trouble>>,
    faults: Mutex<Vec<Fault>>,
    /// Methods and targets.
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Upload {
    path: String,
    parts: BTreeMap<u32, Vec<u8>>,
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

    /// Of the requests `METHOD TARGET` that a pattern with `*` matches, the first `after` go well, and `times` then do not.
    pub fn fault(&self, pattern: &str, after: u32, times: u32, trouble: Trouble) {
        locked(&self.shared.faults).push(Fault {
            pattern: pattern.to_owned(),
            after,
            times,
            trouble,
        });
    }

    /// Ends all faults.
    pub fn heal(&self) {
        locked(&self.shared.faults).clear();
        self.trouble(None);
    }

    /// Returns an object's content.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        locked(&self.shared.objects).get(name).cloned()
    }

    /// Puts an object there.
    pub fn put(&self, name: &str, content: &[u8]) {
        locked(&self.shared.objects).insert(name.to_owned(), content.to_vec());
    }

    /// Returns how many uploads in parts are neither complete nor aborted.
    pub fn unfinished(&self) -> usize {
        locked(&self.shared.uploads).len() + locked(&self.shared.blocks).len()
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
    /// First and last byte, if only a part is asked for.
    range: Option<(usize, usize)>,
    /// Whether nothing may be there yet.
    is_new: bool,
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
    let (mut length, mut range, mut is_new) = (0, None, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("range") {
            let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
            range = Some((first.parse().ok()?, last.parse().ok()?));
        } else if name.eq_ignore_ascii_case("if-none-match")
            || name.eq_ignore_ascii_case("x-goog-if-generation-match")
        {
            is_new = true;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        target,
        range,
        is_new,
        body,
    })
}

/// What is wrong with this request's answer.
fn trouble(shared: &Shared, request: &Request) -> Option<Trouble> {
    let line = format!("{} {}", request.method, request.target);
    let mut faults = locked(&shared.faults);
    let hit = faults
        .iter_mut()
        .find(|fault| fault.times > 0 && matches(&fault.pattern, &line));
    if let Some(fault) = hit {
        if fault.after == 0 {
            fault.times = fault.times.saturating_sub(1);
            return Some(fault.trouble.clone());
        }
        fault.after -= 1;
    }
    drop(faults);
    locked(&shared.trouble).clone()
}

/// `None` ends the connection.
fn answer(stream: &TcpStream, shared: &Shared, request: &Request) -> Option<()> {
    let trouble = trouble(shared, request);
    match trouble {
        Some(Trouble::Status(status)) => {
            return send(stream, status, b"", (0, 0), request);
        }
        Some(Trouble::Close) => return None,
        Some(Trouble::Silence) => {
            let began = Instant::now();
            while !shared.stop.load(Ordering::SeqCst) && began.elapsed() < Duration::from_secs(600)
            {
                thread::sleep(Duration::from_millis(20));
            }
            return None;
        }
        _ => {}
    }
    let (status, mut body, total) = found(shared, request);
    let mut cut = 0;
    match trouble {
        Some(Trouble::Forget) => return None,
        Some(Trouble::Flip) if matches!(status, 200 | 206) && !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Some(Trouble::Replace(other)) if status == 200 => body = other,
        Some(Trouble::Cut) => cut = body.len() - body.len() / 2,
        _ => {}
    }
    send(stream, status, &body, (cut, total), request).filter(|()| cut == 0)
}

/// The status and the body, and of a range how much there is.
fn found(shared: &Shared, request: &Request) -> (u16, Vec<u8>, usize) {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let path = decoded(path.trim_start_matches('/'));
    if query.split('&').any(|pair| pair.starts_with("uploads"))
        || query.split('&').any(|pair| pair.starts_with("uploadId="))
    {
        let (status, body) = in_parts(shared, request, path, query);
        return (status, body, 0);
    }
    let mut objects = locked(&shared.objects);
    let words = (request.method.as_str(), path.as_str(), query);
    if let Some((status, body)) = azure::answer(
        &mut objects,
        &mut locked(&shared.blocks),
        words,
        &request.body,
    ) {
        return (status, body, 0);
    }
    let total = objects.get(&path).map_or(0, Vec::len);
    let (status, body) = match request.method.as_str() {
        "PUT" if request.is_new && objects.contains_key(&path) => (412, Vec::new()),
        "PUT" => {
            objects.insert(path, request.body.clone());
            // Azure's clients expect it so, the others take it.
            (201, Vec::new())
        }
        "DELETE" => match objects.remove(&path) {
            Some(_) => (204, Vec::new()),
            None => (404, Vec::new()),
        },
        "GET" if query.contains("list-type=2") => (200, listing(&objects, &path, query)),
        "GET" | "HEAD" => match (objects.get(&path), request.range) {
            (Some(bytes), None) => (200, bytes.clone()),
            (Some(bytes), Some((first, last))) => {
                let end = bytes.len().min(last + 1);
                bytes
                    .get(first..end)
                    .map_or((416, Vec::new()), |part| (206, part.to_vec()))
            }
            (None, _) => (404, Vec::new()),
        },
        _ => (405, Vec::new()),
    };
    (status, body, total)
}

/// Uploads in parts: a beginning, parts by number, and an end.
fn in_parts(shared: &Shared, request: &Request, path: String, query: &str) -> (u16, Vec<u8>) {
    let value = |name: &str| {
        let mut pairs = query.split('&');
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let mut uploads = locked(&shared.uploads);
    let Some(id) = value("uploadId") else {
        let id = format!("upload-{}", locked(&shared.requests).len());
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        let parts = BTreeMap::new();
        uploads.insert(id, Upload { path, parts });
        return (200, text.into_bytes());
    };
    let number = value("partNumber").and_then(|number| number.parse().ok());
    match (request.method.as_str(), number, uploads.get_mut(id)) {
        ("PUT", Some(number), Some(upload)) => {
            upload.parts.insert(number, request.body.clone());
            (200, Vec::new())
        }
        ("POST", None, Some(upload)) => {
            let whole: Vec<u8> = upload.parts.values().flatten().copied().collect();
            locked(&shared.objects).insert(upload.path.clone(), whole);
            uploads.remove(id);
            let text =
                "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>";
            (200, text.into())
        }
        ("DELETE", None, Some(_)) => {
            uploads.remove(id);
            (204, Vec::new())
        }
        _ => (404, Vec::new()),
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

/// Sends all but the last `cut` bytes; of a range, the whole has `total`.
fn send(
    mut stream: &TcpStream,
    status: u16,
    body: &[u8],
    (cut, total): (usize, usize),
    request: &Request,
) -> Option<()> {
    let mut head = format!(
        "HTTP/1.1 {status} X\r\nETag: \"x\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
    );
    // A 204 has neither a body nor a length.
    if status != 204 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    if status == 202 {
        let boundary = azure::BOUNDARY;
        head += &format!("Content-Type: multipart/mixed; boundary={boundary}\r\n");
    }
    if let (206, Some((first, _))) = (status, request.range) {
        let last = (first + body.len()).saturating_sub(1);
        head += &format!("Content-Range: bytes {first}-{last}/{total}\r\n");
    }
    head += "\r\n";
    let body = match request.method.as_str() {
        "HEAD" => &[][..],
        _ => &body[..body.len() - cut],
    };
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
