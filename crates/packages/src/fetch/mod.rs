//! Fetching: `http://`, `https://` and `file://`, with time-outs, retries, resumption and cancellation.
//!
//! What arrives here is unverified. [`Fetcher::bytes`] hands it to callers who verify it (signatures);
//! `Fetcher::resume_into` verifies size and SHA-256 itself.

mod attempt;
mod forward;
mod gate;
mod http;
mod mirrors;
mod options;
mod transfer;
pub(crate) mod url;

use std::fs::File;
use std::io::Read;

pub(crate) use attempt::Deadline;
use attempt::{Attempt, retrying};
pub(crate) use mirrors::in_turn;
pub use options::{Allows, FetchOptions, Proxies};
pub(crate) use transfer::Wanted;

use crate::{CancelToken, Error, ErrorKind, Result};

/// Fetches files. Shared by threads.
#[derive(Debug)]
pub struct Fetcher {
    options: FetchOptions,
    cancel: CancelToken,
    http: http::Http,
    mirrors: mirrors::Mirrors,
}

/// A small file that was fetched whole. Not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Its content.
    New {
        /// All bytes.
        bytes: Vec<u8>,
        /// The `Last-Modified` header, as it came.
        modified: Option<String>,
    },
    /// It is not newer than the caller's copy.
    NotModified,
}

/// A transfer that has begun.
struct Opened {
    /// Offset in the file of the first byte that `body` gives.
    start: u64,
    /// Length of the whole file, if the server says it.
    length: Option<u64>,
    /// Whether the answer says where it ends: an end before that is an error, not the end.
    framed: bool,
    modified: Option<String>,
    /// `None`: the answer has no use (a range it cannot serve) or `not_modified`.
    body: Option<Box<dyn Read>>,
    not_modified: bool,
}

impl Opened {
    fn useless() -> Self {
        Opened {
            start: 0,
            length: None,
            framed: false,
            modified: None,
            body: None,
            not_modified: false,
        }
    }
}

impl Fetcher {
    /// Makes a fetcher whose work ends when `cancel` is turned.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if a proxy is not valid.
    pub fn new(options: FetchOptions, cancel: CancelToken) -> Result<Self> {
        let http = http::Http::new(&options, &cancel)?;
        Ok(Fetcher {
            options,
            cancel,
            http,
            mirrors: mirrors::Mirrors::default(),
        })
    }

    /// Returns one that goes through another proxy, but for the hosts that go through none; through none at all for `_none_`.
    /// `whose` says for messages who wants it.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if the proxy is not valid; [`ErrorKind::Refused`] where [`FetchOptions::only`] is said: a proxy that a
    /// stranger names reaches what is closed to him.
    pub fn through(&self, whose: &str, proxy: &str) -> Result<Self> {
        let mut options = self.options.clone();
        if options.only.is_some() {
            let message = format!("{whose} names a proxy, which builds of others must not");
            return Err(Error::new(ErrorKind::Refused, message)
                .with_hint("Leave the proxy out: the server has its own way to the network."));
        }
        let said = (proxy != "_none_").then(|| proxy.to_owned());
        options.proxies.http.clone_from(&said);
        options.proxies.https = said;
        Fetcher::new(options, self.cancel.clone()).map_err(|error| {
            let message = format!("the proxy of {whose} cannot be used");
            Error::new(error.kind(), message)
                .with_hint("Kiln understands http://[USER:PASSWORD@]HOST[:PORT], and _none_.")
        })
    }

    /// Returns its options.
    pub fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// Returns the token that stops it.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Fetches a small file into memory. Not verified in any way: that is the caller's part.
    ///
    /// `since` is the `modified` text of an earlier answer.
    ///
    /// # Errors
    /// Any network kind; [`ErrorKind::Refused`] if it has more than `limit` bytes, or no length where
    /// [`FetchOptions::unframed`] wants one.
    pub fn bytes(&self, url: &str, limit: u64, since: Option<&str>) -> Result<Fetched> {
        self.bytes_of(url, limit, since, self.options.attempts)
    }

    /// As [`Fetcher::bytes`], with so many tries in a row that bring nothing.
    pub(crate) fn bytes_of(
        &self,
        url: &str,
        limit: u64,
        since: Option<&str>,
        tries: u32,
    ) -> Result<Fetched> {
        let deadline = Deadline::after(self.options.file_deadline);
        retrying(&self.options, &self.cancel, (url, &deadline, tries), || {
            let opened = self.open(url, 0, since)?;
            let modified = opened.modified.clone();
            if opened.not_modified && since.is_some() {
                return Ok(Fetched::NotModified);
            }
            let bytes = transfer::into_memory(&self.options, url, opened, limit, &deadline)?;
            Ok(Fetched::New { bytes, modified })
        })
    }

    /// Completes `file`, which may already hold the beginning, so that it has the wanted size and SHA-256.
    /// `arrived` is told how the number of good bytes changes (it may go down when a transfer begins anew). `tries` in a row may bring
    /// nothing.
    ///
    /// # Errors
    /// Any network kind; [`ErrorKind::HashMismatch`] naming the file, the expected and the found digest.
    pub(crate) fn resume_into(
        &self,
        wanted: &Wanted,
        file: &mut File,
        arrived: &dyn Fn(i64),
        (deadline, tries): (&Deadline, u32),
    ) -> Result<()> {
        let mut state = transfer::Partial::examine(wanted, file, arrived, deadline)?;
        let until = (wanted.url, deadline, tries);
        retrying(&self.options, &self.cancel, until, || state.advance(self))
    }

    fn open(&self, url: &str, from: u64, since: Option<&str>) -> Result<Opened, Attempt> {
        if url.starts_with("file:") {
            if self.options.only.is_some() {
                gate::ask_file(url, self.options.files.as_deref()).map_err(Attempt::last)?;
            }
            return open_file(url, from);
        }
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let message = format!("{:?} is not a URL that Kiln can fetch", url::shown(url));
            let error = Error::new(ErrorKind::Input, message)
                .with_hint("Use http://, https:// or file:///.");
            return Err(Attempt::last(error));
        }
        if self.options.offline {
            let error = Error::new(
                ErrorKind::Offline,
                format!("{} is needed, but Kiln is offline", url::shown(url)),
            )
            .with_hint("Build once with the network, or without --offline.");
            return Err(Attempt::last(error));
        }
        self.http.open(&self.options, url, from, since)
    }
}

fn open_file(url: &str, from: u64) -> Result<Opened, Attempt> {
    use std::io::{ErrorKind as Io, Seek, SeekFrom};
    let path = url::file_path(url).ok_or_else(|| {
        let message = format!("{url:?} is not a valid file URL (file:///absolute/path)");
        Attempt::last(Error::new(ErrorKind::Input, message))
    })?;
    let failed = |error: std::io::Error| {
        Attempt::last(match error.kind() {
            Io::NotFound | Io::NotADirectory => {
                Error::new(ErrorKind::NotFound, format!("{url} does not exist")).with_source(error)
            }
            _ => Error::io(format_args!("reading {}", path.display()), error),
        })
    };
    let mut file = File::open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Attempt::last(Error::new(
            ErrorKind::Input,
            format!("{url} is not a file"),
        )));
    }
    let start = from.min(metadata.len());
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let (length, body) = (Some(metadata.len()), Some(Box::new(file) as Box<dyn Read>));
    Ok(Opened {
        start,
        length,
        framed: true,
        modified: None,
        body,
        not_modified: false,
    })
}
