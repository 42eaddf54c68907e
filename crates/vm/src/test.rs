//! `kiln test`: boots an image unseen and gives a verdict.

mod conclude;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::agent;
use crate::blueprint::{Blueprint, Engine, Front};
use crate::boot_state::BootState;
use crate::disk::Disk;
use crate::engine::{self, Attempt};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::{Inputs, Machine};
use crate::processor;
use crate::pulse::Pulse;
use crate::report::{Reason, Report, StageName, Verdict, VmEvent};
use crate::request::{Expect, TestRequest};
use crate::screen::{Drawn, ScreenWatch};
use crate::work::WorkDir;

/// How often the machine is looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(250);
/// Between two looks at the screen while the desktop is being drawn.
const LOOK: Duration = Duration::from_secs(1);
/// A boot loader that shows no sign of life for this long does not go on.
const DEAD: Duration = Duration::from_secs(60);
/// The same after GRUB has reported an error.
const DEAD_AFTER_ERROR: Duration = Duration::from_secs(30);
/// A working KVM has a kernel running long before this.
const KVM_KERNEL: Duration = Duration::from_secs(60);
/// A working KVM shows signs of life all the time.
const KVM_SILENCE: Duration = Duration::from_secs(20);
/// Between two attempts to start the observer from the same prompt.
const AGAIN: Duration = Duration::from_secs(20);
/// After this, a settled system without a session will have none.
const NO_SESSION: Duration = Duration::from_secs(120);
/// Seconds from the kernel's first line to the system's init on a quiet machine under emulation.
const HAND_OVER: f64 = 15.0;
/// After this, a session whose windows cannot be seen, or have no types, is judged by its screen.
const BLIND_SESSION: Duration = Duration::from_secs(20);
const UNTYPED_SESSION: Duration = Duration::from_secs(180);
/// More resets than a boot loader needs for its own ends.
const RESETS: u32 = 3;

/// Boots the image and says whether it comes up. `desktop.png`, `boot.json` and `serial.log` appear in the output
/// directory by rename; the picture is made of failed boots too. The image is not modified.
///
/// Where KVM was asked for by [`crate::Accel::Auto`] but does not work, the boot starts again under emulation, and says so.
///
/// # Errors
/// A system that does not come up is a [`Verdict`], not an error. Errors mean that no verdict could be had: the image cannot
/// be read, QEMU or firmware is missing, QEMU does not start, files cannot be written, `cancel` became true.
pub fn test(
    request: &TestRequest,
    on_event: &mut dyn FnMut(VmEvent),
    cancel: &AtomicBool,
) -> Result<Report> {
    // What a machine shows and says is for who has started it.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&request.output)
        .map_err(|e| Error::file("making the directory", &request.output, e))?;
    let session = WorkDir::new(&request.work)?;
    let within = request.within.as_deref();
    let disk = Disk::open_within(&request.image, request.image_format, &session, within)?;
    let mut note = None;
    for attempt in engine::attempts(request.hardware.accel, &request.tools.kvm)? {
        note = note.or(attempt.note.clone());
        let mut run = match Run::start(request, &disk, &attempt, on_event, cancel) {
            Ok(run) => run,
            Err(error) if attempt.may_fall_back && error.kind() == ErrorKind::Environment => {
                engine::fall_back(&mut note, &error.to_string(), on_event);
                continue;
            }
            Err(error) => return Err(error),
        };
        match run.observe()? {
            End::KvmUseless(why) => {
                drop(run);
                engine::fall_back(&mut note, &why, on_event);
            }
            End::Reached(drawn) => return run.conclude(Verdict::Passed, drawn, note),
            End::Failed(reason, detail) => {
                return run.conclude(Verdict::Failed { reason, detail }, None, note);
            }
        }
    }
    Err(Error::internal("no way to run the machine was left"))
}

/// How watching ended.
enum End {
    Reached(Option<Drawn>),
    Failed(Reason, String),
    KvmUseless(String),
}

/// One machine under observation.
struct Run<'a> {
    request: &'a TestRequest,
    attempt: &'a Attempt,
    kernel_args: Vec<String>,
    machine: Machine,
    boot: BootState,
    on_event: &'a mut dyn FnMut(VmEvent),
    cancel: &'a AtomicBool,
    serial_log: File,
    start: Instant,
    pulse: Pulse,
    resets: u32,
    /// The machine is of no use any more, and why.
    ended: Option<String>,
    /// It stopped through no fault of the guest's.
    broken: bool,
    asked: Option<(u64, Instant)>,
    watch: Option<ScreenWatch>,
    next_look: Instant,
}

