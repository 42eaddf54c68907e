//! Sections: their headers and what is collected until `%end`.

use crate::arguments::{self, Position};
use crate::report::Report;
use crate::table;
use crate::words::Word;
use crate::{
    Certificate, Command, Item, Opaque, PackageItem, PackagesSection, Script, ScriptKind, Span,
    Value, Version,
};

/// A section that is being read.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) kind: Kind,
    /// The header, with its options under their canonical names.
    pub(crate) header: Command,
    /// The lines so far, with their ends.
    pub(crate) body: String,
    /// Where each line of `body` came from.
    pub(crate) lines: Vec<Span>,
    /// The lines of `%packages` so far.
    pub(crate) packages: Vec<PackageItem>,
}

/// What kind of section it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Script(ScriptKind),
    Packages,
    Certificate,
    Opaque,
    /// A name that nobody knows: skipped up to its `%end`.
    Unknown,
}

impl Kind {
    fn of(name: &str) -> Kind {
        match name {
            "%pre" => Kind::Script(ScriptKind::Pre),
            "%pre-install" => Kind::Script(ScriptKind::PreInstall),
            "%post" => Kind::Script(ScriptKind::Post),
            "%onerror" => Kind::Script(ScriptKind::OnError),
            "%traceback" => Kind::Script(ScriptKind::Traceback),
            "%packages" => Kind::Packages,
            "%certificate" => Kind::Certificate,
            "%addon" | "%anaconda" => Kind::Opaque,
            _ => Kind::Unknown,
        }
    }
}

impl Open {
    /// Reads a header whose first word is known to start with a per cent sign.
    pub(crate) fn new(
        words: &[Word],
        position: Position,
        version: Version,
        report: &mut Report,
    ) -> Open {
        let (name, start) = words
            .first()
            .map_or(("", 0), |w| (w.text.as_str(), w.start));
        let whole = position.span(start, words.last().map_or(start, |w| w.end));
        let mut open = Open {
            kind: Kind::of(name),
            header: Command {
                name: name.to_owned(),
                options: Vec::new(),
                args: Vec::new(),
                span: whole,
            },
            body: String::new(),
            lines: Vec::new(),
            packages: Vec::new(),
        };
        let rest = words.get(1..).unwrap_or(&[]);
        match open.kind {
            Kind::Unknown => {}
            Kind::Opaque => open.header.args = rest.iter().map(|w| w.text.clone()).collect(),
            _ => open.read_options(rest, position, version, report),
        }
        open
    }

    /// The same section again, empty: an include closed it and the including file goes on.
    pub(crate) fn reopened(&self) -> Open {
        Open {
            body: String::new(),
            lines: Vec::new(),
            packages: Vec::new(),
            ..self.clone()
        }
    }

    fn read_options(
        &mut self,
        words: &[Word],
        position: Position,
        version: Version,
        report: &mut Report,
    ) {
        let arguments = table::section_arguments(&self.header.name, version);
        let span = self.header.span;
        let matched = arguments::match_words(arguments, words, position, span, report);
        self.header.options = matched.options;
        let name = &self.header.name;
        arguments::report_extras(&matched.extras, arguments, name, position, report);
        self.report_deprecated(version, report);
        self.rename_camel_case();
        self.check(report);
    }

    fn report_deprecated(&self, version: Version, report: &mut Report) {
        let arguments = table::section_arguments(&self.header.name, version);
        if self.kind == Kind::Script(ScriptKind::Traceback) && version != Version::Rhel8 {
            report.warning(
                "deprecated-section",
                self.header.span,
                "`%traceback` is deprecated".to_owned(),
                "use `%onerror` instead",
            );
        }
        for option in &self.header.options {
            let spelt = |a: &&crate::table::Argument| a.names.contains(&option.name);
            let marked = arguments.iter().find(spelt).is_some_and(|a| a.deprecated);
            let soon = version == Version::Rhel9;
            if let Some(new) = modern(&option.name).filter(|_| marked || soon) {
                report.warning(
                    "deprecated-option",
                    option.span,
                    format!("`{}` is deprecated", option.name),
                    format!("write `{new}`"),
                );
            }
        }
    }

    fn rename_camel_case(&mut self) {
        for option in &mut self.header.options {
            if let Some(new) = modern(&option.name) {
                option.name = new.to_owned();
            }
        }
    }

    fn check(&self, report: &mut Report) {
        let header = &self.header;
        if self.kind == Kind::Packages && header.flag("--default") && header.flag("--nocore") {
            report.error_help(
                "conflicting-options",
                header.span,
                "`--default` and `--nocore` exclude each other".to_owned(),
                "keep one of them",
            );
        }
        let lacks = |name: &str| header.text(name).is_none_or(str::is_empty);
        if self.kind == Kind::Certificate && lacks("--dir") && lacks("--type") {
            report.error_help(
                "missing-option",
                header.span,
                "`%certificate` does not say where the certificate goes".to_owned(),
                "write `--dir=/path` or `--type=anchor`",
            );
        }
    }

    /// What the section says, once it is closed.
    pub(crate) fn close(self) -> Option<Item> {
        let Open {
            kind,
            header,
            body,
            lines,
            packages,
        } = self;
        let text = |name: &str| header.text(name).map(str::to_owned);
        Some(match kind {
            Kind::Unknown => return None,
            Kind::Packages => Item::Packages(PackagesSection {
                header,
                items: packages,
            }),
            Kind::Certificate => Item::Certificate(Certificate {
                filename: text("--filename")?,
                dir: text("--dir"),
                kind: text("--type"),
                span: header.span,
                body,
            }),
            Kind::Opaque => Item::Opaque(Opaque {
                name: header.name,
                args: header.args,
                body,
                span: header.span,
            }),
            Kind::Script(kind) => Item::Script(Script {
                kind,
                interpreter: text("--interpreter").unwrap_or_else(|| "/bin/sh".to_owned()),
                chroot: kind == ScriptKind::Post && !header.flag("--nochroot"),
                log: text("--log"),
                error_on_fail: header.flag("--erroronfail"),
                span: header.span,
                body,
                lines,
            }),
        })
    }
}

/// The spelling that replaces a deprecated one.
fn modern(option: &str) -> Option<&'static str> {
    match option {
        "--instLangs" => Some("--inst-langs"),
        "--excludeWeakdeps" => Some("--exclude-weakdeps"),
        _ => None,
    }
}

/// Whether a header option was given, with its text, even if that is empty.
pub(crate) fn given<'a>(header: &'a Command, name: &str) -> Option<&'a Value> {
    let last = header.options.iter().rev().find(|o| o.name == name);
    last.map(|o| &o.value)
}
