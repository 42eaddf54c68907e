//! `unsafe` stays in the sandbox crate and explains itself there; `async` stays in the server, and inside `share`.

use std::path::Path;

use super::{Findings, Tree, crate_of};

/// Crates with `async` code. The interface of `share` has none: a library below it is asynchronous.
const ASYNC: &[&str] = &["server", "share"];
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
    for (number, words) in words_by_line(&blank(text)) {
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
            report("`async` outside the server crate");
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
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.lines()
        .enumerate()
        .map(move |(number, line)| (number, line.split(|c| !is_word(c)).collect()))
}

/// The text with comments, strings and character literals blanked out; lines stay where they are.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = token_length(rest, out.chars().next_back());
        let (token, tail) = rest.split_at(length.max(c.len_utf8()));
        if length == 0 {
            out.push(c);
        } else {
            out.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = tail;
    }
    out
}

/// Bytes of the comment or literal that starts here; 0 if none does.
fn token_length(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return string(rest);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    if !in_word && (rest.starts_with('r') || rest.starts_with("br")) {
        return raw_string(rest);
    }
    0
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` and `'\n'`, but not the lifetime `'x`.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let body = at + escaped.len_utf8();
            rest.get(body..)
                .and_then(|tail| tail.find('\''))
                .map_or(0, |end| body + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#`, `br"…"`; 0 for a word that merely begins so, and for `r#name`.
fn raw_string(rest: &str) -> usize {
    let after = rest.trim_start_matches('b').strip_prefix('r').unwrap_or("");
    let hashes = after.len() - after.trim_start_matches('#').len();
    let prefix = rest.len() - after.len() + hashes;
    if !rest.get(prefix..).is_some_and(|tail| tail.starts_with('"')) {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + 1;
    rest.get(body..)
        .and_then(|tail| tail.find(&end))
        .map_or(rest.len(), |at| body + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let text = "a /* b /* c */ d */ e \"f\\\"g\" h 'i' j '\\'' k<'l> r#\"m \"n\"# o // p\nq br\"s\" r#t";
        let blanked = blank(text);
        let words: Vec<&str> = blanked.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "h", "j", "k<'l>", "o", "q", "r#t"]);
        assert_eq!(blank(text).lines().count(), 2);
    }

    #[test]
    fn broken_ends_do_not_hang() {
        for text in [
            "/* open", "\"open", "'", "'\\", "r#\"open", "r#", "/", "\"\\",
        ] {
            assert!(blank(text).len() <= text.len(), "{text}");
        }
    }

    #[test]
    fn keywords_are_found_where_they_do_not_belong() {
        let source = "// unsafe async\nunsafe { x() }\nlet s = \"unsafe\";\nasync fn f() {}\n";
        let found = |path: &str| file(Path::new(path), source);
        assert_eq!(
            found("crates/plan/src/a.rs"),
            [
                "crates/plan/src/a.rs:2: `unsafe` outside the sandbox crate",
                "crates/plan/src/a.rs:4: `async` outside the server crate",
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
