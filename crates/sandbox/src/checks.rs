//! What a machine has to have, for `kiln doctor`.
/// x
pub struct Check;
/// x
pub enum Verdict {}
/// x
pub fn checks() {}
