//! The files that UEFI firmware starts.

use super::config::efi_stub;
use crate::error::Result;
use crate::fat::{FatTree, Source};

/// Where Debian's signed and monolithic GRUB look for their `grub.cfg`.
pub const EFI_PREFIX: &str = "/EFI/debian";

/// Boot programs for x86-64 UEFI.
///
/// With Secure Boot: `shimx64.efi.signed`, `grubx64.efi.signed` and `mmx64.efi.signed` (packages shim-signed,
/// grub-efi-amd64-signed, shim-helpers-amd64-signed). Without: only `grub`, e.g. grub-efi-amd64-bin's `monolithic/grubx64.efi`.
#[derive(Debug)]
pub struct EfiFiles {
    /// Checks GRUB's signature for the firmware.
    pub shim: Option<Source>,
    /// GRUB with its modules built in.
    pub grub: Source,
    /// Lets the owner of the machine enrol keys; shim starts it.
    pub mok_manager: Option<Source>,
    /// The directory that is built into `grub`; [`EFI_PREFIX`] for Debian's.
    pub prefix: String,
}

impl EfiFiles {
    /// Adds the programs to the removable-media path `/EFI/BOOT`, and the `grub.cfg` that leads to `/boot/grub/grub.cfg`.
    ///
    /// `uuid` is the FAT volume id as [`crate::fat::FatSpec::uuid`] gives it.
    ///
    /// # Errors
    /// A path that is taken.
    pub fn add_to(self, tree: &mut FatTree, uuid: &str) -> Result<()> {
        match self.shim {
            Some(shim) => {
                tree.add_file("EFI/BOOT/BOOTX64.EFI", shim)?;
                tree.add_file("EFI/BOOT/grubx64.efi", self.grub)?;
            }
            None => tree.add_file("EFI/BOOT/BOOTX64.EFI", self.grub)?,
        }
        if let Some(mok_manager) = self.mok_manager {
            tree.add_file("EFI/BOOT/mmx64.efi", mok_manager)?;
        }
        tree.add_file(&format!("{}/grub.cfg", self.prefix), efi_stub(uuid))
    }
}
