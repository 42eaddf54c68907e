//! Boots tiny staged guests in a real QEMU. Needs the Debian packages qemu-system-x86 and ovmf.

mod guest;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest::{CONSOLE, HALT, LISTEN, OBSERVER, POWER_OFF, RESET, WRITE_DISK};
use kiln_vm::{
    Accel, BootRequest, Display, ErrorKind, Expect, Firmware, Hardware, ImageFormat, Reason,
    Report, StageName, TestRequest, Tools, Verdict, VmEvent,
};

fn tools() -> Tools {
    let tools = Tools::find(&std::env::var_os("PATH").unwrap_or_default());
    tools.expect("these tests need QEMU: apt-get install qemu-system-x86 ovmf")
}

fn request(dir: &Path, image: PathBuf) -> TestRequest {
    let mut request = TestRequest::new(image, dir.join("output"), dir.join("work"), tools());
    request.hardware.accel = Accel::Tcg;
    request.hardware.memory_mib = 128;
    request.hardware.cpus = 1;
    request.expect = Expect::Login;
    // Long enough for a host that is busy with much else.
    request.timeout = Duration::from_secs(600);
    request
}

fn run(request: &TestRequest) -> (Report, Vec<VmEvent>) {
    let mut events = Vec::new();
    let report = kiln_vm::test(
        request,
        &mut |event| events.push(event),
        &AtomicBool::new(false),
    )
    .unwrap();
    (report, events)
}

fn play(script: &[&[u8]]) -> (tempfile::TempDir, Report) {
    let dir = tempfile::tempdir().unwrap();
    let (report, _) = run(&request(dir.path(), guest::image(dir.path(), script)));
    (dir, report)
}

fn reason(report: &Report) -> (Reason, &str) {
    match &report.verdict {
        Verdict::Failed { reason, detail } => (*reason, detail),
        Verdict::Passed => panic!("it passed: {report:#?}"),
    }
}

/// What the observer of a healthy system says up to the list of failed units.
const HEALTHY: &[&[u8]] = &[
    b"[    0.000000] Linux version 6.1.0\r\n",
    OBSERVER,
    b"root@kiln:/# ",
    LISTEN,
    b"\nKILN 5.5 hello 6.1.0-50-amd64 Debian GNU/Linux 12 (bookworm)\n",
    b"\nKILN 7.5 state running active inactive active inactive\n",
    LISTEN,
];

fn healthy_then(rest: &[&[u8]]) -> Vec<&'static [u8]> {
    let rest = rest
        .iter()
        .map(|part| &*Box::leak(part.to_vec().into_boxed_slice()));
    HEALTHY.iter().copied().chain(rest).collect()
}

#[test]
fn a_healthy_system_passes_and_its_files_appear() {
    let (dir, report) = play(&healthy_then(&[b"\nKILN 8 collected\n"]));
    assert!(report.passed(), "{report:#?}");
    assert_eq!(report.os.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    let stages: Vec<StageName> = report.stages.iter().map(|stage| stage.name).collect();
    use StageName::{Firmware, Kernel, Login, MultiUser, Userspace};
    assert_eq!(stages, [Firmware, Kernel, Userspace, MultiUser, Login]);
    assert!(
        report
            .stages
            .windows(2)
            .all(|pair| pair[0].seconds <= pair[1].seconds)
    );

    let output = dir.path().join("output");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.join("boot.json")).unwrap()).unwrap();
    assert_eq!(
        (json["verdict"].as_str(), json["accel"].as_str()),
        (Some("passed"), Some("tcg"))
    );
    assert!(
        std::fs::read_to_string(output.join("serial.log"))
            .unwrap()
            .contains("Linux version 6.1.0")
    );
    assert!(
        std::fs::read(output.join("desktop.png"))
            .unwrap()
            .starts_with(b"\x89PNG\r\n")
    );
    assert_eq!(
        std::fs::read_dir(&output).unwrap().count(),
        3,
        "nothing else is left there"
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("work")).unwrap().count(),
        0
    );
}

#[test]
fn failed_units_decide_unless_they_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let failed: &[u8] =
        b"\nKILN 8 failed nftables.service exit-code bm8gc3VjaCBydWxlCg==\n\nKILN 8 collected\n";
    let mut request = request(
        dir.path(),
        guest::image(dir.path(), &healthy_then(&[failed])),
    );
    let (report, _) = run(&request);
    assert_eq!(
        reason(&report),
        (
            Reason::UnitFailed,
            "nftables.service (exit-code): no such rule"
        )
    );
    request.allow_failed_units = true;
    let (report, _) = run(&request);
    assert!(report.passed());
    assert_eq!(report.failed_units[0].log, ["no such rule"]);
}

