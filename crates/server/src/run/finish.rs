//! The end of a build: artifacts and log become objects, then the status becomes final.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::STORE;
use super::ending::{Ending, close};
use super::waiting::Waiting;
use crate::executor::request::{Artifact, Attempt};
use crate::objects::{Attributes, BucketName, Known, ObjectName, Objects, Owner};
use crate::retain;
use crate::server::{Server, log_object, split};
use crate::store::{Error, Record};
use crate::wire::model::{Build, FailureInfo, Results, Status, TimeSpan, Warning};
use crate::wire::time;

/// How long a build's end waits for the store of its log; the file itself is served in any case.
const LOG: Duration = Duration::from_secs(600);

/// Brings a build to its end.
pub(super) async fn build(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
    mut ending: Ending,
) -> Result<(), Error> {
    let id = &record.build.id;
    let results = artifacts(server, record, attempt, &mut ending).await?;
    retain::clean(server, attempt, id).await;
    let warning = keep_log(server, record).await.err();
    server
        .store
        .attempt_ended(id, record.attempt, ending.status, ending.detail.as_deref())?;
    server.store.change(id, |record| {
        if record.build.status.is_final() {
            return false;
        }
        let build = &mut record.build;
        build.status = ending.status;
        build.status_detail.clone_from(&ending.detail);
        build.finish_time = Some(time::stamp(time::now()));
        if let (Some(detail), true) = (&ending.detail, ending.status != Status::Cancelled) {
            let unspecified = || "FAILURE_TYPE_UNSPECIFIED".to_owned();
            build.failure_info = Some(FailureInfo {
                kind: ending.failure.clone().unwrap_or_else(unspecified),
                detail: detail.clone(),
            });
        }
        if ending.status == Status::Success {
            if let Some(span) = results.artifact_timing.clone() {
                build.timing.insert("PUSH".to_owned(), span);
            }
            join(build, results);
        }
        if let Some(text) = warning {
            let priority = "ALERT".to_owned();
            build.warnings.push(Warning { text, priority });
        }
        true
    })?;
    Ok(())
}

/// Keeps a build's artifacts, and closes its log. Without them, it has ended in another way than its process said.
async fn artifacts(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
    ending: &mut Ending,
) -> Result<Results, Error> {
    let wanted = record.task.artifacts.as_ref();
    let Some(wanted) = wanted.filter(|_| ending.status == Status::Success) else {
        if ending.status == Status::InternalError
            && let Some(detail) = &ending.detail
        {
            close(&attempt.log(), Some(detail))?;
        }
        return Ok(Results::default());
    };
    let waiting = Waiting {
        server,
        id: &record.build.id,
        log: Some(attempt.log()),
        most: STORE,
    };
    let kept = keep(&waiting, record, &wanted.location, &ending.files, attempt).await;
    let error = match kept {
        Ok(kept) => {
            close(&attempt.log(), None)?;
            return Ok(kept);
        }
        Err(error) => error,
    };
    if waiting.is_cancelled() {
        let detail = format!("the build was cancelled before its artifacts were kept: {error}");
        *ending = Ending::failed(Status::Cancelled, detail);
    } else {
        let detail = format!("could not upload artifacts: {error}");
        *ending = Ending::failed(Status::Failure, detail);
        ending.failure = Some("PUSH_FAILED".to_owned());
    }
    close(&attempt.log(), ending.detail.as_deref())?;
    Ok(Results::default())
}

/// Adds what was kept to what the steps have told.
fn join(build: &mut Build, mut results: Results) {
    if let Some(told) = build.results.take() {
        results.build_step_images = told.build_step_images;
        results.build_step_outputs = told.build_step_outputs;
        results.images = told.images;
    }
    results
        .build_step_images
        .resize(build.steps.len(), String::new());
    build.results = Some(results);
}

