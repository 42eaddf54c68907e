//! Which host ids the ids of a sandbox are: 0 to 65,535 at least, and as many more as there are.
//!
//! | who runs Kiln | container 0 | container 1, 2, … | written by |
//! |---|---|---|---|
//! | root | the first id of root's range in `/etc/subuid`, else of [`SHIFTED_BASE`] | the ids after it | Kiln |
//! | root of a container that lacks that range | 0 | the same ids, as far as they exist there | Kiln |
//! | an ordinary user | the user | the user's ranges in `/etc/subuid` and `/etc/subgid` | `newuidmap`, `newgidmap` |

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::CapabilitySet;

use crate::error::{Context, Error, Result};
use crate::sys;

/// First host id of the range that root's sandboxes use when `/etc/subuid` gives root none: above the range that
/// systemd hands to containers (up to 0x6fffffff), below its range for foreign images (0x7ffe0000), and positive
/// as a signed number.
pub const SHIFTED_BASE: u32 = 0x7000_0000;
/// How many ids a sandbox has at least.
pub const ID_COUNT: u32 = 65536;
/// How many ids from [`SHIFTED_BASE`] on belong to nobody else.
const SHIFTED_COUNT: u32 = 0x7ffe_0000 - SHIFTED_BASE;

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";
/// Where the helpers may be; the environment's `PATH` has no say in what runs with raised rights.
const HELPER_DIRS: [&str; 5] = [
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/run/wrappers/bin",
];

/// A run of ids: `inside..inside+count` in the sandbox are `outside..outside+count` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First id in the sandbox.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The id maps of all sandboxes of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    users: Vec<Extent>,
    groups: Vec<Extent>,
    writer: Writer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Writer {
    Direct,
    Helpers { users: PathBuf, groups: PathBuf },
}

impl IdMap {
    /// Finds the maps that this process may use, or says what is missing.
    pub fn detect() -> Result<IdMap> {
        if may_map_directly() {
            IdMap::direct()
        } else {
            IdMap::through_helpers()
        }
    }

    fn direct() -> Result<IdMap> {
        let users = direct_extents(SUBUID, "/proc/self/uid_map")?;
        let groups = direct_extents(SUBGID, "/proc/self/gid_map")?;
        Ok(IdMap {
            users,
            groups,
            writer: Writer::Direct,
        })
    }

    fn through_helpers() -> Result<IdMap> {
        let (uid, gid) = (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        );
        let users = ordinary_extents(SUBUID, uid, uid)?;
        let groups = ordinary_extents(SUBGID, uid, gid)?;
        let writer = Writer::Helpers {
            users: find_helper("newuidmap")?,
            groups: find_helper("newgidmap")?,
        };
        Ok(IdMap {
            users,
            groups,
            writer,
        })
    }

    /// Whether this process writes the maps itself (it is root, or as good).
    pub(crate) fn is_direct(&self) -> bool {
        self.writer == Writer::Direct
    }

    /// The host's user id of a sandbox's user id.
    pub fn host_uid(&self, inside: u32) -> Option<u32> {
        translate(&self.users, inside)
    }

    /// The host's group id of a sandbox's group id.
    pub fn host_gid(&self, inside: u32) -> Option<u32> {
        translate(&self.groups, inside)
    }

    /// How many ids there are, for users and for groups: a file's owner can have the numbers below.
    pub fn count(&self) -> u32 {
        contiguous(&self.users).min(contiguous(&self.groups))
    }

    /// The user extents.
    pub fn users(&self) -> &[Extent] {
        &self.users
    }

    /// The group extents.
    pub fn groups(&self) -> &[Extent] {
        &self.groups
    }

    /// Writes the maps of a process that has just made its user namespace.
    pub(crate) fn write(&self, pid: u32) -> Result<()> {
        match &self.writer {
            Writer::Direct => {
                write_map(pid, "uid_map", &self.users)?;
                write_map(pid, "gid_map", &self.groups)
            }
            Writer::Helpers { users, groups } => {
                run_helper(users, pid, &self.users, SUBUID)?;
                run_helper(groups, pid, &self.groups, SUBGID)
            }
        }
    }
}

