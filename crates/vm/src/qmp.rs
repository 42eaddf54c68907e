//! A client for QEMU's machine protocol (QMP): JSON lines over a socket.
//!
//! Source: `docs/interop/qmp-spec.rst` of QEMU. Answers come in the order of the commands; events may stand between.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

/// No message of QEMU's comes near this.
const MESSAGE_LIMIT: usize = 16 << 20;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// QEMU closed the connection: it ended.
    #[error("QEMU closed its control connection")]
    Closed,
    /// No answer in time.
    #[error("QEMU does not answer on its control connection")]
    Timeout,
    /// QEMU refused the command.
    #[error("QEMU refused a command: {0}")]
    Refused(String),
    /// What came was not QMP.
    #[error("QEMU sent something that is not QMP: {0}")]
    Malformed(String),
}

/// Something that happened in the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// As in `RESET`.
    pub(crate) name: String,
    /// Its data, an object, or null.
    pub(crate) data: Value,
}

/// One control connection.
pub(crate) struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    timeout: Duration,
}

impl Qmp {
    /// Takes a fresh connection and greets. `timeout` bounds every later command too.
    pub(crate) fn new(stream: UnixStream, timeout: Duration) -> Result<Qmp, QmpError> {
        stream.set_nonblocking(true).map_err(|_| QmpError::Closed)?;
        let mut qmp = Qmp {
            stream,
            buffer: Vec::new(),
            events: VecDeque::new(),
            timeout,
        };
        let greeting = qmp.message(Instant::now() + timeout)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Malformed(greeting.to_string()));
        }
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    pub(crate) fn command(&mut self, name: &str, arguments: Value) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.timeout;
        let mut line = json!({"execute": name, "arguments": arguments}).to_string();
        line.push('\n');
        self.send(line.as_bytes(), deadline)?;
        loop {
            let mut message = self.message(deadline)?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                return Err(QmpError::Refused(format!(
                    "{name}: {}",
                    error["desc"].as_str().unwrap_or("?")
                )));
            }
            self.keep_event(&message);
        }
    }

    /// The next event that has arrived; never waits.
    pub(crate) fn event(&mut self) -> Result<Option<Event>, QmpError> {
        match self.receive() {
            Ok(_) => {}
            // What came before the end is still worth knowing.
            Err(QmpError::Closed) if !self.events.is_empty() || self.buffer.contains(&b'\n') => {}
            Err(error) => return Err(error),
        }
        while let Some(message) = self.next_line()? {
            self.keep_event(&message);
        }
        Ok(self.events.pop_front())
    }

    fn keep_event(&mut self, message: &Value) {
        if let Some(name) = message["event"].as_str() {
            self.events.push_back(Event {
                name: name.to_owned(),
                data: message["data"].clone(),
            });
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            if let Some(message) = self.next_line()? {
                return Ok(message);
            }
            if !self.receive()? {
                self.ready(PollFlags::IN, deadline)?;
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Value>, QmpError> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).map_err(|_| {
            QmpError::Malformed(String::from_utf8_lossy(&line).chars().take(200).collect())
        })
    }

    /// Takes what is there; says whether there was anything.
    fn receive(&mut self) -> Result<bool, QmpError> {
        let mut chunk = [0; 16384];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(QmpError::Closed),
            Ok(_) if self.buffer.len() > MESSAGE_LIMIT => {
                Err(QmpError::Malformed("a message without end".into()))
            }
            Ok(count) => {
                self.buffer.extend(chunk.iter().take(count));
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(false)
            }
            Err(_) => Err(QmpError::Closed),
        }
    }

    fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), QmpError> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.ready(PollFlags::OUT, deadline)?
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(QmpError::Closed),
            }
        }
        Ok(())
    }

    fn ready(&self, flags: PollFlags, deadline: Instant) -> Result<(), QmpError> {
        let left = deadline
            .checked_duration_since(Instant::now())
            .ok_or(QmpError::Timeout)?;
        let timeout = Timespec::try_from(left).map_err(|_| QmpError::Timeout)?;
        match poll(&mut [PollFd::new(&self.stream, flags)], Some(&timeout)) {
            Ok(0) => Err(QmpError::Timeout),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(QmpError::Closed),
        }
    }
}

impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;

    /// A QEMU that answers each command with the next of `answers`.
    fn served(answers: &'static [&'static str]) -> Result<Qmp, QmpError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut out = theirs.try_clone().unwrap();
            let mut commands = BufReader::new(theirs).lines();
            let mut answers = answers.iter();
            out.write_all(format!("{}\r\n", answers.next().unwrap_or(&"")).as_bytes())
                .unwrap();
            for answer in answers {
                let _ = commands.next();
                let _ = out.write_all(format!("{answer}\r\n").as_bytes());
            }
        });
        Qmp::new(ours, Duration::from_millis(500))
    }

    #[test]
    fn events_between_answers_are_kept_in_order() {
        let reset = r#"{"event":"RESET","data":{"guest":true},"timestamp":{}}"#;
        let many: &str = Box::leak(
            format!("{reset}\n{reset}\n{{\"return\":{{\"status\":\"running\"}}}}").into_boxed_str(),
        );
        let answers: &[&str] = Box::leak(Box::new([GREETING, r#"{"return":{}}"#, many]));
        let mut qmp = served(answers).unwrap();
        assert_eq!(
            qmp.command("query-status", json!({})).unwrap()["status"],
            "running"
        );
        assert_eq!(qmp.event().unwrap().unwrap().name, "RESET");
        assert_eq!(qmp.event().unwrap().unwrap().data["guest"], true);
        assert!(!matches!(qmp.event(), Ok(Some(_))));
    }

    #[test]
    fn refusals_name_the_command() {
        let mut qmp = served(&[
            GREETING,
            r#"{"return":{}}"#,
            r#"{"error":{"class":"GenericError","desc":"no display"}}"#,
        ])
        .unwrap();
        let error = qmp.command("screendump", json!({})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "QEMU refused a command: screendump: no display"
        );
    }

    #[test]
    fn strangers_silence_and_closing_are_errors() {
        assert!(matches!(served(&["hello"]), Err(QmpError::Malformed(_))));
        assert!(matches!(served(&["{}"]), Err(QmpError::Malformed(_))));
        assert!(matches!(
            served(&[GREETING]),
            Err(QmpError::Closed | QmpError::Timeout)
        ));
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(
            Qmp::new(ours, Duration::from_millis(50)),
            Err(QmpError::Timeout)
        ));
        drop(theirs);
    }
}
