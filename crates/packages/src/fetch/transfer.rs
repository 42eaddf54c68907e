//! Moving bytes: into memory, or into a file that may already hold the beginning.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Instant;

use super::attempt::{Attempt, Deadline};
use super::url::shown;
use super::{Fetcher, Opened};
use crate::digest::Hasher;
use crate::{Digest, Error, ErrorKind, FetchOptions, Result};

const BUFFER: usize = 128 << 10;

/// A file with known content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
}

/// Reads all of a body, at most `limit` bytes.
pub(super) fn into_memory(
    options: &FetchOptions,
    url: &str,
    opened: Opened,
    limit: u64,
    deadline: &Deadline,
) -> Result<Vec<u8>, Attempt> {
    let mut bytes = Vec::new();
    let length = opened.length;
    if opened.body.is_some() && !opened.framed && !options.unframed {
        return Err(unframed(url));
    }
    pump(options, url, opened, deadline, |piece| {
        bytes.extend_from_slice(piece);
        if bytes.len() as u64 > limit {
            let message = format!(
                "{} has more than the {limit} bytes that are allowed",
                shown(url)
            );
            return Err(Attempt::last(Error::new(ErrorKind::Refused, message)));
        }
        Ok(())
    })?;
    match length {
        Some(length) if length != bytes.len() as u64 => {
            Err(truncated(url, bytes.len() as u64, length))
        }
        _ => Ok(bytes),
    }
}

/// Passes a body on piece by piece, and gives up when (next to) nothing arrives.
fn pump(
    options: &FetchOptions,
    url: &str,
    opened: Opened,
    deadline: &Deadline,
    mut take: impl FnMut(&[u8]) -> Result<(), Attempt>,
) -> Result<(), Attempt> {
    let Some(mut body) = opened.body else {
        let message = format!("{}: the server gave no usable answer", shown(url));
        return Err(Attempt::passing(Error::new(ErrorKind::Refused, message)));
    };
    let mut buffer = vec![0; BUFFER];
    let (mut since, mut in_window) = (Instant::now(), 0);
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Attempt::body(url, error)),
        };
        take(&buffer[..read])?;
        deadline.check(url)?;
        in_window += read as u64;
        if since.elapsed() >= options.stall_timeout {
            if in_window < FetchOptions::STALL_BYTES {
                let message = format!(
                    "{}: only {in_window} bytes in {:?}",
                    shown(url),
                    since.elapsed()
                );
                return Err(Attempt::passing(Error::new(ErrorKind::Stalled, message)));
            }
            (since, in_window) = (Instant::now(), 0);
        }
    }
}

fn unframed(url: &str) -> Attempt {
    let message = format!(
        "{} comes without a length, so a part of it cannot be told from the whole",
        shown(url)
    );
    Attempt::last(Error::new(ErrorKind::Refused, message).with_hint(
        "Let the server send Content-Length or Transfer-Encoding: chunked, or fetch the file and give its path.",
    ))
}

fn truncated(url: &str, got: u64, expected: u64) -> Attempt {
    let message = format!("{} ended after {got} of {expected} bytes", shown(url));
    Attempt::passing(Error::new(ErrorKind::Truncated, message))
}

/// A file on its way: the good beginning and its running hash.
pub(super) struct Partial<'a> {
    wanted: &'a Wanted<'a>,
    file: &'a mut File,
    arrived: &'a dyn Fn(i64),
    deadline: &'a Deadline,
    hasher: Hasher,
    have: u64,
    mismatches: u32,
}

impl<'a> Partial<'a> {
    /// Looks at what the file already holds.
    pub(super) fn examine(
        wanted: &'a Wanted<'a>,
        file: &'a mut File,
        arrived: &'a dyn Fn(i64),
        deadline: &'a Deadline,
    ) -> Result<Self> {
        let mut partial = Partial {
            wanted,
            file,
            arrived,
            deadline,
            hasher: Hasher::default(),
            have: 0,
            mismatches: 0,
        };
        partial
            .resume()
            .map_err(|error| partial.local(error).error)?;
        Ok(partial)
    }

    fn resume(&mut self) -> std::io::Result<()> {
        if self.file.metadata()?.len() > self.wanted.size {
            self.file.set_len(0)?;
        }
        self.file.rewind()?;
        self.have = self.hasher.update_from(self.file)?;
        (self.arrived)(self.have as i64);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Attempt> {
        self.file.set_len(0).map_err(|error| self.local(error))?;
        (self.arrived)(-(self.have as i64));
        self.hasher = Hasher::default();
        self.have = 0;
        Ok(())
    }

    /// One try to get the rest, and the check of the whole.
    pub(super) fn advance(&mut self, fetcher: &Fetcher) -> Result<(), Attempt> {
        let before = self.have;
        if self.have < self.wanted.size || self.wanted.size == 0 {
            self.append(fetcher).map_err(|failed| Attempt {
                progressed: self.have > before,
                ..failed
            })?;
        }
        if self.have < self.wanted.size {
            let failed = truncated(self.wanted.url, self.have, self.wanted.size);
            return Err(Attempt {
                progressed: self.have > before,
                ..failed
            });
        }
        let found = self.hasher.clone().finish();
        match found == self.wanted.sha256 {
            true => Ok(()),
            false => Err(self.mismatch(format!("has the SHA-256 {found}"))),
        }
    }

    fn append(&mut self, fetcher: &Fetcher) -> Result<(), Attempt> {
        let opened = fetcher.open(self.wanted.url, self.have, None)?;
        if opened.body.is_none() || opened.start != self.have {
            self.restart()?;
        }
        if let Some(length) = opened.length.filter(|&length| length != self.wanted.size) {
            return Err(self.mismatch(format!("has {length} bytes")));
        }
        let at = self.have;
        self.file
            .seek(SeekFrom::Start(at))
            .map_err(|error| self.local(error))?;
        let deadline = self.deadline;
        pump(
            fetcher.options(),
            self.wanted.url,
            opened,
            deadline,
            |piece| self.take(piece),
        )
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), Attempt> {
        if self.have + piece.len() as u64 > self.wanted.size {
            return Err(self.mismatch(format!("has more than {} bytes", self.wanted.size)));
        }
        self.file
            .write_all(piece)
            .map_err(|error| self.local(error))?;
        self.hasher.update(piece);
        self.have += piece.len() as u64;
        (self.arrived)(piece.len() as i64);
        Ok(())
    }

    /// Wrong bytes: thrown away; fetched anew once, since a cache or a broken beginning may be the reason.
    fn mismatch(&mut self, found: String) -> Attempt {
        let Wanted { url, size, sha256 } = self.wanted;
        let message = format!(
            "{} is not the file that the metadata promises: it should have {size} bytes with the SHA-256 {sha256}, but {found}",
            shown(url)
        );
        let error = Error::new(ErrorKind::HashMismatch, message).with_hint(
            "The mirror (or a cache on the way) is damaged or in the middle of an update: try again later, or use another mirror.",
        );
        self.mismatches += 1;
        match self.restart() {
            Err(local) => local,
            Ok(()) if self.mismatches < 2 => Attempt::passing(error),
            Ok(()) => Attempt::last(error),
        }
    }

    fn local(&self, error: std::io::Error) -> Attempt {
        Attempt::last(Error::io(
            format_args!("storing {}", shown(self.wanted.url)),
            error,
        ))
    }
}
