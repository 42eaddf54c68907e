//! Boots an image by hand: `try IMAGE bios|uefi|secure login|desktop auto|tcg OUTPUT [SCRIPT-FILE]`.
#![allow(clippy::print_stderr, clippy::unwrap_used, missing_docs)]
use kiln_vm::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let tools = Tools::find(&std::env::var_os("PATH").unwrap()).unwrap();
    let mut r = TestRequest::new(&a[1], &a[5], "/tmp/vmwork", tools);
    r.hardware.firmware = match a[2].as_str() {
        "bios" => Firmware::Bios,
        "uefi" => Firmware::Uefi,
        _ => Firmware::Secure,
    };
    r.expect = if a[3] == "login" {
        Expect::Login
    } else {
        Expect::Desktop
    };
    r.hardware.accel = match a[4].as_str() {
        "tcg" => Accel::Tcg,
        "kvm" => Accel::Kvm,
        _ => Accel::Auto,
    };
    r.script = a.get(6).map(|f| std::fs::read_to_string(f).unwrap());
    if let Some(b) = a.get(7) {
        r.hardware.bus = match b.as_str() {
            "usb" => Bus::Usb,
            "sata" => Bus::Sata,
            _ => Bus::Virtio,
        };
    }
    let cancel = std::sync::atomic::AtomicBool::new(false);
    match test(
        &r,
        &mut |e| {
            if !matches!(e, VmEvent::Console { .. }) {
                eprintln!("{e:?}")
            }
        },
        &cancel,
    ) {
        Ok(r) => eprintln!(
            "{:#?}",
            (
                r.verdict,
                r.seconds,
                r.failed_units,
                r.warnings,
                r.screen,
                r.drawn,
                r.script,
                r.system_state
            )
        ),
        Err(e) => eprintln!(
            "ERROR {e} {:?} {:?}",
            e.hint_text(),
            std::error::Error::source(&e)
        ),
    }
}
