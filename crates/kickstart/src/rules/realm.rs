//! `realm join`.

use super::Rules;
use crate::report::quote;

/// Options of `realm join` that take a value.
const VALUED: [&str; 5] = [
    "--computer-ou",
    "--membership-software",
    "--server-software",
    "--client-software",
    "--one-time-password",
];

impl Rules<'_> {
    pub(super) fn realm(&mut self) {
        let args = &self.command.args;
        let Some((verb, rest)) = args.split_first() else {
            let message = "`realm` does not say what to do".to_owned();
            return self.error("missing-option", "", message, "write `realm join DOMAIN`");
        };
        if verb != "join" {
            let message = format!("`realm` knows `join` only, not {}", quote(verb));
            return self.error("bad-value", "", message, "write `realm join DOMAIN`");
        }
        if std::mem::replace(&mut self.memory.joined, true) {
            let message = "`realm join` can be given once".to_owned();
            return self.error("defined-twice", "", message, "keep one of the lines");
        }
        match domains(rest) {
            Err(option) => {
                let message = format!("`realm join` has no option {}", quote(option));
                self.error("unknown-option", "", message, "remove the option");
            }
            Ok(1) => {}
            Ok(_) => {
                let message = "`realm join` takes one domain, after its options".to_owned();
                self.error("unexpected-argument", "", message, "name one domain");
            }
        }
    }
}

/// How many words come after the options, or the option that nobody knows.
fn domains(words: &[String]) -> Result<usize, &str> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if word == "--" {
            return Ok(words.len() - at - 1);
        }
        if !word.starts_with('-') || word == "-" {
            return Ok(words.len() - at);
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        if !word.starts_with("--") {
            return Err(word);
        }
        let matching: Vec<_> = VALUED.iter().filter(|v| v.starts_with(name)).collect();
        let switch = "--no-password".starts_with(name);
        at += match (matching.len(), switch, value) {
            (0, true, None) => 1,
            (1, false, Some(_)) => 1,
            (1, false, None) if words.len() > at + 1 => 2,
            _ => return Err(word),
        };
    }
    Ok(0)
}
