//! Packages unpacked ahead of time, without a root: file contents with their owners, modes and times, under numbers.
//!
//! ```text
//! <pool>/<name>_<version>_<architecture>/
//!   control/<name>    the control archive's files, with their modes
//!   index             see `index`; written last
//!   <number>          the content of a file, as it will be
//! ```
//!
//! Nothing here depends on the root that the packages are for, so a pool is filled while an earlier layer is still being
//! configured. Later it is moved into the root's upper directory, where each file needs nothing but a rename.
//! Names in the archive never become names in the pool.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kiln_packages::debian::contents::{Entry, Kind};
use kiln_packages::debian::deb::{Control, Deb as File_};
use kiln_packages::glob_matches;
use kiln_packages::{Error as PackageError, ErrorKind as PackageErrorKind};
use kiln_sandbox::{Call, CancelToken, ErrorKind, Mount, Root, Say};
use md5::{Digest, Md5};
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown, futimens};
use serde::{Deserialize, Serialize};

use super::index::Item;
use crate::error::{Error, Result};
use crate::report::Reporter;
use crate::run::{Extras, Place};
use crate::store::{Staging, Store};

/// Where the pool is while it is in a root.
pub(super) const POOL: &str = ".kiln-pool";
/// How the message of a package's failure begins; its name follows.
const AT_FAULT: &str = "package ";
/// Where package files are seen while a pool is filled.
const DOWNLOADS: &str = "/downloads";

/// A package that is to be in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolItem {
    /// `NAME_VERSION_ARCHITECTURE`, without colons.
    pub key: String,
    /// The verified file, below the download store's directory.
    pub file: PathBuf,
}

/// A path filter of dpkg's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Whether it brings back what an earlier one left out.
    pub include: bool,
    /// A shell pattern over absolute paths.
    pub pattern: String,
}

/// Unpacks packages into the root, each into a directory of its own.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fill {
    items: Vec<PoolItem>,
    filters: Vec<Filter>,
    threads: usize,
    /// Somebody else wants the processors first.
    aside: bool,
}

/// Packages that are unpacked, but in no root yet. Dropping it removes what is left of it.
pub(crate) struct Pool {
    staging: Staging,
}

impl Pool {
    /// Unpacks packages. `done` is told the name of each; with `aside` other work goes first.
    ///
    /// # Errors
    /// A package file is damaged, the disk is full, or `cancel` was set.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn fill(
        store: &Store,
        downloads: &Path,
        items: Vec<PoolItem>,
        filters: Vec<Filter>,
        threads: usize,
        aside: bool,
        cancel: &CancelToken,
        done: &mut dyn FnMut(&str),
    ) -> Result<Pool> {
        let staging = store.stage()?;
        let place = Place {
            sandbox: store.sandbox(),
            root: Root::Dir {
                path: staging.fs(),
                writable: true,
            },
            epoch: 0,
            reporter: &Silent,
            cancel,
            tracer: None,
        };
        let inside = |item: PoolItem| PoolItem {
            file: Path::new(DOWNLOADS)
                .join(item.file.strip_prefix(downloads).unwrap_or(&item.file)),
            ..item
        };
        let fill = Fill {
            items: items.into_iter().map(inside).collect(),
            filters,
            threads,
            aside,
        };
        let extras = Extras {
            bare: true,
            mounts: vec![Mount::Bind {
                source: downloads.to_owned(),
                target: DOWNLOADS.to_owned(),
                writable: false,
            }],
            ..Extras::default()
        };
        let mut hear = |key: String| done(&key);
        let filled = place.call_and_hear(&fill, (), extras, &mut hear);
        filled.map_err(|mut error| {
            let words = error.message.strip_prefix(AT_FAULT);
            error.package = words.and_then(|w| w.split(' ').next()).map(str::to_owned);
            error
        })?;
        Ok(Pool { staging })
    }

    /// Moves the pool into a layer in the making. No run may be going on there.
    ///
    /// # Errors
    /// It cannot be moved.
    pub(crate) fn attach(&self, layer: &Staging) -> Result<()> {
        let (from, to) = (self.staging.fs(), layer.fs().join(POOL));
        fs::rename(&from, &to).map_err(|e| Error::io(format!("moving {}", from.display()), &e))
    }

    /// Takes what is left of the pool out of the layer again.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn detach(self, layer: &Staging) -> Result<()> {
        layer.remove(&layer.fs().join(POOL))
    }
}

