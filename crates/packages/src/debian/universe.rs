//! All packages of some repositories, read without copying: a package is a set of ranges in its index.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::control::{self, field_end};
use super::refresh::{Index, Metadata, VerifiedRepository};
use super::relation::{Relation, list};
use super::repository::Repository;
use super::version;
use crate::glob;
use crate::{Digest, Error, ErrorKind, Result};

/// The fields that are found when an index is read. Others are searched in the stanza when asked for.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Field {
    Name,
    Version,
    Architecture,
    Filename,
    Depends,
    PreDepends,
    Provides,
    Priority,
    Essential,
}

const FIELDS: usize = 9;

/// A range of bytes in an index; indices are smaller than 4 GiB.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One version of a binary package, as an index describes it. Cheap to clone.
#[derive(Clone)]
pub struct Package {
    text: Arc<str>,
    stanza: Span,
    spans: [Span; FIELDS],
    repository: Arc<Repository>,
    /// Position of the repository in the list that the universe was read from.
    rank: usize,
    size: u64,
    sha256: Digest,
}

impl Package {
    fn get(&self, field: Field) -> &str {
        &self.text[self.spans[field as usize].range()]
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.get(Field::Name)
    }

    /// Returns its version.
    pub fn version(&self) -> &str {
        self.get(Field::Version)
    }

    /// Returns its architecture: `amd64`, `all`, ….
    pub fn architecture(&self) -> &str {
        self.get(Field::Architecture)
    }

    /// Path below the repository's base URL.
    pub fn filename(&self) -> &str {
        self.get(Field::Filename)
    }

    /// Returns where to fetch it.
    pub fn url(&self) -> String {
        self.repository.package_url(self.filename())
    }

    /// Size of the `.deb` in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Content of the `.deb`.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Text of `Depends`; see [`super::relation::groups`].
    pub fn depends(&self) -> &str {
        self.get(Field::Depends)
    }

    /// Text of `Pre-Depends`.
    pub fn pre_depends(&self) -> &str {
        self.get(Field::PreDepends)
    }

    /// Text of `Recommends`.
    pub fn recommends(&self) -> &str {
        self.field("Recommends").unwrap_or("")
    }

    /// Text of `Conflicts`.
    pub fn conflicts(&self) -> &str {
        self.field("Conflicts").unwrap_or("")
    }

    /// Text of `Breaks`.
    pub fn breaks(&self) -> &str {
        self.field("Breaks").unwrap_or("")
    }

    /// Returns what else it stands for.
    pub fn provides(&self) -> impl Iterator<Item = Relation<'_>> {
        list(self.get(Field::Provides))
    }

    /// Returns its priority: `required`, `important`, `standard`, `optional` or `extra`.
    pub fn priority(&self) -> &str {
        self.get(Field::Priority)
    }

    /// Returns whether a system without it does not work.
    pub fn is_essential(&self) -> bool {
        self.get(Field::Essential) == "yes"
    }

    /// Returns the tasks it belongs to (`Task`).
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.field("Task")
            .unwrap_or("")
            .split(',')
            .map(str::trim)
            .filter(|task| !task.is_empty())
    }

    /// Returns its section: `admin`, `contrib/net`, ….
    pub fn section(&self) -> &str {
        self.field("Section").unwrap_or("")
    }

    /// Returns its bytes on disk, as the packager estimated them.
    pub fn installed_size(&self) -> u64 {
        let kib: Option<u64> = self
            .field("Installed-Size")
            .and_then(|text| text.parse().ok());
        kib.unwrap_or(0).saturating_mul(1024)
    }

    /// Any field by its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        control::field(self.stanza(), name)
    }

    /// Returns everything that the index says of it.
    pub fn stanza(&self) -> &str {
        &self.text[self.stanza.range()]
    }

    /// Returns the repository that has it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns `name version architecture`.
    pub fn describe(&self) -> String {
        format!("{} {} {}", self.name(), self.version(), self.architecture())
    }

    /// By name, then the better one first: higher version, native before `all`, earlier repository.
    fn order(&self, other: &Package) -> Ordering {
        let foreign = |p: &Package| p.architecture() == "all";
        self.name()
            .cmp(other.name())
            .then_with(|| match self.version() == other.version() {
                true => Ordering::Equal,
                false => version::compare(other.version(), self.version()),
            })
            .then_with(|| foreign(self).cmp(&foreign(other)))
            .then_with(|| self.rank.cmp(&other.rank))
    }
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Package({})", self.describe())
    }
}

