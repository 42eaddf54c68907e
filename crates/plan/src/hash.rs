//! Ids: SHA-256 over an unambiguous encoding.
//!
//! A [`Hasher`] takes labelled fields. Each is encoded as `len(label) label len(value) value`, lengths as 8
//! bytes little endian, so no two different sequences of fields have the same encoding. Nested values are hashed on
//! their own and enter as their digest. The first field is always the kind of thing and the version of its encoding.

use kiln_digest::Sha256;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// A SHA-256 digest that names a step, a layer, a plan or a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 32]);

impl Id {
    /// The digest's bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }

    /// A UUID (version 8, RFC 9562 section 5.8) made from this id and a purpose.
    pub fn uuid(&self, purpose: &str) -> Uuid {
        let digest = Hasher::new("uuid.v1")
            .bytes("of", &self.0)
            .text("purpose", purpose)
            .finish();
        custom_uuid(&digest.0)
    }
}

/// Returns the UUID of version 8 (RFC 9562, section 5.8) whose other bits are a digest's first.
pub(crate) fn custom_uuid(digest: &[u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Id({})", self.short())
    }
}

impl std::str::FromStr for Id {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Id(bytes))
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Collects labelled fields into an [`Id`].
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher for one kind of thing (`layer.v1`).
    pub fn new(kind: &str) -> Self {
        Hasher(Sha256::new()).text("kind", kind)
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, label: &str, value: &[u8]) -> Self {
        for part in [label.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, label: &str, value: &str) -> Self {
        self.bytes(label, value.as_bytes())
    }

    /// Adds another id.
    #[must_use]
    pub fn id(self, label: &str, value: Id) -> Self {
        self.bytes(label, &value.0)
    }

    /// Adds a serialisable value as its JSON; struct fields keep their declared order.
    #[must_use]
    pub fn json<T: Serialize>(self, label: &str, value: &T) -> Self {
        let mut text = Vec::new();
        // A `Vec` takes every write and the model has string keys only, so this cannot fail; were it to, the marker
        // below keeps the id distinct from any success.
        if serde_json::to_writer(&mut text, value).is_err() {
            text = b"\0unserialisable".to_vec();
        }
        self.bytes(label, &text)
    }

    /// The id of all that was added.
    pub fn finish(self) -> Id {
        Id(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_run_into_each_other() {
        let a = Hasher::new("t").text("a", "bc").finish();
        let b = Hasher::new("t").text("ab", "c").finish();
        let c = Hasher::new("t").text("a", "b").text("", "c").finish();
        assert_ne!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn encoding_is_pinned() {
        // sha256 of: 4 "kind" 2 "t1" 1 "x" 3 "abc", lengths as u64 LE (checked with Python's hashlib).
        let id = Hasher::new("t1").text("x", "abc").finish();
        assert_eq!(id.to_string().len(), 64);
        assert_eq!(id, id.to_string().parse().unwrap());
        assert_eq!(id.to_string(), PINNED);
    }

    const PINNED: &str = "844e74cb1fa4f5f5cfa0443d23b2d3d539f3a528301c4cff08065682f90dc75b";

    #[test]
    fn uuids_carry_version_and_variant() {
        let uuid = Hasher::new("t").finish().uuid("disk");
        assert_eq!(uuid.get_version(), Some(uuid::Version::Custom));
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }
}
