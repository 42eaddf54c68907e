//! A command while it is lowered: what it says, and what has become of it so far.

use kiln_kickstart::{Command, Value};

use super::{Action, Change, Context, Level, Meaning, Need, Notice};

pub(super) struct Draft<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) command: &'a Command,
    origin: &'a str,
    actions: Vec<Action>,
    needs: Vec<Need>,
    notices: Vec<Notice>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(context: &'a Context<'a>, command: &'a Command, origin: &'a str) -> Self {
        Draft {
            context,
            command,
            origin,
            actions: Vec::new(),
            needs: Vec::new(),
            notices: Vec::new(),
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn write(&mut self, path: impl Into<String>, mode: u32, content: impl Into<String>) {
        self.act(Action::WriteFile {
            path: path.into(),
            content: content.into(),
            mode,
        });
    }

    /// Asks for a package without which the command cannot be carried out.
    pub(super) fn need(&mut self, package: &str, why: &str) {
        match self.excluded(package) {
            Some(package) => self.error(
                format!("needs the package {package} ({why}), but %packages excludes it"),
                format!("drop `-{package}` from %packages, or drop the command"),
            ),
            None => self.ask(package, why),
        }
    }

    /// Asks for a package that makes use of what the command writes; returns whether it may be there. Who excludes it
    /// gets the rest: real files do that on purpose.
    pub(super) fn want(&mut self, package: &str, why: &str) -> bool {
        let Some(package) = self.excluded(package) else {
            self.ask(package, why);
            return true;
        };
        self.warn(
            format!("is incomplete: %packages excludes {package}, which {why}"),
            format!("drop `-{package}` from %packages, or drop the command"),
        );
        false
    }

    /// The target's name of a package, if the definition says that it shall not be there.
    fn excluded<'p>(&self, package: &'p str) -> Option<&'p str> {
        let name = self.context.conventions.package(package)?;
        self.context.excluded.contains(name).then_some(name)
    }

    fn ask(&mut self, package: &str, why: &str) {
        let Some(package) = self.context.conventions.package(package) else {
            return;
        };
        let why = format!("{}: {why}", self.command.name);
        self.needs.push(Need {
            package: package.to_owned(),
            why,
            origin: self.origin.to_owned(),
        });
    }

    /// Whether the definition asks for a package by name.
    pub(super) fn asked_for(&self, package: &str) -> bool {
        let name = self.context.conventions.package(package);
        name.is_some_and(|name| self.context.packages.contains(name))
    }

    /// Whether the root follows Fedora's conventions.
    pub(super) fn is_rpm(&self) -> bool {
        self.context.conventions == crate::Conventions::Rpm
    }

    pub(super) fn note(&mut self, message: impl AsRef<str>) {
        self.notice(Level::Note, message.as_ref(), None);
    }

    pub(super) fn warn(&mut self, message: impl AsRef<str>, hint: impl Into<String>) {
        self.notice(Level::Warning, message.as_ref(), Some(hint.into()));
    }

    pub(super) fn error(&mut self, message: impl AsRef<str>, hint: impl Into<String>) {
        self.notice(Level::Error, message.as_ref(), Some(hint.into()));
    }

    /// Adds a notice; the message goes on after the command's name.
    pub(super) fn notice(&mut self, level: Level, message: &str, hint: Option<String>) {
        let message = format!("{} {message}", self.command.name);
        let hint = hint.filter(|h| !h.is_empty());
        self.notices.push(Notice {
            origin: self.origin.to_owned(),
            level,
            message,
            hint,
        });
    }

    /// Warns of every option in the list that was given.
    pub(super) fn without_effect(&mut self, options: &[(&str, &str)]) {
        for (name, why) in options {
            if self.command.has(name) {
                self.warn(
                    format!("{name} has no effect: {why}"),
                    format!("drop {name}"),
                );
            }
        }
    }

    /// The words of the last occurrence of a list option.
    pub(super) fn last_list(&self, name: &str) -> Vec<&'a str> {
        let last = self.command.options.iter().rev().find(|o| o.name == name);
        match last.map(|o| &o.value) {
            Some(Value::List(words)) => words.iter().map(String::as_str).collect(),
            Some(Value::Text(text)) => split_commas(text).collect(),
            _ => Vec::new(),
        }
    }

    /// The words of all occurrences of a list option.
    pub(super) fn all_lists(&self, name: &str) -> Vec<&'a str> {
        let mut all = Vec::new();
        for option in self.command.options.iter().filter(|o| o.name == name) {
            match &option.value {
                Value::List(words) => all.extend(words.iter().map(String::as_str)),
                Value::Text(text) => all.extend(split_commas(text)),
                _ => {}
            }
        }
        all
    }

    /// Of two groups of switches, whether the one given last is in `on`; `None` if none was given.
    pub(super) fn switch(&self, on: &[&str], off: &[&str]) -> Option<bool> {
        let given = |names: &[&str], name: &str| names.contains(&name);
        self.command
            .options
            .iter()
            .rev()
            .find(|o| given(on, &o.name) || given(off, &o.name))
            .map(|o| given(on, &o.name))
    }

    /// A whole number option that must fit an id.
    pub(super) fn id(&mut self, name: &str) -> Option<u32> {
        let number = self.command.int(name)?;
        match u32::try_from(number) {
            // -1 as an id means "leave it" to chown(2), so it names nobody.
            Ok(id) if id < u32::MAX => Some(id),
            _ => {
                self.error(
                    format!("{name}={number} is not an id"),
                    "ids are numbers from 0 to 4294967294",
                );
                None
            }
        }
    }

    pub(super) fn finish(self, meaning: &mut Meaning) {
        let failed = self.notices.iter().any(|n| n.level == Level::Error);
        meaning.notices.extend(self.notices);
        if failed || (self.actions.is_empty() && self.needs.is_empty()) {
            return;
        }
        meaning.changes.push(Change {
            origin: self.origin.to_owned(),
            command: self.command.name.clone(),
            actions: self.actions,
            needs: self.needs,
        });
    }
}

pub(super) fn split_commas(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|w| !w.is_empty())
}
