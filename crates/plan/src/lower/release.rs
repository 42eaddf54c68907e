//! What is to be known of a release before it is built.

use crate::model::Target;
use crate::problem::Problem;

/// The oldest release of Fedora that gets updates.
const FEDORA: u32 = 43;

/// A warning about a release that gets no updates any more. Those of Debian have left the mirrors, and are errors.
pub(super) fn ended(target: &Target) -> Option<Problem> {
    let (name, release) = (target.distribution.as_str(), target.release.as_str());
    let number: Option<u32> = release
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    let (archive, hint) = match (name, number?) {
        ("centos", 8) => (
            "https://vault.centos.org/8.5.2111",
            "almalinux:8 and rocky:8 are kept up, and read the same kickstarts",
        ),
        ("fedora", number) if number < FEDORA => (
            "https://archives.fedoraproject.org/pub/archive/fedora/linux/releases",
            "choose a newer release, or name the archive with `url`",
        ),
        _ => return None,
    };
    let message = format!(
        "{name}:{release} gets no updates any more, not even for security; its packages are in the archive, {archive}"
    );
    Some(Problem::warning(message).hint(hint))
}
