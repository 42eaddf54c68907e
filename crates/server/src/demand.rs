//! What builds need of a machine, and whether there is enough.

use crate::server::Settings;
use crate::store::Record;

/// What the builds that run have set aside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Builds.
    pub builds: u32,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
}

impl Used {
    /// Sets aside what a build needs.
    pub(crate) fn add(&mut self, demand: Used) {
        self.builds += 1;
        self.cpus = self.cpus.saturating_add(demand.cpus);
        self.memory = self.memory.saturating_add(demand.memory);
    }
}

/// What a build needs; one that asks for more than there is gets all.
pub(crate) fn of(record: &Record, settings: &Settings) -> Used {
    Used {
        builds: 1,
        cpus: record.task.cpus.min(settings.cpus),
        memory: settings.build_memory.min(settings.memory),
    }
}

/// The processors that a build gets.
pub(crate) fn threads(record: &Record, settings: &Settings) -> u32 {
    of(record, settings).cpus.max(1)
}

/// Why a build cannot run now.
pub(crate) fn missing(used: Used, needs: Used, settings: &Settings) -> Option<String> {
    let running = builds(usize::try_from(used.builds).unwrap_or(usize::MAX));
    if used.cpus + needs.cpus > settings.cpus {
        return Some(format!(
            "waits for a processor: {running} running with {} of {}, {} needed",
            used.cpus, settings.cpus, needs.cpus
        ));
    }
    let mib = |bytes: u64| bytes >> 20;
    if used.memory + needs.memory > settings.memory {
        return Some(format!(
            "waits for memory: {running} running with {} of {} MiB, {} needed",
            mib(used.memory),
            mib(settings.memory),
            mib(needs.memory)
        ));
    }
    None
}

/// A number of builds in words.
pub(crate) fn builds(number: usize) -> String {
    match number {
        1 => "1 build".to_owned(),
        number => format!("{number} builds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Most;

    #[test]
    fn a_build_waits_for_what_is_missing() {
        let settings = Settings {
            images: Vec::new(),
            cpus: 4,
            memory: 4 << 30,
            build_memory: 1 << 30,
            from_elsewhere: true,
            git_credentials: None,
            containers: false,
            engine: None,
            open: false,
            keep: crate::Keep::default(),
            queue_length: Most { all: 1, of_one: 1 },
            keep_free: 0,
            quota: None,
            behind_proxy: false,
        };
        let needs = |cpus, memory: u64| Used {
            builds: 1,
            cpus,
            memory: memory << 30,
        };
        let mut used = Used::default();
        assert_eq!(missing(used, needs(4, 4), &settings), None);
        used.add(needs(3, 1));
        assert_eq!(
            missing(used, needs(2, 1), &settings).unwrap(),
            "waits for a processor: 1 build running with 3 of 4, 2 needed"
        );
        assert_eq!(
            missing(used, needs(1, 4), &settings).unwrap(),
            "waits for memory: 1 build running with 1024 of 4096 MiB, 4096 needed"
        );
    }
}
