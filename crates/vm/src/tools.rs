//! Finds QEMU and the UEFI firmware images of this machine.
//!
//! Firmware is found by the descriptors that distributions install for this purpose
//! (`/usr/share/qemu/firmware/*.json`, schema `docs/interop/firmware.json` in QEMU), then by well-known paths.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::firmware::Firmware;

const KVM: &str = "/dev/kvm";
const QEMU_NAMES: [&str; 2] = ["qemu-system-x86_64", "qemu-kvm"];
const QEMU_ELSEWHERE: &str = "/usr/libexec/qemu-kvm";
const DESCRIPTOR_DIRS: [&str; 3] = [
    "/etc/qemu/firmware",
    "/usr/local/share/qemu/firmware",
    "/usr/share/qemu/firmware",
];

/// Firmware code and the template of its variable store.
type WellKnown = (&'static str, &'static str);

const PLAIN_FILES: [WellKnown; 4] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];
const SECURE_FILES: [WellKnown; 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ),
];

/// The programs and files that a virtual machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The QEMU system emulator for x86-64.
    pub qemu: PathBuf,
    /// UEFI without Secure Boot, if the machine has one.
    pub uefi: Option<Flash>,
    /// UEFI with Secure Boot and enrolled keys, if the machine has one.
    pub secure: Option<Flash>,
    /// The device of the kernel's virtual machines: `/dev/kvm`.
    pub kvm: PathBuf,
}

/// A UEFI firmware in two flash chips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    /// The code, read-only.
    pub code: PathBuf,
    /// The variable store's template; each machine works on a copy.
    pub variables: PathBuf,
    /// QEMU's name of the format of both: `raw` or `qcow2`.
    pub format: String,
}

impl Tools {
    /// Looks for QEMU in `search_path` (a `PATH` value) and for firmware where distributions put it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Environment`] if there is no QEMU. Missing firmware is an error only when it is asked for.
    pub fn find(search_path: &OsStr) -> Result<Tools> {
        let qemu = find_qemu(search_path).ok_or_else(no_qemu)?;
        let descriptors = read_descriptors(&DESCRIPTOR_DIRS.map(PathBuf::from));
        Ok(Tools {
            qemu,
            uefi: pick(&descriptors, Firmware::Uefi).or_else(|| first_present(&PLAIN_FILES)),
            secure: pick(&descriptors, Firmware::Secure).or_else(|| first_present(&SECURE_FILES)),
            kvm: KVM.into(),
        })
    }

    /// The flash images for `firmware`; none are needed for a BIOS.
    pub(crate) fn flash(&self, firmware: Firmware) -> Result<Option<&Flash>> {
        let found = match firmware {
            Firmware::Bios => return Ok(None),
            Firmware::Uefi => &self.uefi,
            Firmware::Secure => &self.secure,
        };
        found.as_ref().map(Some).ok_or_else(|| {
            Error::environment(format!("no firmware for {} is installed", firmware.name()))
                .hint("install OVMF: `apt-get install ovmf` on Debian and Ubuntu, `dnf install edk2-ovmf` on Fedora")
        })
    }
}

fn no_qemu() -> Error {
    Error::environment("qemu-system-x86_64 is not in PATH").hint(
        "install QEMU: `apt-get install qemu-system-x86` on Debian and Ubuntu, `dnf install qemu-system-x86` on Fedora",
    )
}

