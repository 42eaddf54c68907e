//! The packages that some roots need to run: enough to bootstrap the target's own package manager, which then
//! decides everything else.

use std::collections::{BTreeMap, VecDeque};

use super::relation::{Relation, groups};
use super::universe::{Package, Universe};
use crate::{Error, ErrorKind, Result};

/// Returns the roots and all that they need by `Pre-Depends` and `Depends`, sorted by name.
///
/// Greedy: of several alternatives one that is already taken is preferred, then the first that exists under its
/// own name, then of the providers the one with the highest priority and the first name. `Conflicts` and `Breaks`
/// are not looked at: the result is unpacked into a throw-away root, not installed.
///
/// # Errors
/// [`ErrorKind::UnknownPackage`] for a root that is neither a package nor provided (with the nearest names);
/// [`ErrorKind::Unsatisfiable`] for a dependency that nothing satisfies, naming the way to it.
pub fn closure<'a, S: AsRef<str>>(universe: &'a Universe, roots: &[S]) -> Result<Vec<&'a Package>> {
    let mut taken = Taken::default();
    for root in roots {
        let relation = Relation {
            name: root.as_ref(),
            qualifier: None,
            version: None,
        };
        match choose(universe, &taken, std::slice::from_ref(&relation)) {
            Some(package) => taken.add(package, None),
            None => return Err(universe.unknown(root.as_ref())),
        }
    }
    while let Some(package) = taken.queue.pop_front() {
        for alternatives in groups(package.pre_depends()).chain(groups(package.depends())) {
            match choose(universe, &taken, &alternatives) {
                // Another version of it that is already taken does not fit.
                Some(needed) if taken.has_other(needed) => {
                    return Err(unsatisfiable(universe, &taken, package, &alternatives));
                }
                Some(needed) => taken.add(needed, Some(package.name())),
                None => return Err(unsatisfiable(universe, &taken, package, &alternatives)),
            }
        }
    }
    Ok(taken
        .packages
        .into_values()
        .map(|(package, _)| package)
        .collect())
}

#[derive(Default)]
struct Taken<'a> {
    /// By name, with the name of the package that needs it.
    packages: BTreeMap<&'a str, (&'a Package, Option<&'a str>)>,
    queue: VecDeque<&'a Package>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, package: &'a Package, needed_by: Option<&'a str>) {
        if !self.packages.contains_key(package.name()) {
            self.packages.insert(package.name(), (package, needed_by));
            self.queue.push_back(package);
        }
    }

    fn has(&self, package: &Package) -> bool {
        self.packages
            .get(package.name())
            .is_some_and(|(taken, _)| std::ptr::eq(*taken, package))
    }

    fn has_other(&self, package: &Package) -> bool {
        self.packages.contains_key(package.name()) && !self.has(package)
    }

    /// `apt → libapt-pkg6.0 → libfoo`.
    fn way(&self, to: &Package) -> String {
        let mut names = vec![to.name()];
        let mut at = to.name();
        while let Some((_, Some(by))) = self.packages.get(at) {
            // The chain has no loops, since only the first need is recorded; the bound is for safety.
            if names.len() > self.packages.len() {
                break;
            }
            names.push(by);
            at = by;
        }
        names.reverse();
        names.join(" → ")
    }
}

fn choose<'a>(
    universe: &'a Universe,
    taken: &Taken,
    alternatives: &[Relation],
) -> Option<&'a Package> {
    let own = || {
        alternatives
            .iter()
            .filter_map(|relation| universe.satisfying(relation))
    };
    let provided = alternatives
        .iter()
        .flat_map(|relation| universe.providing(relation))
        .collect::<Vec<_>>();
    let already = own()
        .chain(provided.iter().copied())
        .find(|package| taken.has(package));
    already.or_else(|| own().next()).or_else(|| {
        provided
            .iter()
            .copied()
            .min_by_key(|p| (rank(p.priority()), p.name()))
    })
}

fn rank(priority: &str) -> usize {
    let order = ["required", "important", "standard", "optional"];
    order
        .iter()
        .position(|p| *p == priority)
        .unwrap_or(order.len())
}

fn unsatisfiable(
    universe: &Universe,
    taken: &Taken,
    package: &Package,
    alternatives: &[Relation],
) -> Error {
    let wanted: Vec<String> = alternatives.iter().map(describe).collect();
    let message = format!(
        "{} needs {}, which cannot be had",
        taken.way(package),
        wanted.join(" or ")
    );
    let there = alternatives
        .iter()
        .flat_map(|r| universe.versions(r.name))
        .map(|p| p.describe());
    let there: Vec<String> = there.collect();
    let error = Error::new(ErrorKind::Unsatisfiable, message);
    match there.is_empty() {
        true => error.with_hint("A suite or component is missing from the repositories, or the mirror is in the middle of an update."),
        false => error.with_hint(format!("There is {}.", there.join(", "))),
    }
}

fn describe(relation: &Relation) -> String {
    use super::relation::Operator::*;
    match relation.version {
        None => relation.name.to_owned(),
        Some((operator, version)) => {
            let sign = match operator {
                Earlier => "<<",
                EarlierOrEqual => "<=",
                Equal => "=",
                LaterOrEqual => ">=",
                Later => ">>",
            };
            format!("{} ({sign} {version})", relation.name)
        }
    }
}