/// All packages of some repositories.
#[derive(Debug, Default)]
pub struct Universe {
    /// Sorted by [`Package::order`].
    packages: Vec<Package>,
    /// The same versions again, in other repositories; sorted in the same way.
    repeated: Vec<Package>,
    /// Virtual name and its provider, sorted by name.
    provided: Vec<(Box<str>, u32)>,
    /// What each repository's release calls itself: `Suite`, `Codename`.
    suites: Vec<[String; 2]>,
    warnings: Vec<String>,
}

impl Universe {
    /// Reads the indices of verified repositories, on several threads.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a stanza without what a package must have; [`ErrorKind::HashMismatch`] if a
    /// cached index was damaged; [`ErrorKind::Io`].
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let sources: Vec<(usize, Arc<Repository>, &Index)> = metadata
            .repositories
            .iter()
            .enumerate()
            .flat_map(|(rank, verified)| {
                let repository = Arc::new(verified.repository.clone());
                verified
                    .indices
                    .iter()
                    .map(move |index| (rank, Arc::clone(&repository), index))
            })
            .collect();
        let parts = std::thread::scope(|scope| {
            let threads: Vec<_> = sources
                .iter()
                .map(|(rank, repository, index)| {
                    scope.spawn(move || {
                        let text = index.read()?;
                        parse(&index.describe(repository), text, repository, *rank)
                    })
                })
                .collect();
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let names = |verified: &VerifiedRepository| {
            [&verified.release.suite, &verified.release.codename].map(String::clone)
        };
        let mut universe = Universe::of_parts(parts);
        universe.suites = metadata.repositories.iter().map(names).collect();
        Ok(universe)
    }

    /// Reads one index's text, for tests and tools.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`].
    pub fn of_text(what: &str, text: &str, repository: &Repository) -> Result<Self> {
        let part = parse(what, text.into(), &Arc::new(repository.clone()), 0)?;
        Ok(Universe::of_parts(vec![part]))
    }

    fn of_parts(parts: Vec<Part>) -> Self {
        let mut universe = Universe::default();
        for part in parts {
            universe.packages.extend(part.packages);
            universe.warnings.extend(part.warnings);
        }
        universe.packages.sort_by(Package::order);
        let repeated = &mut universe.repeated;
        universe.packages.dedup_by(|later, first| {
            let is_same = later.name() == first.name()
                && later.version() == first.version()
                && later.architecture() == first.architecture();
            repeated.extend(is_same.then(|| later.clone()));
            is_same
        });
        for (at, package) in universe.packages.iter().enumerate() {
            let names = package
                .provides()
                .map(|relation| (relation.name.into(), at as u32));
            universe.provided.extend(names);
        }
        universe.provided.sort_unstable();
        universe
    }

    /// Number of packages, counting versions.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Packages that cannot be used, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns every package, by name, the best version of each name first.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Returns all versions of a name, the best first.
    pub fn versions(&self, name: &str) -> &[Package] {
        named(&self.packages, name)
    }

    /// Returns all versions of a name in every repository: where several have the same version, each of them.
    pub fn everywhere(&self, name: &str) -> impl Iterator<Item = &Package> {
        self.versions(name)
            .iter()
            .chain(named(&self.repeated, name))
    }

    /// Returns what the releases of the repositories that have a package's version call themselves.
    pub fn suites_of<'a>(&'a self, package: &'a Package) -> impl Iterator<Item = &'a str> {
        let same = |p: &&Package| p.version() == package.version();
        self.everywhere(package.name())
            .filter(same)
            .filter_map(|p| self.suites.get(p.rank))
            .flatten()
            .filter(|name| !name.is_empty())
            .map(String::as_str)
    }

    /// Returns the best version of a name: the highest, whichever repository has it.
    pub fn best(&self, name: &str) -> Option<&Package> {
        self.versions(name).first()
    }

    /// Returns the best version of every name.
    pub fn latest(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .chunk_by(|a, b| a.name() == b.name())
            .filter_map(<[Package]>::first)
    }

    /// Packages that provide a virtual name, by name; of each name only the best version counts.
    pub fn providers(&self, name: &str) -> impl Iterator<Item = &Package> + use<'_> {
        let start = self.provided.partition_point(|(n, _)| **n < *name);
        let rest = &self.provided[start..];
        let entries = rest[..rest.partition_point(|(n, _)| **n == *name)].iter();
        let packages = entries.filter_map(|&(_, at)| self.packages.get(at as usize));
        packages.filter(|package| {
            self.best(package.name())
                .is_some_and(|best| std::ptr::eq(best, *package))
        })
    }

