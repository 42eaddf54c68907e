//! What runs, what ended and what is worth keeping: events turned into lines. Pure; time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kiln_engine::{Event, Unit};

use super::style::{Palette, paint};
use super::text::{bytes, columns, count, duration, fit, sanitize, seconds};
use crate::settings::Verbosity;

/// Progress further back than this says nothing about the present rate.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Before this much time no rate is shown: it would jump.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// Columns of the word in front of each line.
const VERB_WIDTH: usize = 8;
/// Columns of a bar with its brackets.
const BAR_WIDTH: usize = 24;

/// All steps of a build as far as people care.
#[derive(Debug)]
pub(crate) struct Board {
    palette: Palette,
    verbosity: Verbosity,
    /// Whether running steps show as moving lines; if not, their start is a line of its own.
    live: bool,
    running: BTreeMap<u32, Step>,
}

#[derive(Debug)]
struct Step {
    title: String,
    started: Duration,
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    done: u64,
    total: Option<u64>,
    unit: Unit,
    item: Option<String>,
    samples: VecDeque<(Duration, u64)>,
}

impl Board {
    /// An empty board.
    pub(crate) fn new(palette: Palette, verbosity: Verbosity, live: bool) -> Self {
        Board {
            palette,
            verbosity,
            live,
            running: BTreeMap::new(),
        }
    }

    /// Takes in an event at a time since the start; returns the lines that stay on the screen.
    pub(crate) fn take(&mut self, event: &Event, now: Duration) -> Vec<String> {
        let normal = self.verbosity != Verbosity::Quiet;
        match event {
            Event::BuildStarted { name, plan_id } if normal => {
                vec![self.build_started(name, plan_id)]
            }
            Event::StepStarted {
                step,
                title,
                layer,
                why,
            } => {
                let mut lines = self.step_started(*step, title, layer.as_deref(), now);
                lines.extend(why.as_deref().and_then(|why| self.because(why)));
                lines
            }
            Event::StepCached {
                title,
                layer,
                shared,
                ..
            } if normal => {
                let mut text = full_title(title, layer.as_deref());
                if *shared {
                    text += " (from the shared cache)";
                }
                vec![self.verb_line(self.palette.good, "cached", &text)]
            }
            Event::Progress {
                step,
                done,
                total,
                unit,
                item,
            } => {
                self.progress(*step, *done, *total, *unit, item.as_deref(), now);
                Vec::new()
            }
            Event::Log { step, line, .. } => self.log(*step, line),
            Event::Warning {
                message,
                origin,
                hint,
                ..
            } => self.warning(message, origin.as_deref(), hint.as_deref()),
            Event::StepFinished {
                step,
                seconds,
                summary,
            } => self.step_finished(*step, *seconds, summary.as_deref()),
            Event::StepFailed { step, seconds } => self.step_failed(*step, *seconds),
            Event::Artifact {
                path,
                bytes: size,
                allocated,
                kept,
            } if normal => {
                vec![self.artifact(&path.to_string_lossy(), *size, *allocated, *kept)]
            }
            Event::BuildFinished {
                seconds: time,
                output,
            } if normal => {
                let text = format!(
                    "in {}; artifacts are in {}",
                    seconds(*time),
                    output.display()
                );
                vec![self.verb_line(self.palette.good, "finished", &sanitize(&text))]
            }
            // The failure itself is rendered last of all, by whoever gets it as an error.
            _ => Vec::new(),
        }
    }

    /// A line that stays, unless little is to be said.
    pub(crate) fn note(&self, verb: &str, text: &str) -> Vec<String> {
        if self.verbosity == Verbosity::Quiet {
            return Vec::new();
        }
        vec![self.verb_line(self.palette.note, verb, &sanitize(text))]
    }

    /// One line for each running step, no wider than `width`.
    pub(crate) fn running_lines(&self, now: Duration, width: usize) -> Vec<String> {
        self.running
            .values()
            .map(|step| self.running_line(step, now, width))
            .collect()
    }

