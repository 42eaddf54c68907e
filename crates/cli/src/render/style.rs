//! The few colours that Kiln uses.

use anstyle::{AnsiColor, Style};

/// Styles of one stream; all are empty where it has no colours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Palette {
    /// Headlines of failures.
    pub(crate) error: Style,
    /// Warnings.
    pub(crate) warning: Style,
    /// What ended well.
    pub(crate) good: Style,
    /// What runs now, and hints.
    pub(crate) note: Style,
    /// What matters less.
    pub(crate) dim: Style,
}

impl Palette {
    /// The palette of a stream with or without colours.
    pub(crate) fn new(colored: bool) -> Self {
        if !colored {
            return Palette::default();
        }
        let bold = |color: AnsiColor| color.on_default().bold();
        Palette {
            error: bold(AnsiColor::Red),
            warning: bold(AnsiColor::Yellow),
            good: bold(AnsiColor::Green),
            note: bold(AnsiColor::Cyan),
            dim: Style::new().dimmed(),
        }
    }
}

/// `text` in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
