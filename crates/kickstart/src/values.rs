//! Turning a word into the value that an option wants.

use crate::table::{Argument, ArgumentKind, ValueType};
use crate::{Value, limits, report::quote};

/// Reads a value, or says what is wrong with it.
pub(crate) fn read(argument: &Argument, text: &str) -> Result<Value, String> {
    let value = typed(argument.value_type, text)?;
    if let Value::Text(word) = &value
        && !argument.choices.is_empty()
        && !argument.choices.contains(word)
    {
        let choices = argument.choices.join("`, `");
        return Err(format!("{} is none of `{choices}`", quote(word)));
    }
    Ok(match (argument.kind, value) {
        (ArgumentKind::Repeat, Value::Text(word)) => Value::List(vec![word]),
        (_, value) => value,
    })
}

/// Returns what to write in place of a value that [`read`] refuses; `name` is the option, or empty.
pub(crate) fn advice(argument: &Argument, name: &str) -> String {
    let (value, what) = match argument.value_type {
        ValueType::Integer => ("N", "a whole number"),
        ValueType::Boolean => ("…", "`yes` or `no`"),
        ValueType::CommaList | ValueType::FirewallPorts => ("…", "a shorter list"),
        ValueType::TeamSlaves => ("…", "every quote closed"),
        _ => ("…", "one of the values that the message names"),
    };
    match name {
        "" => format!("write {what}"),
        name => format!("write `{name}={value}` with {what}"),
    }
}

fn typed(kind: ValueType, text: &str) -> Result<Value, String> {
    match kind {
        ValueType::Text => Ok(Value::Text(text.to_owned())),
        ValueType::Integer => integer(text).map(Value::Int),
        ValueType::CommaList => comma_list(text).map(Value::List),
        ValueType::MountPoint => Ok(Value::Text(mount_point(text))),
        ValueType::Boolean => boolean(text).map(Value::Flag),
        ValueType::BtrfsLevel => btrfs_level(text).map(Value::Text),
        ValueType::Partition => Ok(Value::Text(without_dev(text).to_owned())),
        ValueType::FirewallPorts => ports(text).map(Value::List),
        ValueType::AutopartType => autopart_type(text).map(Value::Text),
        ValueType::TeamSlaves => team_slaves(text).map(|()| Value::Text(text.to_owned())),
        ValueType::RaidDevice => Ok(Value::Text(text.to_owned())),
        ValueType::RaidLevel => raid_level(text).map(Value::Text),
        ValueType::SnapshotTime => snapshot_time(text).map(Value::Text),
    }
}

/// A whole number as the reference reads it: a sign, `_` between digits, blanks around.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    let wrong = || format!("{} is not a whole number", quote(text));
    let word = text.trim();
    let (negative, digits) = match word.as_bytes().first() {
        Some(b'-') => (true, word.get(1..).unwrap_or("")),
        Some(b'+') => (false, word.get(1..).unwrap_or("")),
        _ => (false, word),
    };
    let odd = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let well_formed = digits.chars().all(|c| c == '_' || decimal(c).is_some());
    if digits.is_empty() || odd || !well_formed {
        return Err(wrong());
    }
    let mut number: i64 = 0;
    for digit in digits.chars().filter_map(decimal) {
        let next = number.checked_mul(10).and_then(|n| n.checked_sub(digit));
        number = next.ok_or_else(|| format!("{} is too large a number", quote(text)))?;
    }
    match negative {
        true => Ok(number),
        false => number
            .checked_neg()
            .ok_or_else(|| format!("{} is too large a number", quote(text))),
    }
}

/// The value of a decimal digit of any script: the reference takes all that Unicode calls `Nd`.
fn decimal(c: char) -> Option<i64> {
    if let Some(digit) = c.to_digit(10) {
        return Some(i64::from(digit));
    }
    // The blocks of ten that occur in living scripts; each starts with its zero.
    const ZEROS: [u32; 20] = [
        0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6,
        0x0D66, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810, 0xA620, 0xFF10,
    ];
    let code = u32::from(c);
    let zero = ZEROS.into_iter().find(|z| (*z..z + 10).contains(&code))?;
    Some(i64::from(code - zero))
}

