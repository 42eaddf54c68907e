//! Runs programs of the root.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::Executor;
use super::error::{Fault, ProgramFailure, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Lines that an error keeps.
const TAIL: usize = 30;
/// Bytes of a line that are kept; the rest of it is dropped.
const LONGEST_LINE: usize = 4096;

/// Whether the root has the program.
pub(super) fn is_present(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    PATH.split(':')
        .any(|dir| Path::new(dir).join(program).is_file())
}

impl Executor<'_> {
    /// Runs a program to its end with a clean environment; `input` goes to its standard input and is shown nowhere.
    pub(super) fn run(&mut self, argv: &[String], input: Option<&str>) -> Result {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Fault::internal("an empty command line"))?;
        if !is_present(program) {
            return Err(Fault::step(format!("the root has no program {program}"))
                .hint("add the package that brings it to %packages"));
        }
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/");
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        let (status, tail) = self
            .watch(&mut command, input)
            .map_err(|e| Fault::step(format!("`{}` could not be run: {e}", argv.join(" "))))?;
        if status.success() {
            return Ok(());
        }
        let (code, signal) = (status.code(), status.signal());
        Err(Fault::program(ProgramFailure {
            argv: argv.to_vec(),
            code,
            signal,
            tail,
        }))
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("PATH", PATH.to_owned()),
            ("HOME", "/root".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("TERM", "dumb".to_owned()),
            ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
            // systemctl then works on files alone, and never looks for a running systemd.
            ("SYSTEMD_OFFLINE", "1".to_owned()),
        ];
        environment.extend(
            self.settings
                .epoch
                .map(|e| ("SOURCE_DATE_EPOCH", e.to_string())),
        );
        environment
    }

    /// Standard output and error share one pipe, so that their lines stay in order.
    fn watch(
        &mut self,
        command: &mut Command,
        input: Option<&str>,
    ) -> std::io::Result<(ExitStatus, Vec<String>)> {
        let (mut reader, writer) = std::io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        kiln_sandbox::confine(command);
        let mut child = command.spawn()?;
        // The command holds the pipe's other ends; without them gone the reader would wait for ever.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A password file is far smaller than a pipe's buffer; a program that does not read it says so by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let tail = self.pass_on(&mut reader);
        let status = child.wait()?;
        tail.map(|t| (status, t))
    }

    fn pass_on(&mut self, reader: &mut impl Read) -> std::io::Result<Vec<String>> {
        let mut tail = VecDeque::new();
        let mut line = Vec::new();
        let mut buffer = [0u8; 8192];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            for byte in buffer.iter().take(count) {
                match byte {
                    b'\n' => self.end_line(&mut line, &mut tail),
                    _ if line.len() < LONGEST_LINE => line.push(*byte),
                    _ => {}
                }
            }
            if count == 0 {
                if !line.is_empty() {
                    self.end_line(&mut line, &mut tail);
                }
                return Ok(tail.into());
            }
        }
    }

    fn end_line(&mut self, line: &mut Vec<u8>, tail: &mut VecDeque<String>) {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        self.say(&text);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(text);
    }
}

/// Owned words of a command line.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