impl<'a> Run<'a> {
    fn start(
        request: &'a TestRequest,
        disk: &Disk,
        attempt: &'a Attempt,
        on_event: &'a mut dyn FnMut(VmEvent),
        cancel: &'a AtomicBool,
    ) -> Result<Run<'a>> {
        let flash = request.tools.flash(request.hardware.firmware)?;
        let kernel_args = kernel_args(request, attempt.engine);
        let blueprint = Blueprint {
            hardware: &request.hardware,
            engine: attempt.engine,
            disk,
            flash: flash.map(|flash| (flash.code.as_path(), flash.format.as_str())),
            kernel_args: &kernel_args,
            script: request.script.is_some(),
            front: Front::Observed,
        };
        let work = WorkDir::new(&request.work)?;
        let log_path = work.file("serial.log");
        let serial_log = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&log_path)
            .map_err(|e| Error::file("writing", &log_path, e))?;
        on_event(VmEvent::Started {
            firmware: request.hardware.firmware,
            accel: attempt.engine.into(),
        });
        let level = request.hardware.processor_level;
        let offered = processor::offered(attempt.engine, level);
        let machine = Machine::start(
            &request.tools,
            flash,
            &blueprint,
            request.script.as_deref(),
            work,
        )?;
        let start = Instant::now();
        let mut boot = BootState::new(start, (attempt.engine, offered));
        if let Some(message) = processor::warning(attempt.engine, level) {
            boot.warn(message);
        }
        Ok(Run {
            request,
            attempt,
            kernel_args,
            machine,
            boot,
            on_event,
            cancel,
            serial_log,
            start,
            pulse: Pulse::new(start),
            resets: 0,
            ended: None,
            broken: false,
            asked: None,
            watch: None,
            next_look: start,
        })
    }

    /// Watches until the expected state is reached or will not be.
    fn observe(&mut self) -> Result<End> {
        loop {
            self.pump()?;
            let now = Instant::now();
            self.take_pulse(now);
            if let Some(end) = self.kvm_useless(now).or_else(|| self.failed(now)) {
                return Ok(end);
            }
            if let Some(drawn) = self.reached(now) {
                return Ok(End::Reached(drawn));
            }
            if now.duration_since(self.start) >= self.request.timeout {
                return Ok(self.timed_out());
            }
        }
    }

    /// Waits for input and takes it in.
    fn pump(&mut self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        let inputs = if self.ended.is_some() {
            std::thread::sleep(TICK);
            Inputs::default()
        } else {
            self.machine.wait(TICK)?
        };
        let now = Instant::now();
        self.boot.serial(&inputs.serial, now);
        self.boot.agent(&inputs.agent, now);
        for event in &inputs.events {
            self.machine_event(&event.name, &event.data);
        }
        if let Some(status) = inputs.ended
            && self.ended.is_none()
        {
            self.ended = Some(
                format!("QEMU ended ({status}) {}", self.machine.messages())
                    .trim_end()
                    .to_owned(),
            );
        }
        if !inputs.serial.is_empty() || !inputs.agent.is_empty() {
            self.pulse.heard(now);
        }
        self.start_observer(now);
        self.flush()
    }

    fn machine_event(&mut self, name: &str, data: &serde_json::Value) {
        match name {
            "RESET" if data["guest"] == true => {
                self.resets += 1;
                if self.resets > RESETS {
                    self.ended = Some(format!("the machine reset itself {} times", self.resets));
                }
            }
            "STOP"
                if self
                    .machine
                    .status()
                    .is_ok_and(|status| status == "internal-error") =>
            {
                self.broken = true;
                self.ended = Some(
                    "QEMU reports an internal error: the processor met what it cannot run"
                        .to_owned(),
                );
            }
            "SHUTDOWN" if data["guest"] == true => {
                self.ended = Some("the system switched the machine off".to_owned());
            }
            _ => {}
        }
    }

    /// Types the observer's start into the debug shell, and again if the same prompt still stands much later.
    fn start_observer(&mut self, now: Instant) {
        let Some(seen) = self.boot.prompt() else {
            return;
        };
        let again = self.asked.is_none_or(|(asked, at)| {
            now.duration_since(at) >= AGAIN
                || (seen != asked && now.duration_since(at) >= AGAIN / 4)
        });
        if again {
            self.machine.tell(agent::BOOTSTRAP);
            self.asked = Some((seen, now));
        }
    }

    /// Hands on what the boot state has gathered.
    fn flush(&mut self) -> Result<()> {
        for event in std::mem::take(&mut self.boot.events) {
            (self.on_event)(event);
        }
        let log = std::mem::take(&mut self.boot.log);
        self.serial_log
            .write_all(log.as_bytes())
            .map_err(|e| Error::environment("writing the serial log").cause(e))
    }

    /// Looks for signs of life until the observer, who shows that the system runs.
    fn take_pulse(&mut self, now: Instant) {
        if !self.boot.observed() && self.ended.is_none() {
            self.pulse.look(&mut self.machine, now);
        }
    }

    /// KVM that opens may still hang or fail to emulate, in machines that are virtual themselves.
    fn kvm_useless(&mut self, now: Instant) -> Option<End> {
        if !self.attempt.may_fall_back || self.boot.observed() || self.boot.suspected().is_some() {
            return None;
        }
        let kernel = self.boot.has(StageName::Kernel);
        let why = if let Some(ended) = self.ended.as_ref().filter(|_| !kernel || self.broken) {
            ended.clone()
        } else if self.pulse.silence(now) >= KVM_SILENCE {
            format!("no sign of life for {} s", KVM_SILENCE.as_secs())
        } else if !kernel && self.pulse.usable_since(self.start, now) >= KVM_KERNEL {
            format!("no kernel after {} s", KVM_KERNEL.as_secs())
        } else {
            return None;
        };
        Some(End::KvmUseless(why))
    }

    fn failed(&mut self, now: Instant) -> Option<End> {
        if let Some(fatal) = self.boot.fatal(now) {
            return Some(End::Failed(fatal.reason, fatal.detail.clone()));
        }
        if let Some(ended) = &self.ended {
            return Some(match self.boot.suspected() {
                Some(fatal) => End::Failed(fatal.reason, fatal.detail.clone()),
                None => End::Failed(Reason::Died, ended.clone()),
            });
        }
        self.dead_before_kernel(now)
            .or_else(|| self.no_session(now))
    }

    /// Without a kernel nothing happens by itself any more once everything is silent.
    fn dead_before_kernel(&self, now: Instant) -> Option<End> {
        let silence = self.pulse.silence(now);
        if self.boot.has(StageName::Kernel) || silence < DEAD_AFTER_ERROR {
            return None;
        }
        if let Some(error) = &self.boot.grub_error {
            return Some(End::Failed(Reason::NoKernel, format!("GRUB: {error}")));
        }
        if silence < DEAD {
            return None;
        }
        let last = self
            .boot
            .console
            .back()
            .map_or("nothing at all", String::as_str);
        let seconds = silence.as_secs();
        Some(if self.boot.has(StageName::BootLoader) {
            End::Failed(
                Reason::NoKernel,
                format!(
                    "the boot loader ran, then nothing was heard for {seconds} s; the kernel hangs, a menu waits, or the boot \
                     loader does not pass on the test's kernel arguments (Kiln's images do); the console's last line: {last}"
                ),
            )
        } else {
            End::Failed(
                Reason::NoBootLoader,
                format!("nothing happened for {seconds} s; the console's last line: {last}"),
            )
        })
    }

    /// A settled system where nobody is logged in will show no desktop.
    fn no_session(&self, now: Instant) -> Option<End> {
        let state = self.boot.state.as_ref()?;
        let settled = self.boot.settled_at?;
        let waited = now.duration_since(settled);
        if self.expected() != Some(Expect::Desktop) || self.boot.session.is_some() {
            return None;
        }
        if state.display_manager == "failed" {
            return Some(End::Failed(
                Reason::UnitFailed,
                "the display manager failed".to_owned(),
            ));
        }
        if waited < NO_SESSION.mul_f64(self.pace()) {
            return None;
        }
        let why = match (state.graphical.as_str(), state.display_manager.as_str()) {
            (_, "active") => {
                "a display manager runs, but nobody is logged in: is automatic login set up?"
            }
            ("active", _) => "graphical.target is reached, but no display manager runs",
            _ => {
                "the system stays in multi-user.target: no display manager is enabled, or graphical.target is not the default"
            }
        };
        Some(End::Failed(Reason::NoDesktop, why.to_owned()))
    }

    /// What the system must reach; `None`: it has not said yet what it is made for.
    fn expected(&self) -> Option<Expect> {
        match self.request.expect {
            Expect::Auto => self.boot.goal,
            asked => Some(asked),
        }
    }

    /// Whether the expected state is reached, and how the desktop is drawn.
    fn reached(&mut self, now: Instant) -> Option<Option<Drawn>> {
        match self.expected()? {
            Expect::Auto => None,
            // Without an observer the prompt alone has to do; it gets a little time to say hello.
            Expect::Login => {
                let stage = self
                    .boot
                    .stages
                    .iter()
                    .find(|stage| stage.name == StageName::Login)?;
                let since = now.duration_since(self.start).as_secs_f64() - stage.seconds;
                (self.boot.observed() || since > 30.0).then_some(None)
            }
            Expect::Desktop => self.desktop(now).map(Some),
        }
    }

    fn desktop(&mut self, now: Instant) -> Option<Drawn> {
        if self.watch.is_none() && self.windows_exist(now) {
            self.watch = Some(ScreenWatch::new(now, self.pace()));
        }
        if self.watch.is_none() || now < self.next_look {
            return None;
        }
        let picture = self.machine.picture()?;
        // Looking must not slow down what is looked at.
        self.next_look = Instant::now() + LOOK.max(now.elapsed() * 10);
        let drawn = self.watch.as_mut()?.look(picture, now)?;
        self.boot.reach(StageName::Desktop, now, None);
        Some(drawn)
    }

    /// A DESKTOP and a DOCK window; or a session whose windows cannot be told apart, after a while.
    fn windows_exist(&mut self, now: Instant) -> bool {
        if self.boot.has(StageName::Windows) {
            return true;
        }
        let Some(session) = &self.boot.session else {
            return false;
        };
        let age = now.duration_since(session.since).div_f64(self.pace());
        let blind = session.kind == "wayland" || self.boot.windows.is_none();
        if blind && age >= BLIND_SESSION {
            self.boot.warn(
                "the desktop is judged by its session and the screen: its windows cannot be seen"
                    .to_owned(),
            );
            return true;
        }
        let untyped = !blind && self.boot.settled_at.is_some() && age >= UNTYPED_SESSION;
        if untyped {
            self.boot.warn("the desktop is judged by its session and the screen: it has no DESKTOP and DOCK windows".to_owned());
        }
        untyped
    }

    /// How much slower than usual this machine is, from 1 to 10: an emulated one has the kernel hand over to the system
    /// within [`HAND_OVER`].
    fn pace(&self) -> f64 {
        let at = |name| {
            self.boot
                .stages
                .iter()
                .find(|stage| stage.name == name)
                .map(|stage| stage.seconds)
        };
        match (at(StageName::Kernel), at(StageName::Userspace)) {
            (Some(kernel), Some(userspace)) => ((userspace - kernel) / HAND_OVER).clamp(1.0, 10.0),
            _ => 1.0,
        }
    }

    fn timed_out(&self) -> End {
        let seconds = self.request.timeout.as_secs();
        let last = self
            .boot
            .stages
            .last()
            .map_or("nothing was heard of it".to_owned(), |stage| {
                format!("the last stage was {:?} at {} s", stage.name, stage.seconds)
            });
        let reason = match self.expected() {
            Some(Expect::Login) => Reason::NoLogin,
            _ => Reason::NoDesktop,
        };
        let screen = if self.watch.is_some() {
            "; the windows exist, but the screen stays black, plain or in motion"
        } else {
            ""
        };
        End::Failed(
            reason,
            format!("{} within {seconds} s; {last}{screen}", reason.sentence()),
        )
    }
}

/// What a test boot adds to the kernel's command line: both consoles, the serial one last so that it is `/dev/console`;
/// messages in spite of `quiet`; no splash; the root shell that the observer is started from.
fn kernel_args(request: &TestRequest, engine: Engine) -> Vec<String> {
    let mut args: Vec<String> = [
        "console=tty0",
        "console=ttyS0",
        "loglevel=6",
        "systemd.show_status=1",
        "plymouth.enable=0",
        "rd.plymouth=0",
        "systemd.debug_shell=ttyS1",
    ]
    .map(str::to_owned)
    .into();
    if engine == Engine::Tcg {
        // Randomised address spaces make the translator start over for every process.
        args.push("norandmaps".to_owned());
        // On a busy machine the kernel's test of the timer's interrupts, which counts real time, fails without a fault.
        args.push("no_timer_check".to_owned());
    }
    args.extend(request.kernel_args.iter().cloned());
    args
}
