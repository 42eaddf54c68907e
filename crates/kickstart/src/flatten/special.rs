//! Commands whose written form is more than a list of options.

use crate::{Command, Kickstart, Value, Version, source};

use super::view::View;

/// What stands for a command that the file does not give.
pub(super) fn unset(class: &str, version: Version) -> &'static str {
    match (class, version) {
        ("Bootloader", _) => "# System bootloader configuration\nbootloader --location=none\n",
        ("Logging", Version::Rhel8) => "\n",
        _ => "",
    }
}

/// Commands that hand their line on as it was written.
pub(super) fn raw(kickstart: &Kickstart, command: &Command) -> Option<String> {
    let (comment, name) = match command.name.as_str() {
        "auth" | "authconfig" => ("System authorization information", "auth"),
        "authselect" => ("System authorization information", "authselect"),
        _ => return None,
    };
    let file = kickstart.files.get(command.span.file.0 as usize);
    let line = file.and_then(|f| source::line_at(&f.text, command.span));
    let line = line.unwrap_or("").trim();
    let text = line
        .split_once(char::is_whitespace)
        .map_or("", |(_, rest)| rest.trim());
    Some(match text {
        "" => String::new(),
        text => format!("# {comment}\n{name} {text}\n"),
    })
}

/// The text of a command that has no layout, or that is left out under some condition.
pub(super) fn line(name: &str, view: &View<'_>, version: Version) -> Option<String> {
    let nothing = match name {
        "bootloader" if view.on("--disabled") => {
            let text = "# System bootloader configuration\nbootloader --disabled\n";
            return Some(text.to_owned());
        }
        "firewall" => return Some(firewall(view)),
        "firstboot" => return Some(firstboot(view)),
        "keyboard" => return Some(keyboard(view)),
        "lang" => return Some(lang(view)),
        "logging" => return Some(logging(view, version)),
        "realm" => return Some(realm(view)),
        "rootpw" => return Some(rootpw(view)),
        "selinux" => return Some(selinux(view)),
        "sshkey" => return Some(sshkey(view, version)),
        "sshpw" => return Some(sshpw(view)),
        "timezone" => return Some(timezone(view, version)),
        "user" => return Some(user(view)),
        "zipl" => return Some(zipl(view)),
        "ostreesetup" => view.text("--osname").is_none(),
        "syspurpose" | "xconfig" => view.options().all(|o| empty(&o.value)),
        "updates" | "iscsiname" => view.args.first().is_some_and(String::is_empty),
        _ => false,
    };
    nothing.then(String::new)
}

fn empty(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.is_empty())
}

/// What is cleared is decided line by line: a list of partitions that is in force wins over what the line itself says.
pub(super) fn clearpart(commands: &[&Command], view: &View<'_>) -> String {
    let mut kind = None;
    let mut listed = false;
    for command in commands {
        let kinds = ["--all", "--linux", "--none"];
        let mut options = command.options.iter().rev();
        let said = options.find_map(|o| kinds.into_iter().find(|k| o.name == *k));
        kind = said.or(kind);
        if let Some(option) = command.options.iter().rfind(|o| o.name == "--list") {
            listed = option.value != Value::List(Vec::new());
        }
        if listed {
            kind = Some("--list");
        }
    }
    let mut out = String::from("# Partition clearing information\nclearpart");
    match kind {
        None => return String::new(),
        Some("--list") => {}
        Some(kind) => push(&mut out, kind),
    }
    if view.on("--initlabel") {
        push(&mut out, "--initlabel");
    }
    for name in ["--drives", "--list", "--disklabel"] {
        if let Some(value) = view.text(name) {
            push(&mut out, &format!("{name}={value}"));
        }
    }
    if view.on("--cdl") {
        push(&mut out, "--cdl");
    }
    out.push('\n');
    out
}

fn push(out: &mut String, word: &str) {
    out.push(' ');
    out.push_str(word);
}

/// Ports that the reference writes by name.
const NAMED_PORTS: [&str; 5] = ["ssh", "telnet", "smtp", "http", "ftp"];