/// Nobody listens to a pool being filled: it runs beside the step that is shown.
struct Silent;

impl Reporter for Silent {
    fn line(&self, _: kiln_sandbox::Stream, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
    fn warn(&self, _: String, _: Option<String>, _: Option<String>) {}
}

impl Call for Fill {
    const NAME: &'static str = "debian.fill-pool";
    type Handed = ();
    type Message = String;
    type Answer = ();

    fn run(self, (): (), say: &Say<String>) -> std::result::Result<(), kiln_sandbox::Error> {
        fill(self, say)
    }
}

fn fill(fill: Fill, say: &Say<String>) -> std::result::Result<(), kiln_sandbox::Error> {
    let Fill {
        mut items,
        filters,
        threads,
        aside,
    } = fill;
    if aside {
        let _ = rustix::process::nice(10);
    }
    // The largest first, so that no thread is left alone with one at the end.
    let size = |item: &PoolItem| fs::metadata(&item.file).map_or(0, |m| m.len());
    items.sort_by_cached_key(|item| std::cmp::Reverse(size(item)));
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<kiln_sandbox::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match unpack(item, Path::new("/"), &filters) {
                        Ok(()) => say.say(item.key.clone()),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            let mut failed = failed
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner);
                            failed.get_or_insert_with(|| explain(item, error));
                        }
                    }
                }
            });
        }
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

fn explain(item: &PoolItem, error: PackageError) -> kiln_sandbox::Error {
    let name = item.key.split('_').next().unwrap_or(&item.key);
    let message = format!("{AT_FAULT}{name} could not be unpacked");
    kiln_sandbox::Error::new(ErrorKind::Step, message).because(error)
}

/// Unpacks one package into `pool`.
pub(super) fn unpack(
    item: &PoolItem,
    pool: &Path,
    filters: &[Filter],
) -> std::result::Result<(), PackageError> {
    let opened = File::open(&item.file).map_err(failed("opening its file"))?;
    let deb = File_::of_file(opened, &item.key)?;
    let dir = pool.join(&item.key);
    fs::create_dir(&dir).map_err(failed("making its directory"))?;
    let control = deb.control()?;
    write_control(&control, &dir.join("control")).map_err(failed("writing its control files"))?;
    let index = File::create_new(dir.join("index")).map_err(failed("writing its index"))?;
    let mut filler = Filler {
        dir,
        filters,
        hash: !control.files.contains_key("md5sums"),
        index: BufWriter::new(index),
        blobs: 0,
        buffer: vec![0; 256 << 10],
    };
    deb.entries(&mut |entry, content| filler.entry(entry, content))?;
    filler.index.flush().map_err(failed("writing its index"))
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> PackageError {
    move |error| PackageError::io(what, error)
}

fn write_control(control: &Control, dir: &Path) -> std::io::Result<()> {
    fs::create_dir(dir)?;
    let stanza = format!("{}\n", control.stanza);
    let files = control
        .files
        .iter()
        .map(|(n, b)| (n.as_str(), b.as_slice()));
    for (name, bytes) in files.chain([("control", stanza.as_bytes())]) {
        let mut file = File::create_new(dir.join(name))?;
        file.write_all(bytes)?;
        if let Some(&(mode, mtime)) = control.looks.get(name) {
            fchmod(&file, Mode::from_raw_mode(mode))?;
            futimens(&file, &times(mtime))?;
        }
    }
    Ok(())
}

struct Filler<'a> {
    dir: PathBuf,
    filters: &'a [Filter],
    hash: bool,
    index: BufWriter<File>,
    blobs: u32,
    buffer: Vec<u8>,
}

