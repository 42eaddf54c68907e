//! What single commands demand beyond the option table: options that exclude or need each other, names that may
//! be given once.
//!
//! An empty text and the number zero count as not given, as they do in the reference.

mod devices;
mod realm;
mod storage;

use std::collections::HashSet;

use crate::report::{Report, quote};
use crate::{Command, Severity, Span, Value, Version};

/// What the rules remember from line to line.
#[derive(Default)]
pub(crate) struct Memory {
    /// Names that were defined: (kind of thing, name).
    names: HashSet<(&'static str, String)>,
    /// Options of non-repeatable commands whose values stay in force: (command, option).
    kept: HashSet<(&'static str, &'static str)>,
    /// Whether `realm join` was given.
    joined: bool,
}

/// Checks one command line.
pub(crate) fn check(command: &Command, version: Version, memory: &mut Memory, report: &mut Report) {
    let mut rules = Rules {
        command,
        version,
        memory,
        report,
    };
    match command.name.as_str() {
        "auth" | "authconfig" => rules.authconfig(),
        "autopart" => rules.autopart(),
        "bootloader" => rules.bootloader(),
        "btrfs" => rules.btrfs(),
        "cmdline" => rules.cmdline(),
        "driverdisk" => rules.driverdisk(),
        "eula" => rules.eula(),
        "fcoe" => rules.once("FCoE device", "--nic"),
        "group" => rules.once("group", "--name"),
        "harddrive" => rules.harddrive(),
        "ignoredisk" => rules.ignoredisk(),
        "keyboard" => rules.keyboard(),
        "logging" => rules.logging(),
        "logvol" => rules.logvol(),
        "method" => rules.method(),
        "mount" => rules.mount(),
        "network" => rules.network(),
        "nvdimm" => rules.nvdimm(),
        "ostreesetup" => rules.ostreesetup(),
        "part" => rules.part(),
        "raid" => rules.raid(),
        "realm" => rules.realm(),
        "repo" => rules.repo(),
        "rescue" => rules.exclusive(&["--nomount", "--romount"]),
        "rhsm" => rules.rhsm(),
        "rootpw" => rules.rootpw(),
        "services" => rules.services(),
        "snapshot" => rules.snapshot(),
        "sshkey" => rules.once("SSH user", "--username"),
        "sshpw" => rules.sshpw(),
        "timesource" => rules.timesource(),
        "timezone" => rules.timezone(),
        "updates" => rules.updates(),
        "url" => rules.url(),
        "user" => rules.once("user", "--name"),
        "volgroup" => rules.volgroup(),
        "zfcp" => rules.zfcp(),
        _ => {}
    }
}

struct Rules<'a> {
    command: &'a Command,
    version: Version,
    memory: &'a mut Memory,
    report: &'a mut Report,
}