    fn verb_line(&self, style: anstyle::Style, verb: &str, text: &str) -> String {
        format!("{} {text}", paint(style, &format!("{verb:>VERB_WIDTH$}")))
    }

    fn build_started(&self, name: &str, plan_id: &str) -> String {
        let id: String = sanitize(plan_id).chars().take(12).collect();
        let text = format!(
            "{} {}",
            sanitize(name),
            paint(self.palette.dim, &format!("(plan {id})"))
        );
        self.verb_line(self.palette.good, "building", &text)
    }

    fn step_started(
        &mut self,
        step: u32,
        title: &str,
        layer: Option<&str>,
        now: Duration,
    ) -> Vec<String> {
        let title = full_title(title, layer);
        let shown = !self.live && self.verbosity != Verbosity::Quiet;
        let lines = if shown {
            vec![self.verb_line(self.palette.note, "running", &title)]
        } else {
            Vec::new()
        };
        self.running.insert(
            step,
            Step {
                title,
                started: now,
                progress: None,
            },
        );
        lines
    }

    /// Why a step runs; for those who want to know everything.
    fn because(&self, why: &str) -> Option<String> {
        let text = format!("because {}", sanitize(why));
        let line = self.verb_line(self.palette.dim, "", &paint(self.palette.dim, &text));
        (self.verbosity == Verbosity::Verbose).then_some(line)
    }

    fn progress(
        &mut self,
        step: u32,
        done: u64,
        total: Option<u64>,
        unit: Unit,
        item: Option<&str>,
        now: Duration,
    ) {
        let Some(step) = self.running.get_mut(&step) else {
            return;
        };
        let fresh = || Progress {
            done: 0,
            total: None,
            unit,
            item: None,
            samples: VecDeque::new(),
        };
        let progress = step.progress.get_or_insert_with(fresh);
        if progress.unit != unit || done < progress.done {
            *progress = fresh();
        }
        progress.done = done;
        progress.total = total;
        progress.item = item.map(sanitize);
        progress.sample(now);
    }

    fn log(&self, step: u32, line: &str) -> Vec<String> {
        if self.verbosity != Verbosity::Verbose {
            return Vec::new();
        }
        // With one step at work its name before every line would be noise.
        let name = match self.running.get(&step) {
            Some(step) if self.running.len() > 1 => format!("{}: ", fit(&step.title, 24)),
            _ => String::new(),
        };
        let bar = paint(self.palette.dim, &format!("{:>VERB_WIDTH$} {name}", "|"));
        vec![format!("{bar}{}", sanitize(line))]
    }

    fn warning(&self, message: &str, origin: Option<&str>, hint: Option<&str>) -> Vec<String> {
        let place = origin.map_or_else(String::new, |origin| format!("{}: ", sanitize(origin)));
        let text = format!("{place}{}", sanitize(message));
        let mut lines = vec![self.verb_line(self.palette.warning, "warning", &text)];
        if let Some(hint) = hint {
            lines.push(self.verb_line(self.palette.note, "hint", &sanitize(hint)));
        }
        lines
    }

    fn step_finished(&mut self, step: u32, time: f64, summary: Option<&str>) -> Vec<String> {
        let title = self
            .running
            .remove(&step)
            .map_or_else(|| format!("step {step}"), |step| step.title);
        if self.verbosity == Verbosity::Quiet {
            return Vec::new();
        }
        let summary =
            summary.map_or_else(String::new, |summary| format!(": {}", sanitize(summary)));
        let time = paint(self.palette.dim, &format!("({})", seconds(time)));
        vec![self.verb_line(
            self.palette.good,
            "done",
            &format!("{title}{summary} {time}"),
        )]
    }

    fn step_failed(&mut self, step: u32, time: f64) -> Vec<String> {
        let title = self
            .running
            .remove(&step)
            .map_or_else(|| format!("step {step}"), |step| step.title);
        let time = paint(self.palette.dim, &format!("({})", seconds(time)));
        vec![self.verb_line(self.palette.error, "failed", &format!("{title} {time}"))]
    }

