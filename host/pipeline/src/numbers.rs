//! Numbers of signals and incidents over a restart: none is given out twice.
//!
//! Many are given out to what is never written: a reading, a timer, a signal that is folded. So they are reserved in
//! blocks, as versions are: whoever opens the store has reserved the first, and the next is reserved when half of one
//! is used. A daemon that stops says where it ended.

use device_api_core::durable::{Change, Numbers};

use crate::pipeline::{Shared, State};

/// Up to where they are reserved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reserved(Numbers);

impl Reserved {
    /// `after`: those of earlier runs.
    pub(crate) fn from(after: Numbers) -> Self {
        Self(after.reserving())
    }

    /// What is to be written, where half of them are used.
    fn next(&mut self, used: Numbers) -> Option<Change> {
        let next = used.reserving();
        let left = |reserved: u64, used: u64, next: u64| {
            reserved.saturating_sub(used) < next.saturating_sub(used) / 2
        };
        let is_due = left(self.0.signal.0, used.signal.0, next.signal.0)
            || left(self.0.incident.0, used.incident.0, next.incident.0);
        is_due.then(|| {
            self.0 = next;
            Change::Numbers(next)
        })
    }
}

impl State {
    fn numbers(&self) -> Numbers {
        Numbers {
            signal: self.newest,
            incident: self.incidents.newest(),
        }
    }

    /// What is to be written with the next decision.
    pub(crate) fn reserve(&mut self) -> Option<Change> {
        let used = self.numbers();
        self.reserved.next(used)
    }
}

impl Shared {
    /// The run ends: the next goes on from here.
    pub(crate) fn give_back(&self, state: &State) {
        self.cache.keep(vec![Change::Numbers(state.numbers())]);
    }
}

#[cfg(test)]
mod tests {
    use device_api_core::ids::{IncidentId, SignalSeq};

    use super::*;

    #[test]
    fn n5_the_next_numbers_are_reserved_when_half_are_used() {
        let used = |signal, incident| Numbers {
            signal: SignalSeq(signal),
            incident: IncidentId(incident),
        };
        let block = used(0, 0).reserving();
        let (signals, incidents) = (block.signal.0 / 2, block.incident.0 / 2);
        let mut reserved = Reserved::from(used(0, 0));
        assert_eq!(reserved.next(used(signals, incidents)), None);
        for used in [
            used(signals + 1, 0),
            used(2 * signals + 2, incidents + 1),
            used(2 * signals + 2, 2 * incidents + 2),
        ] {
            assert_eq!(reserved.next(used), Some(Change::Numbers(used.reserving())));
            assert_eq!(reserved.next(used), None, "it is reserved");
        }
    }
}
