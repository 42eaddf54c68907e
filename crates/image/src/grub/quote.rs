//! Foreign text in GRUB's script language, and kernel arguments through GRUB's hands.

use crate::error::{Error, Result};

/// `text` as one word of GRUB script, in single quotes: nothing in it is evaluated (GRUB manual, "Shell-like scripting,
/// Quoting").
///
/// # Errors
/// Control characters, which neither a menu nor a command line shows.
pub(super) fn word(what: &str, text: &str) -> Result<String> {
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(Error::input(format!(
            "{what} `{}` contains the control character `{}`",
            text.escape_debug(),
            c.escape_debug()
        )));
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A kernel argument as one word.
///
/// GRUB puts quotes round an argument with blanks, and a backslash before every quote and backslash inside; the kernel knows no
/// backslash, so such characters cannot arrive.
pub(super) fn kernel_argument(text: &str) -> Result<String> {
    if text.is_empty() {
        return Err(Error::input("an empty kernel argument"));
    }
    match text.chars().find(|c| matches!(c, '"' | '\'' | '\\')) {
        Some(c) => Err(Error::input(format!(
            "GRUB cannot hand the kernel argument `{}` on: it contains `{c}`",
            text.escape_debug()
        ))
        .with_hint("quotes may enclose a whole argument or its value, but cannot be part of it")),
        None => word("the kernel argument", text),
    }
}

/// Splits a kernel command line (`bootloader --append`) into arguments as the kernel does (`lib/cmdline.c`, `next_arg`): at blanks
/// outside double quotes. The quotes round an argument or its value are taken off: GRUB adds them again.
///
/// # Errors
/// A quote that is not closed, or one in the middle of a value.
pub fn split_kernel_arguments(line: &str) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let mut quoted = false;
        let end = rest
            .find(|c: char| {
                quoted ^= c == '"';
                !quoted && c.is_whitespace()
            })
            .unwrap_or(rest.len());
        let (argument, tail) = rest.split_at(end);
        if quoted {
            return Err(Error::input(format!(
                "a quote is not closed in the kernel arguments: {}",
                line.escape_debug()
            )));
        }
        arguments.push(unquote(argument)?);
        rest = tail.trim_start();
    }
    Ok(arguments)
}

fn unquote(argument: &str) -> Result<String> {
    let inner = |text: &str| {
        text.strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .map(str::to_owned)
    };
    let plain = match (inner(argument), argument.split_once('=')) {
        (Some(whole), _) => whole,
        (None, Some((name, value))) => {
            format!(
                "{name}={}",
                inner(value).unwrap_or_else(|| value.to_owned())
            )
        }
        (None, None) => argument.to_owned(),
    };
    if plain.contains('"') {
        return Err(Error::input(format!(
            "the kernel argument `{argument}` has a quote in the middle, which GRUB cannot hand on"
        ))
        .with_hint("quote the whole argument or the whole value"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(
            word("x", "it's $HOME; {} `a` \"b\"").unwrap(),
            r#"'it'\''s $HOME; {} `a` "b"'"#
        );
        assert!(
            word("title", "a\nb")
                .unwrap_err()
                .to_string()
                .contains(r"`\n`")
        );
    }

    #[test]
    fn command_lines() {
        let split = |line| split_kernel_arguments(line).unwrap();
        assert_eq!(split("  quiet  splash "), ["quiet", "splash"]);
        assert_eq!(
            split(r#"dyndbg="file x +p" "a b" c="#),
            ["dyndbg=file x +p", "a b", "c="]
        );
        assert_eq!(split(""), Vec::<String>::new());
        assert!(split_kernel_arguments(r#"a="b c"#).is_err());
        assert!(split_kernel_arguments(r#"a="b"c"#).is_err());
    }

    #[test]
    fn what_the_kernel_cannot_get() {
        for bad in ["", r"a\b", "a'b", "a\"b", "a\tb"] {
            assert!(kernel_argument(bad).is_err(), "{bad}");
        }
    }
}
