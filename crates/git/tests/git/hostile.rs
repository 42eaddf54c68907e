//! Repositories that mean harm, and such as are broken.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use kiln_git::{Limits, Options, Remote};
use kiln_testkit::GitServer;
use kiln_testkit::git::answer;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::real::fetch;

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const TAG: u8 = 4;
const BACK: u8 = 6;
const NAMED: u8 = 7;

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().unwrap()
}

fn id(kind: &str, content: &[u8]) -> [u8; 20] {
    let head = format!("{kind} {}\0", content.len());
    sha1(&[head.as_bytes(), content].concat())
}

/// An entry: its kind, what is said of its base, and its content; the size may be another one than that.
fn entry(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut code, mut size) = ((kind << 4) | (size & 0x0f) as u8, size >> 4);
    while size > 0 {
        bytes.push(code | 0x80);
        (code, size) = ((size & 0x7f) as u8, size >> 7);
    }
    bytes.push(code);
    bytes.extend(base);
    let mut stream = ZlibEncoder::new(bytes, Compression::best());
    stream.write_all(content).unwrap();
    stream.finish().unwrap()
}

fn plain(kind: u8, content: &[u8]) -> Vec<u8> {
    entry(kind, content.len() as u64, &[], content)
}

fn pack_of(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
    pack.extend(entries.concat());
    let sum = sha1(&pack);
    pack.extend(sum);
    pack
}

fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
    pack_of(entries.len() as u32, entries)
}

fn tree(names: &[(&str, &str, [u8; 20])]) -> Vec<u8> {
    let entry = |(mode, name, id): &(&str, &str, [u8; 20])| {
        [format!("{mode} {name}\0").as_bytes(), id].concat()
    };
    names.iter().flat_map(entry).collect()
}

/// A commit of a tree, and its name.
fn commit(tree: &[u8]) -> (Vec<u8>, String) {
    let text = format!(
        "tree {}\nauthor A <a> 1 +0000\n\nx\n",
        hex::encode(id("tree", tree))
    );
    let name = hex::encode(id("commit", text.as_bytes()));
    (text.into_bytes(), name)
}

fn line(bytes: &[u8]) -> Vec<u8> {
    [format!("{:04x}", bytes.len() + 4).as_bytes(), bytes].concat()
}

/// What answers a fetch: a pack, in packets.
fn sent(pack: &[u8]) -> Vec<u8> {
    let mut body = line(b"packfile\n");
    for piece in pack.chunks(60_000) {
        body.extend(line(&[&[1], piece].concat()));
    }
    body.extend(b"0000");
    body
}

/// A server whose branch `main` is a commit, and what it answers to a fetch.
fn server(name: &str, fetched: Vec<u8>) -> (tempfile::TempDir, GitServer) {
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path());
    let listing = line(format!("{name} refs/heads/main\n").as_bytes());
    server.answer_with(move |request| {
        let result = "application/x-git-upload-pack-result";
        let body = String::from_utf8_lossy(&request.body);
        Some(match request.method.as_str() {
            "GET" => {
                let body = [
                    line(b"version 2\n"),
                    line(b"fetch=shallow\n"),
                    b"0000".to_vec(),
                ];
                let kind = "application/x-git-upload-pack-advertisement";
                answer("200 OK", kind, &body.concat())
            }
            _ if body.contains("command=ls-refs") => {
                let body = [&listing[..], b"0000"].concat();
                answer("200 OK", result, &body)
            }
            _ => answer("200 OK", result, &fetched),
        })
    });
    (dir, server)
}

fn small() -> Options<'static> {
    Options {
        limits: Limits {
            pack: 1 << 20,
            objects: 1000,
            unpacked: 4 << 20,
            in_memory: 1 << 20,
            entries: 1000,
            bytes: 2 << 20,
        },
        ..Options::default()
    }
}

/// What comes of a pack.
fn outcome(
    name: &str,
    fetched: Vec<u8>,
    options: &Options<'_>,
) -> Result<tempfile::TempDir, String> {
    let (_dir, server) = server(name, fetched);
    let into = tempfile::tempdir().unwrap();
    let url = server.url("lab");
    match fetch(&url, "main", into.path(), options) {
        Ok(_) => Ok(into),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with(&url), "{error}");
            Err(error)
        }
    }
}

