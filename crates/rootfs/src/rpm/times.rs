//! The times that rpm's database has of its packages: not the clock's, so that two builds have the same database.
//!
//! rpm 4.18 and newer do that by themselves, where `SOURCE_DATE_EPOCH` is set: the transaction's id is that time, and packages are a second
//! apart, so that `rpm -q --last` still knows their order. Enterprise Linux 8 and 9 have an older rpm. There, the database is exported
//! as rpm's own list of headers, the two numbers of each new header are replaced, and rpm imports the list into a new database: whatever
//! form of database it has, rpm alone writes it.
//!
//! Both numbers are beside the region of a header that a signature covers, which stays as it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;

/// What every header begins with.
const MAGIC: [u8; 8] = [0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
/// `RPMTAG_HEADERIMMUTABLE`: the region that is signed.
const REGION: u32 = 63;
const INSTALL_TIME: u32 = 1008;
const INSTALL_ID: u32 = 1128;
const INT32: u32 = 4;
/// Where the new database is made, below the old one's directory.
const NEW: &str = ".kiln-new";

/// Gives packages of some transactions the times that a newer rpm would have given them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetTimes {
    /// `rpmdb`, with what it needs.
    pub(super) argv: Vec<String>,
    /// Its environment.
    pub(super) environment: Vec<(String, String)>,
    /// The database's directory.
    pub(super) database: String,
    /// Ids of the transactions whose packages get other times.
    pub(super) transactions: BTreeSet<u32>,
    /// The new id, and the time of the first package.
    pub(super) epoch: u32,
}

impl Call for SetTimes {
    const NAME: &'static str = "rpm.set-times";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        let old = Path::new(&self.database);
        let new = old.join(NEW);
        let mut headers = self.export(old)?;
        set(&mut headers, &self.transactions, self.epoch).map_err(|why| {
            Error::new(
                ErrorKind::Step,
                format!("reading rpm's database as it was exported: {why}"),
            )
        })?;
        fs::create_dir(&new).map_err(|e| io_error(format!("making {}", new.display()), &e))?;
        self.rpmdb(&new, "--importdb", &headers)?;
        if self.export(&new)? != headers {
            let message = "rpm's database has other packages after its times were set";
            return Err(Error::new(ErrorKind::Internal, message));
        }
        exchange(old, &new).map_err(|e| io_error("exchanging rpm's database", &e))
    }
}

impl SetTimes {
    fn export(&self, database: &Path) -> Result<Vec<u8>, Error> {
        self.rpmdb(database, "--exportdb", &[])
    }

    /// Runs `rpmdb` and returns what it wrote.
    fn rpmdb(&self, database: &Path, verb: &str, input: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |e: io::Error| io_error(format!("running rpmdb {verb}"), &e);
        let internal = || Error::new(ErrorKind::Internal, "an empty command line");
        let (program, arguments) = self.argv.split_first().ok_or_else(internal)?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--dbpath").arg(database);
        command.env_clear().envs(self.environment.iter().cloned());
        command.arg(verb).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        kiln_sandbox::confine(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // All three at once: a program that waits on one of them must not keep the others waiting.
        let (fed, wrote, said) = std::thread::scope(|scope| {
            let said = scope.spawn(|| all(stderr));
            let fed = scope.spawn(move || stdin.map_or(Ok(()), |mut pipe| pipe.write_all(input)));
            (fed.join(), all(stdout), said.join())
        });
        let status = child.wait().map_err(failed)?;
        let said = said.ok().and_then(Result::ok);
        let said = said.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        if !status.success() || !matches!(fed, Ok(Ok(()))) {
            let error = Error::new(ErrorKind::Step, format!("rpmdb {verb} failed: {status}"));
            return Err(match said.filter(|said| !said.is_empty()) {
                Some(said) => error.cause(said),
                None => error,
            });
        }
        wrote.map_err(failed)
    }
}

fn all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Puts the files of a new database in the place of an old one's, and removes what only the old one has.
fn exchange(old: &Path, new: &Path) -> io::Result<()> {
    for entry in fs::read_dir(old)? {
        let path = entry?.path();
        if path != new && !path.is_dir() {
            fs::remove_file(path)?;
        }
    }
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        fs::rename(entry.path(), old.join(entry.file_name()))?;
    }
    fs::remove_dir(new)
}

