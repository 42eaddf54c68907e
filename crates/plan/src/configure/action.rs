//! What a kickstart command changes in a root, as plain values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that people are not shown: a password hash, a key.
///
/// It is serialised as it is, for the executor needs it; `Debug`, `Display` and [`Action::describe`] hide it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text` from now on.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«secret»")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«secret»")
    }
}

/// A keyboard layout in XKB's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XkbLayout {
    /// `cz`
    pub layout: String,
    /// `qwerty`; empty for the layout's own.
    pub variant: String,
}

/// An account, as the `user` command describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id; the next free one unless said.
    pub uid: Option<u32>,
    /// Id of the primary group, which is made under the user's name where no group has that id.
    pub gid: Option<u32>,
    /// Further groups; one that the root lacks is made, with the id if there is one.
    pub groups: Vec<(String, Option<u32>)>,
    /// Home directory; `/home/NAME` unless said.
    pub home: Option<String>,
    /// Login shell; `/bin/bash` unless said.
    pub shell: Option<String>,
    /// The GECOS field.
    pub gecos: Option<String>,
}

/// One change of a root. Paths are absolute in the root.
///
/// The generic ones come first; the others look into the root before they act, so that a mistake in the kickstart
/// is answered in its own words (`no time zone Europe/Pargue; the nearest is Europe/Prague`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Writes a whole file, owned by root. Missing parents are made with mode 755.
    WriteFile {
        /// Where.
        path: String,
        /// Its whole content.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// Writes a whole file that holds a secret (a Wi-Fi key); mode 600.
    WriteSecretFile {
        /// Where.
        path: String,
        /// Its whole content.
        content: Secret,
    },
    /// Makes a symbolic link, replacing a file or link.
    Symlink {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// Removes a file or link if it is there.
    Remove {
        /// Which.
        path: String,
    },
    /// Sets `NAME="value"` lines in a file of shell variables, keeping everything else.
    SetVariables {
        /// The file; made if missing.
        path: String,
        /// Names and unquoted values, in order.
        variables: Vec<(String, String)>,
    },
    /// Sets `key=value` in a section of an ini file, keeping everything else.
    SetKey {
        /// The file.
        path: String,
        /// Without brackets.
        section: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Leaves a missing file missing.
        only_if_present: bool,
    },
    /// Puts `# ` before lines that start with one of some words.
    CommentOut {
        /// The file.
        path: String,
        /// First words.
        words: Vec<String>,
    },
    /// Runs a program of the root.
    Run {
        /// Program (looked up in the root's `PATH`) and arguments.
        argv: Vec<String>,
        /// What it is for, as a gerund (`regenerating the console's keymap`).
        purpose: String,
        /// Does nothing where the root lacks the program.
        only_if_present: bool,
    },
    /// Has locales generated.
    Locales {
        /// `de_DE.UTF-8`, in order.
        names: Vec<String>,
    },
    /// Writes `/etc/default/keyboard` and the console's cached keymap.
    Keyboard {
        /// In order; the first is active.
        layouts: Vec<XkbLayout>,
        /// `grp:alt_shift_toggle`
        options: Vec<String>,
    },
    /// Sets the time zone.
    Timezone {
        /// `Europe/Prague`
        zone: String,
    },
    /// Sets the host name, also in `/etc/hosts`.
    HostName {
        /// Short or fully qualified.
        name: String,
    },
    /// Makes a group, or checks the one there is.
    Group {
        /// Its name.
        name: String,
        /// Its id, if said.
        gid: Option<u32>,
    },
    /// Makes an account, or changes the one there is.
    User(Account),
    /// Sets and locks a password.
    Password {
        /// Whose.
        user: String,
        /// In crypt(5) form; `None` leaves the one there is.
        crypted: Option<Secret>,
        /// Whether password login is locked.
        lock: bool,
    },
    /// Adds a public key to an account's `~/.ssh/authorized_keys`.
    AuthorizedKey {
        /// Whose.
        user: String,
        /// The line.
        key: String,
    },
    /// Disables, then enables units.
    Units {
        /// A missing one is only noted.
        disable: Vec<String>,
        /// A missing one is an error.
        enable: Vec<String>,
    },
    /// Keeps units from being started by anything.
    MaskUnits {
        /// With their endings.
        units: Vec<String>,
    },
    /// What the system boots to.
    DefaultTarget {
        /// `graphical.target`
        target: String,
    },
    /// Chooses the session of graphical logins.
    DesktopSession {
        /// Name of a file in `/usr/share/xsessions` or `/usr/share/wayland-sessions` without its ending.
        session: String,
        /// The program behind `x-session-manager`.
        manager: String,
    },
}

impl Action {
    /// One line for people, without secrets.
    pub fn describe(&self) -> String {
        match self {
            Action::WriteFile {
                path,
                content,
                mode,
            } => {
                format!("write {path} ({} bytes, mode {mode:o})", content.len())
            }
            Action::WriteSecretFile { path, .. } => {
                format!("write {path} (with a secret, mode 600)")
            }
            Action::Symlink { path, target } => format!("link {path} to {target}"),
            Action::Remove { path } => format!("remove {path}"),
            Action::SetVariables { path, variables } => {
                let all: Vec<String> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("set {} in {path}", all.join(" "))
            }
            Action::SetKey {
                path,
                section,
                key,
                value,
                ..
            } => {
                format!("set {key}={value} under [{section}] in {path}")
            }
            Action::CommentOut { path, words } => {
                format!("comment out {} in {path}", words.join(", "))
            }
            Action::Run { argv, purpose, .. } => format!("run {} ({purpose})", argv.join(" ")),
            Action::Locales { names } => format!("generate locales {}", names.join(", ")),
            Action::Keyboard { layouts, options } => describe_keyboard(layouts, options),
            Action::Timezone { zone } => format!("set the time zone to {zone}"),
            Action::HostName { name } => format!("set the host name to {name}"),
            Action::Group { name, gid } => format!("make group {name}{}", id("gid", *gid)),
            Action::User(account) => describe_account(account),
            Action::Password {
                user,
                crypted,
                lock,
            } => describe_password(user, crypted, *lock),
            Action::AuthorizedKey { user, key } => {
                format!("let {user} log in with the ssh key {}", key_name(key))
            }
            Action::Units { disable, enable } => describe_units(disable, enable),
            Action::MaskUnits { units } => format!("mask {}", units.join(", ")),
            Action::DefaultTarget { target } => format!("boot to {target}"),
            Action::DesktopSession { session, .. } => format!("log in to the {session} session"),
        }
    }
}

fn id(name: &str, value: Option<u32>) -> String {
    value.map_or_else(String::new, |v| format!(" with {name} {v}"))
}

fn describe_keyboard(layouts: &[XkbLayout], options: &[String]) -> String {
    let all: Vec<String> = layouts
        .iter()
        .map(|l| {
            if l.variant.is_empty() {
                l.layout.clone()
            } else {
                format!("{} ({})", l.layout, l.variant)
            }
        })
        .collect();
    let options = if options.is_empty() {
        String::new()
    } else {
        format!(", options {}", options.join(","))
    };
    format!("set the keyboard to {}{options}", all.join(", "))
}

fn describe_account(account: &Account) -> String {
    let groups: Vec<&str> = account
        .groups
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let groups = if groups.is_empty() {
        String::new()
    } else {
        format!(" in groups {}", groups.join(", "))
    };
    format!(
        "make user {}{}{groups}",
        account.name,
        id("uid", account.uid)
    )
}

fn describe_password(user: &str, crypted: &Option<Secret>, lock: bool) -> String {
    match (crypted, lock) {
        (Some(_), false) => format!("set the password of {user}"),
        (Some(_), true) => format!("set the password of {user} and lock it"),
        (None, true) => format!("lock the password of {user}"),
        (None, false) => format!("leave the password of {user}"),
    }
}

fn describe_units(disable: &[String], enable: &[String]) -> String {
    let part = |verb: &str, units: &[String]| {
        (!units.is_empty()).then(|| format!("{verb} {}", units.join(", ")))
    };
    [part("disable", disable), part("enable", enable)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// The comment of a public key, or its type.
fn key_name(key: &str) -> &str {
    let mut words = key.split_whitespace();
    let kind = words.next().unwrap_or("");
    words.nth(1).unwrap_or(kind)
}
