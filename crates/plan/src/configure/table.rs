//! What Kiln does with every command: one table, read by the lowering, `kiln plan` and `docs/kickstart.md`.

use serde::{Deserialize, Serialize};

use super::{Level, draft::Draft};
use crate::Conventions;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// Takes effect in the root.
    Execute,
    /// Takes effect in the plan: repositories, disk, boot menu.
    Plan,
    /// Is noted; it has no bearing on an image.
    Record,
    /// Has no effect, with a warning.
    Ignore,
    /// Stops the build with an error.
    Refuse,
}

/// One command of the kickstart language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its canonical name.
    pub command: &'static str,
    /// What becomes of it.
    pub handling: Handling,
    /// How, or why not: the rest of a sentence that begins with the command.
    pub note: &'static str,
    /// What to do instead; empty where there is nothing to do.
    pub hint: &'static str,
}

/// The command's entry in the table of some conventions.
pub fn entry(command: &str, conventions: Conventions) -> Option<&'static Entry> {
    let command = if command == "partition" {
        "part"
    } else {
        command
    };
    let find = |table: &'static [Entry]| table.iter().find(|e| e.command == command);
    match conventions {
        Conventions::Debian => find(TABLE),
        Conventions::Rpm => find(RPM).or_else(|| find(TABLE)),
    }
}

impl Handling {
    /// The word for it in tables.
    pub fn word(self) -> &'static str {
        match self {
            Handling::Execute => "executed",
            Handling::Plan => "planned",
            Handling::Record => "recorded",
            Handling::Ignore => "ignored",
            Handling::Refuse => "refused",
        }
    }
}

/// The table in Markdown, for `docs/kickstart.md`: a line for both families where they agree, else one for each.
pub fn markdown() -> String {
    let mut text = String::from(
        "| command | family | is | how, or why not | instead |\n|---|---|---|---|---|\n",
    );
    for debian in TABLE {
        match RPM.iter().find(|rpm| rpm.command == debian.command) {
            None => text.push_str(&row(debian, "all")),
            Some(rpm) => {
                text.push_str(&row(debian, "Debian"));
                text.push_str(&row(rpm, "RPM"));
            }
        }
    }
    text
}

