//! Which ways of making a processor to try, in order.

use std::fs::File;
use std::io::ErrorKind;

use crate::blueprint::Engine;
use crate::error::{Error, Result};
use crate::request::Accel;

const KVM: &str = "/dev/kvm";

/// One way to run the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) engine: Engine,
    /// Whether another attempt follows if this way proves useless.
    pub(crate) may_fall_back: bool,
    /// Why it is not KVM, where KVM was wanted.
    pub(crate) note: Option<String>,
}

/// The attempts for what was asked.
///
/// # Errors
/// KVM was insisted on and cannot be opened.
pub(crate) fn attempts(accel: Accel) -> Result<Vec<Attempt>> {
    let tcg = |note| Attempt {
        engine: Engine::Tcg,
        may_fall_back: false,
        note,
    };
    let kvm = |may_fall_back| Attempt {
        engine: Engine::Kvm,
        may_fall_back,
        note: None,
    };
    Ok(match (accel, kvm_problem()) {
        (Accel::Tcg, _) => vec![tcg(None)],
        (Accel::Auto, None) => vec![kvm(true), tcg(None)],
        (Accel::Auto, Some(problem)) => vec![tcg(Some(problem))],
        (Accel::Kvm, None) => vec![kvm(false)],
        (Accel::Kvm, Some(problem)) => {
            return Err(
                Error::environment(format!("KVM was asked for, but {problem}"))
                    .hint("emulation is slow but works everywhere: let Kiln choose"),
            );
        }
    })
}

/// Why KVM cannot even be opened.
fn kvm_problem() -> Option<String> {
    match File::options().read(true).write(true).open(KVM) {
        Ok(_) => None,
        Err(e) if e.kind() == ErrorKind::NotFound => Some(format!("{KVM} does not exist")),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Some(format!(
            "{KVM} may not be opened (its group, mostly `kvm`, may)"
        )),
        Err(e) => Some(format!("{KVM} cannot be opened: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_is_always_the_last_resort() {
        let last = attempts(Accel::Auto).unwrap().pop().unwrap();
        assert_eq!((last.engine, last.may_fall_back), (Engine::Tcg, false));
        assert_eq!(attempts(Accel::Tcg).unwrap().len(), 1);
    }
}
