//! A lock, cut into the packages of layers.

use kiln_packages::{Lock, LockedPackage};
use kiln_plan::Plan;
use kiln_rootfs::SYSTEM;
use kiln_rootfs::family::{InstallOptions, Slice};

/// The last layer that has packages, unless it is the first: what follows these is the most of a system.
pub(crate) fn last_packages<'p>(plan: &'p Plan, lock: &Lock) -> Option<&'p str> {
    let mut names = plan.layers.iter().map(|layer| layer.name.as_str());
    names.next();
    names.rfind(|name| lock.of_layer(name).next().is_some())
}

pub(crate) fn slice<'l>(lock: &'l Lock, layer: &'l str) -> Vec<&'l LockedPackage> {
    lock.of_layer(layer).collect()
}

/// The packages of all layers, the lowest first.
pub(crate) fn slices(plan: &Plan, lock: &Lock) -> Vec<Slice> {
    let system = plan.layers.first().map(|lowest| (SYSTEM, lowest));
    let layers = plan.layers.iter().map(|layer| (layer.name.as_str(), layer));
    system
        .into_iter()
        .chain(layers)
        .map(|(name, layer)| Slice {
            layer: name.to_owned(),
            packages: lock.of_layer(name).cloned().collect(),
            options: options(layer),
        })
        .collect()
}

/// How a layer's packages are unpacked.
pub(crate) fn options(layer: &kiln_plan::Layer) -> InstallOptions {
    InstallOptions {
        exclude_docs: layer.package_options.exclude_docs,
        languages: layer.package_options.languages.clone(),
        bootstrap: false,
    }
}
