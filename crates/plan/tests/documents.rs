//! `docs/kickstart.md` says what the tables say. `cargo xtask docs` writes what this test checks.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use kiln_plan::configure::markdown;

/// Set by `cargo xtask docs`: write instead of compare.
const WRITE: &str = "KILN_WRITE_DOCS";

fn path(below: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(below)
}

/// Puts `content` between the lines `<!-- NAME -->` and `<!-- end of NAME -->`.
fn replaced(page: &str, name: &str, content: &str) -> String {
    let (open, close) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let start = page.find(&open).expect("the opening line") + open.len();
    let end = page[start..].find(&close).expect("the closing line") + start;
    format!("{}\n{content}\n{}", &page[..start], &page[end..])
}

/// What Kiln answers otherwise than the reference, with an example for each.
fn deviations() -> String {
    #[derive(serde::Deserialize)]
    struct Deviation {
        examples: Vec<Example>,
        differs: Vec<String>,
        reason: String,
    }
    #[derive(serde::Deserialize)]
    struct Example {
        input: String,
        #[serde(default)]
        files: BTreeMap<String, String>,
    }
    let text = fs::read_to_string(path("crates/kickstart/tests/data/deviations.json"))
        .expect("the deviations");
    let all: Vec<Deviation> = serde_json::from_str(&text).expect("JSON");
    let mut out = String::from("| for example | what differs | how and why |\n|---|---|---|\n");
    for one in all {
        let example = one.examples.first().expect("an example");
        let mut cell = code(&example.input);
        for (name, text) in &example.files {
            cell.push_str(&format!(" with {} as `{name}`", code(text)));
        }
        let cells = [cell, one.differs.join(", "), one.reason];
        let cells = cells.map(|c| c.replace('|', "\\|"));
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    out
}

/// Text as code in a table's cell.
fn code(text: &str) -> String {
    let line = text.trim_end().replace('`', "'").replace('\n', "⏎");
    let short: String = line.chars().take(100).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("`{short}{more}`")
}

#[test]
fn the_page_about_kickstart_is_fresh() {
    let file = path("docs/kickstart.md");
    let page = fs::read_to_string(&file).expect("docs/kickstart.md");
    let fresh = replaced(
        &replaced(&page, "commands", &markdown()),
        "deviations",
        &deviations(),
    );
    if std::env::var_os(WRITE).is_some() {
        return fs::write(&file, fresh).expect("docs/kickstart.md is written");
    }
    assert!(
        page == fresh,
        "docs/kickstart.md is stale: run `cargo xtask docs` and commit it"
    );
}
