//! Byte-compiling apart from the root, so that what was made of a package can be used again.
//!
//! Packages of Python modules have them compiled when they are configured, one after the other. What comes of it depends on nothing but the
//! compiler and the modules, but what lies in an earlier layer may have been made, or changed, by any script that ran there.
//! So compilers run in a root of their own, beside dpkg. It consists of the files of their packages, and of the modules, which they read and never run:
//! no script has run there, and nothing of another package. What they make is kept beside the layer ([`answers`]). When a script calls a compiler, a stand-in puts the
//! answer into the root, if the modules there are those that it was made of; the compiler itself does everything else.
//!
//! Whether there was an answer already makes no difference to what is in the root.

mod answers;
mod work;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_sandbox::{CancelToken, Mount, Root};

pub(crate) use work::Compile;

use self::answers::{Answer, COMPILED, find, key, sums};
use self::work::{Archives, Ended, Task};
use super::asks::{Ask, Compiler};
use super::daemons;
use super::deb::Deb;
use super::install::HASH_SEED;
use super::native::{CopyModules, Filter, MODULES, Module, Pool, PoolItem, digest};
use super::order::closure;
use super::unpack::extract;
use crate::error::{Error, Result};
use crate::family::Job;
use crate::report::Quiet;
use crate::run::{Extras, Place, standard_env};
use crate::store::{Staging, Store};

/// Where answers are seen in the root.
const PLACE: &str = "/run/kiln/apart";
/// What compilers cannot do without, and their packages do not name: a shell.
const SHELL: &str = "dash";

/// Answers for a layer's packages, those that are there and those to come. Dropping it ends the work.
pub(super) struct Apart {
    desk: Arc<Desk>,
    worker: Option<JoinHandle<Result<()>>>,
    cancel: CancelToken,
    /// Answers that were there.
    recalled: usize,
}

/// Where answers are put for the stand-ins.
struct Desk {
    /// Has the directory.
    _staging: Staging,
    directory: PathBuf,
    /// What goes beside the layer.
    notes: Mutex<Vec<u8>>,
}

/// A layer whose packages are about to be installed.
pub(super) struct Layer<'a> {
    pub(super) pool: &'a Pool,
    pub(super) new: &'a [Deb],
    pub(super) installed: &'a [Deb],
    pub(super) filters: &'a [Filter],
    pub(super) epoch: i64,
}

/// What is asked for: keys of packages in the pool, how a script says it, and the name of the answer.
struct Wish {
    packages: Vec<String>,
    ask: Ask,
    key: String,
}

impl Apart {
    /// Begins with what packages of a layer will ask for; `None` if they ask for nothing. The pool must not be in its root yet.
    ///
    /// # Errors
    /// The disk is full, or the build was stopped.
    pub(super) fn begin(job: &Job, layer: &Layer<'_>) -> Result<Option<Apart>> {
        let all: Vec<&Deb> = layer.new.iter().chain(layer.installed).collect();
        let asked = asked(layer, &all);
        if asked.is_empty() {
            return Ok(None);
        }
        let compilers = compilers(job, &all, &asked)?;
        let wishes = wishes(asked, &compilers, layer.filters)?;
        let desk = Arc::new(Desk::new(&job.store)?);
        wishes.iter().try_for_each(|wish| desk.promise(&wish.ask))?;
        let promised = wishes.len();
        let left = desk.recall(&job.store, wishes)?;
        let cancel = job.cancel.child();
        let cancel = cancel.map_err(|e| Error::io("making a descriptor", &e))?;
        let mut apart = Apart {
            desk,
            worker: None,
            cancel,
            recalled: promised - left.len(),
        };
        if !left.is_empty() {
            apart.work(job, layer, compilers, left)?;
        }
        Ok(Some(apart))
    }

