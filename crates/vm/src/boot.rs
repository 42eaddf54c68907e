//! `kiln boot`: an interactive machine.

use std::io::Read;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::blueprint::{Blueprint, Engine, Front};
use crate::console::Lines;
use crate::disk::Disk;
use crate::engine::{self, Attempt};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Machine;
use crate::pulse::Pulse;
use crate::report::{AccelUsed, VmEvent};
use crate::request::{BootRequest, Display};
use crate::work::WorkDir;

const TICK: Duration = Duration::from_millis(500);
/// How long KVM is watched for signs of life. Later silence is a system at rest.
const WATCHED: Duration = Duration::from_secs(60);
/// A guest that neither asks the disk nor changes the screen for this long in its first minute hangs.
const SILENCE: Duration = Duration::from_secs(20);
/// What boots a system asks the disk for more than this within a minute of working KVM.
const BUSY: u64 = 500;
/// What GRUB writes under its menu.
const MENU: &str = "to select which entry is highlighted";

/// How an interactive machine ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BootReport {
    /// How the processor was made.
    pub accel: AccelUsed,
    /// Why it was not KVM, where KVM was wanted.
    pub accel_note: Option<String>,
    /// From power-on to the end.
    pub seconds: f64,
}

/// Boots the image in a machine to work with, and returns when it is switched off or its window is closed. What the guest
/// writes is thrown away.
///
/// # Errors
/// The image cannot be read, QEMU, firmware or the display is missing, QEMU fails, `cancel` became true.
pub fn boot(
    request: &BootRequest,
    on_event: &mut dyn FnMut(VmEvent),
    cancel: &AtomicBool,
) -> Result<BootReport> {
    let session = WorkDir::new(&request.work)?;
    let disk = Disk::open(&request.image, request.image_format, &session)?;
    let front = choose_front(request)?;
    let mut note = None;
    for attempt in engine::attempts(request.hardware.accel, &request.tools.kvm)? {
        note = note.or(attempt.note.clone());
        let start = Instant::now();
        match run(request, &disk, &front, &attempt, on_event, cancel) {
            Ok(()) => {
                let seconds = start.elapsed().as_secs_f64();
                return Ok(BootReport {
                    accel: attempt.engine.into(),
                    accel_note: note,
                    seconds,
                });
            }
            Err(Ended::Useless(why)) => engine::fall_back(&mut note, &why, on_event),
            Err(Ended::Error(error)) => return Err(error),
        }
    }
    Err(Error::internal("no way to run the machine was left"))
}

enum Ended {
    /// KVM does not work; another attempt may follow.
    Useless(String),
    Error(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Error(error)
    }
}

fn run(
    request: &BootRequest,
    disk: &Disk,
    front: &Front,
    attempt: &Attempt,
    on_event: &mut dyn FnMut(VmEvent),
    cancel: &AtomicBool,
) -> std::result::Result<(), Ended> {
    let mut machine = start(request, disk, front, attempt, on_event)?;
    if let Front::Vnc(address) = front {
        // A machine that is gone already is noticed below.
        if let Some(event) = show(&mut machine, address.is_some())? {
            on_event(event);
        }
    }
    let mut watch = Watch::new(Instant::now());
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled().into());
        }
        let inputs = machine.wait(TICK)?;
        if let Some(status) = inputs.ended {
            return ended(attempt, status, &machine.messages());
        }
        watch.hear(&inputs.serial, Instant::now());
        if attempt.may_fall_back
            && front.has_serial_socket()
            && let Some(why) = watch.missing(&mut machine, Instant::now())
        {
            return Err(Ended::Useless(why));
        }
    }
}

fn start(
    request: &BootRequest,
    disk: &Disk,
    front: &Front,
    attempt: &Attempt,
    on_event: &mut dyn FnMut(VmEvent),
) -> std::result::Result<Machine, Ended> {
    let flash = request.tools.flash(request.hardware.firmware)?;
    let kernel_args = kernel_args(request, front);
    let blueprint = Blueprint {
        hardware: &request.hardware,
        engine: attempt.engine,
        disk,
        flash: flash.map(|flash| (flash.code.as_path(), flash.format.as_str())),
        kernel_args: &kernel_args,
        script: false,
        front: front.clone(),
    };
    let work = WorkDir::new(&request.work)?;
    on_event(VmEvent::Started {
        firmware: request.hardware.firmware,
        accel: attempt.engine.into(),
    });
    Machine::start(&request.tools, flash, &blueprint, None, work).map_err(|error| {
        if attempt.may_fall_back && error.kind() == ErrorKind::Environment {
            Ended::Useless(error.to_string())
        } else {
            Ended::Error(error)
        }
    })
}

