//! Buckets of the clouds: how they are reached, for the shared cache and for whoever else keeps things there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::http::{Connector, proxy};

/// A bucket, and how it is reached.
#[derive(Clone)]
pub struct Cloud {
    /// `s3://bucket/prefix` or `gs://bucket/prefix`.
    pub url: String,
    /// The clouds' usual variables, `AWS_…` and `GOOGLE_…`.
    pub settings: Vec<(String, String)>,
    /// The proxy for `https://`.
    pub proxy: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
    /// How long the other side may be silent. One request may take ten times that.
    pub patience: Duration,
    /// What is tried again, and for how long.
    pub retry: RetryConfig,
}

// Settings hold credentials, a proxy's URL may hold a password.
impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The scheme of a store's URL, and what comes behind `://`.
///
/// # Errors
/// It is no URL, or says more than where things are.
pub fn parts(url: &str) -> Result<(&str, &str)> {
    let wrong = |why| Error::new(ErrorKind::Config, url, why);
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it is no URL"))?;
    if rest.contains(['?', '#', '@']) {
        return Err(wrong(
            "a store's URL has no user, query or fragment; credentials come from the clouds' variables",
        ));
    }
    Ok((scheme, rest))
}

/// Opens a bucket. The cloud is not asked yet.
///
/// # Errors
/// The URL or the settings cannot be used.
pub fn bucket(cloud: &Cloud) -> Result<Arc<dyn ObjectStore>> {
    let wrong = |why| Error::new(ErrorKind::Config, &cloud.url, why);
    let (scheme, rest) = parts(&cloud.url)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "s3" | "gs" if bucket.is_empty() => Err(wrong("it names no bucket")),
        "s3" => Ok(below(prefix, s3(cloud, bucket)?)),
        "gs" => Ok(below(prefix, gcs(cloud, bucket)?)),
        _ => Err(wrong("it begins with none of file://, s3:// and gs://")),
    }
}

/// Whether a variable is one that this version's client of a cloud knows.
pub fn is_setting(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with("AWS_") && lower.parse::<AmazonS3ConfigKey>().is_ok()
        || name.starts_with("GOOGLE_") && lower.parse::<GoogleConfigKey>().is_ok()
}

fn below(prefix: &str, store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    match prefix.trim_matches('/') {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    }
}

fn connector(cloud: &Cloud) -> Connector {
    let proxy = proxy(cloud.proxy.as_deref(), cloud.no_proxy.as_deref());
    Connector::new(cloud.patience, proxy)
}

fn s3(cloud: &Cloud, bucket: &str) -> Result<impl ObjectStore> {
    let wrong = |why: &dyn fmt::Display| Error::new(ErrorKind::Config, &cloud.url, why);
    // One by one: not every store that speaks S3 can remove many at once.
    let one_by_one = AmazonS3ConfigKey::DisableBulkDelete;
    let mut builder = AmazonS3Builder::new().with_config(one_by_one, "true");
    let (mut plain, mut allowed) = (false, false);
    for (name, value) in &cloud.settings {
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
        .with_http_connector(connector(cloud))
        .with_retry(cloud.retry.clone())
        .build()
        .map_err(|error| wrong(&error))
}

fn gcs(cloud: &Cloud, bucket: &str) -> Result<impl ObjectStore> {
    let wrong = |why: &dyn fmt::Display| Error::new(ErrorKind::Config, &cloud.url, why);
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in &cloud.settings {
        let key = name.to_ascii_lowercase().parse::<GoogleConfigKey>();
        if let Ok(key) = key
            && name.starts_with("GOOGLE_")
        {
            builder = builder.with_config(key, value);
        }
    }
    builder
        .with_bucket_name(bucket)
        .with_http_connector(connector(cloud))
        .with_retry(cloud.retry.clone())
        .build()
        .map_err(|error| wrong(&error))
}
