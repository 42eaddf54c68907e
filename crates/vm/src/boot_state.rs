//! What is known of a running boot, drawn from the console and the observer. No I/O: bytes and times come in, facts stand here.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::agent::{self, Inbox, State};
use crate::blueprint::Engine;
use crate::console::{self, Lines, Sign};
use crate::processor;
use crate::report::{FailedUnit, GuestLog, Reason, ScriptResult, Stage, StageName, VmEvent};
use crate::request::Expect;

/// Console lines kept for the report.
const CONSOLE_KEPT: usize = 30;
/// Bytes of the script's output that are kept.
const OUTPUT_LIMIT: usize = 4 << 20;
/// Warnings kept.
const WARNINGS_KEPT: usize = 20;

/// So many graphical sessions one after the other are a desktop that does not stay.
const SESSIONS: usize = 3;

/// Something that ends the boot unless a later stage proves otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fatal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    /// When it counts. Until then more lines are gathered, and a later stage may take it back.
    due: Instant,
}

/// The facts.
pub(crate) struct BootState {
    start: Instant,
    lines: Lines,
    inbox: Inbox,
    pub(crate) stages: Vec<Stage>,
    pub(crate) console: VecDeque<String>,
    /// Console lines with times, for `serial.log`; the driver takes them.
    pub(crate) log: String,
    /// For the caller; the driver takes them.
    pub(crate) events: Vec<VmEvent>,
    pub(crate) warnings: Vec<String>,
    pub(crate) grub_error: Option<String>,
    /// Units that the console named as failed.
    pub(crate) console_failed: Vec<String>,
    pub(crate) state: Option<State>,
    pub(crate) settled_at: Option<Instant>,
    pub(crate) os: Option<String>,
    pub(crate) kernel: Option<String>,
    /// What the system is made for.
    pub(crate) goal: Option<Expect>,
    pub(crate) session: Option<Session>,
    /// Ids of the graphical sessions that were seen.
    sessions: BTreeSet<String>,
    pub(crate) windows: Option<(u32, u32)>,
    pub(crate) failed_units: Vec<FailedUnit>,
    pub(crate) collected: bool,
    pub(crate) logs: Vec<GuestLog>,
    pub(crate) diagnosed: bool,
    pub(crate) login_prompt: bool,
    pub(crate) script: Option<ScriptResult>,
    fatal: Option<Fatal>,
    bytes_of_agent: u64,
    /// What the guest's processor is made by, and its level of x86-64.
    processor: (Engine, u8),
    /// The processor is too old for the system: why.
    too_old: Option<String>,
}

/// Who is logged in graphically.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Session {
    pub(crate) user: String,
    /// `x11` or `wayland`.
    pub(crate) kind: String,
    pub(crate) since: Instant,
}

impl BootState {
    pub(crate) fn new(start: Instant, processor: (Engine, u8)) -> Self {
        BootState {
            start,
            lines: Lines::default(),
            inbox: Inbox::default(),
            stages: Vec::new(),
            console: VecDeque::new(),
            log: String::new(),
            events: Vec::new(),
            warnings: Vec::new(),
            grub_error: None,
            console_failed: Vec::new(),
            state: None,
            settled_at: None,
            os: None,
            kernel: None,
            goal: None,
            session: None,
            sessions: BTreeSet::new(),
            windows: None,
            failed_units: Vec::new(),
            collected: false,
            logs: Vec::new(),
            diagnosed: false,
            login_prompt: false,
            script: None,
            fatal: None,
            bytes_of_agent: 0,
            processor,
            too_old: None,
        }
    }

    pub(crate) fn has(&self, stage: StageName) -> bool {
        self.stages.iter().any(|s| s.name == stage)
    }

    /// The observer has said hello.
    pub(crate) fn observed(&self) -> bool {
        self.kernel.is_some()
    }

    /// What has ended the boot by now.
    pub(crate) fn fatal(&self, now: Instant) -> Option<&Fatal> {
        self.fatal.as_ref().filter(|fatal| now >= fatal.due)
    }

    /// What is about to end the boot, due or not.
    pub(crate) fn suspected(&self) -> Option<&Fatal> {
        self.fatal.as_ref()
    }

    /// Whether a root shell waits on the observer's port. Every byte may change the answer, so the count of bytes comes along.
    pub(crate) fn prompt(&self) -> Option<u64> {
        (!self.observed() && agent::is_prompt(&self.inbox.pending())).then_some(self.bytes_of_agent)
    }

