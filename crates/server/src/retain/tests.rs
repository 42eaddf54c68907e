use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::commands::{Commands, Find};
use crate::executor::local::Local;
use crate::executor::request::ArtifactsRequest;
use crate::left::Left;
use crate::objects::{Attributes, BucketName, Contents, Limits, ObjectName, Objects};
use crate::prepare::Task;
use crate::server::Settings;
use crate::store::{Added, Most, Store};
use crate::wire::model::{Build, Source, Status, StorageSource};

const DAY: i64 = 24 * FRESH;
const MOST: Most = Most { all: 9, of_one: 9 };
const RATES: crate::limits::Rates = crate::limits::Rates {
    requests: 1,
    hooks: 1,
};

struct NoCommands;

impl Commands for NoCommands {
    fn read(&self, _: &[String], _: u32, _: Find<'_>) -> Result<Vec<std::ffi::OsString>, String> {
        Err("there are none".to_owned())
    }
}

async fn server(data: &Path, keep: Keep) -> Arc<Server> {
    let place = data.join("objects");
    let objects = Objects::open(&place, Contents::Here, Limits::default());
    Arc::new(Server {
        store: Store::open(data).unwrap(),
        objects: objects.await.unwrap(),
        executor: Box::new(Local {
            program: "/bin/false".into(),
            env: Vec::new(),
        }),
        commands: Arc::new(NoCommands),
        settings: Settings {
            images: Vec::new(),
            cpus: 1,
            memory: 1,
            build_memory: 1,
            open: true,
            from_elsewhere: true,
            git_credentials: None,
            containers: false,
            engine: None,
            keep,
            queue_length: MOST,
            keep_free: 0,
            quota: None,
            behind_proxy: false,
        },
        url: String::new(),
        builds: data.join("builds"),
        cache: data.join("cache"),
        images: data.join("images"),
        secrets: crate::secrets::Secrets::of(data),
        wake: Notify::new(),
        limits: crate::limits::Limits::new(RATES),
        requests: crate::requests::Requests::default(),
        waits: Mutex::new(BTreeMap::new()),
        left: Left::default(),
    })
}

fn bucket() -> BucketName {
    BucketName::new("p_cloudbuild").unwrap()
}

async fn put(server: &Server, name: &str, text: &str) -> i64 {
    let name = ObjectName::new(name).unwrap();
    let (bucket, kind) = (bucket(), Attributes::of_type("x"));
    let put = server
        .objects
        .put_bytes(&bucket, &name, text.to_owned(), kind);
    put.await.unwrap().generation
}

async fn is_there(server: &Server, name: &str) -> bool {
    let name = ObjectName::new(name).unwrap();
    server.objects.get(&bucket(), &name, None).await.is_ok()
}

/// A build with one attempt, a log, two artifacts and a source.
async fn build(server: &Server, id: &str, ended: Option<i64>) {
    let attempt = server.attempt(id, 1);
    fs::create_dir_all(attempt.workspace()).unwrap();
    fs::write(attempt.log(), "log\n").unwrap();
    fs::write(attempt.workspace().join("image"), vec![1; 1 << 20]).unwrap();
    let source = put(server, &format!("source/{id}.tgz"), "source").await;
    put(server, &format!("log-{id}.txt"), "log\n").await;
    let mut list = String::new();
    for name in ["one", "two"] {
        let generation = put(server, &format!("{id}/{name}"), "artifact").await;
        let location = format!("gs://p_cloudbuild/{id}/{name}#{generation}");
        list.push_str(&format!("{}\n", json!({ "location": location })));
    }
    put(server, &format!("{id}/artifacts-{id}.json"), &list).await;
    let status = ended.map_or(Status::Working, |_| Status::Failure);
    let record = Record {
        location: "global".to_owned(),
        created: 1,
        who: "ann".to_owned(),
        attempt: 1,
        cancelled: false,
        retry_of: None,
        build: Build {
            id: id.to_owned(),
            project_id: "p".to_owned(),
            status,
            finish_time: ended.map(time::stamp),
            logs_bucket: Some("gs://p_cloudbuild".to_owned()),
            source: Some(Source {
                storage_source: Some(StorageSource {
                    bucket: "p_cloudbuild".to_owned(),
                    object: format!("source/{id}.tgz"),
                    generation: Some(source.to_string()),
                }),
                git_source: None,
            }),
            ..Build::default()
        },
        request: Value::Null,
        task: Task {
            steps: Vec::new(),
            artifacts: Some(ArtifactsRequest {
                location: format!("gs://p_cloudbuild/{id}"),
                paths: Vec::new(),
            }),
            images: Vec::new(),
            secrets: BTreeMap::new(),
            git: None,
            timeout: 1.0,
            queue_ttl: 1.0,
            cpus: 1,
            priority: 0,
        },
    };
    assert_eq!(server.store.add(&record, MOST).unwrap(), Added::Waits);
}

/// What is left of a build: on the list, in its directory, in the bucket.
async fn left(server: &Server, id: &str) -> Vec<String> {
    let mut left = Vec::new();
    if server.store.get(id).unwrap().is_some() {
        left.push("list".to_owned());
    }
    if server.builds.join(id).exists() {
        left.push("directory".to_owned());
    }
    for name in [
        format!("source/{id}.tgz"),
        format!("log-{id}.txt"),
        format!("{id}/one"),
        format!("{id}/two"),
        format!("{id}/artifacts-{id}.json"),
    ] {
        if is_there(server, &name).await {
            left.push(name);
        }
    }
    left
}

