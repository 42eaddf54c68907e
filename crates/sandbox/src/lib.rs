//! User namespaces, id maps, mounts as values, limits, running commands and capturing their output.

mod request;

pub use request::*;
