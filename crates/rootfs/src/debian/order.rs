//! The order in which packages are unpacked and configured.
//!
//! dpkg refuses to unpack a package whose Pre-Depends are not configured yet, and to configure one whose Depends and Pre-Depends are
//! not, unless these are configured in the same run (Debian Policy 7.2); within a run it finds the order, and breaks
//! cycles, by itself. So packages go in waves: all that can be unpacked, then the configuration of just those that a
//! later wave pre-depends on, with all that these need. A usual set needs two to four waves.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use kiln_packages::debian::relation::{Relation, groups, list};

use super::deb::Deb;

/// Unpack these, then configure those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wave {
    /// Indices of packages to unpack, in the given order.
    pub(crate) unpack: Vec<usize>,
    /// Indices of packages to configure before the next wave; empty in the last wave, which configures all.
    pub(crate) configure: Vec<usize>,
}

/// Sorts `debs` into waves. `installed` are configured already.
///
/// What cannot be unpacked in any order (a cycle through Pre-Depends, which no archive has, or a package that is missing)
/// is in a last wave with all that is left, so that dpkg names it.
pub(crate) fn waves(debs: &[Deb], installed: &[Deb]) -> Vec<Wave> {
    Ordering::new(debs, installed).waves()
}

/// The packages of these names with all that they depend on, by their places in `debs`, in order. Of alternatives the first that is there
/// counts; what is not there is left out.
pub(crate) fn closure(debs: &[&Deb], names: &[&str]) -> Vec<usize> {
    let offers = Offers::new(debs);
    let mut taken = vec![false; debs.len()];
    let named = |name: &&str| debs.iter().position(|deb| deb.name == **name);
    let mut pending: Vec<usize> = names.iter().filter_map(named).collect();
    while let Some(index) = pending.pop() {
        let (Some(deb), Some(taken)) = (debs.get(index), taken.get_mut(index)) else {
            continue;
        };
        if !std::mem::replace(taken, true) {
            for text in [&deb.pre_depends, &deb.depends] {
                let needs = offers.needs(deb, text);
                pending.extend(needs.iter().filter_map(|group| group.first()));
            }
        }
    }
    (0..taken.len()).filter(|&i| taken[i]).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Unpacked,
    Configured,
}

/// For each or-group the indices of the packages that satisfy it, in the order of the alternatives.
type Needs = Vec<Vec<usize>>;

/// The packages to install, and after them those that are installed.
struct Ordering {
    states: Vec<State>,
    /// What has to be configured before a package is unpacked.
    pre_depends: Vec<Needs>,
    /// What has to be configured before a package is; Pre-Depends count too.
    depends: Vec<Needs>,
}

impl Ordering {
    fn new(debs: &[Deb], installed: &[Deb]) -> Self {
        let all: Vec<&Deb> = debs.iter().chain(installed).collect();
        let offers = Offers::new(&all);
        let needs = |text: fn(&Deb) -> &str| {
            let mut needs: Vec<Needs> = vec![Vec::new(); all.len()];
            for (index, deb) in debs.iter().enumerate() {
                needs[index] = offers.needs(deb, text(deb));
            }
            needs
        };
        let pre_depends = needs(|deb| &deb.pre_depends);
        let mut depends = needs(|deb| &deb.depends);
        for (depends, pre_depends) in depends.iter_mut().zip(&pre_depends) {
            depends.extend(pre_depends.iter().cloned());
        }
        let mut states = vec![State::Absent; debs.len()];
        states.resize(all.len(), State::Configured);
        Ordering {
            states,
            pre_depends,
            depends,
        }
    }

    fn waves(mut self) -> Vec<Wave> {
        let mut waves = Vec::new();
        while self.states.contains(&State::Absent) {
            let absent = self.all(State::Absent);
            let ready = absent.iter().copied().filter(|&i| self.is_ready(i));
            let mut unpack: Vec<usize> = ready.collect();
            self.set(&unpack, State::Unpacked);
            let configure = self.needed_next();
            if unpack.is_empty() && configure.is_empty() {
                unpack = absent;
                self.set(&unpack, State::Unpacked);
            }
            self.set(&configure, State::Configured);
            waves.push(Wave { unpack, configure });
        }
        waves
    }

    fn all(&self, state: State) -> Vec<usize> {
        (0..self.states.len())
            .filter(|&i| self.states[i] == state)
            .collect()
    }

    fn set(&mut self, indices: &[usize], state: State) {
        for &index in indices {
            self.states[index] = state;
        }
    }

    fn is_configured(&self, index: usize) -> bool {
        self.states[index] == State::Configured
    }

