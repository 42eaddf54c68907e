//! Layers of every kind of inode go there and back; hostile archives do not.
//!
//! These tests need root: they make device nodes and give files away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat,
};

use super::{pack, unpack};

fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("a file system with attributes");
}

/// File capabilities: version 2, one bit; the value has a newline byte, which simple readers of records stumble over.
const CAPABILITY: &[u8] = &[
    1, 0, 0, 2, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn layer(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("usr/bin")).expect("directories");
    fs::write(at("usr/bin/ping"), b"binary").expect("a file");
    attribute(&at("usr/bin/ping"), "security.capability", CAPABILITY);
    fs::write(at("usr/bin/su"), vec![7; 1_000_000]).expect("a file");
    lchown(at("usr/bin/su"), Some(12), Some(65_534)).expect("root");
    fs::set_permissions(at("usr/bin/su"), fs::Permissions::from_mode(0o6711)).expect("a mode");
    fs::hard_link(at("usr/bin/su"), at("sudo")).expect("a link");
    symlink("/etc/../nowhere", at("usr/link")).expect("a link");
    lchown(at("usr/link"), Some(5), Some(6)).expect("root");
    for name in ["gone", "usr/gone-too"] {
        let node = FileType::CharacterDevice;
        mknodat(CWD, at(name), node, Mode::empty(), makedev(0, 0)).expect("root");
    }
    fs::create_dir(at("opaque")).expect("a directory");
    attribute(&at("opaque"), "user.overlay.opaque", b"y");
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
    drop(UnixListener::bind(at("socket")).expect("a socket"));
    let long = format!("{0}/{0}", "n".repeat(200));
    fs::create_dir_all(at(&long)).expect("long names");
    let odd = std::ffi::OsStr::from_bytes(b"a\xff\nb=c ");
    fs::write(root.join(&long).join(odd), b"").expect("an odd name");
    let time = UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    for name in ["usr/bin/su", "opaque"] {
        File::open(at(name))
            .and_then(|f| f.set_modified(time))
            .expect("a time");
    }
    let old = UNIX_EPOCH - Duration::from_millis(1_500);
    File::open(at("usr/bin/ping"))
        .and_then(|f| f.set_modified(old))
        .expect("a time");
    fs::set_permissions(at("usr"), fs::Permissions::from_mode(0o2750)).expect("a mode");
    fs::set_permissions(root, fs::Permissions::from_mode(0o751)).expect("a mode");
}

/// Everything that a layer is, by path.
fn facts(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    let mut inodes: BTreeMap<u64, String> = BTreeMap::new();
    while let Some(path) = pending.pop() {
        let m = fs::symlink_metadata(&path).expect("metadata");
        let name = path
            .strip_prefix(root)
            .expect("below")
            .as_os_str()
            .as_bytes()
            .escape_ascii()
            .to_string();
        let kind = m.file_type();
        let content = if kind.is_file() {
            format!("{:?}", blake(&fs::read(&path).expect("content")))
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).expect("a link"))
        } else {
            format!("{} {}", kind.is_socket(), kind.is_fifo())
        };
        if kind.is_dir() {
            let children = fs::read_dir(&path).expect("a directory");
            let mut children: Vec<_> = children.map(|e| e.expect("an entry").path()).collect();
            children.sort();
            pending.extend(children);
        }
        let mut list = vec![0; 4096];
        let length = llistxattr(&path, &mut list[..]).expect("attributes");
        let mut names: Vec<String> = list[..length]
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(|n| {
                let name = String::from_utf8_lossy(n).into_owned();
                let mut value = vec![0; 4096];
                let length = lgetxattr(&path, &*name, &mut value[..]).expect("a value");
                format!("{name}={}", hex::encode(&value[..length]))
            })
            .collect();
        names.sort();
        let first = inodes
            .entry(m.ino())
            .or_insert_with(|| name.clone())
            .clone();
        let size = if kind.is_dir() { 0 } else { m.len() };
        let fact = format!(
            "{:o} {}:{} {} {}.{} {:x} {names:?} {content} {first}",
            m.mode(),
            m.uid(),
            m.gid(),
            size,
            m.mtime(),
            m.mtime_nsec(),
            m.rdev()
        );
        all.insert(name, fact);
    }
    all
}

fn blake(bytes: &[u8]) -> String {
    use kiln_digest::Sha256;
    hex::encode(Sha256::digest(bytes))
}

fn packed(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(root, &mut bytes).expect("packed");
    bytes
}

#[test]
fn every_kind_of_inode_goes_there_and_back() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let (from, to) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    layer(from.path());
    let bytes = packed(from.path());
    assert_eq!(bytes, packed(from.path()), "the same layer, the same bytes");
    unpack(to.path(), &mut &bytes[..]).expect("unpacked");
    assert_eq!(facts(from.path()), facts(to.path()));
    assert_eq!(bytes, packed(to.path()));
}

