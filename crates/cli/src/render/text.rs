//! Words, figures and lines of untrusted origin.

use std::fmt::Write;
use std::time::Duration;

use kiln_engine::{is_hostile, neutral};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A line that came from a package, a script or a kickstart, made safe to print: [`neutral`], and tabs are spaces, so that its
/// width is known.
pub(crate) fn sanitize(line: &str) -> String {
    let line = neutral(line.trim_end_matches(['\r', '\n']));
    let mut clean = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' => clean.push_str(&" ".repeat(8 - clean.width() % 8)),
            '\n' => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// At most `width` columns; what was cut shows as `…`.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Columns that a text takes on a terminal.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// `1,234,567`
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `882 MB`, `1.24 GB`: three figures, powers of 1000 as package managers and disk makers use them.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut scaled = number as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would be rounded up to four figures.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let digits = match scaled {
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// `0.3 s`, `42 s`, `3 min 07 s`, `1 h 02 min`
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A duration from the seconds of an event; a number that is no time is shown as none.
pub(crate) fn seconds(number: f64) -> String {
    duration(Duration::try_from_secs_f64(number).unwrap_or(Duration::ZERO))
}

/// A command that can be pasted into a shell.
pub(crate) fn shell_line(argv: &[String]) -> String {
    let mut line = String::new();
    for (place, word) in argv.iter().enumerate() {
        if place > 0 {
            line.push(' ');
        }
        line.push_str(&shell_word(word));
    }
    line
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(|c| is_hostile(c) || c == '\t') {
        return ansi_c_word(word);
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `$'…'` (POSIX.1-2024, 2.2.4): the one quoting that can hold control characters in printable form.
fn ansi_c_word(word: &str) -> String {
    let mut quoted = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => quoted.push_str(r"\n"),
            '\t' => quoted.push_str(r"\t"),
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if is_hostile(c) => {
                for byte in c.to_string().bytes() {
                    // Octal, because a hexadecimal escape would swallow the digits behind it.
                    let _ = write!(quoted, "\\{byte:03o}");
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_known_width() {
        assert_eq!(sanitize("a\tb\u{1b}[31mc\r\n"), "a       bc");
        assert_eq!(sanitize("10%\r50%\r100%\r\n"), "100%");
        assert_eq!(sanitize("\r\r"), "");
        assert_eq!(sanitize("two\nlines"), "two\\u{a}lines");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.00 kB");
        assert_eq!(bytes(882_400_000), "882 MB");
        assert_eq!(bytes(999_600), "1.00 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(seconds(0.26), "0.3 s");
        assert_eq!(seconds(9.96), "10 s");
        assert_eq!(seconds(187.0), "3 min 07 s");
        assert_eq!(seconds(3725.0), "1 h 02 min");
        assert_eq!(seconds(f64::NAN), "0.0 s");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(fit("libreoffice", 20), "libreoffice");
        assert_eq!(fit("libreoffice", 6), "libre…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("x", 0), "");
    }

    #[test]
    fn commands_can_be_pasted() {
        let words =
            ["sh", "-c", "echo 'it is'; exit 1", "", "a\u{1b}1", "$HOME"].map(str::to_owned);
        assert_eq!(
            shell_line(&words),
            r"sh -c 'echo '\''it is'\''; exit 1' '' $'a\0331' '$HOME'"
        );
    }

    #[test]
    fn pasted_commands_mean_what_they_meant() {
        let words = [
            "a b",
            "it's",
            "back\\slash",
            "tab\t1",
            "two\nlines",
            "\u{7}7",
            "$(id)",
            "ünï",
            "\u{202e}x",
        ];
        let argv = words.map(str::to_owned);
        let script = format!("printf '%s\\0' {}", shell_line(&argv));
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.split_terminator('\0').collect::<Vec<_>>(), words);
    }
}
