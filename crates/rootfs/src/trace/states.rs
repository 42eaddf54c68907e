//! The states of what a trace names, as one root has them.
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

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use blake3::Hasher;
use kiln_sandbox::{Call, ErrorKind, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::regular;
use crate::run::{Extras, Place};
use crate::trace::access::{Access, Trace};
use crate::trace::linker;
use crate::trace::search::Search;

/// What the kernel itself opens to run a program (`PT_INTERP` of the System V ABI), on all of Debian's architectures of PCs and
/// their 64-bit ARM kin. No system call names it.
pub const LOADERS: &[&str] = &[
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
];

/// Read at once, in bytes.
const BUFFER: usize = 256 << 10;

/// Nothing but the dynamic linker asked.
const LINKED: Access = Access {
    content: false,
    names: false,
    executed: false,
    linked: true,
};

/// Something that can be asked of a root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Query {
    /// What is at an absolute path.
    Path(String, Access),
    /// Which files the dynamic linker's cache names for a library.
    Library(String),
    /// Which names are below a directory.
    Search(Search),
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Path(path, _) => f.write_str(path),
            Query::Library(name) => write!(f, "the dynamic linker's entry for {name}"),
            Query::Search(search) => write!(f, "what is searched for in {}", search.directory),
        }
    }
}

/// What was asked, and the digest of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What was asked; stored results call it so.
    #[serde(rename = "question")]
    pub query: Query,
    /// BLAKE3 of the answer, hexadecimal.
    pub state: String,
}

/// What was found out about files by reading them: for what identifies a file and the query, the state. The kernel sets an inode's time
/// of change and no program can choose it, so a file that still has its inode, its times and its length has its content. Of what
/// the disk has damaged since, that is the content that was written.
pub type Stamps = BTreeMap<String, String>;

/// What a root answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answers {
    /// In the order of the queries.
    pub observations: Vec<Observation>,
    /// Of the files that were read, or would have been.
    pub stamps: Stamps,
}

/// Asks a root for the answers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ask {
    queries: BTreeSet<Query>,
    epoch: i64,
    known: Stamps,
}

/// What has to be asked of a root to know whether a run that looked like this would see the same there.
pub fn queries(trace: Trace) -> BTreeSet<Query> {
    let paths = trace.paths;
    let linked = paths.values().any(|access| access.linked);
    let library = |path: &String| linker::library(path).map(Query::Library);
    let libraries: BTreeSet<Query> = paths
        .keys()
        .filter(|path| linked && *path != linker::CACHE)
        .filter_map(library)
        .collect();
    let searches = trace.searches.into_iter().map(Query::Search);
    paths
        .into_iter()
        .map(|(path, access)| Query::Path(path, access))
        .chain(libraries)
        .chain(searches)
        .collect()
}

/// The answers that the root at `place` gives. Programs bring their interpreters along. Files that are `known` are not read again.
///
/// # Errors
/// The sandbox cannot be made.
pub fn states(place: &Place<'_>, queries: &BTreeSet<Query>, known: &Stamps) -> Result<Answers> {
    let ask = Ask {
        queries: queries.clone(),
        epoch: place.epoch,
        known: known.clone(),
    };
    place.call(&ask, (), Extras::bare())
}

impl Call for Ask {
    const NAME: &'static str = "rootfs.states";
    type Handed = ();
    type Message = Silence;
    type Answer = Answers;

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<Answers, kiln_sandbox::Error> {
        let Ask {
            mut queries,
            epoch,
            known,
        } = self;
        if queries.iter().any(|query| executed(query).is_some()) {
            let read = Access {
                content: true,
                ..Access::default()
            };
            let loaders = LOADERS.iter().map(|&path| path.to_owned());
            queries.extend(loaders.map(|path| Query::Path(path, read)));
        }
        add_interpreters(&mut queries);
        all(queries.into_iter().collect(), epoch, &known).ok_or_else(|| {
            kiln_sandbox::Error::new(
                ErrorKind::Internal,
                "something that was asked of a root has no answer",
            )
        })
    }
}