fn row(entry: &Entry, family: &str) -> String {
    let Entry {
        command,
        handling,
        note,
        hint,
    } = entry;
    let name = format!("`{command}`");
    // A bar would end the cell.
    let cells = [&name, family, handling.word(), note, hint].map(|c| c.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

/// Says what becomes of a command that changes nothing in the root.
pub(super) fn answer(draft: &mut Draft<'_>) {
    let name = draft.command.name.clone();
    let Some(entry) = entry(&name, draft.context.conventions) else {
        return draft.error(
            "is not a command that Kiln knows",
            "see docs/kickstart.md for the commands",
        );
    };
    let level = match entry.handling {
        Handling::Execute | Handling::Plan | Handling::Record => Level::Note,
        Handling::Ignore => Level::Warning,
        Handling::Refuse => Level::Error,
    };
    let hint = (!entry.hint.is_empty()).then(|| entry.hint.to_owned());
    draft.notice(level, entry.note, hint);
}

const fn execute(command: &'static str, note: &'static str) -> Entry {
    Entry {
        command,
        handling: Handling::Execute,
        note,
        hint: "",
    }
}

const fn plan(command: &'static str, note: &'static str) -> Entry {
    Entry {
        command,
        handling: Handling::Plan,
        note,
        hint: "",
    }
}

const fn record(command: &'static str, note: &'static str) -> Entry {
    Entry {
        command,
        handling: Handling::Record,
        note,
        hint: "",
    }
}

const fn ignore(command: &'static str, note: &'static str, hint: &'static str) -> Entry {
    Entry {
        command,
        handling: Handling::Ignore,
        note,
        hint,
    }
}

const fn refuse(command: &'static str, note: &'static str, hint: &'static str) -> Entry {
    Entry {
        command,
        handling: Handling::Refuse,
        note,
        hint,
    }
}

const INSTALLER: &str =
    "has no effect: it tells the installer how to talk to people, and there is no installer";
const HARDWARE: &str = "has no effect: an image is built for no particular machine";
const GONE: &str = "has no effect: the command has been without one for years";
const HOST: &str = "is recorded: a build never acts on the machine that it runs on";
const SOURCE: &str =
    "has no effect: packages come from url, repo and the distribution's own repositories";
const DISK: &str =
    "is not supported: the image has a read-only root and, if asked for, a plain /home";
const DISK_HINT: &str = "use `part / --size=…` and `part /home --size=… --grow`";
const OSTREE: &str = "is not supported: images are made from packages";
const OSTREE_HINT: &str = "list the packages in %packages";
const LAYOUT: &str = "is recorded: the image's disk is new, and Kiln lays it out itself";
const DROP: &str = "drop the line";

const OLD_AUTH: &str = "has no effect: authconfig is gone";
const SUBSCRIPTION: &str = "has no effect: an image has no subscription of its own";
const REGISTER: &str = "register at the first boot, with a unit written in %post";

/// What is otherwise on RPM distributions.
pub const RPM: &[Entry] = &[
    ignore("auth", OLD_AUTH, "use authselect"),
    ignore("authconfig", OLD_AUTH, "use authselect"),
    execute(
        "authselect",
        "runs authselect with the words given, and --force",
    ),
    execute("firewall", "runs firewall-offline-cmd; adds firewalld"),
    execute(
        "firstboot",
        "--enable adds initial-setup and starts it at the first boot; --disable keeps it and systemd-firstboot off",
    ),
    execute(
        "keyboard",
        "sets the console's keymap in /etc/vconsole.conf and the layouts of X in /etc/X11/xorg.conf.d/00-keyboard.conf",
    ),
    execute(
        "lang",
        "adds glibc-langpack-… for each language and sets the default in /etc/locale.conf",
    ),
    plan("module", "chooses a module's stream for the packages"),
    plan(
        "repo",
        "adds a repository by base URL, mirror list or metalink, with its cost and its globs",
    ),
    ignore("rhsm", SUBSCRIPTION, REGISTER),
    execute(
        "selinux",
        "sets the mode in /etc/selinux/config; adds selinux-policy-targeted unless disabled; every file has its label in the image then",
    ),
    ignore("syspurpose", SUBSCRIPTION, REGISTER),
    execute("timesource", "adds a time source for chrony"),
    plan(
        "url",
        "is the first repository, by base URL, mirror list or metalink",
    ),
    execute(
        "user",
        "makes the account; groups that the root lacks are made, sudo is called wheel",
    ),
    execute(
        "xconfig",
        "--startxonboot boots to graphical.target, --defaultdesktop is written to /etc/sysconfig/desktop",
    ),
];

/// Every command of RHEL 8 to 10 and Fedora 42 and newer, by name, as Debian roots have it.
pub const TABLE: &[Entry] = &[
    ignore(
        "auth",
        "has no effect: it names options of authconfig, which Debian has not",
        "use authselect, or pam-auth-update in %post",
    ),
    ignore(
        "authconfig",
        "has no effect: it names options of authconfig, which Debian has not",
        "use authselect, or pam-auth-update in %post",
    ),
    execute(
        "authselect",
        "enables the PAM profiles with pam-auth-update; adds sssd or winbind for their profiles",
    ),
    record(
        "autopart",
        "is recorded: Kiln lays out the disk itself; --encrypted is refused",
    ),
    ignore("autostep", GONE, DROP),
    refuse("bootc", OSTREE, OSTREE_HINT),
    plan(
        "bootloader",
        "sets kernel arguments (--append), the boot menu's time (--timeout) and its entry that starts by itself (--default)",
    ),
    refuse("btrfs", DISK, DISK_HINT),
    ignore("cdrom", SOURCE, "use url or repo"),
    record("clearpart", LAYOUT),
    ignore("cmdline", INSTALLER, DROP),
    ignore("device", GONE, DROP),
    ignore("deviceprobe", GONE, DROP),
    ignore("dmraid", GONE, DROP),
    ignore(
        "driverdisk",
        HARDWARE,
        "add the driver's package to %packages",
    ),
    execute("eula", "is recorded; nothing in the image asks for it"),
    ignore("fcoe", HARDWARE, DROP),
    execute(
        "firewall",
        "writes /etc/nftables.conf, or runs firewall-offline-cmd where firewalld is in %packages",
    ),
    execute(
        "firstboot",
        "--disable masks systemd-firstboot and switches GNOME's first-boot setup off",
    ),
    ignore(
        "graphical",
        INSTALLER,
        "use `xconfig --startxonboot` for a graphical login",
    ),
    execute("group", "makes the group"),
    record("halt", HOST),
    ignore(
        "harddrive",
        SOURCE,
        "use url or repo; both take file:// addresses",
    ),
    ignore("hmc", SOURCE, "use url or repo"),
    record("ignoredisk", LAYOUT),
    ignore("install", GONE, DROP),
    ignore("iscsi", HARDWARE, DROP),
    ignore("iscsiname", HARDWARE, DROP),
    execute(
        "keyboard",
        "sets the layouts of the console and of X in /etc/default/keyboard",
    ),
    execute(
        "lang",
        "generates the locales and sets the default in /etc/default/locale",
    ),
    refuse("liveimg", OSTREE, OSTREE_HINT),
    ignore("logging", "has no effect: everything is in build.log", DROP),
    refuse("logvol", DISK, DISK_HINT),
    ignore(
        "mediacheck",
        "has no effect: packages are verified by signature and digest",
        DROP,
    ),
    ignore("method", GONE, "use url or repo"),
    ignore(
        "module",
        "has no effect: Debian has no module streams",
        "name the version's own package in %packages",
    ),
    refuse("mount", DISK, DISK_HINT),
    ignore("multipath", GONE, DROP),
    execute(
        "network",
        "sets the host name; every other use writes a profile for NetworkManager",
    ),
    ignore(
        "nfs",
        SOURCE,
        "use url or repo; both take file:// addresses",
    ),
    ignore("nvdimm", HARDWARE, DROP),
    refuse("ostreecontainer", OSTREE, OSTREE_HINT),
    refuse("ostreesetup", OSTREE, OSTREE_HINT),
    plan(
        "part",
        "`part /home` adds a partition with that size and label; `part /` is the root, whose size is found",
    ),
    record("poweroff", HOST),
    refuse("raid", DISK, DISK_HINT),
    ignore("rdp", INSTALLER, DROP),
    ignore(
        "realm",
        "has no effect: a domain is joined with the machine's own secret, which no image should hold",
        "join at first boot, with a unit written in %post",
    ),
    record("reboot", HOST),
    plan(
        "repo",
        "adds a repository; a base URL that ends in /dists/SUITE is a Debian one",
    ),
    record("reqpart", LAYOUT),
    refuse(
        "rescue",
        "is not supported: it starts the installer's rescue mode",
        DROP,
    ),
    ignore("rhsm", "has no effect: Debian has no subscriptions", DROP),
    execute(
        "rootpw",
        "sets or locks root's password; plain text is hashed with SHA-512 first",
    ),
    execute(
        "selinux",
        "sets the mode in /etc/selinux/config where %packages has a policy; every file has its label in the image then",
    ),
    execute("services", "disables, then enables units"),
    record("shutdown", HOST),
    execute("skipx", "boots to multi-user.target"),
    refuse("snapshot", DISK, DISK_HINT),
    execute("sshkey", "adds the key to the account's authorized_keys"),
    ignore(
        "sshpw",
        INSTALLER,
        "use user or rootpw for accounts of the image",
    ),
    ignore(
        "syspurpose",
        "has no effect: Debian has no subscriptions",
        DROP,
    ),
    ignore("text", INSTALLER, DROP),
    execute(
        "timesource",
        "adds a time source for systemd-timesyncd, or for chrony where it is in %packages or --nts is given",
    ),
    execute(
        "timezone",
        "sets the time zone and whether the machine's clock runs in UTC",
    ),
    ignore("updates", INSTALLER, DROP),
    plan(
        "url",
        "is the first repository; a URL that ends in /dists/SUITE is a Debian one",
    ),
    execute(
        "user",
        "makes the account; groups that the root lacks are made, wheel is called sudo",
    ),
    ignore("vnc", INSTALLER, DROP),
    refuse("volgroup", DISK, DISK_HINT),
    execute(
        "xconfig",
        "--startxonboot boots to graphical.target, --defaultdesktop chooses the session",
    ),
    record("zerombr", LAYOUT),
    ignore("zfcp", HARDWARE, DROP),
    ignore("zipl", HARDWARE, DROP),
];
