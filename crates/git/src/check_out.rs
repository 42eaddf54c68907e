//! A commit's files: written into a directory, or one of them read.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::id::{Id, Kind};
use crate::pack::{Pack, Trouble};
use crate::tree::{self, Entry, Mode};
use crate::{Error, Options, Result};

/// Directories within each other at most.
const DEEPEST: usize = 200;
/// Bytes that a link may say.
const LONGEST_LINK: u64 = 4095;
/// Tags of tags of tags.
const MOST_TAGS: usize = 10;

/// A commit and everything that belongs to it.
pub struct Snapshot<'a> {
    pub(crate) url: String,
    pub(crate) options: Options<'a>,
    pub(crate) pack: Pack,
    pub(crate) commit: Id,
    pub(crate) root: Id,
}

impl<'a> Snapshot<'a> {
    /// Looks for a commit, which is perhaps behind a tag, and its tree.
    pub(crate) fn new(
        url: String,
        options: Options<'a>,
        pack: Pack,
        wanted: Id,
    ) -> std::result::Result<Self, Trouble> {
        let mut commit = wanted;
        for _ in 0..MOST_TAGS {
            let (kind, content) = pack.in_memory(commit, &options.limits)?;
            let next = tree::leads_to(kind, &content).ok_or_else(|| {
                Trouble::Wrong(format!("{wanted} is no commit but a {}", kind.name()))
            })?;
            if kind == Kind::Tag {
                commit = next;
                continue;
            }
            return Ok(Snapshot {
                url,
                options,
                pack,
                commit,
                root: next,
            });
        }
        Err(Trouble::Wrong(format!(
            "{wanted} is a tag of too many tags"
        )))
    }

    /// The commit, in forty digits.
    pub fn commit(&self) -> String {
        self.commit.to_string()
    }

    /// Writes all files into a directory that exists and has nothing of their names. Returns what was left out, a sentence
    /// for each.
    ///
    /// Links are made last, and one that leads out of the directory is left out.
    ///
    /// # Errors
    /// The repository has what it may not have or lacks something; a file cannot be written.
    pub fn check_out(&self, dir: &Path) -> Result<Vec<String>> {
        let mut work = Work {
            snapshot: self,
            dir,
            entries: self.options.limits.entries,
            bytes: self.options.limits.bytes,
            links: Vec::new(),
            left_out: Vec::new(),
        };
        let mut trees = vec![(self.root, PathBuf::new())];
        while let Some((id, path)) = trees.pop() {
            let content = self.tree(id)?;
            for entry in tree::entries(&content).map_err(|what| self.wrong(what))? {
                work.entry(&entry, &path, &mut trees)?;
            }
        }
        work.links()?;
        Ok(work.left_out)
    }

    /// Reads a file of at most so many bytes; links are not followed.
    ///
    /// # Errors
    /// There is no such file, or it is too large.
    pub fn file(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        match self.find(path)? {
            Some((Mode::File | Mode::Program, id)) => {
                let size = self.pack.find(id).map_or(u64::MAX, |(_, size)| size);
                match size > most {
                    true => Err(self.wrong(format!("{path:?} has more than {most} bytes"))),
                    false => self.object(id, Kind::Blob),
                }
            }
            _ => Err(self.wrong(format!("there is no file {path:?} in {}", self.commit))),
        }
    }

    /// The names of a directory's files; links, directories and names that are no UTF-8 are not among them.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn files(&self, dir: &str) -> Result<Vec<String>> {
        let Some((Mode::Directory, id)) = self.find(dir)? else {
            return Err(self.wrong(format!("there is no directory {dir:?} in {}", self.commit)));
        };
        let content = self.tree(id)?;
        let entries = tree::entries(&content).map_err(|what| self.wrong(what))?;
        let files = entries
            .iter()
            .filter(|entry| matches!(entry.mode, Mode::File | Mode::Program));
        let names = files.filter_map(|entry| std::str::from_utf8(entry.name).ok());
        Ok(names.map(str::to_owned).collect())
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// There is a link on it.
    fn find(&self, path: &str) -> Result<Option<(Mode, Id)>> {
        let mut found = (Mode::Directory, self.root);
        let words = path.split('/');
        for word in words.filter(|word| !matches!(*word, "" | ".")) {
            if found.0 != Mode::Directory {
                return Ok(None);
            }
            let content = self.tree(found.1)?;
            let entries = tree::entries(&content).map_err(|what| self.wrong(what))?;
            let entry = entries.iter().find(|entry| entry.name == word.as_bytes());
            match entry {
                None => return Ok(None),
                Some(entry) if entry.mode == Mode::Link => {
                    return Err(self.wrong(format!(
                        "there is no file {path:?} in {}: {word:?} is a link, and links are not followed",
                        self.commit
                    )));
                }
                Some(entry) => found = (entry.mode, entry.id),
            }
        }
        Ok(Some(found))
    }

    fn tree(&self, id: Id) -> Result<Vec<u8>> {
        self.object(id, Kind::Tree)
    }

