//! Signs of life of a machine besides what it says: requests to the disk, changes of the screen.
//!
//! Silence is counted in time that the machine could use. On a busy host QEMU waits for a processor most of the time, and a guest
//! that decompresses its kernel is silent for minutes; the time spent waiting (`/proc/PID/task/TID/schedstat`, second field,
//! see `Documentation/scheduler/sched-stats.rst` of Linux) is therefore taken off.

use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::screen::Picture;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(4);
/// A blinking cursor changes less of the screen than this, and is no life.
const CURSOR: f64 = 0.0005;

/// The last signs of life.
pub(crate) struct Pulse {
    next: Instant,
    alive: Instant,
    /// How long QEMU had waited for a processor at the last sign of life, and at the last look.
    waited_then: Duration,
    waited: Duration,
    requests: u64,
    picture: Option<Picture>,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Pulse {
            next: now + INTERVAL,
            alive: now,
            waited_then: Duration::ZERO,
            waited: Duration::ZERO,
            requests: 0,
            picture: None,
        }
    }

    /// The machine has said something.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.alive = now;
        self.waited_then = self.waited;
    }

    /// Looks if it is time to; says whether it did.
    pub(crate) fn look(&mut self, machine: &mut Machine, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + INTERVAL;
        self.waited = machine.waited();
        if now.duration_since(self.alive) < INTERVAL {
            self.waited_then = self.waited;
        } else if self.moved(machine) {
            self.heard(now);
        }
        true
    }

    /// Whether the disk was asked or the screen has changed since the last look.
    fn moved(&mut self, machine: &mut Machine) -> bool {
        let requests = machine.disk_requests().unwrap_or(self.requests);
        if requests != self.requests {
            self.requests = requests;
            return true;
        }
        let Some(picture) = machine.picture() else {
            return false;
        };
        let changed = self
            .picture
            .as_ref()
            .is_none_or(|last| last.difference(&picture) > CURSOR);
        self.picture = Some(picture);
        changed
    }

    /// Requests to the disk up to the last look.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Time without a sign of life, as far as the machine could use it.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.duration_since(self.alive)
            .saturating_sub(self.waited.saturating_sub(self.waited_then))
    }

    /// Time since `start`, as far as the machine could use it.
    pub(crate) fn usable_since(&self, start: Instant, now: Instant) -> Duration {
        now.duration_since(start).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spent_waiting_for_a_processor_is_no_silence() {
        let start = Instant::now();
        let later = start + Duration::from_secs(100);
        let mut pulse = Pulse::new(start);
        pulse.waited = Duration::from_secs(30);
        pulse.heard(start + Duration::from_secs(40));
        assert_eq!(pulse.silence(later), Duration::from_secs(60));
        pulse.waited = Duration::from_secs(75);
        assert_eq!(pulse.silence(later), Duration::from_secs(15));
        assert_eq!(pulse.usable_since(start, later), Duration::from_secs(25));
    }
}
