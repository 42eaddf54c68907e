//! Texts: decoding, lines, and where includes come from.

use crate::Span;

/// A text that an `%include` or `%ksappend` named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The name as shown to people; also what an include loop is recognised by.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Why a text cannot be brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// One sentence which names what was tried.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl LoadError {
    /// Makes the error for a text that is not in the file system; [`include_candidates`] says where it is looked for.
    pub fn not_found(message: impl Into<String>) -> Self {
        LoadError {
            message: message.into(),
            help: "paths are looked for from the working directory, then beside the including file"
                .to_owned(),
        }
    }
}

/// Brings the texts that `%include` and `%ksappend` name.
pub trait Loader {
    /// Brings `path` (a path or URL as written), which the text named `from` includes.
    ///
    /// # Errors
    /// It cannot be had; the message names what was tried.
    fn load(&mut self, path: &str, from: &str) -> Result<Loaded, LoadError>;
}

/// A loader for texts that must stand alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIncludes;

impl Loader for NoIncludes {
    fn load(&mut self, path: &str, _from: &str) -> Result<Loaded, LoadError> {
        Err(LoadError {
            message: format!("cannot read `{path}`: includes are not available here"),
            help: "put its lines in its place".to_owned(),
        })
    }
}

/// Returns whether an include names a place on the network.
pub fn is_url(path: &str) -> bool {
    path.contains("://")
}

/// Returns where an included path is looked for, in this order: as written (a URL, an absolute path, or relative to the
/// working directory), then in the directory of the file that includes it.
///
/// A text from the network has no working directory: its relative includes are beside it and nowhere else, so that it
/// cannot read what lies about where somebody happens to run a build.
pub fn include_candidates(path: &str, from: &str) -> Vec<String> {
    let relative = !path.starts_with('/') && !is_url(path);
    if !relative {
        return vec![path.to_owned()];
    }
    let plain = |url: &str| url.split(['?', '#']).next().unwrap_or(url).to_owned();
    let beside = |from: &str| {
        let (directory, _) = from.rsplit_once('/')?;
        Some(format!("{directory}/{path}"))
    };
    if is_url(from) {
        return beside(&plain(from)).into_iter().collect();
    }
    std::iter::once(path.to_owned())
        .chain(beside(from))
        .collect()
}

/// Bytes as text, and the place of the first byte that is not UTF-8.
pub(crate) fn decode(bytes: &[u8]) -> (String, Option<usize>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(e) => (
            String::from_utf8_lossy(bytes).into_owned(),
            Some(e.valid_up_to()),
        ),
    }
}

/// What bytes are that are no text in UTF-8 at all, as opposed to one with a wrong letter: a sentence, and what to do.
pub(crate) fn not_text(bytes: &[u8]) -> Option<(String, &'static str)> {
    let zeros = bytes.iter().filter(|b| **b == 0).count();
    let mark = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    // Latin letters in UTF-16 are every other byte zero.
    if mark || (zeros > 0 && zeros * 5 > bytes.len() * 2) {
        return Some((
            "the file is UTF-16, not UTF-8".to_owned(),
            "convert it with `iconv -f utf-16 -t utf-8`",
        ));
    }
    let formats: [(&[u8], &str); 8] = [
        (b"\x1f\x8b", "compressed with gzip"),
        (b"\xfd7zXZ", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"BZh", "compressed with bzip2"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x7fELF", "a program"),
        (b"!<arch>", "an archive, such as a Debian package"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
    ];
    let format = formats.iter().find(|(magic, _)| bytes.starts_with(magic));
    let control = |b: &&u8| **b < 0x20 && !b.is_ascii_whitespace() && **b != 0x1b && **b != 0x0b;
    let controls = bytes.iter().filter(control).count();
    let binary = std::str::from_utf8(bytes).is_err() && controls * 20 > bytes.len();
    if format.is_none() && !binary {
        return None;
    }
    let is = format.map_or("binary data", |(_, is)| is);
    Some((
        format!("the file is no text: it is {is}"),
        "check which file is meant, and unpack it if it is packed",
    ))
}

/// One line with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// From 1.
    pub(crate) number: u32,
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    /// The line without its end.
    pub(crate) fn content(&self) -> &'a str {
        self.text.trim_end_matches(is_break)
    }
}

/// The lines of a text. Beside `\n` and `\r\n`, the reference breaks lines wherever Python's `str.splitlines` does.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> + Clone {
    let mut rest = text;
    let mut number = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (text, tail) = rest.split_at(line_length(rest));
        rest = tail;
        number += 1;
        Some(Line { number, text })
    })
}

fn is_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Length of the first line with its end.
fn line_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut from = 0;
    while let Some(rest) = bytes.get(from..) {
        let Some(at) = rest.iter().position(|b| MAY_BREAK[usize::from(*b)]) else {
            break;
        };
        let at = from + at;
        if let Some(length) = break_length(bytes.get(at..).unwrap_or(&[])) {
            return at + length;
        }
        from = at + 1;
    }
    text.len()
}

/// Bytes with which a line break can begin.
const MAY_BREAK: [bool; 256] = {
    let mut table = [false; 256];
    let firsts = [b'\n', b'\r', 0x0b, 0x0c, 0x1c, 0x1d, 0x1e, 0xc2, 0xe2];
    let mut index = 0;
    while index < firsts.len() {
        table[firsts[index] as usize] = true;
        index += 1;
    }
    table
};

/// Length of the line break that the bytes begin with, if they do.
fn break_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\r', b'\n', ..] => Some(2),
        [b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e, ..] => Some(1),
        [0xc2, 0x85, ..] => Some(2),
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some(3),
        _ => None,
    }
}

/// The text of the line that a span stands in.
pub(crate) fn line_at(text: &str, span: Span) -> Option<&str> {
    let index = (span.line as usize).checked_sub(1)?;
    lines(text).nth(index).map(|l| l.content())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_where_the_reference_breaks_them() {
        let text = "a\nb\r\nc\rd\x0be\x0cf\x1cg\u{85}h\u{2028}i\u{2029}é\n\n";
        let all: Vec<_> = lines(text).map(|l| l.content()).collect();
        assert_eq!(all, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "é", ""]);
        assert_eq!(lines(text).map(|l| l.text.len()).sum::<usize>(), text.len());
    }

    #[test]
    fn includes_are_looked_for_beside_the_including_file() {
        assert_eq!(include_candidates("a.ks", "d/m.ks"), ["a.ks", "d/a.ks"]);
        assert_eq!(include_candidates("/a.ks", "d/m.ks"), ["/a.ks"]);
        assert_eq!(
            include_candidates("https://x/a.ks", "d/m.ks"),
            ["https://x/a.ks"]
        );
        assert_eq!(include_candidates("a.ks", "m.ks"), ["a.ks"]);
    }
}