    fn object(&self, id: Id, kind: Kind) -> Result<Vec<u8>> {
        let read = self.pack.in_memory(id, &self.options.limits);
        let (found, content) = read.map_err(|trouble| self.failed(trouble))?;
        match found == kind {
            true => Ok(content),
            false => Err(self.wrong(format!("{id} is no {} but a {}", kind.name(), found.name()))),
        }
    }

    fn wrong(&self, what: String) -> Error {
        self.failed(Trouble::Wrong(what))
    }

    fn failed(&self, trouble: Trouble) -> Error {
        failed(&self.url, trouble)
    }
}

/// What trouble with a pack of a repository is for the user.
pub(crate) fn failed(url: &str, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Wrong(what) => Error::Repository {
            url: url.to_owned(),
            what,
        },
        Trouble::Local(error) => Error::Local {
            doing: format!("unpacking {url}"),
            error,
        },
        Trouble::Stopped => Error::Stopped,
    }
}

/// A directory that is being written.
struct Work<'a> {
    snapshot: &'a Snapshot<'a>,
    dir: &'a Path,
    /// Files, directories and links that may still come.
    entries: u64,
    /// Bytes that may still come.
    bytes: u64,
    links: Vec<(PathBuf, PathBuf)>,
    left_out: Vec<String>,
}

impl Work<'_> {
    fn entry(
        &mut self,
        entry: &Entry<'_>,
        below: &Path,
        trees: &mut Vec<(Id, PathBuf)>,
    ) -> Result<()> {
        let snapshot = self.snapshot;
        if (snapshot.options.stop)() {
            return Err(Error::Stopped);
        }
        let too_much = |what: &str| snapshot.wrong(format!("the commit has too many {what}"));
        self.entries = self
            .entries
            .checked_sub(1)
            .ok_or_else(|| too_much("files, directories and links"))?;
        let path = below.join(OsStr::from_bytes(entry.name));
        let target = self.dir.join(&path);
        let writing = || Error::local(format!("writing {}", path.display()));
        match entry.mode {
            Mode::Directory | Mode::Submodule => {
                fs::create_dir(&target).map_err(writing())?;
                if entry.mode == Mode::Submodule {
                    self.left_out.push(format!(
                        "the submodule {} is left out: its directory is empty",
                        path.display()
                    ));
                    return Ok(());
                }
                if path.components().count() > DEEPEST {
                    let what = format!("more than {DEEPEST} directories within each other");
                    return Err(snapshot.wrong(what));
                }
                trees.push((entry.id, path));
            }
            Mode::File | Mode::Program => {
                self.blob(entry.id, &path, u64::MAX)?;
                let mode = if entry.mode == Mode::File {
                    0o644
                } else {
                    0o755
                };
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(&target)
                    .map_err(writing())?;
                let written = snapshot.pack.write(entry.id, &mut file);
                written.map_err(|trouble| snapshot.failed(trouble))?;
                file.flush().map_err(writing())?;
            }
            Mode::Link => {
                self.blob(entry.id, &path, LONGEST_LINK)?;
                let to = snapshot.object(entry.id, Kind::Blob)?;
                if to.is_empty() || to.contains(&0) {
                    let what = format!("the link {} leads nowhere", path.display());
                    return Err(snapshot.wrong(what));
                }
                self.links
                    .push((path, PathBuf::from(OsStr::from_bytes(&to))));
            }
        }
        Ok(())
    }

    /// Checks that an object is there, is a blob, and that there is room for it.
    fn blob(&mut self, id: Id, path: &Path, most: u64) -> Result<()> {
        let wrong = |what: String| self.snapshot.wrong(format!("{}: {what}", path.display()));
        let size = match self.snapshot.pack.find(id) {
            Some((Kind::Blob, size)) => size,
            Some((kind, _)) => return Err(wrong(format!("{id} is no blob but a {}", kind.name()))),
            None => return Err(wrong(format!("the object {id} was not sent"))),
        };
        if size > most {
            return Err(wrong(format!("a link of more than {most} bytes")));
        }
        self.bytes = self
            .bytes
            .checked_sub(size)
            .ok_or_else(|| wrong("the commit's files are too large".to_owned()))?;
        Ok(())
    }

    fn links(&mut self) -> Result<()> {
        for (path, to) in std::mem::take(&mut self.links) {
            if leads_out(&path, &to) {
                self.left_out.push(format!(
                    "the link {} is left out: {} is not in the source",
                    path.display(),
                    to.display()
                ));
                continue;
            }
            let made: io::Result<()> = symlink(&to, self.dir.join(&path));
            made.map_err(Error::local(format!("writing {}", path.display())))?;
        }
        Ok(())
    }
}

/// Whether a link may lead out of the directory that its path begins in: upward steps count only at its beginning, where they
/// are sure to be real.
pub fn leads_out(path: &Path, to: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut down = false;
    for part in to.components() {
        match part {
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if !down && depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    false
}
