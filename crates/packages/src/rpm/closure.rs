//! The packages that some roots need to run: enough to bootstrap the target's own package manager, which then decides
//! everything else.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::primary::{Capability, Flag, Package};
use super::rich::Rich;
use crate::glob::nearest;
use crate::{Error, ErrorKind, Result};

/// Returns the indices of the roots and of all that they need, in ascending order.
///
/// Greedy: what is already taken is preferred, then a package of that name, then one that a taken package suggests, then one that is
/// in no module stream, then the newest, then the first name. Only packages of `architecture` and `noarch` are looked at, and of each name
/// the newest. Conflicts are not looked at: the result is unpacked into a throw-away root, not installed.
///
/// `origin` says where the repository of a package is named, for errors.
///
/// # Errors
/// [`ErrorKind::UnknownPackage`] for a root that nothing provides, with the nearest names; [`ErrorKind::Unsatisfiable`] for a
/// dependency that nothing satisfies, naming the way to it.
pub fn closure<'a>(
    packages: &'a [Package],
    architecture: &str,
    roots: &[&str],
    origin: &dyn Fn(usize) -> &'a str,
) -> Result<Vec<usize>> {
    let mut taking = Taking::new(packages, architecture);
    let placed = |at: usize| move |error: Error| error.with_origin(origin(at));
    for root in roots {
        let capability = Capability {
            name: (*root).to_owned(),
            version: None,
        };
        match taking.choose(&capability) {
            Some(found) => taking.take(found, None),
            None => return Err(taking.unknown(root)),
        }
    }
    loop {
        while let Some(at) = taking.queue.pop_front() {
            for requirement in &packages[at].requires {
                let rich = Rich::of(requirement)
                    .map_err(|why| malformed(&packages[at], requirement, &why))
                    .map_err(placed(at))?;
                taking.need(at, &rich, requirement).map_err(placed(at))?;
                if rich.is_conditional() {
                    taking.conditional.push((at, rich, requirement));
                }
            }
        }
        // What was not asked for when it was met may be by now.
        for (at, rich, requirement) in taking.conditional.clone() {
            taking.need(at, &rich, requirement).map_err(placed(at))?;
        }
        if taking.queue.is_empty() {
            return Ok(taking.taken.into_iter().collect());
        }
    }
}

fn malformed(package: &Package, requirement: &Capability, why: &str) -> Error {
    let message = format!(
        "{} needs {:.200}, which {why}",
        package.nevra(),
        requirement.name
    );
    Error::new(ErrorKind::Malformed, message)
}

struct Taking<'a> {
    packages: &'a [Package],
    /// The packages that provide a name or a path, with what they provide.
    providers: HashMap<&'a str, Vec<(usize, Option<&'a Capability>)>>,
    taken: BTreeSet<usize>,
    /// Who brought a package.
    because: HashMap<usize, usize>,
    suggested: HashSet<&'a str>,
    queue: VecDeque<usize>,
    conditional: Vec<(usize, Rich, &'a Capability)>,
}

impl<'a> Taking<'a> {
    fn new(packages: &'a [Package], architecture: &str) -> Self {
        let mut newest: HashMap<&str, usize> = HashMap::new();
        for (at, package) in packages.iter().enumerate() {
            if package.arch != architecture && package.arch != "noarch" {
                continue;
            }
            let best = newest.entry(&package.name).or_insert(at);
            if compare(package, &packages[*best]).is_gt() {
                *best = at;
            }
        }
        let mut providers: HashMap<&str, Vec<_>> = HashMap::new();
        let mut order: Vec<usize> = newest.into_values().collect();
        order.sort_unstable();
        for at in order {
            for capability in &packages[at].provides {
                providers
                    .entry(&capability.name)
                    .or_default()
                    .push((at, Some(capability)));
            }
            for file in &packages[at].files {
                providers.entry(file).or_default().push((at, None));
            }
        }
        Taking {
            packages,
            providers,
            taken: BTreeSet::new(),
            because: HashMap::new(),
            suggested: HashSet::new(),
            queue: VecDeque::new(),
            conditional: Vec::new(),
        }
    }

