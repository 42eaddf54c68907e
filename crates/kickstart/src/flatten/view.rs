//! What one or several lines of a command add up to, and writing it.

use std::collections::BTreeMap;

use crate::table::{Argument, ArgumentKind, Count};
use crate::{Command, Opt, Value};

use super::layout::{IMPLIED, Part};

/// The options and words in force.
#[derive(Default)]
pub(super) struct View<'a> {
    options: Vec<(&'static str, &'a Opt)>,
    pub(super) args: &'a [String],
    /// Options that stand for another one until they are given, with their values.
    implied: BTreeMap<&'static str, String>,
}

impl<'a> View<'a> {
    /// Adds a line that comes after those that are in already.
    pub(super) fn merge(&mut self, command: &'a Command, arguments: &'static [Argument]) {
        let resets = |key: &str| {
            let named = arguments.iter().filter(|a| !a.names.is_empty());
            named.filter(|a| a.key == key).any(|a| a.resets)
        };
        self.options.retain(|(key, _)| !resets(key));
        let mut fresh: Vec<&str> = Vec::new();
        for option in &command.options {
            let spelt = |a: &&Argument| a.names.contains(&option.name);
            let Some(argument) = arguments.iter().find(spelt) else {
                continue;
            };
            let key = argument.key.as_str();
            let adds = matches!(argument.kind, ArgumentKind::Repeat | ArgumentKind::Extend)
                || arguments
                    .iter()
                    .any(|a| a.key == key && a.kind == ArgumentKind::Extend);
            if !adds || !fresh.contains(&key) {
                self.options.retain(|(k, _)| *k != key);
            }
            fresh.push(key);
            self.options.push((key, option));
        }
        let count = |a: &Argument| a.names.is_empty() && a.count == Count::Optional;
        let stays = arguments.iter().any(count) || command.name == "keyboard";
        if !command.args.is_empty() || !stays {
            self.args = &command.args;
        }
        let implied = IMPLIED.iter().filter(|(of, ..)| *of == command.name);
        for (_, name, other) in implied {
            let given = command.text(name).map(str::to_owned);
            let before = || self.implied.get(name).cloned();
            let given = given.or_else(before).filter(|value| !value.is_empty());
            // Neither of the two was ever said: empty, as for the reference.
            let value = given.or_else(|| self.text(other)).unwrap_or_default();
            self.implied.insert(name, value);
        }
    }

    /// The value in force.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        let last = self.options.iter().rev().find(|(_, o)| o.name == name);
        last.map(|(_, o)| &o.value)
    }

    /// All options in force, in order.
    pub(super) fn options(&self) -> impl Iterator<Item = &'a Opt> {
        self.options.iter().map(|(_, o)| *o)
    }

    /// Whether a switch is on.
    pub(super) fn on(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Flag(true)))
    }

    /// The value as text; `None` where it was not given, is empty or zero.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text = match self.value(name)? {
            Value::Flag(_) | Value::Int(0) => return None,
            Value::Int(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::List(_) => self.list(name).join(","),
        };
        Some(text).filter(|t| !t.is_empty())
    }

    /// The value as text, if it was given at all.
    fn given(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Int(number) => Some(number.to_string()),
            _ => self.text(name).or_else(|| Some(String::new())),
        }
    }

    /// All words of a list.
    pub(super) fn list(&self, name: &str) -> Vec<&'a str> {
        let mut all = Vec::new();
        for option in self.options().filter(|o| o.name == name) {
            if let Value::List(words) = &option.value {
                all.extend(words.iter().map(String::as_str));
            }
        }
        all
    }

    /// Writes the parts of a layout.
    pub(super) fn write(&self, parts: &[Part], out: &mut String) {
        for part in parts {
            self.write_part(part, out);
        }
    }

    fn write_part(&self, part: &Part, out: &mut String) {
        match part {
            Part::On(name) => self.write_on(name, self.on(name), out),
            Part::OnAny(name, names) => {
                let any = names.iter().any(|n| self.on(n) || self.text(n).is_some());
                self.write_on(name, any, out);
            }
            Part::Bare(name) => write_bare(out, name, self.text(name)),
            Part::Quoted(name) => write_quoted(out, name, self.text(name)),
            Part::BareGiven(name) => write_bare(out, name, self.given(name)),
            Part::QuotedGiven(name) => write_quoted(out, name, self.given(name)),
            Part::Escaped(name) => {
                let value = self.text(name).map(|t| t.replace('"', "\\\""));
                write_quoted(out, name, value);
            }
            Part::FirstQuoted(names) => {
                let first = names.iter().find_map(|n| Some((n, self.text(n)?)));
                if let Some((name, value)) = first {
                    write_quoted(out, name, Some(value));
                }
            }
            Part::Each(name) => {
                for word in self.list(name) {
                    write_quoted(out, name, Some(word.to_owned()));
                }
            }
            Part::BareOr(name, other) => {
                let value = self.given(name).unwrap_or_else(|| (*other).to_owned());
                write_bare(out, name, Some(value).filter(|v| !v.is_empty()));
            }
            Part::QuotedOr(name, other) => {
                let value = self.given(name).unwrap_or_else(|| (*other).to_owned());
                write_quoted(out, name, Some(value).filter(|v| !v.is_empty()));
            }
            Part::QuotedImplied(name) => {
                let value = self.implied.get(name).filter(|text| !text.is_empty());
                write_quoted(out, name, value.cloned());
            }
            Part::Positive(name) => {
                let positive = matches!(self.value(name), Some(Value::Int(1..)));
                write_bare(out, name, self.text(name).filter(|_| positive));
            }
            Part::QuotedAs(name, other) => {
                write_quoted(out, name, self.text(other).or_else(|| self.text(name)));
            }
            Part::When(name, parts) if self.on(name) => self.write(parts, out),
            Part::Unless(name, parts) if !self.on(name) => self.write(parts, out),
            Part::IfText(name, parts) if self.text(name).is_some() => self.write(parts, out),
            Part::IfFirst(word, parts) if self.args.first().is_some_and(|a| a == word) => {
                self.write(parts, out);
            }
            Part::When(..) | Part::Unless(..) | Part::IfText(..) | Part::IfFirst(..) => {}
            Part::Off(name) => {
                let off = self.value(name) == Some(&Value::Flag(false));
                write_bare(out, name, off.then(|| "off".to_owned()));
            }
            Part::True(name) => {
                write_bare(out, name, self.on(name).then(|| "true".to_owned()));
            }
            Part::First => self.write_words(self.args.get(..1), out),
            Part::Words(from) => self.write_words(self.args.get(*from..), out),
            Part::Text(text) => out.push_str(text),
            Part::BlankUnless(names) => {
                if names.iter().all(|n| self.text(n).is_none()) {
                    out.push(' ');
                }
            }
        }
    }

    fn write_on(&self, name: &str, on: bool, out: &mut String) {
        if on {
            out.push(' ');
            out.push_str(name);
        }
    }

    fn write_words(&self, words: Option<&[String]>, out: &mut String) {
        for word in words.unwrap_or(&[]) {
            out.push(' ');
            out.push_str(word);
        }
    }
}

fn write_bare(out: &mut String, name: &str, value: Option<String>) {
    if let Some(value) = value {
        out.push_str(&format!(" {name}={value}"));
    }
}

fn write_quoted(out: &mut String, name: &str, value: Option<String>) {
    if let Some(value) = value {
        out.push_str(&format!(" {name}=\"{value}\""));
    }
}