fn firewall(view: &View<'_>) -> String {
    let head = "# Firewall configuration\nfirewall";
    if view.on("--use-system-defaults") {
        return format!("{head} --use-system-defaults\n");
    }
    if view.on("--disable") {
        return format!("{head} --disabled\n");
    }
    let mut out = format!("{head} --enabled");
    let mut numbered = Vec::new();
    for port in view.list("--port") {
        match port
            .strip_suffix(":tcp")
            .filter(|p| NAMED_PORTS.contains(p))
        {
            Some(name) => push(&mut out, &format!("--{name}")),
            None => numbered.push(port),
        }
    }
    let mut services = Vec::new();
    for option in view.options() {
        match (option.name.as_str(), &option.value) {
            ("--service", Value::List(words)) => services.extend(words.iter().cloned()),
            ("--ftp" | "--http" | "--smtp" | "--ssh", _) => {
                services.push(option.name.trim_start_matches('-').to_owned());
            }
            _ => {}
        }
    }
    let lists = [
        ("--port", numbered.join(",")),
        ("--trust", view.list("--trust").join(",")),
        ("--service", services.join(",")),
        ("--remove-service", view.list("--remove-service").join(",")),
    ];
    for (name, list) in lists.into_iter().filter(|(_, l)| !l.is_empty()) {
        push(&mut out, &format!("{name}={list}"));
    }
    out.push('\n');
    out
}

fn firstboot(view: &View<'_>) -> String {
    let comment = "# Run the Setup Agent on first boot\n";
    match () {
        () if view.on("--enable") => format!("{comment}firstboot --enable\n"),
        () if view.on("--reconfig") => format!("{comment}firstboot --reconfig\n"),
        () if view.on("--disable") => "firstboot --disable\n".to_owned(),
        () => String::new(),
    }
}

fn keyboard(view: &View<'_>) -> String {
    let old = view.args.first().map_or("", String::as_str);
    let map = view.text("--vckeymap");
    let layouts = view.list("--xlayouts");
    let mut out = String::from("# Keyboard layouts\n");
    if map.is_none() && layouts.is_empty() {
        return match old {
            "" => String::new(),
            old => format!("{out}keyboard '{old}'\n"),
        };
    }
    if !old.is_empty() {
        out.push_str(&format!("# old format: keyboard {old}\n# new format:\n"));
    }
    out.push_str("keyboard");
    if let Some(map) = map {
        push(&mut out, &format!("--vckeymap={map}"));
    }
    for (name, words) in [("--xlayouts", layouts), ("--switch", view.list("--switch"))] {
        if !words.is_empty() {
            push(&mut out, &format!("{name}='{}'", words.join("','")));
        }
    }
    out.push('\n');
    out
}

fn lang(view: &View<'_>) -> String {
    let lang = view.args.first().map_or("", String::as_str);
    if lang.is_empty() {
        return String::new();
    }
    let mut out = format!("# System language\nlang {lang}");
    if let Some(more) = view.text("--addsupport") {
        out.truncate(out.trim_end().len());
        push(&mut out, &format!("--addsupport={more}"));
    }
    out.push('\n');
    out
}

fn logging(view: &View<'_>, version: Version) -> String {
    let mut out = String::from("# Installation logging level\nlogging");
    if version == Version::Rhel8 {
        let level = view.text("--level").unwrap_or_else(|| "info".to_owned());
        push(&mut out, &format!("--level={level}"));
    }
    match (view.text("--host"), version) {
        (None, Version::Rhel8) => {}
        (None, _) => return String::new(),
        (Some(host), _) => {
            push(&mut out, &format!("--host={host}"));
            if let Some(port) = view.text("--port") {
                push(&mut out, &format!("--port={port}"));
            }
        }
    }
    out.push('\n');
    out
}

fn realm(view: &View<'_>) -> String {
    let words: Vec<_> = view.args.iter().map(|w| shell_quote(w)).collect();
    format!("# Realm or domain membership\nrealm {}\n", words.join(" "))
}

/// A word as a POSIX shell would read it back.
fn shell_quote(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\"'\"'")),
    }
}

