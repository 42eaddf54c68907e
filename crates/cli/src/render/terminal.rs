//! The one writer of events: moving lines on a terminal, plain lines elsewhere, JSON for machines.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use kiln_engine::{Event, Failure};
use serde::Serialize;

use super::board::Board;
use super::failure;
use super::style::Palette;
use crate::settings::{ProgressStyle, Settings};

/// How often moving lines are drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Renders events as they come, from any thread.
pub(crate) struct Terminal {
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
    palette: Palette,
}

struct Shared {
    started: Instant,
    ended: AtomicBool,
    screen: Mutex<Screen>,
}

struct Screen {
    board: Board,
    output: Output,
    /// Whether the failure already went out as an event.
    failure_told: bool,
}

enum Output {
    Live {
        bars: MultiProgress,
        lines: VecDeque<ProgressBar>,
    },
    Plain,
    Json,
}

/// An event with its time, as `--log-format json` writes it.
#[derive(Serialize)]
struct Timed<'a, E> {
    /// Seconds since the command began.
    elapsed: f64,
    #[serde(flatten)]
    event: &'a E,
}

impl Terminal {
    /// A renderer that follows the settings; on a terminal it draws by itself from now on.
    pub(crate) fn new(settings: &Settings) -> Self {
        let palette = Palette::new(settings.stderr_color);
        let output = match settings.progress {
            ProgressStyle::Live => Output::Live {
                bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
                lines: VecDeque::new(),
            },
            ProgressStyle::Plain => Output::Plain,
            ProgressStyle::Json => Output::Json,
        };
        let live = matches!(output, Output::Live { .. });
        let board = Board::new(palette, settings.verbosity, live);
        let screen = Mutex::new(Screen {
            board,
            output,
            failure_told: false,
        });
        let shared = Arc::new(Shared {
            started: Instant::now(),
            ended: AtomicBool::new(false),
            screen,
        });
        let ticker = live.then(|| tick(Arc::clone(&shared)));
        Terminal {
            shared,
            ticker,
            palette,
        }
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &Event) {
        self.shared.event(event);
    }

    /// Shows a line that stays, with a word in front; only people get to see it.
    pub(crate) fn note(&self, verb: &str, text: &str) {
        let mut screen = self.shared.screen();
        if !matches!(screen.output, Output::Json) {
            let lines = screen.board.note(verb, text);
            screen.print(&lines);
        }
    }

    /// Writes an event of another kind for machines.
    pub(crate) fn json(&self, event: &impl Serialize) {
        write_json(event, self.shared.started.elapsed());
    }

    /// Takes the moving lines away; what is printed from now on stays undisturbed.
    pub(crate) fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            // A panic there has been reported by its own hook.
            let _ = ticker.join();
        }
        self.shared.screen().clear();
    }

    /// Shows why the command failed, as the last thing.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        self.end();
        let is_json = matches!(self.shared.screen().output, Output::Json);
        if is_json {
            if !self.shared.screen().failure_told {
                self.event(&Event::BuildFailed {
                    failure: Box::new(failure.clone()),
                });
            }
        } else {
            write_stderr(&failure::render(failure, &self.palette));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end();
    }
}

fn tick(shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !shared.ended.load(Ordering::Relaxed) {
            shared.screen().draw(shared.started.elapsed());
            std::thread::park_timeout(FRAME);
        }
    })
}

impl Shared {
    /// A panic while the lock was held leaves at worst a wrong line on the screen.
    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: &Event) {
        let now = self.started.elapsed();
        let mut screen = self.screen();
        if matches!(event, Event::BuildFailed { .. }) {
            screen.failure_told = true;
        }
        if matches!(screen.output, Output::Json) {
            write_json(event, now);
            return;
        }
        let lines = screen.board.take(event, now);
        screen.print(&lines);
    }
}

impl Screen {
    fn print(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let text = lines.join("\n");
        match &self.output {
            // An error here is a closed terminal: nobody is left to be told.
            Output::Live { bars, .. } => drop(bars.println(text)),
            Output::Plain | Output::Json => write_stderr(&format!("{text}\n")),
        }
    }

    fn draw(&mut self, now: Duration) {
        let Output::Live { bars, lines } = &mut self.output else {
            return;
        };
        let width = terminal_width();
        let texts = self.board.running_lines(now, width);
        while lines.len() > texts.len() {
            if let Some(line) = lines.pop_back() {
                line.finish_and_clear();
                bars.remove(&line);
            }
        }
        while lines.len() < texts.len() {
            lines.push_back(bars.add(new_line()));
        }
        for (line, text) in lines.iter().zip(texts) {
            line.set_message(text);
        }
    }

    fn clear(&mut self) {
        if let Output::Live { bars, lines } = &mut self.output {
            lines.clear();
            let _ = bars.clear();
        }
    }
}

/// A bar of which only the text is used: widths, rates and colours are the board's.
fn new_line() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = BarStyle::with_template("{msg}") {
        line.set_style(style);
    }
    line
}

/// One column less than there are, because a full line would wrap on some terminals.
fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .map_or(79, |columns| columns - 1)
}

/// Standard error may be closed or its reader gone; the command goes on without.
pub(crate) fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A reader that went away must not end a build: the log file has everything anyway.
fn write_json(event: &impl Serialize, now: Duration) {
    let elapsed = (now.as_secs_f64() * 1000.0).round() / 1000.0;
    if let Ok(mut line) = serde_json::to_string(&Timed { elapsed, event }) {
        line.push('\n');
        let mut stdout = std::io::stdout().lock();
        let _ = stdout
            .write_all(line.as_bytes())
            .and_then(|()| stdout.flush());
    }
}