fn find_qemu(search_path: &OsStr) -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    for name in QEMU_NAMES {
        candidates.extend(std::env::split_paths(search_path).map(|dir| dir.join(name)));
    }
    candidates.push(QEMU_ELSEWHERE.into());
    candidates
        .into_iter()
        .find(|path| path.is_absolute() && is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn first_present(files: &[WellKnown]) -> Option<Flash> {
    files
        .iter()
        .map(|(code, variables)| Flash {
            code: code.into(),
            variables: variables.into(),
            format: "raw".into(),
        })
        .find(Flash::present)
}

impl Flash {
    fn present(&self) -> bool {
        self.code.is_file() && self.variables.is_file()
    }
}

/// The part of a firmware descriptor that matters here.
#[derive(Deserialize)]
struct Descriptor {
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Mapping {
    device: String,
    executable: Option<Blob>,
    #[serde(rename = "nvram-template")]
    nvram_template: Option<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    filename: PathBuf,
    format: String,
}

#[derive(Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

impl Descriptor {
    fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|have| have == feature)
    }

    fn fits(&self, firmware: Firmware) -> bool {
        let machine = self.targets.iter().any(|t| {
            t.architecture == "x86_64" && t.machines.iter().any(|m| m.starts_with("pc-q35"))
        });
        let features = match firmware {
            Firmware::Bios => false,
            Firmware::Uefi => !self.has("enrolled-keys") && !self.has("requires-smm"),
            Firmware::Secure => self.has("secure-boot") && self.has("enrolled-keys"),
        };
        machine && features && self.mapping.device == "flash"
    }

    fn flash(&self) -> Option<Flash> {
        let (code, variables) = (
            self.mapping.executable.as_ref()?,
            self.mapping.nvram_template.as_ref()?,
        );
        if code.format != variables.format {
            return None;
        }
        Some(Flash {
            code: code.filename.clone(),
            variables: variables.filename.clone(),
            format: code.format.clone(),
        })
    }
}

/// All readable descriptors; a name in an earlier directory hides the same name in a later one.
fn read_descriptors(dirs: &[PathBuf]) -> Vec<Descriptor> {
    let mut files = std::collections::BTreeMap::new();
    for dir in dirs {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension() == Some(OsStr::new("json")) {
                files
                    .entry(entry.file_name())
                    .or_insert_with(|| entry.path());
            }
        }
    }
    files
        .into_values()
        .filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
        .collect()
}

/// Descriptors come in order of preference (their names start with a number).
fn pick(descriptors: &[Descriptor], firmware: Firmware) -> Option<Flash> {
    descriptors
        .iter()
        .filter(|d| d.fits(firmware))
        .filter_map(Descriptor::flash)
        .find(Flash::present)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(dir: &Path, name: &str, features: &str) {
        for file in ["code", "vars"] {
            std::fs::write(dir.join(format!("{name}.{file}")), b"x").unwrap();
        }
        let path = dir.display();
        let json = format!(
            r#"{{"description":"","interface-types":["uefi"],"mapping":{{"device":"flash",
            "executable":{{"filename":"{path}/{name}.code","format":"raw"}},
            "nvram-template":{{"filename":"{path}/{name}.vars","format":"raw"}}}},
            "targets":[{{"architecture":"x86_64","machines":["pc-q35-*"]}}],"features":[{features}],"tags":[]}}"#
        );
        std::fs::write(dir.join(format!("{name}.json")), json).unwrap();
    }

    #[test]
    fn firmware_is_picked_by_its_features() {
        let dir = tempfile::tempdir().unwrap();
        descriptor(
            dir.path(),
            "40-secure",
            r#""secure-boot","enrolled-keys","requires-smm""#,
        );
        descriptor(dir.path(), "50-empty", r#""secure-boot","requires-smm""#);
        descriptor(dir.path(), "60-plain", r#""acpi-s3""#);
        let found = read_descriptors(&[dir.path().to_path_buf()]);
        assert_eq!(
            pick(&found, Firmware::Uefi).unwrap().code,
            dir.path().join("60-plain.code")
        );
        assert_eq!(
            pick(&found, Firmware::Secure).unwrap().variables,
            dir.path().join("40-secure.vars")
        );
    }

    #[test]
    fn broken_descriptors_and_missing_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("10-bad.json"), b"{").unwrap();
        descriptor(dir.path(), "20-gone", "");
        descriptor(dir.path(), "30-here", "");
        std::fs::remove_file(dir.path().join("20-gone.code")).unwrap();
        let found = read_descriptors(&[dir.path().to_path_buf()]);
        assert_eq!(
            pick(&found, Firmware::Uefi).unwrap().code,
            dir.path().join("30-here.code")
        );
    }

    #[test]
    fn qemu_is_looked_up_in_the_given_path_only() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu-system-x86_64");
        std::fs::write(&program, b"").unwrap();
        assert_ne!(
            find_qemu(dir.path().as_os_str()),
            Some(program.clone()),
            "not executable"
        );
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_qemu(dir.path().as_os_str()), Some(program));
    }
}
