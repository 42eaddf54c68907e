//! Documents are there, and every source file says what it is for.

use super::{Findings, Tree, crate_of};
use crate::Result;

/// Files that every checkout has, and a word that each must hold.
const DOCUMENTS: &[(&str, &str)] = &[
    ("README.md", "kiln build"),
    ("ARCHITECTURE.md", "kickstart"),
    ("CONTRIBUTING.md", "cargo xtask test"),
    ("CHANGELOG.md", "#"),
    ("docs/kickstart.md", "%pre-install"),
    ("LICENSE-MIT", "MIT License"),
    ("LICENSE-APACHE", "Apache License"),
    (".ci/run", "cargo xtask test"),
    ("deny.toml", "[licenses]"),
];

/// Checks them all.
pub(super) fn check(tree: &Tree) -> Result<Findings> {
    let mut findings = Findings::new();
    for (path, word) in DOCUMENTS {
        match tree.text(path) {
            None => findings.push(format!("{path}: missing")),
            Some(text) if !text.contains(word) => {
                findings.push(format!("{path}: does not mention `{word}`"))
            }
            Some(_) => {}
        }
    }
    for (path, text) in tree.sources() {
        if !text.starts_with("//!") && !is_test(path) {
            findings.push(format!(
                "{}: does not begin with a //! line that says what it is for",
                path.display()
            ));
        }
    }
    findings.extend(manifests(tree));
    Ok(findings)
}

fn is_test(path: &std::path::Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Every crate has a description and the workspace's lints.
fn manifests(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for (path, text) in tree.texts() {
        // Deeper are workspaces of their own (fuzz targets), which have no lints to share.
        let is_manifest = path.ends_with("Cargo.toml") && path.components().count() == 3;
        if crate_of(path).is_none() || !is_manifest {
            continue;
        }
        for needed in ["description = ", "[lints]\nworkspace = true"] {
            if !text.contains(needed) {
                findings.push(format!(
                    "{}: lacks `{}`",
                    path.display(),
                    needed.replace('\n', " ")
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_silent_files_are_found() {
        let files = vec![
            ("README.md".into(), "nothing".into()),
            ("crates/x/src/lib.rs".into(), "mod a;".into()),
            ("crates/x/tests/t.rs".into(), "fn main() {}".into()),
            (
                "crates/x/Cargo.toml".into(),
                "[package]\nname = \"x\"\n".into(),
            ),
        ];
        let findings = check(&Tree { files }).unwrap();
        assert!(findings.contains(&"README.md: does not mention `kiln build`".to_owned()));
        assert!(findings.contains(&"LICENSE-MIT: missing".to_owned()));
        assert!(
            findings
                .iter()
                .any(|finding| finding.starts_with("crates/x/src/lib.rs: does not begin"))
        );
        assert!(
            !findings
                .iter()
                .any(|finding| finding.contains("tests/t.rs"))
        );
        assert!(
            findings.contains(&"crates/x/Cargo.toml: lacks `[lints] workspace = true`".to_owned())
        );
    }
}