    pub(crate) fn warn(&mut self, message: String) {
        if self.warnings.len() < WARNINGS_KEPT && !self.warnings.contains(&message) {
            self.events.push(VmEvent::Warning {
                message: message.clone(),
            });
            self.warnings.push(message);
        }
    }

    pub(crate) fn reach(&mut self, name: StageName, now: Instant, guest_seconds: Option<f64>) {
        if self.has(name) {
            return;
        }
        let stage = Stage {
            name,
            seconds: round(now.duration_since(self.start).as_secs_f64()),
            guest_seconds,
        };
        self.events.push(VmEvent::Stage(stage.clone()));
        self.stages.push(stage);
    }

    /// Takes bytes of the console.
    pub(crate) fn serial(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.reach(StageName::Firmware, now, None);
        for line in self.lines.feed(bytes) {
            self.console_line(&line, now);
        }
        if let Some(sign) = console::read_pending(&self.lines.pending()) {
            self.sign(sign, now);
        }
    }

    fn console_line(&mut self, line: &str, now: Instant) {
        let seconds = now.duration_since(self.start).as_secs_f64();
        self.log.push_str(&format!("[{seconds:8.2}] {line}\n"));
        self.events.push(VmEvent::Console {
            line: line.to_owned(),
        });
        if self.console.len() == CONSOLE_KEPT {
            self.console.pop_front();
        }
        self.console.push_back(line.to_owned());
        self.kernel_line(line);
        if let Some(sign) = console::read_line(line) {
            self.sign(sign, now);
        }
    }

    /// The kernel's first line names its version, and that the distribution: whether its programs can run is known long before them.
    fn kernel_line(&mut self, line: &str) {
        let version = line.split_once("Linux version ").map(|(_, rest)| rest);
        let Some(version) = version.and_then(|rest| rest.split(' ').next()) else {
            return;
        };
        let (engine, has) = self.processor;
        self.too_old = processor::too_old(engine, has, processor::processor_level(version));
        if let Some(why) = self.too_old.clone() {
            self.warn(why);
        }
    }

    /// Writes the unfinished line, a prompt mostly, to the log.
    pub(crate) fn finish_log(&mut self, now: Instant) {
        let pending = self.lines.pending();
        if !pending.is_empty() {
            self.console_line(&pending, now);
        }
    }

    fn sign(&mut self, sign: Sign, now: Instant) {
        let after = |seconds| now + Duration::from_secs(seconds);
        match sign {
            Sign::BootLoader => self.reach(StageName::BootLoader, now, None),
            Sign::Kernel => {
                self.reach(StageName::Kernel, now, None);
                self.take_back(&[Reason::NoBootLoader, Reason::SecureBoot]);
            }
            Sign::Userspace => {
                self.reach(StageName::Userspace, now, None);
                self.take_back(&[Reason::NoRoot]);
            }
            Sign::Login => {
                self.login_prompt = true;
                self.reach(StageName::Login, now, None);
            }
            Sign::NothingToBoot(line) => self.suspect(Reason::NoBootLoader, line, after(5)),
            Sign::Refused(line) => self.suspect(Reason::SecureBoot, line, after(15)),
            Sign::Panic(line) => self.suspect(Reason::KernelPanic, line, after(3)),
            Sign::NoRoot(line) => self.suspect(Reason::NoRoot, line, after(15)),
            Sign::InitCrashed(line) => self.suspect(Reason::Died, line, after(3)),
            Sign::Emergency(line) => self.emergency(line, after(5)),
            Sign::GrubError(line) if !self.has(StageName::Kernel) => self.grub_error = Some(line),
            Sign::GrubError(_) => {}
            Sign::UnitFailed(unit) => {
                if !self.console_failed.contains(&unit) {
                    self.console_failed.push(unit);
                }
            }
            Sign::Trouble(line) => self.warn(line),
        }
    }

    /// The first cause stands: a panic after "no root" is its consequence.
    pub(crate) fn suspect(&mut self, reason: Reason, detail: String, due: Instant) {
        if self.fatal.is_none() {
            let why = self.too_old.iter().map(|why| format!("; {why}"));
            let detail = std::iter::once(detail).chain(why).collect();
            self.fatal = Some(Fatal {
                reason,
                detail,
                due,
            });
        }
    }

    fn emergency(&mut self, line: String, due: Instant) {
        let detail = if self.console_failed.is_empty() {
            format!("systemd gave up: {line}")
        } else {
            format!(
                "systemd gave up after {} failed: {line}",
                self.console_failed.join(", ")
            )
        };
        self.suspect(Reason::UnitFailed, detail, due);
    }