impl Filler<'_> {
    fn entry(
        &mut self,
        entry: Entry,
        content: &mut dyn Read,
    ) -> std::result::Result<(), PackageError> {
        let filtered = left_out(self.filters, &entry);
        let mut item = Item {
            entry,
            filtered,
            blob: None,
            md5: String::new(),
        };
        if let Kind::File(_) = item.entry.kind
            && !filtered
        {
            item.blob = Some(self.blobs);
            item.md5 = self.content(&item.entry, content)?;
            self.blobs += 1;
        }
        item.write(&mut self.index)
            .map_err(failed("writing its index"))
    }

    /// Writes a file as it will be, and returns its MD5 where that is wanted.
    fn content(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> std::result::Result<String, PackageError> {
        let doing = |error| PackageError::io(format!("writing {}", entry.path.display()), error);
        let mut file = File::create_new(self.dir.join(self.blobs.to_string())).map_err(doing)?;
        let mut hash = self.hash.then(Md5::new);
        loop {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    let why = format!(
                        "package {} is damaged: its data archive is broken at {} ({e})",
                        self.dir
                            .file_name()
                            .unwrap_or(self.dir.as_os_str())
                            .display(),
                        entry.path.display()
                    );
                    return Err(PackageError::new(PackageErrorKind::Malformed, why));
                }
            };
            file.write_all(&self.buffer[..read]).map_err(doing)?;
            if let Some(hash) = &mut hash {
                hash.update(&self.buffer[..read]);
            }
        }
        dress(&file, entry).map_err(|e| doing(e.into()))?;
        Ok(hash.map_or_else(String::new, |hash| hex::encode(hash.finalize())))
    }
}

/// Owner, mode, time. The owner first: changing it clears set-id bits.
fn dress(file: &File, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = entry.owner;
    if entry.owner != (0, 0) {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    futimens(file, &times(entry.mtime))
}

/// One time for both.
pub(super) fn times(seconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Whether dpkg's path filters leave an entry out (dpkg(1), `--path-exclude`): the last match counts, but directories
/// and links stay where an include may match below them.
fn left_out(filters: &[Filter], entry: &Entry) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = match entry.path.as_os_str().as_bytes() {
        b"/." => b"".as_slice(),
        path => path,
    };
    let last = filters
        .iter()
        .rev()
        .find(|f| glob_matches(f.pattern.as_bytes(), path));
    if last.is_none_or(|f| f.include) {
        return false;
    }
    let may_hold = |filter: &Filter| {
        let end = filter.pattern.find(['*', '?', '[', '\\']);
        let fixed = &filter.pattern[..end.unwrap_or(filter.pattern.len())];
        path.starts_with(fixed.trim_end_matches('/').as_bytes())
    };
    let link_or_directory = matches!(entry.kind, Kind::Directory | Kind::Symlink(_));
    !(link_or_directory && filters.iter().any(|f| f.include && may_hold(f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            owner: (0, 0),
            names: (String::new(), String::new()),
            mtime: 0,
        }
    }

    #[test]
    fn filters_are_dpkgs() {
        let filter = |include, pattern: &str| Filter {
            include,
            pattern: pattern.into(),
        };
        let filters = [
            filter(false, "/usr/share/doc/*"),
            filter(true, "/usr/share/doc/*/copyright"),
        ];
        let out = |path: &str, kind| left_out(&filters, &entry(path, kind));
        assert!(out("/usr/share/doc/x/changelog.gz", Kind::File(1)));
        assert!(!out("/usr/share/doc/x/copyright", Kind::File(1)));
        // An include may match below, as far as dpkg can see.
        assert!(!out("/usr/share/doc/x", Kind::Directory));
        assert!(!out("/usr/share/doc", Kind::Directory));
        assert!(!out("/usr/bin/x", Kind::File(1)));
        assert!(!out("/.", Kind::Directory));
    }
}
