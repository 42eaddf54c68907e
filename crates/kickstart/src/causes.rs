//! What is really wrong with a line that looks right: characters that only look like others, templates that nobody
//! expanded, several names where one may stand.

use crate::words::Word;

/// A cause, with the byte columns of what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) code: &'static str,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// One sentence about the line.
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// Looks for a cause in the words of a command line.
pub(crate) fn of_words(line: &str, words: &[Word]) -> Option<Cause> {
    let lookalikes = words.iter().find_map(|word| {
        let raw = line.get(word.start as usize..word.end as usize)?;
        let quoted = raw.contains(['"', '\'', '\\']);
        lookalike(raw, word.start as usize).filter(|c| !quoted || c.code == "quote-lookalike")
    });
    lookalikes.or_else(|| placeholder(line))
}

/// Looks for a cause in a line of `%packages`, whose text begins at a column.
pub(crate) fn of_package(text: &str, start: usize) -> Option<Cause> {
    lookalike(text, start)
        .or_else(|| placeholder(text).map(|c| moved(c, start)))
        .or_else(|| several(text, start))
}

fn moved(mut cause: Cause, by: usize) -> Cause {
    cause.start += by;
    cause.end += by;
    cause
}

fn lookalike(word: &str, start: usize) -> Option<Cause> {
    let (at, c) = word.char_indices().find(|(at, c)| {
        let first = *at == 0 || word.get(..*at).is_some_and(|w| w.ends_with('='));
        is_odd_blank(*c) || (first && (is_odd_quote(*c) || is_odd_dash(*c)))
    })?;
    let (code, name, help) = match c {
        c if is_odd_blank(c) => (
            "blank-lookalike",
            "this is not a plain space",
            "type a plain space in its place",
        ),
        c if is_odd_quote(c) => (
            "quote-lookalike",
            "this is not a plain quote",
            "type a plain \" or ' in its place",
        ),
        _ => (
            "dash-lookalike",
            "this is not a plain hyphen",
            "type plain hyphens (`--` before an option) in its place",
        ),
    };
    Some(Cause {
        code,
        start: start + at,
        end: start + at + c.len_utf8(),
        message: format!(
            "{name} but U+{:04X}, which word processors write",
            u32::from(c)
        ),
        help,
    })
}

fn is_odd_blank(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

fn is_odd_quote(c: char) -> bool {
    matches!(c, '\u{2018}'..='\u{201f}')
}

fn is_odd_dash(c: char) -> bool {
    matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// `{{ name }}`, `{% if %}`, `${name}` and `@NAME@`.
fn placeholder(line: &str) -> Option<Cause> {
    let pairs = [("{{", "}}"), ("{%", "%}"), ("${", "}")];
    let braces = pairs.iter().find_map(|(open, close)| {
        let start = line.find(open)?;
        let length = line.get(start..)?.find(close)? + close.len();
        Some((start, start + length))
    });
    let (start, end) = braces.or_else(|| between_at_signs(line))?;
    Some(Cause {
        code: "placeholder",
        start,
        end,
        message: "the file is a template that was not expanded".to_owned(),
        help: "expand it first, and give Kiln what comes out",
    })
}

fn between_at_signs(line: &str) -> Option<(usize, usize)> {
    let mut signs = line.match_indices('@').map(|(at, _)| at).peekable();
    while let Some(start) = signs.next() {
        let end = *signs.peek()?;
        let name = line.get(start + 1..end).unwrap_or("");
        let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.len() > 1 && name.bytes().all(fits) {
            return Some((start, end + 1));
        }
    }
    None
}

/// `vim nano` and `vim,`: the line is one name, whatever is in it.
fn several(text: &str, start: usize) -> Option<Cause> {
    let name = text.trim_start_matches('-');
    if name.starts_with('@') || !name.contains([' ', '\t', ',', ';']) {
        return None;
    }
    Some(Cause {
        code: "several-packages",
        start,
        end: start + text.len(),
        message: "the whole line is read as the name of one package".to_owned(),
        help: "write one name a line, and nothing after it",
    })
}

/// What a file is that has no line of a kickstart, as far as its beginning tells; and what to do.
pub(crate) fn of_file(text: &str) -> (String, &'static str) {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    let first = start.lines().next().unwrap_or("");
    if let Some(interpreter) = first.strip_prefix("#!") {
        return (
            format!("this is a script for {}, no kickstart", interpreter.trim()),
            "put its lines into a section: `%post --interpreter=…` above, `%end` below",
        );
    }
    let what = match start.chars().next() {
        Some('<') => "a web page, or another XML document",
        Some('{') => "JSON",
        Some('[') => "TOML or an INI file",
        _ => "something else",
    };
    (
        format!("this is no kickstart, but {what}: none of its lines is a command"),
        "check which file is meant; what belongs into a section is checked with the file that includes it (-i)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Option<&'static str> {
        let words = crate::words::split(line).expect("words").words;
        of_words(line, &words).map(|c| c.code)
    }

    #[test]
    fn lookalikes_are_found_where_they_harm() {
        assert_eq!(code("lang\u{a0}en_US"), Some("blank-lookalike"));
        assert_eq!(
            code("rootpw \u{201c}secret\u{201d}"),
            Some("quote-lookalike")
        );
        assert_eq!(code("part / \u{2014}size=1"), Some("dash-lookalike"));
        assert_eq!(code("user --gecos=\u{201c}A"), Some("quote-lookalike"));
        assert_eq!(
            code("user --gecos=\"Jean\u{a0}\u{2013} l\u{2019}ami\""),
            None
        );
    }

    #[test]
    fn placeholders_are_told_from_values() {
        for line in [
            "lang {{ lang }}",
            "rootpw ${PASSWORD}",
            "url --url=@URL@",
            "{% if x %}",
        ] {
            assert_eq!(code(line), Some("placeholder"), "{line}");
        }
        for line in [
            "url --url=http://x/$releasever",
            "user --name=a --gecos=a@b",
            "rootpw --iscrypted '$6$a$b'",
            "@core@x",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
    }

    #[test]
    fn one_package_a_line() {
        let code = |text: &str| of_package(text, 0).map(|c| c.code);
        for text in ["vim nano", "vim,", "-vim nano", "vim\u{a0}nano"] {
            assert!(code(text).is_some(), "{text}");
        }
        for text in [
            "vim",
            "@Core Group",
            "gcc-*",
            "lib[ab]c",
            "python3-foo.noarch",
            "@core --nodefaults",
        ] {
            assert_eq!(code(text), None, "{text}");
        }
    }
}
