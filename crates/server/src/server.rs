//! What all parts of a running server share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::commands::Commands;
use crate::executor::Executor;
use crate::executor::request::Attempt;
use crate::executor::request::Elsewhere;
use crate::left::Left;
use crate::limits::Limits;
use crate::objects::{Live, Objects};
use crate::requests::Requests;
use crate::secrets::Secrets;
use crate::store::{Most, Store};

/// How much a server runs at once, and what it takes for granted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Images that are Kiln itself.
    pub images: Vec<String>,
    /// Processors for all builds together.
    pub cpus: u32,
    /// Bytes of memory for all builds together.
    pub memory: u64,
    /// Bytes that the queue sets aside for a build.
    pub build_memory: u64,
    /// Whether steps with other images run in containers.
    pub containers: bool,
    /// The engine that runs them; `None`: one of each build's own.
    pub engine: Option<Elsewhere>,
    /// Whether whoever reaches the port may do everything.
    pub open: bool,
    /// Whether builds fetch from other machines only.
    pub from_elsewhere: bool,
    /// Credentials for private repositories.
    pub git_credentials: Option<PathBuf>,
    /// How long builds stay that have ended.
    pub keep: Keep,
    /// Builds that may wait at once.
    pub queue_length: Most,
    /// Bytes of the disk that builds and uploads leave free.
    pub keep_free: u64,
    /// Bytes that a token may hold in buckets.
    pub quota: Option<u64>,
    /// Whether clients come by a proxy on this machine, which names their addresses.
    pub behind_proxy: bool,
}

/// How long builds stay that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Builds go this long after their end.
    pub age: Option<Duration>,
    /// The oldest builds go while all that have ended hold more bytes.
    pub bytes: Option<u64>,
}

/// A running server.
pub(crate) struct Server {
    /// The database.
    pub store: Store,
    /// The buckets.
    pub objects: Objects,
    /// Where builds run.
    pub executor: Box<dyn Executor>,
    /// Kiln's command line.
    pub commands: Arc<dyn Commands>,
    /// What was said at the start.
    pub settings: Settings,
    /// Its address as clients reach it, without a slash at the end.
    pub url: String,
    /// The directories of all builds.
    pub builds: PathBuf,
    /// Kiln's cache.
    pub cache: PathBuf,
    /// Images for containers.
    pub images: PathBuf,
    /// Values for the environment of steps.
    pub secrets: Secrets,
    /// Notified when the queue may go on.
    pub wake: Notify,
    /// What one client may take.
    pub limits: Limits,
    /// Requests since the start.
    pub requests: Requests,
    /// Why builds wait, by their id.
    pub waits: Mutex<BTreeMap<String, String>>,
    /// What engines of attempts left that have ended.
    pub left: Left,
}

impl Server {
    /// The files of an attempt.
    pub(crate) fn attempt(&self, build: &str, number: u32) -> Attempt {
        Attempt::new(&self.builds, build, number)
    }

    /// The log of a build's newest attempt that has one.
    pub(crate) fn log(&self, build: &str, attempt: u32) -> Option<PathBuf> {
        let numbers = (1..=attempt).rev();
        let mut logs = numbers.map(|number| self.attempt(build, number).log());
        logs.find(|log| log.is_file())
    }

    /// Why builds wait.
    pub(crate) fn waits(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bucket and the name of a build's log.
pub(crate) fn log_object(logs_bucket: &str, build: &str) -> (String, String) {
    let (bucket, prefix) = split(logs_bucket);
    (bucket, format!("{prefix}log-{build}.txt"))
}

/// `gs://BUCKET/PREFIX` as a bucket and the beginning of names, which ends with a slash if it is not empty.
pub(crate) fn split(place: &str) -> (String, String) {
    let place = place.strip_prefix("gs://").unwrap_or(place);
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_matches('/');
    let prefix = match prefix.is_empty() {
        true => String::new(),
        false => format!("{prefix}/"),
    };
    (bucket.to_owned(), prefix)
}

/// The logs of builds, as objects that grow.
pub(crate) struct Logs(pub Arc<Server>);

impl Live for Logs {
    fn find(&self, bucket: &str, name: &str) -> Option<PathBuf> {
        let file = Path::new(name).file_name()?.to_str()?;
        let id = file.strip_prefix("log-")?.strip_suffix(".txt")?;
        let record = self.0.store.get(id).ok().flatten()?;
        let place = record.build.logs_bucket.as_deref()?;
        let expected = log_object(place, id);
        if (expected.0.as_str(), expected.1.as_str()) != (bucket, name) {
            return None;
        }
        self.0.log(id, record.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_split() {
        for (place, bucket, prefix) in [
            ("gs://b", "b", ""),
            ("gs://b/", "b", ""),
            ("gs://b/logs/x/", "b", "logs/x/"),
            ("b/y", "b", "y/"),
        ] {
            assert_eq!(split(place), (bucket.to_owned(), prefix.to_owned()));
        }
        assert_eq!(log_object("gs://b/l", "i").1, "l/log-i.txt");
    }
}
