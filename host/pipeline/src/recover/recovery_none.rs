//! The driver asks for no recovery action any more: that ends what names it, of policies too.
//!
//! It is told when the reading changes. What changed while nobody looked, as the daemon was down or the GPU out of the
//! machine, shows at first sight, and ends what was seen before that.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition, Owner};
use device_api_core::floor;
use device_api_core::ids::DeviceUuid;
use device_api_core::recovery;
use device_api_core::signal::{Samples, Signal};
use device_api_core::verdict::ClearOn;

use super::{Ending, last_told, policy_of};
use crate::admission::last_seen;
use crate::dispatch::Call;
use crate::incidents::Ended;
use crate::looks::reads_no_action;
use crate::pipeline::{Shared, State};
use crate::verdicts::cleared;

/// Reason of what is over by it.
const REASON: &str = "RecoveryNone";
const WHY: &str = "Cleared: the driver asks for no recovery action any more.";

impl Shared {
    /// Samples are being handed in that may be the first since nobody looked.
    pub(crate) fn action_at_first_sight(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        samples: &Samples,
    ) -> Vec<Call> {
        let conditions = self.cache.conditions(uuid);
        let recoveries = &mut self.lane(state, uuid).recoveries;
        let is_first = recoveries.looks.is_first_action(samples) || condition::is_gone(&conditions);
        if !is_first || !reads_no_action(samples) {
            return Vec::new();
        }
        let event = ClearOn::RecoveryNone;
        let through = recoveries.note(event);
        let is_over = |state: &State, old: &Condition| {
            recovery::ends(event, &old.clears) && last_told(state, uuid, old) <= through
        };
        let mut policies = conditions
            .iter()
            .filter(|old| old.is_problem() && matches!(old.owner, Owner::Policy(_)));
        let of_host = state.lanes.get(uuid).is_some_and(|lane| {
            let is_over = |signal: &Signal| last_seen(&state.incidents, signal) <= through;
            lane.floors.is_ended(event, is_over)
        });
        let ended = Ended {
            event,
            through,
            drill: false,
        };
        let of_faults = state.incidents.is_ended(uuid, &ended);
        if !of_host && !of_faults && !policies.any(|old| is_over(state, old)) {
            return Vec::new();
        }
        tracing::info!(gpu = %uuid, drill = self.is_simulated(uuid), "the driver asks for no recovery action, and did when the GPU was seen last");
        let ending = Ending {
            event,
            reason: REASON,
            message: WHY.to_owned(),
            through: Some(through),
        };
        self.end_floors(state, uuid, event, through);
        self.end_conditions(state, uuid, &ending, is_over);
        self.ask_anew(state, uuid)
    }
}

/// Clears what was raised before one of the signals that tell of it. A drill ends drills alone. Says whose word it was.
pub(crate) fn end(
    conditions: &mut [Condition],
    signals: &[Signal],
    now: WallTime,
) -> Vec<Arc<str>> {
    let mut owners = Vec::new();
    let told = signals
        .iter()
        .filter(|signal| floor::asks_for_nothing(signal.kind, signal.code, &signal.attrs));
    for signal in told {
        let ended = conditions.iter_mut().filter(|old| {
            old.is_problem()
                && matches!(old.owner, Owner::Policy(_))
                && recovery::ends(ClearOn::RecoveryNone, &old.clears)
                && old.cause < Some(signal.seq)
                && (old.drill || !signal.drill)
        });
        for old in ended {
            owners.extend(policy_of(old));
            *old = cleared(old, REASON, WHY, now);
        }
    }
    owners
}
