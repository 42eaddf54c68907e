//! A repository elsewhere: what its branches and tags are, and what belongs to a commit.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use ureq::Body;
use ureq::http::{Response, header};

use crate::check_out::{Snapshot, failed};
use crate::error::shown;
use crate::http::{Content, Http, check_url};
use crate::id::Id;
use crate::pack::Pack;
use crate::packet::{Packet, Packets, Request};
use crate::{Error, Options, Result};

/// Lines that a repository may say about itself.
const MOST_CAPABILITIES: usize = 200;
/// Branches and tags that may fit a name.
const MOST_REFERENCES: usize = 100_000;
const LONGEST_REVISION: usize = 250;

/// A repository.
pub struct Remote<'a> {
    http: Http,
    options: Options<'a>,
    /// The repository can leave a commit's history out.
    shallow: bool,
    /// It can leave large files out.
    filter: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit, in forty digits; perhaps behind a tag, where a tag's own digits were asked for.
    pub commit: String,
    /// The branch or tag, as `refs/heads/NAME` or `refs/tags/NAME`.
    pub reference: Option<String>,
}

impl<'a> Remote<'a> {
    /// Asks a repository what it can do.
    ///
    /// # Errors
    /// It cannot be reached, may not be reached, or is none.
    pub fn open(url: &str, options: &Options<'a>) -> Result<Remote<'a>> {
        let url = check_url(url).map_err(Error::Asked)?;
        let (http, answer) = Http::open(&url, options)?;
        let kind = answer.headers().get(header::CONTENT_TYPE);
        if kind.and_then(|kind| kind.to_str().ok())
            != Some("application/x-git-upload-pack-advertisement")
        {
            return Err(http.wrong("what answers is no repository of git's".to_owned()));
        }
        let mut remote = Remote {
            http,
            options: options.clone(),
            shallow: false,
            filter: false,
        };
        remote.capabilities(answer)?;
        Ok(remote)
    }

    fn capabilities(&mut self, answer: Response<Body>) -> Result<()> {
        let mut packets = self.packets(answer);
        let mut first = true;
        for _ in 0..MOST_CAPABILITIES {
            let line = packets.line().map_err(|error| self.broken(error))?;
            // Some servers say the service's name first, in a section of its own.
            let Some(line) = line else {
                if first {
                    continue;
                }
                return Ok(());
            };
            let line = String::from_utf8_lossy(line).into_owned();
            match line.split_once('=').unwrap_or((&line, "")) {
                ("# service", _) => {}
                ("version 2", _) => first = false,
                _ if first => {
                    return Err(self.http.wrong(
                        "it does not speak version 2 of git's protocol (git 2.18 and later do)"
                            .to_owned(),
                    ));
                }
                ("fetch", features) => {
                    let has = |name: &str| features.split(' ').any(|feature| feature == name);
                    (self.shallow, self.filter) = (has("shallow"), has("filter"));
                }
                ("object-format", format) if format != "sha1" => {
                    return Err(self
                        .http
                        .wrong(format!("its objects are named by {format:?}, not by SHA-1")));
                }
                _ => {}
            }
        }
        Err(self.http.wrong("it says too much about itself".to_owned()))
    }

    /// The address, where redirects have led.
    pub fn url(&self) -> &str {
        self.http.base.as_str()
    }

    /// Looks for what a revision stands for: a branch, a tag, any other name below `refs/`, or a commit in forty digits. An
    /// empty one is the default branch.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn resolve(&self, revision: &str) -> Result<Resolved> {
        check_revision(revision).map_err(Error::Asked)?;
        if let Some(id) = Id::parse(revision.as_bytes()) {
            return Ok(Resolved {
                commit: id.to_string(),
                reference: None,
            });
        }
        let wanted = match revision {
            "" => vec!["HEAD".to_owned()],
            name => ["", "refs/", "refs/tags/", "refs/heads/"]
                .map(|start| format!("{start}{name}"))
                .into(),
        };
        let mut request = Request::default();
        request.line("command=ls-refs");
        request.line("object-format=sha1");
        request.delimiter();
        request.line("peel");
        request.line("symrefs");
        for name in &wanted {
            request.line(&format!("ref-prefix {name}"));
        }
        let mut packets = self.packets(self.http.command(request.end())?);
        let mut best: Option<(usize, Resolved)> = None;
        for _ in 0..MOST_REFERENCES {
            let line = packets.line().map_err(|error| self.broken(error))?;
            let Some(line) = line else {
                return best
                    .map(|(_, found)| found)
                    .ok_or_else(|| self.unknown(revision));
            };
            self.check_line(line)?;
            let (name, found) = reference(line).ok_or_else(|| {
                self.http
                    .wrong("a list of branches that is none".to_owned())
            })?;
            let rank = wanted.iter().position(|wanted| *wanted == name);
            if let Some(rank) = rank
                && best.as_ref().is_none_or(|(other, _)| rank < *other)
            {
                best = Some((rank, found));
            }
        }
        Err(self.http.wrong("it has too many branches".to_owned()))
    }