    fn take_back(&mut self, reasons: &[Reason]) {
        if self
            .fatal
            .as_ref()
            .is_some_and(|fatal| reasons.contains(&fatal.reason))
        {
            self.fatal = None;
        }
    }

    /// Takes bytes of the observer's port.
    pub(crate) fn agent(&mut self, bytes: &[u8], now: Instant) {
        self.bytes_of_agent += bytes.len() as u64;
        for line in self.inbox.feed(bytes) {
            if let Some((uptime, report)) = agent::parse(&line) {
                self.report(report, uptime, now);
            }
        }
    }

    fn report(&mut self, report: agent::Report, uptime: Option<f64>, now: Instant) {
        match report {
            agent::Report::Goal(goal) => self.goal = Some(goal),
            agent::Report::Hello { kernel, os } => {
                (self.kernel, self.os) = (Some(kernel), Some(os));
                self.reach(StageName::Kernel, now, None);
                self.reach(StageName::Userspace, now, uptime);
                self.take_back(&[Reason::NoBootLoader, Reason::SecureBoot, Reason::NoRoot]);
            }
            agent::Report::State(state) => self.state(state, uptime, now),
            agent::Report::Session { user, kind, id } => {
                self.another_session(&user, id, now);
                self.session = Some(Session {
                    user,
                    kind,
                    since: now,
                });
                self.reach(StageName::Session, now, uptime);
            }
            agent::Report::Windows(windows) => {
                self.windows = windows;
                if windows.is_some_and(|(desktop, dock)| desktop > 0 && dock > 0) {
                    self.reach(StageName::Windows, now, uptime);
                }
            }
            agent::Report::Failed { unit, result, log } => {
                let log = log.lines().map(str::to_owned).collect();
                self.failed_units.push(FailedUnit { unit, result, log });
            }
            agent::Report::Collected => self.collected = true,
            agent::Report::Log { name, text } => {
                let lines = text.lines().map(str::to_owned).collect();
                self.logs.push(GuestLog { name, lines });
            }
            agent::Report::Diagnosed => self.diagnosed = true,
            agent::Report::Output(line) => self.output(&line),
            agent::Report::Exit(code) => {
                self.script.get_or_insert_with(no_result).exit_code = Some(code);
            }
        }
    }

    /// A display manager logs in again when a session ends: a desktop that crashes never stays.
    fn another_session(&mut self, user: &str, id: Option<String>, now: Instant) {
        self.sessions.extend(id);
        if self.sessions.len() >= SESSIONS && !self.has(StageName::Desktop) {
            let detail = format!(
                "the session of {user} ended {} times before its desktop was drawn: the display server or the desktop crashes",
                self.sessions.len() - 1
            );
            self.suspect(Reason::NoDesktop, detail, now);
        }
    }

    fn state(&mut self, state: State, uptime: Option<f64>, now: Instant) {
        if state.multi_user == "active" {
            self.reach(StageName::MultiUser, now, uptime);
        }
        if state.multi_user == "active" && state.getty == "active" {
            self.reach(StageName::Login, now, uptime);
        }
        if state.graphical == "active" {
            self.reach(StageName::Graphical, now, uptime);
        }
        self.settled_at = if state.settled() {
            self.settled_at.or(Some(now))
        } else {
            None
        };
        self.state = Some(state);
    }

    fn output(&mut self, line: &str) {
        self.events.push(VmEvent::Output {
            line: line.to_owned(),
        });
        let script = self.script.get_or_insert_with(no_result);
        if script.output.len() + line.len() < OUTPUT_LIMIT {
            script.output.push_str(line);
            script.output.push('\n');
        } else {
            script.truncated = true;
        }
    }
}

/// A script that has not ended.
pub(crate) fn no_result() -> ScriptResult {
    ScriptResult {
        exit_code: None,
        output: String::new(),
        truncated: false,
    }
}

