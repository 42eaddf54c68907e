//! From bytes to a [`Kickstart`]: lines, sections, includes.
//!
//! A file that is included in a section is read as lines of that section; where it closes the section itself, the
//! rest of it holds commands, and the including file goes on in a new section with the same header. That is what
//! the reference does.

use std::collections::HashMap;

use crate::arguments::Position;
use crate::command::{self, Seen};
use crate::heredoc::Heredoc;
use crate::report::{Report, quote};
use crate::section::{Kind, Open};
use crate::source::{self, Line, Loaded, Loader};
use crate::words::{self, Fault, Word, Words};
use crate::{
    Command, Diagnostic, FileId, Item, Kickstart, Severity, SourceFile, Span, Version, known,
    limits, packages, spelling, table,
};

mod remarks;

/// How to read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The version of the language.
    pub version: Version,
    /// Whether `%include` brings in what it names; otherwise such lines are skipped. `%ksappend` always does.
    pub follow_includes: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            version: Version::default(),
            follow_includes: true,
        }
    }
}

impl Options {
    /// Returns options for a version; includes are followed.
    pub fn new(version: Version) -> Options {
        Options {
            version,
            ..Options::default()
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// What the kickstart says, as far as it could be read.
    pub kickstart: Kickstart,
    /// What is to be said about it, in the order in which it was found.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    /// Returns whether anything is wrong: a build must not go on, and there is nothing to flatten.
    pub fn has_errors(&self) -> bool {
        self.first_error().is_some()
    }

    /// Returns the first error.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        let mut errors = self.diagnostics.iter();
        errors.find(|d| d.severity == Severity::Error)
    }

    /// Returns the verdict of the validator: neither an error nor a warning that the reference reports, too.
    pub fn is_valid(&self) -> bool {
        let counts = |d: &Diagnostic| d.severity == Severity::Error || d.counts();
        !self.diagnostics.iter().any(counts)
    }
}

/// Reads a kickstart. Whatever the bytes are, this returns, in time and memory bounded by their number; `name` is
/// the main file's name as messages show it.
pub fn parse(name: &str, bytes: &[u8], options: &Options, loader: &mut dyn Loader) -> Parsed {
    let mut parser = Parser {
        options,
        loader,
        kickstart: Kickstart::default(),
        report: Report::default(),
        seen: Seen::default(),
        section: None,
        document: None,
        continued: false,
        once: HashMap::new(),
        packages: None,
        crlf_said: false,
        stack: Vec::new(),
        bytes: 0,
        section_lines: 0,
        items: 0,
        full: false,
        blank: true,
    };
    let main = Loaded {
        name: name.to_owned(),
        bytes: bytes.to_vec(),
    };
    parser.file(main, None, Mode::Include);
    parser.finish()
}

/// Whether this is the first word. It is longer where a blank follows that only Unicode knows: such a line is nobody's.
fn begins(words: &Words, first: &str) -> bool {
    words.words.first().is_some_and(|word| word.text == first)
}

/// How a file came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Include,
    /// `%ksappend`: its lines stand for themselves, but what they append is not read.
    Append,
}

/// The lines after one, with their ends.
type Ahead<'a, 'b> = &'a mut dyn Iterator<Item = &'b str>;

/// What a backslash at a line's end is about.
const CONTINUATION: &str =
    "a backslash does not continue a line: a kickstart has no continuation lines";
const ONE_LINE: &str = "write everything on one line, however long";

struct Parser<'a> {
    options: &'a Options,
    loader: &'a mut dyn Loader,
    kickstart: Kickstart,
    report: Report,
    seen: Seen,
    section: Option<Open>,
    /// A here-document that a line looked like the end of its script in.
    document: Option<Heredoc>,
    /// The line goes on what was reported.
    continued: bool,
    /// Commands of which one line in a file counts, by file and name.
    once: HashMap<(FileId, String), Command>,
    /// The last header of `%packages`.
    packages: Option<Command>,
    /// Whether the ends of a script's lines were remarked on.
    crlf_said: bool,
    /// The files that are being read, from the outermost on.
    stack: Vec<FileId>,
    bytes: usize,
    section_lines: usize,
    /// Commands, sections and package lines so far, be they right or wrong.
    items: usize,
    /// Whether a limit was reached: reading stops.
    full: bool,
    /// Whether there was no line with anything in it, nor anything that is no text.
    blank: bool,
}

