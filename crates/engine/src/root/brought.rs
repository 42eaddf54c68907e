//! Where the definition brought a package at which a step failed.

use kiln_kickstart::PackageRef;
use kiln_packages::LockedPackage;
use kiln_plan::Plan;
use kiln_rootfs::Family;

use crate::Failure;

/// The same failure. Where it names one of these packages, and no place, it gets the line that asks for the package by its name,
/// or that of the package's repository.
pub(crate) fn located(
    family: &dyn Family,
    plan: &Plan,
    packages: &[&LockedPackage],
    mut failure: Failure,
) -> Failure {
    let said = failure
        .package
        .as_deref()
        .filter(|_| failure.origin.is_none());
    let package = said.and_then(|said| packages.iter().find(|p| is_called(p, said)));
    if let Some(package) = package {
        failure.origin = asked(plan, package).or_else(|| family.brought(plan, package));
    }
    failure
}

/// As locks or package managers call it.
fn is_called(package: &LockedPackage, said: &str) -> bool {
    let LockedPackage {
        name,
        version,
        architecture,
        ..
    } = package;
    said == package.describe() || said == format!("{name}-{version}.{architecture}")
}

fn asked(plan: &Plan, package: &LockedPackage) -> Option<String> {
    let requests = plan.layers.iter().flat_map(|layer| &layer.packages);
    let is_it =
        |what: &PackageRef| matches!(what, PackageRef::Package(name) if *name == package.name);
    let mut requests = requests.filter(|request| !request.exclude && is_it(&request.what));
    requests.next().map(|request| request.origin.clone())
}