    /// Compiles what there is no answer to, on a thread of its own.
    fn work(
        &mut self,
        job: &Job,
        layer: &Layer<'_>,
        compilers: Vec<Deb>,
        wishes: Vec<Wish>,
    ) -> Result<()> {
        let staging = job.store.stage()?;
        // Now: files leave the pool when packages are installed.
        let tasks = self.copy_modules((&job.store, &staging), layer, &compilers, wishes)?;
        let cancel = self.cancel.child();
        let shop = Shop {
            staging,
            desk: Arc::clone(&self.desk),
            cancel: cancel.map_err(|e| Error::io("making a descriptor", &e))?,
            store: job.store.clone(),
            downloads: job.downloads.root().to_owned(),
            compilers,
            filters: layer.filters.to_vec(),
            architecture: job.architecture.clone(),
            threads: job.threads,
            epoch: layer.epoch,
        };
        self.worker = Some(std::thread::spawn(move || shop.run(tasks)));
        Ok(())
    }

    /// Copies the modules of packages into the compilers' root. Those of a package that cannot be copied are left to its script.
    fn copy_modules(
        &self,
        (store, staging): (&Store, &Staging),
        layer: &Layer<'_>,
        compilers: &[Deb],
        wishes: Vec<Wish>,
    ) -> Result<Vec<(Task, String)>> {
        let of = |wish: &Wish| -> Vec<(String, String)> {
            let (keys, names) = (wish.packages.iter(), &wish.ask.packages);
            keys.cloned().zip(names.iter().cloned()).collect()
        };
        let mut packages: Vec<(String, String)> = wishes.iter().flat_map(of).collect();
        packages.sort();
        packages.dedup();
        let compilers = compilers.iter().map(Deb::key).collect();
        let copy = CopyModules {
            packages,
            compilers,
        };
        let extras = Extras {
            mounts: vec![layer.pool.shown(MODULES)],
            ..Extras::bare()
        };
        let place = root(store, staging, layer.epoch, &self.cancel);
        let copied = place.call(&copy, (), extras)?;
        let modules: HashMap<(String, String), Option<Vec<Module>>> =
            copy.packages.into_iter().zip(copied).collect();
        let mut tasks = Vec::new();
        for wish in wishes {
            let all = of(&wish).into_iter();
            let all = all.map(|package| modules.get(&package).cloned().flatten());
            match all.collect::<Option<Vec<_>>>() {
                Some(modules) => {
                    let (ask, modules) = (wish.ask, modules.concat());
                    tasks.push((Task { ask, modules }, wish.key));
                }
                None => self.desk.refuse(&wish.ask)?,
            }
        }
        Ok(tasks)
    }

    /// How many answers were there before anything was compiled.
    pub(super) fn recalled(&self) -> usize {
        self.recalled
    }

    /// What scripts of the layer's packages find.
    pub(super) fn mounts(&self) -> Vec<Mount> {
        let script = |name: &str, content: &str| Mount::File {
            target: format!("{}/{name}", daemons::OWN),
            content: content.as_bytes().to_vec(),
            mode: 0o755,
        };
        vec![
            Mount::Bind {
                source: self.desk.directory.clone(),
                target: PLACE.to_owned(),
                writable: false,
            },
            script("kiln-answer", include_str!("apart/answer.sh")),
            script("py3compile", include_str!("apart/py3compile.sh")),
        ]
    }

