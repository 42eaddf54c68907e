//! What is asked of a virtual machine, as plain values.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::firmware::Firmware;
use crate::tools::Tools;

/// How the guest's processor is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM where it works, emulation otherwise.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// How an image file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's own format, version 2 or 3.
    Qcow2,
    /// VMware's format, in one file.
    Vmdk,
    /// VirtualBox's format.
    Vdi,
}

impl ImageFormat {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Vmdk => "VMDK",
            ImageFormat::Vdi => "VDI",
        }
    }

    /// QEMU's name of the driver.
    pub(crate) fn qemu(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Vmdk => "vmdk",
            ImageFormat::Vdi => "vdi",
        }
    }
}

/// How the disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// virtio-blk: the fastest.
    #[default]
    Virtio,
    /// A USB stick on an xHCI controller.
    Usb,
    /// A SATA disk on an AHCI controller.
    Sata,
}

/// The guest's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// No network card.
    None,
    /// A card with DHCP and nothing behind it: no packet leaves the machine.
    #[default]
    Isolated,
    /// The host's network through address translation.
    Host,
}

/// The hardware that image is booted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hardware {
    /// What starts the image.
    pub firmware: Firmware,
    /// What the processor is made of.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// How the disk is attached.
    pub bus: Bus,
    /// The network.
    pub network: Network,
    /// The level of x86-64 that the system's programs need, where that is known ([`crate::processor_level`]); 1 otherwise.
    pub processor_level: u8,
}

impl Hardware {
    /// A machine with 2 GiB of memory, 2 processors, a virtio disk and an isolated network.
    pub fn new(firmware: Firmware) -> Self {
        Hardware {
            firmware,
            accel: Accel::Auto,
            memory_mib: 2048,
            cpus: 2,
            bus: Bus::default(),
            network: Network::default(),
            processor_level: 1,
        }
    }
}

/// What the system must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// A desktop where the system is made to show one, a login prompt where it is not: the system itself is asked.
    Auto,
    /// A user's desktop, drawn and at rest.
    Desktop,
    /// A login prompt.
    Login,
}

/// One test boot.
#[derive(Clone, Debug)]
pub struct TestRequest {
    /// The disk image, or a `tar.gz` that holds `disk.raw`. It is never modified.
    pub image: PathBuf,
    /// How it is read. `None`: as raw, and an image that looks like another format is refused. A format that can name
    /// other files is refused when it does.
    pub image_format: Option<ImageFormat>,
    /// The directory that the image must be in, if that matters.
    pub within: Option<PathBuf>,
    /// The machine.
    pub hardware: Hardware,
    /// From power-on to what is expected; the script and the closing report have this long again.
    pub timeout: Duration,
    /// What must be reached.
    pub expect: Expect,
    /// Whether a failed systemd unit is tolerated (it is listed in the report either way).
    pub allow_failed_units: bool,
    /// A script run as root by `/bin/sh` (or by what its `#!` line names) once the expected state is reached.
    pub script: Option<String>,
    /// Kernel arguments added to those that the test itself needs.
    pub kernel_args: Vec<String>,
    /// Receives `desktop.png`, `boot.json` and `serial.log`; made if missing.
    pub output: PathBuf,
    /// Directory for sockets and temporary disks; made if missing. Remains of killed runs in it are reclaimed.
    pub work: PathBuf,
    /// QEMU and the firmware images.
    pub tools: Tools,
}

impl TestRequest {
    /// A test boot of a raw image within 15 minutes, to the desktop if the system is made to show one.
    pub fn new(
        image: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
        work: impl Into<PathBuf>,
        tools: Tools,
    ) -> Self {
        TestRequest {
            image: image.into(),
            image_format: None,
            within: None,
            hardware: Hardware::new(Firmware::Bios),
            timeout: Duration::from_secs(900),
            expect: Expect::Auto,
            allow_failed_units: false,
            script: None,
            kernel_args: Vec::new(),
            output: output.into(),
            work: work.into(),
            tools,
        }
    }
}

/// Where an interactive machine shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Display {
    /// A window if `desktop_session` says so and QEMU has one, else VNC on a socket.
    Auto {
        /// Whether the caller sits in a graphical session (`DISPLAY` or `WAYLAND_DISPLAY` is set).
        desktop_session: bool,
    },
    /// A GTK window.
    Gtk,
    /// An SDL window.
    Sdl,
    /// The text screen in the terminal; graphics are not shown.
    Curses,
    /// The serial console in the terminal. The kernel is told to use it.
    Serial,
    /// VNC on a Unix socket in the working directory, which nobody else can enter.
    VncSocket,
    /// VNC at this address, as in `127.0.0.1`, with a password made for this machine; the first free display from 0 to
    /// 99 is taken.
    Vnc(String),
}

/// One interactive boot.
#[derive(Clone, Debug)]
pub struct BootRequest {
    /// The disk image, as in [`TestRequest::image`]. What the guest writes is thrown away.
    pub image: PathBuf,
    /// How it is read, as in [`TestRequest::image_format`].
    pub image_format: Option<ImageFormat>,
    /// The machine.
    pub hardware: Hardware,
    /// Where it shows itself.
    pub display: Display,
    /// Extra kernel arguments.
    pub kernel_args: Vec<String>,
    /// Directory for sockets and temporary disks, as in [`TestRequest::work`].
    pub work: PathBuf,
    /// QEMU and the firmware images.
    pub tools: Tools,
}
