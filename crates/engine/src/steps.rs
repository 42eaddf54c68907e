//! Steps: what the event stream and the build log say of each piece of work.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kiln_rootfs::Reporter;
use kiln_rootfs::private::Notice;
use kiln_sandbox::Stream;
use serde::Serialize;

use crate::space::{Disk, Space};
use crate::{Event, Unit};

/// Receives events. Called from several threads.
pub type Sink<'a> = &'a (dyn Fn(Event) + Sync);

/// Numbers steps, times them, and writes the build log.
pub(crate) struct Steps<'a> {
    sink: Sink<'a>,
    next: AtomicU32,
    log: Mutex<Option<Log>>,
    timings: Mutex<Vec<Timing>>,
    warnings: Mutex<Vec<String>>,
    began: Instant,
    again: AtomicBool,
    pub(crate) space: Space,
}

/// The build log. Each line is written when it comes: somebody may be reading, and a build that is killed should have said
/// where it was.
struct Log {
    file: File,
    /// Why something is missing in it.
    trouble: Option<io::Error>,
}

impl Log {
    /// A log that cannot be written (a full disk) must not stop the build: the artifacts' own writes will say so.
    fn line(&mut self, line: &str) {
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            self.trouble = Some(error);
        }
    }
}

/// How long a step took; part of the manifest.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// What it did.
    pub step: String,
    /// Seconds.
    pub seconds: f64,
    /// Whether the result was there already.
    pub cached: bool,
    /// Peak memory of the step's own processes in bytes, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(sink: Sink<'a>, log: Option<File>, space: Space) -> Self {
        Steps {
            sink,
            next: AtomicU32::new(1),
            log: Mutex::new(log.map(|file| Log {
                file,
                trouble: None,
            })),
            timings: Mutex::default(),
            warnings: Mutex::default(),
            began: Instant::now(),
            again: AtomicBool::new(false),
            space,
        }
    }

    /// Sends an event to everybody who listens, the log first. No text of it can do harm from here on.
    pub(crate) fn emit(&self, event: Event) {
        let event = event.neutral();
        self.log_event(&event);
        (self.sink)(event);
    }

    /// Runs `work` as a step.
    pub(crate) fn step<T>(
        &self,
        title: &str,
        layer: Option<&str>,
        unit: Unit,
        work: impl FnOnce(&Step<'_, '_>) -> Result<T, crate::Failure>,
    ) -> Result<T, crate::Failure> {
        self.step_because(None, title, layer, unit, work)
    }

    /// The same for a step whose earlier result cannot be reused, saying why.
    pub(crate) fn step_because<T>(
        &self,
        why: Option<String>,
        title: &str,
        layer: Option<&str>,
        unit: Unit,
        work: impl FnOnce(&Step<'_, '_>) -> Result<T, crate::Failure>,
    ) -> Result<T, crate::Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let layer = layer.map(str::to_owned);
        self.emit(Event::StepStarted {
            step: id,
            title: title.to_owned(),
            layer: layer.clone(),
            why,
        });
        let step = Step {
            steps: self,
            id,
            unit,
            summary: Mutex::new(None),
            peak: Mutex::new(None),
            full: Mutex::new(None),
        };
        let began = Instant::now();
        let result = work(&step);
        let seconds = began.elapsed().as_secs_f64();
        self.time(Timing {
            step: titled(title, layer.as_deref()),
            seconds,
            cached: false,
            peak_memory: take(&step.peak),
        });
        match result {
            Ok(value) => {
                self.emit(Event::StepFinished {
                    step: id,
                    seconds,
                    summary: take(&step.summary),
                });
                Ok(value)
            }
            Err(mut failure) => {
                failure.layer = failure.layer.or(layer);
                self.emit(Event::StepFailed { step: id, seconds });
                Err(failure)
            }
        }
    }

    /// Says that a step's result was there already.
    pub(crate) fn cached(&self, title: &str, layer: Option<&str>) {
        self.cached_here(title, layer, false);
    }

    /// As [`Steps::cached`], and whether this build took it from the shared cache.
    pub(crate) fn cached_here(&self, title: &str, layer: Option<&str>, shared: bool) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.time(Timing {
            step: titled(title, layer),
            seconds: 0.0,
            cached: true,
            peak_memory: None,
        });
        self.emit(Event::StepCached {
            step: id,
            title: title.to_owned(),
            layer: layer.map(str::to_owned),
            shared,
        });
    }

    pub(crate) fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.emit(Event::Warning {
            step: None,
            message,
            origin,
            hint,
        });
    }

    /// Notes that a build goes through its list again.
    pub(crate) fn begin_again(&self) {
        self.again.store(true, Ordering::Relaxed);
    }

    /// As [`Steps::warn`], unless it was said before the build began again: it finds the same about its definition.
    pub(crate) fn warn_once(&self, message: String, origin: Option<String>, hint: Option<String>) {
        let text = located(&message, origin.as_deref());
        if !(self.again.load(Ordering::Relaxed) && self.warnings().contains(&text)) {
            self.warn(message, origin, hint);
        }
    }

    /// Says what was found about private directories.
    pub(crate) fn notices(&self, notices: &[Notice]) {
        for notice in notices {
            self.warn(notice.message.clone(), None, Some(notice.hint.clone()));
        }
    }

    pub(crate) fn timings(&self) -> Vec<Timing> {
        locked(&self.timings).clone()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        locked(&self.warnings).clone()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Writes the log so far into another file.
    ///
    /// # Errors
    /// The log could not be written to its end, or cannot be copied.
    pub(crate) fn copy_log(&self, mut to: File) -> io::Result<()> {
        let mut log = locked(&self.log);
        let Some(log) = log.as_mut() else {
            return Ok(());
        };
        if let Some(error) = log.trouble.take() {
            return Err(error);
        }
        let end = log.file.stream_position()?;
        log.file.rewind()?;
        io::copy(&mut log.file, &mut to)?;
        log.file.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    fn time(&self, timing: Timing) {
        locked(&self.timings).push(timing);
    }

    fn log_event(&self, event: &Event) {
        let line = match event {
            Event::StepStarted {
                title, layer, why, ..
            } => {
                let why = why.as_ref();
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                format!("==> {}{why}", titled(title, layer.as_deref()))
            }
            Event::StepCached {
                title,
                layer,
                shared,
                ..
            } => {
                let origin = if *shared {
                    ", from the shared cache"
                } else {
                    ""
                };
                format!("==> {} (cached{origin})", titled(title, layer.as_deref()))
            }
            Event::StepFinished {
                seconds, summary, ..
            } => {
                let summary = summary.as_ref();
                let summary = summary.map_or_else(String::new, |s| format!(": {s}"));
                format!("    done in {seconds:.2} s{summary}")
            }
            Event::StepFailed { seconds, .. } => format!("    failed after {seconds:.2} s"),
            Event::Log { line, .. } => line.clone(),
            Event::Warning {
                message, origin, ..
            } => {
                let text = located(message, origin.as_deref());
                locked(&self.warnings).push(text.clone());
                format!("warning: {text}")
            }
            _ => return,
        };
        if let Some(log) = locked(&self.log).as_mut() {
            log.line(&line);
        }
    }
}

fn located(message: &str, origin: Option<&str>) -> String {
    match origin {
        Some(origin) => format!("{origin}: {message}"),
        None => message.to_owned(),
    }
}

fn titled(title: &str, layer: Option<&str>) -> String {
    match layer {
        Some(layer) => format!("{layer}: {title}"),
        None => title.to_owned(),
    }
}

/// Locks, also where a thread panicked that had it: what it noted before is still told.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(cell: &Mutex<Option<T>>) -> Option<T> {
    cell.lock().ok().and_then(|mut c| c.take())
}

