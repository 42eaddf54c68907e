//! Firmware that knows the distribution's key, and images that are changed before they are booted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::trouble;
use crate::{Result, process};

/// Variables with Microsoft's keys, which Kiln's machines begin with.
const TEMPLATE: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";
/// Who has put the key there: any number will do.
const OWNER: &str = "a0baa8a3-041d-48a8-bc87-c36d121b5e3d";
/// Where the EFI system partition begins, as mtools want it.
const ESP: &str = "@@2M";
const MENU: &str = "::/boot/grub/grub.cfg";
const GRUB: &str = "::/EFI/BOOT/grubx64.efi";

/// Writes variables that have the distribution's key beside Microsoft's.
pub(super) fn variables(tools: &Path, made: &Path, work: &Path) -> Result<PathBuf> {
    let variables = work.join("variables.fd");
    let mut command = Command::new(tools.join("virt-fw-vars"));
    command
        .args(["--input", TEMPLATE, "--output"])
        .arg(&variables);
    command
        .args(["--add-db", OWNER])
        .arg(made.join("secure-boot.pem"));
    process::output(&mut command)?;
    Ok(variables)
}

/// Kiln, for which the file with the variables is another one: in a mount namespace of its own.
pub(super) fn with_variables(kiln: &Path, variables: &Path) -> Result<Command> {
    if !Path::new(TEMPLATE).exists() {
        return Err(format!("{TEMPLATE} is not there: install ovmf"));
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]);
    command.arg("mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"");
    command.arg("sh").arg(variables).arg(TEMPLATE).arg(kiln);
    Ok(command)
}

/// Takes the signature off an image's GRUB.
pub(super) fn strip(image: &Path, work: &Path) -> Result<()> {
    let grub = work.join("grubx64.efi");
    take(image, GRUB, &grub)?;
    process::output(Command::new("sbattach").arg("--remove").arg(&grub))?;
    put(image, &grub, GRUB)?;
    fs::remove_file(&grub).map_err(trouble("removing", &grub))
}

/// Makes the menu's entry that reads the root into memory the one that is started.
pub(super) fn choose_memory(image: &Path, work: &Path) -> Result<()> {
    let menu = work.join("grub.cfg");
    take(image, MENU, &menu)?;
    let text = fs::read_to_string(&menu).map_err(trouble("reading", &menu))?;
    let changed = text.replace("\nset default=start\n", "\nset default=ram\n");
    if changed == text {
        return Err(format!("the menu's default is not known:\n{text}"));
    }
    fs::write(&menu, changed).map_err(trouble("writing", &menu))?;
    put(image, &menu, MENU)
}

fn take(image: &Path, from: &str, to: &Path) -> Result<()> {
    let mut copy = Command::new("mcopy");
    copy.arg("-o").arg("-i").arg(partition(image));
    process::output(copy.arg(from).arg(to)).map(drop)
}

fn put(image: &Path, from: &Path, to: &str) -> Result<()> {
    let mut copy = Command::new("mcopy");
    copy.arg("-o").arg("-i").arg(partition(image));
    process::output(copy.arg(from).arg(to)).map(drop)
}

fn partition(image: &Path) -> String {
    format!("{}{ESP}", image.display())
}
