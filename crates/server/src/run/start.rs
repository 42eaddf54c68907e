//! Makes an attempt's directory and hands it to the executor.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::STORE;
use super::ending::{Ending, append};
use super::waiting::Waiting;
use crate::demand;
use crate::executor::request::{Attempt, Request, closing};
use crate::objects::{self, BucketName, ObjectName};
use crate::pinned::to_fetch;
use crate::server::Server;
use crate::store::Record;
use crate::wire::model::{Status, StorageSource};

/// Starts an attempt; returns an end only if that is one.
pub(super) async fn attempt(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
) -> Result<Option<Ending>, String> {
    let trouble = |error: io::Error| format!("preparing the build: {error}");
    make(server, record, attempt).map_err(trouble)?;
    let storage = record
        .build
        .source
        .as_ref()
        .and_then(|source| source.storage_source.as_ref());
    if let Some(storage) = storage
        && let Err(error) = fetched(server, record, storage, attempt).await
    {
        let place = place(storage);
        if server
            .store
            .get(&record.build.id)
            .is_ok_and(|now| now.is_some_and(|now| now.cancelled))
        {
            let detail = "the build was cancelled".to_owned();
            append(&attempt.log(), &closing(Some(&detail))).map_err(trouble)?;
            return Ok(Some(Ending::failed(Status::Cancelled, detail)));
        }
        let detail = format!("fetching {place}: {error}");
        let end = closing(Some(&detail));
        let log = format!("FETCHSOURCE\nFetching storage object: {place}\n{end}");
        append(&attempt.log(), &log).map_err(trouble)?;
        return Ok(Some(Ending {
            status: Status::Failure,
            detail: Some(detail),
            failure: Some("FETCH_SOURCE_FAILED".to_owned()),
            files: Vec::new(),
        }));
    }
    let request = request(server, record, storage);
    let bytes = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    fs::write(attempt.request(), bytes).map_err(trouble)?;
    server.executor.start(attempt).map_err(trouble)?;
    Ok(None)
}

fn request(server: &Server, record: &Record, storage: Option<&StorageSource>) -> Request {
    let earlier = record.retry_of.as_ref().map(|id| {
        let number = server
            .store
            .get(id)
            .ok()
            .flatten()
            .map_or(1, |record| record.attempt);
        server.attempt(id, number).kept()
    });
    Request {
        build: record.build.id.clone(),
        attempt: record.attempt,
        steps: record.task.steps.clone(),
        source: storage.map(place),
        git: to_fetch(record),
        git_credentials: server.settings.git_credentials.clone(),
        timeout: record.task.timeout,
        artifacts: record.task.artifacts.clone(),
        push: record.task.images.clone(),
        threads: demand::threads(record, &server.settings),
        memory: Some(demand::of(record, &server.settings).memory),
        cache: server.cache.clone(),
        from_elsewhere: server.settings.from_elsewhere,
        images: server.images.clone(),
        secrets: record.task.secrets.clone(),
        secrets_of: server.secrets.clone(),
        engine: server.settings.engine.clone(),
        locks_of: earlier.filter(|kept| kept.is_dir()),
    }
}

fn place(storage: &StorageSource) -> String {
    let StorageSource {
        bucket,
        object,
        generation,
    } = storage;
    match generation {
        Some(generation) => format!("gs://{bucket}/{object}#{generation}"),
        None => format!("gs://{bucket}/{object}"),
    }
}

/// Makes the directory. A later attempt's log begins with what was shown of the earlier ones.
fn make(server: &Server, record: &Record, attempt: &Attempt) -> io::Result<()> {
    fs::create_dir_all(attempt.workspace())?;
    let earlier = server.log(&record.build.id, record.attempt - 1);
    match earlier {
        None => fs::write(attempt.log(), ""),
        Some(earlier) => {
            let mut text = fs::read(earlier)?;
            let end = text
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            text.truncate(end);
            let staged = attempt.dir.join("log.new");
            fs::write(&staged, text)?;
            fs::rename(staged, attempt.log())
        }
    }
}

/// Fetches the source; while the store is away, that waits.
async fn fetched(
    server: &Server,
    record: &Record,
    storage: &StorageSource,
    attempt: &Attempt,
) -> objects::Result<()> {
    let waiting = Waiting {
        server,
        id: &record.build.id,
        log: Some(attempt.log()),
        most: STORE,
    };
    let target = attempt.source();
    let what = "the source cannot be fetched";
    waiting
        .until(what, || fetch(server, storage, &target))
        .await
}

async fn fetch(server: &Server, storage: &StorageSource, target: &Path) -> objects::Result<()> {
    let bucket = BucketName::new(&storage.bucket)?;
    let name = ObjectName::new(&storage.object)?;
    let generation = match &storage.generation {
        None => None,
        Some(number) => Some(
            number
                .parse()
                .map_err(|_| objects::ApiError::invalid(format!("{number:?} is no generation")))?,
        ),
    };
    let opened = server
        .objects
        .open_object(&bucket, &name, generation)
        .await?;
    let failed = |error| objects::ApiError::of_io("writing the source", &error);
    let mut file = tokio::fs::File::create(target).await.map_err(failed)?;
    let mut content = Box::pin(opened.read(0, u64::MAX));
    while let Some(bytes) = content.next().await {
        file.write_all(&bytes?).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}
