//! Writers for SquashFS, FAT, GPT, GRUB boot sectors and compressed disks. Spawns nothing, no network.

pub mod blocks;
pub mod disk;
mod error;
pub mod ext4;
pub mod fat;
pub mod grub;
mod parallel;
mod sparse;
pub mod squashfs;
pub mod targz;
pub mod tree;

pub use error::{Error, ErrorKind, Result};
