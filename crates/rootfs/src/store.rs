//! The layer store: one directory per finished step, found by the step's id.
//!
//! ```text
//! <cache>/                entered by its owner alone: layers hold set-id programs and other people's secrets
//!   CACHEDIR.TAG          tells backup programs to leave this alone
//!   layers/<id>/          a finished layer; made by one rename, never changed afterwards
//!     fs/                 overlay directory, owned by the ids of the user namespace
//!     layer.json          what it is; written before the rename
//!   staging/<name>.lock   flock'ed by the process that owns staging/<name>/
//!   staging/<name>/       a layer in the making: fs/, work/ (the kernel's), layer.json
//!   failed/<name>/        the root of a step that failed, for `kiln shell --last`: fs/, failed.json
//! ```
//!
//! A staging directory whose lock can be taken belongs to nobody: its owner was killed, and any
//! command that opens the store removes it. The lock file is made before its directory and removed after it, so a
//! directory without one is garbage too. `layers/` is only ever changed by renaming a complete directory into it or by
//! renaming one out of it into `staging/` before it is removed.
//!
//! A build holds a shared `flock` on the directory of every layer that it uses. [`Store::collect`] leaves such layers alone, and
//! one that is taken out although it is in use, because it is damaged, is emptied when its last user is gone.
//!
//! Nothing is fsynced: a layer is worth nothing after a crash of the machine that lost part of it. So `layer.json`
//! carries the kernel's boot id, and a layer from an earlier boot counts only if a later command saw it reach
//! the disk ([`Store::open`] does that with one `syncfs` and notes it in `layers/<id>/durable`).

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use kiln_plan::Id;
use kiln_sandbox::Sandbox;
use rustix::fs::{FlockOperation, IFlags, flock, ioctl_getflags, ioctl_setflags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::private::{self, Notice, Private};

/// Where the kernel names the current boot (random(4)).
/// How often a layer is tried to be put in its place, where others put theirs and take them away at the same time.
const ATTEMPTS: u32 = 100;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A handle on the store.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
    boot: String,
    sandbox: Arc<Sandbox>,
    notices: Arc<[Notice]>,
}

/// What a layer's `layer.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// The step's id.
    pub id: Id,
    /// For people.
    pub title: String,
    /// The kernel boot in which it was committed.
    pub boot: String,
    /// Facts that the step found out and later steps need.
    pub facts: serde_json::Value,
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it says of itself.
    pub info: LayerInfo,
    /// Its overlay directory.
    pub fs: PathBuf,
    /// Keeps it from being collected; `None` for one that was only looked at.
    held: Option<Arc<File>>,
}

impl Layer {
    /// Where a file lies that was put beside the layer's directory.
    pub fn attachment(&self, name: &str) -> Option<PathBuf> {
        Some(self.fs.parent()?.join(name))
    }
}

/// What lies in the place of a layer.
enum Found {
    Layer(Layer),
    /// Something whose note is damaged.
    Damaged(File),
    Nothing,
}

impl Store {
    /// Opens the store below `root`, makes it where there is none, closes it to other users, and removes what killed processes
    /// left.
    ///
    /// # Errors
    /// The directory cannot be made or written, or belongs to another user.
    pub fn open(root: &Path, sandbox: Arc<Sandbox>) -> Result<Store> {
        let notices = private(root).open()?;
        for name in ["layers", "staging", "failed"] {
            make_dir(&root.join(name))?;
            close(&root.join(name))?;
        }
        spread(&root.join("staging"));
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            let text = "Signature: 8a477f597d28d172789f06886806bc55\n# Kiln's cache; see https://bford.info/cachedir/\n";
            fs::write(&tag, text)
                .map_err(|e| Error::io(format!("writing {}", tag.display()), &e))?;
        }
        // Without it no layer could be told from one that a crash has cut.
        let boot =
            fs::read_to_string(BOOT_ID).map_err(|e| Error::io(format!("reading {BOOT_ID}"), &e))?;
        let boot = boot.trim().to_owned();
        let store = Store {
            root: root.to_owned(),
            boot,
            sandbox,
            notices: notices.into(),
        };
        store.reclaim()?;
        store.settle()?;
        Ok(store)
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was found about the directory's access rights when it was opened.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The sandbox whose ids own the layers.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The layer of this id, if it is there and whole. It is not collected while the answer lives, and its directory's time
    /// becomes now: that of its last use.
    pub fn layer(&self, id: Id) -> Option<Layer> {
        self.hold(id).map(used)
    }

    fn hold(&self, id: Id) -> Option<Layer> {
        match self.find(id) {
            Found::Layer(layer) => Some(layer),
            Found::Damaged(_) | Found::Nothing => None,
        }
    }

