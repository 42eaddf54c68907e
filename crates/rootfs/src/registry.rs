//! What Kiln has: functions that run inside a root, and families of distributions. Nothing else of this crate imports it.

use std::sync::Arc;

use kiln_sandbox::Function;

use crate::family::{Families, Family};
use crate::{calls, debian, rpm};

/// All functions, for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[Function] = &[
    Function::of::<calls::WriteFile>(),
    Function::of::<calls::ExportSparse>(),
    Function::of::<crate::files::Copy>(),
    Function::of::<crate::archive::Pack>(),
    Function::of::<crate::archive::Unpack>(),
    Function::of::<crate::trace::Ask>(),
    Function::of::<crate::changes::Apply>(),
    Function::of::<crate::finish::FinishRoot>(),
    Function::of::<crate::skeleton::MountPoints>(),
    Function::of::<crate::initramfs::KeepBoot>(),
    Function::of::<crate::initramfs::ExportBoot>(),
    Function::of::<debian::Daemons>(),
    Function::of::<debian::Skeleton>(),
    Function::of::<debian::Unpack>(),
    Function::of::<debian::Fill>(),
    Function::of::<debian::CopyModules>(),
    Function::of::<debian::Compile>(),
    Function::of::<debian::Extract>(),
    Function::of::<debian::Adopt>(),
    Function::of::<debian::Clear>(),
    Function::of::<debian::FinishDebian>(),
    Function::of::<debian::WriteSources>(),
    Function::of::<debian::LookAtGenerator>(),
    Function::of::<rpm::UnpackTools>(),
    Function::of::<rpm::FinishRpm>(),
    Function::of::<rpm::WriteSources>(),
    Function::of::<rpm::SetTimes>(),
    Function::of::<rpm::FindKernels>(),
];

impl Default for Families {
    /// Those that Kiln has.
    fn default() -> Self {
        let all = debian::Debian::ALL.into_iter();
        let all = all.map(|family| Arc::new(family) as Arc<dyn Family>);
        Families::new(all.chain([Arc::new(rpm::Rpm) as _]).collect())
    }
}
