//! Against `git http-backend`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_git::{Credentials, Options, Remote};
use kiln_testkit::GitServer;
use kiln_testkit::git::{commit, git};

/// Fetches a revision into a directory; returns the commit and what was left out.
pub(crate) fn fetch(
    url: &str,
    revision: &str,
    into: &Path,
    options: &Options<'_>,
) -> kiln_git::Result<(String, Vec<String>)> {
    let remote = Remote::open(url, options)?;
    let found = remote.resolve(revision)?;
    let snapshot = remote.fetch(&found.commit, &std::env::temp_dir(), None)?;
    let left_out = snapshot.check_out(into)?;
    Ok((snapshot.commit(), left_out))
}

/// A tree as git has it, and as it was written: names, kinds and contents.
fn same(tree: &Path, written: &Path) {
    let list = |dir: &Path| {
        let mut list = Vec::new();
        walk(dir, dir, &mut list);
        list.sort();
        list
    };
    assert_eq!(list(tree), list(written));
}

fn walk(top: &Path, dir: &Path, list: &mut Vec<(String, String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_name() == ".git" {
            continue;
        }
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(top, &path, list);
        } else if kind.is_symlink() {
            let to = fs::read_link(&path).unwrap();
            list.push((name, "link".to_owned(), to.display().to_string().into()));
        } else {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o111;
            list.push((name, format!("{mode:o}"), fs::read(&path).unwrap()));
        }
    }
}

/// A server with the repository `lab`, and the directory of both.
fn lab() -> (tempfile::TempDir, GitServer, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let server = GitServer::start(dir.path());
    let tree = server.repository("lab");
    (dir, server, tree)
}