    /// What lies in the place of a layer, held.
    fn find(&self, id: Id) -> Found {
        let path = self.root.join("layers").join(id.to_string());
        loop {
            let Ok(dir) = File::open(&path) else {
                return Found::Nothing;
            };
            if flock(&dir, FlockOperation::LockShared).is_err() {
                return Found::Nothing;
            }
            // A collection may have moved it away before the lock was on it; then another one may be there.
            if same_file(&dir, &path) {
                return match self.peek(id) {
                    Some(layer) => Found::Layer(Layer {
                        held: Some(Arc::new(dir)),
                        ..layer
                    }),
                    None => Found::Damaged(dir),
                };
            }
        }
    }

    fn peek(&self, id: Id) -> Option<Layer> {
        let dir = self.root.join("layers").join(id.to_string());
        let info: LayerInfo =
            serde_json::from_slice(&fs::read(dir.join("layer.json")).ok()?).ok()?;
        let whole = info.id == id && (info.boot == self.boot || dir.join("durable").exists());
        whole.then(|| Layer {
            info,
            fs: dir.join("fs"),
            held: None,
        })
    }

    /// All layers, in no particular order. They are not held.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        let names = list(&self.root.join("layers"))?;
        Ok(names
            .iter()
            .filter_map(|name| self.peek(name.parse().ok()?))
            .collect())
    }

    /// The layers that have a file of this name beside them, those used last first, and no more than `most`. They are not collected
    /// while the answer lives; to be looked at is no use of theirs.
    pub fn with_attachment(&self, name: &str, most: usize) -> Vec<Layer> {
        let top = self.root.join("layers");
        let used = |id: &Id| {
            let dir = top.join(id.to_string());
            let time = fs::metadata(&dir).and_then(|m| m.modified());
            time.ok().filter(|_| dir.join(name).exists())
        };
        // What cannot be listed has nothing to offer.
        let mut found: Vec<(SystemTime, Id)> = list(&top)
            .into_iter()
            .flatten()
            .filter_map(|name| name.parse().ok())
            .filter_map(|id| Some((used(&id)?, id)))
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        found.truncate(most);
        let layers = found.into_iter().filter_map(|(_, id)| self.hold(id));
        layers.collect()
    }

    /// A private directory for a layer in the making.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn stage(&self) -> Result<Staging> {
        let (name, lock) = self.lock_new_name()?;
        let dir = self.root.join("staging").join(&name);
        let staging = Staging {
            store: self.clone(),
            name,
            dir,
            lock: Some(lock),
        };
        make_dir(&staging.dir)?;
        for part in ["fs", "work"] {
            self.sandbox
                .create_owned_dir(&staging.dir.join(part), 0o755)
                .map_err(crate::error::sandbox_error)?;
        }
        Ok(staging)
    }

    /// Removes a layer that nobody uses; whether there was nobody.
    ///
    /// # Errors
    /// It cannot be moved out of the way or removed.
    pub fn collect(&self, id: Id) -> Result<bool> {
        let path = self.root.join("layers").join(id.to_string());
        // The lock is on the directory until it has another name; who waited for it sees that.
        let unused = match File::open(&path) {
            // Before the lock was on it, it may have been moved away, and another one may be in use there.
            Ok(dir) => (take_alone(&dir) && same_file(&dir, &path)).then_some(dir),
            Err(_) => return Ok(true),
        };
        match unused {
            Some(dir) => self.take_out(id, dir).map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes a damaged layer out of the store, so that nobody finds it again. If a build still uses it, its files go when a
    /// later command finds it unused.
    ///
    /// # Errors
    /// It cannot be moved out of the way or removed.
    pub fn remove(&self, id: Id) -> Result<()> {
        let path = self.root.join("layers").join(id.to_string());
        match File::open(&path) {
            Ok(dir) => self.take_out(id, dir),
            Err(_) => Ok(()),
        }
    }

    fn take_out(&self, id: Id, dir: File) -> Result<()> {
        let (name, lock) = self.lock_new_name()?;
        let from = self.root.join("layers").join(id.to_string());
        let to = self.root.join("staging").join(&name);
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => make_dir(&to)?,
            Err(e) => return Err(Error::io(format!("removing layer {}", from.display()), &e)),
        }
        if take_alone(&dir) {
            drop(dir);
            drop(Staging {
                store: self.clone(),
                name,
                dir: to,
                lock: Some(lock),
            });
        }
        Ok(())
    }

    /// The newest failed root.
    pub fn last_failed(&self) -> Option<PathBuf> {
        let mut names = list(&self.root.join("failed")).ok()?;
        names.sort();
        names.pop().map(|name| self.root.join("failed").join(name))
    }

    /// Drops the roots of earlier failures.
    pub fn forget_failed(&self) -> Result<()> {
        let failed: Vec<PathBuf> = list(&self.root.join("failed"))?
            .into_iter()
            .map(|name| self.root.join("failed").join(name))
            .collect();
        self.remove_trees(&failed)
    }

    fn lock_new_name(&self) -> Result<(String, File)> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let clock = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos());
            let name = format!("{clock:024x}-{}-{count}", std::process::id());
            let path = self.lock_path(&name);
            let file = File::create(&path)
                .map_err(|e| Error::io(format!("creating {}", path.display()), &e))?;
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            // Another command may have taken the fresh file for garbage before the lock was on it.
            if locked && same_file(&file, &path) {
                return Ok((name, file));
            }
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("staging").join(format!("{name}.lock"))
    }

    /// Removes staging directories whose owner is gone. Opening the store does it too.
    ///
    /// # Errors
    /// The directory cannot be read, or a tree cannot be removed.
    pub fn reclaim(&self) -> Result<()> {
        let mut orphans = Vec::new();
        let mut locks = Vec::new();
        for name in list(&self.root.join("staging"))? {
            let base = name.strip_suffix(".lock").unwrap_or(&name).to_owned();
            let path = self.lock_path(&base);
            match File::open(&path) {
                Ok(file) => {
                    if name.ends_with(".lock")
                        && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                    {
                        orphans.push(self.root.join("staging").join(&base));
                        locks.push((path, file));
                    }
                }
                Err(_) => orphans.push(self.root.join("staging").join(&base)),
            }
        }
        // A damaged layer that was taken out while a build used it stays until that build has ended.
        orphans.retain(|path| File::open(path).is_ok_and(|dir| take_alone(&dir)));
        self.remove_trees(&orphans)?;
        for (path, file) in locks {
            if !path.with_extension("").exists() {
                let _ = fs::remove_file(&path);
            }
            drop(file);
        }
        Ok(())
    }

    fn remove_trees(&self, trees: &[PathBuf]) -> Result<()> {
        if trees.is_empty() {
            return Ok(());
        }
        self.sandbox
            .remove_trees(trees)
            .map_err(crate::error::sandbox_error)
    }

    /// Drops layers of an earlier boot that nobody saw reach the disk, and notes the others as durable.
    fn settle(&self) -> Result<()> {
        let mut fresh = Vec::new();
        for name in list(&self.root.join("layers"))? {
            let dir = self.root.join("layers").join(&name);
            let info = fs::read(dir.join("layer.json"))
                .ok()
                .and_then(|b| serde_json::from_slice::<LayerInfo>(&b).ok());
            match info {
                Some(_) if dir.join("durable").exists() => {}
                Some(info) if info.boot == self.boot => fresh.push(dir),
                _ => self.remove_by_name(&name)?,
            }
        }
        let old_enough = |dir: &PathBuf| {
            let age = fs::metadata(dir.join("layer.json"))
                .and_then(|m| m.modified())
                .ok()
                .and_then(|m| m.elapsed().ok());
            age.is_some_and(|age| age.as_secs() > WRITTEN_BACK_AFTER)
        };
        if fresh.iter().any(old_enough) {
            let root = File::open(&self.root)
                .map_err(|e| Error::io(format!("opening {}", self.root.display()), &e))?;
            if rustix::fs::syncfs(&root).is_ok() {
                for dir in fresh.iter().filter(|d| old_enough(d)) {
                    let _ = fs::write(dir.join("durable"), "");
                }
            }
        }
        Ok(())
    }

    fn remove_by_name(&self, name: &str) -> Result<()> {
        match name.parse() {
            Ok(id) => self.remove(id),
            Err(_) => self.remove_trees(&[self.root.join("layers").join(name)]),
        }
    }
}

