//! Another GPU is in a GPU's slot (design N7): what stands against the old one stays its own, and is not the other's.
//!
//! What goes with it is that it did not answer, of which a swap itself makes NVML tell: a GPU that is not there
//! does not, and one that is back does.

use device_api_core::condition::{self, Condition, GONE, PROBING};
use device_api_core::ids::DeviceUuid;
use device_api_core::message;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Judgement, Severity};

use super::Ending;
use crate::pipeline::{Shared, State};
use crate::timers::Key;
use crate::write::Write;

/// Reason of [`GONE`], and of what is over by it.
const REPLACED: &str = "Replaced";

impl Shared {
    /// `by` is in its slot.
    pub(super) fn replaced(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        by: &DeviceUuid,
        evidence: &str,
    ) {
        // That nothing more is heard of it is no quiet.
        let quiet = state.timers.of(uuid).map(|(key, _)| key);
        let quiet = quiet.filter(|key| matches!(key, Key::Quiet { .. }));
        let quiet: Vec<Key> = quiet.cloned().collect();
        for key in quiet {
            state.timers.cancel(&key);
        }
        let now = self.clock.wall();
        let said = message::cut(format!(
            "{by} has taken its slot ({evidence}). What stood against this one is kept; delete it once it is not to come back."
        ));
        let ending = Ending {
            event: ClearOn::Replacement,
            reason: REPLACED,
            message: format!("Over: {by} has taken its slot ({evidence})."),
            through: Some(state.newest),
        };
        let drill = self.is_simulated(uuid);
        let amend = |conditions: &mut Vec<Condition>| {
            // It was looked for, and is not there.
            conditions.retain(|condition| *condition.type_ != *PROBING);
            condition::upsert(
                conditions,
                Condition {
                    severity: Severity::Warning,
                    message: said.clone(),
                    drill,
                    ..Condition::of_host(GONE, Judgement::Unknown, REPLACED, now)
                },
            );
        };
        let write = Write {
            amend: Some(&amend),
            ending: Some(&ending),
            ..Write::default()
        };
        let lane = self.lane(state, uuid);
        lane.floors.end_loss();
        self.write(state, uuid, &write);
        // It is gone by now: no reader takes it for well.
        self.end_conditions(state, uuid, &ending, |state, old| {
            let lane = state.lanes.get(uuid);
            let cause = lane.and_then(|lane| lane.journal.signal(old.cause?));
            cause.is_some_and(|(cause, _)| cause.kind == SignalKind::GpuLost)
        });
    }

    /// Whether a signal tells that a GPU does not answer that is not there.
    pub(super) fn is_loss_of_gone(&self, signal: &Signal) -> bool {
        signal.kind == SignalKind::GpuLost
            && condition::is_gone(&self.cache.conditions(&signal.device))
    }
}
