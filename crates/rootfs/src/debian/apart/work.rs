//! The compilers at work, in a root of their own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use kiln_digest::Sha256;
use kiln_sandbox::{Call, Error, Say, handed};
use serde::{Deserialize, Serialize};

use super::super::asks::{Ask, Compiler};
use super::super::native::{LISTS, Module};
use crate::calls::io_error;
use crate::regular;

/// Stands for the package manager's program, which knows no package here.
const DPKG: &str = "/usr/bin/dpkg";
/// PyPy's compiler. It is no Python program: PyPy would only lose time with the search for what is worth a translation. It imports nothing
/// that is not its own: a package can bring a `msvcrt`, which `subprocess` asks for.
const PYPY: &[&str] = &[
    "/usr/bin/pypy3",
    "-I",
    "-S",
    "--jit",
    "off",
    "/usr/bin/pypy3compile",
];
/// CPython.
const PYTHON: &str = "/usr/bin/python3";
/// CPython's compiler. Without `site`, which would have it import modules of packages, there is no `exit`, which it calls.
const PY3COMPILE: &[&str] = &[PYTHON, "-c", RUN, "/usr/bin/py3compile"];
const RUN: &str = "import builtins, sys\n\
    builtins.exit = sys.exit\n\
    sys.argv.pop(0)\n\
    exec(compile(open(sys.argv[0], encoding='utf-8').read(), sys.argv[0], 'exec'))\n";
/// Bytes of all that is made of one package.
const MOST: usize = 256 << 20;

/// Has compilers do what packages ask them for.
#[derive(Serialize, Deserialize)]
pub(crate) struct Compile {
    pub(super) tasks: Vec<Task>,
    pub(super) env: Vec<(String, String)>,
}

/// What a package asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(super) ask: Ask,
    pub(super) modules: Vec<Module>,
}

/// How a task ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Its number.
    pub(super) task: usize,
    /// What was made of it; `None` if the compiler failed.
    pub(super) made: Option<Made>,
}

/// Files of one package.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// SHA-256 of the compiler's program, hexadecimal.
    pub(super) compiler: String,
    /// Where an archive of them begins in what was handed over, in bytes.
    pub(super) at: u64,
    /// And its length.
    pub(super) length: u64,
}

handed! {
    /// Where archives go.
    pub(crate) struct Archives {
        /// An empty file.
        to: File,
    }
}

impl Call for Compile {
    const NAME: &'static str = "debian.compile";
    type Handed = Archives;
    type Message = Ended;
    type Answer = ();

    fn run(self, archives: Archives, say: &Say<Ended>) -> Result<(), Error> {
        prepare().map_err(|e| io_error("preparing the compilers' root", &e))?;
        let work = Work {
            compile: &self,
            to: Mutex::new((archives.to, 0)),
            say,
        };
        std::thread::scope(|scope| {
            let lanes = Compiler::ALL.map(|compiler| {
                scope.spawn({
                    let work = &work;
                    move || work.lane(compiler)
                })
            });
            lanes.into_iter().try_for_each(|lane| {
                lane.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            })
        })
        .map_err(|e| io_error("compiling modules", &e))
    }
}

/// What programs find beside the files of their packages.
fn prepare() -> io::Result<()> {
    if !Path::new("/bin/sh").exists() {
        symlink("dash", "/bin/sh")?;
    }
    if Path::new(PYTHON).exists() {
        // The compiler starts it in its own way. So that it imports nothing that is not its own, as PyPy.
        let python = fs::canonicalize(PYTHON)?;
        let real = PathBuf::from(format!("{}-real", python.display()));
        fs::rename(&python, &real)?;
        program(
            &python,
            &format!("#!/bin/sh\nexec {} -S -s \"$@\"\n", real.display()),
        )?;
    }
    // Compilers ask it which files a package has: `dpkg -L NAME`.
    let text = format!(
        "#!/bin/sh\nwhile IFS= read -r line; do printf '%s\\n' \"$line\"; done < \"{LISTS}/$2\"\n"
    );
    match fs::remove_file(DPKG) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => program(Path::new(DPKG), &text),
    }
}

fn program(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

struct Work<'a> {
    compile: &'a Compile,
    /// The archives, and their length.
    to: Mutex<(File, u64)>,
    say: &'a Say<Ended>,
}

