//! Names of buckets and objects, and where their content stands in the store.
//!
//! ```text
//! <bucket>/<segment>/…/<segment>/@<generation>     the segments are those of the object's name
//! <bucket>/@long/<sha-256 of the name>/@<generation>   a name whose segments a file system or a cloud would not take
//! ```
//!
//! A segment's bytes are kept where they are letters, digits or a few harmless marks, and are `%XX` otherwise. No segment begins
//! with `.` or `@`, none is empty (an empty one is a lone `%`), none holds `/`. So two names never share a place, an object `a` may
//! stand beside an object `a/b`, and no name leads out of its bucket.

use std::fmt;

use kiln_digest::Sha256;

use super::error::{ApiError, Result};

/// Bytes of an object's name, at most; Storage's own limit.
const NAME_MAX: usize = 1024;
/// Bytes of an encoded segment, at most: file systems take 255.
const SEGMENT_MAX: usize = 200;
/// Bytes of all encoded segments, at most: S3 takes keys of 1024, and a path of Linux has 4096 with its root.
const PLACE_MAX: usize = 600;

/// The name of a bucket, as Storage allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(String);

impl BucketName {
    /// Checks a name: 3 to 222 lower-case letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
    ///
    /// # Errors
    /// What is wrong with it, as a 400.
    pub fn new(name: &str) -> Result<BucketName> {
        let wrong = |why: &str| {
            let shown: String = name.chars().take(80).collect();
            ApiError::invalid(format!("Invalid bucket name: '{shown}': {why}"))
        };
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(3..=222).contains(&name.len()) || name.split('.').any(|part| part.len() > 63) {
            return Err(wrong(
                "it has fewer than 3 or more than 63 characters, or 222 with dots",
            ));
        }
        if !name
            .bytes()
            .all(|b| is_plain(b) || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(wrong(
                "it may hold lower-case letters, digits, '-', '_' and '.'",
            ));
        }
        let ends = [name.bytes().next(), name.bytes().next_back()];
        if !ends.into_iter().flatten().all(is_plain) || name.contains("..") {
            return Err(wrong(
                "it begins and ends with a letter or digit, and has no two dots in a row",
            ));
        }
        Ok(BucketName(name.to_owned()))
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an object, as Storage allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name: 1 to 1024 bytes of UTF-8 without line ends and NUL, and neither `.` nor `..`.
    ///
    /// # Errors
    /// What is wrong with it, as a 400.
    pub fn new(name: &str) -> Result<ObjectName> {
        let wrong = |why: &str| ApiError::invalid(format!("Invalid object name: {why}"));
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(wrong("it is empty or longer than 1024 bytes"));
        }
        if name.contains(['\r', '\n', '\0']) {
            return Err(wrong("it holds a line end or a NUL"));
        }
        if name == "." || name == ".." {
            return Err(wrong("it is '.' or '..'"));
        }
        Ok(ObjectName(name.to_owned()))
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the place of an object's content, as `object_store` spells paths.
pub(super) fn place(bucket: &BucketName, name: &ObjectName, generation: i64) -> String {
    let segments: Vec<String> = name.0.split('/').map(segment).collect();
    let is_long = segments.iter().any(|segment| segment.len() > SEGMENT_MAX);
    let joined = segments.join("/");
    if is_long || joined.len() > PLACE_MAX {
        let digest = hex::encode(Sha256::digest(name.0.as_bytes()));
        return format!("{bucket}/@long/{digest}/@{generation}");
    }
    format!("{bucket}/{joined}/@{generation}")
}

fn segment(text: &str) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let first_only = at > 0 && matches!(byte, b'.' | b'@');
        let harmless = matches!(byte, b'-' | b'_' | b'+' | b'=' | b',' | b':');
        if byte.is_ascii_alphanumeric() || harmless || first_only {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(name: &str) -> String {
        place(
            &BucketName::new("bucket").unwrap(),
            &ObjectName::new(name).unwrap(),
            7,
        )
    }

    #[test]
    fn places_are_readable_and_stay_in_their_bucket() {
        assert_eq!(at("source/1-ab.tgz"), "bucket/source/1-ab.tgz/@7");
        assert_eq!(at("../../etc/passwd"), "bucket/%2E./%2E./etc/passwd/@7");
        assert_eq!(at("/etc//x/"), "bucket/%/etc/%/x/%/@7");
        assert_eq!(at("a/@7"), "bucket/a/%407/@7");
        assert!(at(&"é".repeat(300)).starts_with("bucket/@long/"));
        assert!(at(&"a/".repeat(400)).starts_with("bucket/@long/"));
    }

    #[test]
    fn names_that_storage_refuses_are_refused() {
        for bad in ["", ".", "..", "a\nb", "a\0", &"x".repeat(1025)] {
            assert!(ObjectName::new(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "", "ab", "Ab1", "a/b", "-ab", "ab-", "a..b", "é12", "@long", "a\0b", "..",
        ] {
            assert!(BucketName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["demo-proj_cloudbuild", "123", "a.b.c"] {
            assert!(BucketName::new(good).is_ok(), "{good}");
        }
    }

    proptest! {
        #[test]
        fn no_two_names_share_a_place_and_none_escapes(a in "[a@./%~ \\\\é]{1,12}", b in "[a@./%~ \\\\é]{1,12}") {
            let (Ok(one), Ok(two)) = (ObjectName::new(&a), ObjectName::new(&b)) else { return Ok(()) };
            let bucket = BucketName::new("bucket").unwrap();
            let (first, second) = (place(&bucket, &one, 1), place(&bucket, &two, 1));
            prop_assert_eq!(a == b, first == second);
            for segment in first.split('/') {
                prop_assert!(!segment.is_empty() && !segment.starts_with('.'));
                prop_assert!(segment.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'));
            }
            // One is never the directory of the other.
            let below = format!("{first}/");
            prop_assert!(!second.starts_with(&below));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC*") {
            if let Ok(name) = ObjectName::new(&text) {
                let found = place(&BucketName::new("bucket").unwrap(), &name, i64::MAX);
                prop_assert!(found.len() <= PLACE_MAX + 300);
                prop_assert!(found.starts_with("bucket/"));
            }
        }
    }
}
