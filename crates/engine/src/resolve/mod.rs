//! From a plan to a lock whose packages signed metadata vouches for.

pub(crate) mod lock;
pub(crate) mod signed;
pub(crate) mod solve;
pub(crate) mod vendor;