/// Sets the times in a list of headers.
fn set(list: &mut [u8], transactions: &BTreeSet<u32>, epoch: u32) -> Result<(), String> {
    let mut rest = list;
    let mut time = epoch;
    while !rest.is_empty() {
        let (tags, store) = match (rest.get(..8) == Some(&MAGIC), word(rest, 8), word(rest, 12)) {
            (true, Some(tags), Some(store)) => (tags as usize, store as usize),
            _ => return Err("there is no header where one has to be".to_owned()),
        };
        let end = tags
            .checked_mul(16)
            .and_then(|index| index.checked_add(16 + store));
        let (header, next) = end
            .and_then(|end| rest.split_at_mut_checked(end))
            .ok_or("it is cut within a header")?;
        rest = next;
        let places = Places::find(header, tags);
        let id = places.id.and_then(|at| word(header, at));
        if !id.is_some_and(|id| transactions.contains(&id)) {
            continue;
        }
        for (at, value) in [(places.id, epoch), (places.time, time)] {
            if let Some(bytes) = at.and_then(|at| header.get_mut(at..at + 4)) {
                bytes.copy_from_slice(&value.to_be_bytes());
            }
        }
        time = time.saturating_add(1);
    }
    Ok(())
}

/// Where a header has the two numbers; `None` where it does not have one, or has it among what is signed.
#[derive(Default)]
struct Places {
    id: Option<usize>,
    time: Option<usize>,
}

impl Places {
    fn find(header: &[u8], tags: usize) -> Self {
        let entry = |at: usize| {
            let field = |number: usize| word(header, 16 + at * 16 + number * 4);
            Some((field(0)?, field(1)?, field(2)?, field(3)?))
        };
        let store = 16 + tags * 16;
        // The region's last 16 bytes are an entry whose offset says, negated, how many bytes of the index are its own.
        let signed = match entry(0) {
            Some((REGION, _, offset, _)) => {
                let own = word(header, (store + offset as usize).saturating_add(8));
                own.map_or(0, |bytes| bytes.wrapping_neg() as usize / 16)
            }
            _ => 0,
        };
        let mut places = Places::default();
        for (tag, kind, offset, _) in (signed..tags).filter_map(entry) {
            let at = Some(store.saturating_add(offset as usize));
            match (tag, kind) {
                (INSTALL_ID, INT32) => places.id = at,
                (INSTALL_TIME, INT32) => places.time = at,
                _ => {}
            }
        }
        places
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with a signed region of one tag, and the two numbers beside it; `within`: the id once more, among what is signed.
    fn header(id: u32, time: u32) -> Vec<u8> {
        let entry = |tag: u32, kind: u32, offset: i32, count: u32| {
            let words = [tag, kind, offset.cast_unsigned(), count];
            words.map(u32::to_be_bytes).concat()
        };
        let store = [
            id.to_be_bytes().to_vec(),
            entry(REGION, 7, -32, 16),
            time.to_be_bytes().to_vec(),
            id.to_be_bytes().to_vec(),
        ]
        .concat();
        let index = [
            entry(REGION, 7, 4, 16),
            entry(INSTALL_ID, INT32, 0, 1),
            entry(INSTALL_TIME, INT32, 20, 1),
            entry(INSTALL_ID, INT32, 24, 1),
        ]
        .concat();
        let counts = [4u32, u32::try_from(store.len()).unwrap()].map(u32::to_be_bytes);
        [&MAGIC[..], &counts.concat(), &index, &store].concat()
    }

    #[test]
    fn only_numbers_of_the_transaction_beside_the_signed_region_change() {
        let mut list = [header(70, 71), header(3, 4), header(70, 75)].concat();
        set(&mut list, &[70].into(), 9).unwrap();
        let mut first = header(9, 9);
        // What is signed stays.
        first[16 + 4 * 16..][..4].copy_from_slice(&70u32.to_be_bytes());
        let mut last = header(9, 10);
        last[16 + 4 * 16..][..4].copy_from_slice(&70u32.to_be_bytes());
        assert_eq!(list, [first, header(3, 4), last].concat());
    }

    /// The database is a program's output, and packages' scriptlets could have changed it.
    #[test]
    fn a_damaged_list_is_an_error() {
        let whole = header(70, 71);
        for length in 1..whole.len() {
            let mut list = whole[..length].to_vec();
            assert!(set(&mut list, &[70].into(), 9).is_err(), "{length}");
        }
        for at in 8..whole.len() {
            let mut list = whole.clone();
            list[at] ^= 0xff;
            // Whatever it says, nothing outside of it is touched.
            let _ = set(&mut list, &[70].into(), 9);
        }
    }
}
