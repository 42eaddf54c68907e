//! Shared caches in a directory and behind a loopback server that speaks as S3 and Google Cloud Storage do, and fails as they can.

use std::time::{Duration, Instant};

use kiln_share::{CHUNK_MAX, ErrorKind, Key, Options, Record, Share};
use kiln_testkit::{Bucket, Trouble};

const SECRET: &str = "a-secret-access-key";

fn key() -> Key {
    Key::new(b"the key of this test").expect("a key")
}

fn s3(url: &str) -> Options {
    let settings = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "nowhere"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    Options {
        url: "s3://bucket/a/prefix".to_owned(),
        key: Some(key()),
        settings: owned(&settings),
        patience: Duration::from_secs(20),
        ..Options::default()
    }
}

fn gs(url: &str) -> Options {
    let account = format!(
        "{{\"gcs_base_url\":\"{url}\",\"disable_oauth\":true,\"client_email\":\"\",\"private_key\":\"\",\"private_key_id\":\"\"}}"
    );
    Options {
        url: "gs://bucket/a/prefix".to_owned(),
        settings: owned(&[("GOOGLE_SERVICE_ACCOUNT_KEY", &account)]),
        ..s3(url)
    }
}

fn az(url: &str) -> Options {
    let settings = [
        ("AZURE_STORAGE_ENDPOINT", url),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "YS1zZWNyZXQtYWNjZXNzLWtleQ=="),
    ];
    Options {
        url: "az://bucket/a/prefix".to_owned(),
        settings: owned(&settings),
        ..s3(url)
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = settings.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn open(options: &Options) -> Share {
    Share::open(options, true).expect("a store")
}

/// Two chunks and a bit.
fn content() -> Vec<u8> {
    (0..CHUNK_MAX * 2 + 77).map(|at| (at % 251) as u8).collect()
}

fn put(share: &Share) -> Record {
    let chunks = share
        .store(&mut &content()[..], &mut |_| true)
        .expect("stored");
    assert_eq!(chunks.len(), 3);
    let record = Record {
        facts: serde_json::json!({ "title": "x" }),
        files: [("fs".to_owned(), chunks)].into(),
    };
    share.publish("layers", "one", &record).expect("published");
    record
}

fn round_trip(options: &Options) {
    let share = open(options);
    assert!(share.find("layers", "one").expect("an answer").is_none());
    assert!(share.newest("layers", 9).expect("an answer").is_empty());
    let record = put(&share);
    assert!(share.has("layers", "one").expect("an answer"));
    assert_eq!(share.newest("layers", 9).expect("an answer"), ["one"]);
    let other = open(options);
    let found = other.find("layers", "one").expect("an answer");
    assert_eq!(found.as_ref(), Some(&record));
    let bytes = other.fetch_whole(&record.files["fs"]).expect("fetched");
    assert!(bytes == content());
}

#[test]
fn all_kinds_of_stores_keep_what_they_get() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}/new", directory.path().display());
    for key in [None, Some(key())] {
        let url = format!("{url}-{}", key.is_some());
        round_trip(&Options {
            url,
            key,
            ..Options::default()
        });
    }
    for make in [s3, gs, az] {
        let bucket = Bucket::start();
        round_trip(&make(&bucket.url()));
        let names = bucket.names();
        assert!(
            names.contains(&"bucket/a/prefix/kiln1/layers/one".to_owned()),
            "{names:?}"
        );
        let requests = bucket.requests().join("\n");
        assert!(
            !requests.contains(SECRET) && !requests.contains("signature"),
            "{requests}"
        );
    }
}

#[test]
fn what_is_there_is_not_sent_again_unless_it_was_found_damaged() {
    let bucket = Bucket::start();
    let share = open(&s3(&bucket.url()));
    let record = put(&share);
    let puts = |bucket: &Bucket| {
        let requests = bucket.requests();
        requests
            .iter()
            .filter(|r| r.starts_with("PUT") && r.contains("chunks"))
            .count()
    };
    assert_eq!(puts(&bucket), 3);
    put(&share);
    assert_eq!(puts(&bucket), 3);
    bucket.trouble(Some(Trouble::Flip));
    let error = share.fetch_whole(&record.files["fs"]).expect_err("flipped");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    bucket.trouble(None);
    put(&share);
    assert!(puts(&bucket) > 3);
}

