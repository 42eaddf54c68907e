//! The paths of the Storage JSON API. A path is split at its slashes first and decoded afterwards, since names hold slashes.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::error::{ApiError, Result};
use super::name::{BucketName, ObjectName};

/// What a path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// All buckets.
    Buckets,
    /// One bucket.
    Bucket(BucketName),
    /// How a bucket is organised.
    Layout(BucketName),
    /// The managed folders of a bucket: there are none.
    ManagedFolders(BucketName),
    /// The objects of a bucket.
    Objects(BucketName),
    /// One object.
    Object(BucketName, ObjectName),
    /// From one object to another.
    Copy {
        from: (BucketName, ObjectName),
        to: (BucketName, ObjectName),
        /// `rewriteTo`, whose answer is wrapped, or `copyTo`.
        rewrite: bool,
    },
    /// An object made of others.
    Compose(BucketName, ObjectName),
}

impl Target {
    /// Reads what follows `/storage/v1/`.
    ///
    /// # Errors
    /// It is a part of the API that is not built (named), not a part of it, or a name in it is wrong.
    pub(super) fn parse(path: &str) -> Result<Target> {
        let parts: Vec<&str> = path.split('/').collect();
        match *parts.as_slice() {
            ["b"] => Ok(Target::Buckets),
            ["b", bucket] => Ok(Target::Bucket(bucket_name(bucket)?)),
            ["b", bucket, "storageLayout"] => Ok(Target::Layout(bucket_name(bucket)?)),
            ["b", bucket, "managedFolders"] => Ok(Target::ManagedFolders(bucket_name(bucket)?)),
            ["b", bucket, "o"] => Ok(Target::Objects(bucket_name(bucket)?)),
            ["b", bucket, "o", object] => {
                Ok(Target::Object(bucket_name(bucket)?, object_name(object)?))
            }
            ["b", bucket, "o", object, "compose"] => {
                Ok(Target::Compose(bucket_name(bucket)?, object_name(object)?))
            }
            [
                "b",
                bucket,
                "o",
                object,
                verb @ ("rewriteTo" | "copyTo"),
                "b",
                into,
                "o",
                name,
            ] => Ok(Target::Copy {
                from: (bucket_name(bucket)?, object_name(object)?),
                to: (bucket_name(into)?, object_name(name)?),
                rewrite: verb == "rewriteTo",
            }),
            _ => Err(not_there(path, &parts)),
        }
    }
}

/// Parts of the API that clients may ask for and that are not built.
const NOT_BUILT: &[&str] = &[
    "acl",
    "anywhereCaches",
    "bulkRestore",
    "channels",
    "defaultObjectAcl",
    "folders",
    "hmacKeys",
    "iam",
    "lockRetentionPolicy",
    "notificationConfigs",
    "operations",
    "relocate",
    "restore",
    "serviceAccount",
    "testPermissions",
    "watch",
    "moveTo",
];

fn not_there(path: &str, parts: &[&str]) -> ApiError {
    match parts.iter().find(|part| NOT_BUILT.contains(part)) {
        Some(part) => ApiError::not_built(format!("'{part}' (asked for by {})", shown(path))),
        None => ApiError::not_found(format!(
            "{} is no address of the Storage JSON API",
            shown(path)
        )),
    }
}

fn shown(path: &str) -> String {
    path.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Decodes `%XX`.
fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| ApiError::invalid(format!("{} is no UTF-8", shown(text))))
}

fn bucket_name(text: &str) -> Result<BucketName> {
    BucketName::new(&decode(text)?)
}

fn object_name(text: &str) -> Result<ObjectName> {
    ObjectName::new(&decode(text)?)
}

/// Reads the plain address of an object, `/{bucket}/{object}`, whose slashes may or may not be encoded.
///
/// # Errors
/// It names no object; the list of a bucket is not built.
pub(super) fn plain(path: &str) -> Result<(BucketName, ObjectName)> {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.split_once('/') {
        Some((bucket, object)) if !object.is_empty() => {
            Ok((bucket_name(bucket)?, object_name(object)?))
        }
        _ => Err(ApiError::not_built(
            "the XML API's lists; the JSON API at /storage/v1/b has them",
        )),
    }
}

/// The parameters of a query, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Query {
        let pairs = url::form_urlencoded::parse(query.unwrap_or("").as_bytes());
        Query(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| {
            ApiError::invalid(format!("{name} is a number of 64 bits, not negative"))
        })
    }

    /// Refuses parameters of the API that would change the answer and are not built.
    pub(super) fn refuse(&self, names: &[&str]) -> Result<()> {
        let asked = |name: &&&str| {
            self.get(name)
                .is_some_and(|value| !matches!(value, "false" | "False"))
        };
        match names.iter().find(asked) {
            Some(name) => Err(ApiError::not_built(format!("the parameter '{name}'"))),
            None => Ok(()),
        }
    }
}

/// Refuses a method that a path does not have.
pub(super) fn no_method<T>(method: &Method, path: &str) -> Result<T> {
    Err(ApiError::method(method, &shown(path)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(path: &str) -> Option<(String, String)> {
        match Target::parse(path) {
            Ok(Target::Object(bucket, name)) => {
                Some((bucket.as_str().to_owned(), name.as_str().to_owned()))
            }
            _ => None,
        }
    }

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(
            object("b/demo_x/o/source%2F1.tgz"),
            pair("demo_x", "source/1.tgz")
        );
        assert_eq!(
            object("b/demo_x/o/a%252Fb%20c+d"),
            pair("demo_x", "a%2Fb c+d")
        );
        assert_eq!(object("b/demo_x/o/compose"), pair("demo_x", "compose"));
        assert_eq!(object("b/demo_x/o/%2E%2E%2Fetc"), pair("demo_x", "../etc"));
        assert_eq!(object("b/demo_x/o/a%00"), None);
        assert_eq!(object("b/demo_x/o/%FF"), None);
        assert_eq!(object("b/..%2Fx/o/a"), None);
        let copy = Target::parse("b/abc/o/a%2Fo/rewriteTo/b/def/o/o").unwrap();
        assert!(matches!(copy, Target::Copy { rewrite: true, to, .. } if to.1.as_str() == "o"));
    }

    #[test]
    fn what_is_not_built_is_named() {
        let error = Target::parse("b/abc/iam").unwrap_err();
        assert!(error.to_string().contains("'iam'"), "{error}");
        assert_eq!(error.status().as_u16(), 400);
        assert_eq!(Target::parse("c/abc").unwrap_err().status().as_u16(), 404);
    }

    #[test]
    fn plain_addresses_take_slashes_either_way() {
        let of = |path| plain(path).map(|(_, name)| name.as_str().to_owned()).ok();
        assert_eq!(of("/abc/logs/log-1.txt").as_deref(), Some("logs/log-1.txt"));
        assert_eq!(
            of("/abc/logs%2Flog-1.txt").as_deref(),
            Some("logs/log-1.txt")
        );
        assert_eq!(of("/abc"), None);
        assert_eq!(of("/abc/"), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read_or_refused(path in "(b/[a-c%2F./]{1,8}/o/)?\\PC{0,30}") {
            let _ = Target::parse(&path);
            let _ = plain(&path);
        }
    }
}
