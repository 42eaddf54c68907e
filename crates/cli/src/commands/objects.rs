//! Where `kiln serve` keeps the contents of its buckets.

use std::path::Path;
use std::time::Duration;

use kiln_engine::{Failure, FailureKind};
use kiln_server::objects::{self, Elsewhere};

use super::shared::secret;
use crate::args::ServeArgs;
use crate::settings::Settings;

/// How long a request to a store elsewhere is tried again: less than clients wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `--objects` and `--objects-credentials` say. The environment says nothing of it: that goes on to builds.
///
/// # Errors
/// The file of credentials cannot be read, or others can.
pub(super) fn elsewhere(
    args: &ServeArgs,
    settings: &Settings,
) -> Result<Option<Elsewhere>, Failure> {
    let Some(url) = args.objects.clone() else {
        return Ok(None);
    };
    let credentials = args.objects_credentials.as_deref();
    Ok(Some(Elsewhere {
        url,
        settings: credentials.map_or(Ok(Vec::new()), read)?,
        proxy: settings.proxies.https.clone(),
        no_proxy: settings.proxies.exempt.clone(),
        patience: PATIENCE,
    }))
}

fn read(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let what = "the file of --objects-credentials";
    let hint = "it has lines such as AWS_ACCESS_KEY_ID=…, AWS_SECRET_ACCESS_KEY=…, AWS_REGION=…";
    let content = secret(path, what, hint)?;
    let settings = std::str::from_utf8(&content)
        .map_err(|error| error.to_string())
        .and_then(objects::settings);
    settings.map_err(|why| {
        let message = format!("{what}, {}, cannot be used", path.display());
        Failure::new(FailureKind::Usage, message)
            .cause(why)
            .hint(hint)
    })
}
