//! What the parser says beside its errors: causes behind them, and what is accepted but can hardly be meant.

use super::{CONTINUATION, ONE_LINE, Parser};
use crate::arguments::Position;
use crate::heredoc;
use crate::section::{Kind, Open};
use crate::source::Line;
use crate::words::Word;
use crate::{Command, Diagnostic, FileId, Severity, Value, causes, table};

/// Commands that say one thing: of several lines in one file the last one counts.
const ONCE: [&str; 12] = [
    "authselect",
    "bootloader",
    "firewall",
    "firstboot",
    "keyboard",
    "lang",
    "rootpw",
    "selinux",
    "services",
    "timezone",
    "url",
    "xconfig",
];

impl Parser<'_> {
    /// Names the cause of what was found in a line since there were `before` findings; or remarks on it where the line
    /// was accepted nevertheless.
    pub(super) fn explain(
        &mut self,
        position: Position,
        line: Line<'_>,
        words: &[Word],
        before: usize,
    ) {
        let wrong = self.report.has_error_since(before);
        let content = line.content();
        // A backslash before the line's end makes that a letter of the last word.
        let continued = words
            .last()
            .is_some_and(|w| w.text.ends_with(['\n', '\r']) && content.ends_with('\\'));
        if continued {
            let end = content.len() as u32;
            let span = position.span(end - 1, end);
            if wrong {
                self.report.diagnostics.truncate(before);
                self.continued = true;
                let message = CONTINUATION.to_owned();
                return self
                    .report
                    .error_help("continuation", span, message, ONE_LINE);
            }
            self.report.warning(
                "continuation-accepted",
                span,
                CONTINUATION.to_owned(),
                ONE_LINE,
            );
        }
        let Some(cause) = causes::of_words(line.text, words) else {
            return;
        };
        if !wrong {
            let span = position.span(cause.start as u32, cause.end as u32);
            return self
                .report
                .warning(cause.code, span, cause.message, cause.help);
        }
        // Further errors in the line come from the same.
        let found = self.report.diagnostics.split_off(before);
        let mut errors = found.into_iter().filter(|d| d.severity == Severity::Error);
        if let Some(mut error) = errors.next() {
            let advice = format!("{}: {}", cause.message, cause.help);
            error.help.insert(0, advice);
            self.report.diagnostics.push(error);
        }
    }

    /// Whether a line that ends a script stands in a here-document of it, which goes on below: then the file cannot be
    /// read as it is meant, and this line is why.
    pub(super) fn is_in_document(
        &mut self,
        position: Position,
        line: Line<'_>,
        first: &str,
        ahead: super::Ahead<'_, '_>,
    ) -> bool {
        let Some(open) = self.section.as_ref().filter(|o| is_shell(o)) else {
            return false;
        };
        let Some(document) = heredoc::open(&open.body) else {
            return false;
        };
        // Below an `%end`, the document's end is a wrong command, unless it is in a further section or is a command.
        let is_end = first == "%end";
        let is_section =
            |line: &str| is_end && table::SECTIONS.contains(&crate::words::first(line));
        if (is_end && table::command(&document.delimiter).is_some())
            || !document.ends_in(ahead, is_section)
        {
            return false;
        }
        let began = open.lines.get(document.line);
        let began = began.map_or_else(String::new, |span| self.kickstart.location(*span));
        let start = (line.text.len() - line.text.trim_start().len()) as u32;
        self.report.error_help(
            "heredoc",
            position.span(start, start + first.len() as u32),
            format!(
                "this line ends the script, although it is inside the here-document `{}` of {began}",
                document.delimiter
            ),
            format!(
                "no line of a script may begin with `{first}`, not even indented: write another word for it there and replace that with sed"
            ),
        );
        self.document = Some(document);
        true
    }

    /// Shells take the carriage return for a part of the last word.
    pub(super) fn report_crlf(&mut self, open: &Open) {
        let is_script = matches!(open.kind, Kind::Script(_));
        let python = interpreter(open).contains("python");
        if self.crlf_said || !is_script || python || !open.body.contains("\r\n") {
            return;
        }
        self.crlf_said = true;
        let message = format!(
            "the lines of this script end in CR LF, and {} takes the CR for a part of the last word",
            interpreter(open)
        );
        let span = open.lines.first().copied().unwrap_or(open.header.span);
        let help = "convert the file with `dos2unix`, or `sed -i 's/\\r$//'`";
        self.report.warning("script-crlf", span, message, help);
    }

    /// Remarks on a command that takes something back that stood above in the same file. In an included file it is
    /// there to be taken back.
    pub(super) fn remember(&mut self, command: &Command) {
        if !ONCE.contains(&command.name.as_str()) {
            return;
        }
        let key = (command.span.file, command.name.clone());
        let Some(earlier) = self.once.insert(key, command.clone()) else {
            return;
        };
        let lost = lost(&earlier, command);
        if lost.is_empty() {
            return;
        }
        self.report.warning(
            "given-again",
            command.span,
            format!(
                "`{}` was given at {} already: its {} there is lost",
                command.name,
                self.kickstart.location(earlier.span),
                lost.join(", ")
            ),
            "keep one of the lines",
        );
    }

    /// A further header sets the options of `%packages` anew.
    pub(super) fn report_packages_again(&mut self, open: &Open) {
        let header = &open.header;
        if let Some(earlier) = self.packages.replace(header.clone()) {
            let lost = lost(&earlier, header);
            if !lost.is_empty() {
                self.report.warning(
                    "packages-again",
                    header.span,
                    format!(
                        "this header sets the options of %packages anew: {} of {} has no effect any more",
                        lost.join(", "),
                        self.kickstart.location(earlier.span)
                    ),
                    "say the same options in every header, or drop them above",
                );
            }
        }
    }

    /// Where not one line is a kickstart's, this is said instead of something about each.
    pub(super) fn report_other_file(&mut self) {
        let unknown = |d: &&Diagnostic| {
            d.code == "unknown-command" && d.span.is_some_and(|s| s.file == FileId(0))
        };
        let wrong = self.report.diagnostics.iter().filter(unknown).count();
        let Some(text) = self.kickstart.files.first().map(|f| f.text.as_str()) else {
            return;
        };
        let marked = text.starts_with("#!/") || text.trim_start().starts_with(['<', '{', '[']);
        let right = self.items.saturating_sub(wrong);
        let other = match marked {
            true => wrong > right,
            false => wrong > 3 && self.kickstart.items.is_empty() && right == 0,
        };
        if !other {
            return;
        }
        let mut errors = self.report.diagnostics.iter();
        let span = errors
            .find(|d| d.severity == Severity::Error)
            .and_then(|d| d.span);
        let Some(span) = span else { return };
        let (message, help) = causes::of_file(text);
        self.report.diagnostics.clear();
        self.report
            .error_help("not-a-kickstart", span, message, help);
    }
}

fn interpreter(open: &Open) -> &str {
    open.header.text("--interpreter").unwrap_or("/bin/sh")
}

fn is_shell(open: &Open) -> bool {
    matches!(open.kind, Kind::Script(_)) && interpreter(open).ends_with("sh")
}

/// What an earlier line of a command says that a later one takes back. Names only: values may be secrets.
fn lost(earlier: &Command, later: &Command) -> Vec<String> {
    let mut lost = Vec::new();
    if !earlier.args.is_empty() && !later.args.is_empty() && earlier.args != later.args {
        lost.push("value".to_owned());
    }
    for option in &earlier.options {
        let again = later.options.iter().rev().find(|o| o.name == option.name);
        let gone = match (&option.value, again) {
            // The services that a firewall lets in add up.
            (Value::Flag(on), None) => *on && earlier.name != "firewall",
            (_, None) => earlier.name.starts_with('%'),
            (value, Some(again)) => *value != again.value,
        };
        let name = format!("`{}`", option.name);
        if gone && !lost.contains(&name) {
            lost.push(name);
        }
    }
    lost
}
