//! Reading kickstart files and what they include, from the file system and standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kiln_engine::web::{Access, Web, local_file_for_a_stranger};
use kiln_engine::{Confined, Failure, FailureKind, Files};
use kiln_kickstart::{LoadError, Loaded, Loader, Version, include_candidates, is_url};

use crate::render::terminal::write_stderr;
use crate::settings::Settings;

/// No kickstart comes near this many bytes; the parser itself stops earlier. It keeps `/dev/zero` from filling memory.
const LIMIT: u64 = 64 << 20;

/// The name that stands for standard input.
const STDIN: &str = "-";

/// A text and the name that messages give it.
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a file named on the command line; `-` is standard input. A pipe is read where the files are the caller's own.
pub(crate) fn read(path: &Path, files: &Files) -> Result<Text, Failure> {
    let (name, bytes) = if path == Path::new(STDIN) {
        ("<stdin>".to_owned(), read_all(io::stdin().lock()))
    } else {
        (
            path.display().to_string(),
            match path.is_file() || files.is_confined() {
                true => files.named(path),
                false => File::open(path).and_then(read_all),
            },
        )
    };
    match bytes {
        Ok(bytes) => Ok(Text { name, bytes }),
        Err(error) => Err(unreadable(&name, &error)),
    }
}

fn read_all(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LIMIT {
        true => Err(io::Error::other("it has more than 64 MiB")),
        false => Ok(bytes),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let failure = Failure::new(FailureKind::Definition, format!("{name} cannot be read"));
    failure.cause(plain(error))
}

/// An error of the system without Rust's `(os error N)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error")
        .map_or(text.clone(), |(words, _)| words.to_owned())
}

/// A version of the language by its name.
pub(crate) fn version(name: Option<&str>) -> Result<Version, Failure> {
    let Some(name) = name else {
        return Ok(Version::default());
    };
    if let Some(version) = Version::parse(name) {
        return Ok(version);
    }
    if let Some(version) = Version::nearest(name) {
        write_stderr(&format!(
            "note: the language of {name} is not known; reading {version}, the nearest\n"
        ));
        return Ok(version);
    }
    let known: Vec<String> = Version::ALL.iter().map(ToString::to_string).collect();
    let message = format!("no version of the kickstart language is named `{name}`");
    Err(Failure::new(FailureKind::Usage, message).hint(format!(
        "versions are {} and DEVEL, the newest; F7 to F41 and RHEL7 are read as the nearest of them",
        known.join(", ")
    )))
}

/// How texts are brought from the network: with the user's proxies, or not at all.
pub(crate) fn web(offline: bool, settings: &Settings) -> Web {
    let access = if offline {
        Access::offline()
    } else {
        Access::Online(settings.proxies())
    };
    Web::new(access, None).from_elsewhere(settings.from_elsewhere)
}

/// Brings what a kickstart file includes.
pub(crate) struct FileLoader {
    web: Web,
    files: Confined,
}

impl FileLoader {
    /// A loader for what a file named on the command line includes.
    pub(crate) fn new(web: &Web, file: &Path, files: &Files) -> Result<Self, Failure> {
        Ok(FileLoader {
            web: web.clone(),
            files: files.open(file.parent().unwrap_or(Path::new("")), &[])?,
        })
    }
}

impl Loader for FileLoader {
    fn load(&mut self, path: &str, from: &str) -> Result<Loaded, LoadError> {
        let candidates = include_candidates(path, from);
        let (name, bytes) = match candidates.into_iter().find(|c| is_url(c)) {
            Some(url) => {
                let bytes = self.web.text(&url)?;
                (url, bytes)
            }
            None if is_url(from) => return Err(local_file_for_a_stranger(path, from)),
            None => self.files.include(path, from)?,
        };
        Ok(Loaded { name, bytes })
    }
}
