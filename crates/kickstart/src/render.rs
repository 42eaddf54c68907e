//! Diagnostics as people read them: the place, the line, a caret, advice.

use crate::{Diagnostic, Kickstart, Severity, Span, source};

/// How a piece of a rendered diagnostic is meant, for those who colour it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// Ordinary text.
    Plain,
    /// `error`.
    Error,
    /// `warning`.
    Warning,
    /// The sentence.
    Message,
    /// The line number, the rule at the left, the arrow.
    Gutter,
    /// The caret under what is meant, in the colour of an error or warning.
    Caret(Severity),
    /// `help`.
    Help,
}

/// A piece of a rendered diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// How it is meant.
    pub style: Style,
    /// The text, with line ends.
    pub text: String,
}

/// Columns of a source line that are shown.
const WIDTH: usize = 160;

/// Returns a diagnostic as plain text, several lines, each with its end.
pub fn render(kickstart: &Kickstart, diagnostic: &Diagnostic) -> String {
    let all = segments(kickstart, diagnostic);
    all.into_iter().map(|s| s.text).collect()
}

/// Returns a diagnostic as pieces with styles; their texts in a row are what [`render`] returns.
pub fn segments(kickstart: &Kickstart, diagnostic: &Diagnostic) -> Vec<Segment> {
    let mut out = Pieces::default();
    let (style, word) = match diagnostic.severity {
        Severity::Error => (Style::Error, "error"),
        Severity::Warning => (Style::Warning, "warning"),
    };
    out.push(style, format!("{word}[{}]", diagnostic.code));
    out.push(Style::Message, format!(": {}\n", diagnostic.message));
    let gutter = match diagnostic.span {
        Some(span) => excerpt(&mut out, kickstart, diagnostic, span),
        None => 1,
    };
    for help in &diagnostic.help {
        out.push(Style::Gutter, format!("{:gutter$} = ", ""));
        out.push(Style::Help, "help".to_owned());
        out.push(Style::Plain, format!(": {help}\n"));
    }
    out.0
}

#[derive(Default)]
struct Pieces(Vec<Segment>);

impl Pieces {
    fn push(&mut self, style: Style, text: String) {
        self.0.push(Segment { style, text });
    }
}

/// Adds the place and the line; returns the width of the line number.
fn excerpt(out: &mut Pieces, kickstart: &Kickstart, diagnostic: &Diagnostic, span: Span) -> usize {
    let number = span.line.to_string();
    let gutter = number.len();
    out.push(Style::Gutter, format!("{:gutter$}--> ", ""));
    let file = kickstart.files.get(span.file.0 as usize);
    let line = file
        .and_then(|f| source::line_at(&f.text, span))
        .unwrap_or("");
    let column = line
        .get(..span.start as usize)
        .map_or(1, |s| s.chars().count() + 1);
    out.push(
        Style::Plain,
        format!("{}:{column}\n", kickstart.location(span)),
    );
    if !line.is_empty() {
        let shown = Shown::new(line, span);
        out.push(Style::Gutter, format!("{:gutter$} |\n{number} | ", ""));
        out.push(Style::Plain, format!("{}\n", shown.text));
        out.push(Style::Gutter, format!("{:gutter$} | ", ""));
        let carets = format!("{:1$}{2}\n", "", shown.before, "^".repeat(shown.width));
        out.push(Style::Caret(diagnostic.severity), carets);
    }
    if let Some(from) = file.and_then(|f| f.included_from) {
        out.push(Style::Gutter, format!("{:gutter$} = ", ""));
        out.push(
            Style::Plain,
            format!("included from {}\n", kickstart.location(from)),
        );
    }
    gutter
}

/// The part of a line that is shown, with the columns to underline.
struct Shown {
    text: String,
    before: usize,
    width: usize,
}

impl Shown {
    fn new(line: &str, span: Span) -> Shown {
        let (start, end) = (span.start as usize, span.end as usize);
        let skipped = start.saturating_sub(WIDTH / 2);
        let mut shown = Shown {
            text: String::new(),
            before: 0,
            width: 0,
        };
        let mut columns = 0;
        if skipped > 0 {
            shown.text.push('…');
            columns = 1;
            shown.before = 1;
        }
        for (at, c) in line.char_indices().skip_while(|(at, _)| *at < skipped) {
            if columns >= WIDTH {
                shown.text.push('…');
                break;
            }
            let visible = printable(c);
            let width = visible.chars().count();
            shown.text.push_str(&visible);
            columns += width;
            match at {
                at if at < start => shown.before += width,
                at if at < end => shown.width += width,
                _ => {}
            }
        }
        shown.width = shown.width.max(1);
        shown
    }
}

fn printable(c: char) -> String {
    match c {
        '\t' => "    ".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    }
}