#[test]
fn scripts_bring_back_their_output_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let script = healthy_then(&[
        b"\nKILN 8 collected\n",
        LISTEN,
        b"KILN - out tables:  2\nKILN - out \nKILN - out done\n\nKILN 9 exit 4\n",
    ]);
    let mut request = request(dir.path(), guest::image(dir.path(), &script));
    request.script = Some("nft list tables".to_owned());
    let (report, events) = run(&request);
    assert_eq!(
        reason(&report),
        (Reason::ScriptFailed, "it ended with exit code 4")
    );
    let script = report.script.unwrap();
    assert_eq!(
        (script.output.as_str(), script.exit_code),
        ("tables:  2\n\ndone\n", Some(4))
    );
    assert!(events.contains(&VmEvent::Output {
        line: "done".to_owned()
    }));
}

#[test]
fn a_blank_disk_has_no_boot_loader_under_bios_and_uefi() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("blank.raw");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let mut request = request(dir.path(), image.clone());
        request.hardware.firmware = firmware;
        let (report, _) = run(&request);
        assert_eq!(
            reason(&report).0,
            Reason::NoBootLoader,
            "{firmware:?}: {report:#?}"
        );
    }
}

#[test]
fn the_consoles_words_become_reasons() {
    let cases: [(&[u8], Reason, &str); 4] = [
        (b"GRUB loading.\r\nerror: no such device: B007-CAFE.\r\nEntering rescue mode...\r\ngrub rescue> ", Reason::NoBootLoader, "rescue"),
        (b"Linux version 6\r\nKernel panic - not syncing: Attempted to kill init!\r\n", Reason::KernelPanic, "kill init"),
        (b"Linux version 6\r\nKernel panic - not syncing: VFS: Unable to mount root fs\r\n", Reason::NoRoot, "mount root"),
        (b"Linux version 6\r\nWelcome to Debian!\r\n[FAILED] Failed to mount home.mount - /home.\r\nYou are in emergency mode.\r\n",
            Reason::UnitFailed, "home.mount"),
    ];
    for (console, expected, word) in cases {
        let (_dir, report) = play(&[CONSOLE, console]);
        let (reason, detail) = reason(&report);
        assert_eq!(reason, expected, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
}

#[test]
fn machines_that_stop_are_told_apart() {
    let (_dir, report) = play(&[b"Linux version 6\r\n", POWER_OFF]);
    assert_eq!(
        reason(&report),
        (Reason::Died, "the system switched the machine off")
    );
    let (_dir, report) = play(&[b"once more\r\n", RESET]);
    assert_eq!(
        reason(&report),
        (Reason::Died, "the machine reset itself 4 times")
    );
}

#[test]
fn a_boot_that_never_ends_is_given_up_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut request = request(
        dir.path(),
        guest::image(dir.path(), &[b"Linux version 6\r\n", HALT]),
    );
    request.timeout = Duration::from_secs(15);
    let (report, _) = run(&request);
    let (reason, detail) = reason(&report);
    assert_eq!(reason, Reason::NoLogin);
    assert!(
        detail.starts_with("no login prompt within 15 s; the last stage was "),
        "{detail}"
    );
}

#[test]
fn the_image_is_never_modified() {
    let dir = tempfile::tempdir().unwrap();
    let image = guest::image(
        dir.path(),
        &[WRITE_DISK, b"written, then: No bootable device.\r\n"],
    );
    let before = std::fs::read(&image).unwrap();
    let (report, _) = run(&request(dir.path(), image.clone()));
    assert_eq!(reason(&report).0, Reason::NoBootLoader);
    assert!(before == std::fs::read(&image).unwrap());
}

#[test]
fn cancelling_stops_at_once_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(
        dir.path(),
        guest::image(dir.path(), &[b"Linux version 6\r\n", HALT]),
    );
    let cancel = AtomicBool::new(false);
    let mut saw_kernel = None;
    let error = kiln_vm::test(
        &request,
        &mut |event| {
            if matches!(&event, VmEvent::Stage(stage) if stage.name == StageName::Kernel) {
                saw_kernel = Some(Instant::now());
                cancel.store(true, Ordering::Relaxed);
            }
        },
        &cancel,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(saw_kernel.unwrap().elapsed() < Duration::from_secs(3));
    assert_eq!(
        std::fs::read_dir(dir.path().join("work")).unwrap().count(),
        0
    );
    assert!(machines_of(&request.image).is_empty());
}

#[test]
fn killing_kiln_kills_the_machine() {
    if let Some(dir) = std::env::var_os("KILN_VM_TEST_DIR") {
        // The process that is killed: this test's binary, started once more below.
        let dir = PathBuf::from(dir);
        let image = guest::image(&dir, &[b"Linux version 6\r\n", HALT]);
        run(&request(&dir, image));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut kiln = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killing_kiln_kills_the_machine"])
        .env("KILN_VM_TEST_DIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let image = dir.path().join("disk.raw");
    until("QEMU runs", || !machines_of(&image).is_empty());
    kiln.kill().unwrap();
    kiln.wait().unwrap();
    until("QEMU is gone", || machines_of(&image).is_empty());
}

/// A QEMU that pretends to be told to use KVM: `when_kvm` replaces the two words `kvm` and `host`.
fn pretended_kvm(dir: &Path, when_kvm: &str) -> Tools {
    let mut tools = tools();
    let script = format!(
        "#!/bin/sh\nleft=$#\nwhile [ $left -gt 0 ]; do\nword=$1; shift\ncase $word in\nkvm) {when_kvm} ;;\nhost) word=max ;;\n\
         esac\nset -- \"$@\" \"$word\"\nleft=$((left-1))\ndone\nexec {} \"$@\"\n",
        tools.qemu.display()
    );
    tools.qemu = dir.join("qemu");
    std::fs::write(&tools.qemu, script).unwrap();
    std::fs::set_permissions(&tools.qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
    tools.kvm = PathBuf::from("/dev/null");
    tools
}

fn with_pretended_kvm(when_kvm: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let image = guest::image(dir.path(), &healthy_then(&[b"\nKILN 8 collected\n"]));
    let mut request = request(dir.path(), image);
    request.tools = pretended_kvm(dir.path(), when_kvm);
    request.hardware.accel = Accel::Auto;
    let (report, events) = run(&request);
    assert!(report.passed(), "{report:#?}");
    assert!(events.iter().any(
        |event| matches!(event, VmEvent::Warning { message } if message.contains("KVM opens"))
    ));
    report
}

#[test]
fn kvm_that_fails_at_once_is_given_up() {
    let report = with_pretended_kvm("echo failed to set MSR 0x10a >&2; exit 134");
    let note = report.accel_note.unwrap();
    assert!(note.contains("failed to set MSR 0x10a"), "{note}");
}

#[test]
fn kvm_that_hangs_is_given_up() {
    // A machine that is never started looks like one whose processor hangs.
    let report = with_pretended_kvm("set -- \"$@\" tcg; word=-S");
    let note = report.accel_note.unwrap();
    assert!(note.contains("no sign of life for 20 s"), "{note}");
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tools::find(dir.path().as_os_str()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(
        error
            .hint_text()
            .unwrap()
            .contains("apt-get install qemu-system-x86")
    );

    let mut request = request(dir.path(), dir.path().join("missing.raw"));
    let error = kiln_vm::test(&request, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("missing.raw"));

    request.image = guest::image(dir.path(), &[]);
    request.hardware.firmware = Firmware::Secure;
    request.tools.secure = None;
    let error = kiln_vm::test(&request, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
    assert!(
        error.hint_text().unwrap().contains("apt-get install ovmf"),
        "{error}"
    );
}

fn boot_request(dir: &Path, script: &[&[u8]]) -> BootRequest {
    let mut hardware = Hardware::new(Firmware::Bios);
    (hardware.accel, hardware.memory_mib) = (Accel::Tcg, 128);
    BootRequest {
        image: guest::image(dir, script),
        image_format: None,
        hardware,
        display: Display::Auto {
            desktop_session: false,
        },
        kernel_args: Vec::new(),
        work: dir.join("work"),
        tools: tools(),
    }
}

#[test]
fn an_interactive_machine_runs_until_it_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let request = boot_request(dir.path(), &[b"bye\r\n", POWER_OFF]);
    let report = kiln_vm::boot(&request, &mut |_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.accel, kiln_vm::AccelUsed::Tcg);
}

#[test]
fn without_a_desktop_session_the_screen_is_on_a_socket_of_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let request = boot_request(dir.path(), &[HALT]);
    let greeting = greeting(&request, |address, password| {
        assert_eq!(password, None);
        let socket = Path::new(address);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode(socket.parent().unwrap()), 0, "{address}");
        Box::new(std::os::unix::net::UnixStream::connect(socket).unwrap())
    });
    // Version 3.8, then one kind of security: 1, none (RFC 6143, section 7.1.2).
    assert_eq!(greeting, b"RFB 003.008\n\x01\x01");
}

#[test]
fn vnc_at_an_address_asks_for_a_password() {
    let dir = tempfile::tempdir().unwrap();
    let mut request = boot_request(dir.path(), &[HALT]);
    request.display = Display::Vnc("127.0.0.1".to_owned());
    let greeting = greeting(&request, |address, password| {
        assert!(address.starts_with("127.0.0.1:59"), "{address}");
        assert_eq!(password.map(str::len), Some(8));
        Box::new(std::net::TcpStream::connect(address).unwrap())
    });
    // One kind of security: 2, VNC authentication.
    assert_eq!(greeting, b"RFB 003.008\n\x01\x02");
}

trait Connection: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> Connection for T {}

/// What the VNC server of an interactive machine says first.
fn greeting(
    request: &BootRequest,
    mut connect: impl FnMut(&str, Option<&str>) -> Box<dyn Connection>,
) -> Vec<u8> {
    let cancel = AtomicBool::new(false);
    let mut greeting = Vec::new();
    let error = kiln_vm::boot(
        request,
        &mut |event| {
            if let VmEvent::Vnc { address, password } = event {
                let mut stream = connect(&address, password.as_deref());
                let mut version = [0; 12];
                stream.read_exact(&mut version).unwrap();
                stream.write_all(&version).unwrap();
                let mut security = [0; 2];
                stream.read_exact(&mut security).unwrap();
                greeting = [&version[..], &security].concat();
                cancel.store(true, Ordering::Relaxed);
            }
        },
        &cancel,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    greeting
}

/// Processes whose command line names the image.
fn machines_of(image: &Path) -> Vec<u32> {
    let name = image.as_os_str().as_encoded_bytes();
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(name.len()).any(|part| part == name)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(names)
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited a minute until {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs qemu-img, of the Debian package qemu-utils.
fn qemu_img(arguments: &[&str], files: &[&Path]) {
    let mut command = Command::new("qemu-img");
    let output = command.args(arguments).args(files).output();
    let output = output.expect("this test needs qemu-img: apt-get install qemu-utils");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn other_formats_boot_when_they_are_asked_for_and_stand_alone() {
    let dir = tempfile::tempdir().unwrap();
    let raw = guest::image(dir.path(), &healthy_then(&[b"\nKILN 8 collected\n"]));
    for (format, name) in [
        (ImageFormat::Qcow2, "qcow2"),
        (ImageFormat::Vmdk, "vmdk"),
        (ImageFormat::Vdi, "vdi"),
    ] {
        // Its name says nothing.
        let image = dir.path().join(format!("{name}-disk.raw"));
        qemu_img(&["convert", "-O", name], &[&raw, &image]);
        let mut request = request(dir.path(), image);
        let error = kiln_vm::test(&request, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(&format!("--image-format {name}")), "{hint}");
        request.image_format = Some(format);
        let (report, _) = run(&request);
        assert!(report.passed(), "{name}: {report:#?}");
    }
}

#[test]
fn an_image_cannot_make_qemu_open_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("id_rsa");
    std::fs::write(&canary, vec![b'k'; 1 << 20]).unwrap();
    let below = canary.to_str().unwrap();
    let path = |name: &str| dir.path().join(name);
    let backed = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", below];
    qemu_img(&backed, &[&path("backed.raw")]);
    let data = format!("data_file={below},data_file_raw=on");
    let external = ["create", "-q", "-f", "qcow2", "-o", &data];
    Command::new("qemu-img")
        .args(external)
        .arg(path("external.raw"))
        .arg("1M")
        .status()
        .unwrap();
    let flat = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
    ];
    qemu_img(&flat, &[&canary, &path("flat.raw")]);
    for (name, format) in [
        ("backed.raw", ImageFormat::Qcow2),
        ("external.raw", ImageFormat::Qcow2),
        ("flat.raw", ImageFormat::Vmdk),
    ] {
        let mut request = request(dir.path(), path(name));
        for format in [None, Some(format)] {
            request.image_format = format;
            let error = kiln_vm::test(&request, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Input, "{error}");
            assert!(error.to_string().contains(name), "{error}");
            if format.is_some() {
                assert!(
                    error.to_string().contains("with your permissions"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_system_without_a_desktop_is_only_waited_for_until_its_login() {
    let dir = tempfile::tempdir().unwrap();
    let said = |goal: &'static [u8]| {
        let mut script = HEALTHY.to_vec();
        script.insert(script.len() - 2, goal);
        script.push(b"\nKILN 8 collected\n");
        script
    };
    let mut request = request(
        dir.path(),
        guest::image(dir.path(), &said(b"\nKILN 6 goal login\n")),
    );
    request.expect = Expect::Auto;
    let (report, _) = run(&request);
    assert!(report.passed(), "{report:#?}");
    assert_eq!(report.expect, Expect::Login);
    // One that is made for a desktop is not done at the login prompt.
    guest::image(dir.path(), &said(b"\nKILN 6 goal desktop\n"));
    request.timeout = Duration::from_secs(10);
    let (report, _) = run(&request);
    assert_eq!(report.expect, Expect::Desktop);
    assert_eq!(reason(&report).0, Reason::NoDesktop);
}