    fn is_ready(&self, index: usize) -> bool {
        let satisfied = |group: &Vec<usize>| group.iter().any(|&p| self.is_configured(p));
        self.pre_depends[index].iter().all(satisfied)
    }

    /// Unpacked packages which the rest pre-depends on, with all that these need. Only those that dpkg can configure now.
    fn needed_next(&self) -> Vec<usize> {
        let able = self.configurable();
        let mut needed = vec![false; self.states.len()];
        let mut pending: Vec<&Vec<usize>> = Vec::new();
        let absent = self.all(State::Absent);
        pending.extend(absent.iter().flat_map(|&i| &self.pre_depends[i]));
        while let Some(group) = pending.pop() {
            if group.iter().any(|&p| self.is_configured(p) || needed[p]) {
                continue;
            }
            if let Some(&found) = group.iter().find(|&&p| able[p]) {
                needed[found] = true;
                pending.extend(&self.depends[found]);
            }
        }
        (0..needed.len()).filter(|&i| needed[i]).collect()
    }

    /// Which unpacked packages dpkg would configure if it was told to configure all of them: each has what it depends on among
    /// the configured ones and one another, so that those fall away which wait for a package that is not unpacked.
    fn configurable(&self) -> Vec<bool> {
        let unpacked = self.all(State::Unpacked);
        let mut able: Vec<bool> = self.states.iter().map(|&s| s == State::Unpacked).collect();
        loop {
            let mut stays = true;
            for &index in &unpacked {
                let satisfied =
                    |g: &Vec<usize>| g.iter().any(|&p| able[p] || self.is_configured(p));
                if able[index] && !self.depends[index].iter().all(satisfied) {
                    able[index] = false;
                    stays = false;
                }
            }
            if stays {
                return able;
            }
        }
    }
}

/// Which packages stand behind a name, by themselves or as providers.
struct Offers<'a> {
    debs: &'a [&'a Deb],
    by_name: HashMap<&'a str, Vec<(usize, Option<&'a str>)>>,
    /// The architecture of the root: packages for all architectures count as of this one.
    native: &'a str,
}

impl<'a> Offers<'a> {
    fn new(debs: &'a [&'a Deb]) -> Self {
        let mut by_name: HashMap<&str, Vec<_>> = HashMap::new();
        for (index, deb) in debs.iter().enumerate() {
            let own = (index, Some(deb.version.as_str()));
            by_name.entry(&deb.name).or_default().push(own);
        }
        // A package of the name itself comes before those that provide it.
        for (index, deb) in debs.iter().enumerate() {
            for provided in list(&deb.provides) {
                let version = provided.version.map(|(_, version)| version);
                by_name
                    .entry(provided.name)
                    .or_default()
                    .push((index, version));
            }
        }
        let mut known = debs.iter().filter(|d| d.architecture != "all");
        let dpkg = known.clone().find(|d| d.name == "dpkg");
        let native = dpkg.or_else(|| known.next());
        Offers {
            debs,
            by_name,
            native: native.map_or("all", |d| &d.architecture),
        }
    }

    fn needs(&self, of: &Deb, text: &str) -> Needs {
        let one = |group: Vec<Relation<'_>>| {
            let found = group.iter().flat_map(|r| self.satisfying(of, r));
            found.collect()
        };
        // dpkg has nothing against a package that needs itself, in any version.
        let other = |group: &Vec<Relation<'_>>| group.iter().all(|r| r.name != of.name);
        groups(text).filter(other).map(one).collect()
    }

    fn satisfying(&self, of: &Deb, relation: &Relation<'_>) -> Vec<usize> {
        let offers = self.by_name.get(relation.name).into_iter().flatten();
        let fits = |(index, version): &&(usize, Option<&str>)| {
            let fits = match (relation.version, version) {
                (None, _) => true,
                // An unversioned Provides satisfies no versioned relation.
                (Some(_), None) => false,
                (Some(_), Some(version)) => relation.accepts(version),
            };
            fits && self.is_of_architecture(self.debs[*index], of, relation)
        };
        offers.filter(fits).map(|(index, _)| *index).collect()
    }

    /// deb-control(5), `Multi-Arch`, and Debian's multiarch specification.
    fn is_of_architecture(&self, deb: &Deb, of: &Deb, relation: &Relation<'_>) -> bool {
        let same = |wanted: &str| self.real(&deb.architecture) == self.real(wanted);
        match relation.qualifier {
            None => deb.foreign || same(&of.architecture),
            Some("any") => true,
            Some("native") => same(self.native),
            Some(wanted) => same(wanted),
        }
    }

    fn real<'s>(&'s self, architecture: &'s str) -> &'s str {
        match architecture {
            "all" => self.native,
            other => other,
        }
    }
}