    fn unknown(&self, revision: &str) -> Error {
        self.http.wrong(match revision {
            "" => "it is empty, or has no default branch".to_owned(),
            name => format!(
                "there is no branch, tag or reference {name:?} (a commit is named with all forty digits)"
            ),
        })
    }

    /// Fetches a commit without its history, into files below `dir` that have no names. Files of more than `largest` bytes are
    /// left out where the repository can do that.
    ///
    /// # Errors
    /// The repository does not have it, or has more than it may.
    pub fn fetch(self, commit: &str, dir: &Path, largest: Option<u64>) -> Result<Snapshot<'a>> {
        let wanted = Id::parse(commit.as_bytes())
            .ok_or_else(|| Error::Asked(format!("{commit:?} is no commit in forty digits")))?;
        let mut request = Request::default();
        request.line("command=fetch");
        request.line("object-format=sha1");
        request.delimiter();
        request.line("ofs-delta");
        request.line("no-progress");
        if self.shallow {
            request.line("deepen 1");
        }
        if let Some(largest) = largest.filter(|_| self.filter) {
            request.line(&format!("filter blob:limit={}", largest.saturating_add(1)));
        }
        request.line(&format!("want {wanted}"));
        request.line("done");
        let answer = self.http.command(request.end())?;
        let file = tempfile::tempfile_in(dir).map_err(Error::local("making a file for a pack"))?;
        let file = self.receive(answer, file)?;
        let url = self.http.base.to_string();
        let fail = |trouble| failed(&url, trouble);
        let pack = Pack::open(file, dir, &self.options).map_err(fail)?;
        Snapshot::new(url.clone(), self.options, pack, wanted).map_err(fail)
    }

    /// Writes the pack of an answer into a file.
    fn receive(&self, answer: Response<Body>, mut file: File) -> Result<File> {
        let mut packets = self.packets(answer);
        loop {
            let line = packets.line().map_err(|error| self.broken(error))?;
            match line {
                Some(b"packfile") => break,
                Some(line) => self.check_line(line)?,
                // The end of a section, or of an answer without a pack: then there is nothing more to read.
                None => {}
            }
        }
        let most = self.options.limits.pack;
        let mut bytes = 0_u64;
        loop {
            let packet = packets.next().map_err(|error| self.broken(error))?;
            match packet {
                Packet::Data([band @ (1 | 2), content @ ..]) => {
                    // What it says of its progress counts as well, so that it does not go on for ever.
                    bytes += content.len() as u64 + 5;
                    if bytes > most {
                        let most = most >> 20;
                        return Err(self.http.wrong(format!(
                            "the commit is larger than {most} MiB as it is sent, which is the maximum"
                        )));
                    }
                    if *band == 1 {
                        file.write_all(content)
                            .map_err(Error::local("writing a pack"))?;
                    }
                }
                Packet::Data([3, what @ ..]) => {
                    return Err(self.http.wrong(format!("it gives up: {}", shown(what))));
                }
                Packet::Data(_) => {
                    return Err(self
                        .http
                        .wrong("a pack in a form that there is not".to_owned()));
                }
                Packet::Delimiter | Packet::Flush => break,
            }
        }
        file.rewind().map_err(Error::local("reading a pack"))?;
        Ok(file)
    }

    /// Refuses a line that says what went wrong.
    fn check_line(&self, line: &[u8]) -> Result<()> {
        match line.strip_prefix(b"ERR ") {
            None => Ok(()),
            Some(what) => Err(self.http.wrong(format!("it refuses: {}", shown(what)))),
        }
    }

    fn packets(&self, answer: Response<Body>) -> Packets<Content<'a, impl Read + use<>>> {
        Packets::new(Content {
            inner: answer.into_body().into_reader(),
            stop: self.options.stop,
        })
    }

    fn broken(&self, error: std::io::Error) -> Error {
        match (self.options.stop)() {
            true => Error::Stopped,
            false => self.http.broken(error),
        }
    }
}

/// `ID NAME`, perhaps with what a tag is for and which branch a name stands for.
fn reference(line: &[u8]) -> Option<(String, Resolved)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let id = Id::parse(words.next()?.as_bytes());
    let name = words.next()?.to_owned();
    let (mut commit, mut reference) = (id, name.clone());
    for word in words {
        if let Some(target) = word.strip_prefix("symref-target:") {
            target.clone_into(&mut reference);
        } else if let Some(peeled) = word.strip_prefix("peeled:") {
            commit = Some(Id::parse(peeled.as_bytes())?);
        }
    }
    let found = Resolved {
        commit: commit?.to_string(),
        reference: reference.starts_with("refs/").then_some(reference),
    };
    Some((name, found))
}

/// Refuses what cannot be the name of a branch, a tag or a commit.
///
/// # Errors
/// A sentence about it.
pub fn check_revision(revision: &str) -> std::result::Result<(), String> {
    let closed = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let is_name = revision.len() <= LONGEST_REVISION
        && !revision.contains(closed)
        && !revision.contains("..")
        && !revision.starts_with(['-', '/'])
        && !revision.ends_with(['/', '.']);
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "{:?} is no name of a branch, a tag or a commit",
            revision.chars().take(LONGEST_REVISION).collect::<String>()
        )),
    }
}
