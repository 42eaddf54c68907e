//! What a build leaves on the disk and in buckets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_sandbox::{Sandbox, remove_tree};
use serde::{Deserialize, Serialize};

use crate::objects::{ApiError, BucketName, Conditions, ObjectName};
use crate::server::{Server, log_object, split};
use crate::store::Record;
use crate::wire::model::StorageSource;

/// The longest list of artifacts that is read.
const LONGEST_LIST: u64 = 64 << 20;

/// What a build leaves beside its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaves {
    /// Bucket and name of the log.
    log: Option<(String, String)>,
    /// Where its artifacts went, as `gs://BUCKET/PREFIX`.
    artifacts: Option<String>,
    /// The upload that it was made from.
    source: Option<StorageSource>,
}

/// An object, and the generation of it if that counts.
type Place = (String, String, Option<i64>);

impl Leaves {
    pub(super) fn of(record: &Record) -> Leaves {
        let build = &record.build;
        let staged = format!("{}_cloudbuild", build.project_id);
        let source = build.source.as_ref();
        let source = source.and_then(|source| source.storage_source.clone());
        Leaves {
            log: build
                .logs_bucket
                .as_deref()
                .map(|place| log_object(place, &build.id)),
            artifacts: record
                .task
                .artifacts
                .as_ref()
                .map(|artifacts| artifacts.location.clone()),
            // Where clients put what is for one build. A source of another place is somebody's own.
            source: source
                .filter(|source| source.bucket == staged && source.object.starts_with("source/")),
        }
    }

