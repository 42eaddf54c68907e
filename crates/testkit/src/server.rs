//! One connection of a mirror: HTTP/1.1 with keep-alive, `GET`, `HEAD`, `Range` and `If-Modified-Since`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::Fault;
use crate::shared::{Request, Shared, Source};

const PIECE: usize = 64 << 10;

/// Answers requests until the client or a fault ends the connection.
pub(crate) fn connection(stream: &TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while !shared.stopping() {
        let Some(head) = head(&mut reader) else { break };
        let _busy = shared.busy();
        if !matches!(answer(stream, shared, &head), Ok(true)) {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// A request's first line and headers.
struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The path, also where the client takes this server for a proxy.
    fn path(&self) -> &str {
        let rest = self
            .target
            .split_once("://")
            .map_or(self.target.as_str(), |(_, rest)| rest);
        let path = if rest.len() < self.target.len() {
            rest.find('/').map_or("/", |at| &rest[at..])
        } else {
            rest
        };
        path.split(['?', '#']).next().unwrap_or("/")
    }

    /// `bytes=100-` asks from 100 on; other forms are not needed here.
    fn from(&self) -> u64 {
        let range = self
            .header("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        range.unwrap_or(0)
    }
}

fn head(reader: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some(Head {
                method,
                target,
                headers,
            });
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// What a client gets.
struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection ends although more was promised.
    cut: Option<u64>,
    /// Silence before the cut.
    silence: Duration,
    rate: Option<u64>,
    /// Whether headers leave the length out.
    unframed: bool,
}

impl Answer {
    fn empty(status: u16) -> Self {
        Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            silence: Duration::ZERO,
            rate: None,
            unframed: false,
        }
    }
}

/// Whether the connection can be used again.
fn answer(mut stream: &TcpStream, shared: &Shared, head: &Head) -> std::io::Result<bool> {
    let mut request = Request {
        target: head.target.clone(),
        from: head.from(),
        headers: head.headers.clone(),
        status: 0,
        sent: 0,
    };
    let faults = shared.faults(head.path());
    if faults.contains(&Fault::Close) {
        shared.log(request);
        return Ok(false);
    }
    let answer = apply(shared, head, &faults);
    request.status = answer.status;
    let outcome = send(&mut stream, shared, head, &answer, &mut request.sent);
    shared.log(request);
    outcome
}

fn apply(shared: &Shared, head: &Head, faults: &[Fault]) -> Answer {
    for fault in faults {
        match fault {
            Fault::NotFound => return Answer::empty(404),
            Fault::Status(status) => return Answer::empty(*status),
            Fault::Redirect(to) => {
                return Answer {
                    headers: vec![format!("Location: {to}")],
                    ..Answer::empty(302)
                };
            }
            _ => {}
        }
    }
    let replaced = faults.iter().find_map(|f| {
        if let Fault::Replace(bytes) = f {
            Some(bytes.clone())
        } else {
            None
        }
    });
    let (mut bytes, modified) = match replaced {
        Some(bytes) => (bytes, None),
        None => match load(&shared.source, head.path()) {
            Ok(found) => found,
            Err(status) => return Answer::empty(status),
        },
    };
    let stamp = modified.map(http_date);
    if stamp.is_some() && head.header("if-modified-since") == stamp.as_deref() {
        return Answer::empty(304);
    }
    let mut answer = Answer::empty(200);
    answer
        .headers
        .extend(stamp.map(|date| format!("Last-Modified: {date}")));
    for fault in faults {
        match fault {
            Fault::Flip { offset } => {
                if let Some(byte) = usize::try_from(*offset)
                    .ok()
                    .and_then(|at| bytes.get_mut(at))
                {
                    *byte ^= 0x20;
                }
            }
            Fault::Short { length } => {
                bytes.truncate(usize::try_from(*length).unwrap_or(usize::MAX))
            }
            Fault::Truncate { after } => answer.cut = Some(*after),
            Fault::Stall { after, time } => (answer.cut, answer.silence) = (Some(*after), *time),
            Fault::Slow { rate } => answer.rate = Some(*rate),
            Fault::NoLength => answer.unframed = true,
            _ => {}
        }
    }
    let total = bytes.len() as u64;
    let from = if faults.contains(&Fault::NoRange) {
        0
    } else {
        head.from()
    };
    if from > 0 {
        if from >= total {
            return Answer {
                headers: vec![format!("Content-Range: bytes */{total}")],
                ..Answer::empty(416)
            };
        }
        answer.status = 206;
        answer
            .headers
            .push(format!("Content-Range: bytes {from}-{}/{total}", total - 1));
        bytes.drain(..from as usize);
    }
    answer.body = bytes;
    answer
}

fn send(
    stream: &mut &TcpStream,
    shared: &Shared,
    head: &Head,
    answer: &Answer,
    sent: &mut u64,
) -> std::io::Result<bool> {
    let mut text = format!("HTTP/1.1 {} -\r\n", answer.status);
    text += &match answer.unframed {
        true => "Connection: close\r\n".to_owned(),
        false => format!("Content-Length: {}\r\n", answer.body.len()),
    };
    answer
        .headers
        .iter()
        .for_each(|line| text.push_str(&format!("{line}\r\n")));
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())?;
    if head.method == "HEAD" || answer.status == 304 {
        return Ok(true);
    }
    let end = answer
        .cut
        .map_or(answer.body.len(), |cut| answer.body.len().min(cut as usize));
    let piece = answer
        .rate
        .map_or(PIECE, |rate| (rate as usize / 20).max(1));
    for bytes in answer.body[..end].chunks(piece) {
        stream.write_all(bytes)?;
        *sent += bytes.len() as u64;
        if let Some(rate) = answer.rate {
            std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        }
        if shared.stopping() {
            return Ok(false);
        }
    }
    if answer.cut.is_none() {
        return Ok(!answer.unframed);
    }
    let until = std::time::Instant::now() + answer.silence;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    while std::time::Instant::now() < until && !shared.stopping() {
        // A client that gave up has closed its end.
        if matches!(stream.peek(&mut [0]), Ok(0)) {
            break;
        }
    }
    Ok(false)
}

type Loaded = Result<(Vec<u8>, Option<SystemTime>), u16>;

fn load(source: &Source, path: &str) -> Loaded {
    let inner = inner_path(path).ok_or(400u16)?;
    match source {
        Source::Directory(directory) => read(&directory.join(inner)),
        Source::Forward { upstream, cache } => {
            let kept = cache.join(&inner);
            // Release files change; everything else is fetched once.
            let volatile = inner
                .file_name()
                .is_some_and(|n| n == "InRelease" || n == "Release" || n == "Release.gpg");
            if !volatile && let Ok(found) = read(&kept) {
                return Ok(found);
            }
            let bytes = fetch(&format!("{}{path}", upstream.trim_end_matches('/')))?;
            keep(&kept, &bytes).map_err(|_| 500u16)?;
            Ok((bytes, None))
        }
    }
}

fn read(path: &Path) -> Loaded {
    let metadata = fs::metadata(path)
        .ok()
        .filter(fs::Metadata::is_file)
        .ok_or(404u16)?;
    let bytes = fs::read(path).map_err(|_| 403u16)?;
    Ok((bytes, metadata.modified().ok()))
}

fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let staged = path.with_extension(format!("part{:?}", std::thread::current().id()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&staged, bytes)?;
    fs::rename(&staged, path)
}

fn fetch(url: &str) -> Result<Vec<u8>, u16> {
    let mut response = ureq::get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(status) => status,
        _ => 502,
    })?;
    let mut bytes = Vec::new();
    response
        .body_mut()
        .as_reader()
        .read_to_end(&mut bytes)
        .map_err(|_| 502u16)?;
    Ok(bytes)
}

