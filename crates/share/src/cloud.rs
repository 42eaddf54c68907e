//! Buckets of the clouds: how they are reached, for the shared cache and for whoever else keeps things there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};

use crate::error::{Error, ErrorKind, Result};
use crate::http::{Connector, proxy};

/// A bucket, and how it is reached.
#[derive(Clone)]
pub struct Cloud {
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The clouds' usual variables, `AWS_…`, `GOOGLE_…` and `AZURE_…`.
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
        "s3" | "gs" | "az" if bucket.is_empty() => Err(wrong("it names no bucket")),
        "s3" => Ok(below(prefix, s3(cloud, bucket)?)),
        "gs" => Ok(below(prefix, gcs(cloud, bucket)?)),
        "az" => Ok(below(prefix, azure(cloud, bucket)?)),
        _ => Err(wrong(
            "it begins with none of file://, s3://, gs:// and az://",
        )),
    }
}

/// Whether a variable is one that this version's client of a cloud knows.
pub fn is_setting(name: &str) -> bool {
    key::<AmazonS3ConfigKey>(AWS, name).is_some()
        || key::<GoogleConfigKey>(GOOGLE, name).is_some()
        || key::<AzureConfigKey>(AZURE, name).is_some()
}

/// The beginnings of the clouds' variables.
const AWS: &str = "AWS_";
const GOOGLE: &str = "GOOGLE_";
const AZURE: &str = "AZURE_";

fn key<K: FromStr>(cloud: &str, name: &str) -> Option<K> {
    let known = name.starts_with(cloud).then(|| name.to_ascii_lowercase());
    known?.parse().ok()
}

/// What a cloud's own client makes of the settings.
fn settings<'a, K: FromStr>(
    cloud: &'a Cloud,
    beginning: &'a str,
) -> impl Iterator<Item = (K, &'a String)> {
    let all = cloud.settings.iter();
    all.filter_map(move |(name, value)| Some((key(beginning, name)?, value)))
}

/// Refuses an address without TLS that nobody has allowed.
fn encrypted(cloud: &Cloud, endpoint: &str, allow: &str) -> Result<()> {
    let is = |(name, value): &(String, String)| {
        name.starts_with(endpoint) && value.starts_with("http://")
    };
    let may =
        |(name, value): &(String, String)| name == allow && value.eq_ignore_ascii_case("true");
    match cloud.settings.iter().find(|setting| is(setting)) {
        Some((name, _)) if !cloud.settings.iter().any(may) => {
            let why = format!("{name} is not encrypted; set {allow}=true if that is meant");
            Err(Error::new(ErrorKind::Config, &cloud.url, &why))
        }
        _ => Ok(()),
    }
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
    encrypted(cloud, "AWS_ENDPOINT", "AWS_ALLOW_HTTP")?;
    // One by one: not every store that speaks S3 can remove many at once.
    let one_by_one = AmazonS3ConfigKey::DisableBulkDelete;
    let builder = AmazonS3Builder::new().with_config(one_by_one, "true");
    settings(cloud, AWS)
        .fold(builder, |builder, (key, value)| {
            builder.with_config(key, value)
        })
        .with_bucket_name(bucket)
        .with_http_connector(connector(cloud))
        .with_retry(cloud.retry.clone())
        .build()
        .map_err(|error| Error::new(ErrorKind::Config, &cloud.url, &error))
}

fn gcs(cloud: &Cloud, bucket: &str) -> Result<impl ObjectStore> {
    settings(cloud, GOOGLE)
        .fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        })
        .with_bucket_name(bucket)
        .with_http_connector(connector(cloud))
        .with_retry(cloud.retry.clone())
        .build()
        .map_err(|error| Error::new(ErrorKind::Config, &cloud.url, &error))
}

fn azure(cloud: &Cloud, container: &str) -> Result<impl ObjectStore> {
    encrypted(cloud, "AZURE_STORAGE_ENDPOINT", "AZURE_ALLOW_HTTP")?;
    encrypted(cloud, "AZURE_ENDPOINT", "AZURE_ALLOW_HTTP")?;
    settings(cloud, AZURE)
        .fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| {
            builder.with_config(key, value)
        })
        .with_container_name(container)
        .with_http_connector(connector(cloud))
        .with_retry(cloud.retry.clone())
        .build()
        .map_err(|error| Error::new(ErrorKind::Config, &cloud.url, &error))
}
