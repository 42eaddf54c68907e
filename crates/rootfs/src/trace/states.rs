//! What a watched program has looked at, and whether it would see the same in another root.
//!
//! The state of a path is a digest of what can be learned of it: that it is missing and why; type, mode, owner, size and time; the
//! target of a link and what is behind it; its content or the names in it, where they were read. A directory's
//! size and time are left out: they change with names that nobody asked for. Times after `SOURCE_DATE_EPOCH` count as
//! that, as they do for the program and for the image: they are only the clock of the build that wrote the file.
//!
//! The dynamic linker reads a cache that changes with every library of the root, but only its lines for the names that it is asked
//! for. A name that it was asked for is the last part of a path that it then opened, or tried to (ld.so(8)): of all
//! last parts that look like a library's name the lines count, and not the cache as a whole. Likewise, of directories that were
//! searched for names only the names found count, where it is known what was searched for ([`Search`]).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_sandbox::{Call, ErrorKind, LINKER_CACHE, Look, Looks, Search};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::calls::payload;
use crate::error::{Error, Result};
use crate::run::{Extras, Place};
use crate::trace::linker;

pub(crate) const STATES: &str = "rootfs.states";

/// What the kernel itself opens to run a program (`PT_INTERP` of the System V ABI), on all of Debian's architectures of PCs and
/// their 64-bit ARM kin. No system call names it.
pub const LOADERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
];

/// Nothing but the dynamic linker asked.
const LINKED: Look = Look {
    content: false,
    names: false,
    executed: false,
    linked: true,
};

/// Something that can be asked of a root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Question {
    /// What is at an absolute path.
    Path(String, Look),
    /// Which files the dynamic linker's cache names for a library.
    Library(String),
    /// Which names are below a directory.
    Search(Search),
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Path(path, _) => f.write_str(path),
            Question::Library(name) => write!(f, "the dynamic linker's entry for {name}"),
            Question::Search(search) => write!(f, "what is searched for in {}", search.directory),
        }
    }
}

/// What was asked, and the digest of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// What was asked.
    pub question: Question,
    /// SHA-256 of the answer, hexadecimal.
    pub state: String,
}

#[derive(Serialize, Deserialize)]
struct Request {
    questions: BTreeSet<Question>,
    epoch: i64,
}

/// What has to be asked of a root to know whether a run that looked like this would see the same there.
pub fn questions(looks: Looks) -> BTreeSet<Question> {
    let paths = looks.paths;
    let linked = paths.values().any(|look| look.linked);
    let library = |path: &String| linker::library(path).map(Question::Library);
    let libraries: BTreeSet<Question> = paths
        .keys()
        .filter(|path| linked && *path != LINKER_CACHE)
        .filter_map(library)
        .collect();
    let searches = looks.searches.into_iter().map(Question::Search);
    paths
        .into_iter()
        .map(|(path, look)| Question::Path(path, look))
        .chain(libraries)
        .chain(searches)
        .collect()
}

/// The answers that the root at `place` gives. Programs bring their interpreters along.
///
/// # Errors
/// The sandbox cannot be made.
pub fn states(place: &Place<'_>, questions: &BTreeSet<Question>) -> Result<Vec<Sight>> {
    let extras = Extras {
        bare: true,
        ..Extras::default()
    };
    let request = Request {
        questions: questions.clone(),
        epoch: place.epoch,
    };
    let (value, _) = place.call(STATES, serde_json::json!(request), extras, &mut |_| {})?;
    serde_json::from_value(value).map_err(|e| {
        Error::new(
            crate::ErrorKind::Internal,
            "the states of a root are unreadable",
        )
        .cause(e.to_string())
    })
}

pub(crate) fn states_call(call: Call) -> std::result::Result<Value, kiln_sandbox::Error> {
    let Request {
        mut questions,
        epoch,
    } = payload(&call)?;
    if questions
        .iter()
        .any(|question| executed(question).is_some())
    {
        let read = Look {
            content: true,
            ..Look::default()
        };
        let loaders = LOADERS.iter().map(|&path| path.to_owned());
        questions.extend(loaders.map(|path| Question::Path(path, read)));
    }
    add_interpreters(&mut questions);
    let sights = all(questions.into_iter().collect(), epoch).ok_or_else(|| {
        kiln_sandbox::Error::new(
            ErrorKind::Internal,
            "something that was asked of a root has no answer",
        )
    })?;
    serde_json::to_value(sights).map_err(|e| {
        kiln_sandbox::Error::new(ErrorKind::Internal, "the states of a root cannot be told")
            .because(e)
    })
}

fn executed(question: &Question) -> Option<&String> {
    match question {
        Question::Path(path, look) if look.executed => Some(path),
        _ => None,
    }
}

fn add_interpreters(questions: &mut BTreeSet<Question>) {
    let executed = questions.iter().filter_map(executed).cloned().collect();
    let ran = Look {
        content: true,
        executed: true,
        ..Look::default()
    };
    let interpreters = interpreters(executed).into_iter();
    questions.extend(interpreters.map(|path| Question::Path(path, ran)));
}

