//! Buckets and objects as Storage describes them in JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{ApiError, Result};
use super::name::{BucketName, ObjectName};

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name, which is its id too.
    pub name: BucketName,
    /// The project that it was made for.
    pub project: String,
    /// Microseconds since 1970.
    pub created: i64,
}

impl Bucket {
    /// Its JSON; `base` is the server's address as the client spells it, without a slash at the end.
    pub(super) fn json(&self, base: &str) -> Value {
        let name = self.name.as_str();
        json!({
            "kind": "storage#bucket", "id": name, "name": name,
            "selfLink": format!("{base}/storage/v1/b/{name}"),
            "projectNumber": "0", "metageneration": "1", "location": "US", "locationType": "multi-region",
            "storageClass": "STANDARD", "etag": "CAE=",
            "timeCreated": time(self.created), "updated": time(self.created),
            "iamConfiguration": { "uniformBucketLevelAccess": { "enabled": true } },
        })
    }
}

/// What a client says about an object beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attributes {
    /// The media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Passed on to those who download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Passed on to those who download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// Passed on to those who download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// Passed on to those who download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// A time of the client's own, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_time: Option<String>,
    /// The client's own pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Bytes of all attributes of an object, at most.
const ATTRIBUTES_MAX: usize = 32 << 10;

impl Attributes {
    /// Attributes of nothing but a media type.
    pub fn of_type(content_type: &str) -> Attributes {
        Attributes {
            content_type: Some(content_type.to_owned()),
            ..Attributes::default()
        }
    }

    /// Refuses what no header could carry, and what is too much.
    pub(super) fn check(self) -> Result<Attributes> {
        let headers = [
            ("contentType", &self.content_type),
            ("contentEncoding", &self.content_encoding),
            ("contentDisposition", &self.content_disposition),
            ("contentLanguage", &self.content_language),
            ("cacheControl", &self.cache_control),
            ("customTime", &self.custom_time),
        ];
        let mut size = 0;
        for (name, value) in headers {
            let Some(value) = value else { continue };
            size += value.len();
            if !value
                .bytes()
                .all(|b| b.is_ascii_graphic() || b == b' ' || b >= 0x80)
            {
                return Err(ApiError::invalid(format!(
                    "{name} holds characters that no header may hold"
                )));
            }
        }
        let pairs = self.metadata.iter().flatten();
        size += pairs
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        if size > ATTRIBUTES_MAX {
            return Err(ApiError::invalid(format!(
                "the object's metadata is longer than {ATTRIBUTES_MAX} bytes"
            )));
        }
        Ok(self)
    }

    /// Bytes of them as they are kept.
    pub(super) fn length(&self) -> Result<u64> {
        let text =
            serde_json::to_string(self).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(text.len() as u64)
    }

    /// Changes what a patch names: a value replaces, `null` removes. Pairs of `metadata` are patched one by one.
    pub(super) fn patched(&self, patch: &Map<String, Value>) -> Result<Attributes> {
        let own =
            serde_json::to_value(self).map_err(|error| ApiError::internal(error.to_string()))?;
        let mut merged = own.as_object().cloned().unwrap_or_else(Map::new);
        for (name, value) in patch {
            let target = match (name.as_str(), value) {
                ("metadata", Value::Object(pairs)) => {
                    let known = merged.get("metadata").and_then(Value::as_object);
                    let mut all = known.cloned().unwrap_or_else(Map::new);
                    merge(&mut all, pairs);
                    Value::Object(all)
                }
                _ => value.clone(),
            };
            merge(&mut merged, &Map::from_iter([(name.clone(), target)]));
        }
        Attributes::of_json(Value::Object(merged))
    }

    /// Reads them from an object's JSON; what else it holds is not theirs.
    pub(super) fn of_json(value: Value) -> Result<Attributes> {
        let read: serde_json::Result<Attributes> = serde_json::from_value(value);
        read.map_err(|error| ApiError::invalid(format!("the object's metadata: {error}")))?
            .check()
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match value {
            Value::Null => into.remove(name),
            value => into.insert(name.clone(), value.clone()),
        };
    }
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub bucket: BucketName,
    /// Its name.
    pub name: ObjectName,
    /// Which content it is; every new content has a higher one.
    pub generation: i64,
    /// Which version of its attributes it is.
    pub metageneration: i64,
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub md5: [u8; 16],
    /// Of the content (Castagnoli).
    pub crc32c: u32,
    /// What clients said about it.
    pub attributes: Attributes,
    /// Microseconds since 1970.
    pub created: i64,
    /// Microseconds since 1970.
    pub updated: i64,
}