fn may_map_directly() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective
            .contains(CapabilitySet::SETUID | CapabilitySet::SETGID)
    })
}

/// How many ids from 0 on are mapped without a gap.
fn contiguous(extents: &[Extent]) -> u32 {
    let mut next = 0;
    while let Some(extent) = extents.iter().find(|e| e.inside == next && e.count > 0) {
        next = next.saturating_add(extent.count);
    }
    next
}

fn translate(extents: &[Extent], inside: u32) -> Option<u32> {
    let extent = extents.iter().find(|extent| {
        inside
            .checked_sub(extent.inside)
            .is_some_and(|n| n < extent.count)
    })?;
    extent.outside.checked_add(inside - extent.inside)
}

fn direct_extents(table: &str, own_map: &str) -> Result<Vec<Extent>> {
    let own = parse_map(&fs::read_to_string(own_map).doing_at("reading", Path::new(own_map))?);
    let configured = ranges(&read(table)?, 0, Some("root"))
        .into_iter()
        .find(|range| range.1 >= ID_COUNT);
    let (base, most) = configured.unwrap_or((SHIFTED_BASE, SHIFTED_COUNT));
    let count = [most, ID_COUNT]
        .into_iter()
        .find(|count| covers(&own, base, *count));
    if let Some(count) = count {
        return Ok(vec![Extent {
            inside: 0,
            outside: base,
            count,
        }]);
    }
    let identity = identity_of(&own);
    let total = identity
        .iter()
        .fold(0u32, |sum, extent| sum.saturating_add(extent.count));
    if translate(&identity, 0).is_none() || total < ID_COUNT - 1 {
        return Err(Error::environment(format!(
            "this container has only {total} ids of its own, a build needs 65536 (see {own_map})"
        ))
        .hint("start the container with a larger id range, or run Kiln outside of it"));
    }
    Ok(identity)
}

/// The ids of this user namespace, mapped to themselves.
fn identity_of(own: &[Extent]) -> Vec<Extent> {
    own.iter()
        .map(|extent| Extent {
            inside: extent.inside,
            outside: extent.inside,
            count: extent.count,
        })
        .collect()
}

fn ordinary_extents(table: &str, uid: u32, own: u32) -> Result<Vec<Extent>> {
    let name = sys::user_name(uid);
    let mut extents = vec![Extent {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next = 1;
    for (start, length) in ranges(&read(table)?, uid, name.as_deref()) {
        let count = length.min(u32::MAX - next);
        if count > 0 {
            extents.push(Extent {
                inside: next,
                outside: start,
                count,
            });
            next += count;
        }
    }
    if next >= ID_COUNT {
        return Ok(extents);
    }
    Err(missing_range(table, name.as_deref(), uid, next - 1))
}

fn missing_range(table: &str, name: Option<&str>, uid: u32, found: u32) -> Error {
    let who = name.map_or_else(|| uid.to_string(), str::to_owned);
    let option = if table == SUBUID {
        "--add-subuids"
    } else {
        "--add-subgids"
    };
    let message = if found == 0 {
        format!("{table} gives user {who} no ids; a build needs 65535")
    } else {
        format!("{table} gives user {who} {found} ids; a build needs 65535")
    };
    let start = free_start(table);
    Error::environment(message).hint(format!(
        "sudo usermod {option} {start}-{} {who}",
        u64::from(start) + 65535
    ))
}

/// The first multiple of 65536 past everything that the table hands out, as `useradd` would choose.
fn free_start(table: &str) -> u32 {
    let end = |text: String| {
        let ranges = parse_ranges(&text);
        let ends = ranges
            .iter()
            .map(|(_, start, count)| start.saturating_add(*count));
        ends.max().unwrap_or(0)
    };
    // What cannot be read has been reported before.
    read(table).map_or(0, end).max(100_000)
}

/// `/etc/subuid` or `/etc/subgid`; a machine without it gives nobody any ids.
fn read(table: &str) -> Result<String> {
    match fs::read_to_string(table) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.doing_at("reading", Path::new(table)),
    }
}

/// Ranges of a user in such a table: start and count.
fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let id = uid.to_string();
    parse_ranges(text)
        .into_iter()
        .filter(|(owner, _, _)| *owner == id || Some(*owner) == name)
        .map(|(_, start, count)| (start, count))
        .collect()
}

