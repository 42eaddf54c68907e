//! A build runs the target's programs, so the processor has to be one for which they were made.

use kiln_plan::Target;

use crate::{Failure, FailureKind};

/// Refuses a target whose programs a processor of this level does not run: the first of them would only say so itself.
pub(super) fn fits(target: &Target, level: u8) -> Result<(), Failure> {
    let needed = target.processor_level();
    if level >= needed {
        return Ok(());
    }
    let message = format!(
        "the programs of {}:{} are made for processors of x86-64-v{needed}, but this machine's is x86-64-v{level}: a build runs them",
        target.distribution, target.release
    );
    Err(Failure::new(FailureKind::Environment, message).hint(
        "build on a newer machine, or choose an older release; in a virtual machine, give it the processor of its host",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_is_too_old_is_said_before_the_build() {
        let target = |distribution: &str, release: &str| Target {
            distribution: distribution.to_owned(),
            release: release.to_owned(),
            architecture: String::new(),
        };
        let ten = fits(&target("centos", "10"), 2).expect_err("too old");
        assert_eq!(ten.kind, FailureKind::Environment);
        assert!(
            ten.message
                .contains("x86-64-v3, but this machine's is x86-64-v2"),
            "{}",
            ten.message
        );
        for (distribution, release, level) in [
            ("centos", "10", 3),
            ("rocky", "9.4", 2),
            ("almalinux", "8", 1),
            ("fedora", "45", 1),
            ("debian", "trixie", 1),
        ] {
            assert!(
                fits(&target(distribution, release), level).is_ok(),
                "{distribution}:{release}"
            );
        }
        assert!(fits(&target("rocky", "9"), 1).is_err());
    }
}
