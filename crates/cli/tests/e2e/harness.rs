//! Runs `kiln` in directories of its own, one test at a time, over one warm cache.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::lane;
pub(crate) use crate::lane::base;
use crate::residue::Residue;
use crate::stock::Stock;

/// What every run is told about the target.
pub(crate) const TARGET: &[&str] = &["--distribution", "debian:bookworm"];
/// No run takes longer, not even the first one on a slow machine.
pub(crate) const LONGEST: Duration = Duration::from_secs(1500);

static TURN: Mutex<()> = Mutex::new(());
static WARM: OnceLock<()> = OnceLock::new();

/// A test's turn: its directory, and the state of the machine before it.
pub(crate) struct Turn {
    directory: TempDir,
    pub(crate) before: Residue,
    /// Taken before anything that the test itself builds.
    stock: Stock,
    _turn: MutexGuard<'static, ()>,
}

/// How a run ended.
pub(crate) struct Ran {
    /// `None`: killed by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) time: Duration,
    /// Peak resident memory of the process itself, in bytes.
    pub(crate) memory: u64,
}

impl Turn {
    /// Waits for the turn, with a copy of the minimal definition; nothing is warm yet.
    pub(crate) fn cold() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        // Orphans come to this process, so that none can hide.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
        let directory = tempfile::Builder::new()
            .prefix(&lane::prefix())
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a temporary directory");
        fs::create_dir(directory.path().join("home")).expect("a home");
        fs::copy(example(), directory.path().join("minimal.ks")).expect("the example");
        Turn {
            directory,
            before: Residue::now(),
            stock: Stock::of(cache()),
            _turn: turn,
        }
    }

    /// Waits for the turn, with the minimal image built and its lock beside the copy of its definition.
    pub(crate) fn warm() -> Self {
        let mut turn = Turn::cold();
        WARM.get_or_init(|| {
            turn.warm_up();
            turn.stock.keep();
        });
        fs::copy(
            base().join("minimal.kiln.lock"),
            turn.path("minimal.kiln.lock"),
        )
        .expect("the lock");
        turn
    }

    fn warm_up(&self) {
        let _alone = lane::alone();
        fs::create_dir_all(base()).expect("a directory for what the tests share");
        let definition = base().join("minimal.ks");
        fs::copy(example(), &definition).expect("the example");
        let _ = fs::remove_dir_all(image());
        self.kiln(&["lock", "--keep-metadata", &text(&definition)])
            .assert(0);
        self.kiln(&[
            "build",
            "--locked",
            &text(&definition),
            "-o",
            &text(&image()),
        ])
        .assert(0);
        lane::hand_over(&cache());
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file");
    }

    /// A file that only its owner may read.
    pub(crate) fn write_secret(&self, name: &str, content: &str) {
        self.write(name, content);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(self.path(name), private).expect("a mode");
    }

    /// The minimal definition with more at its end: everything below that is cached.
    pub(crate) fn minimal_with(&self, more: &str) {
        let minimal = fs::read_to_string(example()).expect("the definition");
        self.write("minimal.ks", &format!("{minimal}\n{more}"));
    }

    /// `kiln` with the warm cache and an environment that holds nothing of this machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        // Options go before the operands: what follows `--` is not Kiln's.
        command.args(arguments.first());
        if !arguments.contains(&"--cache-dir") {
            command.arg("--cache-dir").arg(cache());
        }
        command.args(arguments.iter().skip(1));
        if matches!(arguments.first(), Some(&("build" | "lock" | "plan")))
            && !arguments.contains(&"--distribution")
        {
            command.args(TARGET);
        }
        command.env_clear().current_dir(self.directory.path());
        command
            .env("HOME", self.path("home"))
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command
    }

    pub(crate) fn kiln(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments), LONGEST)
    }

    /// Boots a disk, runs a script in it, and returns what that printed; the report is in `boot`.
    pub(crate) fn boot(&self, disk: &Path, script: &Path) -> String {
        let (disk, script, output) = (text(disk), text(script), text(&self.path("boot")));
        let options = ["--expect", "login", "--script", &script, "-o", &output];
        let ran = self.kiln(&[&["test", &disk], &options[..]].concat());
        ran.assert(0);
        let report = fs::read_to_string(self.path("boot/boot.json")).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let said = report["script"]["output"].as_str();
        said.expect("what the script printed").replace('\r', "")
    }

    /// Fails if the build left anything: output, staging, processes, mounts, loop devices.
    pub(crate) fn assert_clean(&self, ran: &Ran) {
        let left = self.before.since(&self.path("output"), &cache());
        assert!(left.is_empty(), "left behind: {left:#?}\n{}", ran.whole());
    }
}

impl Ran {
    /// Everything, for messages.
    pub(crate) fn whole(&self) -> String {
        let shown = |text: &str| text.chars().take(20_000).collect::<String>();
        format!(
            "exit {:?} after {:.1?}, {} MiB\n--- stdout\n{}--- stderr\n{}",
            self.code,
            self.time,
            self.memory >> 20,
            shown(&self.stdout),
            shown(&self.stderr)
        )
    }

    /// Fails unless the exit code is this one.
    pub(crate) fn assert(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.whole());
        self
    }

    /// Fails unless standard error has all of these.
    pub(crate) fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word:?} is not said\n{}",
                self.whole()
            );
        }
        self
    }
}

/// The definition that most tests build.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/minimal.ks")
}

/// The warm cache.
pub(crate) fn cache() -> PathBuf {
    base().join("cache")
}

/// The minimal image, once a warm turn has come.
pub(crate) fn image() -> PathBuf {
    base().join("image")
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Runs a command to its end, or fails when it takes too long.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Ran {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    finish(
        child.unwrap_or_else(|error| panic!("{command:?}: {error}")),
        limit,
    )
}

/// Waits for a process whose streams are pipes.
pub(crate) fn finish(mut child: Child, limit: Duration) -> Ran {
    let began = Instant::now();
    let stdout = gather(child.stdout.take());
    let stderr = gather(child.stderr.take());
    let mut memory = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        memory = memory.max(peak_memory(child.id()));
        if began.elapsed() > limit {
            child.kill().expect("a child to kill");
            child.wait().expect("a killed child");
            let said = stderr.join().expect("a reader");
            panic!("not done after {limit:?}:\n{said}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let time = began.elapsed();
    let read = |stream: thread::JoinHandle<String>| stream.join().expect("a reader");
    Ran {
        code: status.code(),
        stdout: read(stdout),
        stderr: read(stderr),
        time,
        memory,
    }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).expect("a pipe");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Runs a tool that judges; its output.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("LC_ALL", "C");
    run(&mut command, LONGEST)
}

/// SHA-256 of a file, as coreutils see it.
pub(crate) fn digest(path: &Path) -> String {
    let sum = tool("sha256sum", &[&text(path)]);
    sum.assert(0)
        .stdout
        .split_whitespace()
        .next()
        .expect("a digest")
        .to_owned()
}
