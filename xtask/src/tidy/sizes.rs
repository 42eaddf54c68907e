//! Long files need a reason.

use std::path::Path;

use super::{Findings, Tree};

/// Lines above which a source file needs an entry in [`LARGE`].
const LIMIT: usize = 800;

/// Source files over the limit, and why each is one file.
const LARGE: &[(&str, &str)] = &[];

/// Checks every source file.
pub(super) fn check(tree: &Tree) -> Findings {
    findings(tree, LARGE)
}

fn findings(tree: &Tree, large: &[(&str, &str)]) -> Findings {
    let mut findings = Findings::new();
    let reason = |path: &Path| large.iter().find(|(known, _)| Path::new(known) == path);
    for (path, text) in tree.sources() {
        let lines = text.lines().count();
        match reason(path) {
            None if lines > LIMIT => findings.push(format!(
                "{}: {lines} lines; split it, or give a reason in xtask/src/tidy/sizes.rs",
                path.display()
            )),
            Some(_) if lines <= LIMIT => {
                findings.push(format!(
                    "{}: only {lines} lines; its reason can go",
                    path.display()
                ));
            }
            _ => {}
        }
    }
    for (known, _) in large {
        if tree.text(known).is_none() {
            findings.push(format!(
                "{known}: has a reason to be long, but is not there"
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_need_a_reason_and_reasons_need_a_long_file() {
        let long = "\n".repeat(LIMIT + 1);
        let files = vec![
            ("a.rs".into(), long.clone()),
            ("b.rs".into(), long),
            ("c.rs".into(), String::new()),
        ];
        let found = findings(
            &Tree { files },
            &[("b.rs", "why"), ("c.rs", "why"), ("d.rs", "why")],
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("a.rs: 801 lines"));
        assert!(found[1].starts_with("c.rs: only 0 lines"));
        assert!(found[2].starts_with("d.rs: has a reason"));
    }
}