/// What runs these programs, as far as they are scripts, and what runs that. Scripts name it in their first line (execve(2)); the kernel
/// opens it without a system call.
pub fn interpreters(mut executed: BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while let Some(path) = executed.pop_first() {
        if let Some(interpreter) = interpreter(Path::new(&path))
            && found.insert(interpreter.clone())
        {
            executed.insert(interpreter);
        }
    }
    found
}

fn interpreter(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    let regular = fs::metadata(path).ok()?.is_file();
    File::open(path)
        .ok()
        .filter(|_| regular)?
        .take(256)
        .read_to_end(&mut head)
        .ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let name = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    name.starts_with('/').then(|| name.to_owned())
}

/// All states, unless one is missing. Hashing is what takes time, so it is shared out.
fn all(questions: Vec<Question>, epoch: i64) -> Option<Vec<Sight>> {
    let next = AtomicUsize::new(0);
    let states: Vec<OnceLock<String>> = questions.iter().map(|_| OnceLock::new()).collect();
    let cache = fs::read(LINKER_CACHE);
    let work = || {
        while let Some((question, state)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            questions.get(index).zip(states.get(index))
        } {
            state.get_or_init(|| state_of(question, epoch, &cache));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let sight = |(question, state): (Question, OnceLock<String>)| {
        let state = state.into_inner()?;
        Some(Sight { question, state })
    };
    questions.into_iter().zip(states).map(sight).collect()
}

fn state_of(question: &Question, epoch: i64, cache: &io::Result<Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    let fed = match (question, cache) {
        (Question::Library(name), Ok(cache)) => linker::feed(&mut hash, cache, name),
        (Question::Library(_), Err(error)) => Err(copy(error)),
        (Question::Search(search), _) => {
            found(&mut hash, search);
            Ok(())
        }
        // Its lines count, and each is a question of its own.
        (Question::Path(_, look), _) if look.linked && *look == LINKED => Ok(()),
        (Question::Path(path, look), _) => feed(&mut hash, Path::new(path), *look, epoch),
    };
    // What cannot be read has a state too: the error.
    if let Err(error) = fed {
        hash.update(format!("error {:?}", error.raw_os_error()));
    }
    hex::encode(hash.finalize())
}

fn feed(hash: &mut Sha256, path: &Path, look: Look, epoch: i64) -> io::Result<()> {
    let own = fs::symlink_metadata(path)?;
    attributes(hash, &own, epoch);
    let behind = if own.is_symlink() {
        hash.update(fs::read_link(path)?.as_os_str().as_encoded_bytes());
        let behind = fs::metadata(path)?;
        attributes(hash, &behind, epoch);
        behind
    } else {
        own
    };
    if look.content && behind.is_file() {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    if look.names && behind.is_dir() {
        let mut names = fs::read_dir(path)?
            .map(|entry| {
                Ok((
                    entry.as_ref().map(|e| e.file_name()).map_err(copy)?,
                    entry?.file_type()?,
                ))
            })
            .map(|entry| entry.map(|(name, kind)| format!("{name:?} {kind:?}\n")))
            .collect::<io::Result<Vec<String>>>()?;
        names.sort();
        names.iter().for_each(|name| hash.update(name));
    }
    Ok(())
}

/// All names that were searched for, and what they are names of. A directory that cannot be read is an answer of its own.
fn found(hash: &mut Sha256, search: &Search) {
    let mut found = Vec::new();
    let mut pending = vec![(PathBuf::from(&search.directory), 1)];
    while let Some((directory, depth)) = pending.pop() {
        let entries = match entries(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                found.push(format!("{directory:?} error {:?}\n", error.raw_os_error()));
                continue;
            }
        };
        for (name, kind) in entries {
            let path = directory.join(&name);
            let name = name.to_string_lossy();
            if search.names.iter().any(|names| names.fit(&name)) {
                found.push(format!("{path:?} {kind:?}\n"));
            }
            if kind.is_dir() && search.depth.is_none_or(|most| depth < most) {
                pending.push((path, depth + 1));
            }
        }
    }
    found.sort();
    found.iter().for_each(|entry| hash.update(entry));
}

fn entries(directory: &Path) -> io::Result<Vec<(OsString, fs::FileType)>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name(), entry.file_type()?))
    };
    fs::read_dir(directory)?.map(entry).collect()
}

fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn attributes(hash: &mut Sha256, of: &Metadata, epoch: i64) {
    hash.update(format!("{:o} {} {} ", of.mode(), of.uid(), of.gid()));
    if !of.is_dir() {
        let time = (of.mtime(), of.mtime_nsec()).min((epoch, 0));
        hash.update(format!("{} {} {time:?} ", of.rdev(), of.size()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Look = Look {
        content: true,
        names: false,
        executed: false,
        linked: false,
    };
    const LISTED: Look = Look {
        content: false,
        names: true,
        executed: false,
        linked: false,
    };

    #[test]
    fn a_state_changes_with_what_was_asked_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "one").expect("a file");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        let time = fs::metadata(&file)
            .and_then(|m| m.modified())
            .expect("a time");
        let state = |path: &Path, look, epoch| {
            let question = Question::Path(path.to_string_lossy().into_owned(), look);
            state_of(&question, epoch, &Ok(Vec::new()))
        };
        let ask = |path: &Path, look| state(path, look, i64::MAX);
        let before = [
            ask(&file, Look::default()),
            ask(&link, READ),
            ask(dir.path(), Look::default()),
        ];
        // The same length and time, another content.
        fs::write(&file, "two").expect("a file");
        File::options()
            .write(true)
            .open(&file)
            .and_then(|f| f.set_modified(time))
            .expect("a time");
        assert_eq!(before[0], ask(&file, Look::default()));
        assert_ne!(before[1], ask(&link, READ));
        let listed = ask(dir.path(), LISTED);
        fs::write(dir.path().join("new"), "").expect("a file");
        assert_eq!(before[2], ask(dir.path(), Look::default()));
        assert_ne!(listed, ask(dir.path(), LISTED));
        // Times after the epoch are all the same.
        let early = |path: &Path| state(path, Look::default(), 1_000);
        let clamped = early(&file);
        let later = time + std::time::Duration::from_secs(5);
        File::options()
            .write(true)
            .open(&file)
            .and_then(|f| f.set_modified(later))
            .expect("a time");
        assert_eq!(clamped, early(&file));
        assert_ne!(before[0], ask(&file, Look::default()));
        let missing = dir.path().join("missing");
        let absent = ask(&missing, READ);
        assert_ne!(absent, ask(&file.join("below"), READ));
        fs::write(&missing, "").expect("a file");
        assert_ne!(absent, ask(&missing, READ));
    }

    #[test]
    fn scripts_bring_their_interpreters() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = |name: &str, first: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("{first}\nexit\n")).expect("a script");
            path.to_string_lossy().into_owned()
        };
        let inner = script("inner", "#! /bin/sh -e");
        let outer = script("outer", &format!("#!{inner}"));
        let ran = Look {
            content: true,
            executed: true,
            ..Look::default()
        };
        let mut questions = BTreeSet::from([Question::Path(outer, ran)]);
        add_interpreters(&mut questions);
        assert!(questions.contains(&Question::Path(inner, ran)));
        assert!(questions.contains(&Question::Path("/bin/sh".to_owned(), ran)));
    }

    #[test]
    fn of_the_linkers_cache_only_the_names_that_were_asked_for_count() {
        let looks = |cache: Look| {
            let paths = ["/lib/libc.so.6", "/opt/plugin.so", "/etc/passwd"];
            let read = paths.map(|path| (path.to_owned(), READ));
            let all = read.into_iter().chain([(LINKER_CACHE.to_owned(), cache)]);
            questions(Looks {
                paths: all.collect(),
                ..Looks::default()
            })
        };
        let library = |name: &str| Question::Library(name.to_owned());
        let linked = looks(LINKED);
        assert!(linked.contains(&library("libc.so.6")) && linked.contains(&library("plugin.so")));
        assert_eq!(linked.len(), 6);
        // Somebody else read all of it.
        let read = looks(READ);
        assert_eq!(read.len(), 4);
        let both = Look {
            linked: true,
            ..READ
        };
        let cache = Question::Path(LINKER_CACHE.to_owned(), both);
        assert!(looks(both).contains(&cache));
        assert_ne!(both, LINKED);
    }

    #[test]
    fn a_search_is_answered_by_what_it_finds() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("directories");
        let state = |depth| {
            let search = Search {
                directory: dir.path().to_string_lossy().into_owned(),
                depth,
                names: vec![kiln_sandbox::Affixes::of("lib*.so.1")],
            };
            state_of(&Question::Search(search), 0, &Ok(Vec::new()))
        };
        let (before, shallow) = (state(None), state(Some(1)));
        fs::write(dir.path().join("a/other"), "").expect("a file");
        assert_eq!(before, state(None));
        fs::write(dir.path().join("a/b/libx.so.1"), "").expect("a file");
        let deep = state(None);
        assert_ne!(before, deep);
        assert_eq!(shallow, state(Some(1)));
        // One directory that cannot be read hides nothing of the others.
        let missing = Search {
            directory: dir.path().join("missing").to_string_lossy().into_owned(),
            depth: None,
            names: Vec::new(),
        };
        let of_missing = state_of(&Question::Search(missing.clone()), 0, &Ok(Vec::new()));
        fs::create_dir(dir.path().join("missing")).expect("a directory");
        let of_empty = state_of(&Question::Search(missing), 0, &Ok(Vec::new()));
        assert_ne!(of_missing, of_empty);
        // Another type under the same name.
        fs::remove_file(dir.path().join("a/b/libx.so.1")).expect("removed");
        fs::create_dir(dir.path().join("a/b/libx.so.1")).expect("a directory");
        assert_ne!(deep, state(None));
    }
}
