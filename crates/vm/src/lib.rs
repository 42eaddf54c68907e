//! Boots an image in QEMU and gives a verdict: serial console, QMP, screenshot.
//!
//! [`test`] boots unseen, waits for a desktop or a login prompt and says what it found; [`boot`] gives an interactive machine.
//! Neither modifies the image, prints or reads the environment.
//!
//! ```text
//! TestRequest ─ tools, disk, engine ─▶ Blueprint ─▶ QEMU ─┬─ serial port 1: console ─▶ console ─┐
//!                                                         ├─ serial port 2: observer ─▶ agent ──┼─▶ BootState ─▶ test ─▶ Report
//!                                                         └─ QMP: events, disk, screen ─────────┘
//! ```
//! Shipped images hold no test hook. What the test needs comes from outside: kernel arguments through an SMBIOS string that Kiln's
//! `grub.cfg` reads, the observer and the caller's script through ACPI tables, a root shell to start it from through
//! `systemd.debug_shell`.

mod agent;
mod blueprint;
mod boot;
mod boot_state;
mod console;
mod disk;
mod engine;
mod error;
mod firmware;
mod machine;
mod processor;
mod pulse;
mod qmp;
mod report;
mod request;
mod screen;
mod test;
mod tools;
mod work;

pub use boot::{BootReport, boot};
pub use error::{Error, ErrorKind};
pub use processor::processor_level;
pub use report::{
    AccelUsed, FailedUnit, GuestLog, Reason, Report, ScriptResult, Stage, StageName, Verdict,
    VmEvent,
};
pub use request::{
    Accel, BootRequest, Bus, Display, Expect, Firmware, Hardware, ImageFormat, Network, TestRequest,
};
pub use screen::{Drawn, ScreenFigures};
pub use test::test;
pub use tools::{Flash, Tools};