fn executed(query: &Query) -> Option<&String> {
    match query {
        Query::Path(path, access) if access.executed => Some(path),
        _ => None,
    }
}

fn add_interpreters(queries: &mut BTreeSet<Query>) {
    let executed = queries.iter().filter_map(executed).cloned().collect();
    let ran = Access {
        content: true,
        executed: true,
        ..Access::default()
    };
    let interpreters = interpreters(executed).into_iter();
    queries.extend(interpreters.map(|path| Query::Path(path, ran)));
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
fn all(queries: Vec<Query>, epoch: i64, known: &Stamps) -> Option<Answers> {
    let next = AtomicUsize::new(0);
    let states: Vec<OnceLock<State>> = queries.iter().map(|_| OnceLock::new()).collect();
    let cache = regular::read(linker::CACHE);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        while let Some((query, state)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            queries.get(index).zip(states.get(index))
        } {
            state.get_or_init(|| state_of(query, epoch, &cache, known, &mut buffer));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut stamps = Stamps::new();
    let observation = |(query, state): (Query, OnceLock<State>)| {
        let State { state, stamp } = state.into_inner()?;
        if let Some(stamp) = stamp {
            stamps.insert(stamp, state.clone());
        }
        Some(Observation { query, state })
    };
    let observations = queries.into_iter().zip(states).map(observation);
    Some(Answers {
        observations: observations.collect::<Option<_>>()?,
        stamps,
    })
}

struct State {
    state: String,
    /// What identifies the file that was read for it.
    stamp: Option<String>,
}

fn state_of(
    query: &Query,
    epoch: i64,
    cache: &io::Result<Vec<u8>>,
    known: &Stamps,
    buffer: &mut [u8],
) -> State {
    let stamp = match query {
        Query::Path(path, access) if access.content => stamp(path, *access, epoch),
        _ => None,
    };
    let state = stamp.as_ref().and_then(|stamp| known.get(stamp));
    let state = state
        .cloned()
        .unwrap_or_else(|| found_out(query, epoch, cache, buffer));
    State { state, stamp }
}

/// What identifies a file that is read, and what is asked of it.
fn stamp(path: &str, access: Access, epoch: i64) -> Option<String> {
    let (own, behind) = (fs::symlink_metadata(path).ok()?, fs::metadata(path).ok()?);
    let mut hash = Hasher::new();
    hash.update(format!("{path:?} {access:?} {epoch}").as_bytes());
    for found in [&own, &behind] {
        attributes(&mut hash, found, i64::MAX);
        let (ino, changed) = (found.ino(), (found.ctime(), found.ctime_nsec()));
        hash.update(format!("{ino} {changed:?} ").as_bytes());
    }
    let short = |hash: &Hasher| hex::encode(&hash.finalize().as_bytes()[..16]);
    behind.is_file().then(|| short(&hash))
}

fn found_out(query: &Query, epoch: i64, cache: &io::Result<Vec<u8>>, buffer: &mut [u8]) -> String {
    let mut hash = Hasher::new();
    let fed = match (query, cache) {
        (Query::Library(name), Ok(cache)) => linker::feed(&mut hash, cache, name),
        (Query::Library(_), Err(error)) => Err(copy(error)),
        (Query::Search(search), _) => {
            found(&mut hash, search);
            Ok(())
        }
        // Its lines count, and each is a query of its own.
        (Query::Path(_, access), _) if access.linked && *access == LINKED => Ok(()),
        (Query::Path(path, access), _) => feed(&mut hash, Path::new(path), *access, epoch, buffer),
    };
    // What cannot be read has a state too: the error.
    if let Err(error) = fed {
        hash.update(format!("error {:?}", error.raw_os_error()).as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

fn feed(
    hash: &mut Hasher,
    path: &Path,
    access: Access,
    epoch: i64,
    buffer: &mut [u8],
) -> io::Result<()> {
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
    if access.content && behind.is_file() {
        let mut file = File::open(path)?;
        loop {
            match file.read(buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            };
        }
    }
    if access.names && behind.is_dir() {
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
        for name in &names {
            hash.update(name.as_bytes());
        }
    }
    Ok(())
}

/// All names that were searched for, and what they are names of. A directory that cannot be read is an answer of its own.
fn found(hash: &mut Hasher, search: &Search) {
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
    for entry in &found {
        hash.update(entry.as_bytes());
    }
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

fn attributes(hash: &mut Hasher, of: &Metadata, epoch: i64) {
    hash.update(format!("{:o} {} {} ", of.mode(), of.uid(), of.gid()).as_bytes());
    if !of.is_dir() {
        let time = (of.mtime(), of.mtime_nsec()).min((epoch, 0));
        hash.update(format!("{} {} {time:?} ", of.rdev(), of.size()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Access = Access {
        content: true,
        names: false,
        executed: false,
        linked: false,
    };
    const LISTED: Access = Access {
        content: false,
        names: true,
        executed: false,
        linked: false,
    };

    /// Nothing but the content differs that a program can choose: the kernel's time of the change tells.
    #[test]
    fn a_file_that_is_known_is_not_read_again_until_anything_about_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, "one").expect("a file");
        let query = Query::Path(path.to_str().expect("UTF-8").to_owned(), READ);
        let ask = |known: &Stamps| {
            let answers = all(vec![query.clone()], i64::MAX, known).expect("an answer");
            (answers.observations[0].state.clone(), answers.stamps)
        };
        let (first, stamps) = ask(&Stamps::new());
        assert_eq!(stamps.values().collect::<Vec<_>>(), [&first]);
        assert_eq!(ask(&stamps), (first.clone(), stamps.clone()));
        // It is taken from there.
        let noted = stamps.keys().map(|stamp| (stamp.clone(), "noted".into()));
        assert_eq!(ask(&noted.collect()).0, "noted");
        // A link to it is another question.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        let linked = Query::Path(link.to_str().expect("UTF-8").to_owned(), READ);
        let linked = all(vec![linked], i64::MAX, &stamps).expect("an answer");
        assert_ne!(linked.stamps, stamps);

        let time = fs::metadata(&path).and_then(|m| m.modified());
        let rewrite = |to: &Path| {
            fs::write(to, "two").expect("another content");
            let file = File::options().write(true).open(to).expect("it");
            file.set_modified(time.as_ref().copied().expect("a time"))
                .expect("the time it had");
        };
        // The clock of inodes is as coarse as 10 ms.
        std::thread::sleep(std::time::Duration::from_millis(30));
        rewrite(&path);
        let (second, others) = ask(&stamps);
        assert_ne!((&second, &others), (&first, &stamps));
        // Nor is another file of that name taken for it.
        let beside = dir.path().join("beside");
        rewrite(&beside);
        fs::rename(&beside, &path).expect("put in its place");
        assert_eq!(ask(&others).0, second);
        assert_ne!(ask(&others).1, others);
        // What is no file has none.
        fs::remove_file(&path).expect("removed");
        assert!(ask(&others).1.is_empty());
        assert_ne!(ask(&others).0, second);
    }

    #[test]
    fn a_state_changes_with_what_was_asked_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "one").expect("a file");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        let time = fs::metadata(&file)
            .and_then(|m| m.modified())
            .expect("a time");
        let state = |path: &Path, access, epoch| {
            let query = Query::Path(path.to_string_lossy().into_owned(), access);
            found_out(&query, epoch, &Ok(Vec::new()), &mut [0; 64])
        };
        let ask = |path: &Path, access| state(path, access, i64::MAX);
        let before = [
            ask(&file, Access::default()),
            ask(&link, READ),
            ask(dir.path(), Access::default()),
        ];
        // The same length and time, another content.
        fs::write(&file, "two").expect("a file");
        File::options()
            .write(true)
            .open(&file)
            .and_then(|f| f.set_modified(time))
            .expect("a time");
        assert_eq!(before[0], ask(&file, Access::default()));
        assert_ne!(before[1], ask(&link, READ));
        let listed = ask(dir.path(), LISTED);
        fs::write(dir.path().join("new"), "").expect("a file");
        assert_eq!(before[2], ask(dir.path(), Access::default()));
        assert_ne!(listed, ask(dir.path(), LISTED));
        // Times after the epoch are all the same.
        let early = |path: &Path| state(path, Access::default(), 1_000);
        let clamped = early(&file);
        let later = time + std::time::Duration::from_secs(5);
        File::options()
            .write(true)
            .open(&file)
            .and_then(|f| f.set_modified(later))
            .expect("a time");
        assert_eq!(clamped, early(&file));
        assert_ne!(before[0], ask(&file, Access::default()));
        let missing = dir.path().join("missing");
        let absent = ask(&missing, READ);
        assert_ne!(absent, ask(&file.join("below"), READ));
        fs::write(&missing, "").expect("a file");
        assert_ne!(absent, ask(&missing, READ));
    }

    #[test]
    fn observations_are_stored_as_ever() {
        let observation = Observation {
            query: Query::Path("/a".to_owned(), READ),
            state: "00".to_owned(),
        };
        let stored = r#"{"question":{"Path":["/a",{"content":true,"names":false,"executed":false,"linked":false}]},"state":"00"}"#;
        let text = serde_json::to_string(&observation).expect("JSON");
        assert_eq!(text, stored);
        let read: Observation = serde_json::from_str(stored).expect("an observation");
        assert_eq!(read, observation);
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
        let ran = Access {
            content: true,
            executed: true,
            ..Access::default()
        };
        let mut queries = BTreeSet::from([Query::Path(outer, ran)]);
        add_interpreters(&mut queries);
        assert!(queries.contains(&Query::Path(inner, ran)));
        assert!(queries.contains(&Query::Path("/bin/sh".to_owned(), ran)));
    }

    #[test]
    fn of_the_linkers_cache_only_the_names_that_were_asked_for_count() {
        let trace = |cache: Access| {
            let paths = ["/lib/libc.so.6", "/opt/plugin.so", "/etc/passwd"];
            let read = paths.map(|path| (path.to_owned(), READ));
            let all = read.into_iter().chain([(linker::CACHE.to_owned(), cache)]);
            queries(Trace {
                paths: all.collect(),
                ..Trace::default()
            })
        };
        let library = |name: &str| Query::Library(name.to_owned());
        let linked = trace(LINKED);
        assert!(linked.contains(&library("libc.so.6")) && linked.contains(&library("plugin.so")));
        assert_eq!(linked.len(), 6);
        // Somebody else read all of it.
        let read = trace(READ);
        assert_eq!(read.len(), 4);
        let both = Access {
            linked: true,
            ..READ
        };
        let cache = Query::Path(linker::CACHE.to_owned(), both);
        assert!(trace(both).contains(&cache));
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
                names: vec![crate::trace::Affixes::of("lib*.so.1")],
            };
            found_out(&Query::Search(search), 0, &Ok(Vec::new()), &mut [0; 64])
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
        let of_missing = found_out(
            &Query::Search(missing.clone()),
            0,
            &Ok(Vec::new()),
            &mut [0; 64],
        );
        fs::create_dir(dir.path().join("missing")).expect("a directory");
        let of_empty = found_out(&Query::Search(missing), 0, &Ok(Vec::new()), &mut [0; 64]);
        assert_ne!(of_missing, of_empty);
        // Another type under the same name.
        fs::remove_file(dir.path().join("a/b/libx.so.1")).expect("removed");
        fs::create_dir(dir.path().join("a/b/libx.so.1")).expect("a directory");
        assert_ne!(deep, state(None));
    }
}
