//! Unpacking, judged by `dpkg-deb`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_packages::ErrorKind;
use kiln_packages::debian::deb::Deb;
use kiln_packages::debian::unpack::{Owners, Unpacked, create_merged_usr, unpack, unpack_all};
use kiln_testkit::Package;
use kiln_testkit::package::{Compression, Entry};

use crate::support::{good, run};

const LONG: &str = "./usr/share/a-name-that-is-longer-than-the-hundred-bytes-that-the-old-header-has-room-for/and-then-a-file-name-that-adds-more";

fn nasty() -> Package {
    let mut package = Package::new("nasty", "1:2.0~rc1-3")
        .entry(Entry::file("./usr/share/empty", ""))
        .entry(
            Entry::file("./usr/share/su id", "x")
                .mode(0o4755)
                .owner(1, 2),
        )
        .entry(Entry::file("./usr/share/unreadable", "secret").mode(0o000))
        .entry(Entry::directory("./var/"))
        .entry(Entry::directory("./var/tmp/").mode(0o1777))
        .entry(Entry::directory("./var/group/").mode(0o2775).owner(0, 8))
        .entry(Entry::symlink("./usr/share/link", "../lib/nothing"))
        .entry(Entry::symlink("./usr/share/absolute", "/etc/passwd"))
        .entry(Entry::hard_link("./usr/share/hard", "./usr/share/empty"))
        .entry(Entry::special("./usr/share/fifo", tar_type(b'6')).mode(0o620))
        .entry(Entry::directory(
            &LONG[..LONG.rfind('/').map_or(0, |at| at + 1)],
        ))
        .entry(Entry::file(LONG, "long"))
        .entry(Entry::symlink("./usr/share/long-link", &"x/".repeat(90)))
        .entry(Entry::file("./usr/share/\u{fc}\u{2603}", "text"))
        .script("postinst", "#!/bin/sh\nexit 0\n")
        .script(
            "conffiles",
            "/etc/nasty.conf\nremove-on-upgrade /etc/gone.conf\n",
        );
    // As dpkg-deb orders them: a directory's content right behind it.
    package.data.sort_by(|a, b| a.path.cmp(&b.path));
    package
}

fn tar_type(byte: u8) -> tar::EntryType {
    tar::EntryType::new(byte)
}

/// Path, type and mode, owner, size, time, link target or content of everything below a directory.
fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let m = std::fs::symlink_metadata(&path).expect("metadata");
            let content = match m.file_type() {
                t if t.is_symlink() => format!("{:?}", std::fs::read_link(&path).expect("a link")),
                // Only root can read the unreadable one.
                t if t.is_file() => format!("{:?}", std::fs::read(&path).ok()),
                _ => String::new(),
            };
            let size = if m.is_dir() { 0 } else { m.len() };
            let name = path
                .strip_prefix(root)
                .expect("inside")
                .display()
                .to_string();
            let links = if m.is_dir() { 0 } else { m.nlink() };
            lines.push(format!(
                "{name} {:o} {}:{} {links} {size} {} {content}",
                m.mode(),
                m.uid(),
                m.gid(),
                m.mtime()
            ));
            if m.is_dir() {
                left.push(path);
            }
        }
    }
    lines.sort();
    lines
}

fn owners() -> Owners {
    // Only root can give files away; dpkg-deb then does the same.
    if rustix::process::geteuid().is_root() {
        Owners::FromArchive
    } else {
        Owners::Caller
    }
}

#[test]
fn trees_equal_those_of_dpkg_deb() {
    let directory = tempfile::tempdir().expect("a directory");
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
    ] {
        let path = directory.path().join("nasty.deb");
        std::fs::write(&path, nasty().compressed(compression).build()).expect("writing");
        let (ours, theirs) = (
            directory.path().join("ours"),
            directory.path().join("theirs"),
        );
        std::fs::create_dir(&ours).expect("a directory");
        good(
            "dpkg-deb",
            &[
                "-x",
                &path.display().to_string(),
                &theirs.display().to_string(),
            ],
        );
        let deb = Deb::open(&path).expect("a package");
        let done = unpack(&deb, &ours, owners()).expect("unpacking");
        assert!(done.skipped.is_empty() && done.entries > 10, "{done:?}");
        assert_eq!(tree(&ours), tree(&theirs), "{compression:?}");
        std::fs::remove_dir_all(ours)
            .and_then(|()| std::fs::remove_dir_all(theirs))
            .expect("cleaning");
    }
}

#[test]
fn control_archive_equals_that_of_dpkg_deb() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nasty.deb");
    std::fs::write(&path, nasty().build()).expect("writing");
    let control = Deb::open(&path)
        .expect("a package")
        .control()
        .expect("control");
    for name in ["Package", "Version", "Architecture", "Maintainer"] {
        let theirs = good("dpkg-deb", &["-f", &path.display().to_string(), name]);
        assert_eq!(control.field(name), Some(theirs.trim()), "{name}");
    }
    let conffiles: [&[u8]; 2] = [b"/etc/nasty.conf", b"/etc/gone.conf"];
    assert_eq!(control.conffiles(), conffiles);
    assert_eq!(
        control.script("postinst"),
        Some(&b"#!/bin/sh\nexit 0\n"[..])
    );
}

