//! What the example of the first five minutes does not touch: the other releases, the whole of `@core`, and apt in scripts.

use std::fs;

use crate::disk::{SQUASHFS, extract};
use crate::harness::{Turn, text, tool};

/// The minimal definition with `@core`: packages of priority required and important, and what they recommend.
fn core(turn: &Turn) -> String {
    let minimal = fs::read_to_string(turn.path("minimal.ks")).expect("the definition");
    let (before, after) = minimal
        .split_once("%packages --nocore --exclude-weakdeps --excludedocs")
        .expect("the section");
    format!("{before}%packages{after}")
}

const SCRIPTS: &str = r#"
%post --erroronfail
set -e
dpkg --audit
test -z "$(dpkg --audit)"
apt-get -q update
apt-get -q -y --no-install-recommends install hello
apt-get -q -y purge nano
%end

%post --erroronfail
set -e
sed -i 's/^# Written by Kiln/# Changed by a script/' /etc/apt/sources.list.d/kiln.sources
rm -r /var/lib/apt/lists/*
%end
"#;

/// cron of trixie pre-depends on what depends on systemd, which pre-depends on more. And a script's apt found no packages.
#[test]
fn core_of_trixie_is_installed_and_scripts_have_its_packages() {
    let turn = Turn::warm();
    turn.write("core.ks", &(core(&turn) + SCRIPTS));
    let trixie = ["--distribution", "debian:trixie"];
    let arguments = ["build", "core.ks", "-o", "output", "--format", "raw"];
    turn.kiln(&[&arguments[..], &trixie].concat()).assert(0);
    let listed = fs::read_to_string(turn.path("output/packages.txt")).expect("the list");
    let has = |name: &str| {
        listed
            .lines()
            .any(|line| line.starts_with(&format!("{name}\t")))
    };
    assert!(has("cron") && has("cron-daemon-common"), "{listed}");
    assert!(has("hello"), "a script installed it: {listed}");
    assert!(!has("nano"), "a script removed it: {listed}");
    let manifest = fs::read(turn.path("output/manifest.json")).expect("the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let origin = |name: &str| {
        let mut all = manifest["packages"].as_array().expect("a list").iter();
        all.find(|p| p["name"] == name).map(|p| p["origin"].clone())
    };
    assert_eq!(origin("hello"), Some("script".into()));
    assert_eq!(origin("cron"), Some("system".into()));
    let disk = turn.path("output/disk.raw");
    let root = extract(&disk, SQUASHFS, turn.path("root.squashfs"));
    let list = "etc/apt/sources.list.d/kiln.sources";
    let read = tool("unsquashfs", &["-cat", &text(&root), list]);
    let sources = &read.assert(0).stdout;
    assert!(sources.starts_with("# Changed by a script"), "{sources}");
    assert!(sources.contains("Suites: trixie-security"), "{sources}");
}

/// bullseye lacked a package that Kiln adds.
#[test]
fn all_that_kiln_adds_to_bullseye_is_there() {
    let turn = Turn::warm();
    turn.write("core.ks", &core(&turn));
    turn.kiln(&["lock", "core.ks", "--distribution", "debian:bullseye"])
        .assert(0);
    let lock = fs::read_to_string(turn.path("core.kiln.lock")).expect("the lock");
    assert!(lock.contains("bullseye-security") && lock.contains("live-boot"));
}