#[test]
fn gnu_tar_reads_the_same() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let (from, to) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    layer(from.path());
    // What only Kiln's reader knows.
    fs::remove_file(from.path().join("socket")).expect("a socket");
    let archive = to.path().join("layer.tar");
    fs::write(&archive, packed(from.path())).expect("an archive");
    let root = to.path().join("root");
    fs::create_dir(&root).expect("a directory");
    let status = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--same-owner",
            "-xpf",
        ])
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .status()
        .expect("tar is installed");
    assert!(status.success());
    assert_eq!(facts(from.path()), facts(&root));
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let from = tempfile::tempdir().expect("dir");
    fs::write(from.path().join("a"), vec![1; 700]).expect("a file");
    symlink("x", from.path().join("b")).expect("a link");
    let bytes = packed(from.path());
    for cut in (0..bytes.len()).step_by(97) {
        let to = tempfile::tempdir().expect("dir");
        unpack(to.path(), &mut &bytes[..cut]).expect_err("cut off");
    }
    // A flip in content or in what is not looked at may pass: chunks are hashed before. Nothing may panic.
    for at in (0..bytes.len()).step_by(13) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x11;
        let to = tempfile::tempdir().expect("dir");
        let _ = unpack(to.path(), &mut &flipped[..]);
    }
}

/// Letter, records and content of an entry.
type ByHand<'a> = (u8, &'a [(&'a str, &'a str)], &'a [u8]);

/// An archive made by hand: records and letter of each entry, with `body` as its content.
fn made(entries: &[ByHand<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (letter, records, body) in entries {
        let mut text = Vec::new();
        let common = [("mtime", "1.000000000"), ("uid", "0"), ("gid", "0")];
        for (key, value) in records.iter().chain(&common) {
            let rest = key.len() + value.len() + 3;
            let length = (rest..)
                .find(|l| *l == rest + l.to_string().len())
                .expect("a length");
            text.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
        }
        for (letter, body) in [(b'x', &text[..]), (*letter, body)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_entry_type(tar::EntryType::new(letter));
            header.set_device_major(0).expect("a number");
            header.set_device_minor(0).expect("a number");
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(body);
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn no_path_leads_out() {
    type Entries<'a> = &'a [ByHand<'a>];
    let directory = tempfile::tempdir().expect("dir");
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("victim"), b"whole").expect("a file");
    let out = outside.to_str().expect("UTF-8");
    let through = format!("{out}/victim");
    let cases: &[(&str, Entries<'_>)] = &[
        ("up", &[(b'0', &[("path", "../x")], b"x")]),
        (
            "up inside",
            &[
                (b'5', &[("path", "a")], b""),
                (b'0', &[("path", "a/../../x")], b"x"),
            ],
        ),
        ("absolute", &[(b'0', &[("path", &through)], b"x")]),
        (
            "empty part",
            &[
                (b'5', &[("path", "a")], b""),
                (b'0', &[("path", "a//x")], b"x"),
            ],
        ),
        (
            "link in the way",
            &[
                (b'2', &[("path", "a"), ("linkpath", out)], b""),
                (b'0', &[("path", "a/new")], b"x"),
            ],
        ),
        (
            "relative link in the way",
            &[
                (b'2', &[("path", "a"), ("linkpath", "../outside")], b""),
                (b'0', &[("path", "a/new")], b"x"),
            ],
        ),
        (
            "link, then file",
            &[
                (b'2', &[("path", "a"), ("linkpath", &through)], b""),
                (b'0', &[("path", "a")], b"x"),
            ],
        ),
        (
            "link, then directory",
            &[
                (b'2', &[("path", "a"), ("linkpath", out)], b""),
                (b'5', &[("path", "a")], b""),
            ],
        ),
        (
            "hard link out",
            &[(b'1', &[("path", "a"), ("linkpath", &through)], b"")],
        ),
        (
            "hard link up",
            &[(
                b'1',
                &[("path", "a"), ("linkpath", "../outside/victim")],
                b"",
            )],
        ),
        (
            "hard link through a link",
            &[
                (b'2', &[("path", "a"), ("linkpath", out)], b""),
                (b'1', &[("path", "b"), ("linkpath", "a/victim")], b""),
            ],
        ),
        (
            "twice",
            &[
                (b'0', &[("path", "a")], b"x"),
                (b'0', &[("path", "a")], b"y"),
            ],
        ),
        ("no parent", &[(b'0', &[("path", "a/b")], b"x")]),
        ("no path", &[(b'0', &[], b"x")]),
        ("the layer is a file", &[(b'0', &[("path", "./")], b"")]),
        ("unknown kind", &[(b'7', &[("path", "a")], b"")]),
        (
            "unknown record",
            &[(b'0', &[("path", "a"), ("GNU.sparse.major", "1")], b"")],
        ),
        (
            "size beyond the end",
            &[(b'0', &[("path", "a"), ("size", "99999999999999")], b"x")],
        ),
    ];
    for (name, entries) in cases {
        let root = directory.path().join(format!("root {name}"));
        fs::create_dir(&root).expect("a directory");
        unpack(&root, &mut &made(entries)[..]).expect_err(name);
        let names: Vec<_> = fs::read_dir(&outside).expect("a directory").collect();
        assert_eq!(names.len(), 1, "{name}");
        assert_eq!(
            fs::read(outside.join("victim")).expect("a file"),
            b"whole",
            "{name}"
        );
        assert_eq!(
            fs::metadata(outside.join("victim"))
                .expect("a file")
                .nlink(),
            1,
            "{name}"
        );
        assert!(!directory.path().join("x").exists(), "{name}");
    }
    let fine = made(&[
        (b'5', &[("path", "./")], b""),
        (b'0', &[("path", "a")], b"x"),
    ]);
    let root = tempfile::tempdir().expect("dir");
    unpack(root.path(), &mut &fine[..]).expect("an archive without malice");
}