/// A step that runs.
pub(crate) struct Step<'s, 'a> {
    steps: &'s Steps<'a>,
    id: u32,
    unit: Unit,
    summary: Mutex<Option<String>>,
    peak: Mutex<Option<u64>>,
    /// The disk that a program of this step found full, and how it said so.
    full: Mutex<Option<(Disk, String)>>,
}

impl Step<'_, '_> {
    /// Fails if a program of this step found a disk of the build full, although it went on: what it made may lack anything.
    pub(crate) fn had_room(&self) -> Result<(), crate::Failure> {
        take(&self.full).map_or(Ok(()), |(disk, said)| {
            let failure = crate::Failure::new(
                crate::FailureKind::Environment,
                "a program of this step could not write all that it wanted to, and went on",
            );
            Err(self.steps.space.blame(disk, failure.cause(said)))
        })
    }

    /// A failure of this step, while the step's files are still there.
    pub(crate) fn explain(&self, failure: crate::Failure) -> crate::Failure {
        self.steps.space.explain(failure)
    }

    /// A figure worth showing when the step is done.
    pub(crate) fn summarise(&self, summary: String) {
        if let Ok(mut cell) = self.summary.lock() {
            *cell = Some(summary);
        }
    }

    /// Peak memory of a process of this step.
    pub(crate) fn peak_memory(&self, bytes: u64) {
        if let Ok(mut cell) = self.peak.lock() {
            *cell = Some(cell.unwrap_or(0).max(bytes));
        }
    }
}

