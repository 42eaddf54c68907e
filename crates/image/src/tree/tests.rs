use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{XattrFlags, lsetxattr};

use super::*;

fn meta() -> Meta {
    Meta::root_owned(0o755, 1)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.walk()
        .map(|entry| String::from_utf8(entry.path).unwrap())
        .collect()
}

#[test]
fn patterns_match_whole_paths() {
    let cases = [
        ("proc/*", "proc/1", true),
        ("proc/*", "proc", false),
        ("/proc/*/", "proc/1/fd", false),
        ("var/cache/apt/*.bin", "var/cache/apt/pkgcache.bin", true),
        ("*.pyc", "usr/a.pyc", false),
        ("**/*.pyc", "usr/lib/a.pyc", true),
        ("**/*.pyc", "a.pyc", true),
        ("usr/**/x", "usr/a/b/x", true),
        ("usr/**", "usr", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ("[ab]", "a", false),
    ];
    for (pattern, path, expected) in cases {
        let found = Pattern::new(pattern).unwrap().matches(path.as_bytes());
        assert_eq!(found, expected, "{pattern} {path}");
    }
    assert!(Pattern::new("//").is_err());
}

#[test]
fn a_tree_can_be_made_and_overridden_in_memory() {
    let mut tree = Tree::new(meta());
    let file = Inode::file(meta(), Content::bytes(*b"one"));
    let id = tree.insert_all("/usr//bin/tool", file, &meta()).unwrap();
    tree.link("usr/bin/alias", id).unwrap();
    tree.insert_all("live/filesystem.dir", Inode::symlink(meta(), ".."), &meta())
        .unwrap();
    tree.set_content("usr/bin/alias", Content::zeros(9))
        .unwrap();
    assert!(matches!(&tree.inode(id).kind, Kind::File(content) if content.len() == 9));
    // A directory over a directory keeps the entries, anything else replaces it.
    tree.insert("usr", Inode::directory(Meta::root_owned(0o700, 3)))
        .unwrap();
    let expected = [
        "",
        "live",
        "live/filesystem.dir",
        "usr",
        "usr/bin",
        "usr/bin/alias",
        "usr/bin/tool",
    ];
    assert_eq!(names(&tree), expected);
    tree.insert("usr", Inode::symlink(meta(), "other")).unwrap();
    assert_eq!(names(&tree), ["", "live", "live/filesystem.dir", "usr"]);
    assert!(tree.remove("live") && !tree.remove("live") && !tree.remove("/"));
    assert_eq!(names(&tree), ["", "usr"]);
}

#[test]
fn names_and_targets_that_linux_does_not_know_are_refused() {
    let mut tree = Tree::new(meta());
    tree.insert("file", Inode::file(meta(), Content::bytes(*b"")))
        .unwrap();
    let long = "n".repeat(256);
    for path in ["", "/", ".", "a/b", "file/x", "..", "nul\0", &long] {
        let result = tree.insert(path, Inode::directory(meta()));
        assert!(result.is_err(), "{path:?}");
    }
    for target in [String::new(), "x\0".into(), "x".repeat(4096)] {
        assert!(tree.insert("link", Inode::symlink(meta(), target)).is_err());
    }
    let root = tree.root();
    assert!(tree.link("again", root).is_err());
    assert!(tree.set_content("missing", Content::zeros(1)).is_err());
}

#[test]
fn a_scan_excludes_clamps_and_drops_what_is_overlayfs_own() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path();
    fs::create_dir_all(root.join("var/cache/apt")).unwrap();
    fs::write(root.join("var/cache/apt/list"), b"x").unwrap();
    fs::write(root.join("kept"), b"kept").unwrap();
    symlink("/", root.join("link")).unwrap();
    for (name, value) in [
        ("user.overlay.origin", "a"),
        ("user.host", "b"),
        ("user.mine", "c"),
    ] {
        lsetxattr(
            root.join("kept"),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )
        .unwrap();
    }
    let options = ScanOptions {
        exclude: vec![Pattern::new("var/cache/*").unwrap()],
        clamp_mtime: Some(1000),
        drop_xattrs: vec![b"user.host".to_vec()],
        ..ScanOptions::default()
    };
    // The root itself may be named by a link.
    let alias = tempfile::tempdir().unwrap();
    symlink(root, alias.path().join("alias")).unwrap();
    let tree = Tree::scan(&alias.path().join("alias"), &options).unwrap();
    assert_eq!(names(&tree), ["", "kept", "link", "var", "var/cache"]);
    assert!(tree.walk().all(|entry| entry.inode.meta.mtime == 1000));
    let kept = tree.inode(tree.lookup("kept").unwrap());
    assert_eq!(*kept.meta.xattrs, [Xattr::new("user.mine", "c")]);
}

#[test]
fn an_acl_is_listed_as_skipped() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("file");
    fs::write(&path, b"").unwrap();
    // Version 2; owner rw, user 1000 r, group r, mask r, others none.
    let entries: [(u16, u16, u32); 5] = [
        (1, 6, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permission.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    lsetxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    let tree = Tree::scan(work.path(), &ScanOptions::default()).unwrap();
    let expected = Skipped {
        path: b"file".to_vec(),
        attribute: b"system.posix_acl_access".to_vec(),
    };
    assert_eq!(tree.skipped(), [expected]);
}

#[test]
fn content_of_a_path_is_a_regular_file_only() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("file"), b"bytes").unwrap();
    symlink("file", work.path().join("link")).unwrap();
    let content = Content::path(&work.path().join("file")).unwrap();
    let mut buffer = [0; 3];
    let reader = content.open().unwrap();
    reader.read_exact_at(&mut buffer, 2).unwrap();
    assert_eq!(&buffer, b"tes");
    assert!(reader.read_exact_at(&mut buffer, 3).is_err());
    for wrong in ["link", "missing", "."] {
        assert!(Content::path(&work.path().join(wrong)).is_err(), "{wrong}");
    }
}
