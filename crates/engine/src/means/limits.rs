//! What steps may take.

use kiln_plan::Lowered;
use kiln_sandbox::Limits;

/// `[limits]` of the definition as it was read first; `%pre` scripts, which run before it is read for good, have them too.
pub(crate) fn of_step(first: &Lowered) -> Limits {
    // A definition with errors has no plan; what runs until they are told has the limits of one that says nothing.
    let said = first.plan.as_ref().map(|plan| plan.limits.clone());
    let said = said.unwrap_or_default();
    Limits {
        seconds: Some(60 * u64::from(said.step_minutes)),
        processes: said.processes,
        memory: said.memory,
        tmp: said.tmp,
        run: said.run,
        shm: said.shm,
        ..Limits::default()
    }
}
