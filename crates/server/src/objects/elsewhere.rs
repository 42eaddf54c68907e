//! Contents that are not in the server's own directory, and what says whose contents are in a place.
//!
//! ```text
//! <url>/kiln-objects1/@owner      whose contents these are: the index, and the server that was started last
//!                     …           the contents (`name.rs`); no bucket's name begins with `@`
//! ```
//!
//! Contents are named by an index: with another one, or with an old copy of it beside a server that runs, they would be removed
//! and replaced behind each other's back. So nothing is written or removed before the owner is known to be this index, and no
//! longer once another server has been started over it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_share::Cloud;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use serde::{Deserialize, Serialize};

use super::error::{ApiError, Result};
use super::work::random;

/// What stands between the URL and the contents; the version of the layout.
const ROOT: &str = "kiln-objects1";
/// Who owns the contents.
const OWNER: &str = "@owner";
/// How long a store may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Where contents are.
#[derive(Clone, Debug, Default)]
pub enum Contents {
    /// Beside the index.
    #[default]
    Here,
    /// In another directory.
    Directory(PathBuf),
    /// In a store that is not this machine's.
    Store(Arc<dyn ObjectStore>),
}

/// A place elsewhere as its user names it.
#[derive(Clone)]
pub struct Elsewhere {
    /// `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The clouds' usual variables, `AWS_…`, `GOOGLE_…` and `AZURE_…`.
    pub settings: Vec<(String, String)>,
    /// The proxy for `https://`.
    pub proxy: Option<String>,
    /// Hosts that are asked directly, separated by commas.
    pub no_proxy: Option<String>,
    /// How long a request is tried again. Clients wait meanwhile; builds try for longer by themselves.
    pub patience: Duration,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Elsewhere {
    /// Returns where contents go. Nothing is asked of a cloud yet.
    ///
    /// # Errors
    /// The URL or the settings cannot be used.
    pub fn contents(&self) -> Result<Contents> {
        let wrong = |error: kiln_share::Error| ApiError::invalid(error.to_string());
        let (scheme, rest) = kiln_share::parts(&self.url).map_err(wrong)?;
        if scheme == "file" {
            let directory = Path::new(rest);
            if !directory.is_absolute() {
                let why = "a directory's URL is file:// and an absolute path";
                return Err(ApiError::invalid(format!("{}: {why}", self.url)));
            }
            return Ok(Contents::Directory(directory.join(ROOT)));
        }
        let cloud = Cloud {
            url: self.url.clone(),
            settings: self.settings.clone(),
            proxy: self.proxy.clone(),
            no_proxy: self.no_proxy.clone(),
            patience: SILENCE,
            retry: retry(self.patience),
        };
        let store = kiln_share::bucket(&cloud).map_err(wrong)?;
        Ok(Contents::Store(Arc::new(PrefixStore::new(store, ROOT))))
    }
}

/// Reads settings, `NAME=VALUE` on each line; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// A line that is none, or names nothing that a store's client knows: a sentence without the value.
pub fn settings(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {number} is not NAME=VALUE"))?;
        if !kiln_share::is_setting(name) {
            return Err(format!(
                "line {number}: {name:?} is no setting of S3 (AWS_…), Google Cloud Storage (GOOGLE_…) or Azure (AZURE_…)"
            ));
        }
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

fn retry(patience: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 20,
        retry_timeout: patience,
    }
}

/// What `@owner` says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// The index that names the contents.
    index: String,
    /// The server that was started last.
    server: String,
}

/// Whether contents may be written and removed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The store has not said yet whose they are.
    Asking(ApiError),
    Ours,
    /// They are another's, or not there.
    Not(ApiError),
    /// They were ours, and are no more: for good.
    Over(ApiError),
}

/// The right to write and remove contents.
#[derive(Debug)]
pub(super) struct Claim {
    own: Owner,
    /// The index names contents already, so there must be some.
    is_old: bool,
    state: Mutex<State>,
    /// What the last look said, if it was no good.
    last: Mutex<Option<ApiError>>,
}

impl Claim {
    /// A claim that nobody has made yet. `is_old` says that the index knows of contents.
    pub(super) fn new(index: String, is_old: bool) -> Result<Claim> {
        let waiting = "the object store has not answered since the server was started";
        Ok(Claim {
            own: Owner {
                index,
                server: random()?,
            },
            is_old,
            state: Mutex::new(State::Asking(ApiError::away(waiting))),
            last: Mutex::default(),
        })
    }

    /// Refuses what may not be done yet, or any more.
    pub(super) fn check(&self) -> Result<()> {
        match &*locked(&self.state) {
            State::Ours => Ok(()),
            State::Asking(error) | State::Not(error) | State::Over(error) => Err(error.clone()),
        }
    }

    /// What the store said when it was looked at last, if that was no good.
    pub(super) fn trouble(&self) -> Option<ApiError> {
        self.check().err().or_else(|| locked(&self.last).clone())
    }

    /// Asks the store whose contents it holds: for the first time, or once more.
    ///
    /// # Errors
    /// They are another's, or not there; the store is away, or lets nobody in.
    pub(super) async fn look(&self, store: &dyn ObjectStore) -> Result<()> {
        if let State::Over(error) = &*locked(&self.state) {
            return Err(error.clone());
        }
        let was_ours = self.check().is_ok();
        let found = match was_ours {
            true => self.still(store).await,
            false => self.take(store).await,
        };
        *locked(&self.last) = found.clone().err();
        *locked(&self.state) = match &found {
            Ok(()) => State::Ours,
            // What was ours is ours while nobody says otherwise.
            Err(error) if error.is_away() && was_ours => State::Ours,
            Err(error) if error.is_away() => State::Asking(error.clone()),
            // Who took it back would take it from the server that has it now, and that one from this one.
            Err(error) if was_ours => State::Over(error.clone()),
            Err(error) => State::Not(error.clone()),
        };
        found
    }

