//! What a content is to become: what its client says beside its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::condition::Conditions;
use super::error::{ApiError, Result};
use super::index::Content;
use super::resource::Attributes;

/// What an upload is to become.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) attributes: Attributes,
    pub(super) conditions: Conditions,
    /// What the client says the content's digests are, in base64.
    pub(super) md5: Option<String>,
    pub(super) crc32c: Option<String>,
}

impl Request {
    /// Checks what has arrived against what the client says it sent.
    pub(super) fn check(&self, content: &Content) -> Result<()> {
        let differs = |said: &Option<String>, is: &[u8]| {
            said.as_ref()
                .is_some_and(|said| BASE64.decode(said).ok().as_deref() != Some(is))
        };
        let wrong = |what: &str, is: &[u8]| {
            let is = BASE64.encode(is);
            Err(ApiError::digest(format!(
                "Provided {what} hash doesn't match calculated {what} hash \"{is}\"."
            )))
        };
        if differs(&self.md5, &content.md5) {
            return wrong("MD5", &content.md5);
        }
        let crc32c = content.crc32c.to_be_bytes();
        if differs(&self.crc32c, &crc32c) {
            return wrong("CRC32C", &crc32c);
        }
        Ok(())
    }
}
