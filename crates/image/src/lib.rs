//! Writers for SquashFS, FAT, GPT, GRUB boot sectors and compressed disks. Spawns nothing, no network.

mod error;

pub use error::{Error, ErrorKind, Result};
