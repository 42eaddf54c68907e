//! Text of untrusted origin, made harmless before anybody stores or shows it.
//!
//! What packages and scripts print, and what kickstart files, repositories and file names bring along, ends up in logs, on
//! terminals and pages. All of it passes through here once, where events are made, so that no reader of an event, of the build log or
//! of a failure has to think of it: escape sequences are gone, other control characters are spelt out.

use std::borrow::Cow;

use crate::{Event, Failure};

/// Takes escape sequences (ECMA-48 control sequences and strings) out of a text, so that it can neither recolour a terminal nor
/// move its cursor nor set its title. Of a line that redraws itself with carriage returns the last state stays. Other control
/// characters but tabs, and those that reverse the reading direction (Unicode UAX #9), are spelt out. Lines stay lines.
pub fn neutral(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hostile(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let lines: Vec<String> = text.split('\n').map(line).collect();
    Cow::Owned(lines.join("\n"))
}

fn line(text: &str) -> String {
    let text = text.trim_end_matches('\r');
    let text = text
        .rsplit('\r')
        .find(|part| !part.is_empty())
        .unwrap_or("");
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            c if is_hostile(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// Whether a character can do more to its reader than to be read. Tabs cannot.
pub fn is_hostile(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Skips what follows an ESC.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next_if(|c| !c.is_control()) {
        Some('[') => skip_control_sequence(chars),
        // Operating system command, device control, privacy message, application program command, start of string.
        Some(']' | 'P' | '^' | '_' | 'X') => skip_control_string(chars),
        // Intermediate bytes, then one final byte: `ESC ( B` selects a character set.
        Some(' '..='/') => {
            while chars.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            chars.next_if(|c| matches!(c, '0'..='~'));
        }
        _ => {}
    }
}

/// Skips parameter, intermediate and final bytes.
fn skip_control_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|c| matches!(c, '@'..='~'));
}

/// Skips up to BEL or `ESC \`; an unclosed one runs to the end of the line.
fn skip_control_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(c) = chars.next() {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' if chars.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
}

fn clean(text: &mut String) {
    if let Cow::Owned(changed) = neutral(text) {
        *text = changed;
    }
}

fn clean_all<'t>(texts: impl IntoIterator<Item = &'t mut String>) {
    texts.into_iter().for_each(clean);
}

impl Event {
    /// The same with every text made harmless by [`neutral`].
    #[must_use]
    pub fn neutral(mut self) -> Event {
        match &mut self {
            Event::BuildStarted { name, plan_id } => clean_all([name, plan_id]),
            Event::StepStarted {
                title, layer, why, ..
            } => clean_all([title].into_iter().chain(layer).chain(why)),
            Event::StepCached { title, layer, .. } => clean_all([title].into_iter().chain(layer)),
            Event::Progress { item, .. } => clean_all(item),
            Event::Log { line, .. } => clean(line),
            Event::Warning {
                message,
                origin,
                hint,
                ..
            } => clean_all([message].into_iter().chain(origin).chain(hint)),
            Event::StepFinished { summary, .. } => clean_all(summary),
            Event::BuildFailed { failure } => failure.clean(),
            // Their texts are paths that the user chose.
            Event::StepFailed { .. } | Event::Artifact { .. } | Event::BuildFinished { .. } => {}
        }
        self
    }
}

impl Failure {
    /// The same with every text made harmless by [`neutral`].
    #[must_use]
    pub fn neutral(mut self) -> Failure {
        self.clean();
        self
    }

    fn clean(&mut self) {
        clean(&mut self.message);
        let optional = [
            &mut self.layer,
            &mut self.origin,
            &mut self.excerpt,
            &mut self.package,
            &mut self.status,
            &mut self.reopen,
        ];
        clean_all(optional.into_iter().flatten());
        let lists = [
            &mut self.tail,
            &mut self.causes,
            &mut self.others,
            &mut self.hints,
        ];
        clean_all(lists.into_iter().flatten());
        clean_all(self.command.iter_mut().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    #[test]
    fn escapes_go_and_words_stay() {
        for (text, clean) in [
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;x\u{1b}\\b", "ab"),
            ("a\u{1b}(Bb", "ab"),
            ("a\u{9b}2Jb", "ab"),
            ("open \u{1b}]0;never closed", "open "),
            ("end\u{1b}", "end"),
            ("\u{1b}\u{1b}[2Jx", "x"),
            ("bell\u{7}", "bell\\u{7}"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
            ("one\r\ntwo\n10%\r100%\r", "one\ntwo\n100%"),
            ("a\tb", "a\tb"),
            ("Grüße, 日本", "Grüße, 日本"),
        ] {
            assert_eq!(neutral(text), clean, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_moves_the_cursor_survives() {
        // Every two-character start and every single character, in all positions that matter.
        for c in (0..=0x2fff).filter_map(char::from_u32) {
            for text in [
                format!("a{c}b"),
                format!("a\u{1b}{c}b"),
                format!("a\u{1b}[{c}b"),
            ] {
                let hostile = |c: char| is_hostile(c) && c != '\n';
                assert!(!neutral(&text).chars().any(hostile), "{text:?}");
            }
        }
    }

    /// Every field is named here, so that a new one cannot be forgotten.
    #[test]
    fn no_text_of_an_event_is_left_out() {
        let evil = || "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}x".to_owned();
        let some = || Some(evil());
        let failure = Failure {
            layer: some(),
            origin: some(),
            excerpt: some(),
            package: some(),
            command: Some(vec![evil()]),
            status: some(),
            tail: vec![evil()],
            causes: vec![evil()],
            others: vec![evil()],
            hints: vec![evil()],
            reopen: some(),
            kind: FailureKind::Step,
            message: evil(),
            log: None,
            disk_full: false,
        };
        let events = [
            Event::BuildStarted {
                name: evil(),
                plan_id: evil(),
            },
            Event::StepStarted {
                step: 1,
                title: evil(),
                layer: some(),
                why: some(),
            },
            Event::StepCached {
                step: 1,
                title: evil(),
                layer: some(),
                shared: false,
            },
            Event::Progress {
                step: 1,
                done: 0,
                total: None,
                unit: crate::Unit::Bytes,
                item: some(),
            },
            Event::Log {
                step: 1,
                stream: "stdout".into(),
                line: evil(),
            },
            Event::Warning {
                step: None,
                message: evil(),
                origin: some(),
                hint: some(),
            },
            Event::StepFinished {
                step: 1,
                seconds: 0.0,
                summary: some(),
            },
            Event::BuildFailed {
                failure: Box::new(failure),
            },
        ];
        for event in events {
            let text = format!("{:?}", serde_json::to_value(event.neutral()).expect("JSON"));
            for bad in ["owned", "\\u{1b}", "\\u{9b}", "2J"] {
                assert!(!text.contains(bad), "{bad} in {text}");
            }
        }
    }
}