    async fn still(&self, store: &dyn ObjectStore) -> Result<()> {
        match read(store).await? {
            Some(owner) if owner == self.own => Ok(()),
            Some(owner) if owner.index == self.own.index => Err(ApiError::internal(
                "another server has been started over the same contents; this one leaves them alone",
            )),
            Some(_) => Err(another()),
            None => self.write(store, PutMode::Overwrite).await,
        }
    }

    async fn take(&self, store: &dyn ObjectStore) -> Result<()> {
        match read(store).await? {
            Some(owner) if owner.index == self.own.index => {
                self.write(store, PutMode::Overwrite).await
            }
            Some(_) => Err(another()),
            None if self.is_old => Err(ApiError::internal(
                "the index names objects whose contents are not in this place: say where they are with --objects, or copy them there first",
            )),
            None => {
                self.write(store, PutMode::Create).await?;
                match read(store).await? {
                    Some(owner) if owner == self.own => Ok(()),
                    _ => Err(another()),
                }
            }
        }
    }

    async fn write(&self, store: &dyn ObjectStore, mode: PutMode) -> Result<()> {
        let text =
            serde_json::to_vec(&self.own).map_err(|error| ApiError::internal(error.to_string()))?;
        let place = OWNER.into();
        let mut put = store
            .put_opts(&place, text.clone().into(), mode.into())
            .await;
        if let Err(Error::NotImplemented { .. }) = put {
            // A store that cannot say who was first: the last one is.
            put = store.put(&place, text.into()).await;
        }
        match put {
            // Who was first is read next.
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
            Err(Error::NotFound { .. }) => Err(ApiError::internal(
                "the object store has no such bucket; Kiln does not make it",
            )),
            Err(error) => Err(of_store(OWNER, &error)),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is whole even if a thread panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn another() -> ApiError {
    ApiError::internal(
        "the contents there are another server's (its index has another id): take another place, or remove them if that index is lost",
    )
}

async fn read(store: &dyn ObjectStore) -> Result<Option<Owner>> {
    let found = match store.get(&OWNER.into()).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(of_store(OWNER, &error)),
    };
    let text = found
        .bytes()
        .await
        .map_err(|error| of_store(OWNER, &error))?;
    let owner = serde_json::from_slice(&text).map_err(|error| {
        ApiError::internal(format!(
            "{OWNER} in the object store is not Kiln's: {error}"
        ))
    })?;
    Ok(Some(owner))
}

/// What a store elsewhere says about a content, in one line without its credentials.
pub(super) fn of_store(place: &str, error: &Error) -> ApiError {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let said = code(&last.to_string());
    let is_barred = matches!(
        error,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    );
    if is_barred || matches!(said.as_str(), "ExpiredToken" | "InvalidToken") {
        return ApiError::barred(format!(
            "the object store refuses the server's credentials for {place} ({said})"
        ));
    }
    match error {
        Error::NotFound { .. } => {
            ApiError::damaged(format!("the content {place} is gone from the object store"))
        }
        _ => ApiError::away(format!(
            "the object store cannot be used for {place}: {said}"
        )),
    }
}

/// The code of an answer in XML, or what else is said, shortened.
fn code(text: &str) -> String {
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or(text, |(code, _)| code);
    let line = code.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(200).collect()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn one_index_owns_a_place_and_the_latest_server() {
        let store = InMemory::new();
        let first = Claim::new("a".to_owned(), false).unwrap();
        assert!(first.check().unwrap_err().is_away());
        first.look(&store).await.unwrap();
        first.look(&store).await.unwrap();
        first.check().unwrap();
        let other = Claim::new("b".to_owned(), false).unwrap();
        let error = other.look(&store).await.unwrap_err();
        assert!(error.to_string().contains("another server's"), "{error}");
        assert_eq!(other.check().unwrap_err(), error);
        // The same index again: a restart, or a copy of it.
        let second = Claim::new("a".to_owned(), true).unwrap();
        second.look(&store).await.unwrap();
        let error = first.look(&store).await.unwrap_err();
        assert!(error.to_string().contains("has been started"), "{error}");
        first.check().unwrap_err();
        second.look(&store).await.unwrap();
        // The mark was removed by hand.
        store.delete(&OWNER.into()).await.unwrap();
        second.look(&store).await.unwrap();
        first.look(&store).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_index_with_objects_is_not_content_with_an_empty_place() {
        let claim = Claim::new("a".to_owned(), true).unwrap();
        let error = claim.look(&InMemory::new()).await.unwrap_err();
        assert!(error.to_string().contains("--objects"), "{error}");
    }

    #[test]
    fn settings_are_read_and_never_told() {
        let text = "# a key\n\nAWS_ACCESS_KEY_ID=a=b\nGOOGLE_SERVICE_ACCOUNT=/x\n";
        let read = settings(text).unwrap();
        assert_eq!(read[0], ("AWS_ACCESS_KEY_ID".to_owned(), "a=b".to_owned()));
        assert_eq!(read.len(), 2);
        for (text, expected) in [
            ("AWS_SECRET_ACCESS_KEY s3cret", "line 1 is not NAME=VALUE"),
            (
                "\nAWS_SECRET_KEY=s3cret",
                "line 2: \"AWS_SECRET_KEY\" is no setting",
            ),
            ("PATH=s3cret", "line 1"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_code_of_an_answer_is_what_is_told() {
        assert_eq!(code("403: <Error><Code>SlowDown</Code><Key>x"), "SlowDown");
        assert_eq!(code("a\nb"), "a b");
    }
}
