//! Packages unpacked ahead of time, without a root: file contents with their owners, modes and times, under numbers.
//!
//! ```text
//! <pool>/<name>_<version>_<architecture>/
//!   control/<name>    the control archive's files, with their modes
//!   index             see `index`; written last
//!   <number>          the content of a file, as it will be
//! <pool>/unpacked     see `earlier`
//! ```
//!
//! Nothing here depends on the root that the packages are for, so a pool is filled while an earlier layer is still being
//! configured. Later it is moved into the root's upper directory, where each file needs nothing but a rename.
//! Names in the archive never become names in the pool.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_packages::debian::contents::{Entry, Kind};
use kiln_packages::debian::deb::{Control, Deb as File_};
use kiln_packages::{Error as PackageError, ErrorKind as PackageErrorKind};
use kiln_sandbox::{Call, CancelToken, ErrorKind, Mount, Root, Say};
use md5::{Digest, Md5};
use rustix::fs::{Mode, fchmod, futimens};
use serde::{Deserialize, Serialize};

use super::super::asks::{Ask, asks};
use super::dress::{dress, times};
use super::earlier::{self, Earlier, Note, UNPACKED};
use super::filter::{Filter, digest, left_out};
use super::index::Item;
use super::paths::read_or_empty;
use crate::calls::io_error;
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

/// Unpacks packages into the root, each into a directory of its own.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fill {
    items: Vec<PoolItem>,
    filters: Vec<Filter>,
    threads: usize,
    /// Somebody else wants the processors first.
    aside: bool,
    /// Layers that packages may be taken from.
    layers: usize,
}

/// Packages that are unpacked, but in no root yet. Dropping it removes what is left of it.
pub(crate) struct Pool {
    staging: Staging,
    /// What goes beside the layer.
    unpacked: Vec<u8>,
    /// What is known of its packages.
    filled: Filled,
}

/// What is known of packages that were unpacked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Filled {
    /// How many have their files from an earlier layer.
    taken: usize,
    /// What they ask byte-compilers for, each with its key.
    asks: Vec<(String, Ask)>,
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
        let layers = earlier::layers(store);
        let fill = Fill {
            items: items.into_iter().map(inside).collect(),
            filters,
            threads,
            aside,
            layers: layers.len(),
        };
        let mut mounts = earlier::mounts(&layers);
        mounts.push(Mount::Bind {
            source: downloads.to_owned(),
            target: DOWNLOADS.to_owned(),
            writable: false,
        });
        let extras = Extras {
            mounts,
            ..Extras::bare()
        };
        let mut hear = |key: String| done(&key);
        let filled = place.call_and_hear(&fill, (), extras, &mut hear);
        let (filled, _) = filled.map_err(|mut error| {
            let words = error.message.strip_prefix(AT_FAULT);
            error.package = words.and_then(|w| w.split(' ').next()).map(str::to_owned);
            error
        })?;
        // Now: where the pool goes, scripts of packages can write.
        let notes = staging.fs().join(UNPACKED);
        let unpacked =
            fs::read(&notes).map_err(|e| Error::io(format!("reading {}", notes.display()), &e))?;
        Ok(Pool {
            staging,
            unpacked,
            filled,
        })
    }

    /// Moves the pool into a layer in the making. No run may be going on there.
    ///
    /// # Errors
    /// It cannot be moved.
    pub(crate) fn attach(&self, layer: &Staging) -> Result<()> {
        let (from, to) = (self.staging.fs(), layer.fs().join(POOL));
        fs::rename(&from, &to).map_err(|e| Error::io(format!("moving {}", from.display()), &e))
    }

    /// How many of its packages have their files from an earlier layer.
    pub(crate) fn taken(&self) -> usize {
        self.filled.taken
    }

    /// What its packages ask byte-compilers for, each with its key.
    pub(crate) fn asks(&self) -> &[(String, Ask)] {
        &self.filled.asks
    }

    /// Shows it at a place, as long as it is not attached.
    pub(crate) fn shown(&self, target: &str) -> Mount {
        Mount::Bind {
            source: self.staging.fs(),
            target: target.to_owned(),
            writable: false,
        }
    }

    /// Says beside a layer what was unpacked into it.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(crate) fn note(&self, layer: &Staging) -> Result<()> {
        layer.append(UNPACKED, &self.unpacked)
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
    type Answer = Filled;

    fn run(self, (): (), say: &Say<String>) -> std::result::Result<Filled, kiln_sandbox::Error> {
        fill(self, say)
    }
}

