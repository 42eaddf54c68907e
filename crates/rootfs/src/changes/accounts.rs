//! Groups, users, passwords and keys, by the root's own shadow tools.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::error::{Fault, Result};
use super::run::words;
use super::{Executor, files};
use kiln_plan::configure::{Account, Secret};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A line of `/etc/passwd`.
struct User {
    uid: u32,
    gid: u32,
    home: String,
}

/// The text of a table of users or groups. Without it nobody could be told apart from somebody who is not there.
fn table(path: &str) -> Result<String> {
    files::read(path)?.ok_or_else(|| {
        Fault::step(format!(
            "{path} is missing: the root lacks the base system's packages, or a script removed it"
        ))
    })
}

/// The fields of the line that begins with `name`.
fn entry(path: &str, name: &str) -> Result<Option<Vec<String>>> {
    let text = table(path)?;
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    Ok(text
        .lines()
        .map(fields)
        .find(|f| f.first().is_some_and(|n| n == name)))
}

fn find_user(name: &str) -> Result<Option<User>> {
    let Some(fields) = entry(PASSWD, name)? else {
        return Ok(None);
    };
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u32>().ok());
    match (number(2), number(3), fields.get(5)) {
        (Some(uid), Some(gid), Some(home)) => Ok(Some(User {
            uid,
            gid,
            home: home.clone(),
        })),
        _ => Err(Fault::step(format!(
            "{PASSWD} has a broken line for {name}"
        ))),
    }
}

/// The id of a group.
fn find_group(name: &str) -> Result<Option<u32>> {
    Ok(entry(GROUP, name)?.and_then(|fields| fields.get(2).and_then(|f| f.parse().ok())))
}

/// Whether any group has an id.
fn is_gid_taken(gid: u32) -> Result<Option<String>> {
    let text = table(GROUP)?;
    let name_of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let id = fields.get(2).and_then(|f| f.parse::<u32>().ok())?;
        (id == gid).then(|| fields.first().copied().unwrap_or("").to_owned())
    };
    Ok(text.lines().find_map(name_of))
}

fn known(names_of: &str) -> Result<Vec<String>> {
    let text = table(names_of)?;
    Ok(text
        .lines()
        .filter_map(|l| l.split(':').next())
        .map(str::to_owned)
        .collect())
}

/// useradd complains of names with capitals and dots unless told that they are meant.
fn needs_bad_names(name: &str) -> bool {
    name.bytes().any(|b| b.is_ascii_uppercase() || b == b'.')
}

