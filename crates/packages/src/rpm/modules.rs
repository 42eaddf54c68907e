//! Module streams, as `modules.yaml` has them (modulemd 1 and 2, modulemd-defaults 1): a stream is a set of packages of which
//! some have the same names as those of other streams, and as packages in no module.
//!
//! The package manager decides which streams are active, and hides the packages of all others. Kiln has to know before there is a
//! package manager, when it makes the tools root: there the default streams are active.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Read;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::primary::Package;
use crate::{Error, ErrorKind, Result};

/// The module streams of some repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    /// Streams in the order of the files. One stream can be there several times, in versions or contexts.
    pub streams: Vec<Stream>,
    /// The default stream and profiles of modules, by module.
    pub defaults: BTreeMap<String, ModuleDefaults>,
}

/// A version of a stream in one context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The module: `nodejs`.
    pub module: String,
    /// The stream: `18`.
    pub stream: String,
    /// Its packages, as `name-epoch:version-release.arch`.
    pub artifacts: Vec<String>,
    /// The packages of each of its profiles.
    pub profiles: BTreeMap<String, Vec<String>>,
}

/// What is taken of a module where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleDefaults {
    /// The stream; `None` if one has to be named.
    pub stream: Option<String>,
    /// The profiles of each stream.
    pub profiles: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Adds what another repository has. Its defaults count where there are none yet.
    pub fn join(&mut self, other: Modules) {
        self.streams.extend(other.streams);
        for (module, default) in other.defaults {
            self.defaults.entry(module).or_insert(default);
        }
    }

    /// Leaves the packages that a package manager sees that nobody told to enable a stream: those of default streams, and those in
    /// no module unless a default stream has one of the same name.
    pub fn keep_default(&self, packages: &mut Vec<Package>) {
        let (mut active, mut others, mut shadowed) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        for stream in &self.streams {
            let artifacts = stream.artifacts.iter().map(String::as_str);
            match self.is_default(stream) {
                true => {
                    shadowed.extend(artifacts.clone().filter_map(name_of));
                    active.extend(artifacts);
                }
                false => others.extend(artifacts),
            }
        }
        packages.retain(|package| {
            let artifact = artifact(package);
            let is_in_none =
                || !others.contains(artifact.as_str()) && !shadowed.contains(package.name.as_str());
            active.contains(artifact.as_str()) || is_in_none()
        });
    }

    fn is_default(&self, stream: &Stream) -> bool {
        let default = self.defaults.get(&stream.module);
        default.is_some_and(|default| default.stream.as_ref() == Some(&stream.stream))
    }
}

/// What module metadata calls a package: always with its epoch.
fn artifact(package: &Package) -> String {
    let Package {
        name, arch, evr, ..
    } = package;
    format!(
        "{name}-{}:{}-{}.{arch}",
        evr.epoch, evr.version, evr.release
    )
}

/// The name in `name-epoch:version-release.arch`.
fn name_of(artifact: &str) -> Option<&str> {
    let (rest, _) = artifact.rsplit_once('-')?;
    rest.rsplit_once('-').map(|(name, _)| name)
}

/// Bound for the text. The largest, of Enterprise Linux 8, have some 4 MB.
const MAX_TEXT: u64 = 64 << 20;
/// Bound for the keys, texts, lists and maps of all documents.
const MAX_NODES: usize = 8 << 20;

/// Reads module metadata. `what` names the document for messages.
///
/// # Errors
/// [`ErrorKind::Malformed`] with the line, [`ErrorKind::Io`].
pub(super) fn read(what: &str, input: impl Read) -> Result<Modules> {
    let malformed = |why: &str| {
        Error::new(ErrorKind::Malformed, format!("{what} {why}")).with_hint(
            "The repository itself is broken: tell its maintainers, or use another mirror.",
        )
    };
    let mut bytes = Vec::new();
    let read = input.take(MAX_TEXT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(format_args!("reading {what}"), error))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(malformed(&format!("has more than {MAX_TEXT} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        malformed(&format!("is not UTF-8 at byte {at}"))
    })?;
    let mut modules = Modules::default();
    for document in documents(&text).map_err(|why| malformed(&why))? {
        modules.take(document).map_err(|why| malformed(&why))?;
    }
    Ok(modules)
}

/// Reads the documents. A short text cannot become a long one: there are no aliases.
fn documents(text: &str) -> Result<Vec<Document>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: 64,
            max_aliases: 0,
            max_documents: 1 << 16,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .map_or(String::new(), |at| format!(" in line {}", at.line()));
        format!("is not module metadata{line}: {}", error.without_snippet())
    })
}

