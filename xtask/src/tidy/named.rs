//! What documents name is there: the files that they link to, and the paths of the source tree in their text.

use std::path::Path;

use super::{Findings, Tree};
use crate::workspace;

/// Directories whose paths a text names from the top of the source tree.
const HOMES: &[&str] = &["crates/", "docs/", "examples/", "xtask/"];

/// Documents that tell of the past, and so may name what is gone.
const HISTORIES: &[&str] = &["CHANGELOG.md"];

/// A document that people read as a whole, and the words that it may have.
const LONGEST: (&str, usize) = ("ARCHITECTURE.md", 1200);

/// Checks every Markdown file.
pub(super) fn check(tree: &Tree) -> Findings {
    let root = workspace::root();
    let mut findings = Findings::new();
    for (path, text) in tree.texts() {
        let is_history = HISTORIES.iter().any(|history| path == Path::new(history));
        if path.extension().is_none_or(|extension| extension != "md") || is_history {
            continue;
        }
        findings.extend(missing(path, text, &|path| root.join(path).exists()));
        findings.extend(too_long(path, text));
    }
    findings
}

/// What a document at `path` names, but is not there.
fn missing(path: &Path, text: &str, is_there: &dyn Fn(&Path) -> bool) -> Findings {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut findings = Findings::new();
    for (number, line) in (1..).zip(text.lines()) {
        let links = links(line).map(|link| folder.join(link));
        let named = named(line).map(Path::new).map(Path::to_path_buf);
        for gone in links.chain(named).filter(|file| !is_there(file)) {
            let (path, gone) = (path.display(), gone.display());
            findings.push(format!("{path}:{number}: names {gone}, which is not there"));
        }
    }
    findings
}

/// The targets of links within the source tree.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1);
    let targets = targets.filter_map(|rest| Some(rest.split_once(')')?.0));
    let targets = targets.filter(|target| !target.contains("://"));
    targets
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

/// Paths in backticks.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| HOMES.iter().any(|home| word.starts_with(home));
    quoted.filter(is_path).filter(|word| !word.contains(' '))
}

fn too_long(path: &Path, text: &str) -> Option<String> {
    let (document, most) = LONGEST;
    let words = text.split_whitespace().count();
    (path == Path::new(document) && words > most).then(|| {
        format!("{document}: {words} words, more than {most}: decisions belong into docs/design")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Findings {
        let there = ["docs/design/../b.md", "docs/design/a.md", "crates/x"];
        let is_there = |path: &Path| there.iter().any(|known| path == Path::new(known));
        missing(Path::new("docs/design/README.md"), text, &is_there)
    }

    #[test]
    fn links_and_paths_that_lead_nowhere_are_told_with_their_line() {
        let sound = "[a](a.md#part) and [b](../b.md), `crates/x`, [far](https://host.example/c.md)";
        assert_eq!(found(sound), Findings::new());
        assert_eq!(found("`crates/x --flag` and `other/y`"), Findings::new());
        assert_eq!(
            found("fine\n[c](c.md), `crates/y`"),
            [
                "docs/design/README.md:2: names docs/design/c.md, which is not there",
                "docs/design/README.md:2: names crates/y, which is not there",
            ]
        );
    }

    #[test]
    fn only_the_overview_has_a_length() {
        let text = "word ".repeat(LONGEST.1 + 1);
        assert!(too_long(Path::new("ARCHITECTURE.md"), &text).is_some());
        assert!(too_long(Path::new("ARCHITECTURE.md"), &text[5..]).is_none());
        assert!(too_long(Path::new("docs/kickstart.md"), &text).is_none());
    }
}
