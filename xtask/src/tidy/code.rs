//! `unsafe` stays in the sandbox crate and explains itself there; `async` stays inside `share` and `server`.

use std::path::Path;

use super::{Findings, Tree, crate_of, rust};

/// Crates with `async` code. What they offer to others has none.
const ASYNC: &[&str] = &["share", "server"];
/// Lines above an `unsafe` block in which its SAFETY comment must begin.
const SAFETY_REACH: usize = 8;

/// Checks every source file.
pub(super) fn check(tree: &Tree) -> Findings {
    tree.sources()
        .flat_map(|(path, text)| file(path, text))
        .collect()
}

fn file(path: &Path, text: &str) -> Findings {
    let home = crate_of(path);
    let mut findings = Findings::new();
    let lines: Vec<&str> = text.lines().collect();
    for (number, words) in words_by_line(&rust::blank(text)) {
        let mut report =
            |what: &str| findings.push(format!("{}:{}: {what}", path.display(), number + 1));
        if words.contains(&"unsafe") {
            if home != Some("sandbox") {
                report("`unsafe` outside the sandbox crate");
            } else if !is_explained(&lines, number) {
                report("`unsafe` without a SAFETY comment above it");
            }
        }
        if words.contains(&"async") && !home.is_some_and(|home| ASYNC.contains(&home)) {
            report("`async` outside of share and server");
        }
    }
    findings
}

fn is_explained(lines: &[&str], number: usize) -> bool {
    let above = lines
        .get(number.saturating_sub(SAFETY_REACH)..=number)
        .unwrap_or(&[]);
    above
        .iter()
        .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

fn words_by_line(code: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    code.lines()
        .enumerate()
        .map(move |(number, line)| (number, line.split(|c| !rust::is_word(c)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found_where_they_do_not_belong() {
        let source = "// unsafe async\nunsafe { x() }\nlet s = \"unsafe\";\nasync fn f() {}\n";
        let found = |path: &str| file(Path::new(path), source);
        assert_eq!(
            found("crates/plan/src/a.rs"),
            [
                "crates/plan/src/a.rs:2: `unsafe` outside the sandbox crate",
                "crates/plan/src/a.rs:4: `async` outside of share and server",
            ]
        );
        assert_eq!(
            found("crates/sandbox/src/a.rs")[0],
            "crates/sandbox/src/a.rs:2: `unsafe` without a SAFETY comment above it"
        );
        let explained = "// SAFETY: because\nunsafe { x() }\n";
        assert!(file(Path::new("crates/sandbox/src/a.rs"), explained).is_empty());
    }
}