    fn artifact(&self, path: &str, size: u64, allocated: u64, kept: bool) -> String {
        let sparse = if allocated < size {
            format!(", {} on disk", bytes(allocated))
        } else {
            String::new()
        };
        let size = paint(self.palette.dim, &format!("({}{sparse})", bytes(size)));
        self.verb_line(
            self.palette.good,
            if kept { "kept" } else { "wrote" },
            &format!("{} {size}", sanitize(path)),
        )
    }

    /// Drops what does not fit, the least telling part first: item, rate, bar, figures.
    fn running_line(&self, step: &Step, now: Duration, width: usize) -> String {
        let parts = Parts::of(step, now);
        let room = width.saturating_sub(VERB_WIDTH + 1);
        let line = (0..=Parts::LEVELS)
            .map(|level| parts.joined(level))
            .find(|line| columns(line) <= room);
        let line = line.unwrap_or_else(|| fit(&step.title, room));
        let verb = paint(self.palette.note, &format!("{:>VERB_WIDTH$}", "running"));
        format!("{verb} {line}")
    }
}

fn full_title(title: &str, layer: Option<&str>) -> String {
    match layer {
        Some(layer) => format!("{}: {}", sanitize(layer), sanitize(title)),
        None => sanitize(title),
    }
}

/// The pieces of a running step's line.
struct Parts {
    title: String,
    bar: Option<String>,
    figures: Option<String>,
    rate: Option<String>,
    time: String,
    item: Option<String>,
}

impl Parts {
    /// How often [`Parts::joined`] can drop something.
    const LEVELS: usize = 4;

    fn of(step: &Step, now: Duration) -> Parts {
        let elapsed = now.saturating_sub(step.started);
        let progress = step.progress.as_ref();
        let rate = progress.and_then(|progress| progress.rate(now));
        let left = progress
            .zip(rate)
            .and_then(|(progress, rate)| progress.time_left(rate));
        Parts {
            title: step.title.clone(),
            bar: progress.and_then(Progress::bar),
            figures: progress.map(Progress::figures),
            rate: progress
                .zip(rate)
                .map(|(progress, rate)| progress.rate_text(rate)),
            time: left.map_or_else(
                || duration(elapsed),
                |left| format!("{} left", duration(left)),
            ),
            item: progress.and_then(|progress| progress.item.clone()),
        }
    }

    fn joined(&self, dropped: usize) -> String {
        let optional = [(&self.bar, 3), (&self.figures, 4), (&self.rate, 2)];
        let mut parts = vec![self.title.as_str()];
        parts.extend(
            optional
                .iter()
                .filter(|(_, level)| dropped < *level)
                .filter_map(|(part, _)| part.as_deref()),
        );
        parts.push(&self.time);
        parts.extend(self.item.as_deref().filter(|_| dropped < 1));
        parts.join("  ")
    }
}