impl Parser<'_> {
    fn finish(mut self) -> Parsed {
        if let Some(open) = self.section.take() {
            self.report_unclosed(&open);
            self.close(open);
        }
        self.report_other_file();
        if self.blank {
            self.report_empty();
        }
        Parsed {
            kickstart: self.kickstart,
            diagnostics: self.report.finish(),
        }
    }

    fn file(&mut self, loaded: Loaded, from: Option<Span>, mode: Mode) {
        let file = FileId(self.kickstart.files.len() as u32);
        let (text, fault) = source::decode(&loaded.bytes);
        self.bytes += text.len();
        if self.bytes > limits::BYTES {
            self.stop(
                from,
                format!(
                    "all texts together are longer than {} MiB",
                    limits::BYTES >> 20
                ),
            );
        }
        self.kickstart.files.push(SourceFile {
            name: loaded.name,
            text: String::new(),
            included_from: from,
        });
        if let Some((message, help)) = source::not_text(&loaded.bytes) {
            self.blank = false;
            let span = from.unwrap_or(Span {
                file,
                line: 1,
                start: 0,
                end: 0,
            });
            return self.report.error_help("not-utf8", span, message, help);
        }
        if let Some(at) = fault {
            self.report_encoding(file, &text, at);
        }
        self.stack.push(file);
        self.lines(file, &text, mode);
        self.stack.pop();
        if let Some(source) = self.kickstart.files.get_mut(file.0 as usize) {
            source.text = text;
        }
    }

    fn lines(&mut self, file: FileId, text: &str, mode: Mode) {
        let mut lines = source::lines(text);
        while let Some(line) = lines.next() {
            if self.full {
                break;
            }
            self.line(file, line, mode, &mut lines.clone().map(|l| l.text));
        }
    }

    /// The reference's validator refuses such a file, while its flattener takes it.
    fn report_empty(&mut self) {
        let position = Position {
            file: FileId(0),
            line: 1,
        };
        let message = "the file is empty".to_owned();
        let help = "write commands or sections into it, or remove it";
        self.report
            .warning("empty-file", position.span(0, 0), message, help);
    }

    fn report_encoding(&mut self, file: FileId, text: &str, at: usize) {
        let before = text.get(..at).unwrap_or("");
        let line = source::lines(before).last();
        let ended = line.is_none_or(|l| l.content().len() < l.text.len());
        let number = line.map_or(0, |l| l.number) + u32::from(ended);
        let start = if ended {
            0
        } else {
            line.map_or(0, |l| l.text.len() as u32)
        };
        let span = Span {
            file,
            line: number,
            start,
            end: start + 1,
        };
        self.report.error_help(
            "not-utf8",
            span,
            "the file is not UTF-8 from here on".to_owned(),
            "convert it, for example with `iconv -f latin1 -t utf-8`",
        );
    }

    /// Stops reading at a limit.
    fn stop(&mut self, span: Option<Span>, message: String) {
        self.full = true;
        let span = span.unwrap_or(Span {
            file: FileId(0),
            line: 1,
            start: 0,
            end: 0,
        });
        let help = "reading stopped here; no real kickstart comes near this limit";
        self.report.error_help("limit", span, message, help);
    }

    /// One line; `ahead` are the lines after it in its file.
    fn line(&mut self, file: FileId, line: Line<'_>, mode: Mode, ahead: Ahead<'_, '_>) {
        let first = words::first(line.text);
        if first.starts_with("%ksappend") {
            return self.append(file, line, mode);
        }
        let blank = |b: u8| b.is_ascii_whitespace() || b == 0x0b;
        self.blank &= line.text.bytes().all(blank);
        match self.section.as_ref().map(|s| s.kind) {
            None => self.command_line(file, line, first),
            Some(kind) => self.section_line(file, line, first, kind, ahead),
        }
    }

    fn command_line(&mut self, file: FileId, line: Line<'_>, first: &str) {
        if std::mem::take(&mut self.continued) {
            // Part of a line that has been reported as a whole.
            self.continued = line.content().ends_with('\\');
            return;
        }
        if first.is_empty() || first.starts_with('#') {
            return self.platform(line);
        }
        let position = Position {
            file,
            line: line.number,
        };
        if !self.take_item(position.span(0, line.content().len() as u32)) {
            return;
        }
        let before = self.report.diagnostics.len();
        let Some(Words { words, cut }) = self.words(position, line, words::split(line.text)) else {
            self.continued = line.content().ends_with('\\');
            return self.skip_section(position, first);
        };
        self.read_words(position, &words, cut);
        self.explain(position, line, &words, before);
    }

    fn read_words(&mut self, position: Position, words: &[Word], cut: Option<u32>) {
        let Some(word) = words.first() else { return };
        if word.text.is_empty() {
            let message = "the line starts with an empty word".to_owned();
            let help = "remove the quotes before the command";
            let span = position.word(word);
            return self
                .report
                .error_help("unknown-command", span, message, help);
        }
        if word.text == "%include" {
            return self.include(position, words);
        }
        self.report_cut(position, cut);
        if word.text.starts_with('%') {
            return self.open(position, words);
        }
        let (version, seen) = (self.options.version, &mut self.seen);
        if let Some(command) = command::read(words, position, version, seen, &mut self.report) {
            known::check(&command, &mut self.report);
            self.remember(&command);
            self.kickstart.items.push(Item::Command(command));
        }
    }

    /// `#platform=`: the one comment that means something, to a tool that is gone; it is handed on.
    fn platform(&mut self, line: Line<'_>) {
        if let Some(name) = line.text.strip_prefix("#platform=") {
            self.kickstart.platform = name.trim().to_owned();
        }
    }

    fn words(
        &mut self,
        position: Position,
        line: Line<'_>,
        split: Result<Words, Fault>,
    ) -> Option<Words> {
        let (start, message, help) = match split {
            Ok(words) => return Some(words),
            Err(Fault::OpenQuote(at, quote)) => (
                at,
                format!("the quote {quote} is not closed"),
                "close it on the same line: a kickstart has no continuation lines",
            ),
            Err(Fault::Backslash(at)) => (at, CONTINUATION.to_owned(), ONE_LINE),
            Err(Fault::TooMany) => (
                0,
                format!("the line has more than {} words", limits::WORDS),
                "no command takes that many",
            ),
        };
        let end = line.content().len().max(start as usize + 1) as u32;
        self.report
            .error_help("quoting", position.span(start, end), message, help);
        None
    }

    fn report_cut(&mut self, position: Position, cut: Option<u32>) {
        if let Some(at) = cut {
            self.report.warning(
                "cut-word",
                position.span(at, at + 1),
                "an unquoted `#` starts a comment even inside a word: the rest of the line is ignored".to_owned(),
                "put the word in quotes, or a space before the comment",
            );
        }
    }

    /// Counts an item against the limit.
    fn take_item(&mut self, span: Span) -> bool {
        self.items += 1;
        if self.items <= limits::ITEMS {
            return true;
        }
        self.stop(
            Some(span),
            format!("the kickstart has more than {} items", limits::ITEMS),
        );
        false
    }

    fn open(&mut self, position: Position, words: &[Word]) {
        let open = Open::new(words, position, self.options.version, &mut self.report);
        if open.kind == Kind::Unknown {
            self.report_unknown_section(&open);
            if open.header.name == "%end" {
                return;
            }
        }
        if open.kind == Kind::Packages {
            self.report_packages_again(&open);
        }
        self.section = Some(open);
    }

    /// Skips the lines of a section whose header cannot be read, lest each of them be reported.
    fn skip_section(&mut self, position: Position, first: &str) {
        if table::SECTIONS.contains(&first) {
            let mut open = Open::new(&[], position, self.options.version, &mut self.report);
            open.header.name = first.to_owned();
            self.section = Some(open);
        }
    }

    fn report_unknown_section(&mut self, open: &Open) {
        let name = open.header.name.as_str();
        if name == "%end" {
            return self.report.error_help(
                "stray-end",
                open.header.span,
                "`%end` closes nothing".to_owned(),
                "remove it, or look for the section header that is missing above",
            );
        }
        let mut help = vec!["everything up to its `%end` is skipped".to_owned()];
        if let Some(near) = spelling::nearest(name, table::SECTIONS.into_iter()) {
            help.insert(0, format!("did you mean `{near}`?"));
        }
        let message = format!("unknown section {}", quote(name));
        self.report.push(
            Severity::Error,
            "unknown-section",
            open.header.span,
            message,
            help,
        );
    }

    fn section_line(
        &mut self,
        file: FileId,
        line: Line<'_>,
        first: &str,
        kind: Kind,
        ahead: Ahead<'_, '_>,
    ) {
        let position = Position {
            file,
            line: line.number,
        };
        self.section_lines += 1;
        if self.section_lines > limits::SECTION_LINES {
            let message = format!("sections have more than {} lines", limits::SECTION_LINES);
            return self.stop(Some(position.span(0, 0)), message);
        }
        if let Some(document) = &self.document {
            // The file is wrong already; the rest of the script is read as it is meant.
            if document.ends_with(line.text) {
                self.document = None;
            }
            return self.body_line(position, line, kind);
        }
        let ends = first == "%end" || table::SECTIONS.contains(&first);
        if ends && self.is_in_document(position, line, first, ahead) {
            return self.body_line(position, line, kind);
        }
        match first {
            "%end" => self.end_line(position, line),
            "%include" => self.section_include(position, line),
            first if table::SECTIONS.contains(&first) => self.header_line(position, line, first),
            _ if kind == Kind::Packages => self.package_line(position, line),
            _ => self.body_line(position, line, kind),
        }
    }

    /// The words of a line in a section that is not the section's own. In such lines `#` begins no comment.
    fn marker(&mut self, position: Position, line: Line<'_>) -> Option<Words> {
        self.words(position, line, words::split_uncommented(line.text))
    }

    fn end_line(&mut self, position: Position, line: Line<'_>) {
        let words = self.marker(position, line);
        if words.is_none_or(|words| begins(&words, "%end")) {
            self.end();
        }
    }

    fn header_line(&mut self, position: Position, line: Line<'_>, first: &str) {
        let words = words::split_uncommented(line.text);
        if words.map_or(true, |words| begins(&words, first)) {
            self.interrupted(position, line, first);
        }
    }

    fn end(&mut self) {
        if let Some(open) = self.section.take() {
            self.close(open);
        }
    }

    fn close(&mut self, open: Open) {
        if open.kind == Kind::Certificate && open.body.trim().is_empty() {
            self.report.error_help(
                "empty-certificate",
                open.header.span,
                "the certificate is empty".to_owned(),
                "put it between the header and `%end`, in PEM form",
            );
        }
        self.report_crlf(&open);
        self.kickstart.items.extend(open.close());
    }

    /// A section header inside a section: the `%end` was forgotten.
    fn interrupted(&mut self, position: Position, line: Line<'_>, first: &str) {
        if let Some(open) = self.section.take() {
            let start = line.text.len() - line.text.trim_start().len();
            let span = position.span(start as u32, (start + first.len()) as u32);
            let header = self.kickstart.location(open.header.span);
            self.report.error_help(
                "missing-end",
                span,
                format!(
                    "`{}` begins inside `{}`, which has no `%end`",
                    first, open.header.name
                ),
                format!(
                    "close `{}` of {header} with `%end` before this line",
                    open.header.name
                ),
            );
            self.close(open);
        }
        self.command_line(position.file, line, first);
    }

    fn report_unclosed(&mut self, open: &Open) {
        let name = &open.header.name;
        let main = FileId(0);
        let span = open.header.span;
        if span.file != main {
            self.report.warning(
                "open-include",
                span,
                format!("`{name}` of an included file has no `%end`"),
                "add `%end` after its last line",
            );
            return;
        }
        let last = self.kickstart.files.first();
        let last = last.and_then(|f| source::lines(&f.text).last());
        let line = last.map_or(span.line, |l| l.number);
        let end = last.map_or(0, |l| l.content().len() as u32);
        let header = self.kickstart.location(span);
        self.report.error_help(
            "missing-end",
            Span {
                file: main,
                line,
                start: 0,
                end,
            },
            format!("`{name}` of {header} has no `%end`"),
            "add `%end` after its last line",
        );
    }

    fn package_line(&mut self, position: Position, line: Line<'_>) {
        let at = |start: usize, end: usize| position.span(start as u32, end as u32);
        let Some(item) = packages::read(line.content(), at, &mut self.report) else {
            return;
        };
        let taken = self.take_item(item.span);
        if let Some(open) = self.section.as_mut().filter(|_| taken) {
            open.packages.push(item);
        }
    }

    fn body_line(&mut self, position: Position, line: Line<'_>, kind: Kind) {
        let Some(open) = &mut self.section else {
            return;
        };
        if kind == Kind::Unknown {
            return;
        }
        open.body.push_str(line.text);
        if matches!(kind, Kind::Script(_)) {
            open.lines
                .push(position.span(0, line.content().len() as u32));
        }
    }

    fn section_include(&mut self, position: Position, line: Line<'_>) {
        let Some(Words { words, .. }) = self.marker(position, line) else {
            return;
        };
        let outer = self.section.as_ref().map(Open::reopened);
        self.include(position, &words);
        if self.section.is_none() {
            self.section = outer;
        }
        self.end_line_of_body();
    }

    /// An included text may lack its last line end.
    fn end_line_of_body(&mut self) {
        if let Some(open) = &mut self.section
            && !open.body.is_empty()
            && !open.body.ends_with('\n')
        {
            open.body.push('\n');
        }
    }

    fn include(&mut self, position: Position, words: &[Word]) {
        let Some(path) = words.get(1).filter(|w| !w.text.is_empty()) else {
            let span = words
                .first()
                .map_or(position.span(0, 0), |w| position.word(w));
            let message = "`%include` names no file".to_owned();
            let help = "write `%include path` or `%include URL`";
            return self.report.error_help("bad-include", span, message, help);
        };
        let span = position.word(path);
        self.bring_in(&path.text, span, Mode::Include);
    }

    /// `%ksappend`: a line is replaced by a text before anything is read.
    fn append(&mut self, file: FileId, line: Line<'_>, mode: Mode) {
        if mode == Mode::Append {
            return;
        }
        let content = line.content();
        let start = content.len() - content.trim_start().len();
        let position = Position {
            file,
            line: line.number,
        };
        let span = position.span(start as u32, content.trim_end().len() as u32);
        let path = content.trim().split(' ').nth(1).unwrap_or("");
        match path.is_empty() {
            false => self.bring_in(path, span, Mode::Append),
            true => self.report.error_help(
                "bad-include",
                span,
                "`%ksappend` names no file".to_owned(),
                "write `%ksappend path` or `%ksappend URL`, with one blank between",
            ),
        }
        self.end_line_of_body();
    }

    fn bring_in(&mut self, path: &str, span: Span, mode: Mode) {
        let skipped = mode == Mode::Include && !self.options.follow_includes;
        if skipped || self.full {
            return;
        }
        if self.stack.len() > limits::DEPTH {
            let message = format!("includes are nested more than {} deep", limits::DEPTH);
            let help = "put the lines of some of the included files in their place";
            return self.report.error_help("include-depth", span, message, help);
        }
        if self.kickstart.files.len() > limits::INCLUDES {
            return self.stop(
                Some(span),
                format!("the kickstart has more than {} includes", limits::INCLUDES),
            );
        }
        let from = self.kickstart.file_name(span.file).to_owned();
        match self.loader.load(path, &from) {
            Err(error) => {
                // What `%pre` makes it makes there; a caller that has not run it yet knows better than this error.
                let code = match path.starts_with("/tmp/") {
                    true => "include-of-pre",
                    false => "missing-include",
                };
                self.report
                    .error_help(code, span, error.message, error.help);
            }
            Ok(loaded) if self.is_loop(&loaded.name) => self.report_loop(&loaded.name, span),
            Ok(loaded) => self.file(loaded, Some(span), mode),
        }
    }

    fn is_loop(&self, name: &str) -> bool {
        self.stack
            .iter()
            .any(|f| self.kickstart.file_name(*f) == name)
    }

    fn report_loop(&mut self, name: &str, span: Span) {
        let names = self.stack.iter().map(|f| self.kickstart.file_name(*f));
        let chain: Vec<_> = names.skip_while(|n| *n != name).collect();
        let message = format!(
            "this include closes an include loop: {} → {name}",
            chain.join(" → ")
        );
        self.report
            .error_help("include-loop", span, message, "remove one of the includes");
    }
}
