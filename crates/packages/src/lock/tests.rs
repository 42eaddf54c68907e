use std::time::{Duration, UNIX_EPOCH};

use super::*;

/// What a family of RPM distributions might add.
const FACTS: &[&str] = &["module", "repository"];

fn package(name: &str, layer: &str) -> LockedPackage {
    LockedPackage {
        name: name.into(),
        version: "1:2~a-3".into(),
        architecture: "amd64".into(),
        url: format!("http://h/pool/{name}_1%3a2.deb"),
        sha256: Digest::of(name.as_bytes()),
        size: 7,
        layer: layer.into(),
        auto: name.len() > 1,
        facts: BTreeMap::new(),
    }
}

fn modular(name: &str, layer: &str) -> LockedPackage {
    let facts = [("module", "nodejs:20"), ("repository", "app stream")];
    LockedPackage {
        facts: facts.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        ..package(name, layer)
    }
}

fn lock() -> Lock {
    Lock {
        target: "debian:bookworm/amd64".into(),
        inputs: Digest::of(b""),
        repositories: vec![LockedRepository {
            uri: "http://h/debian".into(),
            name: "bookworm".into(),
            date: UNIX_EPOCH + Duration::from_secs(1_783_764_997),
            release: Digest::of(b"r"),
        }],
        layers: vec!["my base.ks".into(), "a.ks".into()],
        packages: vec![
            package("aa", "my base.ks"),
            package("b", "my base.ks"),
            package("zz", "a.ks"),
        ],
    }
}

/// The same lock as Kiln wrote it before it had format 2.
const OLD: &str = "\
# The exact packages of this image. Written by `kiln lock`; commit it, do not edit it.
format 1
target debian:bookworm/amd64
inputs e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
repository http://h/debian bookworm 2026-07-11T10:16:37Z 454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1

layer my%20base.ks
aa 1:2~a-3 amd64 7 961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506 auto http://h/pool/aa_1%253a2.deb
b 1:2~a-3 amd64 7 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d asked http://h/pool/b_1%253a2.deb

layer a.ks
zz 1:2~a-3 amd64 7 4a60bf7d4bc1e485744cf7e8d0860524752fca1ce42331be7c439fd23043f151 auto http://h/pool/zz_1%253a2.deb
";

fn read(text: &str) -> Lock {
    Lock::parse("kiln.lock", text, FACTS).expect("a lock")
}