fn refused(name: &str, pack: &[u8], expected: &str) {
    let error = outcome(name, sent(pack), &small()).map(drop).unwrap_err();
    assert!(error.contains(expected), "{expected}: {error}");
}

/// Objects of a commit with one file, and the commit's name.
fn one_file(content: &[u8]) -> (Vec<Vec<u8>>, String) {
    let root = tree(&[("100644", "lab.ks", id("blob", content))]);
    let (text, name) = commit(&root);
    let entries = vec![
        plain(COMMIT, &text),
        plain(TREE, &root),
        plain(BLOB, content),
    ];
    (entries, name)
}

#[test]
fn an_honest_pack_is_taken() {
    let (entries, name) = one_file(b"lang\n");
    let into = outcome(&name, sent(&pack(&entries)), &small()).unwrap();
    assert_eq!(fs::read(into.path().join("lab.ks")).unwrap(), b"lang\n");
}

#[test]
fn wrong_hashes_are_refused() {
    let (mut entries, name) = one_file(b"lang\n");
    let mut whole = pack(&entries);
    let last = whole.len() - 1;
    whole[last] ^= 1;
    refused(&name, &whole, "check sum");
    // Another file than the tree names, in a pack that is right as such.
    entries[2] = plain(BLOB, b"evil\n");
    refused(&name, &pack(&entries), "was not sent");
    // Another commit than the branch is said to be.
    let (others, _) = one_file(b"other\n");
    refused(&name, &pack(&others), "was not sent");
    refused(
        &name,
        &[&pack(&entries)[..], b"x"].concat(),
        "something follows",
    );
}

#[test]
fn a_pack_that_is_broken_anywhere_is_refused() {
    let (mut entries, name) = one_file(b"lang en_US and some more\n");
    // One object as the difference to the file.
    let delta = [25, 3, 0x90, 3];
    entries.push(entry(
        NAMED,
        4,
        &id("blob", b"lang en_US and some more\n"),
        &delta,
    ));
    let whole = pack(&entries);
    let (dir, server) = server(&name, Vec::new());
    let look = |pack: Vec<u8>| {
        server.answer_with(move |request| {
            let kind = "application/x-git-upload-pack-advertisement";
            let listing = [line(b"version 2\n"), b"0000".to_vec()].concat();
            Some(match request.method.as_str() {
                "GET" => answer("200 OK", kind, &listing),
                _ => answer("200 OK", "x", &sent(&pack)),
            })
        });
        let remote = Remote::open(&server.url("lab"), &small()).unwrap();
        remote.fetch(&name, dir.path(), None).map(drop)
    };
    look(whole.clone()).unwrap();
    for end in (0..whole.len()).step_by(3) {
        look(whole[..end].to_vec()).unwrap_err();
    }
    for at in 0..whole.len() - 20 {
        let mut broken = whole[..whole.len() - 20].to_vec();
        broken[at] ^= 1 << (at % 8);
        let sum = sha1(&broken);
        // The sum is right: what is wrong has to be found, or makes no difference to what the commit names.
        broken.extend(sum);
        let _ = look(broken);
    }
}