impl Rules<'_> {
    /// Whether an option has a value that counts.
    fn given(&self, name: &str) -> bool {
        let last = self.command.options.iter().rev().find(|o| o.name == name);
        last.is_some_and(|o| match &o.value {
            Value::Flag(on) => *on,
            Value::Int(number) => *number != 0,
            Value::Text(text) => !text.is_empty(),
            Value::List(words) => !words.is_empty(),
        })
    }

    fn arg(&self, index: usize) -> &str {
        self.command.args.get(index).map_or("", String::as_str)
    }

    /// Where an option stands, or the line if it was not given.
    fn span(&self, name: &str) -> Span {
        let last = self.command.options.iter().rev().find(|o| o.name == name);
        last.map_or(self.command.span, |o| o.span)
    }

    fn error(&mut self, code: &'static str, at: &str, message: String, help: &str) {
        let span = self.span(at);
        self.report.error_help(code, span, message, help);
    }

    /// At most one of these options.
    fn exclusive(&mut self, names: &[&str]) {
        let given: Vec<&str> = names.iter().copied().filter(|n| self.given(n)).collect();
        if let [_, .., last] = given.as_slice() {
            let message = format!("`{}` exclude each other", given.join("` and `"));
            self.error("conflicting-options", last, message, "keep one of them");
        }
    }

    /// At least one of these options.
    fn one_of(&mut self, names: &[&str]) {
        if !names.iter().any(|n| self.given(n)) {
            let (command, names) = (&self.command.name, names.join("`, `"));
            let message = format!("`{command}` needs one of `{names}`");
            let help = "add one of them";
            self.report
                .error_help("missing-option", self.command.span, message, help);
        }
    }

    /// `name` makes sense only together with `needed`.
    fn needs(&mut self, name: &str, needed: &str) {
        if self.given(name) && !self.given(needed) {
            let message = format!("`{name}` needs `{needed}`");
            self.error("missing-option", name, message, &format!("add `{needed}`"));
        }
    }

    /// Warns when something of that kind and name was defined before.
    fn once(&mut self, kind: &'static str, option: &str) {
        let name = self.command.text(option).unwrap_or("").to_owned();
        self.defined(kind, name, option);
    }

    fn defined(&mut self, kind: &'static str, name: String, option: &str) {
        let shown = quote(&name);
        if !self.memory.names.insert((kind, name)) {
            self.report.push(
                Severity::Warning,
                "defined-twice",
                self.span(option),
                format!("the {kind} {shown} has been defined before"),
                vec!["remove one of the lines, or rename one".to_owned()],
            );
        }
    }

    /// Whether an option is in force from this line or, being one whose value stays, from an earlier one.
    fn in_force(&mut self, command: &'static str, name: &'static str) -> bool {
        if self.command.has(name) {
            match self.given(name) {
                true => self.memory.kept.insert((command, name)),
                false => self.memory.kept.remove(&(command, name)),
            };
        }
        self.memory.kept.contains(&(command, name))
    }

    fn authconfig(&mut self) {
        self.report.warning(
            "deprecated-command",
            self.command.span,
            "`authconfig` will be removed from the language".to_owned(),
            "use `authselect` instead",
        );
    }

    fn bootloader(&mut self) {
        self.exclusive(&["--sdboot", "--extlinux"]);
        if self
            .command
            .text("--boot-drive")
            .is_some_and(|d| d.contains(','))
        {
            let message = "`--boot-drive` takes one drive".to_owned();
            self.error(
                "bad-value",
                "--boot-drive",
                message,
                "name the drive to boot from",
            );
        }
    }

    fn cmdline(&mut self) {
        if self.given("--non-interactive") {
            let message = "`cmdline` is not interactive anyway".to_owned();
            self.error(
                "unexpected-argument",
                "--non-interactive",
                message,
                "remove the option",
            );
        }
    }

    fn driverdisk(&mut self) {
        let partition = !self.arg(0).is_empty() || self.command.args.len() > 1;
        let options = ["--biospart", "--source"];
        let given = options.iter().filter(|o| self.given(o)).count() + usize::from(partition);
        let (message, help) = match (given, self.command.args.len()) {
            (_, 2..) => ("`driverdisk` takes one partition", "keep one of them"),
            (0, 0) => (
                "`driverdisk` needs a partition, `--source` or `--biospart`",
                "add one of them",
            ),
            (2.., _) => (
                "a partition, `--source` and `--biospart` exclude each other",
                "keep one of them",
            ),
            _ => return,
        };
        let message = message.to_owned();
        self.error("conflicting-options", "", message, help);
    }

    fn eula(&mut self) {
        if !self.given("--agreed") {
            let message = "`eula` says nothing without `--agreed`".to_owned();
            self.error("missing-option", "", message, "write `eula --agreed`");
        }
    }

    fn harddrive(&mut self) {
        for name in ["--biospart", "--partition"] {
            if self.command.has(name) {
                self.memory.kept.insert(("harddrive", name));
            }
        }
        let known = |name| self.memory.kept.contains(&("harddrive", name));
        if self.version == Version::Rhel8 && known("--biospart") == known("--partition") {
            let message = "`harddrive` needs either `--partition` or `--biospart`".to_owned();
            self.error("missing-option", "--biospart", message, "give one of them");
        }
    }

    fn ignoredisk(&mut self) {
        let drives = self.in_force("ignoredisk", "--drives");
        let only = self.in_force("ignoredisk", "--only-use");
        let message = match (drives, only) {
            (true, true) => "`--drives` and `--only-use` exclude each other",
            (false, false) => "`ignoredisk` needs `--drives` or `--only-use`",
            _ => return,
        };
        self.error(
            "conflicting-options",
            "",
            message.to_owned(),
            "give one of them",
        );
    }

    fn keyboard(&mut self) {
        let layouts = self.in_force("keyboard", "--xlayouts");
        let options = layouts || self.given("--vckeymap");
        match self.command.args.len() {
            0 if !options => {
                let message = "`keyboard` names no keyboard".to_owned();
                let help = "write `--xlayouts=…`, `--vckeymap=…` or both";
                self.error("missing-option", "", message, help);
            }
            0 | 1 => {}
            _ => self.error(
                "unexpected-argument",
                "",
                "`keyboard` takes one name".to_owned(),
                "write several layouts as `--xlayouts=us,de`",
            ),
        }
    }

    fn logging(&mut self) {
        let host = self.in_force("logging", "--host");
        if self.in_force("logging", "--port") && !host {
            let message = "`--port` needs `--host`".to_owned();
            self.error("missing-option", "--port", message, "add `--host=…`");
        }
    }

    /// The table has `method` for the installer's own use: the reference fails on it with an internal error.
    fn method(&mut self) {
        let message = "`method` cannot be written in a file".to_owned();
        self.error(
            "unknown-command",
            "",
            message,
            "write `url`, `nfs`, `cdrom` or `harddrive`",
        );
    }

    fn ostreesetup(&mut self) {
        let schemes = ["file:", "http:", "https:"];
        let url = self.command.text("--url").unwrap_or("");
        if self.command.has("--url") && !schemes.iter().any(|s| url.starts_with(s)) {
            let message = format!("{} is no `file:`, `http:` or `https:` URL", quote(url));
            self.error(
                "bad-value",
                "--url",
                message,
                "write the scheme in small letters",
            );
        }
    }

    fn repo(&mut self) {
        self.exclusive(&["--baseurl", "--mirrorlist", "--metalink"]);
        self.once("repository", "--name");
    }

    fn rhsm(&mut self) {
        if self.command.list("--activation-key").contains(&"") {
            let message = "an activation key must not be empty".to_owned();
            self.error(
                "bad-value",
                "--activation-key",
                message,
                "write `--activation-key=KEY`",
            );
        }
    }

    fn rootpw(&mut self) {
        if self.arg(0).is_empty() && !self.given("--lock") {
            let message = "`rootpw` needs a password or `--lock`".to_owned();
            let help = "write the password, in quotes if it has blanks or `#`";
            self.error("missing-option", "", message, help);
        }
    }

    fn services(&mut self) {
        let disabled = self.in_force("services", "--disabled");
        if !self.in_force("services", "--enabled") && !disabled {
            self.one_of(&["--disabled", "--enabled"]);
        }
    }

    fn snapshot(&mut self) {
        let origin = self.arg(0);
        let halves: Vec<&str> = origin.split('/').collect();
        if !origin.is_empty() && (halves.len() != 2 || halves.contains(&"")) {
            let message = format!("{} is no logical volume", quote(origin));
            self.error("bad-value", "", message, "write it as GROUP/VOLUME");
        }
        let name = self.command.text("--name").unwrap_or("").to_owned();
        if self.command.has("--name") && !self.memory.names.insert(("snapshot", name.clone())) {
            let message = format!("the snapshot {} has been defined before", quote(&name));
            self.error("defined-twice", "--name", message, "give it another name");
        }
    }

    fn sshpw(&mut self) {
        if self.command.args.is_empty() {
            let message = "`sshpw` needs a password".to_owned();
            self.error(
                "missing-option",
                "",
                message,
                "write the password after the options",
            );
        }
        self.once("installer SSH user", "--username");
    }

    fn timesource(&mut self) {
        let names = ["--ntp-server", "--ntp-pool", "--ntp-disable"];
        self.exclusive(&names);
        self.one_of(&names);
    }

    fn timezone(&mut self) {
        let servers = self.in_force("timezone", "--ntpservers");
        if servers && self.given("--nontp") {
            let message = "`--nontp` and `--ntpservers` exclude each other".to_owned();
            self.error(
                "conflicting-options",
                "--nontp",
                message,
                "keep one of them",
            );
        }
        match self.command.args.len() {
            0 if self.command.options.is_empty() => {
                let message = "`timezone` names no time zone".to_owned();
                self.error(
                    "missing-option",
                    "",
                    message,
                    "write for example `timezone Europe/Paris`",
                );
            }
            0 | 1 => {}
            _ => self.error(
                "unexpected-argument",
                "",
                "`timezone` takes one time zone".to_owned(),
                "a zone has no blanks: write for example `America/New_York`",
            ),
        }
    }

    fn updates(&mut self) {
        if self.command.args.len() > 1 {
            let message = "`updates` takes one URL".to_owned();
            self.error("unexpected-argument", "", message, "remove the other words");
        }
    }

    fn url(&mut self) {
        let names = ["--url", "--mirrorlist", "--metalink"];
        self.exclusive(&names);
        self.one_of(&names);
    }
}