impl Progress {
    fn sample(&mut self, now: Duration) {
        self.samples.push_back((now, self.done));
        // One sample older than the window stays, so that slow steps keep a rate.
        while self
            .samples
            .get(1)
            .is_some_and(|(time, _)| now.saturating_sub(*time) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        // Thousands of samples a second would say no more than a few hundred.
        if self.samples.len() > 512 {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    /// Units a second over the last while.
    fn rate(&self, now: Duration) -> Option<f64> {
        let (since, before) = self.samples.front()?;
        let time = now.checked_sub(*since).filter(|time| *time >= RATE_AFTER)?;
        let rate = self.done.checked_sub(*before)? as f64 / time.as_secs_f64();
        (rate > 0.0).then_some(rate)
    }

    fn time_left(&self, rate: f64) -> Option<Duration> {
        let left = self.total?.checked_sub(self.done)?;
        Duration::try_from_secs_f64(left as f64 / rate).ok()
    }

    fn bar(&self) -> Option<String> {
        let total = self.total.filter(|total| *total > 0)?;
        let inner = BAR_WIDTH - 2;
        let share = (self.done as f64 / total as f64).clamp(0.0, 1.0);
        let full = (share * inner as f64) as usize;
        let tip = if full < inner { ">" } else { "" };
        let bar = format!("{}{tip}", "=".repeat(full));
        Some(format!("[{bar:inner$}] {:>3}%", (share * 100.0) as u32))
    }

    fn figures(&self) -> String {
        let noun = match self.unit {
            Unit::Bytes => "",
            Unit::Packages => " packages",
            Unit::Files => " files",
        };
        let figure = |number| {
            if self.unit == Unit::Bytes {
                bytes(number)
            } else {
                count(number)
            }
        };
        match self.total {
            Some(total) => format!("{}/{}{noun}", figure(self.done), figure(total)),
            None => format!("{}{noun}", figure(self.done)),
        }
    }

    fn rate_text(&self, rate: f64) -> String {
        match self.unit {
            Unit::Bytes => format!("{}/s", bytes(rate as u64)),
            _ if rate < 10.0 => format!("{rate:.1}/s"),
            _ => format!("{}/s", count(rate as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn board(verbosity: Verbosity, live: bool) -> Board {
        Board::new(Palette::new(false), verbosity, live)
    }

    fn start(step: u32, title: &str, layer: Option<&str>) -> Event {
        Event::StepStarted {
            step,
            title: title.into(),
            layer: layer.map(Into::into),
            why: None,
        }
    }

    fn progress(step: u32, done: u64, total: Option<u64>, unit: Unit, item: &str) -> Event {
        Event::Progress {
            step,
            done,
            total,
            unit,
            item: Some(item.into()),
        }
    }

    /// A build with all kinds of events in it.
    fn story() -> Vec<Event> {
        vec![
            Event::BuildStarted {
                name: "lab".into(),
                plan_id: "3f9a8b7c6d5e4f3a2b1c".into(),
            },
            Event::StepCached {
                step: 0,
                title: "tools root".into(),
                layer: None,
                shared: false,
            },
            start(1, "downloading 312 packages", None),
            progress(1, 100_000_000, Some(882_000_000), Unit::Bytes, "libc6"),
            Event::Log {
                step: 1,
                stream: "kiln".into(),
                line: "connected".into(),
            },
            Event::Warning {
                step: Some(1),
                message: "the mirror does not answer range requests".into(),
                origin: Some("base.ks:3".into()),
                hint: Some("an interrupted download starts again from nothing".into()),
            },
            Event::StepFinished {
                step: 1,
                seconds: 12.34,
                summary: Some("312 packages, 882 MB".into()),
            },
            start(2, "installing", Some("desktop")),
            Event::StepFailed {
                step: 2,
                seconds: 61.0,
            },
            Event::Artifact {
                path: "output/disk.raw".into(),
                bytes: 8_000_000_000,
                allocated: 1_200_000_000,
                kept: false,
            },
            Event::BuildFinished {
                seconds: 75.0,
                output: "output".into(),
            },
        ]
    }

    fn told(verbosity: Verbosity, live: bool) -> String {
        let mut board = board(verbosity, live);
        story()
            .iter()
            .flat_map(|event| board.take(event, at(0)))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn plain_lines() {
        assert_snapshot!(told(Verbosity::Normal, false), @"
        building lab (plan 3f9a8b7c6d5e)
          cached tools root
         running downloading 312 packages
         warning base.ks:3: the mirror does not answer range requests
            hint an interrupted download starts again from nothing
            done downloading 312 packages: 312 packages, 882 MB (12 s)
         running desktop: installing
          failed desktop: installing (1 min 01 s)
           wrote output/disk.raw (8.00 GB, 1.20 GB on disk)
        finished in 1 min 15 s; artifacts are in output
        ");
    }

    #[test]
    fn on_a_terminal_the_start_of_a_step_is_no_line_that_stays() {
        assert!(!told(Verbosity::Normal, true).contains("running"));
    }

    #[test]
    fn quiet_keeps_warnings_and_failures() {
        assert_snapshot!(told(Verbosity::Quiet, false), @"
         warning base.ks:3: the mirror does not answer range requests
            hint an interrupted download starts again from nothing
          failed desktop: installing (1 min 01 s)
        ");
    }

    #[test]
    fn verbose_streams_the_log() {
        assert!(told(Verbosity::Verbose, false).contains("\n       | connected\n"));
    }

    #[test]
    fn with_several_steps_each_log_line_names_its_own() {
        let mut board = board(Verbosity::Verbose, false);
        board.take(&start(1, "unpacking", Some("base")), at(0));
        board.take(&start(2, "downloading", None), at(0));
        let log = Event::Log {
            step: 1,
            stream: "stdout".into(),
            line: "\u{1b}[2Jhello".into(),
        };
        assert_eq!(board.take(&log, at(1)), ["       | base: unpacking: hello"]);
    }

    fn running(width: usize) -> String {
        let mut board = board(Verbosity::Normal, true);
        board.take(&start(1, "downloading", None), at(0));
        board.take(&start(2, "installing", Some("desktop")), at(0));
        board.take(&start(3, "reading metadata", None), at(3));
        board.take(&start(4, "counting", None), at(3));
        for second in 0..=10 {
            let done = second * 40_000_000;
            board.take(
                &progress(1, done, Some(882_000_000), Unit::Bytes, "openjdk-17-jdk"),
                at(second),
            );
            board.take(
                &progress(2, second * 3, Some(1244), Unit::Packages, "libc6"),
                at(second),
            );
            board.take(
                &progress(4, second * 1000, None, Unit::Files, "/usr/bin/env"),
                at(second),
            );
        }
        board.running_lines(at(10), width).join("\n")
    }

    #[test]
    fn running_steps_show_bar_figures_rate_and_time_left() {
        assert_snapshot!(running(120), @"
         running downloading  [=========>            ]  45%  400 MB/882 MB  40.0 MB/s  12 s left  openjdk-17-jdk
         running desktop: installing  [>                     ]   2%  30/1,244 packages  3.0/s  6 min 45 s left  libc6
         running reading metadata  7.0 s
         running counting  10,000 files  1,000/s  7.0 s  /usr/bin/env
        ");
    }

    #[test]
    fn narrow_terminals_get_less() {
        assert_snapshot!(running(60), @"
         running downloading  400 MB/882 MB  12 s left
         running desktop: installing  6 min 45 s left
         running reading metadata  7.0 s
         running counting  10,000 files  1,000/s  7.0 s
        ");
        for width in 0..200 {
            assert!(
                running(width)
                    .lines()
                    .all(|line| columns(line) <= width.max(VERB_WIDTH + 1)),
                "{width}"
            );
        }
    }

    #[test]
    fn hostile_progress_does_no_harm() {
        let mut board = board(Verbosity::Normal, true);
        board.take(&start(1, "odd", None), at(5));
        for (done, total) in [
            (u64::MAX, Some(0)),
            (5, Some(3)),
            (0, Some(u64::MAX)),
            (u64::MAX, None),
        ] {
            board.take(&progress(1, done, total, Unit::Bytes, "\u{1b}[2J\n"), at(1));
            let lines = board.running_lines(at(1000), 200);
            assert!(
                lines
                    .iter()
                    .all(|line| !line.contains('\u{1b}') && !line.contains('\n')),
                "{lines:?}"
            );
        }
        board.take(&progress(99, 1, None, Unit::Bytes, "no such step"), at(1));
        let finished = Event::StepFinished {
            step: 98,
            seconds: f64::NAN,
            summary: None,
        };
        assert_eq!(board.take(&finished, at(2)), ["    done step 98 (0.0 s)"]);
    }
}
