//! Matching the words of a line against the options and positional arguments of a command.
//!
//! The order in which words are claimed is the reference's: a run of plain words before the next option goes to as
//! many positional arguments as it can fill, and an argument that takes any number is then done, even if it took
//! none. What nobody claims is left over, and the command decides what that means.

use crate::report::{Report, quote};
use crate::spelling;
use crate::table::{Argument, ArgumentKind, Count};
use crate::values;
use crate::words::Word;
use crate::{FileId, Opt, Span, Value};

/// Where the words stand.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) file: FileId,
    pub(crate) line: u32,
}

impl Position {
    pub(crate) fn span(self, start: u32, end: u32) -> Span {
        Span {
            file: self.file,
            line: self.line,
            start,
            end,
        }
    }

    pub(crate) fn word(self, word: &Word) -> Span {
        self.span(word.start, word.end)
    }
}

/// What became of the words.
#[derive(Default)]
pub(crate) struct Matched {
    pub(crate) options: Vec<Opt>,
    /// The words of positional arguments, in order, normalised.
    pub(crate) positional: Vec<String>,
    /// Words that nothing claimed.
    pub(crate) extras: Vec<Word>,
}

/// Matches `words` (without the command's name) and reports what is wrong with them; `whole` is the span for
/// findings about the line as a whole.
pub(crate) fn match_words(
    arguments: &'static [Argument],
    words: &[Word],
    position: Position,
    whole: Span,
    report: &mut Report,
) -> Matched {
    let mut matcher = Matcher {
        arguments,
        words,
        position,
        report,
        out: Matched::default(),
        pending: arguments.iter().filter(|a| a.names.is_empty()).collect(),
        seen: vec![false; arguments.len()],
    };
    let classes = matcher.classify();
    matcher.run(&classes);
    matcher.report_missing(whole);
    matcher.out
}

/// What a word is before anything claims it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    /// The `--` after which everything is plain.
    Separator,
    /// A known option, and the byte of its `=`, if any.
    Option(usize, Option<usize>),
    /// Starts with a dash, but no option is spelt like that.
    Unknown,
    /// A prefix of several options, which has been reported.
    Ambiguous,
}

struct Matcher<'a> {
    arguments: &'static [Argument],
    words: &'a [Word],
    position: Position,
    report: &'a mut Report,
    out: Matched,
    pending: std::collections::VecDeque<&'static Argument>,
    seen: Vec<bool>,
}

