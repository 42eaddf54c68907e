//! What the server knows, in one SQLite database: builds, their attempts, tokens, and who did what.
//!
//! Times are nanoseconds since 1970. Messages are kept as the JSON that clients see.

mod builds;
pub(crate) mod copy;
mod counts;
mod database;
mod error;
mod migrate;
mod notices;
mod pages;
mod retain;
mod tokens;
mod triggers;

pub use builds::{Added, Most, Page, Record};
pub use counts::{Counts, Entry};
pub use database::Store;
pub use error::Error;
pub use notices::{Delivery, Notice};
pub use pages::AttemptRow;
pub(crate) use retain::Ended;
pub use tokens::{Role, Token};
pub use triggers::Trigger;