#[test]
fn differences_that_lead_nowhere_are_refused() {
    let (mut entries, name) = one_file(b"lang\n");
    let delta = [5, 5, 0x90, 5];
    // Two that are each the difference to the other: names cannot be chosen so, but they can be said.
    entries.push(entry(NAMED, 4, &[1; 20], &delta));
    entries.push(entry(NAMED, 4, &[2; 20], &delta));
    refused(
        &name,
        &pack(&entries),
        "2 objects of the pack are stored as differences",
    );
    for (base, expected) in [
        (&[0][..], "outside of the pack"),
        (&[0xff, 0xff, 0x7f], "outside of the pack"),
        (&[0xff; 12], "too far away"),
        // Into the middle of another entry.
        (&[3], "does not have"),
    ] {
        let (mut entries, name) = one_file(b"lang\n");
        entries.push(entry(BACK, 4, base, &delta));
        refused(&name, &pack(&entries), expected);
    }
    let (mut entries, name) = one_file(b"lang\n");
    entries.push(entry(NAMED, 4, &id("blob", b"lang\n"), &[5, 9, 0x90, 9]));
    refused(&name, &pack(&entries), "more than its base has");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let began = Instant::now();
    let zeros = vec![0; 64 << 20];
    let (entries, name) = one_file(b"lang\n");
    let with = |more: Vec<u8>| [&entries[..], &[more]].concat();
    // 64 MiB where ten bytes are said; 64 MiB that are said.
    refused(
        &name,
        &pack(&with(entry(BLOB, 10, &[], &zeros))),
        "not the size",
    );
    refused(
        &name,
        &pack(&with(plain(BLOB, &zeros))),
        "too large, unpacked",
    );
    refused(
        &name,
        &pack(&with(entry(BLOB, 1 << 40, &[], &[]))),
        "too large, unpacked",
    );
    refused(&name, &pack_of(u32::MAX, &entries), "4294967295 objects");
    // A difference of some bytes that makes a mebibyte and more, and many that make less each.
    let base = vec![7; 60_000];
    let delta = |size: usize, copies: usize| {
        let mut delta = vec![0xe0, 0xd4, 3];
        let mut rest = size;
        while rest > 0x7f {
            delta.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        delta.push(rest as u8);
        delta.extend([0xb0, 0x60, 0xea].repeat(copies));
        entry(NAMED, delta.len() as u64, &id("blob", &base), &delta)
    };
    let mut one = with(plain(BLOB, &base));
    one.push(delta(60_000 * 20, 20));
    refused(&name, &pack(&one), "is too large");
    let mut many = with(plain(BLOB, &base));
    many.extend((1..=16).map(|copies| delta(60_000 * copies, copies)));
    refused(&name, &pack(&many), "too large");
    // A directory that is too large to be one.
    let root = vec![b'x'; 2 << 20];
    let (text, name) = commit(&root);
    let entries = [plain(COMMIT, &text), plain(TREE, &root)];
    refused(
        &name,
        &pack(&entries),
        "is the maximum for one that is a directory",
    );
    // More than may be sent at all.
    let noise: Vec<u8> = (0..2_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut raw = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
    raw.extend(noise);
    refused(&name, &raw, "larger than 1 MiB");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_tree_that_is_ten_to_the_tenth_files_is_refused() {
    let blob = b"x";
    let mut level = tree(&[("100644", "f", id("blob", blob))]);
    let mut entries = vec![plain(BLOB, blob), plain(TREE, &level)];
    for _ in 0..10 {
        let below = id("tree", &level);
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        let all: Vec<_> = names
            .iter()
            .map(|name| ("40000", name.as_str(), below))
            .collect();
        level = tree(&all);
        entries.push(plain(TREE, &level));
    }
    let (text, name) = commit(&level);
    entries.push(plain(COMMIT, &text));
    refused(
        &name,
        &pack(&entries),
        "too many files, directories and links",
    );
    // One large file very often; directories within each other.
    let blob = vec![0; 100_000];
    let names: Vec<String> = (0..50).map(|n| format!("f{n}")).collect();
    let all: Vec<_> = names
        .iter()
        .map(|name| ("100644", name.as_str(), id("blob", &blob)))
        .collect();
    let root = tree(&all);
    let (text, name) = commit(&root);
    let entries = [plain(BLOB, &blob), plain(TREE, &root), plain(COMMIT, &text)];
    refused(&name, &pack(&entries), "too large");
    let mut level = Vec::new();
    let mut entries = vec![plain(TREE, &level)];
    for _ in 0..300 {
        level = tree(&[("40000", "d", id("tree", &level))]);
        entries.push(plain(TREE, &level));
    }
    let (text, name) = commit(&level);
    entries.push(plain(COMMIT, &text));
    refused(&name, &pack(&entries), "directories within each other");
}

#[test]
fn names_and_links_lead_nowhere_else() {
    let blob = b"#!/bin/sh\n";
    let file = id("blob", blob);
    let link = id("blob", b"/etc");
    let inner = tree(&[("100755", "post-checkout", file)]);
    for names in [
        &[("100644", "..", file)][..],
        &[("100644", "../x", file)],
        &[("100644", "/etc/passwd", file)],
        &[("40000", ".git", id("tree", &inner))],
        &[("40000", ".GiT", id("tree", &inner))],
        &[("40000", ".", id("tree", &inner))],
        &[("20666", "null", file)],
        // A link, and a directory of the same name that would be written through it.
        &[("120000", "a", link), ("40000", "a", id("tree", &inner))],
        // Kinds that are not what the tree says.
        &[("40000", "a", file)],
        &[("100644", "a", id("tree", &inner))],
        &[("120000", "a", id("tree", &inner))],
    ] {
        let root = tree(names);
        let (text, name) = commit(&root);
        let entries = [
            plain(COMMIT, &text),
            plain(TREE, &root),
            plain(TREE, &inner),
            plain(BLOB, blob),
            plain(BLOB, b"/etc"),
        ];
        let error = outcome(&name, sent(&pack(&entries)), &small()).map(drop);
        error.expect_err(&format!("{names:?}"));
    }
    // Links: too long, of nothing, with a zero byte.
    for to in [&b"x".repeat(5000)[..], b"", b"a\0b"] {
        let root = tree(&[("120000", "l", id("blob", to))]);
        let (text, name) = commit(&root);
        let entries = [plain(COMMIT, &text), plain(TREE, &root), plain(BLOB, to)];
        refused(&name, &pack(&entries), "link");
    }
}

#[test]
fn what_is_no_commit_is_refused() {
    let name = hex::encode(id("blob", b"x"));
    refused(
        &name,
        &pack(&[plain(BLOB, b"x")]),
        "is no commit but a blob",
    );
    let name = hex::encode(id("commit", b"tree x\n"));
    refused(&name, &pack(&[plain(COMMIT, b"tree x\n")]), "is no commit");
    let (mut entries, mut name) = one_file(b"x");
    for number in 0..12 {
        let text = format!("object {name}\ntype tag\ntag {number}\n");
        name = hex::encode(id("tag", text.as_bytes()));
        entries.push(plain(TAG, text.as_bytes()));
    }
    refused(&name, &pack(&entries), "too many tags");
}

#[test]
fn what_a_repository_says_is_shown_on_one_line() {
    let (_, name) = one_file(b"x");
    let text = b"ERR no\x1b[31m\r\nway".to_vec();
    let error = outcome(&name, line(&text), &small()).map(drop).unwrap_err();
    assert!(error.ends_with("it refuses: no [31m  way"), "{error:?}");
    let body = [
        line(b"packfile\n"),
        line(b"\x03too\nbusy"),
        b"0000".to_vec(),
    ]
    .concat();
    let error = outcome(&name, body, &small()).map(drop).unwrap_err();
    assert!(error.ends_with("it gives up: too busy"), "{error:?}");
    for body in [&b""[..], b"0000", b"zzzz", b"000bpackfile\n", b"<html>"] {
        let error = outcome(&name, body.to_vec(), &small())
            .map(drop)
            .unwrap_err();
        assert!(
            error.contains("breaks off") || error.contains("no packets"),
            "{error}"
        );
    }
}

/// What comes of a server that answers like this to everything.
fn opened(options: &Options<'_>, raw: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path());
    let own = server.url("");
    server.answer_with(move |_| Some(raw(&own)));
    let error = Remote::open(&server.url("lab"), options)
        .map(drop)
        .unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("http://127.0.0.1:"), "{error}");
    error
}

fn redirect(to: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Another address of this machine.
const OTHER: &str = "127.0.0.2";
/// Where clouds hand out credentials.
const METADATA: &str = "169.254.169.254";

#[test]
fn redirects_lead_to_nothing_closed() {
    let only_one: fn(IpAddr) -> bool = |address| address.to_string() == "127.0.0.1";
    let options = Options {
        only: Some(only_one),
        ..small()
    };
    let error = opened(&options, |_| {
        let rest = "lab/info/refs?service=git-upload-pack";
        redirect(&format!("http://{OTHER}:8470/{rest}"))
    });
    assert!(
        error.contains(&format!("at http://{OTHER}:8470: it leads to {OTHER}")),
        "{error}"
    );
    let error = opened(&options, |_| {
        redirect(&format!("http://{METADATA}/info/refs"))
    });
    assert!(
        error.contains(&format!("it leads to {METADATA}")),
        "{error}"
    );
    for (to, expected) in [
        ("file:///etc/passwd", "less than HTTPS"),
        ("/latest/meta-data/", "not where a repository is"),
        (
            "http://a:b@127.0.0.1/lab/info/refs",
            "not where a repository is",
        ),
        ("http://[", "leads nowhere"),
    ] {
        let error = opened(&options, move |_| redirect(to));
        assert!(error.contains(expected), "{to}: {error}");
    }
    let error = opened(&options, |own| redirect(&format!("{own}x/info/refs")));
    assert!(error.contains("more than 5 redirects"), "{error}");
    let nothing: fn(IpAddr) -> bool = |_| false;
    let closed = Options {
        only: Some(nothing),
        ..small()
    };
    let error = opened(&closed, |_| Vec::new());
    assert!(error.contains("--downloads-from-this-machine"), "{error}");
}

#[test]
fn what_is_no_repository_is_said() {
    let options = small();
    let v0 = b"001e# service=git-upload-pack\n0000003f7777777777777777777777777777777777777777 HEAD\0multi_ack\n0000";
    for (kind, body, expected) in [
        ("text/html", &b"<html>"[..], "no repository"),
        (
            "application/x-git-upload-pack-advertisement",
            b"<html>",
            "no packets",
        ),
        (
            "application/x-git-upload-pack-advertisement",
            b"",
            "breaks off",
        ),
        (
            "application/x-git-upload-pack-advertisement",
            v0,
            "version 2 of git's protocol",
        ),
        (
            "application/x-git-upload-pack-advertisement",
            b"000eversion 2\n0019object-format=sha256\n0000",
            "\"sha256\"",
        ),
    ] {
        let error = opened(&options, move |_| answer("200 OK", kind, body));
        assert!(error.contains(expected), "{error}");
    }
    for (status, expected) in [
        ("404 Not Found", "404: there is no such repository"),
        ("403 Forbidden", "403: it wants other credentials"),
        ("500 Oh", "500: it does not answer"),
    ] {
        let error = opened(&options, move |_| {
            answer(status, "text/plain", b"secret text")
        });
        assert!(
            error.contains(expected) && !error.contains("secret"),
            "{error}"
        );
    }
    let error = opened(&options, |_| b"HTTP/1.1 200 OK\r\nX: ".to_vec());
    assert!(error.len() > 40, "{error}");
}

#[test]
fn silence_and_slowness_have_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/lab", listener.local_addr().unwrap());
    let options = Options {
        silence: Duration::from_millis(300),
        patience: Duration::from_secs(5),
        ..small()
    };
    let began = Instant::now();
    let error = Remote::open(&url, &options)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(error.contains("took too long"), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    // One byte and again one byte is no silence, but has an end too.
    let drip = std::thread::spawn(move || {
        // The connection of before, and the new one.
        let mut streams = (0..2)
            .map(|_| listener.accept().unwrap().0)
            .collect::<Vec<_>>();
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 9999\r\n\r\n";
        streams[1].write_all(head).unwrap();
        while streams[1].write_all(b"0").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let options = Options {
        silence: Duration::from_secs(20),
        patience: Duration::from_secs(1),
        ..small()
    };
    let began = Instant::now();
    let error = Remote::open(&url, &options)
        .map(drop)
        .unwrap_err()
        .to_string();
    // "0000" again and again: nothing that a repository says.
    assert!(
        error.contains("took too long") || error.contains("too much"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drip.join().unwrap();
    let (entries, name) = one_file(b"x");
    let (_dir, server) = server(&name, sent(&pack(&entries)));
    let stopped = Options {
        stop: &|| true,
        ..small()
    };
    let error = Remote::open(&server.url("lab"), &stopped)
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, kiln_git::Error::Stopped), "{error}");
}

#[test]
fn credentials_go_to_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let (entries, name) = one_file(b"x");
    let (dir, other) = server(&name, sent(&pack(&entries)));
    let first = GitServer::start(dir.path());
    let to = other.url("lab/info/refs?service=git-upload-pack");
    first.answer_with(move |_| Some(redirect(&to)));
    let file = dir.path().join("credentials");
    let line = first.url("lab").replace("http://", "http://bot:s3cret@");
    fs::write(&file, line).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let options = Options {
        credentials: kiln_git::Credentials::read(&file).unwrap(),
        ..small()
    };
    let into = tempfile::tempdir().unwrap();
    fetch(&first.url("lab"), "main", into.path(), &options).unwrap();
    assert!(first.requests()[0].headers.contains_key("authorization"));
    let others = other.requests();
    assert_eq!(others.len(), 3);
    for request in others {
        assert!(
            !request.headers.contains_key("authorization"),
            "{request:?}"
        );
    }
}
