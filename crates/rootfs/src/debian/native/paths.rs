//! Which package has which path, and where a path really goes.

use crate::regular;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Paths and the packages that have them, by number.
#[derive(Default)]
pub(super) struct Owners {
    by_path: HashMap<OsString, Vec<u32>>,
    /// For each package, how many paths it has, and how many of them it shares with no other; the root, which all share,
    /// is not counted.
    counts: HashMap<u32, Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: i64,
    alone: i64,
}

impl Owners {
    /// The packages that have a path.
    pub(super) fn of(&self, path: &OsStr) -> &[u32] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    /// Gives a path to a package.
    pub(super) fn add(&mut self, path: &OsStr, package: u32) {
        let owners = match self.by_path.get_mut(path) {
            Some(owners) => owners,
            None => self.by_path.entry(path.to_owned()).or_default(),
        };
        if owners.contains(&package) {
            return;
        }
        if path != "/." {
            let alone = owners.is_empty();
            if let [only] = owners.as_slice() {
                self.counts.entry(*only).or_default().alone -= 1;
            }
            let count = self.counts.entry(package).or_default();
            count.all += 1;
            count.alone += i64::from(alone);
        }
        owners.push(package);
    }

    /// Takes a path from a package.
    pub(super) fn remove(&mut self, path: &OsStr, package: u32) {
        let Some(owners) = self.by_path.get_mut(path) else {
            return;
        };
        let before = owners.len();
        owners.retain(|&owner| owner != package);
        if before == owners.len() || path == "/." {
            return;
        }
        if let (2, [only]) = (before, owners.as_slice()) {
            self.counts.entry(*only).or_default().alone += 1;
        }
        let count = self.counts.entry(package).or_default();
        count.all -= 1;
        count.alone -= i64::from(before == 1);
    }

    /// The packages to which nothing of their own would be left if `paths` got one more owner: dpkg might let them
    /// disappear.
    pub(super) fn swallowed<'p>(&self, paths: impl Iterator<Item = &'p OsStr>) -> Vec<u32> {
        let mut lost: HashMap<u32, i64> = HashMap::new();
        for path in paths.filter(|path| *path != "/.") {
            if let [only] = self.of(path) {
                *lost.entry(*only).or_default() += 1;
            }
        }
        let nothing_left = |(package, count): &(&u32, &Count)| {
            count.all > 0 && count.alone <= lost.get(package).copied().unwrap_or(0)
        };
        let counts = self.counts.iter().filter(nothing_left);
        let mut all: Vec<u32> = counts.map(|(package, _)| *package).collect();
        all.sort_unstable();
        all
    }
}

/// Diversions (dpkg-divert(1)).
#[derive(Default)]
pub(super) struct Diversions {
    /// Where a path goes, and the package for which it stays (`None` for a local diversion).
    to: HashMap<OsString, (OsString, Option<String>)>,
    from: HashMap<OsString, OsString>,
}

impl Diversions {
    pub(super) fn read(file: &Path) -> io::Result<Diversions> {
        let bytes = read_or_empty(file)?;
        let mut lines = bytes.split(|&b| b == b'\n').map(OsStr::from_bytes);
        let mut all = Diversions::default();
        while let (Some(from), Some(to), Some(package)) = (lines.next(), lines.next(), lines.next())
        {
            let package = (package != ":").then(|| package.to_string_lossy().into_owned());
            all.to.insert(from.to_owned(), (to.to_owned(), package));
            all.from.insert(to.to_owned(), from.to_owned());
        }
        Ok(all)
    }

    /// Where `package` puts a path (dpkg's `namenodetouse`).
    pub(super) fn target<'p>(&'p self, path: &'p OsStr, package: &str) -> &'p OsStr {
        match self.to.get(path) {
            Some((to, by)) if by.as_deref() != Some(package) => to,
            _ => path,
        }
    }

    /// The package that diverts a path; the inner `None` for a local diversion.
    pub(super) fn by(&self, path: &OsStr) -> Option<Option<&str>> {
        self.to.get(path).map(|(_, by)| by.as_deref())
    }

    /// The path whose diverted version this is.
    pub(super) fn source(&self, path: &OsStr) -> Option<&OsStr> {
        self.from.get(path).map(OsString::as_os_str)
    }
}

