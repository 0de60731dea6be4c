//! What is assumed where the policies do not decide: in time, or at all (design C3, H8).

use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::signal::Signal;

use crate::floors::Fallback;
use crate::lane::Pending;
use crate::pipeline::{Shared, State};

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
        self.lane(state, uuid).floor_now(signal);
        let why = "too many different signals wait to be judged";
        for policy in 0..self.policies.len() {
            if pending.recipients & (1 << policy) != 0 {
                self.give_up(state, uuid, policy, signal, why.to_owned(), now);
            }
        }
        if pending.recipients == 0 && signal.kind.raises_barrier() {
            self.lane(state, uuid).floors.fall_back(Fallback {
                policy: None,
                why: why.to_owned(),
                signal: signal.clone(),
            });
        }
        self.write(state, uuid, &[], std::slice::from_ref(signal));
        let settled = self.lane(state, uuid).settled_through(pending.through);
        self.cache.settle(uuid, settled);
    }

    /// Writes the fallback for signals up to `seq` that hold readers too long, and lets them go.
    pub(crate) fn fall_back_overdue(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        overdue: impl Fn(&Pending) -> bool,
    ) {
        let lane = self.lane(state, uuid);
        let mut late: Vec<(Signal, SignalSeq, bool)> = Vec::new();
        for pending in lane.undecided().filter(|pending| overdue(pending)) {
            pending.deadline = None;
            late.push((pending.signal.clone(), pending.through, pending.is_floored));
            pending.is_floored = true;
        }
        let Some(through) = late.iter().map(|(_, through, _)| *through).max() else {
            return;
        };
        for (signal, _, is_floored) in late {
            self.observer.fallback("overdue");
            if !is_floored {
                lane.floor_now(&signal);
            }
            let why = "no decision in time".to_owned();
            lane.floors.fall_back(Fallback {
                policy: None,
                why,
                signal,
            });
        }
        self.write(state, uuid, &[], &[]);
        let settled = self.lane(state, uuid).settled_through(through);
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
    }
}