    /// Ends the work, all of which is done, and notes it beside the layer.
    ///
    /// # Errors
    /// The compilers could not be run, or the disk is full.
    pub(super) fn end(mut self, layer: &Staging) -> Result<()> {
        if let Some(worker) = self.worker.take() {
            let panicked = |_| Error::new(crate::ErrorKind::Internal, "compiling modules panicked");
            worker.join().map_err(panicked)??;
        }
        let notes = self
            .desk
            .notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        layer.append(COMPILED, &notes)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// What packages of a layer ask for, with a compiler that will be there: the command, and the packages that it names, which are
/// the one that asks and others of the layer.
fn asked<'a>(layer: &'a Layer<'_>, all: &[&Deb]) -> Vec<(Vec<&'a Deb>, &'a Ask)> {
    let named = |name: &String| {
        let is_it = |deb: &&Deb| match name.split_once(':') {
            Some((name, architecture)) => name == deb.name && architecture == deb.architecture,
            None => *name == deb.name,
        };
        layer.new.iter().find(is_it)
    };
    let packages = |key: &String, ask: &Ask| {
        let packages: Vec<&Deb> = ask.packages.iter().map(named).collect::<Option<_>>()?;
        let is_own = packages.iter().any(|deb| deb.key() == *key);
        let is_there = all.iter().any(|deb| deb.name == ask.compiler.package());
        (is_own && is_there).then_some(packages)
    };
    let asks = layer.pool.asks().iter();
    asks.filter_map(|(key, ask)| Some((packages(key, ask)?, ask)))
        .collect()
}

/// The packages of the compilers' root. Those of lower layers were noted with the store of another day.
fn compilers(job: &Job, all: &[&Deb], asked: &[(Vec<&Deb>, &Ask)]) -> Result<Vec<Deb>> {
    let mut wanted = vec![SHELL];
    for compiler in Compiler::ALL {
        if asked.iter().any(|(_, ask)| ask.compiler == compiler) {
            wanted.push(compiler.package());
        }
    }
    let found = closure(all, &wanted).into_iter();
    let found = found.filter_map(|index| all.get(index)).map(|deb| {
        Ok(Deb {
            file: job.downloads.path(&deb.sha256()?),
            ..(*deb).clone()
        })
    });
    found.collect()
}

fn wishes(
    asked: Vec<(Vec<&Deb>, &Ask)>,
    compilers: &[Deb],
    filters: &[Filter],
) -> Result<Vec<Wish>> {
    let digests = compilers.iter().map(|deb| Ok(deb.sha256()?.to_string()));
    let mut digests: Vec<String> = digests.collect::<Result<_>>()?;
    digests.sort();
    let filters = digest(filters);
    let wish = |(debs, ask): (Vec<&Deb>, &Ask)| {
        let files = debs.iter().map(|deb| Ok(deb.sha256()?.to_string()));
        let files: Vec<String> = files.collect::<Result<_>>()?;
        Ok(Wish {
            packages: debs.iter().map(|deb| deb.key()).collect(),
            ask: ask.clone(),
            key: key(&digests, &filters, &files, ask),
        })
    };
    asked.into_iter().map(wish).collect()
}

/// The compilers' root as a place.
fn root<'a>(store: &'a Store, staging: &Staging, epoch: i64, cancel: &'a CancelToken) -> Place<'a> {
    Place {
        sandbox: store.sandbox(),
        root: Root::Dir {
            path: staging.fs(),
            writable: true,
        },
        epoch,
        reporter: &Quiet,
        cancel,
        tracer: None,
    }
}

impl Desk {
    fn new(store: &Store) -> Result<Desk> {
        let staging = store.stage()?;
        let directory = staging.directory("answers")?;
        Ok(Desk {
            _staging: staging,
            directory,
            notes: Mutex::default(),
        })
    }

    /// Says that there will be an answer.
    fn promise(&self, ask: &Ask) -> Result<()> {
        let make = || {
            let directory = self.directory.join(ask.compiler.name());
            fs::create_dir_all(&directory)?;
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
            self.put(ask, "", b"")
        };
        make().map_err(|e| self.failed(&e))
    }