impl Reporter for Step<'_, '_> {
    fn line(&self, stream: Stream, line: &str) {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Syslog => "syslog",
            Stream::Console => "console",
        };
        if let Some(disk) = self.steps.space.listen(line)
            && let Ok(mut full) = self.full.lock()
        {
            *full = Some((disk, line.to_owned()));
        }
        self.steps.emit(Event::Log {
            step: self.id,
            stream: stream.into(),
            line: line.to_owned(),
        });
    }

    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>) {
        let item = item.map(str::to_owned);
        self.steps.emit(Event::Progress {
            step: self.id,
            done,
            total,
            unit: self.unit,
            item,
        });
    }

    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.steps.emit(Event::Warning {
            step: Some(self.id),
            message,
            origin,
            hint,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, FailureKind};

    /// What a listener hears of some work, as lines of JSON.
    fn heard(work: impl FnOnce(&Steps<'_>)) -> Vec<String> {
        let lines = Mutex::new(Vec::new());
        let sink = |event: Event| {
            let line = serde_json::to_string(&event).expect("JSON");
            lines.lock().expect("a lock").push(line);
        };
        let space = Space::new(std::path::Path::new("/nonexistent"), None);
        work(&Steps::new(&sink, None, space));
        lines.into_inner().expect("a lock")
    }

    #[test]
    fn what_was_said_of_a_definition_is_not_said_again() {
        let lines = heard(|steps| {
            let say = || {
                let origin = Some("a.ks:1".to_owned());
                steps.warn_once("the key is short".to_owned(), origin, None);
            };
            // Two that are alike are two as long as nothing began again.
            (0..2).for_each(|_| say());
            steps.begin_again();
            say();
            steps.warn_once(
                "the key is short".to_owned(),
                Some("b.ks:1".to_owned()),
                None,
            );
        });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].contains("b.ks:1"));
    }

    #[test]
    fn a_step_that_fails_ends_before_its_failure_is_told_and_has_its_layer() {
        let failed = Mutex::new(None);
        let lines = heard(|steps| {
            let result = steps.step("running", Some("lab"), Unit::Files, |step| {
                step.line(Stream::Stderr, "no such file");
                Err::<(), _>(Failure::new(FailureKind::Step, "it ended"))
            });
            *failed.lock().expect("a lock") = result.err();
            assert_eq!(steps.timings().len(), 1);
        });
        let kinds = ["step-started", "log", "step-failed"];
        assert_eq!(lines.len(), kinds.len(), "{lines:?}");
        assert!(
            lines
                .iter()
                .zip(kinds)
                .all(|(line, kind)| line.contains(kind))
        );
        let failed = failed.into_inner().expect("a lock").expect("a failure");
        assert_eq!(failed.layer.as_deref(), Some("lab"));
    }
}