fn by_age() -> Keep {
    Keep {
        age: Some(Duration::from_secs(86_400)),
        bytes: None,
    }
}

#[tokio::test]
async fn old_builds_go_with_all_that_is_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), by_age()).await;
    server.objects.create_bucket(&bucket(), "p").await.unwrap();
    let now = 10 * DAY;
    for id in ["old", "pinned", "alive", "again", "shared"] {
        build(&server, id, Some(now - 2 * DAY)).await;
    }
    build(&server, "new", Some(now - DAY / 2)).await;
    build(&server, "running", None).await;
    assert!(server.store.pin("pinned", true).unwrap());
    // A process that has not ended holds the lock.
    let lock = fs::File::create(server.attempt("alive", 1).dir.join("alive")).unwrap();
    lock.lock().unwrap();
    // A build that is done again by one that waits, and one whose source another build has.
    for (id, of, source) in [
        ("retry", Some("again"), None),
        ("other", None, Some("shared")),
    ] {
        let from = server.store.get(source.or(of).unwrap()).unwrap().unwrap();
        let mut record = server.store.get("running").unwrap().unwrap();
        record.build.id = id.to_owned();
        record.retry_of = of.map(str::to_owned);
        record.build.source = from.build.source;
        assert_eq!(server.store.add(&record, MOST).unwrap(), Added::Waits);
    }
    // Somebody put something else in the place of an artifact.
    put(&server, "old/two", "of somebody").await;

    pass(&server, now).await.unwrap();
    assert_eq!(left(&server, "old").await, ["old/two"]);
    assert_eq!(left(&server, "shared").await, ["source/shared.tgz"]);
    for id in ["pinned", "alive", "again", "new", "running"] {
        assert_eq!(left(&server, id).await.len(), 7, "{id}");
    }
    drop(lock);
    pass(&server, now).await.unwrap();
    assert!(left(&server, "alive").await.is_empty());
    assert!(server.store.condemned().unwrap().is_empty());
}

#[tokio::test]
async fn a_removal_that_was_cut_off_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let leaves;
    {
        let server = server(dir.path(), by_age()).await;
        server.objects.create_bucket(&bucket(), "p").await.unwrap();
        build(&server, "old", Some(1)).await;
        let record = server.store.get("old").unwrap().unwrap();
        leaves = serde_json::to_string(&Leaves::of(&record)).unwrap();
        assert!(server.store.condemn("old", &leaves, "test").unwrap());
        assert!(!server.store.condemn("old", &leaves, "test").unwrap());
        let name = ObjectName::new("old/one").unwrap();
        let conditions = crate::objects::Conditions::default();
        let bucket = bucket();
        let deleted = server.objects.delete(&bucket, &name, None, &conditions);
        deleted.await.unwrap();
        fs::remove_dir_all(server.attempt("old", 1).workspace()).unwrap();
    }
    // Also by a server that keeps all builds.
    let server = server(dir.path(), Keep::default()).await;
    assert_eq!(left(&server, "old").await.len(), 5);
    pass(&server, 10 * DAY).await.unwrap();
    assert!(left(&server, "old").await.is_empty());
    assert!(server.store.condemned().unwrap().is_empty());
}

#[tokio::test]
async fn the_oldest_go_while_there_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep {
        age: None,
        bytes: Some(5 << 19),
    };
    let server = server(dir.path(), keep).await;
    server.objects.create_bucket(&bucket(), "p").await.unwrap();
    let now = 10 * DAY;
    for (id, age) in [("a", 5), ("b", 4), ("c", 3), ("d", 2)] {
        build(&server, id, Some(now - age * DAY)).await;
    }
    build(&server, "fresh", Some(now - 1)).await;
    server.store.pin("b", true).unwrap();
    pass(&server, now).await.unwrap();
    let mut stay = Vec::new();
    for id in ["a", "b", "c", "d", "fresh"] {
        if !left(&server, id).await.is_empty() {
            stay.push(id);
        }
    }
    // Two of more than a MiB each fit: the pinned one and the one that has just ended.
    assert_eq!(stay, ["b", "fresh"]);
}

#[tokio::test]
async fn what_an_engine_left_is_removed_when_that_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path(), Keep::default()).await;
    server.objects.create_bucket(&bucket(), "p").await.unwrap();
    for (id, ended) in [("old", Some(1)), ("alive", Some(1)), ("running", None)] {
        build(&server, id, ended).await;
        let containers = server.attempt(id, 1).engine().join("containers");
        fs::create_dir_all(&containers).unwrap();
        fs::write(containers.join("config.json"), "SECRET=s").unwrap();
    }
    let is_there = |id| server.attempt(id, 1).engine().exists();
    let lock = fs::File::create(server.attempt("alive", 1).dir.join("alive")).unwrap();
    lock.lock().unwrap();
    engines::find(&server).unwrap();
    engines::pass(&server).await.unwrap();
    assert_eq!(
        ["old", "alive", "running"].map(is_there),
        [false, true, true]
    );
    assert!(server.left.all().is_empty());
    drop(lock);
    let alive = server.attempt("alive", 1);
    clean(&server, &alive, "alive").await;
    assert!(!is_there("alive"));
    assert!(server.left.all().is_empty());
}