/// `name-or-id:start:count` lines (subuid(5)). Others are passed over, as the helpers do.
fn parse_ranges(text: &str) -> Vec<(&str, u32, u32)> {
    let parse = |line: &'_ str| -> Option<(usize, u32, u32)> {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?.len();
        Some((
            owner,
            fields.next()?.parse().ok()?,
            fields.next()?.parse().ok()?,
        ))
    };
    text.lines()
        .map(str::trim)
        .filter_map(|line| parse(line).map(|(owner, start, count)| (&line[..owner], start, count)))
        .filter(|(_, start, count)| start.checked_add(*count).is_some())
        .collect()
}

/// Lines of `/proc/PID/uid_map` (user_namespaces(7)).
fn parse_map(text: &str) -> Vec<Extent> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            Some(Extent {
                inside: next()?,
                outside: next()?,
                count: next()?,
            })
        })
        .collect()
}

fn covers(map: &[Extent], start: u32, count: u32) -> bool {
    map.iter().any(|extent| {
        let end = u64::from(extent.inside) + u64::from(extent.count);
        extent.inside <= start && u64::from(start) + u64::from(count) <= end
    })
}

/// Where `newuidmap` or `newgidmap` is.
pub(crate) fn find_helper(name: &str) -> Result<PathBuf> {
    HELPER_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()).ok_or_else(|| {
        Error::environment(format!("{name} is not installed; an ordinary user needs it to get a range of ids"))
            .hint("install it: Debian, Ubuntu: `apt install uidmap`; Fedora: `dnf install shadow-utils`")
    })
}

/// How many ids the table gives the current user beyond the own one, and the error if too few.
pub(crate) fn check_range(users: bool) -> Result<u32> {
    let uid = rustix::process::getuid().as_raw();
    let table = if users { SUBUID } else { SUBGID };
    let own = if users {
        uid
    } else {
        rustix::process::getgid().as_raw()
    };
    let extents = ordinary_extents(table, uid, own)?;
    Ok(extents.iter().skip(1).map(|extent| extent.count).sum())
}

fn write_map(pid: u32, name: &str, extents: &[Extent]) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    let lines: String = extents
        .iter()
        .map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count))
        .collect();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .doing_at("opening", &path)?;
    // The kernel takes the map in one write only.
    file.write_all(lines.as_bytes())
        .doing_at("writing the id map", &path)
}

fn run_helper(program: &Path, pid: u32, extents: &[Extent], table: &str) -> Result<()> {
    let numbers = extents
        .iter()
        .flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .doing_at("starting", program)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::environment(format!(
        "{} refused the id map: {}",
        program.display(),
        said.trim()
    ))
    .hint(format!(
        "{} has to be set-user-id root (or to have cap_setuid) and {table} has to hold the range; \
         in a container, `no new privileges` has to be off",
        program.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_junk_is_passed_over() {
        let text = "ann:100000:65536\n# no\nbob:x:1\n1000:300000:10\nover:4294967290:100\n\n";
        assert_eq!(
            parse_ranges(text),
            vec![("ann", 100_000, 65536), ("1000", 300_000, 10)]
        );
    }

    #[test]
    fn all_ids_of_a_container_are_used() {
        let own = parse_map("         0       1000          1\n         1     100000     131072\n");
        let identity = identity_of(&own);
        assert_eq!(translate(&identity, 70_000), Some(70_000));
        assert_eq!(translate(&identity, 131_073), None);
        assert_eq!(contiguous(&identity), 131_073);
        assert!(!covers(&own, SHIFTED_BASE, ID_COUNT));
        assert!(covers(
            &parse_map("0 0 4294967295"),
            SHIFTED_BASE,
            SHIFTED_COUNT
        ));
    }

    #[test]
    fn ids_count_up_to_the_first_gap() {
        let extent = |inside, count| Extent {
            inside,
            outside: 7,
            count,
        };
        assert_eq!(contiguous(&[extent(1, 65536), extent(0, 1)]), 65537);
        assert_eq!(contiguous(&[extent(0, 1), extent(2, 9)]), 1);
    }
}
