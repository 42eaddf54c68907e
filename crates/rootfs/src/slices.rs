//! Which layer each package of a solution belongs to.
//!
//! The package manager solves all layers at once, so that what the upper ones ask for decides what the lower ones get (an exclusion, a
//! choice between alternatives). Here the solution is cut: a package belongs to the lowest layer that asks for it
//! or for something that leads to it. Every slice is then complete with what it depends on below or in it.

use std::collections::HashMap;

/// What the cut needs to know of a package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    /// Its name.
    pub(crate) name: String,
    /// Names that it provides.
    pub(crate) provides: Vec<String>,
    /// Or-groups of what it needs.
    pub(crate) depends: Vec<Vec<String>>,
    /// Or-groups of what it is installed with.
    pub(crate) recommends: Vec<Vec<String>>,
}

/// For each package the index of its layer. `requests` holds, lowest layer first, the names that each asks for. A
/// package that no request leads to (a reverse `Provides` that the package manager preferred) goes into the last layer.
pub(crate) fn cut(packages: &[Links], requests: &[Vec<String>]) -> Vec<usize> {
    let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (index, package) in packages.iter().enumerate() {
        by_name.insert(&package.name, index);
        for name in &package.provides {
            providers.entry(name).or_default().push(index);
        }
    }
    let mut layers = vec![usize::MAX; packages.len()];
    for (layer, names) in requests.iter().enumerate() {
        let mut pending: Vec<usize> = Vec::new();
        let find = |name: &str, pending: &mut Vec<usize>| {
            if let Some(&index) = by_name.get(name) {
                pending.push(index);
                return true;
            }
            let found = providers.get(name);
            pending.extend(found.into_iter().flatten());
            found.is_some()
        };
        for name in names {
            find(name, &mut pending);
        }
        while let Some(index) = pending.pop() {
            if layers[index] != usize::MAX {
                continue;
            }
            layers[index] = layer;
            for group in packages[index]
                .depends
                .iter()
                .chain(&packages[index].recommends)
            {
                // The first alternative that is in the solution is the one that holds.
                let _ = group.iter().any(|name| find(name, &mut pending));
            }
        }
    }
    let last = requests.len().saturating_sub(1);
    layers
        .into_iter()
        .map(|layer| if layer == usize::MAX { last } else { layer })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(name: &str, depends: &[&str], provides: &[&str]) -> Links {
        Links {
            name: name.into(),
            provides: provides.iter().map(|&p| p.to_owned()).collect(),
            depends: depends
                .iter()
                .map(|d| d.split('|').map(str::to_owned).collect())
                .collect(),
            recommends: Vec::new(),
        }
    }

    #[test]
    fn the_lowest_layer_that_leads_to_a_package_has_it() {
        let packages = [
            links("libc6", &[], &[]),
            links("bash", &["libc6"], &[]),
            links("gcc", &["libc6", "cpp"], &[]),
            links("cpp", &[], &[]),
            links("postfix", &[], &["mta"]),
            links("cron", &["exim|mta"], &[]),
            links("stray", &[], &[]),
        ];
        let requests = [
            vec!["bash".to_owned()],
            vec!["cron".to_owned()],
            vec!["gcc".to_owned(), "bash".to_owned()],
        ];
        assert_eq!(cut(&packages, &requests), [0, 0, 2, 2, 1, 1, 2]);
    }
}