fn rootpw(view: &View<'_>) -> String {
    let password = view.args.first().map_or("", String::as_str);
    let lock = view.on("--lock");
    if password.is_empty() {
        return match lock {
            true => "#Root password\nrootpw --lock\n".to_owned(),
            false => String::new(),
        };
    }
    let mut out = String::from("# Root password\nrootpw");
    let words = [
        ("--iscrypted", view.on("--iscrypted")),
        ("--lock", lock),
        ("--plaintext", !view.on("--iscrypted")),
        ("--allow-ssh", view.on("--allow-ssh")),
    ];
    for (word, _) in words.into_iter().filter(|(_, on)| *on) {
        push(&mut out, word);
    }
    push(&mut out, &hash_quote(password));
    out.push('\n');
    out
}

/// A word in quotes where a `#` would cut it otherwise.
fn hash_quote(word: &str) -> String {
    match word.contains('#') {
        true => format!("\"{word}\""),
        false => word.to_owned(),
    }
}

fn selinux(view: &View<'_>) -> String {
    let modes = ["--disabled", "--enforcing", "--permissive"];
    match modes.into_iter().find(|m| view.on(m)) {
        Some(mode) => format!("# SELinux configuration\nselinux {mode}\n"),
        None => String::new(),
    }
}

fn sshkey(view: &View<'_>, version: Version) -> String {
    let user = username(view);
    let key = view.args.first().map_or("", String::as_str);
    let key = match version {
        Version::Rhel8 => key.to_owned(),
        _ => key.replace('"', "\\\""),
    };
    format!("sshkey --username={user} \"{key}\"\n")
}

fn username<'a>(view: &View<'a>) -> &'a str {
    match view.value("--username") {
        Some(Value::Text(name)) => name,
        _ => "",
    }
}

fn sshpw(view: &View<'_>) -> String {
    let mut out = format!("sshpw --username={}", username(view));
    let key = view.on("--sshkey");
    let words = [
        ("--lock", view.on("--lock") && !key),
        ("--iscrypted", view.on("--iscrypted") && !key),
        ("--plaintext", !view.on("--iscrypted") && !key),
        ("--sshkey", key),
    ];
    for (word, _) in words.into_iter().filter(|(_, on)| *on) {
        push(&mut out, word);
    }
    for word in view.args {
        push(&mut out, word);
    }
    out.push('\n');
    out
}

fn timezone(view: &View<'_>, version: Version) -> String {
    let zone = view.args.first().map_or("", String::as_str);
    let mut out = String::from("timezone");
    if !zone.is_empty() {
        push(&mut out, zone);
    }
    if view.on("--utc") {
        push(
            &mut out,
            if version == Version::Rhel8 {
                "--isUtc"
            } else {
                "--utc"
            },
        );
    }
    if view.on("--nontp") {
        push(&mut out, "--nontp");
    }
    if let Some(servers) = view.text("--ntpservers") {
        push(&mut out, &format!("--ntpservers={servers}"));
    }
    match out == "timezone" {
        true => String::new(),
        false => format!("# System timezone\n{out}\n"),
    }
}

fn user(view: &View<'_>) -> String {
    let mut out = String::from("user");
    let bare = |out: &mut String, name: &str| {
        if let Some(value) = view.text(name) {
            push(out, &format!("{name}={value}"));
        }
    };
    for name in ["--groups", "--homedir", "--name"] {
        bare(&mut out, name);
    }
    if let Some(password) = view.text("--password") {
        push(&mut out, &format!("--password={}", hash_quote(&password)));
    }
    if view.on("--iscrypted") {
        push(&mut out, "--iscrypted");
    }
    bare(&mut out, "--shell");
    bare(&mut out, "--uid");
    if view.on("--lock") {
        push(&mut out, "--lock");
    }
    if let Some(gecos) = view.text("--gecos") {
        push(&mut out, &format!("--gecos=\"{gecos}\""));
    }
    bare(&mut out, "--gid");
    match out == "user" {
        true => String::new(),
        false => format!("{out}\n"),
    }
}

fn zipl(view: &View<'_>) -> String {
    let kinds = ["--secure-boot", "--force-secure-boot", "--no-secure-boot"];
    match kinds.into_iter().find(|k| view.on(k)) {
        Some(kind) => format!("# ZIPL configuration\nzipl {kind}\n"),
        None => String::new(),
    }
}