/// Words between commas, trimmed, empty ones dropped.
fn comma_list(text: &str) -> Result<Vec<String>, String> {
    let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
    let words: Vec<String> = words.take(limits::WORDS + 1).map(str::to_owned).collect();
    match words.len() > limits::WORDS {
        true => Err(format!("the list has more than {} words", limits::WORDS)),
        false => Ok(words),
    }
}

/// An absolute path without doubled slashes, `.`, `..` and trailing slash; other words are left alone.
pub(crate) fn mount_point(text: &str) -> String {
    if !text.starts_with('/') {
        return text.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    // POSIX gives exactly two leading slashes a meaning of their own, so they stay.
    let two = text.starts_with("//") && !text.starts_with("///");
    format!("{}{}", if two { "//" } else { "/" }, parts.join("/"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(true),
        "off" | "no" | "false" | "0" => Ok(false),
        _ => Err(format!("{} is neither `yes` nor `no`", quote(text))),
    }
}

fn without_dev(text: &str) -> &str {
    text.strip_prefix("/dev/").unwrap_or(text)
}

fn btrfs_level(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "single" | "raid0" | "raid1" | "raid10" => Ok(lower),
        "0" | "1" | "10" => Ok(format!("raid{lower}")),
        _ => Err(format!(
            "{} is no Btrfs level: `raid0`, `raid1`, `raid10` and `single` are",
            quote(text)
        )),
    }
}

fn raid_level(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let digits = upper.strip_prefix("RAID").unwrap_or(&upper);
    match digits {
        "0" | "1" | "4" | "5" | "6" | "10" => Ok(format!("RAID{digits}")),
        _ => Err(format!(
            "{} is no RAID level: 0, 1, 4, 5, 6 and 10 are",
            quote(text)
        )),
    }
}

/// `port[:protocol]` with TCP as the default protocol.
fn ports(text: &str) -> Result<Vec<String>, String> {
    if text.split(',').nth(limits::WORDS).is_some() {
        return Err(format!("the list has more than {} words", limits::WORDS));
    }
    let port = |p: &str| match p.contains(':') {
        true => p.to_owned(),
        false => format!("{p}:tcp"),
    };
    Ok(text.split(',').map(str::trim).map(port).collect())
}

fn autopart_type(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "plain" | "lvm" | "thinp" | "btrfs" => Ok(lower),
        "partition" => Ok("plain".to_owned()),
        _ => Err(format!(
            "{} is no partitioning scheme: `plain`, `lvm`, `thinp` and `btrfs` are",
            quote(text)
        )),
    }
}

/// `DEVICE['JSON'],…`: only the quoting is checked.
fn team_slaves(text: &str) -> Result<(), String> {
    match crate::words::split(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("a quote is not closed in {}", quote(text))),
    }
}

fn snapshot_time(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "pre-install" | "post-install" => Ok(lower),
        _ => Err(format!(
            "{} is neither `pre-install` nor `post-install`",
            quote(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_like_the_reference_does() {
        for (text, number) in [
            ("1_000", 1000),
            ("+5", 5),
            (" 7 ", 7),
            ("-5", -5),
            ("007", 7),
        ] {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "_1",
            "1_",
            "1__0",
            "0x10",
            "1.5",
            "+",
            "- 5",
            "99999999999999999999",
        ] {
            assert!(integer(text).is_err(), "{text}");
        }
        assert_eq!(integer("٥"), Ok(5));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
    }

    #[test]
    fn mount_points_are_normalised() {
        for (from, to) in [
            ("/boot//", "/boot"),
            ("/a/./b/../c", "/a/c"),
            ("//x", "//x"),
            ("///x", "/x"),
            ("/..", "/"),
            ("swap", "swap"),
        ] {
            assert_eq!(mount_point(from), to);
        }
    }

    #[test]
    fn comma_lists_trim_and_drop_empties() {
        assert_eq!(comma_list("a,, b ,").unwrap(), ["a", "b"]);
        assert!(comma_list(",").unwrap().is_empty());
    }
}
