//! Definition file, lowering, defaults and step hashing. Pure.
//!
//! Input comes in two forms: [`Definition`] is faithful to what the files say, [`Plan`] has nothing undecided
//! and no path of the host. [`lower`] goes from the one to the other; files are asked of a [`Files`] given by the
//! caller.

pub mod configure;
mod conventions;
mod definition;
mod disk;
mod hash;
mod lower;
mod model;
mod problem;

pub use conventions::Conventions;
pub use definition::{
    DebianRepositoryDefinition, Definition, FilesDefinition, ProfileDefinition,
    RepositoryDefinition, RpmRepositoryDefinition,
};
pub use disk::{Disk, Partition, PartitionTable, Role, Size};
pub use hash::{Hasher, Id};
pub use lower::{Files, Found, Input, Lowered, include_path, lower, lower_text};
pub use model::*;
pub use problem::Problem;
