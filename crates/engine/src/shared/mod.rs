//! A cache that several machines share: layers, initramfs results and compressed blocks come from there and go there.
//!
//! Nothing here can fail a build or change what it makes: whatever is wrong with the shared cache is a miss, with one warning that
//! names the object. `kiln_share` draws the store and says whom it trusts; what is found there goes the way of a built layer,
//! staged privately and committed by one rename.
//!
//! | kind | id | facts | files |
//! |---|---|---|---|
//! | `layers` | the layer's | title and the step's facts | `fs.tar.zst` ([`kiln_rootfs::archive`]) and what lies beside the layer |
//! | `initramfs-<key>` | a layer's | | none: a result to try for this key |
//! | `images` | of all that the artifacts are made of, the program included | what the manifest says of the image, and its digest | where its bytes are: in packs, and the rest (`images.rs`) |
//! | `blocks` | of a layer and an encoder | names of packs | each pack's index and blocks ([`kiln_image::blocks`]) |

mod blocks;
mod images;
mod pull;
mod push;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use kiln_plan::Id;
use kiln_rootfs::Store;
use kiln_sandbox::CancelToken;
use kiln_share::{ErrorKind, Share};

use crate::steps::{Steps, locked};
use crate::values::{FACTS, INPUTS, TRACE};
use crate::{Failure, FailureKind};

pub(crate) use blocks::{Adopt, keys, put_keys};
pub(crate) use images::{ImageFacts, Located, Placed, Runs, SharedImage};
use push::Pusher;

/// The archive of a layer's directory in its record.
const ARCHIVE: &str = "fs.tar.zst";
const LAYERS: &str = "layers";

/// The shared cache that a build uses.
#[derive(Clone, Debug)]
pub struct SharedCache {
    /// Where it is, and how it is reached.
    pub options: kiln_share::Options,
    /// Whether results of this build go there.
    pub writable: bool,
}

/// An opened shared cache.
pub(crate) struct Shared {
    share: Arc<Share>,
    /// What this build got from there.
    pulled: Mutex<HashSet<Id>>,
    /// What was asked for and is not to be had; it is not asked for again.
    missed: Mutex<HashSet<String>>,
    /// Layers, and the image, of which something there was wrong: they are sent again.
    spoiled: Mutex<HashSet<Id>>,
    pusher: Option<Pusher>,
    cancel: CancelToken,
}

impl Shared {
    /// Opens it; `None` where there is none, or where it cannot be used now.
    ///
    /// # Errors
    /// What the user said about it makes no sense.
    pub(crate) fn open(
        wanted: Option<&SharedCache>,
        offline: bool,
        steps: &Steps<'_>,
        cancel: &CancelToken,
        store: &Store,
    ) -> Result<Option<Shared>, Failure> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        if offline && !kiln_share::is_local(&wanted.options.url) {
            return Ok(None);
        }
        let share = match Share::open(&wanted.options, wanted.writable) {
            Ok(share) => Arc::new(share),
            Err(error) if error.kind() == ErrorKind::Config => {
                return Err(
                    Failure::new(FailureKind::Usage, format!("the shared cache {error}"))
                        .hint("docs/shared-cache.md says how to set one up"),
                );
            }
            Err(error) if error.kind() == ErrorKind::Exposed => {
                let message = format!("the shared cache {error}");
                return Err(Failure::new(FailureKind::Environment, message)
                    .hint("docs/shared-cache.md says who has to be able to read and write it"));
            }
            Err(error) => {
                let hint = "the build goes on without it".to_owned();
                steps.warn(format!("shared cache {error}"), None, Some(hint));
                return Ok(None);
            }
        };
        let cancel = cancel.child().map_err(|e| {
            Failure::new(FailureKind::Environment, "making a descriptor").cause(e.to_string())
        })?;
        let pusher = wanted
            .writable
            .then(|| Pusher::start(Arc::clone(&share), store.clone(), cancel.clone()));
        Ok(Some(Shared {
            share,
            pulled: Mutex::default(),
            missed: Mutex::default(),
            spoiled: Mutex::default(),
            pusher,
            cancel,
        }))
    }

    /// Whether this build got the layer from the shared cache.
    pub(crate) fn has_pulled(&self, id: Id) -> bool {
        locked(&self.pulled).contains(&id)
    }

    /// Waits until what the build made is in the shared cache.
    pub(crate) fn finish(&self, steps: &Steps<'_>) {
        if let Some(pusher) = &self.pusher {
            pusher.finish(self.share.url(), steps);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // After a failure nobody wants to wait for what is still on its way: the next build sends it.
        self.cancel.cancel();
    }
}

/// One warning for one object.
fn warn(steps: &Steps<'_>, error: &kiln_share::Error) {
    if error.kind() != ErrorKind::Stopped {
        let hint = match error.kind() {
            ErrorKind::Damaged | ErrorKind::Missing => {
                "it counts as missing; a build that may write there replaces it"
            }
            _ => "it counts as missing",
        };
        steps.warn(
            format!("shared cache: {error}"),
            None,
            Some(hint.to_owned()),
        );
    }
}

/// What may lie beside a layer.
fn is_attachment(name: &str) -> bool {
    let is_manifest = name
        .strip_prefix("content-")
        .is_some_and(|size| !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()));
    is_manifest || [FACTS, TRACE, INPUTS].contains(&name)
}