impl Work<'_> {
    /// Everything for one compiler.
    fn lane(&self, compiler: Compiler) -> io::Result<()> {
        let tasks = self.compile.tasks.iter().enumerate();
        let tasks: Vec<(usize, &Task)> =
            tasks.filter(|(_, t)| t.ask.compiler == compiler).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let program = PathBuf::from("/usr/bin").join(compiler.name());
        let sum = match regular::read(&program) {
            Ok(bytes) => hex::encode(Sha256::digest(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                tasks
                    .iter()
                    .for_each(|(number, _)| self.ended(*number, None));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        match compiler {
            Compiler::Py3compile => {
                // So that what they import is compiled for all of them, and none has another past than the rest.
                self.run(&[PY3COMPILE, &["--version"]].concat(), true)?;
                self.run(&[PYTHON, "-m", "py_compile", "-"], true)?;
                for (number, task) in tasks {
                    let done = self.compiled(PY3COMPILE, [task])?;
                    self.end(number, task, done, &sum)?;
                }
            }
            Compiler::Pypy3compile => {
                // PyPy's own first: with them it is quick.
                let own = |(_, task): &(usize, &Task)| task.ask.packages.len() > 1;
                let (own, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(own);
                for tasks in [own, others].into_iter().filter(|tasks| !tasks.is_empty()) {
                    // One start for all: it costs as much as a dozen modules.
                    let together = self.compiled(PYPY, tasks.iter().map(|(_, task)| *task))?;
                    for (number, task) in tasks {
                        let done = together || self.compiled(PYPY, [task])?;
                        self.end(number, task, done, &sum)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Has packages compiled; whether the compiler says that it did.
    fn compiled<'t>(
        &self,
        program: &[&'t str],
        tasks: impl IntoIterator<Item = &'t Task>,
    ) -> io::Result<bool> {
        let packages = tasks.into_iter().flat_map(|task| &task.ask.packages);
        let mut argv = program.to_vec();
        argv.extend(packages.flat_map(|package| ["-p", package]));
        self.run(&argv, false)
    }

    /// Whether a program did its work. With `warm` what it imports is kept.
    fn run(&self, argv: &[&str], warm: bool) -> io::Result<bool> {
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(false);
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.compile.env.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !warm {
            command.env("PYTHONDONTWRITEBYTECODE", "1");
        }
        kiln_sandbox::confine(&mut command);
        match command.status() {
            Ok(status) => Ok(status.success()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn end(&self, number: usize, task: &Task, done: bool, compiler: &str) -> io::Result<()> {
        let archive = match done {
            true => archive(Path::new("/"), task)?,
            false => None,
        };
        let Some(archive) = archive else {
            self.ended(number, None);
            return Ok(());
        };
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        to.0.write_all(&archive)?;
        let made = Made {
            compiler: compiler.to_owned(),
            at: to.1,
            length: archive.len() as u64,
        };
        to.1 += made.length;
        drop(to);
        self.ended(number, Some(made));
        Ok(())
    }

    fn ended(&self, task: usize, made: Option<Made>) {
        self.say.say(Ended { task, made });
    }
}

/// What a compiler made of a task's modules; `None` if that is absurdly much.
fn archive(root: &Path, task: &Task) -> io::Result<Option<Vec<u8>>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut directories: HashMap<PathBuf, Vec<String>> = HashMap::new();
    for module in &task.modules {
        let path = Path::new(module.path.trim_start_matches('/'));
        let (Some(parent), Some(stem)) = (path.parent(), path.file_stem()) else {
            continue;
        };
        let cache = parent.join("__pycache__");
        let names = match directories.get(&cache) {
            Some(names) => names,
            None => {
                let names = names(&root.join(&cache))?;
                directories.entry(cache.clone()).or_insert(names)
            }
        };
        let begin = format!("{}.{}", stem.to_string_lossy(), task.ask.compiler.tag());
        for name in names.iter().filter(|name| is_of(name, &begin)) {
            let place = root.join(&cache).join(name);
            let content = regular::read(&place)?;
            if builder.get_ref().len() + content.len() > MOST {
                return Ok(None);
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(fs::metadata(&place)?.mode() & 0o777);
            header.set_mtime(0);
            builder.append_data(&mut header, cache.join(name), content.as_slice())?;
        }
    }
    builder.into_inner().map(Some)
}

/// Whether a name is `begin`, more of a tag, and `.pyc`.
fn is_of(name: &str, begin: &str) -> bool {
    let rest = name.strip_prefix(begin);
    rest.and_then(|rest| rest.strip_suffix(".pyc"))
        .is_some_and(|tag| !tag.contains('.'))
}

/// The names in a directory, in order.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_has_what_one_compiler_made_of_the_modules_and_nothing_else() {
        let root = tempfile::tempdir().expect("a root");
        let cache = root.path().join("usr/lib/__pycache__");
        fs::create_dir_all(&cache).expect("a directory");
        for name in [
            "a.cpython-311.pyc",
            "a.cpython-311.opt-1.pyc",
            "a.pypy39.pyc",
            "a.b.cpython-311.pyc",
            "other.cpython-311.pyc",
        ] {
            fs::write(cache.join(name), name).expect("a file");
        }
        let module = |path: &str| Module {
            path: path.to_owned(),
            sha256: String::new(),
        };
        let task = |compiler| Task {
            ask: Ask {
                compiler,
                packages: vec!["tool".to_owned()],
            },
            modules: vec![module("/usr/lib/a.py"), module("/usr/share/none/b.py")],
        };
        for (compiler, expected) in [
            (Compiler::Py3compile, "a.cpython-311.pyc"),
            (Compiler::Pypy3compile, "a.pypy39.pyc"),
        ] {
            let archive = archive(root.path(), &task(compiler)).expect("an archive");
            let archive = archive.expect("not much");
            let mut found = Vec::new();
            let mut reader = tar::Archive::new(archive.as_slice());
            for entry in reader.entries().expect("entries") {
                let mut entry = entry.expect("an entry");
                let mut text = String::new();
                entry.read_to_string(&mut text).expect("its content");
                found.push((entry.path().expect("its path").into_owned(), text));
            }
            let path = Path::new("usr/lib/__pycache__").join(expected);
            assert_eq!(found, [(path, expected.to_owned())]);
        }
    }
}
