//! What a user says about a shared cache.

use std::fmt;
use std::time::Duration;

use crate::record::Key;

/// Everything about a shared cache that its user decides.
#[derive(Clone)]
pub struct Options {
    /// `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The secret that seals records.
    pub key: Option<Key>,
    /// The clouds' usual environment variables, `AWS_…`, `GOOGLE_…` and `AZURE_…`.
    pub settings: Vec<(String, String)>,
    /// The proxy for `https://`.
    pub proxy: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
    /// How long the other side may be silent. One object may take ten times that.
    pub patience: Duration,
}

// Settings hold credentials, a proxy's URL may hold a password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            url: String::new(),
            key: None,
            settings: Vec::new(),
            proxy: None,
            no_proxy: None,
            patience: Duration::from_secs(15),
        }
    }
}

/// Returns whether a URL names a directory: no network is needed then.
pub fn is_local(url: &str) -> bool {
    url.starts_with("file://")
}