/// Seconds after which the kernel has written back by itself, so that a `syncfs` costs next to nothing.
const WRITTEN_BACK_AFTER: u64 = 120;

/// A layer in the making. Dropping it removes it.
pub struct Staging {
    store: Store,
    name: String,
    dir: PathBuf,
    lock: Option<File>,
}

impl Staging {
    /// Receives the layer's files.
    pub fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Removes a directory inside the layer. No run may be going on there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, inside: &Path) -> Result<()> {
        self.store.remove_trees(&[inside.to_owned()])
    }

    /// The kernel's overlay work directory.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// A new directory beside the layer's, of the caller, that ids of the sandbox can read. It stays with the layer if that is
    /// committed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        make_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .map_err(|e| Error::io(format!("opening up {}", path.display()), &e))?;
        Ok(path)
    }

    /// Puts a file beside the layer's directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn attach(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, content).map_err(|e| Error::io(format!("writing {}", path.display()), &e))
    }

    /// Adds to such a file; ids of the sandbox can read it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let append = || {
            let mut options = File::options();
            let mut file = options.create(true).append(true).open(&path)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            io::Write::write_all(&mut file, content)
        };
        append().map_err(|e| Error::io(format!("writing {}", path.display()), &e))
    }

    /// Makes the layer findable under its id. If another build was faster its layer is taken.
    ///
    /// # Errors
    /// The layer cannot be written.
    pub fn commit(self, id: Id, title: &str, facts: serde_json::Value) -> Result<Layer> {
        let info = LayerInfo {
            id,
            title: title.to_owned(),
            boot: self.store.boot.clone(),
            facts,
        };
        self.store.remove_trees(&[self.work()])?;
        let text = serde_json::to_vec_pretty(&info)
            .map_err(|e| Error::new(crate::ErrorKind::Internal, e.to_string()))?;
        let file = self.dir.join("layer.json");
        fs::write(&file, text).map_err(|e| Error::io(format!("writing {}", file.display()), &e))?;
        let to = self.store.root.join("layers").join(id.to_string());
        let failed = |error| Error::io(format!("committing layer {}", to.display()), &error);
        // Held before it can be found.
        let held = File::open(&self.dir).map_err(failed)?;
        flock(&held, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
        let mut attempts = 0;
        while let Err(error) = fs::rename(&self.dir, &to) {
            attempts += 1;
            match self.store.find(id) {
                Found::Layer(layer) => return Ok(used(layer)),
                _ if attempts == ATTEMPTS => return Err(failed(error)),
                Found::Damaged(dir) => self.store.take_out(id, dir)?,
                // Somebody has just taken it away.
                Found::Nothing => {}
            }
        }
        Ok(Layer {
            info,
            fs: to.join("fs"),
            held: Some(Arc::new(held)),
        })
    }

    /// Keeps the directory as the root of a failed step; `failed` says how to enter it again.
    ///
    /// # Errors
    /// It cannot be written or moved.
    pub fn keep_failed(self, failed: &serde_json::Value) -> Result<PathBuf> {
        self.store.forget_failed()?;
        let file = self.dir.join("failed.json");
        fs::write(&file, failed.to_string())
            .map_err(|e| Error::io(format!("writing {}", file.display()), &e))?;
        let to = self.store.root.join("failed").join(&self.name);
        fs::rename(&self.dir, &to)
            .map_err(|e| Error::io(format!("keeping {}", to.display()), &e))?;
        Ok(to)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is reclaimed by the next command, once the lock is free.
        if self.dir.exists() {
            let _ = self.store.remove_trees(std::slice::from_ref(&self.dir));
        }
        if !self.dir.exists() {
            let _ = fs::remove_file(self.store.lock_path(&self.name));
        }
        drop(self.lock.take());
    }
}

