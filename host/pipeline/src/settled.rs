//! What a write has made of the incidents of a GPU (design N5).

use device_api_core::condition::Owner;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::signal::Signal;
use device_api_core::verdict::{ClearOn, Verdict};

use crate::incidents::{Ended, Outcome, Raised, Save};
use crate::pipeline::{Shared, State};
use crate::write::Write;

impl Shared {
    /// Tells the incidents what was said of them, and closes those of which nothing stands any more.
    pub(crate) fn settle_incidents(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        write: &Write<'_>,
        written: &[(usize, &Verdict)],
    ) {
        let bench = state.bench.clone();
        let said = written.iter().filter_map(|(at, verdict)| {
            let mut signals = write.signals.iter();
            Some(Raised {
                policy: &bench.get(*at)?.info().id,
                verdict,
                cause: signals.find(|signal| signal.seq == verdict.cause)?,
            })
        });
        let said = said.collect();
        let why = match write.ending {
            Some(ending) => ending.event,
            None if write.signals.iter().any(asks_for_nothing) => ClearOn::RecoveryNone,
            None => ClearOn::Policy,
        };
        let lane = self.lane(state, uuid);
        let mut floored = lane.floors.incidents();
        let waiting = [&lane.real, &lane.drilled].into_iter();
        let waiting = waiting.filter_map(|containment| containment.double_bit.as_ref());
        floored.extend(waiting.map(|signal| signal.incident));
        let conditions = self.cache.conditions(uuid);
        let of_host = conditions
            .iter()
            .filter(|c| c.is_problem() && c.owner == Owner::Host);
        floored.extend(of_host.filter_map(|c| c.incident));
        let outcome = Outcome {
            conditions: &conditions,
            floored,
            said,
            signals: write.signals,
            ended: ended_by(write),
            why,
            now: self.moment(state.newest),
        };
        state.incidents.settle(uuid, &outcome);
        self.observer.incidents(state.incidents.len());
    }

    /// Has made durable what is known of incidents, counts and all.
    pub(crate) fn save_incidents(&self, state: &mut State) {
        let changes = state.incidents.unsaved(Save::All);
        if !changes.is_empty() {
            self.cache.keep(changes);
        }
    }
}

/// What ends faults, whether or not anything stood of them.
fn ended_by(write: &Write<'_>) -> Vec<Ended> {
    let ending = write.ending.and_then(|ending| {
        Some(Ended {
            event: ending.event,
            through: ending.through?,
            drill: false,
        })
    });
    let told = write.signals.iter().filter(|it| asks_for_nothing(it));
    let told = told.map(|signal| Ended {
        event: ClearOn::RecoveryNone,
        // What was asked for before that.
        through: SignalSeq(signal.seq.0.saturating_sub(1)),
        drill: signal.drill,
    });
    ending.into_iter().chain(told).collect()
}

fn asks_for_nothing(signal: &Signal) -> bool {
    floor::asks_for_nothing(signal.kind, signal.code, &signal.attrs)
}
