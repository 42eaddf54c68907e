//! Where a shared cache is.

use std::fmt;
use std::fs::{Metadata, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::cloud::{self, Cloud};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

/// The version of the layout.
pub(crate) const ROOT: &str = "kiln1";

/// Opens the store. Nothing is asked of a cloud yet.
///
/// # Errors
/// The URL or the settings cannot be used, or a directory cannot be made.
pub(crate) fn open(options: &Options, writable: bool) -> Result<Arc<dyn ObjectStore>> {
    let (scheme, rest) = cloud::parts(&options.url)?;
    match scheme {
        "file" => directory(options, rest, writable),
        "s3" | "gs" | "az" if options.key.is_none() => Err(Error::new(
            ErrorKind::Config,
            &options.url,
            "a bucket needs a key: whoever can write it could otherwise choose what you build",
        )),
        _ => cloud::bucket(&Cloud {
            url: options.url.clone(),
            settings: options.settings.clone(),
            proxy: options.proxy.clone(),
            no_proxy: options.no_proxy.clone(),
            patience: options.patience,
            retry: retry(options),
        }),
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
