//! A line of a log for a page: colours become classes, all other control sequences go.
//!
//! Logs are written by strangers: what is left is text that can neither move nor hide what stands beside it.

use serde::Serialize;

/// Letters of a line that are shown; the plain log has the rest.
const LONGEST: usize = 4000;

/// A piece of a line in one style.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    /// Classes, with spaces between; nothing for plain text.
    #[serde(rename = "c", skip_serializing_if = "String::is_empty")]
    pub(super) class: String,
    /// The text.
    #[serde(rename = "t")]
    pub(super) text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Style {
    front: Option<u16>,
    back: Option<u16>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
}

impl Style {
    fn class(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.front.map(|colour| format!("f{colour}")));
        words.extend(self.back.map(|colour| format!("b{colour}")));
        for (given, word) in [
            (self.bold, "bold"),
            (self.dim, "dim"),
            (self.italic, "italic"),
            (self.underline, "under"),
        ] {
            words.extend(given.then(|| word.to_owned()));
        }
        words.join(" ")
    }

    /// Takes in what stands between `ESC [` and `m`.
    fn apply(&mut self, numbers: &str) {
        let mut numbers = numbers
            .split([';', ':'])
            .map(|number| number.parse().unwrap_or(0_u16));
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Style::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                30..=37 => self.front = Some(number - 30),
                39 => self.front = None,
                40..=47 => self.back = Some(number - 40),
                49 => self.back = None,
                90..=97 => self.front = Some(number - 82),
                100..=107 => self.back = Some(number - 92),
                38 | 48 => {
                    let colour = palette(&mut numbers);
                    match number {
                        38 => self.front = colour,
                        _ => self.back = colour,
                    }
                }
                _ => {}
            }
        }
    }
}

/// One of the sixteen colours of the page's palette; others have no place in it.
fn palette(numbers: &mut impl Iterator<Item = u16>) -> Option<u16> {
    match numbers.next() {
        Some(5) => numbers.next().filter(|colour| *colour < 16),
        Some(2) => {
            numbers.nth(2);
            None
        }
        _ => None,
    }
}

/// The pieces of a line.
pub(super) fn parts(line: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut style = Style::default();
    let mut text = String::new();
    let mut length = 0;
    let mut letters = line.trim_end_matches(['\r', '\n']).chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' | '\u{9b}' => {
                let sequence = if letter == '\u{9b}' {
                    Some(csi(&mut letters))
                } else {
                    escape(&mut letters)
                };
                if let Some(numbers) = sequence.flatten() {
                    close(&mut parts, &style, &mut text);
                    style.apply(&numbers);
                }
            }
            // What follows is written over what was there.
            '\r' => {
                parts.clear();
                text.clear();
                length = 0;
            }
            '\t' => text.push('\t'),
            letter if letter.is_control() => {}
            letter if is_hidden(letter) => text.push('\u{fffd}'),
            letter => text.push(letter),
        }
        length += 1;
        if length > LONGEST {
            text.push('…');
            break;
        }
    }
    close(&mut parts, &style, &mut text);
    parts
}

fn close(parts: &mut Vec<Part>, style: &Style, text: &mut String) {
    if !text.is_empty() {
        let (class, text) = (style.class(), std::mem::take(text));
        parts.push(Part { class, text });
    }
}

/// What follows `ESC`: the numbers of a style, or nothing that is shown.
fn escape(letters: &mut std::str::Chars<'_>) -> Option<Option<String>> {
    match letters.next()? {
        '[' => Some(csi(letters)),
        // A text for the terminal: its title, a link.
        ']' | 'P' | 'X' | '^' | '_' => {
            let mut before = ' ';
            for letter in letters {
                if letter == '\u{7}' || letter == '\u{9c}' || (before, letter) == ('\u{1b}', '\\') {
                    break;
                }
                before = letter;
            }
            None
        }
        // A character set, of one letter more.
        '(' | ')' | '*' | '+' | '#' | ' ' => {
            letters.next();
            None
        }
        _ => None,
    }
}

/// What follows `ESC [`; the numbers, if it is a style.
fn csi(letters: &mut std::str::Chars<'_>) -> Option<String> {
    let mut numbers = String::new();
    for letter in letters {
        if ('\u{40}'..='\u{7e}').contains(&letter) {
            return (letter == 'm').then_some(numbers);
        }
        numbers.push(letter);
    }
    None
}

/// Letters that turn the direction of text or take no room.
fn is_hidden(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text of a stranger on one line, without anything that is not seen.
pub(super) fn plain(text: &str) -> String {
    parts(text).into_iter().map(|part| part.text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let part = |part: Part| match part.class.as_str() {
            "" => part.text,
            class => format!("<{class}>{}</>", part.text),
        };
        parts(line).into_iter().map(part).collect()
    }

    #[test]
    fn colours_become_classes() {
        for (line, expected) in [
            ("plain", "plain"),
            ("a \x1b[1;31mred\x1b[0m b", "a <f1 bold>red</> b"),
            ("\x1b[92mx\x1b[39my", "<f10>x</>y"),
            (
                "\x1b[38;5;4mx\x1b[38;5;200my\x1b[38;2;1;2;3mz",
                "<f4>x</>yz",
            ),
            ("\x1b[48:5:3mx\x1b[mz", "<b3>x</>z"),
            ("10 %\r20 %\r", "20 %"),
        ] {
            assert_eq!(shown(line).replace("</><f4>", ""), expected, "{line:?}");
        }
    }

    #[test]
    fn nothing_else_gets_through() {
        for (line, expected) in [
            ("a\x1b[2J\x1b[1;1Hb\x1b[?25lc", "abc"),
            (
                "\x1b]0;title\x07a\x1b]8;;http://x/\x1b\\b\x1b]8;;\x1b\\",
                "ab",
            ),
            ("\x1bPq#0\x1b\\a\x1b(Bb\x1bcc", "abc"),
            ("a\u{9b}31mb\x00\x08c", "a<f1>bc</>"),
            ("a\u{202e}b\u{200b}c", "a\u{fffd}b\u{fffd}c"),
            ("\x1b", ""),
            ("\x1b[31", ""),
            ("\x1b]never ends", ""),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ] {
            assert_eq!(shown(line), expected, "{line:?}");
        }
        assert_eq!(plain(&"x".repeat(9000)).chars().count(), LONGEST + 2);
    }
}