/// Notes that a layer is used now.
fn used(layer: Layer) -> Layer {
    if let Some(dir) = &layer.held {
        // Without the note the layer is only collected earlier than it need be.
        let _ = dir.set_modified(SystemTime::now());
    }
    layer
}

fn make_dir(path: &Path) -> Result<()> {
    private::make(path).map_err(|e| Error::io(format!("creating {}", path.display()), &e))
}

/// Has ext4 put each new directory in this one where there is most room, and not beside its neighbours (`T` in chattr(1)). ext4 gives an inode that
/// was freed in the last minutes to nobody, and looks at all of them again for each new file: beside what was just removed
/// 30,000 files take 7 s instead of 0.4. Other file systems do not know the flag.
fn spread(directory: &Path) {
    let set = || -> io::Result<()> {
        let directory = File::open(directory)?;
        let flags = ioctl_getflags(&directory)?;
        if !flags.contains(IFlags::TOPDIR) {
            ioctl_setflags(&directory, flags | IFlags::TOPDIR)?;
        }
        Ok(())
    };
    // Without it everything is the same, only slower.
    let _ = set();
}

/// A cache as a directory that has to be private.
pub fn private(path: &Path) -> Private<'_> {
    Private {
        path,
        what: "cache",
        option: "--cache-dir",
        // The last is what `kiln test` and `kiln boot` make where nothing was built yet.
        holds: &["layers", "downloads/sha256", "vm"],
    }
}

/// Earlier versions made the directories below a cache open to all.
fn close(path: &Path) -> Result<()> {
    let mode = |dir: &Path| -> io::Result<u32> { Ok(fs::metadata(dir)?.permissions().mode()) };
    let closed = match mode(path) {
        Ok(open) if open & 0o077 != 0 => {
            fs::set_permissions(path, Permissions::from_mode(private::MODE))
        }
        other => other.map(drop),
    };
    closed.map_err(|e| Error::io(format!("closing {} to others", path.display()), &e))
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().map_err(|e| Error::io(format!("reading {}", dir.display()), &e))
}

/// Takes the lock of a directory that nobody else holds.
fn take_alone(dir: &File) -> bool {
    flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}