impl Executor<'_> {
    pub(super) fn group(&mut self, name: &str, gid: Option<u32>) -> Result {
        self.group_of(name, gid, false)
    }

    /// Makes a group. One that nobody asked for by itself is a system group: others would take the first account's number.
    fn group_of(&mut self, name: &str, gid: Option<u32>, system: bool) -> Result {
        if let Some(found) = find_group(name)? {
            return match gid {
                Some(gid) if gid != found => Err(Fault::definition(format!(
                    "the group {name} exists already and has gid {found}, not {gid}"
                ))
                .hint("drop --gid, or choose another name")),
                _ => {
                    self.say(format!("group {name} exists already"));
                    Ok(())
                }
            };
        }
        let mut argv = words(["groupadd"]);
        argv.extend((system && gid.is_none()).then(|| "--system".to_owned()));
        if let Some(gid) = gid {
            if let Some(other) = is_gid_taken(gid)? {
                return Err(Fault::definition(format!(
                    "gid {gid} belongs to the group {other} already"
                ))
                .hint("choose another --gid"));
            }
            argv.extend(words(["--gid", &gid.to_string()]));
        }
        argv.push(name.to_owned());
        self.run(&argv, None)
    }

    /// Makes the account; one that is there already is changed to what the command says.
    pub(super) fn user(&mut self, account: &Account) -> Result {
        for (group, gid) in &account.groups {
            if find_group(group)?.is_none() {
                self.say(format!("group {group} does not exist yet and is made"));
            }
            self.group_of(group, *gid, true)?;
        }
        let exists = find_user(&account.name)?.is_some();
        let mut argv = if exists {
            words(["usermod"])
        } else {
            words(["useradd", "--create-home"])
        };
        self.primary_group(account, exists, &mut argv)?;
        if let Some(uid) = account.uid {
            argv.extend(words(["--uid", &uid.to_string()]));
        }
        if let Some(gecos) = &account.gecos {
            argv.extend(words(["--comment", gecos]));
        }
        if !account.groups.is_empty() {
            let names: Vec<&str> = account
                .groups
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            argv.extend(words(["--groups", &names.join(",")]));
            argv.extend(exists.then(|| "--append".to_owned()));
        }
        // The log of last logins has a place for every number below.
        let far = account.uid.is_some_and(|uid| uid >= 65536);
        argv.extend((far && !exists).then(|| "--no-log-init".to_owned()));
        self.home_and_shell(account, exists, &mut argv)?;
        if !exists && needs_bad_names(&account.name) {
            argv.push("--badname".to_owned());
        }
        argv.push(account.name.clone());
        if exists && argv.len() == 2 {
            return Ok(());
        }
        self.run(&argv, None)?;
        own_home(&account.name)
    }

    fn primary_group(&mut self, account: &Account, exists: bool, argv: &mut Vec<String>) -> Result {
        let Some(gid) = account.gid else {
            // useradd refuses to make a group of the user's name where there is one.
            if !exists && find_group(&account.name)?.is_some() {
                argv.extend(words(["--gid", &account.name]));
            } else if !exists {
                argv.push("--user-group".to_owned());
            }
            return Ok(());
        };
        if is_gid_taken(gid)?.is_none() {
            self.group(&account.name, Some(gid))?;
        }
        argv.extend(words(["--gid", &gid.to_string()]));
        Ok(())
    }

    fn home_and_shell(
        &mut self,
        account: &Account,
        exists: bool,
        argv: &mut Vec<String>,
    ) -> Result {
        if let Some(home) = &account.home {
            files::make_parent(home)?;
            argv.extend(words(["--home-dir", home]).into_iter().map(|w| {
                if exists && w == "--home-dir" {
                    "--home".to_owned()
                } else {
                    w
                }
            }));
            argv.extend(exists.then(|| "--move-home".to_owned()));
        }
        let default = (!exists).then_some("/bin/bash");
        if let Some(shell) = account.shell.as_deref().or(default) {
            if !Path::new(shell).exists() {
                return Err(
                    Fault::definition(format!("the root has no login shell {shell}"))
                        .hint("add the shell's package to %packages, or choose another --shell"),
                );
            }
            argv.extend(words(["--shell", shell]));
        }
        Ok(())
    }

    pub(super) fn password(&mut self, user: &str, crypted: Option<&Secret>, lock: bool) -> Result {
        if find_user(user)?.is_none() {
            return Err(Fault::definition(format!("there is no user {user}")));
        }
        if let Some(crypted) = crypted {
            self.run(
                &words(["chpasswd", "--encrypted"]),
                Some(&format!("{user}:{}\n", crypted.reveal())),
            )?;
        }
        if lock {
            self.run(&words(["usermod", "--lock", user]), None)?;
        }
        Ok(())
    }
}

/// A home directory that was there before the account (made by a script) belongs to root; give it over.
fn own_home(name: &str) -> Result {
    use std::os::unix::fs::MetadataExt;
    let Some(user) = find_user(name)? else {
        return Err(Fault::step(format!("useradd made no user {name}")));
    };
    let is_homes = Path::new(&user.home).parent() == Some(Path::new("/home"));
    match fs::symlink_metadata(&user.home) {
        Ok(found) if is_homes && found.is_dir() && found.uid() == 0 && user.uid != 0 => {
            chown(&user.home, Some(user.uid), Some(user.gid))
                .map_err(|e| Fault::io("giving over", &user.home, &e))
        }
        _ => Ok(()),
    }
}

/// Adds a key, unless it is there.
pub(super) fn authorized_key(user: &str, key: &str) -> Result {
    let Some(found) = find_user(user)? else {
        let names = known(PASSWD)?;
        let near = kiln_plan::configure::did_you_mean(user, names.iter().map(String::as_str));
        return Err(
            Fault::definition(format!("there is no user {user} to give the key to"))
                .hint(format!("{near} make the account with `user --name={user}`").trim()),
        );
    };
    if !Path::new(&found.home).is_dir() {
        return Err(Fault::definition(format!(
            "{user} has no home directory {}",
            found.home
        )));
    }
    let dir = format!("{}/.ssh", found.home.trim_end_matches('/'));
    let path = format!("{dir}/authorized_keys");
    // A link in a user's home could lead anywhere, and this runs as root.
    for place in [&dir, &path] {
        if fs::symlink_metadata(place).is_ok_and(|m| m.is_symlink()) {
            return Err(Fault::step(format!("{place} is a symbolic link")));
        }
    }
    let old = files::read_or_empty(&path)?;
    let mut text: String = old.lines().map(|l| format!("{l}\n")).collect();
    if !old.lines().any(|l| l.trim() == key) {
        text.push_str(key);
        text.push('\n');
    }
    files::write(&path, &text, 0o600)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
        .map_err(|e| Fault::io("protecting", &dir, &e))?;
    for place in [&dir, &path] {
        chown(place, Some(found.uid), Some(found.gid))
            .map_err(|e| Fault::io("giving over", place, &e))?;
    }
    Ok(())
}
