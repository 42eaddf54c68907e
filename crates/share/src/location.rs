//! Where a shared cache is.

use std::fmt;
use std::fs::{Metadata, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::http::Connector;
use crate::options::Options;

/// The version of the layout.
pub(crate) const ROOT: &str = "kiln1";

/// Opens the store. Nothing is asked of a cloud yet.
///
/// # Errors
/// The URL or the settings cannot be used, or a directory cannot be made.
pub(crate) fn open(options: &Options, writable: bool) -> Result<Arc<dyn ObjectStore>> {
    let wrong = |why: &str| Error::new(ErrorKind::Config, &options.url, why);
    let (scheme, rest) = options
        .url
        .split_once("://")
        .ok_or_else(|| wrong("it is no URL"))?;
    if rest.contains(['?', '#', '@']) {
        return Err(wrong(
            "a shared cache's URL has no user, query or fragment; credentials come from the clouds' environment variables",
        ));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "file" => directory(options, rest, writable),
        "s3" | "gs" if bucket.is_empty() => Err(wrong("it names no bucket")),
        "s3" | "gs" if options.key.is_none() => Err(wrong(
            "a bucket needs a key: whoever can write it could otherwise choose what you build",
        )),
        "s3" => Ok(below(prefix, s3(options, bucket)?)),
        "gs" => Ok(below(prefix, gcs(options, bucket)?)),
        _ => Err(wrong("it begins with none of file://, s3:// and gs://")),
    }
}

fn directory(options: &Options, path: &str, writable: bool) -> Result<Arc<dyn ObjectStore>> {
    if !Path::new(path).is_absolute() {
        let why = "a directory's URL is file:// and an absolute path";
        return Err(Error::new(ErrorKind::Config, &options.url, why));
    }
    // Like a cloud that does not answer: a mount may be missing today.
    let absent = |why: &dyn fmt::Display| Error::new(ErrorKind::Unavailable, &options.url, why);
    let path = Path::new(path);
    if writable {
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(path).map_err(|error| absent(&error))?;
    }
    std::fs::read_dir(path).map_err(|error| absent(&error))?;
    let found = path.metadata().map_err(|error| absent(&error))?;
    let user = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if let Err(why) = guard(path, &found, user, options.key.is_some(), writable) {
        return Err(Error::new(ErrorKind::Exposed, &options.url, why));
    }
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| absent(&error))?;
    Ok(Arc::new(store))
}

/// Sees to it that a directory shows and takes results only from whom its owner has let in. Layers hold password hashes and what scripts have
/// fetched, so what this machine writes must not be for everybody; its group may be let in on purpose. Without a key
/// only the owner, or root, may be able to choose results. `user` runs Kiln.
fn guard(
    path: &Path,
    found: &Metadata,
    user: u32,
    sealed: bool,
    writable: bool,
) -> std::result::Result<(), String> {
    let mode = found.mode() & 0o7777;
    let trusted = found.uid() == user || found.uid() == 0;
    let shown = path.display();
    if !sealed && (!trusted || mode & 0o022 != 0) {
        return Err(format!(
            "other users may write there (owner {}, mode {mode:04o}), and without a key whoever writes results chooses what you build; \
             give one with --shared-cache-key, or take the right away: chmod go-w {shown}",
            found.uid()
        ));
    }
    if !writable || mode & 0o007 == 0 {
        return Ok(());
    }
    let ours = path.join(ROOT).is_dir()
        || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let closed = Permissions::from_mode(mode & !0o007);
    if found.uid() == user && ours && std::fs::set_permissions(path, closed).is_ok() {
        return Ok(());
    }
    Err(format!(
        "every user of the machine may look into it (owner {}, mode {mode:04o}), and layers hold secrets such as password hashes; \
         its owner closes it: chmod o-rwx {shown}",
        found.uid()
    ))
}

fn below(prefix: &str, store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    match prefix.trim_matches('/') {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    }
}

fn s3(options: &Options, bucket: &str) -> Result<impl ObjectStore> {
    let wrong = |why: &dyn fmt::Display| Error::new(ErrorKind::Config, &options.url, why);
    let mut builder = AmazonS3Builder::new();
    let (mut plain, mut allowed) = (false, false);
    for (name, value) in &options.settings {
        plain |= name.starts_with("AWS_ENDPOINT") && value.starts_with("http://");
        allowed |= name == "AWS_ALLOW_HTTP" && value.eq_ignore_ascii_case("true");
        let key = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>();
        if let Ok(key) = key
            && name.starts_with("AWS_")
        {
            builder = builder.with_config(key, value);
        }
    }
    if plain && !allowed {
        return Err(wrong(
            &"AWS_ENDPOINT_URL is not encrypted; set AWS_ALLOW_HTTP=true if that is meant",
        ));
    }
    builder
        .with_bucket_name(bucket)
        .with_http_connector(Connector::new(options))
        .with_retry(retry(options))
        .build()
        .map_err(|error| wrong(&error))
}

fn gcs(options: &Options, bucket: &str) -> Result<impl ObjectStore> {
    let wrong = |why: &dyn fmt::Display| Error::new(ErrorKind::Config, &options.url, why);
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in &options.settings {
        let key = name.to_ascii_lowercase().parse::<GoogleConfigKey>();
        if let Ok(key) = key
            && name.starts_with("GOOGLE_")
        {
            builder = builder.with_config(key, value);
        }
    }
    builder
        .with_bucket_name(bucket)
        .with_http_connector(Connector::new(options))
        .with_retry(retry(options))
        .build()
        .map_err(|error| wrong(&error))
}

/// A cache that has to be asked often is slower than building: two more tries, soon.
fn retry(options: &Options) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: options.patience * 2,
    }
}
