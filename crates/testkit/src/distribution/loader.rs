//! GRUB for UEFI, as an RPM distribution has it: one program, made for the distribution's directory on EFI system partitions, and signed.
//!
//! Debian's signed one looks for its configuration in `/EFI/debian`. This one is signed by a key of the cache, which machines that are to
//! start it under Secure Boot have to know beside Microsoft's: the shim, which is Debian's, asks the firmware for keys as well as its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

/// The target's directory on EFI system partitions: what is built as another one is not found there.
pub(super) const DIRECTORY: &str = "centos";
/// The certificate of the key that signs GRUB, in PEM: in the cache, and beside `repodata`.
pub(super) const CERTIFICATE: &str = "secure-boot.pem";

/// Under Secure Boot no module is loaded from the disk.
const MODULES: &[&str] = &[
    "all_video",
    "boot",
    "chain",
    "configfile",
    "echo",
    "efi_gop",
    "ext2",
    "fat",
    "font",
    "gfxmenu",
    "gfxterm",
    "halt",
    "iso9660",
    "keystatus",
    "linux",
    "loadenv",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "png",
    "probe",
    "reboot",
    "regexp",
    "search",
    "search_fs_uuid",
    "search_label",
    "serial",
    "sleep",
    "smbios",
    "terminal",
    "test",
    "true",
    "video",
];

/// What the shim wants to know before it starts a program: the generations of its parts.
const SBAT: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n\
    grub,5,Free Software Foundation,grub,2.06,https://www.gnu.org/software/grub/\n\
    grub.kindling,1,Kindling Linux,grub2,2.06,https://kindling.example.org/\n";

/// Makes the key and its certificate, unless they are there.
pub(super) fn keep_key(cache: &Path) {
    let certificate = cache.join(CERTIFICATE);
    if certificate.exists() {
        return;
    }
    let part = certificate.with_extension("part");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes"]);
    openssl.args(["-sha256", "-days", "3650", "-subj", "/CN=Kindling"]);
    openssl
        .arg("-keyout")
        .arg(key(cache))
        .arg("-out")
        .arg(&part);
    run(&mut openssl);
    fs::rename(part, certificate).expect("a certificate");
}

fn key(cache: &Path) -> PathBuf {
    cache.join("secure-boot.key")
}

/// Makes GRUB at `to`.
pub(super) fn make(cache: &Path, work: &Path, to: &Path) {
    let (sbat, unsigned) = (work.join("sbat.csv"), work.join("grubx64.efi"));
    fs::write(&sbat, SBAT).expect("a list of generations");
    let mut mkimage = Command::new("grub-mkimage");
    mkimage.args(["-O", "x86_64-efi", "-p", &format!("/EFI/{DIRECTORY}")]);
    mkimage.arg("--sbat").arg(&sbat).arg("-o").arg(&unsigned);
    run(mkimage.args(MODULES));
    let mut sign = Command::new("sbsign");
    sign.arg("--key").arg(key(cache));
    sign.arg("--cert").arg(cache.join(CERTIFICATE));
    run(sign.arg("--output").arg(to).arg(&unsigned));
}