impl Object {
    /// Storage's JSON; `base` is the server's address as the client spells it, without a slash at the end.
    pub fn json(&self, base: &str) -> Value {
        let (bucket, name) = (self.bucket.as_str(), self.name.as_str());
        let path = format!("b/{bucket}/o/{}", encoded(name));
        let generation = self.generation;
        let mut value = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "selfLink": format!("{base}/storage/v1/{path}"),
            "mediaLink": format!("{base}/download/storage/v1/{path}?generation={generation}&alt=media"),
            "name": name, "bucket": bucket,
            "generation": generation.to_string(), "metageneration": self.metageneration.to_string(),
            "size": self.size.to_string(), "md5Hash": self.md5_text(), "crc32c": self.crc32c_text(),
            "etag": self.etag(), "storageClass": "STANDARD",
            "timeCreated": time(self.created), "updated": time(self.updated), "timeStorageClassUpdated": time(self.created),
        });
        if let (Some(object), Ok(Value::Object(own))) = (
            value.as_object_mut(),
            serde_json::to_value(&self.attributes),
        ) {
            object.extend(own);
        }
        value
    }

    /// The MD5 in base64, as headers and JSON have it.
    pub(super) fn md5_text(&self) -> String {
        BASE64.encode(self.md5)
    }

    /// The CRC32C in base64 of its four bytes, the highest first.
    pub(super) fn crc32c_text(&self) -> String {
        BASE64.encode(self.crc32c.to_be_bytes())
    }

    pub(super) fn etag(&self) -> String {
        let mut bytes = self.generation.to_be_bytes().to_vec();
        bytes.extend(self.metageneration.to_be_bytes());
        BASE64.encode(bytes)
    }
}

/// A name as a path of the JSON API holds it: everything is encoded but what no one decodes.
pub(super) fn encoded(name: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const SET: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(name, SET).to_string()
}

/// RFC 3339 with milliseconds, as Storage writes times.
pub(super) fn time(microseconds: i64) -> String {
    let stamp = jiff::Timestamp::from_microsecond(microseconds);
    stamp.map_or_else(|_| String::new(), |stamp| format!("{stamp:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_reads_as_storage_writes_it() {
        let object = Object {
            bucket: BucketName::new("demo").unwrap(),
            name: ObjectName::new("a b/ü.txt").unwrap(),
            generation: 1_764_345_600_000_000,
            metageneration: 2,
            size: 9,
            md5: [0; 16],
            crc32c: 0xE306_9283,
            attributes: Attributes::of_type("text/plain"),
            created: 1_764_345_600_123_456,
            updated: 0,
        };
        let json = object.json("http://127.0.0.1:80");
        assert_eq!(json["size"], "9");
        assert_eq!(json["generation"], "1764345600000000");
        assert_eq!(json["crc32c"], "4waSgw==");
        assert_eq!(json["timeCreated"], "2025-11-28T16:00:00.123Z");
        assert_eq!(json["contentType"], "text/plain");
        assert_eq!(
            json["selfLink"],
            "http://127.0.0.1:80/storage/v1/b/demo/o/a%20b%2F%C3%BC.txt"
        );
    }

    #[test]
    fn a_patch_replaces_and_removes() {
        let mut old = Attributes::of_type("text/plain");
        old.metadata = Some(
            [
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), "2".to_owned()),
            ]
            .into(),
        );
        let patch = json!({ "contentType": null, "cacheControl": "no-store", "metadata": { "a": null, "c": "3" } });
        let new = old.patched(patch.as_object().unwrap()).unwrap();
        assert_eq!(new.content_type, None);
        assert_eq!(new.cache_control.as_deref(), Some("no-store"));
        let pairs: Vec<String> = new.metadata.unwrap().into_values().collect();
        assert_eq!(pairs, ["2", "3"]);
        for bad in [
            json!({ "contentType": 1 }),
            json!({ "contentType": "a\r\nb" }),
            json!({ "metadata": { "a": "x".repeat(40_000) } }),
        ] {
            assert!(old.patched(bad.as_object().unwrap()).is_err());
        }
    }
}
