//! Reads the log of a build, from its beginning, while it grows. What was handed on counts: after a lost connection the rest is
//! asked for, so no line is lost and none comes twice.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::http::Method;

use crate::builds::Builds;
use crate::connection::part;
use crate::{Error, Kind};

/// The shortest and the longest time between two looks.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(1);
/// How long a server that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Who reads along.
pub trait Reader {
    /// A further part of the log.
    ///
    /// # Errors
    /// It cannot be taken; nothing more is read.
    fn text(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// The server is not to be reached (why), or it is again (`None`).
    fn trouble(&mut self, error: Option<&Error>);

    /// The build waits; why.
    fn waits(&mut self, why: &str);

    /// Whether to stop reading.
    fn stopped(&self) -> bool;
}

/// Whether a status is one that stays.
pub fn is_final(status: &str) -> bool {
    !matches!(
        status,
        "" | "STATUS_UNKNOWN" | "PENDING" | "QUEUED" | "WORKING"
    )
}

/// Follows a build to its end and returns it; `None` if the reader stopped. Without `wait`, only what is there is read.
///
/// # Errors
/// There is no such build, or the server is not to be reached for minutes.
pub fn follow(
    builds: &Builds,
    id: &str,
    wait: bool,
    reader: &mut dyn Reader,
) -> Result<Option<Value>, Error> {
    let mut following = Following {
        builds,
        id,
        offset: 0,
    };
    let mut pause = SOON;
    let mut silent: Option<Instant> = None;
    let mut why = String::new();
    loop {
        if reader.stopped() {
            return Ok(None);
        }
        let before = following.offset;
        match following.look(reader) {
            Ok(build) => {
                if silent.take().is_some() {
                    reader.trouble(None);
                }
                if !wait || is_final(build["status"].as_str().unwrap_or("")) {
                    return Ok(Some(build));
                }
                let now = build["statusDetail"].as_str().unwrap_or("");
                if build["status"] == "QUEUED" && now != why && !now.is_empty() {
                    now.clone_into(&mut why);
                    reader.waits(now);
                }
            }
            Err(error) if error.kind == Kind::Unreachable && wait => {
                let since = *silent.get_or_insert_with(|| {
                    reader.trouble(Some(&error));
                    Instant::now()
                });
                if since.elapsed() > PATIENCE {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        pause = if following.offset > before {
            SOON
        } else {
            (pause * 3 / 2).min(LATE)
        };
        nap(pause, reader);
    }
}

/// Sleeps, but not through a wish to stop.
fn nap(time: Duration, reader: &dyn Reader) {
    let began = Instant::now();
    while began.elapsed() < time && !reader.stopped() {
        thread::sleep(Duration::from_millis(20).min(time));
    }
}

struct Following<'a> {
    builds: &'a Builds,
    id: &'a str,
    offset: u64,
}

impl Following<'_> {
    /// Reads what is new. The build is asked for first: once it has ended, its log is whole.
    fn look(&mut self, reader: &mut dyn Reader) -> Result<Value, Error> {
        let build = self.builds.get(self.id)?;
        let place = build["logsBucket"].as_str().unwrap_or("");
        let place = place.strip_prefix("gs://").unwrap_or(place);
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        let object = format!("{prefix}{slash}log-{}.txt", self.id);
        let path = format!(
            "/download/storage/v1/b/{}/o/{}?alt=media",
            part(bucket),
            part(&object)
        );
        let headers = [("Range", format!("bytes={}-", self.offset))];
        let connection = &self.builds.connection;
        let mut answer = connection.send(&Method::GET, &path, &headers, b"")?;
        // No log yet, or nothing new.
        if matches!(answer.status, 404 | 416) {
            return Ok(build);
        }
        // An answer of 200 has the whole log.
        let mut known = if answer.status == 206 { 0 } else { self.offset };
        let mut buffer = vec![0; 64 << 10];
        let mut body = answer.reader();
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => return Ok(build),
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(connection.cut(error)),
            };
            let skipped = usize::try_from(known).unwrap_or(usize::MAX).min(length);
            known -= skipped as u64;
            let fresh = &buffer[skipped..length];
            if !fresh.is_empty() {
                reader.text(fresh)?;
                self.offset += fresh.len() as u64;
            }
            if reader.stopped() {
                return Ok(build);
            }
        }
    }
}

/// A server's time as seconds since 1970.
pub fn seconds(text: &str) -> Option<f64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}
