//! Collecting diagnostics, not more than anybody reads.

use std::borrow::Cow;

use crate::{Diagnostic, Severity, Span, limits};

/// The findings so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) diagnostics: Vec<Diagnostic>,
    dropped: usize,
    dropped_error: bool,
}

impl Report {
    /// Adds an error with advice.
    pub(crate) fn error_help(
        &mut self,
        code: &'static str,
        span: Span,
        message: String,
        help: impl Into<String>,
    ) {
        self.push(Severity::Error, code, span, message, vec![help.into()]);
    }

    /// Adds a warning with advice.
    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: String,
        help: impl Into<String>,
    ) {
        self.push(Severity::Warning, code, span, message, vec![help.into()]);
    }

    /// Whether an error was added since there were so many findings.
    pub(crate) fn has_error_since(&self, findings: usize) -> bool {
        let since = self.diagnostics.get(findings..).unwrap_or(&[]);
        since.iter().any(|d| d.severity == Severity::Error)
    }

    /// Whether another finding would still be kept: costly advice is only worth it then.
    pub(crate) fn has_room(&self) -> bool {
        self.diagnostics.len() < limits::DIAGNOSTICS
    }

    pub(crate) fn push(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
        help: Vec<String>,
    ) {
        if !self.has_room() {
            self.dropped += 1;
            self.dropped_error |= severity == Severity::Error;
            return;
        }
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            message,
            span: Some(span),
            help,
        });
    }

    /// The findings, with a closing remark where some were dropped.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        if self.dropped > 0 {
            self.diagnostics.push(Diagnostic {
                severity: match self.dropped_error {
                    true => Severity::Error,
                    false => Severity::Warning,
                },
                code: "too-many-findings",
                message: format!("{} further findings are not shown", self.dropped),
                span: None,
                help: vec!["mend the first ones and check again".to_owned()],
            });
        }
        self.diagnostics
    }
}

/// Input as a message repeats it: shortened, control characters made visible.
pub(crate) fn quote(text: &str) -> String {
    let mut short: Cow<'_, str> = Cow::Borrowed(text);
    if let Some((end, _)) = text.char_indices().nth(limits::QUOTE) {
        short = Cow::Owned(format!("{}…", text.get(..end).unwrap_or("")));
    }
    let mut out = String::from("`");
    for c in short.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.push('`');
    out
}