    /// Takes back the promise of an answer that is not there: a script has to help itself. It needs no room on the disk.
    fn refuse(&self, ask: &Ask) -> Result<()> {
        let promise = self.directory.join(ask.compiler.name()).join(ask.name());
        if promise
            .with_file_name(format!("{}.tar", ask.name()))
            .exists()
        {
            return Ok(());
        }
        match fs::remove_file(promise) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed(&e)),
            _ => Ok(()),
        }
    }

    fn give(&self, ask: &Ask, answer: &Answer, note: &[u8]) -> Result<()> {
        let give = || {
            self.put(ask, ".sums", answer.sums.as_bytes())?;
            self.put(ask, ".tar", &answer.archive)
        };
        give().map_err(|e| self.failed(&e))?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.extend_from_slice(note);
        Ok(())
    }

    /// A file that is there at once and whole.
    fn put(&self, ask: &Ask, suffix: &str, content: &[u8]) -> io::Result<()> {
        let directory = self.directory.join(ask.compiler.name());
        let new = self.directory.join(format!("{}.new", ask.compiler.name()));
        fs::write(&new, content)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
        fs::rename(new, directory.join(format!("{}{suffix}", ask.name())))
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(format!("writing {}", self.directory.display()), error)
    }

    /// Gives the answers of earlier builds; returns what there is none for.
    fn recall(&self, store: &Store, wishes: Vec<Wish>) -> Result<Vec<Wish>> {
        let mut left: HashMap<String, Wish> = wishes
            .into_iter()
            .map(|wish| (wish.key.clone(), wish))
            .collect();
        let keys: Vec<String> = left.keys().cloned().collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut result = Ok(());
        find(store, &keys, &mut |key, answer, note| {
            if let (Some(wish), Ok(())) = (left.remove(key), &result) {
                result = self.give(&wish.ask, &answer, note);
            }
        });
        result?;
        let mut left: Vec<Wish> = left.into_values().collect();
        left.sort_by(|a, b| a.ask.cmp(&b.ask));
        Ok(left)
    }
}

/// Scripts wait for what was promised to them: on every way out they are told that nothing more will come.
struct Refusing<'a>(&'a Desk, &'a [(Task, String)]);

impl Drop for Refusing<'_> {
    fn drop(&mut self) {
        for (task, _) in self.1 {
            let _ = self.0.refuse(&task.ask);
        }
    }
}

/// Where compilers work.
struct Shop {
    /// Their root.
    staging: Staging,
    desk: Arc<Desk>,
    cancel: CancelToken,
    store: Store,
    downloads: PathBuf,
    compilers: Vec<Deb>,
    filters: Vec<Filter>,
    architecture: String,
    threads: usize,
    epoch: i64,
}

impl Shop {
    /// Does the tasks.
    fn run(self, tasks: Vec<(Task, String)>) -> Result<()> {
        let _refusing = Refusing(&self.desk, &tasks);
        self.compile(&tasks)
    }

    fn compile(&self, tasks: &[(Task, String)]) -> Result<()> {
        self.unpack()?;
        let place = root(&self.store, &self.staging, self.epoch, &self.cancel);
        let to = rustix::fs::memfd_create("kiln-compiled", rustix::fs::MemfdFlags::CLOEXEC);
        let to = File::from(to.map_err(|e| Error::io("making a file in memory", &e.into()))?);
        let from = to.try_clone();
        let from = from.map_err(|e| Error::io("making a descriptor", &e))?;
        let (name, value) = HASH_SEED;
        let mut env = standard_env(self.epoch);
        env.push((name.to_owned(), value.to_owned()));
        let compile = Compile {
            tasks: tasks.iter().map(|(task, _)| task.clone()).collect(),
            env,
        };
        let mut result = Ok(());
        let mut hear = |ended: Ended| {
            if let (Ok(()), Some((task, key))) = (&result, tasks.get(ended.task)) {
                result = self.ended(&ended, task, key, &from);
            }
        };
        place.call_and_hear(&compile, Archives { to }, Extras::default(), &mut hear)?;
        result
    }

