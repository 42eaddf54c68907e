//! An ordinary user without any distribution tool gets the image that root gets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::disk::unpack;
use crate::harness::{LONGEST, Ran, Turn, base, cache, image, run, text, tool};
use crate::residue::names;
use crate::security::neighbours::{FAILING, NEIGHBOUR, TEMPTING, assert_closed, control};

/// The account, with ranges of subordinate ids, that `cargo xtask prerequisites` makes.
pub(crate) const USER: &str = "kilntest";

/// The user's cache has the packages of the lock, and nothing else. What vouches for them lies beside the lock.
fn give_packages(turn: &Turn) {
    let kept = text(&base().join("minimal.kiln.lock.metadata"));
    tool("cp", &["-a", &kept, &text(&turn.path("."))]).assert(0);
    let store = turn.path("cache/downloads/sha256");
    let lock = fs::read_to_string(turn.path("minimal.kiln.lock")).expect("the lock");
    let mut given = 0;
    for line in lock.lines() {
        let mut fields = line.split(' ');
        let Some(digest) = fields.find_map(|field| field.strip_prefix("sha256=")) else {
            continue;
        };
        if !line.starts_with("package ") {
            continue;
        }
        let name = Path::new(&digest[..2]).join(digest);
        fs::create_dir_all(store.join(&digest[..2])).expect("a store");
        let package = cache().join("downloads/sha256").join(&name);
        fs::copy(package, store.join(&name)).expect("a package");
        given += 1;
    }
    assert!(given > 100, "only {given} packages are in the lock");
}

#[test]
fn a_user_builds_what_root_builds() {
    let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
    assert!(
        ranges
            .lines()
            .any(|line| line.split(':').next() == Some(USER)),
        "there is no user {USER} with subordinate ids: `cargo xtask prerequisites` makes one"
    );
    let turn = Turn::warm();
    let program = turn.path("kiln");
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &program)
        .expect("a copy of kiln that everybody can reach");
    give_packages(&turn);
    fs::create_dir_all(turn.path("output")).expect("an output");
    tool("chown", &["-R", USER, &text(&turn.path("."))]).assert(0);
    build(&turn, &[]).assert(0);
    let left = turn
        .before
        .since(&turn.path("nowhere"), &turn.path("cache"));
    assert!(left.is_empty(), "{left:?}");
    let root = listing(&turn, "by-root", &image().join("disk.raw"));
    let user = listing(&turn, "by-user", &turn.path("output/disk.raw"));
    let differ: Vec<&String> = root.symmetric_difference(&user).collect();
    assert!(
        differ.is_empty(),
        "{} lines differ: {:#?}",
        differ.len(),
        &differ[..differ.len().min(50)]
    );
    closed_to_the_neighbours(&turn);
}

/// Builds as the user.
fn build(turn: &Turn, more: &[&str]) -> Ran {
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
        .arg(turn.path("kiln"));
    command.args([
        "build",
        "minimal.ks",
        "--distribution",
        "debian:bookworm",
        "--cache-dir",
        "cache",
        "--offline",
        "--locked",
    ]);
    // No path at all: newuidmap and newgidmap are not looked for there.
    command
        .args(more)
        .env_clear()
        .env("HOME", turn.path("home"))
        .env("PATH", "/nonexistent")
        .current_dir(turn.path("."));
    run(&mut command, LONGEST)
}

/// A promise of `docs/security.md`, kept here because the user's cache is warm now.
fn closed_to_the_neighbours(turn: &Turn) {
    turn.minimal_with(TEMPTING);
    let format = ["--format", "raw", "-o"];
    build(turn, &[&format[..], &["output"]].concat()).assert(0);
    build(turn, &[&format[..], &["new"]].concat()).assert(0);
    turn.minimal_with(&format!("{TEMPTING}{FAILING}"));
    build(turn, &[&format[..], &["output"]].concat()).assert(4);
    let mut left = ["cache", "home/.local/state/kiln", "new"]
        .map(|name| turn.path(name))
        .to_vec();
    let made = names(&turn.path("output")).into_iter();
    left.extend(made.map(|name| turn.path("output").join(name)));
    assert_closed(NEIGHBOUR, &control(turn), &left);
}

/// Everything about a root: types, modes, owners, times, sizes, targets, link counts, contents, extended attributes.
fn listing(turn: &Turn, name: &str, disk: &Path) -> BTreeSet<String> {
    let tree = unpack(disk, turn.path(name));
    let script = "set -e; cd \"$1\"; find . -type d -printf '%P %y %m %U %G %T@\\n'; \
        find . -not -type d -printf '%P %y %m %U %G %T@ %s %n %l\\n'; \
        find . -type f -print0 | xargs -0 sha256sum; \
        getfattr -R -h -d -m - -e hex . | awk '/^# file/ {f=$0; next} NF {print f, $0}'";
    let all = tool("sh", &["-c", script, "sh", &text(&tree)]);
    all.assert(0);
    assert!(all.stdout.lines().count() > 10_000, "{}", all.whole());
    all.stdout.lines().map(str::to_owned).collect()
}
