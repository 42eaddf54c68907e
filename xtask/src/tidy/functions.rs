//! Long functions need a reason.

use super::{Findings, Tree, rust};

/// Lines above which a function needs an entry in [`LONG`].
const LIMIT: usize = 70;

/// Functions over the limit by the folder they stand in, and why each is one function.
const LONG: &[(&str, &str, &str)] = &[
    ("crates/engine", "no_text_of_an_event_is_left_out", TABLE),
    ("crates/engine", "scripts", STEPS),
    ("crates/cli", "take", ARMS),
    (
        "crates/cli",
        "a_script_reaches_other_machines_and_not_this_one",
        STORY,
    ),
    (
        "crates/cli",
        "a_vendored_directory_builds_without_a_network",
        STORY,
    ),
    ("crates/kickstart", "packages", TABLE),
    (
        "crates/plan",
        "files_of_a_project_go_to_their_layers",
        STORY,
    ),
    ("crates/rootfs", "no_path_leads_out", TABLE),
    (
        "crates/rootfs",
        "functions_answer_as_the_programs_do",
        TABLE,
    ),
    ("crates/rootfs", "accounts_need_root_and_network", STORY),
    ("crates/rootfs", "closed", STORY),
    ("crates/testkit", "apply", ARMS),
    ("xtask", "pair", ARMS),
];

const ARMS: &str = "one match whose arms are short and need the same names";
const STEPS: &str = "steps in their order, each of which needs most of what the one before it has";
const STORY: &str = "a test that is one story, told from its beginning to its end";
const TABLE: &str = "a table of cases";

/// Checks every source file, tests too.
pub(super) fn check(tree: &Tree) -> Findings {
    findings(tree, LONG)
}

fn findings(tree: &Tree, long: &[(&str, &str, &str)]) -> Findings {
    let mut findings = Findings::new();
    let mut reasons: Vec<&(&str, &str, &str)> = long.iter().collect();
    for (path, text) in tree.sources() {
        for Function { name, line, lines } in functions(&rust::blank(text)) {
            if lines <= LIMIT {
                continue;
            }
            let is_it =
                |(file, known, _): &&(&str, &str, &str)| path.starts_with(file) && *known == name;
            match reasons.iter().position(is_it) {
                Some(at) => drop(reasons.swap_remove(at)),
                None => findings.push(format!(
                    "{}:{line}: `{name}` has {lines} lines; split it, or give a reason in {}",
                    path.display(),
                    file!()
                )),
            }
        }
    }
    let idle = |(file, name, _): &(&str, &str, &str)| {
        format!("{file}: `{name}` is not long, or not there; its reason can go")
    };
    findings.extend(reasons.into_iter().map(idle));
    findings
}

struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// The functions of a blanked source that have a body.
fn functions(code: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code.get(..at).unwrap_or("");
        let after = code.get(at + "fn ".len()..).unwrap_or("");
        let name = after.split(|c| !rust::is_word(c)).next().unwrap_or("");
        if before.ends_with(rust::is_word) || name.is_empty() {
            continue;
        }
        if let Some(length) = with_body(after) {
            let newlines = |text: Option<&str>| text.unwrap_or("").matches('\n').count();
            functions.push(Function {
                name,
                line: newlines(Some(before)) + 1,
                lines: newlines(after.get(..length)) + 1,
            });
        }
    }
    functions
}

/// How long a function is, signature and body; nothing where a `;` ends its signature.
fn with_body(text: &str) -> Option<usize> {
    let (mut round, mut curly) = (0_usize, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            ';' if round == 0 && curly == 0 => return None,
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            '{' => curly += 1,
            '}' if curly <= 1 => return Some(at),
            '}' => curly -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured() {
        let code = "trait T { fn a(&self) -> [u8; 3]; }\nfn b<F: Fn()>(\n  f: fn (u8),\n) {\n  fn c() {}\n  { x }\n}\n";
        let found = functions(code);
        let facts: Vec<_> = found.iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(facts, [("b", 2, 6), ("c", 5, 1)]);
        assert!(functions("fn broken(").is_empty());
    }

    #[test]
    fn long_functions_need_a_reason_and_reasons_a_long_function() {
        let long = format!("fn a() {{{}}}\n", "\n".repeat(LIMIT));
        let files = vec![("a.rs".into(), long.clone()), ("b.rs".into(), long)];
        let reasons = [("b.rs", "a", "why"), ("b.rs", "gone", "why")];
        let found = findings(&Tree { files }, &reasons);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.rs:1: `a` has 71 lines"));
        assert!(found[1].starts_with("b.rs: `gone` is not long"));
    }
}
