//! What a kickstart file says, in source order, with spans.

use serde::{Deserialize, Serialize};

/// Index into [`Kickstart::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A place in a source file. Lines count from 1, columns from 0 in bytes of the line, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First line, from 1.
    pub line: u32,
    /// First byte in the line, from 0.
    pub start: u32,
    /// One past the last byte in the line.
    pub end: u32,
}

/// One text that was read: the main file or what an `%include` brought in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The name as shown to people.
    pub name: String,
    /// The text as read.
    #[serde(skip)]
    pub text: String,
    /// Where the include that brought it stands; `None` for the main file.
    pub included_from: Option<Span>,
}

/// A whole kickstart: the main file with all its includes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kickstart {
    /// All texts read, the main file first.
    pub files: Vec<SourceFile>,
    /// Commands and sections in source order, includes expanded in place.
    pub items: Vec<Item>,
    /// What the last `#platform=` line says; empty without one.
    pub platform: String,
}

impl Kickstart {
    /// Returns the display name of a file.
    pub fn file_name(&self, file: FileId) -> &str {
        self.files
            .get(file.0 as usize)
            .map_or("?", |f| f.name.as_str())
    }

    /// Returns all commands, in source order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.items.iter().filter_map(|item| match item {
            Item::Command(command) => Some(command),
            _ => None,
        })
    }

    /// Returns all scripts, in source order.
    pub fn scripts(&self) -> impl Iterator<Item = &Script> {
        self.items.iter().filter_map(|item| match item {
            Item::Script(script) => Some(script),
            _ => None,
        })
    }

    /// Returns all `%packages` sections, in source order.
    pub fn packages(&self) -> impl Iterator<Item = &PackagesSection> {
        self.items.iter().filter_map(|item| match item {
            Item::Packages(packages) => Some(packages),
            _ => None,
        })
    }

    /// Returns `file:line` of a span.
    pub fn location(&self, span: Span) -> String {
        format!("{}:{}", self.file_name(span.file), span.line)
    }
}

/// One thing that a kickstart says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "kebab-case")]
pub enum Item {
    /// A command line.
    Command(Command),
    /// `%pre`, `%pre-install`, `%post`, `%onerror`, `%traceback`.
    Script(Script),
    /// `%packages`.
    Packages(PackagesSection),
    /// `%certificate`.
    Certificate(Certificate),
    /// `%addon`, `%anaconda`: handed on as text.
    Opaque(Opaque),
}

/// A value of a command's option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A switch that was given (or whose negation was given).
    Flag(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// A comma list or a repeated option.
    List(Vec<String>),
}

/// An option that was given on a command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opt {
    /// Canonical spelling: with dashes and unabbreviated, the first name in the option table (`--fstype`).
    pub name: String,
    /// What it was set to.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
}

/// One command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The canonical name (`part` also for `partition`).
    pub name: String,
    /// Options in source order; where one is repeated, the last one counts.
    pub options: Vec<Opt>,
    /// Positional words.
    pub args: Vec<String>,
    /// Where the line stands.
    pub span: Span,
}

impl Command {
    fn last(&self, name: &str) -> Option<&Value> {
        self.options
            .iter()
            .rev()
            .find(|o| o.name == name)
            .map(|o| &o.value)
    }

    /// Returns whether a switch was given and is on.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.last(name), Some(Value::Flag(true)))
    }

    /// Returns the text of an option, if given.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.last(name) {
            Some(Value::Text(t)) => Some(t),
            _ => None,
        }
    }

    /// Returns the number of an option, if given.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.last(name) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// Returns all words of a list option, over all its repetitions.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let mut all = Vec::new();
        for option in self.options.iter().filter(|o| o.name == name) {
            match &option.value {
                Value::List(words) => all.extend(words.iter().map(String::as_str)),
                Value::Text(word) => all.push(word.as_str()),
                _ => {}
            }
        }
        all
    }

    /// Returns whether an option was given at all.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }
}

/// Which script section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptKind {
    /// `%pre`
    Pre,
    /// `%pre-install`
    PreInstall,
    /// `%post`
    Post,
    /// `%onerror`
    OnError,
    /// `%traceback`
    Traceback,
}

/// A script section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Which section.
    pub kind: ScriptKind,
    /// `--interpreter`, default `/bin/sh`.
    pub interpreter: String,
    /// False with `--nochroot` (and always for `%pre`).
    pub chroot: bool,
    /// `--log`; empty where an empty value was given, which means none.
    pub log: Option<String>,
    /// `--erroronfail`.
    pub error_on_fail: bool,
    /// The text between the header and `%end`, includes expanded, with line ends.
    pub body: String,
    /// Where the header stands.
    pub span: Span,
    /// For every line of `body`: where it came from.
    #[serde(skip)]
    pub lines: Vec<Span>,
}

/// `%packages`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagesSection {
    /// The header's options, as a command named `%packages` (canonical names: `--default --excludedocs
    /// --ignoremissing --multilib --nocore --timeout --retries --inst-langs --exclude-weakdeps --ignorebroken`).
    pub header: Command,
    /// One item a line.
    pub items: Vec<PackageItem>,
}

/// One line of `%packages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageItem {
    /// Whether the line starts with `-`.
    pub exclude: bool,
    /// What is named.
    pub what: PackageRef,
    /// Where it stands.
    pub span: Span,
}

/// What a line of `%packages` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageRef {
    /// A package name or glob.
    Package(String),
    /// `@group`
    Group {
        /// The name without `@`. Of a group that is excluded, what comes after `-@`, as it is written.
        name: String,
        /// `--nodefaults`
        nodefaults: bool,
        /// `--optional`
        optional: bool,
    },
    /// `@^environment`
    Environment(String),
    /// `@module:stream/profile`
    Module {
        /// Before the colon.
        name: String,
        /// Between colon and slash.
        stream: String,
        /// After the slash.
        profile: Option<String>,
    },
}

/// `%certificate`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// `--filename`
    pub filename: String,
    /// `--dir`
    pub dir: Option<String>,
    /// `--type`
    pub kind: Option<String>,
    /// The text.
    pub body: String,
    /// Where the header stands.
    pub span: Span,
}

/// `%addon` or `%anaconda`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opaque {
    /// `%addon` or `%anaconda`
    pub name: String,
    /// The words after the name.
    pub args: Vec<String>,
    /// The text.
    pub body: String,
    /// Where the header stands.
    pub span: Span,
}
