//! The outcome of a test boot, as it stands in `boot.json`.

use std::path::PathBuf;

use serde::Serialize;

use crate::request::{Bus, Expect, Firmware};
use crate::screen::{Drawn, ScreenFigures};

/// Whether the system came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It did.
    Passed,
    /// It did not.
    Failed {
        /// What sort of failure.
        reason: Reason,
        /// One sentence, with the system's own words where it has any.
        detail: String,
    },
}

/// Why a system did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The firmware found nothing to start, or GRUB found no configuration.
    NoBootLoader,
    /// Secure Boot refused what was to be started.
    SecureBoot,
    /// The boot loader ran, the kernel did not.
    NoKernel,
    /// The kernel panicked.
    KernelPanic,
    /// The root file system was not found or could not be mounted.
    NoRoot,
    /// A systemd unit failed.
    UnitFailed,
    /// The desktop did not come up in time.
    NoDesktop,
    /// No login prompt came in time.
    NoLogin,
    /// The caller's script failed.
    ScriptFailed,
    /// The machine or its init stopped: power off, endless resets, a crash.
    Died,
}

impl Reason {
    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::NoBootLoader => "no boot loader",
            Reason::SecureBoot => "refused by Secure Boot",
            Reason::NoKernel => "the kernel did not start",
            Reason::KernelPanic => "kernel panic",
            Reason::NoRoot => "no root file system",
            Reason::UnitFailed => "a systemd unit failed",
            Reason::NoDesktop => "no desktop",
            Reason::NoLogin => "no login prompt",
            Reason::ScriptFailed => "the test script failed",
            Reason::Died => "the machine stopped",
        }
    }
}

/// How far the boot came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageName {
    /// The firmware says something.
    Firmware,
    /// The boot loader says something.
    BootLoader,
    /// The kernel's first line.
    Kernel,
    /// The system's own init.
    Userspace,
    /// systemd's `multi-user.target`.
    MultiUser,
    /// A login prompt.
    Login,
    /// systemd's `graphical.target`.
    Graphical,
    /// A user is logged in graphically.
    Session,
    /// The desktop's windows exist.
    Windows,
    /// The desktop is drawn and at rest.
    Desktop,
}

/// When a stage was reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// Seconds since power-on, by the host's clock.
    pub seconds: f64,
    /// Seconds since the guest's kernel started, by its own clock, where it told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_seconds: Option<f64>,
}

/// A unit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedUnit {
    /// As in `nftables.service`.
    pub unit: String,
    /// systemd's word for how, as in `exit-code`.
    pub result: String,
    /// The last lines it logged.
    pub log: Vec<String>,
}

/// The end of a log of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestLog {
    /// `jobs` (systemd's waiting ones), `journal` (errors), `crashes` (programs that the kernel ended), `xorg` (errors),
    /// `session` (of the graphical session).
    pub name: String,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// What the caller's script did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScriptResult {
    /// Its exit code; none if it did not end in time.
    pub exit_code: Option<i32>,
    /// Standard output and error as they came, at most 4 MiB.
    pub output: String,
    /// Whether more came than was kept.
    pub truncated: bool,
}

/// How the processor was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccelUsed {
    /// The kernel's virtual machines.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// The outcome of a test boot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether the system came up.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The image.
    pub image: PathBuf,
    /// What was to be reached.
    pub expect: Expect,
    /// What started the image.
    pub firmware: Firmware,
    /// How the disk was attached.
    pub bus: Bus,
    /// How the processor was made.
    pub accel: AccelUsed,
    /// Why it was not KVM, where KVM was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accel_note: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// From power-on to the verdict.
    pub seconds: f64,
    /// How far it came, in the order of time.
    pub stages: Vec<Stage>,
    /// `PRETTY_NAME` of the system, where it came up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The running kernel's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// systemd's own verdict: `running`, `degraded`, `starting`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_state: Option<String>,
    /// Who is logged in graphically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_user: Option<String>,
    /// Units that failed.
    pub failed_units: Vec<FailedUnit>,
    /// Where the system ran but did not come up: the ends of its logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<GuestLog>,
    /// How the screen was judged, if the desktop was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawn: Option<Drawn>,
    /// What `desktop.png` shows; none if there is no picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screen: Option<ScreenFigures>,
    /// What the caller's script did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<ScriptResult>,
    /// Kernel arguments that the test added.
    pub kernel_args: Vec<String>,
    /// What looked wrong although the verdict may be good.
    pub warnings: Vec<String>,
    /// The last lines of the console, 30 at most.
    pub console: Vec<String>,
}

impl Report {
    /// Whether the system came up.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }
}

/// What happens during a boot, for a terminal or a log to show.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum VmEvent {
    /// A machine is switched on.
    Started {
        /// What starts the image.
        firmware: Firmware,
        /// How the processor is made.
        accel: AccelUsed,
    },
    /// A stage is reached.
    Stage(Stage),
    /// A line of the console.
    Console {
        /// Without escape sequences and line end.
        line: String,
    },
    /// A line that the caller's script printed.
    Output {
        /// Without its end.
        line: String,
    },
    /// Something the user should know although the boot goes on.
    Warning {
        /// One sentence.
        message: String,
    },
    /// An interactive machine shows itself over VNC.
    Vnc {
        /// `host:port`, or the absolute path of a Unix socket.
        address: String,
        /// What the viewer is asked for; `None` at a socket, which only this user can reach.
        password: Option<String>,
    },
}