/// Makes objects of files, and of the list of them.
async fn keep(
    waiting: &Waiting<'_>,
    record: &Record,
    location: &str,
    files: &[Artifact],
    attempt: &Attempt,
) -> Result<Results, String> {
    let what = "the artifacts cannot be kept";
    let began = time::stamp(time::now());
    let id = &record.build.id;
    let objects = waiting.server.objects.of(Owner::of(&record.who));
    let (bucket, prefix) = split(location);
    let name = bucket_named(&bucket)?;
    let mut manifest = String::new();
    for file in files {
        let base = file.path.rsplit('/').next().unwrap_or(&file.path);
        let object = object_named(&format!("{prefix}{base}"))?;
        let path = attempt.workspace().join(&file.path);
        let kind = Attributes::of_type("application/octet-stream");
        // A container of an engine that is not the build's own may outlive the build, and still have the workspace.
        let known = known(file).filter(|_| waiting.server.settings.engine.is_none());
        let put = async || match &known {
            Some(known) => {
                objects
                    .put_known(&name, &object, &path, known, kind.clone())
                    .await
            }
            None => objects.put_file(&name, &object, &path, kind.clone()).await,
        };
        let made = waiting
            .until(what, put)
            .await
            .map_err(|error| format!("gs://{bucket}/{prefix}{base}: {error}"))?;
        let line = json!({
            "location": format!("gs://{bucket}/{prefix}{base}#{}", made.generation),
            "file_hash": [{ "file_hash": [
                { "type": 2, "value": file.md5 },
                { "type": 1, "value": file.sha256 },
            ] }],
        });
        manifest.push_str(&format!("{line}\n"));
    }
    let list = format!("{prefix}artifacts-{id}.json");
    let kind = Attributes::of_type("application/json");
    let object = object_named(&list)?;
    let put = || objects.put_bytes(&name, &object, manifest.clone(), kind.clone());
    let put = waiting.until(what, put).await;
    put.map_err(|error| format!("gs://{bucket}/{list}: {error}"))?;
    Ok(Results {
        artifact_manifest: Some(format!("gs://{bucket}/{list}")),
        num_artifacts: Some(files.len().to_string()),
        artifact_timing: Some(TimeSpan {
            start_time: Some(began),
            end_time: Some(time::stamp(time::now())),
        }),
        build_step_images: Vec::new(),
        build_step_outputs: Vec::new(),
        images: Vec::new(),
    })
}

/// Makes an object of the log. Until that is done, and after, the file itself is served under the object's name.
async fn keep_log(server: &Server, record: &Record) -> Result<(), String> {
    let id = &record.build.id;
    let logging = record
        .build
        .options
        .as_ref()
        .and_then(|options| options.logging.as_deref());
    let (Some(place), Some(log)) = (&record.build.logs_bucket, server.log(id, record.attempt))
    else {
        return Ok(());
    };
    if logging == Some("NONE") {
        return Ok(());
    }
    let (bucket, object) = log_object(place, id);
    // A log counts as well, but it is never refused.
    let objects = server.objects.of(Owner::unlimited(&record.who));
    let waiting = Waiting {
        server,
        id,
        log: None,
        most: LOG,
    };
    let project = &record.build.project_id;
    put_log((&waiting, &objects), project, &bucket, &object, &log)
        .await
        .map_err(|error| format!("the log could not be written to gs://{bucket}/{object}: {error}"))
}

async fn put_log(
    (waiting, objects): (&Waiting<'_>, &Objects),
    project: &str,
    bucket: &str,
    object: &str,
    log: &Path,
) -> Result<(), String> {
    let name = bucket_named(bucket)?;
    if objects.bucket(&name).await.is_err() && bucket == format!("{project}_cloudbuild") {
        let made = objects.create_bucket(&name, project).await;
        made.map_err(|error| error.to_string())?;
    }
    let kind = Attributes::of_type("text/plain; charset=utf-8");
    let object = object_named(object)?;
    let put = || objects.put_file(&name, &object, log, kind.clone());
    let put = waiting.until("the log cannot be kept", put).await;
    put.map(drop).map_err(|error| error.to_string())
}

/// What the build's process found out about a file.
fn known(file: &Artifact) -> Option<Known> {
    Some(Known {
        size: file.size,
        md5: BASE64.decode(&file.md5).ok()?.try_into().ok()?,
        crc32c: file.crc32c?,
    })
}

fn bucket_named(name: &str) -> Result<BucketName, String> {
    BucketName::new(name).map_err(|error| error.to_string())
}

fn object_named(name: &str) -> Result<ObjectName, String> {
    ObjectName::new(name).map_err(|error| error.to_string())
}