impl Matcher<'_> {
    fn classify(&mut self) -> Vec<Class> {
        let mut only_plain = false;
        let mut classes = Vec::with_capacity(self.words.len());
        for word in self.words {
            classes.push(match only_plain {
                true => Class::Plain,
                false if word.text == "--" => {
                    only_plain = true;
                    Class::Separator
                }
                false => self.class(word),
            });
        }
        classes
    }

    fn class(&mut self, word: &Word) -> Class {
        let text = word.text.as_str();
        if !text.starts_with('-') || text == "-" {
            return Class::Plain;
        }
        if let Some(index) = self.exact(text) {
            return Class::Option(index, None);
        }
        let equals = text.find('=');
        let name = text.get(..equals.unwrap_or(text.len())).unwrap_or(text);
        if let Some(index) = self.exact(name) {
            return Class::Option(index, equals);
        }
        if name.starts_with("--") {
            match self.prefixed(name).as_slice() {
                [] => {}
                [(index, _)] => return Class::Option(*index, equals),
                several => {
                    let names: Vec<_> = several.iter().map(|(_, n)| *n).collect();
                    self.report_ambiguous(word, name, &names);
                    return Class::Ambiguous;
                }
            }
        }
        match is_negative_number(text) || text.contains(' ') {
            true => Class::Plain,
            false => Class::Unknown,
        }
    }

    fn exact(&self, name: &str) -> Option<usize> {
        let has = |a: &Argument| a.names.iter().any(|n| n == name);
        self.arguments.iter().position(has)
    }

    fn prefixed(&self, prefix: &str) -> Vec<(usize, &'static str)> {
        let all = self.arguments.iter().enumerate();
        let all = all.flat_map(|(i, a)| a.names.iter().map(move |n| (i, n.as_str())));
        all.filter(|(_, n)| n.starts_with(prefix)).collect()
    }

    fn report_ambiguous(&mut self, word: &Word, name: &str, names: &[&str]) {
        self.report.error_help(
            "ambiguous-option",
            self.position.word(word),
            format!("{} can mean several options", quote(name)),
            format!("write one of `{}` in full", names.join("`, `")),
        );
    }

    fn run(&mut self, classes: &[Class]) {
        let is_option = |c: &Class| !matches!(c, Class::Plain | Class::Separator);
        let mut at = 0;
        while at < classes.len() {
            let rest = classes.get(at..).unwrap_or(&[]);
            let run = rest.iter().position(is_option).unwrap_or(rest.len());
            if run > 0 {
                let taken = self.positional(at, rest.get(..run).unwrap_or(&[]));
                self.leave(at + taken, at + run);
                at += run;
            } else {
                at = self.option(at, classes);
            }
        }
        // Arguments that may be empty are satisfied by nothing at the very end.
        self.positional(at, &[]);
    }

    fn leave(&mut self, from: usize, to: usize) {
        let words = self.words.get(from..to).unwrap_or(&[]);
        // A `--` after a positional argument belongs to it.
        let belongs = !self.out.positional.is_empty();
        let words = words.iter().filter(|w| !belongs || w.text != "--");
        self.out.extras.extend(words.cloned());
    }

    /// Gives a run of plain words to pending positional arguments; returns how many it took.
    fn positional(&mut self, at: usize, run: &[Class]) -> usize {
        let separators = run.iter().filter(|c| **c == Class::Separator).count();
        let mut free = run.len() - separators;
        let mut at = at;
        let start = at;
        let needs = |a: &Argument| usize::from(a.count == Count::One);
        while let Some(argument) = self.pending.front().copied() {
            if needs(argument) > free {
                break;
            }
            let later: usize = self.reachable(free);
            let take = match argument.count {
                Count::One => 1,
                Count::Optional => usize::from(free > later),
                Count::Many => free - later.min(free),
            };
            self.pending.pop_front();
            self.mark_seen(argument);
            free -= take;
            at = self.take_positional(argument, at, take);
        }
        at - start
    }

    /// How many words the arguments after the front one need, as far as they can be filled.
    fn reachable(&self, free: usize) -> usize {
        let front = self.pending.front();
        let mut left = free - usize::from(front.is_some_and(|a| a.count == Count::One));
        let before = left;
        for argument in self.pending.iter().skip(1) {
            if argument.count == Count::One {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
        }
        before - left
    }

    fn take_positional(&mut self, argument: &'static Argument, at: usize, count: usize) -> usize {
        let mut at = at;
        let mut left = count;
        while left > 0 {
            let Some(word) = self.words.get(at) else {
                break;
            };
            at += 1;
            if word.text == "--" && !self.separator_passed(at - 1) {
                continue;
            }
            left -= 1;
            match values::read(argument, &word.text) {
                Ok(Value::Text(text)) => self.out.positional.push(text),
                Ok(_) => self.out.positional.push(word.text.clone()),
                Err(message) => self.report_value(argument, word, message),
            }
        }
        at
    }

    /// Whether a `--` stands before this word.
    fn separator_passed(&self, at: usize) -> bool {
        let before = self.words.get(..at).unwrap_or(&[]);
        before.iter().any(|w| w.text == "--")
    }

    fn report_value(&mut self, argument: &Argument, word: &Word, message: String) {
        let span = self.position.word(word);
        let help = values::advice(argument, "");
        self.report.error_help("bad-value", span, message, help);
    }

    fn mark_seen(&mut self, argument: &'static Argument) {
        let index = self
            .arguments
            .iter()
            .position(|a| std::ptr::eq(a, argument));
        if let Some(seen) = index.and_then(|i| self.seen.get_mut(i)) {
            *seen = true;
        }
    }

    /// Handles the option at `at`; returns the place after it and its value.
    fn option(&mut self, at: usize, classes: &[Class]) -> usize {
        let words = self.words;
        let (Some(word), Some(class)) = (words.get(at), classes.get(at)) else {
            return at + 1;
        };
        let Class::Option(index, equals) = *class else {
            if *class == Class::Unknown {
                self.out.extras.push(word.clone());
            }
            return at + 1;
        };
        let Some(argument) = self.arguments.get(index) else {
            return at + 1;
        };
        self.mark_seen(argument);
        let given = equals.map(|e| word.text.get(e + 1..).unwrap_or(""));
        if argument.kind == ArgumentKind::Switch {
            self.switch(argument, word, given);
            return at + 1;
        }
        if let Some(text) = given {
            self.value(argument, word, text, self.position.word(word));
            return at + 1;
        }
        self.separate_value(argument, at, classes)
    }

    fn separate_value(
        &mut self,
        argument: &'static Argument,
        at: usize,
        classes: &[Class],
    ) -> usize {
        let words = self.words;
        let Some(word) = words.get(at) else {
            return at + 1;
        };
        let next = at + 1;
        match (classes.get(next), words.get(next)) {
            (Some(Class::Plain), Some(value)) => {
                let span = self.position.span(word.start, value.end);
                self.value(argument, value, &value.text, span);
                next + 1
            }
            _ if argument.count == Count::Optional => {
                let span = self.position.word(word);
                self.push_option(argument, Value::Flag(true), span);
                at + 1
            }
            _ => {
                self.report_no_value(argument, word);
                at + 1
            }
        }
    }

    fn report_no_value(&mut self, argument: &Argument, word: &Word) {
        let name = argument.names.first().map_or("", String::as_str);
        self.report.error_help(
            "missing-value",
            self.position.word(word),
            format!("`{name}` needs a value"),
            format!("write `{name}=…`; a value that starts with a dash needs the `=`"),
        );
    }

    fn switch(&mut self, argument: &'static Argument, word: &Word, given: Option<&str>) {
        let span = self.position.word(word);
        let name = argument.names.first().map_or("", String::as_str);
        if given.is_some() {
            self.report.error_help(
                "unexpected-value",
                span,
                format!("`{name}` takes no value"),
                format!("write `{name}` alone, or leave it out"),
            );
        }
        self.push_option(argument, Value::Flag(true), span);
    }

    fn value(&mut self, argument: &'static Argument, word: &Word, text: &str, span: Span) {
        match values::read(argument, text) {
            Ok(value) => self.push_option(argument, value, span),
            Err(message) => {
                let name = argument.names.first().map_or("", String::as_str);
                let help = values::advice(argument, name);
                let span = self.position.word(word);
                self.report.error_help("bad-value", span, message, help);
            }
        }
    }

    fn push_option(&mut self, argument: &'static Argument, value: Value, span: Span) {
        let Some(name) = argument.names.first().cloned() else {
            return;
        };
        self.out.options.push(Opt { name, value, span });
    }

    fn report_missing(&mut self, whole: Span) {
        let missing = self.arguments.iter().zip(&self.seen);
        let missing = missing.filter(|(a, seen)| a.required && !**seen);
        let names: Vec<String> = missing
            .map(|(a, _)| match a.names.first() {
                Some(name) => format!("`{name}`"),
                None => format!("<{}>", a.key),
            })
            .collect();
        if !names.is_empty() {
            let message = format!("{} must be given", names.join(", "));
            let help = "add what is missing to the line";
            self.report
                .error_help("missing-option", whole, message, help);
        }
    }
}