fn fresh(dir: &Path, name: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn branches_tags_and_commits_are_fetched() {
    let (dir, server, tree) = lab();
    let url = server.url("lab");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/b/lab.ks"), "lang en_US\n").unwrap();
    fs::write(tree.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a/b/lab.ks", tree.join("link")).unwrap();
    symlink("../../run", tree.join("a/b/up")).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    let first = commit(&tree, "main");
    git(&tree, &["tag", "-a", "-m", "a tag", "v1"]);
    git(&tree, &["tag", "light"]);
    git(&tree, &["push", "-q", "origin", "v1", "light"]);
    let tag = git(&tree, &["rev-parse", "v1"]);
    fs::write(tree.join("new"), "new").unwrap();
    let second = commit(&tree, "feature/x");
    // A branch and a tag of one name: the tag, as git has it.
    git(&tree, &["push", "-q", "origin", "HEAD:refs/heads/v1"]);

    let options = Options::default();
    for (number, (revision, commit)) in [
        ("", &first),
        ("main", &first),
        ("refs/heads/main", &first),
        ("heads/main", &first),
        ("v1", &first),
        ("light", &first),
        ("refs/tags/v1", &first),
        (&tag, &first),
        (&first, &first),
        ("feature/x", &second),
        ("refs/heads/v1", &second),
        (&second, &second),
    ]
    .into_iter()
    .enumerate()
    {
        let into = fresh(dir.path(), &format!("out-{number}"));
        let (found, left_out) = fetch(&url, revision, &into, &options).unwrap();
        assert_eq!((&found, left_out.len()), (commit, 0), "{revision}");
        if commit == &second {
            same(&tree, &into);
        } else {
            assert!(!into.join("new").exists());
            let text = fs::read_to_string(into.join("link")).unwrap();
            assert_eq!(text, "lang en_US\n");
        }
    }
    let found = Remote::open(&url, &options).unwrap().resolve("").unwrap();
    assert_eq!(found.reference.as_deref(), Some("refs/heads/main"));
    for (revision, expected) in [
        ("nowhere", "no branch, tag or reference \"nowhere\""),
        ("mai", "no branch"),
        (&first[..10], "all forty digits"),
        (&"7".repeat(40), "not our ref"),
        ("a..b", "is no name"),
        ("x\ny", "is no name"),
        ("--upload-pack=x", "is no name"),
    ] {
        let into = fresh(dir.path(), &format!("no-{}", revision.len()));
        let error = fetch(&url, revision, &into, &options).unwrap_err();
        assert!(error.to_string().contains(expected), "{revision}: {error}");
        fs::remove_dir(into).unwrap();
    }
}

#[test]
fn objects_that_are_stored_as_differences_are_made() {
    let (dir, server, tree) = lab();
    // Many versions of one text within one commit, so that the pack has long chains.
    let mut text: Vec<String> = (0..3000)
        .map(|n| format!("line {n} {}", n * 7919))
        .collect();
    for number in 0..60 {
        text[number * 13] = format!("changed {number}");
        let name = tree.join(format!("file-{number:03}"));
        fs::write(name, text.join("\n")).unwrap();
    }
    commit(&tree, "main");
    for window in ["10", "50"] {
        let bare = dir.path().join("lab");
        git(
            &bare,
            &[
                "repack", "-q", "-a", "-d", "-f", "--window", window, "--depth", "50",
            ],
        );
        let into = fresh(dir.path(), window);
        fetch(&server.url("lab"), "main", &into, &Options::default()).unwrap();
        same(&tree, &into);
    }
    let body = server.requests().pop().unwrap().body;
    assert!(String::from_utf8_lossy(&body).contains("deepen 1"));
}

#[test]
fn one_file_is_read_without_the_large_ones() {
    let (dir, server, tree) = lab();
    git(
        &dir.path().join("lab"),
        &["config", "uploadpack.allowFilter", "true"],
    );
    fs::create_dir(tree.join("ci")).unwrap();
    fs::write(tree.join("ci/cloudbuild.yaml"), "steps: []\n").unwrap();
    fs::write(tree.join("large"), "x".repeat(100_000)).unwrap();
    symlink("cloudbuild.yaml", tree.join("ci/link.yaml")).unwrap();
    let id = commit(&tree, "main");
    let remote = Remote::open(&server.url("lab"), &Options::default()).unwrap();
    let snapshot = remote.fetch(&id, dir.path(), Some(1000)).unwrap();
    assert_eq!(
        snapshot.file("ci/cloudbuild.yaml", 1000).unwrap(),
        b"steps: []\n"
    );
    assert_eq!(
        snapshot.file("./ci//cloudbuild.yaml", 10).unwrap(),
        b"steps: []\n"
    );
    for (path, expected) in [
        ("large", "more than 1000 bytes"),
        ("ci", "there is no file"),
        ("ci/cloudbuild.yaml/x", "there is no file"),
        ("ci/link.yaml", "\"link.yaml\" is a link"),
        ("../lab", "there is no file"),
        ("", "there is no file"),
    ] {
        let error = snapshot.file(path, 1000).unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
    assert_eq!(snapshot.files("ci/").unwrap(), ["cloudbuild.yaml"]);
    assert!(snapshot.files("").unwrap().contains(&"large".to_owned()));
    for dir in ["large", "none", "ci/link.yaml"] {
        let error = snapshot.files(dir).unwrap_err().to_string();
        assert!(error.contains("there is no"), "{dir}: {error}");
    }
}

#[test]
fn links_that_lead_out_and_submodules_are_left_out() {
    let (dir, server, tree) = lab();
    symlink("/etc/passwd", tree.join("absolute")).unwrap();
    symlink("../x", tree.join("up")).unwrap();
    symlink("ok", tree.join("inside")).unwrap();
    fs::write(tree.join("ok"), "ok").unwrap();
    let sub = format!("160000,{},sub", "1".repeat(40));
    git(&tree, &["update-index", "--add", "--cacheinfo", &sub]);
    git(&tree, &["add", "absolute", "up", "inside", "ok"]);
    git(&tree, &["commit", "-q", "-m", "links"]);
    git(&tree, &["push", "-q", "origin", "HEAD:refs/heads/main"]);
    let into = fresh(dir.path(), "out");
    let (_, left_out) = fetch(&server.url("lab"), "main", &into, &Options::default()).unwrap();
    assert_eq!(left_out.len(), 3, "{left_out:?}");
    assert!(
        left_out
            .iter()
            .any(|line| line.contains("the submodule sub"))
    );
    assert!(into.join("absolute").symlink_metadata().is_err());
    assert!(into.join("up").symlink_metadata().is_err());
    assert_eq!(fs::read_to_string(into.join("inside")).unwrap(), "ok");
    assert!(into.join("sub").is_dir());
}

#[test]
fn private_repositories_want_credentials() {
    let (dir, server, tree) = lab();
    fs::write(tree.join("x"), "x").unwrap();
    commit(&tree, "main");
    // bot:s3cret-token
    server.close("/lab", "Basic Ym90OnMzY3JldC10b2tlbg==");
    let url = server.url("lab");
    let into = fresh(dir.path(), "out");
    let error = fetch(&url, "main", &into, &Options::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("HTTP status 401"), "{error}");
    assert!(error.starts_with(&url), "{error}");
    let file = dir.path().join("credentials");
    let with = |password: &str| {
        let line = format!(
            "{}\n",
            url.replace("http://", &format!("http://bot:{password}@"))
        );
        fs::write(&file, line).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Options {
            credentials: Credentials::read(&file).unwrap(),
            ..Options::default()
        }
    };
    let error = fetch(&url, "main", &into, &with("wrong-token")).unwrap_err();
    assert!(!error.to_string().contains("wrong-token"), "{error}");
    fetch(&url, "main", &into, &with("s3cret-token")).unwrap();
    assert_eq!(fs::read_to_string(into.join("x")).unwrap(), "x");
}

#[test]
fn addresses_with_passwords_and_other_schemes_are_refused() {
    for (url, expected) in [
        ("https://bot:s3cret@forge.test/lab", "a name or a password"),
        ("https://token@forge.test/lab", "a name or a password"),
        ("file:///etc", "is not https://HOST/PATH"),
        ("ssh://git@forge.test/lab", "is not https://HOST/PATH"),
        ("git@forge.test:lab", "is no address"),
        ("ext::sh -c id", "is not https://HOST/PATH"),
        ("https://forge.test/lab?x=y", "more than a path"),
        ("/srv/lab", "is no address"),
    ] {
        let error = kiln_git::check_url(url).unwrap_err();
        assert!(error.contains(expected), "{url}: {error}");
        assert!(
            !error.contains("s3cret") && !error.contains("token@"),
            "{error}"
        );
    }
}
