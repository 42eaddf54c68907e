//! Runs `kiln` hermetically.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A directory of its own with home and files.
pub(crate) struct Sandbox {
    directory: TempDir,
}

/// What a run left, with paths and the version normalised.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("kiln-cli-")
            .tempdir()
            .expect("a temporary directory");
        fs::create_dir(directory.path().join("home")).expect("a home");
        Sandbox { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// The command with an environment that holds nothing but a home, a path and the clock.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .env_clear()
            .current_dir(self.path())
            .args(arguments)
            .stdin(Stdio::null());
        command
            .env("HOME", self.path().join("home"))
            .env("PATH", "/usr/bin:/bin")
            .env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    pub(crate) fn kiln(&self, arguments: &[&str]) -> Ran {
        self.run(&mut self.command(arguments))
    }

    pub(crate) fn kiln_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kiln starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("kiln reads");
        self.ran(&child.wait_with_output().expect("kiln ends"))
    }

    pub(crate) fn run(&self, command: &mut Command) -> Ran {
        self.ran(&command.output().expect("kiln starts"))
    }

    fn ran(&self, output: &std::process::Output) -> Ran {
        let normal = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            text.replace(&self.path().display().to_string(), "$DIR")
                .replace(env!("CARGO_PKG_VERSION"), "$VERSION")
        };
        let code = output
            .status
            .code()
            .unwrap_or_else(|| panic!("kiln was killed: {}", output.status));
        Ran {
            code,
            stdout: normal(&output.stdout),
            stderr: normal(&output.stderr),
        }
    }
}

impl Ran {
    /// Exit code and both streams, for snapshots.
    pub(crate) fn whole(&self) -> String {
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}