#[test]
fn text_is_readable_and_stable() {
    let mut shuffled = lock();
    shuffled.packages.reverse();
    let text = lock().text();
    assert_eq!(text, shuffled.text());
    for line in [
        "\nlayer my%20base.ks\npackage aa version=1:2~a-3 architecture=amd64 reason=auto size=7 sha256=961b",
        "06 url=http://h/pool/aa_1%253a2.deb\npackage b ",
        "repository url=http://h/debian name=bookworm date=2026-07-11T10:16:37Z sha256=4543",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(read(&text), lock());
}

#[test]
fn facts_of_a_family_stand_beside_the_common_fields() {
    let mut lock = lock();
    lock.packages[1] = modular("b", "my base.ks");
    let text = lock.text();
    let said = "9d module=nodejs:20 repository=app%20stream url=";
    assert!(text.contains(said), "{text}");
    assert_eq!(read(&text), lock);
    let error = Lock::parse("kiln.lock", &text, &["repository"]).expect_err("an unknown fact");
    assert_eq!(error.origin(), Some("kiln.lock:9"));
    assert!(
        error.to_string().contains("\"module\" is not known"),
        "{error}"
    );
    assert_ne!(lock.id(), self::lock().id());
}

/// Layers, images and what was vouched for are found by these.
#[test]
fn an_old_lock_is_the_same_lock() {
    let old = read(OLD);
    assert_eq!(old, lock());
    assert_eq!(old.id(), Digest::of(OLD.as_bytes()));
    assert_eq!(read(&old.text()).id(), old.id());
    let lines: String = old.packages.iter().map(LockedPackage::identity).collect();
    let same = OLD.lines().filter(|line| line.contains(" amd64 "));
    assert!(lines.lines().eq(same), "{lines}");
}

#[test]
fn the_line_of_a_package() {
    let (text, wanted) = (lock().text(), package("zz", "a.ks"));
    for (text, line) in [(OLD, 12), (text.as_str(), 12)] {
        assert_eq!(Lock::line_of(text, FACTS, &wanted), Some(line));
        let absent = package("zy", "a.ks");
        assert_eq!(Lock::line_of(text, FACTS, &absent), None);
    }
}

#[test]
fn the_image_may_have_a_package_of_the_tools() {
    let mut lock = lock();
    lock.layers.insert(0, TOOLS.into());
    lock.packages.insert(0, package("b", TOOLS));
    assert_eq!(read(&lock.text()), lock);
}

#[test]
fn errors_of_the_first_format_name_the_line() {
    for (from, to, line, words) in [
        ("format 1", "format 9", 2, "format 9"),
        ("format 1", "", 3, "does not begin"),
        ("target ", "torget ", 3, "not understood"),
        ("2026-07-11T", "soon", 5, "not a date"),
        (" amd64 7 ", " amd64 x ", 8, "size in bytes"),
        (" auto ", " maybe ", 8, "auto or asked"),
        ("layer a.ks", "layer my%20base.ks", 11, "twice"),
        ("\nb 1", "\naa 1", 9, "twice"),
        ("aa 1:2", "aa 1%0a2", 8, "control character"),
        ("\naa ", "\npackage aa version=1 ", 8, "not understood"),
    ] {
        refused(OLD, from, to, line, words);
    }
    assert!(Lock::parse("l", "", FACTS).is_err());
}

#[test]
fn errors_name_the_line() {
    let new = lock().text();
    let more = format!(" size={}", u64::MAX);
    for (from, to, line, words) in [
        ("format 2", "format 3", 2, "format 3"),
        ("format 2", "format 1", 5, "not a date"),
        ("target ", "format 2\ntarget ", 3, "given twice"),
        ("inputs ", "inputs  ", 4, "not understood"),
        (" name=bookworm", "", 5, "name is missing"),
        (" size=7", "", 8, "size is missing"),
        (" size=7", " size=7 size=7", 8, "\"size\" is there twice"),
        (
            " size=7",
            " size=7 colour=red",
            8,
            "\"colour\" is not known",
        ),
        (" size=7", " size=7 red", 8, "no field such as"),
        (" size=7", " size=+7", 8, "size in bytes"),
        (" size=7", " size=18446744073709551616", 8, "size in bytes"),
        (" size=7", &more, 9, "more than any disk"),
        (" size=7", " size=7 module=", 8, "module is empty"),
        ("aa version=1", "aa version=%1B1", 8, "control character"),
        ("aa version=1", "aa version=\u{1b}1", 8, "control character"),
        ("aa version=1", "aa version=%ff", 8, "not UTF-8"),
        ("reason=auto", "reason=maybe", 8, "auto or asked"),
        ("package b", "package aa", 9, "twice"),
        ("layer my%20base.ks\n", "", 7, "before the first layer"),
    ] {
        refused(&new, from, to, line, words);
    }
}

/// A text with one change is not read, and the error has these words.
fn refused(good: &str, from: &str, to: &str, line: usize, words: &str) {
    let text = good.replacen(from, to, 1);
    assert_ne!(text, good, "{from}");
    let error = Lock::parse("kiln.lock", &text, FACTS).expect_err(words);
    let origin = format!("kiln.lock:{line}");
    assert_eq!(error.origin(), Some(origin.as_str()), "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn any_text_is_read_or_refused() {
    for good in [OLD, &lock().text()] {
        for cut in 0..good.len() {
            let _ = Lock::parse("l", &good[..cut], FACTS);
        }
    }
}