/// dpkg takes names as bytes, so that such a package is as usable as any other.
#[test]
fn a_configuration_file_may_have_any_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let tree_path = directory.path().join("tree");
    let name = OsStr::from_bytes(b"caf\xe9.conf");
    for place in ["DEBIAN", "etc"] {
        std::fs::create_dir_all(tree_path.join(place)).expect("a directory");
    }
    let write = |place: &Path, content: &[u8]| {
        std::fs::write(tree_path.join(place), content).expect("a file");
    };
    write(
        Path::new("DEBIAN/control"),
        Package::new("latin", "1").stanza().as_bytes(),
    );
    write(Path::new("DEBIAN/conffiles"), b"/etc/caf\xe9.conf\n");
    write(&Path::new("etc").join(name), b"x");
    let path = directory.path().join("latin.deb");
    let (tree_path, file) = (tree_path.display(), path.display());
    good(
        "dpkg-deb",
        &["--build", &tree_path.to_string(), &file.to_string()],
    );
    let control = Deb::open(&path)
        .expect("a package")
        .control()
        .expect("read");
    assert_eq!(control.conffiles(), [b"/etc/caf\xe9.conf"]);
}

#[test]
fn packages_of_dpkg_deb_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let tree_path = directory.path().join("tree");
    std::fs::create_dir_all(tree_path.join("DEBIAN")).expect("a directory");
    std::fs::write(
        tree_path.join("DEBIAN/control"),
        Package::new("made", "1").stanza(),
    )
    .expect("control");
    std::fs::create_dir_all(tree_path.join("opt/made")).expect("a directory");
    std::fs::write(tree_path.join("opt/made/file"), "content").expect("a file");
    for kind in ["-Zgzip", "-Zxz", "-Zzstd", "-Znone"] {
        let deb = directory.path().join(format!("made{kind}.deb"));
        good(
            "dpkg-deb",
            &[
                "--root-owner-group",
                kind,
                "-b",
                &tree_path.display().to_string(),
                &deb.display().to_string(),
            ],
        );
        let root = directory.path().join(kind);
        std::fs::create_dir(&root).expect("a directory");
        Deb::open(&deb)
            .and_then(|deb| unpack(&deb, &root, owners()))
            .expect("unpacking");
        assert_eq!(
            std::fs::read(root.join("opt/made/file")).expect("it"),
            b"content",
            "{kind}"
        );
    }
}

fn unpacked(
    package: &Package,
    prepare: impl Fn(&Path),
) -> (tempfile::TempDir, kiln_packages::Result<Unpacked>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (deb, root) = (
        directory.path().join("p.deb"),
        directory.path().join("root"),
    );
    std::fs::write(&deb, package.build()).expect("writing");
    std::fs::create_dir(&root).expect("a directory");
    prepare(&root);
    let result = Deb::open(&deb).and_then(|deb| unpack(&deb, &root, owners()));
    (directory, result)
}

#[test]
fn paths_cannot_leave_the_root() {
    for path in ["../escaped", "./usr/../../escaped", "/../escaped"] {
        let (directory, result) = unpacked(
            &Package::new("p", "1").entry(Entry::file(path, "x")),
            |_| (),
        );
        assert_eq!(
            result.expect_err(path).kind(),
            ErrorKind::Malformed,
            "{path}"
        );
        assert!(!directory.path().join("escaped").exists());
    }
    // Through a link that the package itself brings, relative or absolute: it stays inside.
    for target in ["../../..", "/"] {
        let package = Package::new("p", "1")
            .entry(Entry::symlink("./up", target))
            .entry(Entry::file("./up/escaped", "x"))
            .entry(Entry::symlink("./escaped-2", "../outside"))
            .entry(Entry::file("./escaped-2", "new"));
        let (directory, result) = unpacked(&package, |_| ());
        result.expect(target);
        assert!(
            !directory.path().join("escaped").exists()
                && !directory.path().join("outside").exists()
        );
        assert_eq!(
            std::fs::read(directory.path().join("root/escaped")).expect("inside"),
            b"x",
            "{target}"
        );
        assert!(
            !directory.path().join("root/escaped-2").is_symlink(),
            "replaced, not followed"
        );
    }
    let outside = Package::new("p", "1").entry(Entry::hard_link("./passwd", "../../../etc/passwd"));
    assert_eq!(
        unpacked(&outside, |_| ())
            .1
            .expect_err("a hard link out")
            .kind(),
        ErrorKind::Malformed
    );
}

