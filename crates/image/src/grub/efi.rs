//! The files that UEFI firmware starts.

use super::config::efi_stub;
use crate::error::Result;
use crate::fat::{FatTree, Source};

/// Boot programs for x86-64 UEFI. With Secure Boot they are signed: shim by whom the firmware trusts, the others by the distribution.
/// Without it `grub` alone is enough.
#[derive(Debug)]
pub struct EfiFiles {
    /// Checks GRUB's signature for the firmware.
    pub shim: Option<Source>,
    /// GRUB with its modules built in.
    pub grub: Source,
    /// Lets the owner of the machine enrol keys; shim starts it.
    pub mok_manager: Option<Source>,
    /// The directory that is built into `grub`, where it looks for its `grub.cfg`: `/EFI/` and the distribution's name.
    pub prefix: String,
}

impl EfiFiles {
    /// Adds the programs to the removable-media path `/EFI/BOOT`, and the `grub.cfg` that leads to `/boot/grub/grub.cfg`.
    ///
    /// `uuid` is the FAT volume id as [`crate::fat::FatSpec::uuid`] returns it.
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
