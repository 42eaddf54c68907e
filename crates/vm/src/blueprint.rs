//! QEMU's command line for a machine: a pure function of what is asked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::agent;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::request::{Bus, Firmware, Hardware, ImageFormat, Network};

/// How the processor is really made, once `Accel` is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The kernel's virtual machines.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// Where the machine shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Nowhere: both serial ports are sockets, the screen is read through QMP.
    Observed,
    /// A window of this QEMU display type.
    Window(&'static str),
    /// The text screen in the terminal.
    Curses,
    /// The serial console in the terminal.
    Serial,
    /// VNC at this address; `None`: on the socket [`VNC`].
    Vnc(Option<String>),
}

impl Front {
    /// Whether the first serial port is a socket of ours. In the terminal it belongs to the user.
    pub(crate) fn has_serial_socket(&self) -> bool {
        !matches!(self, Front::Serial | Front::Curses)
    }
}

/// All that decides the command line. Files and sockets are named as they lie in the working directory.
pub(crate) struct Blueprint<'a> {
    pub(crate) hardware: &'a Hardware,
    pub(crate) engine: Engine,
    pub(crate) disk: &'a Disk,
    /// The firmware's code and its format; the variables are the file [`VARIABLES`].
    pub(crate) flash: Option<(&'a Path, &'a str)>,
    pub(crate) kernel_args: &'a [String],
    pub(crate) script: bool,
    pub(crate) front: Front,
}

/// Numbers of open files in QEMU's process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// The image, open for reading.
    pub(crate) image: i32,
    /// What the guest writes: an empty qcow2 without a name.
    pub(crate) changes: i32,
}

/// Socket of the VNC server.
pub(crate) const VNC: &str = "vnc";
/// Socket of the control connection.
pub(crate) const QMP: &str = "qmp";
/// Socket of the first serial port: the console.
pub(crate) const SERIAL: &str = "serial";
/// Socket of the second serial port: the observer.
pub(crate) const AGENT: &str = "agent";
/// The UEFI variable store.
pub(crate) const VARIABLES: &str = "variables.fd";
/// The observer's script.
pub(crate) const AGENT_FILE: &str = "agent.sh";
/// The caller's script.
pub(crate) const SCRIPT_FILE: &str = "script";
/// Makes SeaBIOS show its text screen on the first serial port: the port's address, 16 bits little endian.
pub(crate) const SERCON_FILE: &str = "sercon-port";
/// Content of [`SERCON_FILE`].
pub(crate) const SERCON: [u8; 2] = 0x3f8u16.to_le_bytes();

/// What Debian kernels and the emulator get on with best: measured on several hosts, the instructions left out are
/// emulated slowly or wrongly. QEMU's AVX2 gathers read from wrong addresses, and programs that draw with llvmpipe (GNOME)
/// end with a segmentation fault; AVX without AVX2 ends the X server, in libgcrypt. So the processor has neither.
const TCG_CPU: &str =
    "max,-erms,-fsrm,-la57,-smap,-smep,-pku,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq";
/// For a system whose programs do not start without AVX2: the lesser evil.
const TCG_CPU_V3: &str = "max,-erms,-fsrm,-la57,-smap,-smep,-pku,-vaes,-vpclmulqdq";
/// Kiln's grub.cfg reads this much of an SMBIOS string.
const APPEND_LIMIT: usize = 1000;

