//! What Kiln has: functions that run inside a root, and families of distributions. Nothing else of this crate imports it.

use std::sync::Arc;

use kiln_sandbox::Function;

use crate::family::Families;
use crate::{calls, debian};

/// All functions, for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[(&str, Function)] = &[
    (calls::WRITE_FILE, calls::write_file),
    (calls::EXPORT, calls::export),
    (calls::EXPORT_SPARSE, calls::export_sparse),
    (crate::files::COPY, crate::files::copy_call),
    (crate::archive::PACK, crate::archive::pack_call),
    (crate::archive::UNPACK, crate::archive::unpack_call),
    (crate::trace::STATES, crate::trace::states_call),
    (crate::changes::APPLY, crate::changes::apply_call),
    (crate::finish::FINISH, crate::finish::finish_call),
    (
        crate::initramfs::KEEP_BOOT,
        crate::initramfs::keep_boot_call,
    ),
    (debian::KEEP_DAEMONS_OUT, debian::keep_daemons_out_call),
    (debian::SKELETON, debian::skeleton_call),
    (debian::UNPACK, debian::unpack_call),
    (debian::FILL, debian::fill_call),
    (debian::EXTRACT, debian::extract_call),
    (debian::ADOPT, debian::adopt_call),
    (debian::CLEAR, debian::clear_call),
    (debian::FINISH, debian::finish_call),
    (debian::SOURCES, debian::sources_call),
    (debian::KNOWN_GENERATOR, debian::known_generator_call),
];

impl Default for Families {
    /// Those that Kiln has.
    fn default() -> Self {
        Families::new(vec![Arc::new(debian::Debian)])
    }
}