    /// Returns the best package that satisfies a relation under its own name.
    pub fn satisfying(&self, relation: &Relation) -> Option<&Package> {
        self.versions(relation.name)
            .iter()
            .find(|package| relation.accepts(package.version()))
    }

    /// Returns the packages that satisfy a relation by providing its name (Debian Policy section 7.5: a version is only
    /// satisfied by a versioned `Provides`).
    pub fn providing(&self, relation: &Relation) -> Vec<&Package> {
        let satisfies = |package: &Package| {
            let fits = |provided: Relation| match (relation.version, provided.version) {
                (None, _) => true,
                (Some(_), Some((_, version))) => relation.accepts(version),
                (Some(_), None) => false,
            };
            package
                .provides()
                .any(|provided| provided.name == relation.name && fits(provided))
        };
        self.providers(relation.name)
            .filter(|package| satisfies(package))
            .collect()
    }

    /// Returns the best version of each name that a shell pattern matches; an exact name is a pattern too.
    pub fn matching<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a Package> {
        self.latest()
            .filter(move |package| match glob::is_pattern(pattern) {
                true => glob::matches(pattern.as_bytes(), package.name().as_bytes()),
                false => package.name() == pattern,
            })
    }

    /// Packages of a task (`Task:` in the index), the best version of each.
    pub fn task<'a>(&'a self, task: &'a str) -> impl Iterator<Item = &'a Package> {
        self.latest()
            .filter(move |package| package.tasks().any(|t| t == task))
    }

    /// Names of all tasks, sorted.
    pub fn tasks(&self) -> Vec<&str> {
        let set: HashSet<&str> = self.latest().flat_map(Package::tasks).collect();
        let mut all: Vec<&str> = set.into_iter().collect();
        all.sort_unstable();
        all
    }

    /// Names that look like `name`, the most likely first, at most three.
    pub fn nearest(&self, name: &str) -> Vec<&str> {
        let provided = self
            .provided
            .chunk_by(|a, b| a.0 == b.0)
            .filter_map(|c| c.first())
            .map(|(n, _)| &**n);
        let mut found = glob::nearest(name, self.latest().map(Package::name).chain(provided), 4);
        found.dedup();
        found.truncate(3);
        found
    }

    /// Returns the error for a name that nothing has or provides, with the nearest names.
    pub fn unknown(&self, name: &str) -> Error {
        let error = Error::new(
            ErrorKind::UnknownPackage,
            format!("no repository has a package {name}"),
        );
        match self.nearest(name).as_slice() {
            [] => error
                .with_hint("Check the spelling, or add the repository and component that has it."),
            near => error.with_hint(format!("Did you mean {}?", near.join(", "))),
        }
    }
}

fn named<'a>(sorted: &'a [Package], name: &str) -> &'a [Package] {
    let start = sorted.partition_point(|p| p.name() < name);
    let rest = &sorted[start..];
    &rest[..rest.partition_point(|p| p.name() == name)]
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Internal,
            "reading a package index panicked",
        ))
    })
}

/// One index, read.
struct Part {
    packages: Vec<Package>,
    warnings: Vec<String>,
}