    fn take(&mut self, at: usize, because: Option<usize>) {
        if self.taken.insert(at) {
            self.because.extend(because.map(|by| (at, by)));
            let suggests = self.packages[at].suggests.iter();
            self.suggested
                .extend(suggests.map(|capability| capability.name.as_str()));
            self.queue.push_back(at);
        }
    }

    /// Takes what satisfies a requirement of a package.
    fn need(&mut self, at: usize, rich: &Rich, whole: &'a Capability) -> Result<()> {
        match rich {
            Rich::And(all) => all.iter().try_for_each(|one| self.need(at, one, whole)),
            Rich::If(then, condition, otherwise) => match (self.is_there(condition), otherwise) {
                (true, _) => self.need(at, then, whole),
                (false, Some(otherwise)) => self.need(at, otherwise, whole),
                (false, None) => Ok(()),
            },
            Rich::Unless(then, condition, otherwise) => {
                match (self.is_there(condition), otherwise) {
                    (false, _) => self.need(at, then, whole),
                    (true, Some(otherwise)) => self.need(at, otherwise, whole),
                    (true, None) => Ok(()),
                }
            }
            Rich::Or(all) if all.iter().any(|one| self.is_there(one)) => Ok(()),
            Rich::Or(all) => match all.iter().find(|one| self.can_be(one)) {
                Some(one) => self.need(at, one, whole),
                None => Err(self.unsatisfied(at, whole)),
            },
            Rich::One(capability) if capability.name.starts_with("rpmlib(") => Ok(()),
            Rich::One(_) | Rich::With(..) | Rich::Without(..) => {
                match self.best(self.matching(rich)) {
                    Some(found) => {
                        self.take(found, Some(at));
                        Ok(())
                    }
                    None => Err(self.unsatisfied(at, whole)),
                }
            }
        }
    }

    fn is_there(&self, rich: &Rich) -> bool {
        self.holds(rich, &|found| self.taken.contains(&found))
    }

    fn can_be(&self, rich: &Rich) -> bool {
        self.holds(rich, &|_| true)
    }

    /// Whether a dependency holds with the packages that count.
    fn holds(&self, rich: &Rich, counts: &dyn Fn(usize) -> bool) -> bool {
        match rich {
            Rich::And(all) => all.iter().all(|one| self.holds(one, counts)),
            Rich::Or(all) => all.iter().any(|one| self.holds(one, counts)),
            Rich::If(then, condition, otherwise) => match self.is_there(condition) {
                true => self.holds(then, counts),
                false => otherwise
                    .as_ref()
                    .is_none_or(|other| self.holds(other, counts)),
            },
            Rich::Unless(then, condition, otherwise) => match self.is_there(condition) {
                false => self.holds(then, counts),
                true => otherwise
                    .as_ref()
                    .is_none_or(|other| self.holds(other, counts)),
            },
            Rich::One(_) | Rich::With(..) | Rich::Without(..) => {
                self.matching(rich).into_iter().any(counts)
            }
        }
    }

    /// The packages that are what one package has to be.
    fn matching(&self, rich: &Rich) -> Vec<usize> {
        match rich {
            Rich::One(capability) => self.providing(capability),
            Rich::With(a, b) => {
                let both = self.matching(b);
                self.matching(a)
                    .into_iter()
                    .filter(|at| both.contains(at))
                    .collect()
            }
            Rich::Without(a, b) => {
                let not = self.matching(b);
                self.matching(a)
                    .into_iter()
                    .filter(|at| !not.contains(at))
                    .collect()
            }
            Rich::And(all) | Rich::Or(all) => {
                all.iter().flat_map(|one| self.matching(one)).collect()
            }
            Rich::If(..) | Rich::Unless(..) => Vec::new(),
        }
    }

    fn providing(&self, wanted: &Capability) -> Vec<usize> {
        let mut found = self.providing_name(&wanted.name, wanted);
        if found.is_empty()
            && let Some(moved) = moved(&wanted.name)
        {
            found = self.providing_name(&moved, wanted);
        }
        found
    }

