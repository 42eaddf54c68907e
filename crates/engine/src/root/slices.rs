//! A lock, cut into the packages of layers.

use kiln_rootfs::SYSTEM;
use kiln_rootfs::family::{InstallOptions, Slice};

use crate::values::Resolved;

/// The last layer that has packages, unless it is the first: what follows these is the most of a system.
pub(crate) fn last_packages(resolved: &Resolved) -> Option<&str> {
    let layers = resolved.plan.layers.iter();
    let mut names = layers.map(|layer| layer.name.as_str());
    names.next();
    names.rfind(|name| resolved.lock.of_layer(name).next().is_some())
}

/// The packages of all layers, the lowest first.
pub(crate) fn slices(resolved: &Resolved) -> Vec<Slice> {
    let plan = &resolved.plan;
    let system = plan.layers.first().map(|lowest| (SYSTEM, lowest));
    let layers = plan.layers.iter().map(|layer| (layer.name.as_str(), layer));
    system
        .into_iter()
        .chain(layers)
        .map(|(name, layer)| Slice {
            layer: name.to_owned(),
            packages: resolved.lock.of_layer(name).cloned().collect(),
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
