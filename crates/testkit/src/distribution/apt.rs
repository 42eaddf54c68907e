//! Debian's packages: which there are to be, and their files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use kiln_digest::Sha256;

use super::run;

const SOURCES: &str = "deb [signed-by=KEYRING] http://deb.debian.org/debian bookworm main\n";
/// apt's lists are read anew after this time: a package file that they name may be gone by then.
const FRESH: Duration = Duration::from_secs(12 * 3600);

/// apt with a state of its own, which knows no installed package.
pub(super) struct Apt {
    home: PathBuf,
}

/// A package file on the mirror.
#[derive(Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// The fields of a package in the mirror's list.
pub(super) type Control = BTreeMap<String, String>;

impl Apt {
    /// Fetches the lists, unless they are fresh.
    pub(super) fn new(home: &Path) -> Self {
        let apt = Apt {
            home: home.to_owned(),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(part)).expect("a directory for apt");
        }
        fs::write(home.join("status"), "").expect("apt's status");
        let keyring = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packages/keys/debian-archive-bookworm-automatic.gpg");
        let keyring = keyring
            .canonicalize()
            .expect("the keys of Debian's archive");
        let stable = keyring.with_file_name("debian-archive-bookworm-stable.gpg");
        let both = format!("{},{}", keyring.display(), stable.display());
        fs::write(home.join("sources.list"), SOURCES.replace("KEYRING", &both))
            .expect("apt's sources");
        let stamp = home.join("updated");
        let age = |path: &Path| {
            let changed = fs::metadata(path).ok()?.modified().ok()?;
            SystemTime::now().duration_since(changed).ok()
        };
        if age(&stamp).is_none_or(|age| age > FRESH) {
            run(apt.get().arg("update"));
            fs::write(&stamp, "").expect("a stamp");
        }
        apt
    }

    fn get(&self) -> Command {
        let at = |name: &str| self.home.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        for setting in [
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Acquire::GzipIndexes=false".to_owned(),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Sandbox::User=".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Install-Recommends=0".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::ForceHash=sha256".to_owned(),
        ] {
            command.args(["-o", &setting]);
        }
        command.args(["-q", "-y"]);
        command
    }

    /// The packages with all that they need. A name that ends in `-` is one to be left out.
    pub(super) fn closure(&self, names: &[&str]) -> Vec<Listed> {
        let said = run(self.get().args(["--print-uris", "install"]).args(names));
        let said = String::from_utf8(said).expect("text of apt-get");
        let all: Vec<Listed> = said.lines().filter_map(listed).collect();
        assert!(!all.is_empty(), "apt-get names no package:\n{said}");
        all
    }

    /// What the mirror says of packages.
    pub(super) fn controls(&self, of: &[Listed]) -> BTreeMap<String, Control> {
        let wanted: BTreeMap<&str, &Listed> = of.iter().map(|l| (l.sha256.as_str(), l)).collect();
        let mut found = BTreeMap::new();
        for path in self.lists() {
            let mut stanza = Control::new();
            let file = BufReader::new(File::open(path).expect("apt's list"));
            let lines = file.lines().map(|line| line.expect("text"));
            for line in lines.chain([String::new()]) {
                if !line.is_empty() {
                    if let Some((field, value)) = line.split_once(':')
                        && !line.starts_with(' ')
                    {
                        stanza.insert(field.to_owned(), value.trim().to_owned());
                    }
                    continue;
                }
                let stanza = std::mem::take(&mut stanza);
                let sha256 = stanza.get("SHA256").map(String::as_str);
                if let Some(listed) = sha256.and_then(|sha256| wanted.get(sha256)) {
                    found.insert(listed.name.clone(), stanza);
                }
            }
        }
        assert_eq!(
            found.len(),
            of.len(),
            "apt's lists lack packages that it chose"
        );
        found
    }

    fn lists(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.join("lists")).expect("apt's lists");
        let all = entries.flatten().map(|entry| entry.path());
        all.filter(|path| path.to_string_lossy().ends_with("_Packages"))
            .collect()
    }
}

/// `'URL' FILE SIZE SHA256:DIGEST`
fn listed(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let url = words.next()?.strip_prefix('\'')?.strip_suffix('\'')?;
    let (name, _) = words.next()?.split_once('_')?;
    Some(Listed {
        name: name.to_owned(),
        url: url.to_owned(),
        size: words.next()?.parse().ok()?,
        sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
    })
}

/// Has a package's file below `cache`: from one of the stores of Kiln's downloads, or from the mirror.
pub(super) fn obtain(listed: &Listed, cache: &Path, stores: &[PathBuf]) -> PathBuf {
    let Listed {
        url, size, sha256, ..
    } = listed;
    let path = cache.join(sha256);
    if fs::metadata(&path).is_ok_and(|found| found.len() == *size) {
        return path;
    }
    let stored = stores
        .iter()
        .map(|store| store.join("sha256").join(&sha256[..2]).join(sha256));
    for stored in stored {
        if fs::read(&stored).is_ok_and(|bytes| digest(&bytes) == *sha256) {
            return stored;
        }
    }
    let bytes = fetched(url);
    assert_eq!(
        digest(&bytes),
        *sha256,
        "{url} is not what Debian's list says"
    );
    let part = path.with_extension(format!("{}", std::process::id()));
    fs::write(&part, bytes).expect("a package file");
    fs::rename(part, &path).expect("a package file");
    path
}

fn fetched(url: &str) -> Vec<u8> {
    let answer = ureq::get(url).call();
    let answer = answer.unwrap_or_else(|e| panic!("this needs Debian's mirror: {url}: {e}"));
    let mut bytes = Vec::new();
    let mut body = answer.into_body().into_reader();
    let read = body.read_to_end(&mut bytes);
    read.unwrap_or_else(|e| panic!("this needs Debian's mirror: {url}: {e}"));
    bytes
}

pub(super) fn digest(bytes: &[u8]) -> String {
    let mut sha256 = Sha256::new();
    sha256.update(bytes);
    hex::encode(sha256.finalize())
}
