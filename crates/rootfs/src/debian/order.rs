//! The order in which packages are unpacked and configured.
//!
//! dpkg refuses to unpack a package whose Pre-Depends are not configured yet (Debian Policy 7.2), but
//! orders the configuration of many packages by itself. So packages go in waves: all that can be unpacked together, then
//! the configuration of just those that the next wave pre-depends on. A usual set needs two or three waves.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What the order needs to know of a package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Names that it provides beside its own.
    pub(crate) provides: Vec<String>,
    /// Or-groups of names that have to be configured before it is unpacked.
    pub(crate) pre_depends: Vec<Vec<String>>,
    /// Or-groups of names that have to be configured before it is configured.
    pub(crate) depends: Vec<Vec<String>>,
}

/// Unpack these, then configure those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wave {
    /// Indices of packages to unpack, in the given order.
    pub(crate) unpack: Vec<usize>,
    /// Indices of packages to configure before the next wave; empty in the last wave, which configures all.
    pub(crate) configure: Vec<usize>,
}

/// Sorts `nodes` into waves. `present` are the names (and provided names) that are configured already.
///
/// A cycle of Pre-Depends, which no archive has, ends in a last wave with all that is left, so that dpkg names it.
pub(crate) fn waves(nodes: &[Node], present: &HashSet<String>) -> Vec<Wave> {
    Ordering::new(nodes, present).waves()
}

struct Ordering<'a> {
    nodes: &'a [Node],
    present: &'a HashSet<String>,
    providers: HashMap<&'a str, Vec<usize>>,
    unpacked: Vec<bool>,
    configured: Vec<bool>,
}

impl<'a> Ordering<'a> {
    fn new(nodes: &'a [Node], present: &'a HashSet<String>) -> Self {
        let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            for name in std::iter::once(&node.name).chain(&node.provides) {
                providers.entry(name).or_default().push(index);
            }
        }
        Ordering {
            nodes,
            present,
            providers,
            unpacked: vec![false; nodes.len()],
            configured: vec![false; nodes.len()],
        }
    }

    fn waves(mut self) -> Vec<Wave> {
        let mut waves = Vec::new();
        while self.unpacked.contains(&false) {
            let ready: Vec<usize> = (0..self.nodes.len())
                .filter(|&i| !self.unpacked[i] && self.ready(i))
                .collect();
            let unpack = if ready.is_empty() {
                (0..self.nodes.len())
                    .filter(|&i| !self.unpacked[i])
                    .collect()
            } else {
                ready
            };
            for &index in &unpack {
                self.unpacked[index] = true;
            }
            let configure = self.needed_next();
            for &index in &configure {
                self.configured[index] = true;
            }
            waves.push(Wave { unpack, configure });
        }
        waves
    }

    fn ready(&self, index: usize) -> bool {
        self.nodes[index].pre_depends.iter().all(|group| {
            group.iter().any(|name| self.present.contains(name) || self.provided(name).any(|p| self.configured[p]))
                // Nothing here satisfies it: let dpkg say so instead of waiting for ever.
                || group.iter().all(|name| self.provided(name).next().is_none())
        })
    }

    fn provided(&self, name: &str) -> impl Iterator<Item = usize> + '_ {
        self.providers.get(name).into_iter().flatten().copied()
    }

    /// Unpacked packages which the rest pre-depends on, with all that these depend on.
    fn needed_next(&self) -> Vec<usize> {
        let mut needed = BTreeSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if !self.unpacked[index] {
                node.pre_depends
                    .iter()
                    .for_each(|group| self.need(group, &mut needed));
            }
        }
        needed.into_iter().collect()
    }

    fn need(&self, group: &[String], needed: &mut BTreeSet<usize>) {
        if group.iter().any(|name| self.present.contains(name)) {
            return;
        }
        let Some(index) = group
            .iter()
            .find_map(|name| self.provided(name).find(|&p| self.unpacked[p]))
        else {
            return;
        };
        if self.configured[index] || !needed.insert(index) {
            return;
        }
        let node = &self.nodes[index];
        node.depends
            .iter()
            .chain(&node.pre_depends)
            .for_each(|group| self.need(group, needed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, pre: &[&str], depends: &[&str]) -> Node {
        let groups = |names: &[&str]| {
            names
                .iter()
                .map(|n| n.split('|').map(str::to_owned).collect())
                .collect()
        };
        Node {
            name: name.into(),
            provides: Vec::new(),
            pre_depends: groups(pre),
            depends: groups(depends),
        }
    }

    fn names(nodes: &[Node], indices: &[usize]) -> Vec<String> {
        indices.iter().map(|&i| nodes[i].name.clone()).collect()
    }

    #[test]
    fn pre_depends_come_first_with_what_they_depend_on() {
        let nodes = [
            node("app", &["lib|other"], &[]),
            node("lib", &[], &["data"]),
            node("data", &[], &[]),
            node("x", &[], &[]),
        ];
        let waves = waves(&nodes, &HashSet::new());
        assert_eq!(names(&nodes, &waves[0].unpack), ["lib", "data", "x"]);
        assert_eq!(names(&nodes, &waves[0].configure), ["lib", "data"]);
        assert_eq!(names(&nodes, &waves[1].unpack), ["app"]);
        assert_eq!(waves.len(), 2);
    }

    #[test]
    fn what_is_present_needs_no_wave() {
        let nodes = [node("app", &["libc6"], &[])];
        let waves = waves(&nodes, &HashSet::from(["libc6".to_owned()]));
        assert_eq!(
            waves,
            [Wave {
                unpack: vec![0],
                configure: vec![]
            }]
        );
    }

    #[test]
    fn cycles_and_missing_ones_end() {
        let nodes = [
            node("a", &["b"], &[]),
            node("b", &["a"], &[]),
            node("c", &["nowhere"], &[]),
        ];
        let waves = waves(&nodes, &HashSet::new());
        let all: Vec<usize> = waves.iter().flat_map(|w| w.unpack.clone()).collect();
        assert_eq!(all.len(), 3);
    }
}
