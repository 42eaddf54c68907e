//! Trouble with the database.

/// Why the database did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite says.
    #[error("the database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A value in it is no JSON of its kind.
    #[error("the database holds a value that cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The file system says.
    #[error("the database's directory: {0}")]
    System(#[from] std::io::Error),
    /// It was written by a newer program.
    #[error(
        "the database has version {found}, and this program knows {newest}: use the newer program"
    )]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that this program knows.
        newest: i64,
    },
}
