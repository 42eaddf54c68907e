//! Files whose order, or whose numbers, follow the order of installation: compared for what they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// User and group names of a root by number.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Accounts {
    /// Of a root's own files; a root without them has no names.
    pub(super) fn of(root: &Path) -> Accounts {
        let names = |file: &str| {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            text.lines().filter_map(named).collect()
        };
        Accounts {
            users: names("etc/passwd"),
            groups: names("etc/group"),
        }
    }

    /// Owner and group as names, or as numbers where there are no names.
    pub(super) fn names(&self, (user, group): (u32, u32)) -> (String, String) {
        let name = |names: &BTreeMap<u32, String>, id: u32| {
            let found = names.get(&id).cloned();
            found.unwrap_or_else(|| id.to_string())
        };
        (name(&self.users, user), name(&self.groups, group))
    }
}

/// `NAME:PASSWORD:ID:…` of passwd(5) and group(5).
fn named(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
}

/// What a file says, free of the order of installation; `None` for files that are to be the same byte by byte.
pub(super) fn canonical(path: &Path, text: &str, accounts: &Accounts) -> Option<Vec<String>> {
    let mut parts: Vec<String> = match path.to_str()? {
        "etc/passwd" => fields(text, |f| {
            let group = f.get(3).and_then(|id| id.parse().ok());
            blank_dynamic(f, 2);
            if let (Some(group), Some(field)) = (group, f.get_mut(3)) {
                *field = accounts.names((0, group)).1;
            }
        }),
        "etc/group" => fields(text, |f| {
            blank_dynamic(f, 2);
            sort_members(f, 3);
        }),
        "etc/gshadow" => fields(text, |f| sort_members(f, 3)),
        // The day of the last change of the password.
        "etc/shadow" => fields(text, |f| blank(f, 2)),
        "var/lib/dpkg/status" => text.split("\n\n").map(str::to_owned).collect(),
        "var/lib/dpkg/statoverride" | "var/lib/ucf/hashfile" => {
            text.lines().map(str::to_owned).collect()
        }
        "var/lib/dpkg/diversions" => {
            let lines: Vec<&str> = text.lines().collect();
            lines.chunks(3).map(|three| three.join("\n")).collect()
        }
        _ => return None,
    };
    parts.sort();
    Some(parts)
}

fn fields(text: &str, change: impl Fn(&mut Vec<String>)) -> Vec<String> {
    let changed = |line: &str| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        change(&mut fields);
        fields.join(":")
    };
    text.lines().map(changed).collect()
}

fn blank(fields: &mut [String], at: usize) {
    if let Some(field) = fields.get_mut(at) {
        field.clear();
    }
}

/// Numbers from 100 to 999 are given out in the order of installation (Debian Policy 9.2.2).
fn blank_dynamic(fields: &mut [String], at: usize) {
    let number = fields.get(at).and_then(|field| field.parse::<u32>().ok());
    if number.is_some_and(|number| (100..1000).contains(&number)) {
        blank(fields, at);
    }
}

fn sort_members(fields: &mut [String], at: usize) {
    if let Some(field) = fields.get_mut(at) {
        let mut members: Vec<&str> = field.split(',').collect();
        members.sort_unstable();
        *field = members.join(",");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(path: &str, text: &str) -> Vec<String> {
        canonical(Path::new(path), text, &Accounts::default()).unwrap()
    }

    #[test]
    fn order_and_dynamic_numbers_do_not_count() {
        let a = "root:x:0:0::/root:/bin/sh\na:x:101:0::/:/x\nb:x:102:0::/:/x\n";
        let b = "root:x:0:0::/root:/bin/sh\nb:x:101:0::/:/x\na:x:102:0::/:/x\n";
        assert_eq!(say("etc/passwd", a), say("etc/passwd", b));
        let other = b.replace("/bin/sh", "/bin/bash");
        assert_ne!(say("etc/passwd", a), say("etc/passwd", &other));
        let fixed = "www-data:x:33:33::/:/x\n";
        assert_ne!(
            say("etc/passwd", fixed),
            say("etc/passwd", &fixed.replace("33", "34"))
        );
        assert_eq!(
            say("etc/group", "g:x:105:b,a\n"),
            say("etc/group", "g:x:999:a,b\n")
        );
        assert_ne!(
            say("etc/group", "g:x:105:b\n"),
            say("etc/group", "g:x:105:a\n")
        );
    }

    #[test]
    fn other_files_count_byte_by_byte() {
        let accounts = Accounts::default();
        assert!(canonical(Path::new("etc/hosts"), "", &accounts).is_none());
    }
}
