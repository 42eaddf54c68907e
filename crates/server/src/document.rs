//! The tables of [`crate::wire::table`] and [`crate::wire::trigger`] as the middle of `docs/cloud-build.md`.

use std::fmt::Write;

use crate::wire::schema::{Handling, Kind, Message};
use crate::wire::{table, trigger};

/// The tables of all messages, in Markdown.
pub fn tables() -> String {
    let mut text = String::new();
    for message in messages() {
        one(&mut text, message);
    }
    text
}

fn messages() -> impl Iterator<Item = &'static &'static Message> {
    table::MESSAGES.iter().chain(trigger::MESSAGES)
}

fn one(text: &mut String, message: &Message) {
    let mut row = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    row(format!("### {}\n", message.name));
    row("| field | what it holds | |".to_owned());
    row("|---|---|---|".to_owned());
    for field in message.fields {
        let (word, why) = match field.handling {
            Handling::Done(why) => ("done", why),
            Handling::Output(why) => ("written by the server", why),
            Handling::Ignored(why) => ("ignored, with a warning", why),
            Handling::Refused(why) => ("refused", why),
        };
        let mut cell = word.to_owned();
        if !why.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(cell, ": {why}");
        }
        row(format!(
            "| `{}` | {} | {cell} |",
            field.name,
            kind(field.kind)
        ));
    }
    row(String::new());
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Int32 | Kind::Int64 => "number".to_owned(),
        Kind::Bool => "yes or no".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Timestamp => "time".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Enum(names) => names.name.to_owned(),
        Kind::Message(message) => message.name.to_owned(),
        Kind::List(item) => format!("list of {}", self::kind(*item)),
        Kind::Map(item) => format!("map to {}", self::kind(*item)),
        Kind::Opaque => "message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_the_order_of_their_names() {
        for message in messages() {
            let names: Vec<&str> = message.fields.iter().map(|field| field.name).collect();
            let mut sorted = names.clone();
            sorted.sort_unstable();
            assert_eq!(names, sorted, "{}", message.name);
        }
        assert!(tables().contains("| `queueTtl` | duration | done |"));
    }
}
