//! Kernel and initramfs for the boot partition.

pub(crate) mod ahead;
pub(crate) mod generate;
pub(crate) mod step;
