//! Running programs so that a failure explains itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::Result;

/// The command as it could be typed.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs with our own standard streams, but nothing to read.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("+ {}", describe(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| cannot_start(command, &error))?;
    judge(command, status)
}

/// Runs and returns what it prints; its standard error is part of the message if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "`{}` failed: {}\n{}",
            describe(command),
            output.status,
            said.trim_end()
        ));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| format!("`{}` printed what is not UTF-8", describe(command)))
}

/// Runs and passes each line of standard output on, after `look` has seen it.
pub(crate) fn watch(command: &mut Command, mut look: impl FnMut(&str)) -> Result<()> {
    println!("+ {}", describe(command));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| cannot_start(command, &error))?;
    let mut stdout = std::io::stdout();
    for line in child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(|out| out.split(b'\n'))
    {
        let line =
            line.map_err(|error| format!("reading from `{}`: {error}", describe(command)))?;
        look(&String::from_utf8_lossy(&line));
        let _ = stdout
            .write_all(&line)
            .and_then(|()| stdout.write_all(b"\n"))
            .and_then(|()| stdout.flush());
    }
    end(command, &mut child)
}

/// The same, and what it prints on either stream gets a name before each line: others print at the same time.
pub(crate) fn watch_named(
    name: &str,
    command: &mut Command,
    look: impl Fn(&str) + Sync,
) -> Result<()> {
    println!("{name}: + {}", describe(command));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| cannot_start(command, &error))?;
    let pass_on = |stream: &mut dyn Read| -> std::io::Result<()> {
        for line in BufReader::new(stream).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            look(&line);
            let mut stdout = std::io::stdout().lock();
            let _ = writeln!(stdout, "{name}: {line}").and_then(|()| stdout.flush());
        }
        Ok(())
    };
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let read = thread::scope(|scope| {
        let other = scope.spawn(|| stderr.as_mut().map_or(Ok(()), |stream| pass_on(stream)));
        let first = stdout.as_mut().map_or(Ok(()), |stream| pass_on(stream));
        let panicked = |_| Err(std::io::Error::other("its reader panicked"));
        first.and(other.join().unwrap_or_else(panicked))
    });
    read.map_err(|error| format!("reading from `{}`: {error}", describe(command)))?;
    end(command, &mut child)
}

fn end(command: &Command, child: &mut Child) -> Result<()> {
    let status = child
        .wait()
        .map_err(|error| format!("waiting for `{}`: {error}", describe(command)))?;
    judge(command, status)
}

fn judge(command: &Command, status: ExitStatus) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{}` failed: {status}", describe(command))),
    }
}

/// All processes that can be seen, with their command lines.
pub(crate) fn running() -> Result<Vec<(i32, Vec<String>)>> {
    let all = std::fs::read_dir("/proc").map_err(|error| format!("reading /proc: {error}"))?;
    let mut found = Vec::new();
    for entry in all.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // It may have ended since.
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned());
        found.push((pid, words.collect()));
    }
    Ok(found)
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!(
        "`{}` could not be started: {error}",
        command.get_program().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn both_streams_are_seen_and_a_failure_fails() {
        let seen = Mutex::new(Vec::new());
        let look = |line: &str| seen.lock().unwrap().push(line.to_owned());
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let failure = watch_named("lane", &mut command, look).unwrap_err();
        assert!(failure.contains("exit status: 3"), "{failure}");
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, ["one", "two"]);
    }
}