    /// The bytes that all of it holds.
    pub(super) async fn measure(&self, server: &Server, id: &str) -> Result<u64, String> {
        let dir = server.builds.join(id);
        let walk = tokio::task::spawn_blocking(move || held(&dir)).await;
        let mut bytes = walk.map_err(|error| error.to_string())?;
        for place in self.places(server, id).await? {
            let (bucket, name) = names(&place)?;
            match server.objects.get(&bucket, &name, place.2).await {
                Ok(object) => bytes += object.size,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(bytes)
    }

    /// Removes all of it. Can be done again.
    pub(super) async fn remove(&self, server: &Server, id: &str) -> Result<(), String> {
        for place in self.places(server, id).await? {
            let is_source = self
                .source
                .as_ref()
                .is_some_and(|source| (&source.bucket, &source.object) == (&place.0, &place.1));
            if is_source {
                let used = server.store.is_source(&place.0, &place.1);
                if used.map_err(|error| error.to_string())? {
                    continue;
                }
            }
            let (bucket, name) = names(&place)?;
            let deleted = server
                .objects
                .delete(&bucket, &name, place.2, &Conditions::default())
                .await;
            match deleted {
                Err(error) if !is_gone(&error) => {
                    return Err(format!("gs://{}/{}: {error}", place.0, place.1));
                }
                _ => {}
            }
        }
        let dir = server.builds.join(id);
        let removed = tokio::task::spawn_blocking(move || remove_dir(&dir)).await;
        let removed = removed.map_err(|error| error.to_string())?;
        removed.map_err(|error| format!("{}: {error}", server.builds.join(id).display()))
    }

    /// The objects; the list of artifacts is behind the artifacts, as it tells of them.
    async fn places(&self, server: &Server, id: &str) -> Result<Vec<Place>, String> {
        let mut places = Vec::new();
        if let Some(location) = &self.artifacts {
            let (bucket, prefix) = split(location);
            let list = (bucket, format!("{prefix}artifacts-{id}.json"), None);
            let (name, object) = names(&list)?;
            match server.objects.open_object(&name, &object, None).await {
                Ok(opened) => {
                    match opened.bytes(LONGEST_LIST).await {
                        Ok(text) => places.extend(listed(&text, &list.0, &prefix)),
                        // A list that is lost for good must not keep its build for ever.
                        Err(error) if error.is_damaged() => {}
                        Err(error) => return Err(error.to_string()),
                    }
                    places.push(list);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        if let Some((bucket, name)) = &self.log {
            places.push((bucket.clone(), name.clone(), None));
        }
        if let Some(source) = &self.source {
            let generation = source.generation.as_ref();
            let generation = generation.and_then(|number| number.parse().ok());
            places.push((source.bucket.clone(), source.object.clone(), generation));
        }
        Ok(places)
    }
}

/// The artifacts of a list. Lines that lead elsewhere than the build's own place are not its server's: anybody may write there.
fn listed(text: &[u8], bucket: &str, prefix: &str) -> Vec<Place> {
    let begin = format!("gs://{bucket}/{prefix}");
    let lines = text.split(|byte| *byte == b'\n');
    let read = |line: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(line).ok()?;
        let (place, generation) = value["location"].as_str()?.rsplit_once('#')?;
        let base = place.strip_prefix(&begin)?;
        let fits = !base.is_empty() && !base.contains('/');
        let generation = generation.parse().ok()?;
        fits.then(|| {
            (
                bucket.to_owned(),
                format!("{prefix}{base}"),
                Some(generation),
            )
        })
    };
    lines.filter_map(read).collect()
}

fn names((bucket, name, _): &Place) -> Result<(BucketName, ObjectName), String> {
    let text = |error: ApiError| error.to_string();
    Ok((
        BucketName::new(bucket).map_err(text)?,
        ObjectName::new(name).map_err(text)?,
    ))
}

fn is_gone(error: &ApiError) -> bool {
    error.reason() == "notFound"
}

/// Bytes on the disk below a directory. What a build nests deeper than paths reach is not counted.
fn held(dir: &Path) -> u64 {
    let mut bytes = 0;
    below(dir, |entry| {
        // Of the entry itself: links are not followed. What has another name is held by all of its names, or is an object, too.
        bytes += entry
            .metadata()
            .map_or(0, |meta| meta.blocks() * 512 / meta.nlink().max(1));
    });
    bytes
}

/// Shows all entries below a directory that can be read, a directory before what is in it. Builds nest deeper than a stack is.
fn below(dir: &Path, mut see: impl FnMut(&fs::DirEntry)) {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        for entry in entries.flatten() {
            see(&entry);
            // The type of the entry itself: what a link leads to is not looked at.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
}

/// Removes a directory, also if directories of its source may not be written, or containers made some that are another
/// id's of the sandbox.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), String> {
    if remove_tree(dir).is_ok() {
        return Ok(());
    }
    let writable = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    // What stays closed is told of by the removal.
    drop(writable(dir));
    below(dir, |entry| {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            drop(writable(&entry.path()));
        }
    });
    if remove_tree(dir).is_ok() {
        return Ok(());
    }
    let sandbox = Sandbox::detect().map_err(|error| error.to_string())?;
    sandbox
        .remove_trees(&[dir.to_owned()])
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_only_what_is_beside_it() {
        let text = b"{\"location\":\"gs://b/p/x.img#7\"}\n{\"location\":\"gs://b/p/../y#7\"}\n\
            {\"location\":\"gs://c/p/x#7\"}\n{\"location\":\"gs://b/p/x\"}\nrubbish\n{\"location\":7}\n";
        let found = listed(text, "b", "p/");
        assert_eq!(found, [("b".to_owned(), "p/x.img".to_owned(), Some(7))]);
    }

    #[test]
    fn closed_directories_go_and_targets_of_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let build = dir.path().join("build");
        fs::create_dir_all(build.join("closed/in")).unwrap();
        fs::write(build.join("closed/in/file"), vec![1; 5000]).unwrap();
        std::os::unix::fs::symlink(&kept, build.join("closed/link")).unwrap();
        assert!(held(&build) >= 5000);
        for closed in ["closed/in", "closed"] {
            let mode = fs::Permissions::from_mode(0o500);
            fs::set_permissions(build.join(closed), mode).unwrap();
        }
        // Deeper than paths, descriptors and stacks reach.
        let deep = std::process::Command::new("perl")
            .args([
                "-e",
                "for (1..20000) { mkdir \"d\" or die; chdir \"d\" or die }",
            ])
            .current_dir(&build)
            .status();
        assert!(deep.unwrap().success());
        assert!(held(&build) >= 5000);
        remove_dir(&build).unwrap();
        remove_dir(&build).unwrap();
        assert!(!build.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "x");
    }
}