/// Users and groups of the root by name.
#[derive(Default)]
pub(super) struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    pub(super) fn read(etc: &Path) -> io::Result<Accounts> {
        Ok(Accounts {
            users: numbers(&etc.join("passwd"))?,
            groups: numbers(&etc.join("group"))?,
        })
    }

    /// The owner that dpkg gives a file: by name where the root knows it, else by number.
    pub(super) fn owner(&self, names: &(String, String), numbers: (u32, u32)) -> (u32, u32) {
        let user = self.users.get(&names.0).copied();
        let group = self.groups.get(&names.1).copied();
        (user.unwrap_or(numbers.0), group.unwrap_or(numbers.1))
    }
}

/// `NAME:…:NUMBER:…` of passwd(5) and group(5).
fn numbers(file: &Path) -> io::Result<HashMap<String, u32>> {
    let bytes = read_or_empty(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Owner, group and mode that the administrator wants for a path (dpkg-statoverride(1)).
pub(super) type Overrides = HashMap<OsString, (u32, u32, u32)>;

/// Reads `statoverride`; `None` if it names somebody unknown, which dpkg refuses.
pub(super) fn overrides(file: &Path, accounts: &Accounts) -> io::Result<Option<Overrides>> {
    let bytes = read_or_empty(file)?;
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| one_override(line, accounts)).collect())
}

/// `USER GROUP MODE PATH`, numbers with `#` before them.
fn one_override(line: &[u8], accounts: &Accounts) -> Option<(OsString, (u32, u32, u32))> {
    let mut words = line.splitn(4, |&b| b == b' ');
    let mut text = || std::str::from_utf8(words.next()?).ok();
    let id = |text: &str, known: &HashMap<String, u32>| match text.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => known.get(text).copied(),
    };
    let user = id(text()?, &accounts.users)?;
    let group = id(text()?, &accounts.groups)?;
    let mode = u32::from_str_radix(text()?, 8).ok()?;
    Some((
        OsStr::from_bytes(words.next()?).to_owned(),
        (user, group, mode),
    ))
}

pub(super) fn read_or_empty(file: &Path) -> io::Result<Vec<u8>> {
    match regular::read(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        bytes => bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_package_that_keeps_nothing_of_its_own_is_noticed() {
        let mut owners = Owners::default();
        let path = |text: &'static str| OsStr::new(text);
        for (package, paths) in [
            (1, vec!["/usr", "/usr/a"]),
            (2, vec!["/usr", "/usr/b", "/usr/c"]),
        ] {
            paths.into_iter().for_each(|p| owners.add(path(p), package));
        }
        assert_eq!(
            owners.swallowed(["/usr", "/usr/a"].map(path).into_iter()),
            [1]
        );
        assert!(
            owners
                .swallowed(["/usr", "/usr/b"].map(path).into_iter())
                .is_empty()
        );
        owners.remove(path("/usr/c"), 2);
        assert_eq!(owners.swallowed(["/usr/b"].map(path).into_iter()), [2]);
        assert_eq!(owners.of(path("/usr")), [1, 2]);
    }

    #[test]
    fn diversions_spare_their_own_package() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("diversions");
        fs::write(&file, "/bin/sh\n/bin/sh.distrib\ndash\n/a\n/b\n:\n").unwrap();
        let all = Diversions::read(&file).unwrap();
        assert_eq!(all.target(OsStr::new("/bin/sh"), "bash"), "/bin/sh.distrib");
        assert_eq!(all.target(OsStr::new("/bin/sh"), "dash"), "/bin/sh");
        assert_eq!(all.target(OsStr::new("/a"), "x"), "/b");
        assert_eq!(all.source(OsStr::new("/b")), Some(OsStr::new("/a")));
    }

    #[test]
    fn names_count_before_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("passwd"),
            "root:x:0:0::/root:/bin/sh\nm:x:104:111::/:/bin/false\n",
        )
        .unwrap();
        fs::write(dir.path().join("group"), "root:x:0:\nbus:x:111:\n").unwrap();
        let accounts = Accounts::read(dir.path()).unwrap();
        let owner = |user: &str, group: &str| accounts.owner(&(user.into(), group.into()), (5, 6));
        assert_eq!(owner("m", "bus"), (104, 111));
        assert_eq!(owner("nobody-here", ""), (5, 6));
        let file = dir.path().join("statoverride");
        fs::write(&file, "root bus 4754 /usr/lib/x y\n#7 #8 755 /z\n").unwrap();
        let all = overrides(&file, &accounts).unwrap().unwrap();
        assert_eq!(all[OsStr::new("/usr/lib/x y")], (0, 111, 0o4754));
        assert_eq!(all[OsStr::new("/z")], (7, 8, 0o755));
        fs::write(&file, "gone bus 755 /z\n").unwrap();
        assert!(overrides(&file, &accounts).unwrap().is_none());
    }
}