#[test]
fn links_of_the_root_are_followed_and_kept() {
    let package = Package::new("p", "1")
        .entry(Entry::directory("./bin/"))
        .entry(Entry::file("./bin/tool", "x").mode(0o755));
    let (directory, result) = unpacked(&package, |root| {
        create_merged_usr(root, "amd64").expect("merged /usr");
    });
    result.expect("unpacking");
    let root = directory.path().join("root");
    assert!(root.join("bin").is_symlink() && root.join("lib64").is_symlink());
    assert_eq!(
        std::fs::metadata(root.join("usr/bin/tool"))
            .expect("it")
            .permissions()
            .mode()
            & 0o7777,
        0o755
    );
}

#[test]
fn devices_are_skipped_and_told() {
    let package = Package::new("p", "1").entry(Entry::special("./null", tar_type(b'3')));
    let done = unpacked(&package, |_| ()).1.expect("unpacking");
    assert_eq!(
        done.skipped
            .iter()
            .map(|s| s.path.as_path())
            .collect::<Vec<_>>(),
        [Path::new("/null")]
    );
}

#[test]
fn files_in_the_way_are_replaced_and_directories_kept() {
    let package = Package::new("p", "1")
        .entry(Entry::file("./there", "new"))
        .entry(Entry::directory("./dir/").mode(0o700))
        .entry(Entry::symlink("./kept", "elsewhere"));
    let (directory, result) = unpacked(&package, |root| {
        std::fs::write(root.join("there"), "old").expect("a file");
        std::fs::create_dir(root.join("dir"))
            .and_then(|()| std::fs::create_dir(root.join("kept")))
            .expect("directories");
        std::fs::set_permissions(root.join("dir"), std::fs::Permissions::from_mode(0o711))
            .expect("a mode");
    });
    let done = result.expect("unpacking");
    let root = directory.path().join("root");
    assert_eq!(std::fs::read(root.join("there")).expect("it"), b"new");
    assert_eq!(
        std::fs::metadata(root.join("dir"))
            .expect("it")
            .permissions()
            .mode()
            & 0o777,
        0o711
    );
    assert_eq!(done.skipped.len(), 1);
    let file_over_directory = Package::new("p", "1").entry(Entry::file("./dir", "x"));
    let (_directory, result) = unpacked(&file_over_directory, |root| {
        std::fs::create_dir(root.join("dir")).expect("it")
    });
    assert!(
        result
            .expect_err("a directory in the way")
            .to_string()
            .contains("/dir")
    );
}

#[test]
fn damaged_packages_are_refused_without_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, root) = (
        directory.path().join("p.deb"),
        directory.path().join("root"),
    );
    std::fs::create_dir(&root).expect("a directory");
    let good = Package::new("p", "1").compressed(Compression::Gzip).build();
    let attempt = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("writing");
        let deb = Deb::open(&path)?;
        deb.control()?;
        unpack(&deb, &root, Owners::Caller)
    };
    attempt(&good).expect("the good one");
    for cut in (0..good.len() - 1).step_by(7) {
        let error = attempt(&good[..cut]).expect_err("cut short");
        assert_eq!(error.kind(), ErrorKind::Malformed, "{cut}: {error}");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        let _ = attempt(&bytes);
    }
    assert_eq!(
        Deb::open(Path::new("/nonexistent.deb"))
            .expect_err("missing")
            .kind(),
        ErrorKind::Io
    );
}

#[test]
fn many_packages_are_unpacked_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    let kinds = [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::None,
    ];
    let debs: Vec<_> = (0..12)
        .map(|n| {
            let path = directory.path().join(format!("{n:02}.deb"));
            let package = Package::new("p", &n.to_string())
                .entry(Entry::file(&format!("./own-{n}"), vec![b'x'; 3_000_000]))
                .compressed(kinds[n % 4]);
            std::fs::write(&path, package.build()).expect("writing");
            path
        })
        .collect();
    let mut order = Vec::new();
    let done = unpack_all(&debs, &root, owners(), 3, &mut |deb| {
        order.push(deb.to_owned())
    })
    .expect("all");
    assert_eq!(order, debs);
    assert!(done.bytes > 36_000_000);
    assert_eq!(
        std::fs::read(root.join("usr/share/p/version")).expect("it"),
        b"11\n",
        "the last one wins"
    );
    std::fs::write(&debs[5], b"junk").expect("damaging");
    let error = unpack_all(&debs, &root, owners(), 3, &mut |_| ()).expect_err("one is junk");
    assert!(error.to_string().contains("05.deb"), "{error}");
    assert_eq!(
        unpack_all(&[], &root, owners(), 3, &mut |_| ())
            .expect("none")
            .entries,
        0
    );
}

#[test]
fn dpkg_deb_accepts_fabricated_packages() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nasty.deb");
    std::fs::write(&path, nasty().build()).expect("writing");
    assert!(
        run("dpkg-deb", &["-I", &path.display().to_string()])
            .status
            .success()
    );
}
