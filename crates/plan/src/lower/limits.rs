//! `[limits]`

use super::Lowering;
use crate::definition::LimitsDefinition;
use crate::model::Limits;
use crate::problem::Problem;

const MIB: u64 = 1 << 20;

impl Lowering<'_> {
    pub(super) fn limits(&mut self, given: &LimitsDefinition) -> Limits {
        let default = Limits::default();
        let minutes = given.step_minutes.map(u64::from);
        let minutes = self.limit("step-minutes", minutes, 1, 60 * 24 * 365, 1);
        Limits {
            step_minutes: minutes
                .and_then(|minutes| u32::try_from(minutes).ok())
                .unwrap_or(default.step_minutes),
            // A shell, a package manager and its helpers; more than 4 million the kernel does not number.
            processes: self.limit("processes", given.processes, 64, 4 << 20, 1),
            memory: self.limit("memory-mib", given.memory_mib, 64, 1 << 30, MIB),
            tmp: self.limit("tmp-mib", given.tmp_mib, 1, 1 << 30, MIB),
            run: self.limit("run-mib", given.run_mib, 1, 1 << 30, MIB),
            shm: self.limit("shm-mib", given.shm_mib, 1, 1 << 30, MIB),
        }
    }

    /// What was given, in units of `unit`, if it is in the range.
    fn limit(
        &mut self,
        key: &str,
        given: Option<u64>,
        least: u64,
        most: u64,
        unit: u64,
    ) -> Option<u64> {
        let value = given?;
        if (least..=most).contains(&value) {
            return Some(value * unit);
        }
        let message = format!("`{key} = {value}` of [limits] is not between {least} and {most}");
        let hint = "leave the key out to have what fits the machine";
        let problem = Problem::error(message).at(self.name).hint(hint);
        self.problems.push(problem);
        None
    }
}