fn fill(fill: Fill, say: &Say<String>) -> std::result::Result<Filled, kiln_sandbox::Error> {
    let Fill {
        mut items,
        filters,
        threads,
        aside,
        layers,
    } = fill;
    if aside {
        let _ = rustix::process::nice(10);
    }
    let pool = Path::new("/");
    let earlier = Earlier::shown(layers, &filters);
    let notes = File::create_new(pool.join(UNPACKED))
        .map_err(|e| io_error("writing what is unpacked", &e))?;
    let notes = Mutex::new(BufWriter::new(notes));
    // The largest first, so that no thread is left alone with one at the end.
    let size = |item: &PoolItem| fs::metadata(&item.file).map_or(0, |m| m.len());
    items.sort_by_cached_key(|item| std::cmp::Reverse(size(item)));
    let (next, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let asked: Mutex<Vec<(String, Ask)>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<kiln_sandbox::Error>> = Mutex::new(None);
    let one = |item: &PoolItem| {
        let note = unpack(item, pool, &filters, &earlier)?;
        taken.fetch_add(usize::from(note.taken), Ordering::Relaxed);
        let asks = asks_of(item, pool).map_err(self::failed("reading its control files"))?;
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.extend(asks.into_iter().map(|ask| (item.key.clone(), ask)));
        drop(asked);
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        note.write(&mut *notes)
            .map_err(self::failed("writing what is in it"))
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match one(item) {
                        Ok(()) => say.say(item.key.clone()),
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.get_or_insert_with(|| explain(item, error));
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
    notes
        .flush()
        .map_err(|e| io_error("writing what is unpacked", &e))?;
    let mut asks = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
    asks.sort();
    Ok(Filled {
        taken: taken.into_inner(),
        asks,
    })
}

/// What an unpacked package asks byte-compilers for.
fn asks_of(item: &PoolItem, pool: &Path) -> std::io::Result<Vec<Ask>> {
    let script = pool.join(&item.key).join("control/postinst");
    Ok(asks(&read_or_empty(&script)?))
}

fn explain(item: &PoolItem, error: PackageError) -> kiln_sandbox::Error {
    let name = item.key.split('_').next().unwrap_or(&item.key);
    let message = format!("{AT_FAULT}{name} could not be unpacked");
    kiln_sandbox::Error::new(ErrorKind::Step, message).because(error)
}

/// Unpacks one package into `pool`, or takes it from an earlier layer.
pub(super) fn unpack(
    item: &PoolItem,
    pool: &Path,
    filters: &[Filter],
    earlier: &Earlier,
) -> std::result::Result<Note, PackageError> {
    let opened = File::open(&item.file).map_err(failed("opening its file"))?;
    let deb = File_::of_file(opened, &item.key)?;
    let dir = pool.join(&item.key);
    fs::create_dir(&dir).map_err(failed("making its directory"))?;
    let control = deb.control()?;
    write_control(&control, &dir.join("control")).map_err(failed("writing its control files"))?;
    // Files of the download store have their SHA-256 as name.
    let name = item
        .file
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if let Some(note) = earlier.unpack(&name, &dir) {
        return Ok(note);
    }
    remove_files(&dir).map_err(failed("emptying its directory"))?;
    let mut filler = Filler {
        dir,
        filters,
        hash: !control.files.contains_key("md5sums"),
        index: Vec::new(),
        blobs: 0,
        buffer: vec![0; 256 << 10],
    };
    deb.entries(&mut |entry, content| filler.entry(entry, content))?;
    let index = &filler.index;
    fs::write(filler.dir.join("index"), index).map_err(failed("writing its index"))?;
    Note::new(&name, &digest(filters), index).map_err(failed("noting what is in it"))
}

fn remove_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
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
    index: Vec<u8>,
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
            digest: None,
        };
        if let Kind::File(_) = item.entry.kind
            && !filtered
        {
            item.blob = Some(self.blobs);
            let (md5, digest) = self.content(&item.entry, content)?;
            (item.md5, item.digest) = (md5, Some(digest));
            self.blobs += 1;
        }
        item.write(&mut self.index)
            .map_err(failed("writing its index"))
    }

    /// Writes a file as it will be, and returns its MD5 where that is wanted, and its digest.
    fn content(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> std::result::Result<(String, blake3::Hash), PackageError> {
        let doing = |error| PackageError::io(format!("writing {}", entry.path.display()), error);
        let mut file = File::create_new(self.dir.join(self.blobs.to_string())).map_err(doing)?;
        let mut hash = self.hash.then(Md5::new);
        let mut digest = blake3::Hasher::new();
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
            digest.update(&self.buffer[..read]);
            if let Some(hash) = &mut hash {
                hash.update(&self.buffer[..read]);
            }
        }
        dress(&file, entry).map_err(|e| doing(e.into()))?;
        let md5 = hash.map_or_else(String::new, |hash| hex::encode(hash.finalize()));
        Ok((md5, digest.finalize()))
    }
}