/// A document, with what all kinds of documents have that are read. Texts are as they were written: the stream `1.10` is not `1.1`.
#[derive(Deserialize)]
struct Document {
    document: String,
    version: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    name: Option<String>,
    module: Option<String>,
    stream: Option<String>,
    artifacts: Option<Rpms>,
    profiles: Option<BTreeMap<String, Profile>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rpms {
    rpms: Option<Vec<String>>,
}

impl Rpms {
    fn all(rpms: Option<Rpms>) -> Vec<String> {
        rpms.and_then(|rpms| rpms.rpms)
            .into_iter()
            .flatten()
            .collect()
    }
}

/// What `profiles` has: packages in a stream, and names of profiles in defaults.
struct Profile(Vec<String>);

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Profile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with rpms, or a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, all: A) -> Result<Profile, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(all)).map(Profile)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Profile, A::Error> {
                let rpms = Rpms::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Profile(Rpms::all(Some(rpms))))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Modules {
    fn take(&mut self, document: Document) -> Result<(), String> {
        let Document {
            document: kind,
            version,
            data,
        } = document;
        let missing = |key: &str| format!("has a {kind} without data.{key}");
        let profiles = data.profiles.into_iter().flatten();
        let profiles = profiles.map(|(name, Profile(all))| (name, all)).collect();
        match (kind.as_str(), version.as_deref()) {
            ("modulemd", Some("1" | "2")) => {
                let module = data.name.ok_or_else(|| missing("name"))?;
                let artifacts = Rpms::all(data.artifacts);
                if let Some(bad) = artifacts.iter().find(|a| name_of(a).is_none()) {
                    return Err(format!(
                        "has the artifact {bad:?} in the module {module}, which is no package"
                    ));
                }
                self.streams.push(Stream {
                    module,
                    stream: data.stream.ok_or_else(|| missing("stream"))?,
                    artifacts,
                    profiles,
                });
            }
            ("modulemd-defaults", Some("1")) => {
                let module = data.module.ok_or_else(|| missing("module"))?;
                let default = ModuleDefaults {
                    stream: data.stream.filter(|stream| !stream.is_empty()),
                    profiles,
                };
                if self.defaults.insert(module.clone(), default).is_some() {
                    return Err(format!("has the defaults of the module {module} twice"));
                }
            }
            // What these say of packages would be missed.
            ("modulemd" | "modulemd-defaults" | "modulemd-stream", version) => {
                let version = version.unwrap_or("none");
                return Err(format!(
                    "has a {kind} of version {version}, which Kiln does not know"
                ));
            }
            // Translations, ends of life, and what only builds modules.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "---\ndocument: modulemd\nversion: 2\ndata:\n  name: nodejs\n  stream: 1.10\n  profiles:\n    common:\n      rpms: [nodejs]\n  \
        artifacts:\n    rpms:\n    - nodejs-1:18.1-1.module+el9.x86_64\n...\n---\ndocument: modulemd\nversion: 2\ndata:\n  name: nodejs\n  stream: \"20\"\n  \
        artifacts:\n    rpms:\n    - nodejs-1:20.1-1.module+el9.x86_64\n...\n---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: nodejs\n  \
        stream: 1.10\n  profiles:\n    1.10: [common]\n    \"20\": []\n...\n---\ndocument: modulemd-obsoletes\nversion: 1\ndata:\n  module: x\n  reset: true\n";

    fn package(name: &str, epoch: u32, version: &str, release: &str) -> Package {
        Package {
            name: name.into(),
            arch: "x86_64".into(),
            evr: super::super::version::Evr {
                epoch,
                version: version.into(),
                release: release.into(),
            },
            ..Package::default()
        }
    }

    #[test]
    fn only_default_streams_are_seen() {
        let modules = read("m", GOOD.as_bytes()).expect("good");
        assert_eq!(modules.streams.len(), 2);
        assert_eq!(modules.streams[0].stream, "1.10");
        assert_eq!(modules.streams[0].profiles["common"], ["nodejs"]);
        assert_eq!(modules.defaults["nodejs"].profiles["1.10"], ["common"]);
        let all = [
            package("nodejs", 1, "18.1", "1.module+el9"),
            package("nodejs", 1, "20.1", "1.module+el9"),
            package("nodejs", 1, "22.0", "1.el9"),
            package("nodejs-docs", 0, "1", "1"),
        ];
        let mut kept = all.to_vec();
        modules.keep_default(&mut kept);
        assert_eq!(kept, [all[0].clone(), all[3].clone()]);
        // Without defaults no stream is active, and what is in none is seen.
        let streams = Modules {
            defaults: BTreeMap::new(),
            ..modules
        };
        let mut kept = all.to_vec();
        streams.keep_default(&mut kept);
        assert_eq!(kept, all[2..]);
    }

    #[test]
    fn broken_and_hostile_metadata_is_refused() {
        let deep = format!("document: {}{}", "[".repeat(5000), "]".repeat(5000));
        let twice = GOOD.repeat(2);
        let defaults = "document: modulemd-defaults\nversion: 1\ndata: {module: a}\n";
        let defaults = format!("---\n{defaults}---\n{defaults}");
        for (bad, why) in [
            ("- a\n", "is not module metadata"),
            (
                "document: modulemd\nversion: 2\ndata: {name: [\n",
                "is not module metadata in line",
            ),
            (
                "document: modulemd\nversion: 2\ndata: {stream: a}\n",
                "without data.name",
            ),
            (
                "document: modulemd\nversion: 2\ndata: {name: a}\n",
                "without data.stream",
            ),
            (
                "document: modulemd\nversion: 7\n",
                "of version 7, which Kiln does not know",
            ),
            ("document: modulemd\n", "of version none"),
            (
                "document: modulemd\nversion: 2\ndata: {name: a, stream: b, artifacts: {rpms: [x]}}\n",
                "which is no package",
            ),
            (
                "document: modulemd\nversion: 2\ndata: {name: a, stream: b, profiles: 7}\n",
                "is not module metadata in line 3",
            ),
            (
                "document: &a modulemd\nversion: *a\n",
                "is not module metadata",
            ),
            (
                "document: a\ndocument: b\n",
                "is not module metadata in line 2",
            ),
            (defaults.as_str(), "the defaults of the module a twice"),
            (twice.as_str(), "twice"),
            (deep.as_str(), "is not module metadata"),
        ] {
            let error = read("m", bad.as_bytes()).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let error = read("m", &b"document: \xff"[..]).expect_err("no UTF-8");
        assert_eq!(error.to_string(), "m is not UTF-8 at byte 10");
    }
}