/// Where the screen is. An address gets a password, since every user of the machine can connect to it.
fn show(machine: &mut Machine, address: bool) -> Result<Option<VmEvent>> {
    if !address {
        let address = machine.vnc_socket().to_string_lossy().into_owned();
        return Ok(Some(VmEvent::Vnc {
            address,
            password: None,
        }));
    }
    let password = password()?;
    let shown = machine
        .set_vnc_password(&password)
        .and_then(|()| machine.vnc_address());
    Ok(shown.ok().map(|address| VmEvent::Vnc {
        address,
        password: Some(password),
    }))
}

/// Eight characters that are hard to guess and hard to confuse: 40 bits.
fn password() -> Result<String> {
    const CHARACTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";
    let mut bytes = [0u8; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(|e| Error::environment("reading /dev/urandom").cause(e))?;
    let character = |byte: u8| char::from(CHARACTERS[usize::from(byte % 32)]);
    Ok(bytes.map(character).iter().collect())
}

fn kernel_args(request: &BootRequest, front: &Front) -> Vec<String> {
    let mut args = request.kernel_args.clone();
    if *front == Front::Serial {
        args.extend(["console=tty0", "console=ttyS0"].map(str::to_owned));
    }
    args
}

/// Closing the window or switching off is exit status 0.
fn ended(attempt: &Attempt, status: ExitStatus, messages: &str) -> std::result::Result<(), Ended> {
    if status.success() {
        return Ok(());
    }
    let why = format!("QEMU ended ({status}) {messages}")
        .trim_end()
        .to_owned();
    Err(if attempt.may_fall_back && attempt.engine == Engine::Kvm {
        Ended::Useless(why)
    } else {
        Ended::Error(Error::environment(why))
    })
}

/// Watches a machine under KVM for its first minute.
struct Watch {
    start: Instant,
    pulse: Pulse,
    lines: Lines,
    /// GRUB's menu stands and waits for the user: silence means nothing.
    menu: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Watch {
            start: now,
            pulse: Pulse::new(now),
            lines: Lines::default(),
            menu: false,
        }
    }

    fn hear(&mut self, bytes: &[u8], now: Instant) {
        if !bytes.is_empty() {
            self.pulse.heard(now);
        }
        self.menu |= self
            .lines
            .feed(bytes)
            .iter()
            .any(|line| line.contains(MENU));
    }

    /// Why KVM must be given up, if it must.
    fn missing(&mut self, machine: &mut Machine, now: Instant) -> Option<String> {
        let requests = self.pulse.requests();
        if requests > BUSY
            || now.duration_since(self.start) > WATCHED
            || !self.pulse.look(machine, now)
        {
            return None;
        }
        if machine
            .status()
            .is_ok_and(|status| status == "internal-error")
        {
            return Some("QEMU reports an internal error of KVM".to_owned());
        }
        self.menu &= requests == self.pulse.requests();
        let silent = !self.menu && self.pulse.silence(now) >= SILENCE;
        silent.then(|| format!("no sign of life for {} s", SILENCE.as_secs()))
    }
}

/// A window where there can be one, else what was asked for.
fn choose_front(request: &BootRequest) -> Result<Front> {
    let socket = || Front::Vnc(None);
    Ok(match &request.display {
        Display::Auto {
            desktop_session: false,
        } => socket(),
        Display::Auto {
            desktop_session: true,
        } => {
            let offered = offered_displays(request)?;
            ["gtk", "sdl"]
                .into_iter()
                .find(|kind| offered.iter().any(|have| have == kind))
                .map_or_else(socket, Front::Window)
        }
        Display::Gtk => Front::Window("gtk"),
        Display::Sdl => Front::Window("sdl"),
        Display::Curses => Front::Curses,
        Display::Serial => Front::Serial,
        Display::VncSocket => socket(),
        Display::Vnc(address) => Front::Vnc(Some(address.clone())),
    })
}

/// Display types that this QEMU was built with, or has modules for.
fn offered_displays(request: &BootRequest) -> Result<Vec<String>> {
    let qemu = &request.tools.qemu;
    let output = Command::new(qemu)
        .args(["-display", "help"])
        .output()
        .map_err(|e| Error::file("starting", qemu, e))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim().to_owned())
        .collect())
}
