//! Times of an ext4 file system, judged by e2fsck and debugfs.

mod outsiders;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use kiln_image::ErrorKind;
use kiln_image::ext4::settle_times;
use outsiders::{run, text};

const EPOCH: i64 = 1_700_000_000;
const UUID: &str = "5b7f3d3c-ad52-8be2-8596-ec94c4a63c25";

/// A tree; what was looked at and changed when depends on the moment.
fn tree(root: &Path) {
    let home = root.join("contestant");
    fs::create_dir_all(home.join("deep/er")).unwrap();
    for number in 0..300 {
        fs::write(
            home.join(format!("deep/file {number}")),
            vec![7; number * 50],
        )
        .unwrap();
    }
    symlink("deep", home.join("link")).unwrap();
    fs::hard_link(home.join("deep/file 9"), home.join("other name")).unwrap();
    let old = File::options().write(true).open(home.join("deep/file 1"));
    old.unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(1_234_567_890))
        .unwrap();
}

/// The file system of a tree that was made now.
fn made(dir: &Path, name: &str, options: &[&str]) -> (String, File) {
    let root = dir.join(format!("{name}.tree"));
    tree(&root);
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(48 << 20).unwrap();
    let fixed =
        format!("root_owner=0:0,hash_seed={UUID},lazy_itable_init=1,lazy_journal_init=1,nodiscard");
    let mut command = outsiders::tool("mke2fs");
    command.env("E2FSPROGS_FAKE_TIME", EPOCH.to_string());
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-U",
        UUID,
        "-E",
        &fixed,
        "-d",
        text(&root),
    ]);
    let made = command.args(options).arg(&path).output().unwrap();
    assert!(made.status.success(), "{options:?}: {made:?}");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    (text(&path).to_owned(), file)
}

fn debugfs(image: &str, question: &str) -> String {
    run("debugfs", ["-R", question, image])
}

#[test]
fn two_file_systems_of_the_same_files_are_the_same_whenever_they_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 7] = [
        &["-b", "4096"],
        &["-b", "1024"],
        &["-b", "4096", "-I", "128"],
        &["-b", "4096", "-I", "1024", "-N", "20000"],
        &["-b", "4096", "-O", "^metadata_csum,^64bit"],
        &["-b", "4096", "-O", "^metadata_csum,uninit_bg"],
        &["-b", "4096", "-O", "metadata_csum_seed,^flex_bg"],
    ];
    let all = |name: &str| {
        ways.map(|options| made(dir.path(), &format!("{name}{}", options.concat()), options))
    };
    let first = all("a");
    // The clock of the file systems has whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    for ((a, one), (b, other)) in first.iter().zip(&all("b")) {
        settle_times(one, EPOCH).unwrap();
        settle_times(other, EPOCH).unwrap();
        run("cmp", [a, b]);
        run("e2fsck", ["-fn", a]);
        for (path, modified) in [
            ("", EPOCH),
            ("link", EPOCH),
            ("deep/file 1", 1_234_567_890),
            ("deep/file 299", EPOCH),
            ("other name", EPOCH),
        ] {
            let said = debugfs(a, &format!("stat \"/contestant/{path}\""));
            for (what, seconds) in [("atime", EPOCH), ("ctime", EPOCH), ("mtime", modified)] {
                let line = format!("{what}: 0x{seconds:08x}");
                assert!(said.contains(&line), "{a} {path}: {line}\n{said}");
            }
        }
        settle_times(one, EPOCH).unwrap();
        run("cmp", [a, b]);
    }
}

#[test]
fn seconds_beyond_2038_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = made(dir.path(), "late", &["-b", "4096"]);
    settle_times(&file, 5_000_000_000).unwrap();
    run("e2fsck", ["-fn", &path]);
    let said = debugfs(&path, "stat /contestant/deep");
    assert!(said.contains("ctime: 0x2a05f200:00000001"), "{said}");
    let said = debugfs(&path, "stat <2>");
    assert!(said.contains("ctime: 0x2a05f200:00000001"), "{said}");
}

/// The root's own mke2fs has made it, and that can be anything.
#[test]
fn what_is_no_such_file_system_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, file) = made(dir.path(), "whole", &["-b", "4096"]);
    let mut whole = vec![0; 8192];
    file.read_exact_at(&mut whole, 0).unwrap();
    for (at, bytes) in [
        (0x38, [0; 4]),
        (0, [0xff; 4]),
        (0x4, [0xff; 4]),
        (0x18, [0xff; 4]),
        (0x20, [0; 4]),
        (0x20, [1, 0, 0, 0]),
        (0x28, [0xff; 4]),
        (0x58, [0xff; 4]),
        (0x58, [0; 4]),
        (0xfc, [0, 0, 0xff, 0xff]),
        (0x14, [0xff; 4]),
    ] {
        file.write_all_at(&whole, 0).unwrap();
        file.write_all_at(&bytes, 1024 + at).unwrap();
        let error = settle_times(&file, EPOCH).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Step, "{at:#x}: {error}");
    }
    // A group whose inodes would be anywhere.
    for (at, bytes) in [(0x8, [0xff; 4]), (0x28, [0xff; 4]), (0x1c, [0xff; 4])] {
        file.write_all_at(&whole, 0).unwrap();
        file.write_all_at(&bytes, 4096 + at).unwrap();
        let error = settle_times(&file, EPOCH).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Step, "{at:#x}: {error}");
    }
    let short = tempfile::tempfile().unwrap();
    for length in [0, 1024, 2000, 4096, 1 << 20] {
        short.set_len(length).unwrap();
        let error = settle_times(&short, EPOCH).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Step, "{length}: {error}");
    }
}
