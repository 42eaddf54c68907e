//! Cloud Build's messages: one table of all fields, a reader that follows it, and the values that the server works with.

pub mod error;
pub mod model;
pub mod read;
pub mod schema;
pub mod table;
pub mod time;
pub mod trigger;
