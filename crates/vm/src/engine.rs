//! Which ways of making a processor to try, in order.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::blueprint::Engine;
use crate::error::{Error, Result};
use crate::report::{AccelUsed, VmEvent};
use crate::request::Accel;

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
pub(crate) fn attempts(accel: Accel, device: &Path) -> Result<Vec<Attempt>> {
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
    Ok(match (accel, kvm_problem(device)) {
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

/// Says that KVM is given up, and keeps it for the report.
pub(crate) fn fall_back(note: &mut Option<String>, why: &str, on_event: &mut dyn FnMut(VmEvent)) {
    let message =
        format!("KVM opens but does not work here ({why}); the boot starts again under emulation");
    on_event(VmEvent::Warning {
        message: message.clone(),
    });
    *note = Some(message);
}

impl From<Engine> for AccelUsed {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Kvm => AccelUsed::Kvm,
            Engine::Tcg => AccelUsed::Tcg,
        }
    }
}

/// Why KVM cannot even be opened.
fn kvm_problem(device: &Path) -> Option<String> {
    let name = device.display();
    match File::options().read(true).write(true).open(device) {
        Ok(_) => None,
        Err(e) if e.kind() == ErrorKind::NotFound => Some(format!("{name} does not exist")),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Some(format!(
            "{name} may not be opened (its group, mostly `kvm`, may)"
        )),
        Err(e) => Some(format!("{name} cannot be opened: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_is_always_the_last_resort() {
        let last = attempts(Accel::Auto, Path::new("/dev/null"))
            .unwrap()
            .pop()
            .unwrap();
        assert_eq!((last.engine, last.may_fall_back), (Engine::Tcg, false));
        assert_eq!(
            attempts(Accel::Tcg, Path::new("/dev/null")).unwrap().len(),
            1
        );
        let missing = attempts(Accel::Auto, Path::new("/nowhere/kvm")).unwrap();
        assert_eq!(missing.len(), 1);
        assert!(
            missing[0]
                .note
                .as_ref()
                .unwrap()
                .contains("/nowhere/kvm does not exist")
        );
        let error = attempts(Accel::Kvm, Path::new("/nowhere/kvm")).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Environment);
    }
}
