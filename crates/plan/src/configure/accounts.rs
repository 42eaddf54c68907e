//! `rootpw`, `user` and `group`.

use super::{Account, Action, Secret, draft::Draft, password};

/// chpasswd, useradd, usermod, groupadd: no essential package has them.
fn need_tools(draft: &mut Draft<'_>) {
    draft.need("passwd", "changes accounts");
}

pub(super) fn rootpw(draft: &mut Draft<'_>) {
    need_tools(draft);
    let said = draft.command.args.first().cloned();
    let lock = draft.command.flag("--lock");
    if said.is_none() && !lock {
        return draft.error(
            "says no password",
            "give one, or --lock for an account without password login",
        );
    }
    let crypted = said.and_then(|p| crypted(draft, &p, "root"));
    draft.act(Action::Password {
        user: "root".to_owned(),
        crypted,
        lock,
    });
    if draft.command.flag("--allow-ssh") {
        allow_root_ssh(draft);
    }
}

fn allow_root_ssh(draft: &mut Draft<'_>) {
    if !has_ssh_server(draft) {
        draft.warn(
            "--allow-ssh has no effect without an ssh server",
            "add openssh-server to %packages",
        );
    }
    draft.write(
        "/etc/ssh/sshd_config.d/01-permit-root-login.conf",
        0o644,
        "PermitRootLogin yes\n",
    );
}

/// The password in crypt(5) form. Plain text is hashed here, so that it reaches neither the plan nor a program.
fn crypted(draft: &mut Draft<'_>, said: &str, user: &str) -> Option<Secret> {
    let is_crypted = draft
        .switch(&["--iscrypted", "--isCrypted"], &["--plaintext"])
        .unwrap_or(false);
    if !is_crypted {
        if said.is_empty() {
            draft.error(
                "has an empty password",
                "use --lock for an account without password login",
            );
            return None;
        }
        return match password::hash(said, user, draft.context.salt) {
            Ok(hash) => Some(hash),
            Err(reason) => {
                draft.error(
                    format!("has a password that cannot be hashed: {reason}"),
                    "choose another password",
                );
                None
            }
        };
    }
    if said.contains(|c: char| c == ':' || c.is_control()) {
        draft.error(
            "has a crypted password with a colon or control character",
            "make one with `openssl passwd -6`",
        );
        return None;
    }
    // People write some word there, and say --lock.
    let locked = draft.command.flag("--lock");
    if !locked && !password::is_hash(said) && !said.starts_with(['!', '*']) {
        let message =
            "has a --iscrypted password that is no hash, so that nobody can log in with it";
        draft.warn(
            message,
            "make one with `openssl passwd -6`, or say --lock if that is what is meant",
        );
    }
    Some(Secret::new(said))
}

pub(super) fn user(draft: &mut Draft<'_>) {
    let Some(name) = account_name(draft, "user") else {
        return;
    };
    need_tools(draft);
    let groups = groups(draft);
    let account = Account {
        uid: draft.id("--uid"),
        gid: draft.id("--gid"),
        groups,
        home: absolute(draft, "--homedir", &name),
        shell: absolute(draft, "--shell", ""),
        gecos: gecos(draft),
        name: name.clone(),
    };
    draft.act(Action::User(account));
    let crypted = draft
        .command
        .text("--password")
        .filter(|p| !p.is_empty())
        .map(str::to_owned);
    let crypted = crypted.and_then(|p| self::crypted(draft, &p, &name));
    let lock = draft.command.flag("--lock");
    if crypted.is_some() || lock {
        draft.act(Action::Password {
            user: name,
            crypted,
            lock,
        });
    } else {
        draft.note(
            "has no password: the account can be used without one (autologin, ssh keys) only",
        );
    }
}

fn gecos(draft: &mut Draft<'_>) -> Option<String> {
    let said = draft.command.text("--gecos")?;
    if said.contains(|c: char| c == ':' || c.is_control()) {
        draft.error(
            "has a colon or control character in --gecos",
            "leave it out",
        );
        return None;
    }
    Some(said.to_owned())
}

/// A path option; a home directory may be relative to `/home`, as the reference has it.
fn absolute(draft: &mut Draft<'_>, option: &str, user: &str) -> Option<String> {
    let said = draft.command.text(option).filter(|p| !p.is_empty())?;
    if said.contains(|c: char| c == ':' || c.is_control()) || said.split('/').any(|p| p == "..") {
        draft.error(
            format!("{option}={said}: not a usable path"),
            "give an absolute path without `..` and colons",
        );
        return None;
    }
    if said.starts_with('/') {
        return Some(said.to_owned());
    }
    if user.is_empty() {
        draft.error(
            format!("{option}={said}: not an absolute path"),
            "for example --shell=/bin/bash",
        );
        return None;
    }
    Some(format!("/home/{said}"))
}

/// `--groups=sudo,audio,lab(5000)`
fn groups(draft: &mut Draft<'_>) -> Vec<(String, Option<u32>)> {
    let mut groups = Vec::new();
    for said in draft.last_list("--groups") {
        let (name, gid) = match said.split_once('(') {
            Some((name, rest)) => (
                name.trim(),
                rest.trim_end_matches(')').trim().parse::<u32>().ok(),
            ),
            None => (said, None),
        };
        if !is_account_name(name) || (said.contains('(') && gid.is_none()) {
            draft.error(
                format!("--groups={said}: not a group"),
                "write NAME or NAME(GID)",
            );
            continue;
        }
        let own = draft.context.conventions.group(name);
        if own != name {
            draft.note(format!("--groups={name}: the group is called {own} here"));
        }
        if own == draft.context.conventions.administrators() {
            draft.need(
                draft.context.conventions.sudo_package(),
                "lets its group act as root",
            );
        }
        groups.push((own.to_owned(), gid));
    }
    groups
}

pub(super) fn group(draft: &mut Draft<'_>) {
    let Some(name) = account_name(draft, "group") else {
        return;
    };
    need_tools(draft);
    let gid = draft.id("--gid");
    draft.act(Action::Group { name, gid });
}

fn account_name(draft: &mut Draft<'_>, kind: &str) -> Option<String> {
    let name = draft.command.text("--name").unwrap_or("").to_owned();
    if is_account_name(&name) {
        return Some(name);
    }
    let message = format!("--name={name}: not a {kind} name");
    draft.error(
        message,
        "names have up to 32 letters, digits, `_`, `-` and `.`, and begin with a letter or `_`",
    );
    None
}

/// Whether the definition asks for an ssh server. RPM distributions have one in `@core`.
pub(super) fn has_ssh_server(draft: &Draft<'_>) -> bool {
    draft.is_rpm() || draft.asked_for("openssh-server") || draft.asked_for("task-ssh-server")
}

/// What useradd and groupadd take.
pub(super) fn is_account_name(name: &str) -> bool {
    let body = name.strip_suffix('$').unwrap_or(name);
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let starts = body
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts && body.bytes().all(fine) && name.len() <= 32
}
