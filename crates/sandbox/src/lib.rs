//! User namespaces, id maps, mounts as values, limits, running commands and capturing their output.

mod parent;
mod request;

pub use parent::die_with_parent;
pub use request::*;
