//! GRUB: its sectors on the disk, its core image, its configuration and its files for UEFI.
//!
//! Nothing of GRUB is run. The caller hands in GRUB's own files (`boot.img`, `diskboot.img`, `kernel.img`, modules; the signed EFI
//! programs), as they lie in the distribution's packages.
//!
//! | firmware | first | then | configuration |
//! |---|---|---|---|
//! | BIOS | `boot.img` in sector 0 | `core.img` in the BIOS boot partition (GPT) or the gap (MBR) | [`early_config`] inside it, then `/boot/grub/grub.cfg` |
//! | UEFI | `/EFI/BOOT/BOOTX64.EFI` (shim) | `/EFI/BOOT/grubx64.efi` | `grub.cfg` in [`EfiFiles::prefix`], then `/boot/grub/grub.cfg` |
//!
//! Both read the same `/boot/grub/grub.cfg` ([`Menu::render`]) from the EFI system partition, which they find by where they
//! were started from, and where that fails by the FAT volume id.
//!
//! # Arguments for one boot, from outside the image
//!
//! A test boot needs kernel arguments (a serial console, `norandmaps`) that a shipped image must not have. Each `grub.cfg` whose
//! [`Menu::firmware_arguments`] is set reads the OEM string that the firmware shows (SMBIOS 3.6, section 7.12, type 11)
//! through GRUB's `smbios` module — in our core image, and built into distributions' signed EFI programs. The image stays as it is, byte by byte.
//!
//! | string | effect |
//! |---|---|
//! | `kiln.append=ARGS` | the menu as usual; `ARGS` follow the arguments of whichever entry is chosen |
//! | `kiln.boot=ENTRY ARGS` | entry `ENTRY` is started at once, without a menu, with `ARGS` added |
//!
//! QEMU sets it with `-smbios type=11,value=…` (commas doubled). GRUB reads the last string of the first type 11 structure, so that it
//! must be the last such option. `ARGS` are split at blanks and never evaluated. [`smbios_append`] and [`smbios_boot`] make the
//! strings. Real machines show strings of their makers there, which match neither form.

mod config;
mod core;
mod efi;
mod quote;
mod sectors;

pub use self::config::{Entry, Menu, Serial, early_config, prefix, smbios_append, smbios_boot};
pub use self::core::{BIOS_MODULES, CoreSpec, build_core};
pub use self::efi::EfiFiles;
pub use self::quote::split_kernel_arguments;
pub use self::sectors::{core_extent, write_bios_boot};
