//! Rust sources as the rules read them: without comments and literals, as tokens, as modules. No parser: what a rule needs, and
//! no more.

use std::path::Path;

/// The text with comments, strings and character literals blanked out; lines stay where they are.
pub(super) fn blank(text: &str) -> String {
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
    let in_word = before.is_some_and(is_word);
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

/// The words and marks of a blanked text; `::` is one of them.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        let (token, tail) = rest.split_at(length);
        tokens.push(token);
        rest = tail.trim_start();
    }
    tokens
}

/// Whether a character belongs to a word.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tokens without the test modules inside them.
pub(super) fn without_tests(tokens: Vec<&str>) -> Vec<&str> {
    const TEST: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        if rest.starts_with(&TEST) && rest.get(9) == Some(&"{") {
            rest = rest.get(9 + block(&rest[9..])..).unwrap_or(&[]);
        } else {
            kept.push(*first);
            rest = tail;
        }
    }
    kept
}

/// How many tokens the block has that begins here, with its braces.
pub(super) fn block(tokens: &[&str]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Whether a file holds tests, examples or fuzz targets, nothing that is shipped.
pub(super) fn is_test(path: &Path) -> bool {
    let beside = ["tests", "examples", "fuzz", "benches"];
    path.ends_with("tests.rs")
        || path
            .components()
            .any(|part| beside.iter().any(|name| part.as_os_str() == *name))
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
    fn test_modules_are_left_out() {
        let text = "a::b(c);\n#[cfg(test)]\nmod tests {\n  fn d() { e }\n}\nf";
        assert_eq!(
            without_tests(tokens(text)),
            ["a", "::", "b", "(", "c", ")", ";", "f"]
        );
        assert_eq!(without_tests(tokens("#[cfg(test)] mod t {")), [""; 0]);
    }
}