    fn providing_name(&self, name: &str, wanted: &Capability) -> Vec<usize> {
        let all = self.providers.get(name).into_iter().flatten();
        all.filter(|(_, provided)| fits(wanted, *provided))
            .map(|(at, _)| *at)
            .collect()
    }

    fn choose(&self, wanted: &Capability) -> Option<usize> {
        let found = self.providing(wanted);
        let named = found
            .iter()
            .copied()
            .find(|&at| self.packages[at].name == wanted.name);
        named.or_else(|| self.best(found))
    }

    fn best(&self, found: Vec<usize>) -> Option<usize> {
        let key = |&at: &usize| {
            let package = &self.packages[at];
            let suggested = self.suggested.contains(package.name.as_str());
            let plain = !package.evr.release.contains(".module");
            (
                self.taken.contains(&at),
                suggested,
                plain,
                Reverse(&package.name),
            )
        };
        found.into_iter().max_by(|a, b| key(a).cmp(&key(b)))
    }

    fn unsatisfied(&self, at: usize, wanted: &Capability) -> Error {
        let mut way = format!("{} needs", self.packages[at].nevra());
        let mut by = at;
        while let Some(&next) = self.because.get(&by) {
            way.push_str(&format!(", needed by {}", self.packages[next].nevra()));
            by = next;
        }
        let version = wanted
            .version
            .as_ref()
            .map_or_else(String::new, |(flag, evr)| format!(" {} {evr}", sign(*flag)));
        let message = format!("nothing provides {}{version}, which {way}", wanted.name);
        Error::new(ErrorKind::Unsatisfiable, message).with_hint(
            "A repository is missing in the definition, or they do not belong to the same release.",
        )
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::new(
            ErrorKind::UnknownPackage,
            format!("no repository has the package {name}"),
        );
        let near = nearest(name, self.packages.iter().map(|p| p.name.as_str()), 3);
        match near.is_empty() {
            true => error,
            false => error.with_hint(format!("The nearest names are {}.", near.join(", "))),
        }
    }
}

/// Packages in no module stream first, then newer ones.
fn compare(a: &Package, b: &Package) -> std::cmp::Ordering {
    let plain = |package: &Package| !package.evr.release.contains(".module");
    plain(a).cmp(&plain(b)).then_with(|| a.evr.compare(&b.evr))
}

fn sign(flag: Flag) -> &'static str {
    match flag {
        Flag::Less => "<",
        Flag::AtMost => "<=",
        Flag::Equal => "=",
        Flag::AtLeast => ">=",
        Flag::Greater => ">",
    }
}

/// Where a path lies since `/usr` was merged, or lay before.
pub fn moved(path: &str) -> Option<String> {
    let tops = ["/bin/", "/sbin/", "/lib/", "/lib64/"];
    match path.strip_prefix("/usr") {
        Some(inner) if tops.iter().any(|top| inner.starts_with(top)) => Some(inner.to_owned()),
        _ if tops.iter().any(|top| path.starts_with(top)) => Some(format!("/usr{path}")),
        _ => None,
    }
}

/// Whether what is provided is what is wanted; a file has no version.
fn fits(wanted: &Capability, provided: Option<&Capability>) -> bool {
    let Some((flag, evr)) = &wanted.version else {
        return true;
    };
    // What is provided without a version is no version in particular, as rpm has it.
    let Some((provided_flag, have)) = provided.and_then(|capability| capability.version.as_ref())
    else {
        return false;
    };
    let order = have.compare_required(evr);
    let below = |flag: &Flag| matches!(flag, Flag::Less | Flag::AtMost);
    let above = |flag: &Flag| matches!(flag, Flag::Greater | Flag::AtLeast);
    let with_equal = |flag: &Flag| matches!(flag, Flag::Equal | Flag::AtMost | Flag::AtLeast);
    // Two ranges meet.
    match order {
        std::cmp::Ordering::Less => above(provided_flag) || below(flag),
        std::cmp::Ordering::Greater => below(provided_flag) || above(flag),
        std::cmp::Ordering::Equal => {
            (with_equal(provided_flag) && with_equal(flag))
                || (below(provided_flag) && below(flag))
                || (above(provided_flag) && above(flag))
        }
    }
}
