//! What is to be said about a kickstart, coloured.

use kiln_kickstart::{Diagnostic, Parsed, Segment, Severity, Style, segments};
use kiln_plan::Problem;

use super::style::{Palette, paint};
use super::text::sanitize;

/// All findings, an empty line between them.
pub(crate) fn render_all(parsed: &Parsed, palette: &Palette) -> String {
    parsed
        .diagnostics
        .iter()
        .map(|found| render(parsed, found, palette) + "\n")
        .collect()
}

/// What is to be said about a definition: with its excerpt where it has one.
pub(crate) fn problem(problem: &Problem, palette: &Palette) -> String {
    if let Some(rendered) = &problem.rendered {
        return lines(rendered).map(|(text, end)| text + end).collect();
    }
    let (word, style) = match problem.severity {
        Severity::Error => ("error", palette.error),
        Severity::Warning => ("warning", palette.warning),
    };
    let mut text = format!("{}: {}\n", paint(style, word), sanitize(&problem.message));
    if let Some(origin) = &problem.origin {
        text += &format!(" --> {}\n", sanitize(origin));
    }
    for hint in &problem.hints {
        text += &format!("  = {} {}\n", paint(palette.note, "help:"), sanitize(hint));
    }
    text
}

fn render(parsed: &Parsed, found: &Diagnostic, palette: &Palette) -> String {
    segments(&parsed.kickstart, found)
        .iter()
        .map(|segment| colored(segment, palette))
        .collect()
}

fn colored(segment: &Segment, palette: &Palette) -> String {
    let style = match segment.style {
        Style::Plain | Style::Message => anstyle::Style::new(),
        Style::Error | Style::Caret(Severity::Error) => palette.error,
        Style::Warning | Style::Caret(Severity::Warning) => palette.warning,
        Style::Gutter => palette.dim,
        Style::Help => palette.note,
    };
    lines(&segment.text)
        .map(|(text, end)| format!("{}{end}", painted(style, &text)))
        .collect()
}

fn painted(style: anstyle::Style, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        paint(style, text)
    }
}

/// Each line made harmless, with its end.
fn lines(text: &str) -> impl Iterator<Item = (String, &'static str)> {
    text.split_inclusive('\n')
        .map(|line| (sanitize(line), if line.ends_with('\n') { "\n" } else { "" }))
}

#[cfg(test)]
mod tests {
    use kiln_kickstart::{NoIncludes, Options, parse};

    use super::*;

    #[test]
    fn pieces_are_coloured_and_text_stays() {
        let parsed = parse(
            "a.ks",
            b"lang en_US\nlnag\x1b[2J de\n",
            &Options::default(),
            &mut NoIncludes,
        );
        assert!(!parsed.diagnostics.is_empty());
        let plain = render_all(&parsed, &Palette::new(false));
        assert!(plain.contains("a.ks:2"), "{plain}");
        assert!(!plain.contains('\u{1b}'));
        let colored = render_all(&parsed, &Palette::new(true));
        assert!(
            colored.starts_with("\u{1b}[1m\u{1b}[31merror["),
            "{colored:?}"
        );
        assert!(!colored.contains("\u{1b}[2J"));
    }
}
