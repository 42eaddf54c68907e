//! Rules about the source tree that no compiler checks. Each returns its findings; an empty list is a pass.

mod circles;
mod code;
mod defaults;
mod distributions;
mod documents;
mod edges;
mod functions;
mod named;
mod names;
mod rust;
mod sizes;

use std::path::{Path, PathBuf};

use crate::{Result, workspace};

/// A rule's findings, one sentence each, with the file in front.
type Findings = Vec<String>;

/// A rule over the whole tree.
type Rule = fn(&Tree) -> Result<Findings>;

const RULES: &[(&str, Rule)] = &[
    ("crate edges", |_| edges::check()),
    ("documents", documents::check),
    ("what documents name", |tree| Ok(named::check(tree))),
    ("unsafe and async", |tree| Ok(code::check(tree))),
    ("import circles", |tree| Ok(circles::check(tree))),
    ("silent defaults", |tree| Ok(defaults::check(tree))),
    ("function sizes", |tree| Ok(functions::check(tree))),
    ("names of distributions", |tree| {
        Ok(distributions::check(tree))
    }),
    ("file sizes", |tree| Ok(sizes::check(tree))),
    ("names of machines and hosts", |tree| Ok(names::check(tree))),
];

/// The committed texts.
struct Tree {
    files: Vec<(PathBuf, String)>,
}

impl Tree {
    /// Reads every committed file that is text.
    fn read() -> Result<Tree> {
        let mut files = Vec::new();
        for path in workspace::files()? {
            let full = workspace::root().join(&path);
            let bytes = std::fs::read(&full)
                .map_err(|error| format!("reading {}: {error}", full.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push((path, text));
            }
        }
        Ok(Tree { files })
    }

    /// The Rust sources.
    fn sources(&self) -> impl Iterator<Item = (&Path, &str)> {
        let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
        self.texts().filter(move |(path, _)| is_source(path))
    }

    fn texts(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_path(), text.as_str()))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts()
            .find(|(found, _)| *found == Path::new(path))
            .map(|(_, text)| text)
    }
}

/// The crate that a path below `crates/` belongs to.
fn crate_of(path: &Path) -> Option<&str> {
    let mut parts = path.components().map(|part| part.as_os_str().to_str());
    (parts.next()? == Some("crates"))
        .then(|| parts.next().flatten())
        .flatten()
}

/// Checks every rule and prints what it finds.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read()?;
    let mut broken = 0;
    for (name, rule) in RULES {
        let findings = rule(&tree)?;
        println!(
            "{name}: {}",
            if findings.is_empty() { "ok" } else { "BROKEN" }
        );
        findings.iter().for_each(|finding| println!("  {finding}"));
        broken += findings.len();
    }
    if broken == 0 {
        Ok(())
    } else {
        Err(format!(
            "{broken} findings break the rules of the source tree"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str) -> Findings {
        let (_, rule) = RULES.iter().find(|(found, _)| *found == name).unwrap();
        rule(&Tree::read().unwrap()).unwrap()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn crates_import_downward_only() {
        assert_eq!(findings("crate edges"), NONE);
    }

    #[test]
    fn documents_are_there() {
        assert_eq!(findings("documents"), NONE);
    }

    #[test]
    fn what_documents_name_is_there() {
        assert_eq!(findings("what documents name"), NONE);
    }

    #[test]
    fn unsafe_and_async_stay_where_they_belong() {
        assert_eq!(findings("unsafe and async"), NONE);
    }

    #[test]
    fn files_import_in_one_direction() {
        assert_eq!(findings("import circles"), NONE);
    }

    #[test]
    fn no_more_is_missed_in_silence() {
        assert_eq!(findings("silent defaults"), NONE);
    }

    #[test]
    fn shared_crates_name_no_distribution() {
        assert_eq!(findings("names of distributions"), NONE);
    }

    #[test]
    fn long_functions_have_a_reason() {
        assert_eq!(findings("function sizes"), NONE);
    }

    #[test]
    fn large_files_have_a_reason() {
        assert_eq!(findings("file sizes"), NONE);
    }

    #[test]
    fn no_machine_and_no_registry_is_named() {
        assert_eq!(findings("names of machines and hosts"), NONE);
    }

    #[test]
    fn crates_are_told_by_their_path() {
        assert_eq!(
            crate_of(Path::new("crates/image/src/lib.rs")),
            Some("image")
        );
        assert_eq!(crate_of(Path::new("xtask/src/main.rs")), None);
    }
}
