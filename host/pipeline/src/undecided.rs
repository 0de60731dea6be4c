//! What is assumed where the policies do not decide: in time, or at all (design C3, H8).

use std::sync::Arc;

use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::seating::Fallback;
use device_api_core::signal::Signal;

use crate::floors::Assumed;
use crate::lane::Pending;
use crate::pipeline::{Shared, State};
use crate::write::Write;

impl Shared {
    /// The lane is full: the floor and the fallback decide, and the policies are asked later.
    pub(crate) fn decide_without_policies(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        pending: Pending,
    ) {
        self.observer.fallback("queue-full");
        let now = self.clock.boot();
        let signal = &pending.signal;
        let over = self.ended(state, uuid, signal);
        self.lane(state, uuid).floor_now(signal, over);
        let why = "too many different signals wait to be judged";
        let bench = state.bench.clone();
        let asked = bench
            .iter()
            .filter(|(at, _)| pending.recipients & (1 << at) != 0);
        for (at, seat) in asked {
            self.give_up(state, uuid, (at, seat), signal, why.to_owned(), now);
        }
        if pending.recipients == 0 && signal.kind.raises_barrier() && !over.assumed {
            self.lane(state, uuid).floors.fall_back(Assumed {
                policy: None,
                rule: Fallback::Catalogue,
                why: why.to_owned(),
                signal: signal.clone(),
            });
        }
        let moment = self.moment(pending.through);
        let lane = self.lane(state, uuid);
        let seen: Arc<[Signal]> = Arc::new([lane.sampled(signal)]);
        for signal in &*seen {
            lane.journal.take(signal, pending.through, moment);
        }
        self.write(state, uuid, &Write::of(&seen));
        let settled = self.lane(state, uuid).settled_through(pending.through);
        self.cache.settle(uuid, settled);
        self.show(state, uuid, &seen, Vec::new());
    }

    /// Writes the fallback for signals up to `seq` that hold readers too long, and lets them go.
    pub(crate) fn fall_back_overdue(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        overdue: impl Fn(&Pending) -> bool,
    ) {
        let bench = state.bench.clone();
        let lane = self.lane(state, uuid);
        // Of those with the policies, who has answered owes nothing.
        let owing = lane.flight.as_ref().map(|flight| flight.outstanding);
        let flying = lane.flight.as_ref().map_or(0, |flight| flight.batch.len());
        let flying: Vec<SignalSeq> = lane
            .pending()
            .take(flying)
            .map(|pending| pending.signal.seq)
            .collect();
        let mut late: Vec<(Pending, Fallback)> = Vec::new();
        for pending in lane.undecided().filter(|pending| overdue(pending)) {
            pending.deadline = None;
            let owing = owing.filter(|_| flying.contains(&pending.signal.seq));
            let owing = owing.map_or(0, |owing| pending.recipients & owing);
            let owing = if owing == 0 {
                pending.recipients
            } else {
                owing
            };
            late.push((pending.clone(), bench.rule(owing)));
            pending.is_floored = true;
        }
        let Some(through) = late.iter().map(|(pending, _)| pending.through).max() else {
            return;
        };
        for (pending, rule) in late {
            self.observer.fallback("overdue");
            let signal = pending.signal;
            if !signal.kind.raises_barrier() {
                // It is no fault, of which something is to be assumed (`anew.rs`).
                continue;
            }
            let over = self.ended(state, uuid, &signal);
            let lane = self.lane(state, uuid);
            if !pending.is_floored {
                lane.floor_now(&signal, over);
            }
            if !over.assumed {
                lane.floors.fall_back(Assumed {
                    policy: None,
                    rule,
                    why: "no decision in time".to_owned(),
                    signal,
                });
            }
        }
        self.write(state, uuid, &Write::default());
        let settled = self.lane(state, uuid).settled_through(through);
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
    }
}