/// Seconds with two decimals: more is noise.
pub(crate) fn round(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSOR: (Engine, u8) = (Engine::Tcg, 2);

    #[test]
    fn a_processor_that_is_too_old_is_told_from_the_kernel_and_named_when_the_boot_dies() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        boot.serial(
            b"[    0.000000] Linux version 6.12.0-55.9.1.el10_0.x86_64 (mockbuild@x) #1\r\n",
            start,
        );
        assert!(
            boot.warnings[0].contains("x86-64-v3"),
            "{:?}",
            boot.warnings
        );
        boot.serial(
            b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000004\r\n",
            start,
        );
        let fatal = boot.suspected().expect("the end");
        assert_eq!(fatal.reason, Reason::KernelPanic);
        assert!(
            fatal.detail.contains("the emulated is x86-64-v2"),
            "{}",
            fatal.detail
        );
        let mut older = BootState::new(start, PROCESSOR);
        older.serial(b"Linux version 5.14.0-503.el9_5.x86_64 (x)\n", start);
        assert_eq!(older.warnings, Vec::<String>::new());
    }

    fn names(boot: &BootState) -> Vec<StageName> {
        boot.stages.iter().map(|stage| stage.name).collect()
    }

    #[test]
    fn a_boot_to_the_desktop_is_followed() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        boot.serial(
            b"SeaBIOS\r\nGRUB loading..\r\n[    0.0] Linux version 6.1.0\r\nWelcome to Debian!\r\n",
            start,
        );
        boot.agent(b"\r\nroot@kiln:/# ", start);
        assert!(boot.prompt().is_some());
        boot.agent(b"\nKILN 9.5 hello 6.1.0 Debian GNU/Linux 12\n", start);
        assert!(boot.prompt().is_none() && boot.observed());
        boot.agent(b"\nKILN 12 state starting active inactive active active\n\nKILN 20 session contestant x11\n", start);
        boot.agent(b"\nKILN 22 windows 0 1\n\nKILN 23 windows 1 1\n\nKILN 25 state running active active active active\n", start);
        use StageName::{
            BootLoader, Firmware, Graphical, Kernel, Login, MultiUser, Session, Userspace, Windows,
        };
        assert_eq!(
            names(&boot),
            [
                Firmware, BootLoader, Kernel, Userspace, MultiUser, Login, Session, Windows,
                Graphical
            ]
        );
        assert!(boot.settled_at.is_some() && boot.suspected().is_none());
    }

    #[test]
    fn the_first_cause_stands_and_counts_after_its_grace() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        boot.serial(
            b"Linux version 6.1\nGave up waiting for root file system device.\n",
            start,
        );
        boot.serial(
            b"Kernel panic - not syncing: Attempted to kill init!\n",
            start,
        );
        assert!(boot.fatal(start).is_none());
        assert_eq!(
            boot.fatal(start + Duration::from_secs(15))
                .map(|f| f.reason),
            Some(Reason::NoRoot)
        );
    }

    #[test]
    fn later_stages_take_suspicions_back() {
        let start = Instant::now();
        let late = start + Duration::from_secs(60);
        let mut boot = BootState::new(start, PROCESSOR);
        boot.serial(b"BdsDxe: failed to load Boot0001: Access Denied\n", start);
        assert!(boot.fatal(late).is_some());
        boot.serial(b"Linux version 6.1\nCan not mount /dev/sdb1\n", start);
        assert_eq!(boot.fatal(late).map(|f| f.reason), Some(Reason::NoRoot));
        boot.serial(b"Welcome to Debian GNU/Linux 12!\n", start);
        assert!(boot.fatal(late).is_none());
    }

    #[test]
    fn emergency_names_the_units() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        boot.serial(
            b"[FAILED] Failed to mount home.mount - /home.\nYou are in emergency mode. After\n",
            start,
        );
        let fatal = boot.suspected().unwrap();
        assert_eq!(fatal.reason, Reason::UnitFailed);
        assert!(fatal.detail.contains("home.mount"), "{}", fatal.detail);
    }

    #[test]
    fn a_desktop_that_crashes_again_and_again_ends_the_test() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        boot.agent(
            b"\nKILN 20 session tester wayland 1\n\nKILN 21 session tester wayland\n",
            start,
        );
        boot.agent(
            b"\nKILN 60 session tester wayland 4\n\nKILN 61 session tester wayland 4\n",
            start,
        );
        assert_eq!(boot.fatal(start), None, "a second login is no crash");
        boot.agent(b"\nKILN 90 session tester wayland 5\n", start);
        let fatal = boot.fatal(start).expect("ended");
        assert_eq!(fatal.reason, Reason::NoDesktop);
        assert!(
            fatal.detail.contains("tester ended 2 times"),
            "{}",
            fatal.detail
        );
    }

    #[test]
    fn script_output_is_kept_up_to_a_bound() {
        let start = Instant::now();
        let mut boot = BootState::new(start, PROCESSOR);
        let line = format!("KILN - out {}\n", "x".repeat(100_000));
        for _ in 0..60 {
            boot.agent(line.as_bytes(), start);
        }
        boot.agent(b"KILN 99 exit 3\n", start);
        let script = boot.script.unwrap();
        assert!(
            script.truncated
                && script.output.len() < OUTPUT_LIMIT
                && script.output.len() > OUTPUT_LIMIT / 2
        );
        assert_eq!(script.exit_code, Some(3));
    }
}