impl Blueprint<'_> {
    /// The arguments after the program's name.
    pub(crate) fn arguments(&self, descriptors: Descriptors) -> Result<Vec<OsString>> {
        let mut args = Arguments::default();
        args.add(["-nodefaults", "-no-user-config", "-name", "kiln"]);
        self.processor(&mut args);
        self.firmware(&mut args);
        args.add(["-device", "qemu-xhci,id=xhci"]);
        self.disk(&mut args, descriptors);
        self.network(&mut args);
        args.add([
            "-chardev",
            "socket,id=qmp,path=qmp",
            "-mon",
            "chardev=qmp,mode=control",
        ]);
        args.add(["-device", "virtio-rng-pci", "-device", "VGA"]);
        self.front(&mut args);
        self.append(&mut args)?;
        Ok(args.0)
    }

    fn processor(&self, args: &mut Arguments) {
        let smm = if self.hardware.firmware == Firmware::Secure {
            "on"
        } else {
            "off"
        };
        args.add(["-machine", &format!("q35,smm={smm},vmport=off")]);
        match self.engine {
            Engine::Kvm => args.add(["-accel", "kvm", "-cpu", "host"]),
            Engine::Tcg => {
                let cpu = match self.hardware.processor_level {
                    3.. => TCG_CPU_V3,
                    _ => TCG_CPU,
                };
                args.add(["-accel", "tcg,thread=multi", "-cpu", cpu]);
            }
        }
        args.add([
            "-smp",
            &self.hardware.cpus.to_string(),
            "-m",
            &self.hardware.memory_mib.to_string(),
        ]);
    }

    fn firmware(&self, args: &mut Arguments) {
        let Some((code, format)) = self.flash else {
            return;
        };
        if self.hardware.firmware == Firmware::Secure {
            args.add(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        args.pair(
            "-drive",
            joined(
                &format!("if=pflash,unit=0,readonly=on,format={format},file="),
                code.as_os_str(),
            ),
        );
        args.add([
            "-drive",
            &format!("if=pflash,unit=1,format={format},file={VARIABLES}"),
        ]);
    }

    /// The disk: a qcow2 that takes what the guest writes, over the image. Each file is a descriptor, and each node has the
    /// driver that is named here: nothing in the image decides what QEMU opens.
    fn disk(&self, args: &mut Arguments, descriptors: Descriptors) {
        // The path is for whoever looks at the list of processes.
        let image = format!("fd={},set=1,opaque=", descriptors.image);
        args.pair("-add-fd", joined(&image, self.disk.path.as_os_str()));
        args.add(["-add-fd", &format!("fd={},set=2", descriptors.changes)]);
        let mut node = |value: Value| args.add(["-blockdev", &value.to_string()]);
        node(json!({
            "node-name": "image-file", "driver": self.disk.protocol, "filename": "/dev/fdset/1", "read-only": true,
        }));
        let mut image = json!({
            "node-name": "image", "driver": self.disk.format.qemu(), "file": "image-file", "read-only": true,
        });
        if matches!(self.disk.format, ImageFormat::Qcow2 | ImageFormat::Vmdk) {
            image["backing"] = Value::Null;
        }
        node(image);
        let cache = json!({"no-flush": true});
        node(json!({
            "node-name": "changes-file", "driver": "file", "filename": "/dev/fdset/2", "cache": cache,
        }));
        node(json!({
            "node-name": "disk", "driver": "qcow2", "file": "changes-file", "backing": "image", "cache": cache,
        }));
        match self.hardware.bus {
            Bus::Virtio => args.add(["-device", "virtio-blk-pci,drive=disk,bootindex=1"]),
            Bus::Sata => args.add(["-device", "ide-hd,drive=disk,bus=ide.0,bootindex=1"]),
            Bus::Usb => args.add([
                "-device",
                "usb-storage,drive=disk,bus=xhci.0,removable=on,bootindex=1",
            ]),
        }
    }

    fn network(&self, args: &mut Arguments) {
        let restrict = match self.hardware.network {
            Network::None => return,
            Network::Isolated => "on",
            Network::Host => "off",
        };
        args.add(["-netdev", &format!("user,id=net,restrict={restrict}")]);
        // Without a ROM nothing tries to boot from the network.
        args.add(["-device", "virtio-net-pci,netdev=net,romfile="]);
    }

    fn front(&self, args: &mut Arguments) {
        match &self.front {
            Front::Observed => args.add(["-display", "none"]),
            Front::Window(kind) => args.add(["-display", kind]),
            Front::Curses => args.add(["-display", "curses"]),
            Front::Serial => args.add(["-display", "none", "-serial", "mon:stdio"]),
            Front::Vnc(None) => args.add(["-display", &format!("vnc=unix:{VNC}")]),
            // Nobody gets in before the password is set.
            Front::Vnc(Some(address)) => args.add([
                "-display",
                &format!("vnc={}:0,to=99,password=on", escaped(address)),
            ]),
        }
        if matches!(self.front, Front::Window(_) | Front::Vnc(_)) {
            args.add(["-device", "usb-tablet,bus=xhci.0"]);
        }
        if self.front.has_serial_socket() {
            self.serial(args, SERIAL);
        }
        if self.front == Front::Observed {
            self.serial(args, AGENT);
            args.add(["-acpitable", &table(agent::TABLE, AGENT_FILE)]);
            if self.script {
                args.add(["-acpitable", &table(agent::SCRIPT_TABLE, SCRIPT_FILE)]);
            }
        }
    }

    /// A serial port on a socket. The BIOS shows its text screen, and so GRUB's menu, on the first one; UEFI does by itself.
    fn serial(&self, args: &mut Arguments, name: &str) {
        args.add([
            "-chardev",
            &format!("socket,id={name},path={name}"),
            "-serial",
            &format!("chardev:{name}"),
        ]);
        if name == SERIAL && self.hardware.firmware == Firmware::Bios {
            args.add([
                "-fw_cfg",
                &format!("name=etc/sercon-port,file={SERCON_FILE}"),
            ]);
        }
    }

    /// Kiln's grub.cfg takes kernel arguments from the last SMBIOS OEM string (type 11).
    fn append(&self, args: &mut Arguments) -> Result<()> {
        if self.kernel_args.is_empty() {
            return Ok(());
        }
        let odd =
            |arg: &&String| arg.is_empty() || !arg.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(arg) = self.kernel_args.iter().find(odd) {
            return Err(Error::input(format!(
                "the kernel argument {arg:?} is empty, or has blanks or characters beyond ASCII"
            ))
            .hint("give every kernel argument by itself"));
        }
        let value = format!("kiln.append={}", self.kernel_args.join(" "));
        if value.len() > APPEND_LIMIT {
            return Err(Error::input(format!(
                "the kernel arguments of this boot take {} bytes; {APPEND_LIMIT} fit",
                value.len()
            )));
        }
        args.add(["-smbios", &format!("type=11,value={}", escaped(&value))]);
        Ok(())
    }
}

fn table(signature: &str, file: &str) -> String {
    format!("sig={signature},rev=1,oem_id=KILN,oem_table_id=KILNTEST,data={file}")
}

/// A value within QEMU's comma-separated options: commas are doubled.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn joined(options: &str, path: &OsStr) -> OsString {
    let mut bytes = options.as_bytes().to_vec();
    for &byte in path.as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: OsString) {
        self.0.push(option.into());
        self.0.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn line(hardware: &Hardware, engine: Engine, kernel_args: &[String]) -> Result<String> {
        line_of(ImageFormat::Raw, hardware, engine, kernel_args)
    }

    fn line_of(
        format: ImageFormat,
        hardware: &Hardware,
        engine: Engine,
        kernel_args: &[String],
    ) -> Result<String> {
        let disk = Disk {
            path: PathBuf::from("/a,b/disk.raw"),
            file: tempfile::tempfile().unwrap(),
            protocol: "file",
            format,
            size: 512,
        };
        let descriptors = Descriptors {
            image: 7,
            changes: 8,
        };
        let flash =
            (hardware.firmware != Firmware::Bios).then_some((Path::new("/fw/code.fd"), "raw"));
        let blueprint = Blueprint {
            hardware,
            engine,
            disk: &disk,
            flash,
            kernel_args,
            script: true,
            front: Front::Observed,
        };
        Ok(blueprint
            .arguments(descriptors)?
            .join(OsStr::new(" "))
            .into_string()
            .unwrap())
    }

    #[test]
    fn the_image_is_a_descriptor_with_a_driver_and_nothing_below() {
        let hardware = Hardware::new(Firmware::Bios);
        for (format, driver, backing) in [
            (ImageFormat::Raw, "raw", false),
            (ImageFormat::Qcow2, "qcow2", true),
            (ImageFormat::Vmdk, "vmdk", true),
        ] {
            let text = line_of(format, &hardware, Engine::Tcg, &[]).unwrap();
            assert!(text.contains("-add-fd fd=7,set=1"), "{text}");
            assert!(
                text.contains("opaque=/a,,b/disk.raw") && !text.contains("-drive"),
                "{text}"
            );
            let nodes = text
                .split(" -")
                .filter_map(|part| part.strip_prefix("blockdev "));
            let nodes: Vec<Value> = nodes
                .map(|node| serde_json::from_str(node).unwrap())
                .collect();
            assert_eq!(nodes[1]["driver"], driver);
            assert_eq!(nodes[1]["read-only"], true);
            assert_eq!(nodes[1].get("backing"), backing.then_some(&Value::Null));
        }
        let text = line(&hardware, Engine::Tcg, &[]).unwrap();
        assert!(
            text.contains("etc/sercon-port")
                && !text.contains("pflash")
                && !text.contains("smbios")
        );
        assert!(text.contains(&format!("-accel tcg,thread=multi -cpu {TCG_CPU} ")));
        assert!(TCG_CPU.contains("-avx2") && !TCG_CPU_V3.contains("-avx"));
        let newer = Hardware {
            processor_level: 3,
            ..hardware.clone()
        };
        let text = line(&newer, Engine::Tcg, &[]).unwrap();
        assert!(text.contains(&format!("-cpu {TCG_CPU_V3} ")));
    }

    #[test]
    fn secure_boot_protects_its_variables() {
        let text = line(&Hardware::new(Firmware::Secure), Engine::Kvm, &[]).unwrap();
        assert!(
            text.contains("q35,smm=on") && text.contains("property=secure,value=on"),
            "{text}"
        );
        assert!(text.contains("readonly=on,format=raw,file=/fw/code.fd"));
    }

    #[test]
    fn kernel_arguments_travel_in_the_last_smbios_string() {
        let args = ["console=ttyS0,115200".to_owned(), "quiet".to_owned()];
        let text = line(&Hardware::new(Firmware::Uefi), Engine::Tcg, &args).unwrap();
        assert!(
            text.ends_with("-smbios type=11,value=kiln.append=console=ttyS0,,115200 quiet"),
            "{text}"
        );
    }

    #[test]
    fn kernel_arguments_that_cannot_travel_are_refused() {
        for bad in ["a b", "", "a\nb", "ä", &"x".repeat(APPEND_LIMIT)] {
            let error = line(
                &Hardware::new(Firmware::Bios),
                Engine::Tcg,
                &[bad.to_owned()],
            )
            .unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Input, "{bad}");
        }
    }
}