#[test]
fn every_trouble_is_an_error_that_names_the_object() {
    let bucket = Bucket::start();
    let record = put(&open(&s3(&bucket.url())));
    let chunks = &record.files["fs"];
    let name = &chunks[0].sha256;
    use ErrorKind::{Damaged, Unavailable};
    for (trouble, kinds) in [
        (Trouble::Status(403), &[Unavailable][..]),
        (Trouble::Status(401), &[Unavailable]),
        (Trouble::Status(500), &[Unavailable]),
        (Trouble::Status(503), &[Unavailable]),
        (Trouble::Status(301), &[Unavailable]),
        (Trouble::Cut, &[Unavailable, Damaged]),
        (Trouble::Flip, &[Damaged]),
        (
            Trouble::Replace(b"<html>Please log in</html>".to_vec()),
            &[Damaged],
        ),
        (Trouble::Replace(vec![0; CHUNK_MAX + 1]), &[Damaged]),
    ] {
        bucket.trouble(Some(trouble.clone()));
        let share = open(&s3(&bucket.url()));
        let error = share.fetch_whole(chunks).expect_err("trouble");
        assert!(
            kinds.contains(&error.kind()),
            "{trouble:?}: {:?} {error}",
            error.kind()
        );
        assert!(
            error.object().contains(name.as_str()),
            "{trouble:?}: {error}"
        );
        let error = share.find("layers", "one").expect_err("trouble");
        assert!(
            kinds.contains(&error.kind()),
            "{trouble:?}: {:?} {error}",
            error.kind()
        );
        assert_eq!(error.object(), "layers/one", "{trouble:?}");
        assert!(!error.to_string().contains(SECRET), "{error}");
        bucket.trouble(None);
    }
    let gone = bucket
        .names()
        .into_iter()
        .find(|n| n.ends_with(name.as_str()));
    bucket.remove(&gone.expect("a chunk"));
    let error = open(&s3(&bucket.url()))
        .fetch_whole(chunks)
        .expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Missing);
}

#[test]
fn a_store_that_does_not_answer_is_given_up_soon() {
    let bucket = Bucket::start();
    bucket.trouble(Some(Trouble::Silence));
    let options = Options {
        patience: Duration::from_millis(100),
        ..s3(&bucket.url())
    };
    let share = open(&options);
    let began = Instant::now();
    for _ in 0..20 {
        let error = share.find("layers", "one").expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert!(share.is_given_up());
    // Three objects, each within its limit of ten times the patience, and nothing for the others.
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    drop(bucket);
    let share = open(&options);
    let error = share.find("layers", "one").expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = format!("file://{}", directory.path().display());
    let good = s3("http://127.0.0.1:1");
    let with = |url: &str| Options {
        url: url.to_owned(),
        ..good.clone()
    };
    let mut wrong: Vec<Options> = [
        "",
        "/a",
        "file://relative",
        "s3://",
        "s3:///x",
        "gs://",
        "http://x.example/",
        "s3://user@b/x",
        "s3://b/x?y=z",
    ]
    .map(with)
    .into();
    for url in ["s3://b/x", "gs://b/x"] {
        wrong.push(Options {
            key: None,
            ..with(url)
        });
    }
    let mut plain = good.clone();
    plain.settings.retain(|(name, _)| name != "AWS_ALLOW_HTTP");
    wrong.push(plain);
    for options in wrong {
        let error = Share::open(&options, true).err();
        let kind = error.as_ref().map(kiln_share::Error::kind);
        assert_eq!(kind, Some(ErrorKind::Config), "{options:?}: {error:?}");
    }
    assert!(Share::open(&with(&file), true).is_ok());
    let absent = with(&format!("{file}/absent"));
    let error = Share::open(&absent, false).err().expect("absent");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let shown = format!("{good:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}