/// `-5`, `-.5`, `-1.5`: a value, not an option.
fn is_negative_number(text: &str) -> bool {
    let Some(number) = text.strip_prefix('-') else {
        return false;
    };
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    match number.split_once('.') {
        Some((whole, part)) => digits(whole) && !part.is_empty() && digits(part),
        None => !number.is_empty() && digits(number),
    }
}

/// Reports words that nothing claimed.
pub(crate) fn report_extras(
    extras: &[Word],
    arguments: &'static [Argument],
    command: &str,
    position: Position,
    report: &mut Report,
) {
    for word in extras {
        let span = position.word(word);
        if !word.text.starts_with('-') {
            let message = format!("`{command}` has no use for {}", quote(&word.text));
            let help = "remove it; a value that has blanks needs quotes around it";
            report.error_help("unexpected-argument", span, message, help);
            continue;
        }
        let name = word.text.split('=').next().unwrap_or("");
        let message = format!("`{command}` has no option {}", quote(name));
        let known = arguments
            .iter()
            .flat_map(|a| a.names.iter().map(String::as_str));
        let near = report.has_room().then(|| spelling::nearest(name, known));
        let help = match near.flatten() {
            Some(near) => format!("did you mean `{near}`?"),
            None => "remove the option".to_owned(),
        };
        report.error_help("unknown-option", span, message, help);
    }
}
