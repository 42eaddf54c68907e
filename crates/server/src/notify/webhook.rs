//! A signed web hook.

use ring::hmac;

use super::message::Message;
use super::post::post;
use super::{Tell, Trouble};
use crate::wire::time;

/// Posts JSON. With a secret, `X-Kiln-Signature` is `sha256=` and the hexadecimal HMAC-SHA256 of what stands in
/// `X-Kiln-Timestamp` (seconds since 1970), a dot, and the body.
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) secret: Option<String>,
}

impl Tell for Webhook {
    fn tell(&self, message: &Message<'_>) -> Result<(), Trouble> {
        let body = message.json().to_string();
        let seconds = (time::now() / 1_000_000_000).to_string();
        let signature = self
            .secret
            .as_deref()
            .map(|secret| sign(secret, &seconds, &body));
        let mut headers = vec![
            ("Content-Type", "application/json"),
            ("X-Kiln-Delivery", message.id),
            ("X-Kiln-Timestamp", &seconds),
        ];
        if let Some(signature) = &signature {
            headers.push(("X-Kiln-Signature", signature));
        }
        post(&self.url, &headers, body.as_bytes())
    }
}

fn sign(secret: &str, seconds: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    format!("sha256={}", hex::encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is what Python's `hmac` says of the same text.
    #[test]
    fn a_signature_covers_the_time_and_the_body() {
        let expected = "sha256=38c6c848e5a2f57451f5095df6370d5c9b83175b99df46422b34960c28def6ae";
        assert_eq!(sign("Jefe", "what do ya want for nothing?", ""), expected);
    }
}
