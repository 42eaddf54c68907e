//! Splitting a line into words: POSIX shell quoting, comments, no expansion, no continuation lines.

use crate::limits;

/// A word with its quotes taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// First byte in the line.
    pub(crate) start: u32,
    /// One past the last byte in the line.
    pub(crate) end: u32,
}

/// Why a line has no words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A quote that is not closed, and the byte where it opens.
    OpenQuote(u32, char),
    /// A backslash that ends the line.
    Backslash(u32),
    /// More words than anybody writes.
    TooMany,
}

/// The words of a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) words: Vec<Word>,
    /// Where an unquoted `#` inside a word cut the line.
    pub(crate) cut: Option<u32>,
}

/// Splits a line (with or without its line end).
pub(crate) fn split(line: &str) -> Result<Words, Fault> {
    split_at(line, true)
}

/// Splits a line in which `#` begins no comment.
pub(crate) fn split_uncommented(line: &str) -> Result<Words, Fault> {
    split_at(line, false)
}

fn split_at(line: &str, comments: bool) -> Result<Words, Fault> {
    let mut out = Words::default();
    let mut chars = line.char_indices().peekable();
    while let Some(&(at, c)) = chars.peek() {
        if is_blank(c) {
            chars.next();
        } else if c == '#' && comments {
            break;
        } else {
            if out.words.len() >= limits::WORDS {
                return Err(Fault::TooMany);
            }
            let (word, cut) = word(&mut chars, line.len(), at, comments)?;
            out.words.push(word);
            if cut.is_some() {
                out.cut = cut;
                break;
            }
        }
    }
    Ok(out)
}

/// The first word of a line, as far as it can be told without judging its quotes.
pub(crate) fn first(line: &str) -> &str {
    let bytes = line.as_bytes();
    let blank = |b: &u8| b.is_ascii_whitespace() || matches!(b, 0x0b | 0x1c..=0x1f);
    let Some(start) = bytes.iter().position(|b| !blank(b)) else {
        return "";
    };
    let rest = line.get(start..).unwrap_or("");
    let end = rest.bytes().position(|b| blank(&b) || !b.is_ascii());
    match end {
        None => rest,
        Some(end) if rest.as_bytes().get(end).is_some_and(u8::is_ascii) => {
            rest.get(..end).unwrap_or("")
        }
        // Unicode knows more blanks.
        Some(_) => {
            let line = line.trim_start_matches(is_space);
            line.split(is_space).next().unwrap_or("")
        }
    }
}

/// What the reference takes for white space where it does not split words.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

fn word(
    chars: &mut Chars<'_>,
    len: usize,
    start: usize,
    comments: bool,
) -> Result<(Word, Option<u32>), Fault> {
    let mut text = String::new();
    let mut cut = None;
    let mut end = len;
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => single_quoted(chars, &mut text, at)?,
            '"' => double_quoted(chars, &mut text, at)?,
            '\\' => match chars.next() {
                Some((_, next)) => text.push(next),
                None => return Err(Fault::Backslash(at as u32)),
            },
            '#' if comments => {
                cut = Some(at as u32);
                end = at;
                break;
            }
            c if is_blank(c) => {
                end = at;
                break;
            }
            c => text.push(c),
        }
    }
    let (start, end) = (start as u32, end as u32);
    Ok((Word { text, start, end }, cut))
}

fn single_quoted(chars: &mut Chars<'_>, text: &mut String, open: usize) -> Result<(), Fault> {
    for (_, c) in chars {
        if c == '\'' {
            return Ok(());
        }
        text.push(c);
    }
    Err(Fault::OpenQuote(open as u32, '\''))
}

fn double_quoted(chars: &mut Chars<'_>, text: &mut String, open: usize) -> Result<(), Fault> {
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some((_, next @ ('"' | '\\'))) => text.push(next),
                Some((_, next)) => text.extend(['\\', next]),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(Fault::OpenQuote(open as u32, '"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let words = split(line).unwrap().words;
        words.into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn quotes_follow_the_posix_shell() {
        assert_eq!(texts(r#"a 'b c' "d e""#), ["a", "b c", "d e"]);
        assert_eq!(
            texts(r#"a\ b "x\"y\\z\$" 'p\q'"#),
            ["a b", r#"x"y\z\$"#, r"p\q"]
        );
        assert_eq!(texts("'' \"\""), ["", ""]);
    }

    #[test]
    fn a_hash_cuts_the_line_even_inside_a_word() {
        let words = split("rootpw abc#def ghi").unwrap();
        assert_eq!(words.words.last().unwrap().text, "abc");
        assert_eq!(words.cut, Some(10));
        assert_eq!(split("rootpw x # y").unwrap().cut, None);
    }

    #[test]
    fn faults_carry_their_column() {
        assert_eq!(split("rootpw 'abc"), Err(Fault::OpenQuote(7, '\'')));
        assert_eq!(split("rootpw \\"), Err(Fault::Backslash(7)));
    }

    #[test]
    fn spans_cover_the_quotes() {
        let words = split("lang \"en_US\" x\n").unwrap().words;
        assert_eq!((words[1].start, words[1].end), (5, 12));
        assert_eq!((words[2].start, words[2].end), (13, 14));
    }
}