/// The path below the root, percent-decoded; `None` where it climbs.
fn inner_path(path: &str) -> Option<PathBuf> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = escape.and_then(|e| u8::from_str_radix(std::str::from_utf8(e).ok()?, 16).ok());
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    let text = String::from_utf8(decoded).ok()?;
    let path = PathBuf::from(text.trim_start_matches('/'));
    path.components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        .then_some(path)
}

/// `Sat, 11 Jul 2026 10:16:37 GMT` (RFC 9110 section 5.6.7).
pub(crate) fn http_date(time: SystemTime) -> String {
    date(time, "GMT")
}

/// An RFC 2822 date with the given name of the zone UTC.
pub(crate) fn date(time: SystemTime, zone: &str) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86400, seconds % 86400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (year, month, day) = civil(days);
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ][month];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{:02} {zone}",
        second % 60
    )
}

/// Year, month (0 to 11) and day of a day since 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let time = UNIX_EPOCH + Duration::from_secs(1_783_764_997);
        assert_eq!(http_date(time), "Sat, 11 Jul 2026 10:16:37 GMT");
        assert_eq!(
            http_date(UNIX_EPOCH + Duration::from_secs(951_782_400)),
            "Tue, 29 Feb 2000 00:00:00 GMT"
        );
    }

    #[test]
    fn paths_cannot_climb() {
        assert_eq!(inner_path("/a%20b/c"), Some("a b/c".into()));
        assert_eq!(inner_path("/../x"), None);
        assert_eq!(inner_path("/%2e%2e/x"), None);
    }
}
