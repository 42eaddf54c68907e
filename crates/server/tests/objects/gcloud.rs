//! The real `gcloud storage`, told what `kiln gcloud-env` says. Where there is none, `replay.rs` sends what it sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use kiln_server::gcloud::{Server as Address, Settings};
use kiln_server::objects::{BucketName, Limits};

use crate::harness::{Place, Server, pattern};
use crate::replay::Recorder;

/// What a session with the command line finds on the server.
pub(crate) fn prepare(server: &Server, directory: &Path) {
    let log = directory.join("growing.log");
    fs::write(&log, "one\ntwo\nthr").unwrap();
    server.logs.add("kiln-logs", "log-1.txt", &log);
    let bucket = BucketName::new("kiln-logs").unwrap();
    server
        .wait(server.objects.create_bucket(&bucket, "demo-proj"))
        .unwrap();
}

/// The command line, in a home of its own.
struct Gcloud {
    program: PathBuf,
    home: PathBuf,
    variables: Vec<(String, String)>,
}

impl Gcloud {
    fn run(&self, words: &[&str]) -> Output {
        self.command(&[&["storage"], words].concat())
    }

    fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.variables.iter().cloned());
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.home);
        command.env("CLOUDSDK_CONFIG", self.home.join("config"));
        command
            .env("CLOUDSDK_STORAGE_PROCESS_COUNT", "1")
            .env("CLOUDSDK_STORAGE_THREAD_COUNT", "1");
        command.current_dir(&self.home).args(words);
        command.output().unwrap()
    }

    /// What a command that succeeds prints.
    fn prints(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gcloud storage {words:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join("gcloud"));
    places.find(|place| place.is_file())
}

#[test]
fn the_command_line_stores_lists_copies_and_removes() {
    let Some(program) = installed() else {
        assert!(
            std::env::var_os("KILN_REQUIRE_GCLOUD").is_none(),
            "gcloud is not on this machine"
        );
        // `replay.rs` sends what it sent; the test command says so.
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let server = Server::with(
        Place::Here,
        directory.path(),
        Limits::default(),
        Some(Arc::clone(&recorder)),
    );
    prepare(&server, directory.path());
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    let certificate = home.join("ca.pem");
    let address = Address::new(&server.url()).unwrap();
    fs::write(&certificate, address.certificate().unwrap()).unwrap();
    let settings = Settings {
        server: address,
        project: "demo-proj".to_owned(),
        certificate,
        token: None,
    };
    let gcloud = Gcloud {
        program,
        home,
        variables: settings.variables(),
    };
    session(&gcloud);
    if std::env::var_os("KILN_RECORD_GCLOUD").is_some() {
        recorder.save();
    }
}

fn session(gcloud: &Gcloud) {
    let home = &gcloud.home;
    let (small, big) = (b"small \xc3\xbc\n".to_vec(), pattern(9 << 20));
    fs::write(home.join("small.txt"), &small).unwrap();
    fs::write(home.join("big.bin"), &big).unwrap();
    fs::create_dir_all(home.join("tree/sub")).unwrap();
    fs::write(home.join("tree/a b.txt"), "a").unwrap();
    fs::write(home.join("tree/sub/ü.txt"), "u").unwrap();
    gcloud.prints(&["buckets", "create", "gs://kiln-test"]);
    up(gcloud);
    down(gcloud, &small, &big);
    let copied = gcloud.prints(&[
        "cp",
        "gs://kiln-test/big.bin",
        "gs://kiln-test/copies/big.bin",
    ]);
    assert_eq!(copied, "");
    gcloud.prints(&[
        "mv",
        "gs://kiln-test/copies/big.bin",
        "gs://kiln-test/copies/moved.bin",
    ]);
    assert_eq!(
        gcloud.prints(&["ls", "gs://kiln-test/copies"]),
        "gs://kiln-test/copies/moved.bin\n"
    );
    let size = [
        "objects",
        "describe",
        "gs://kiln-test/copies/moved.bin",
        "--format=value(size)",
    ];
    assert_eq!(gcloud.prints(&size).trim(), big.len().to_string());
    gcloud.prints(&[
        "objects",
        "update",
        "gs://kiln-test/copies/moved.bin",
        "--content-type=a/b",
    ]);
    let kind = [
        "objects",
        "describe",
        "gs://kiln-test/copies/moved.bin",
        "--format=value(content_type)",
    ];
    assert_eq!(gcloud.prints(&kind).trim(), "a/b");
    assert_eq!(
        gcloud.prints(&["cat", "gs://kiln-logs/log-1.txt"]),
        "one\ntwo\n"
    );
    let log = gcloud.command(&["builds", "log", "1", "--region=global"]);
    let text = String::from_utf8_lossy(&log.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("---")).collect();
    assert_eq!(lines, ["one", "two"], "{log:?}");
    let missing = gcloud.run(&["cat", "gs://kiln-test/missing"]);
    assert_eq!(missing.status.code(), Some(1));
    gcloud.prints(&["rm", "gs://kiln-test/copies/moved.bin"]);
    gcloud.prints(&["rm", "-r", "gs://kiln-test"]);
    let gone = gcloud.run(&["ls", "gs://kiln-test"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}

fn up(gcloud: &Gcloud) {
    gcloud.prints(&["cp", "small.txt", "gs://kiln-test/dir/small name.txt"]);
    gcloud.prints(&["cp", "big.bin", "gs://kiln-test"]);
    gcloud.prints(&["cp", "-r", "tree", "gs://kiln-test"]);
    // Over what is there.
    gcloud.prints(&["cp", "small.txt", "gs://kiln-test/dir/small name.txt"]);
    let list = gcloud.prints(&["ls", "gs://kiln-test"]);
    assert_eq!(
        list,
        "gs://kiln-test/big.bin\ngs://kiln-test/dir/\ngs://kiln-test/tree/\n"
    );
    let all = gcloud.prints(&["ls", "gs://kiln-test/**"]);
    assert_eq!(all.lines().count(), 4, "{all}");
    assert!(all.contains("gs://kiln-test/tree/sub/ü.txt"), "{all}");
}

fn down(gcloud: &Gcloud, small: &[u8], big: &[u8]) {
    let home = &gcloud.home;
    assert_eq!(
        gcloud
            .prints(&["cat", "gs://kiln-test/dir/small name.txt"])
            .as_bytes(),
        small
    );
    gcloud.prints(&["cp", "gs://kiln-test/big.bin", "down.bin"]);
    assert!(fs::read(home.join("down.bin")).unwrap() == big);
    fs::create_dir(home.join("down")).unwrap();
    gcloud.prints(&["cp", "-r", "gs://kiln-test/tree", "down"]);
    assert_eq!(
        fs::read_to_string(home.join("down/tree/a b.txt")).unwrap(),
        "a"
    );
    assert_eq!(
        fs::read_to_string(home.join("down/tree/sub/ü.txt")).unwrap(),
        "u"
    );
}
