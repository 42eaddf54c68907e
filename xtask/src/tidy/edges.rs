//! Which crate may use which: the drawing in ARCHITECTURE.md as a table.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Findings;
use crate::{Result, workspace};

/// A crate, and the crates of ours that it may use. Imports go downward only, and `kickstart`, `packages`, `sandbox`
/// and `image` know nothing of the others.
const ALLOWED: &[(&str, &[&str])] = &[
    ("buildfile", &[]),
    ("digest", &[]),
    ("git", &[]),
    ("kickstart", &[]),
    ("share", &["digest"]),
    ("packages", &["digest"]),
    ("sandbox", &[]),
    ("image", &[]),
    ("plan", &["digest", "kickstart"]),
    (
        "rootfs",
        &["digest", "kickstart", "plan", "packages", "sandbox"],
    ),
    (
        "engine",
        &[
            "digest",
            "kickstart",
            "plan",
            "packages",
            "rootfs",
            "image",
            "sandbox",
            "share",
        ],
    ),
    ("vm", &["sandbox"]),
    ("client", &["buildfile", "digest", "git"]),
    (
        "server",
        &["buildfile", "digest", "git", "sandbox", "share"],
    ),
    (
        "cli",
        &[
            "digest",
            "kickstart",
            "plan",
            "packages",
            "sandbox",
            "rootfs",
            "image",
            "engine",
            "vm",
            "client",
            "server",
        ],
    ),
    ("testkit", &["digest"]),
];

/// Crates of async runtimes: only `share` and `server` may use them, whose interfaces are synchronous.
const ASYNC_RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "futures", "hyper", "reqwest"];
const ASYNC: &[&str] = &["share", "server"];

/// Checks the dependencies that `cargo metadata` lists.
pub(super) fn check() -> Result<Findings> {
    Ok(findings(&workspace::metadata()?))
}

fn findings(metadata: &Value) -> Findings {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut findings = Findings::new();
    for package in list(&metadata["packages"]) {
        let name = text(&package["name"]);
        let Some(short) = name.strip_prefix("kiln-") else {
            continue;
        };
        let Some(allowed) = allowed.get(short) else {
            findings.push(format!("{name}: not in the table of crate edges"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let target = text(&dependency["name"]);
            let is_test = dependency["kind"] == "dev";
            if let Some(ours) = target.strip_prefix("kiln-")
                && !allowed.contains(&ours)
                && !(is_test && ours == "testkit")
            {
                findings.push(format!("{name}: must not use {target}"));
            }
            if !is_test && !ASYNC.contains(&short) && ASYNC_RUNTIMES.contains(&target) {
                findings.push(format!(
                    "{name}: must not use {target}, only share and server are async inside"
                ));
            }
        }
    }
    findings
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

    #[test]
    fn upward_edges_are_found() {
        let bad = package("kiln-image", json!([{ "name": "kiln-plan", "kind": null }]));
        assert_eq!(findings(&bad), ["kiln-image: must not use kiln-plan"]);
        let test_only = package(
            "kiln-image",
            json!([{ "name": "kiln-testkit", "kind": "dev" }]),
        );
        assert!(findings(&test_only).is_empty());
        let shipped = package(
            "kiln-image",
            json!([{ "name": "kiln-testkit", "kind": null }]),
        );
        assert_eq!(
            findings(&shipped),
            ["kiln-image: must not use kiln-testkit"]
        );
    }

    #[test]
    fn unknown_crates_and_runtimes_are_found() {
        assert_eq!(
            findings(&package("kiln-new", json!([]))),
            ["kiln-new: not in the table of crate edges"]
        );
        let bad = package("kiln-vm", json!([{ "name": "tokio", "kind": null }]));
        assert_eq!(
            findings(&bad),
            ["kiln-vm: must not use tokio, only share and server are async inside"]
        );
    }

    #[test]
    fn the_table_has_no_loop() {
        // Every crate stands below all that use it: its allowed crates can be removed one after the other.
        let mut left: Vec<_> = ALLOWED.to_vec();
        while !left.is_empty() {
            let before = left.len();
            let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
            left.retain(|(_, uses)| uses.iter().any(|used| names.contains(used)));
            assert!(left.len() < before, "a loop among {names:?}");
        }
    }
}