fn parse(what: &str, text: Arc<str>, repository: &Arc<Repository>, rank: usize) -> Result<Part> {
    if u32::try_from(text.len()).is_err() {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("{what} is larger than 4 GiB"),
        ));
    }
    let mut part = Part {
        packages: Vec::new(),
        warnings: Vec::new(),
    };
    let mut at = 0;
    while at < text.len() {
        let end = text[at..]
            .find("\n\n")
            .map_or(text.len(), |length| at + length + 1);
        if let Some(stanza) = scan(&text, at..end) {
            let package = package(&text, stanza, repository, rank, &mut part.warnings);
            part.packages.extend(package.map_err(|why| {
                Error::new(ErrorKind::Malformed, format!("{what}, at byte {at}: {why}"))
            })?);
        }
        at = end + 1;
    }
    Ok(part)
}

/// What a pass over a stanza found.
#[derive(Default)]
struct Scanned {
    stanza: Span,
    spans: [Span; FIELDS],
    size: Span,
    sha256: Span,
}

/// Finds the fields; `None` for a stanza without any.
fn scan(text: &str, range: Range<usize>) -> Option<Scanned> {
    let mut found = Scanned {
        stanza: span(range.clone()),
        ..Scanned::default()
    };
    let bytes = text.as_bytes();
    let mut at = range.start;
    let mut any = false;
    while at < range.end {
        let end = at + field_end(&bytes[at..range.end]);
        let line = &text[at..end];
        if let Some(slot) = slot(&mut found, line) {
            let (name, value) = line.split_once(':')?;
            let start = at + name.len() + 1 + (value.len() - value.trim_start().len());
            *slot = span(start..start + value.trim().len());
            any = true;
        }
        at = end;
    }
    any.then_some(found)
}

fn span(range: Range<usize>) -> Span {
    // The caller has checked that the text is smaller than 4 GiB.
    Span {
        start: range.start as u32,
        end: range.end as u32,
    }
}

/// Where a line's value belongs, by its name.
fn slot<'a>(found: &'a mut Scanned, line: &str) -> Option<&'a mut Span> {
    let name = &line.as_bytes()[..line.len().min(13)];
    let name = &name[..name.iter().position(|&b| b == b':')?];
    let field = match name {
        b"Package" => Field::Name,
        b"Version" => Field::Version,
        b"Architecture" => Field::Architecture,
        b"Filename" => Field::Filename,
        b"Depends" => Field::Depends,
        b"Pre-Depends" => Field::PreDepends,
        b"Provides" => Field::Provides,
        b"Priority" => Field::Priority,
        b"Essential" => Field::Essential,
        b"Size" => return Some(&mut found.size),
        b"SHA256" => return Some(&mut found.sha256),
        _ => return None,
    };
    Some(&mut found.spans[field as usize])
}

/// Checks what a package must have. One without SHA-256 is left out with a warning; one for another architecture
/// silently, since it is none of this universe.
fn package(
    text: &Arc<str>,
    found: Scanned,
    repository: &Arc<Repository>,
    rank: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<Package>, String> {
    let get = |span: Span| &text[span.range()];
    let of = |field: Field| get(found.spans[field as usize]);
    for (field, name) in [
        (Field::Name, "Package"),
        (Field::Version, "Version"),
        (Field::Filename, "Filename"),
    ] {
        if of(field).is_empty() || of(field).contains(char::is_whitespace) {
            return Err(format!(
                "the stanza of the package {:?} has no usable {name}",
                of(Field::Name)
            ));
        }
    }
    version::check(of(Field::Version)).map_err(|why| {
        let (name, version) = (of(Field::Name), of(Field::Version));
        format!("the version {version:?} of the package {name} {why}")
    })?;
    if ![repository.architecture.as_str(), "all"].contains(&of(Field::Architecture)) {
        return Ok(None);
    }
    let (Ok(size), Ok(sha256)) = (get(found.size).parse(), get(found.sha256).parse()) else {
        let name = of(Field::Name);
        warnings.push(format!(
            "{name} in {} is left out: the index has no SHA-256 and size for it",
            repository.describe()
        ));
        return Ok(None);
    };
    let (text, repository) = (Arc::clone(text), Arc::clone(repository));
    let Scanned { stanza, spans, .. } = found;
    Ok(Some(Package {
        text,
        stanza,
        spans,
        repository,
        rank,
        size,
        sha256,
    }))
}