    /// Puts the compilers' packages into their root.
    fn unpack(&self) -> Result<()> {
        let items = self.compilers.iter().map(|deb| PoolItem {
            key: deb.key(),
            file: deb.file.clone(),
        });
        let pool = Pool::fill(
            &self.store,
            &self.downloads,
            items.collect(),
            self.filters.clone(),
            self.threads,
            false,
            &self.cancel,
            &mut |_| {},
        )?;
        pool.attach(&self.staging)?;
        let place = root(&self.store, &self.staging, self.epoch, &self.cancel);
        extract(&place, &self.compilers, &self.architecture)?;
        pool.detach(&self.staging)
    }

    fn ended(&self, ended: &Ended, task: &Task, key: &str, from: &File) -> Result<()> {
        let Some(made) = &ended.made else {
            return self.desk.refuse(&task.ask);
        };
        let failed = |e: io::Error| Error::io("taking over what was compiled", &e);
        let length = usize::try_from(made.length).map_err(|e| failed(io::Error::other(e)))?;
        let mut archive = vec![0; length];
        from.read_exact_at(&mut archive, made.at).map_err(failed)?;
        let answer = Answer {
            sums: sums(task.ask.compiler, &made.compiler, &task.modules),
            archive,
        };
        let note = answer.note(key).map_err(failed)?;
        self.desk.give(&task.ask, &answer, &note)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A root with a module, its compiler, and an answer for `tool`.
    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new() -> Scene {
            let scene = Scene(tempfile::tempdir().expect("a directory"));
            scene.put("usr/lib/a.py", "source");
            scene.put("compiler", "program");
            let cache = scene.path("tree/usr/lib/__pycache__");
            fs::create_dir_all(&cache).expect("a directory");
            fs::write(cache.join("a.pyc"), "made").expect("a file");
            let sums = format!(
                "{}  {}\n{}  {}\n",
                hex::encode(kiln_digest::Sha256::digest("program")),
                scene.path("compiler").display(),
                hex::encode(kiln_digest::Sha256::digest("source")),
                scene.path("usr/lib/a.py").display(),
            );
            let mut archive = tar::Builder::new(Vec::new());
            let file = cache.join("a.pyc");
            let added = archive.append_path_with_name(file, "usr/lib/__pycache__/a.pyc");
            added.expect("an entry");
            let archive = archive.into_inner().expect("an archive");
            for compiler in ["py3compile", "pypy3compile"] {
                let name = format!("apart/{compiler}/tool");
                scene.put(&name, "");
                scene.put(&format!("{name}.sums"), &sums);
                fs::write(scene.path(&format!("{name}.tar")), &archive).expect("an archive");
            }
            scene
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn put(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }

        /// Whether the stand-in did it.
        fn answer(&self, compiler: &str) -> bool {
            let root = self.0.path().display();
            let script = include_str!("apart/answer.sh")
                .replace("/run/kiln", &root.to_string())
                .replace("/usr/share", &format!("{root}/usr/share"))
                .replace("--directory /", &format!("--directory {root}"));
            let mut command = Command::new("sh");
            let ended = command
                .args(["-c", &script, "answer", compiler, "tool"])
                .status();
            ended.expect("a shell").success()
        }

        fn made(&self) -> Option<String> {
            fs::read_to_string(self.path("usr/lib/__pycache__/a.pyc")).ok()
        }
    }

    #[test]
    fn an_answer_is_put_into_the_root() {
        for compiler in ["py3compile", "pypy3compile"] {
            let scene = Scene::new();
            assert!(scene.answer(compiler));
            assert_eq!(scene.made().as_deref(), Some("made"));
        }
    }

    #[test]
    fn a_compiler_is_started_once_and_as_often_as_python_finds_more_to_import() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().display();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        let script = include_str!("apart/py3compile.sh")
            .replace("/usr/bin/py3compile", &format!("{root}/real"))
            .replace("/usr/lib/python3", &format!("{root}/lib"))
            .replace("/run/kiln/", &format!("{root}/"));
        put("kiln-answer", "#!/bin/sh\necho answer $2\n[ $2 != no ]\n");
        put("lib/dist-packages/a.py", "");
        let path = std::env::var("PATH").expect("a PATH");
        let call = |words: &[&str]| {
            let mut command = Command::new("sh");
            command.env("PATH", format!("{root}:{path}"));
            let output = command
                .args(["-c", &script, "py3compile"])
                .args(words)
                .output();
            let output = output.expect("a shell");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        let starts = || {
            let log = fs::read_to_string(dir.path().join("log"));
            log.map_or(0, |log| log.matches("--version").count())
        };
        // Before its package is there.
        assert_eq!(call(&["-p", "one"]), "");
        put(
            "real",
            &format!("#!/bin/sh\necho $* >> {root}/log\necho real $*\n"),
        );
        assert_eq!(call(&["-p", "one"]), "answer one\n");
        assert_eq!(call(&["-p", "two"]), "answer two\n");
        assert_eq!(starts(), 1);
        put("lib/dist-packages/a.pth", "import a");
        assert_eq!(call(&["-p", "three"]), "answer three\n");
        assert_eq!(call(&["-p", "no"]), "answer no\nreal -p no\n");
        assert_eq!(starts(), 2);
        let other: [&[&str]; 3] = [
            &["-p", "a", "/usr/share/a"],
            &["/usr/share/a"],
            &["-p", "a/b"],
        ];
        for words in other {
            assert_eq!(call(words), format!("real {}\n", words.join(" ")));
        }
        put("real", "#!/bin/sh\n[ $1 != --version ] && echo real\n");
        put("lib/dist-packages/b.pth", "import a");
        assert_eq!(call(&["-p", "four"]), "real\n");
    }

    #[test]
    fn an_answer_to_something_else_is_none() {
        let changes: [fn(&Scene); 6] = [
            |scene| scene.put("usr/lib/a.py", "changed"),
            |scene| fs::remove_file(scene.path("usr/lib/a.py")).expect("removed"),
            // As where somebody wants nothing compiled.
            |scene| scene.put("compiler", "#!/bin/true"),
            |scene| scene.put("usr/share/python3/bcep/other", "dir|-|/usr/lib"),
            |scene| scene.put("usr/share/python3/ns/other", "ns"),
            |scene| {
                // As when a promise is taken back.
                for name in ["tool", "tool.tar"] {
                    let file = scene.path("apart/py3compile").join(name);
                    fs::remove_file(file).expect("removed");
                }
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let scene = Scene::new();
            change(&scene);
            assert!(!scene.answer("py3compile"), "{number}");
            assert_eq!(scene.made(), None, "{number}");
        }
    }

    #[test]
    fn what_an_import_has_written_is_left_to_the_compiler_of_cpython() {
        let scene = Scene::new();
        scene.put("usr/lib/__pycache__/a.pyc", "imported");
        assert!(!scene.answer("py3compile"));
        assert_eq!(scene.made().as_deref(), Some("imported"));
        assert!(scene.answer("pypy3compile"));
        assert_eq!(scene.made().as_deref(), Some("made"));
    }

    #[test]
    fn an_answer_to_come_is_waited_for() {
        let scene = Scene::new();
        let archive = Path::new("apart/py3compile/tool.tar");
        let kept = scene.path("kept");
        fs::rename(scene.0.path().join(archive), &kept).expect("moved");
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| scene.answer("py3compile"));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!answer.is_finished());
            fs::rename(&kept, scene.0.path().join(archive)).expect("moved");
            assert!(answer.join().expect("no panic"));
        });
        assert_eq!(scene.made().as_deref(), Some("made"));
    }

    #[test]
    fn nobody_waits_for_what_will_not_come() {
        let scene = Scene::new();
        fs::remove_file(scene.path("apart/py3compile/tool.tar")).expect("removed");
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| scene.answer("py3compile"));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!answer.is_finished());
            fs::remove_file(scene.path("apart/py3compile/tool")).expect("taken back");
            assert!(!answer.join().expect("no panic"));
        });
        assert_eq!(scene.made(), None);
    }
}
