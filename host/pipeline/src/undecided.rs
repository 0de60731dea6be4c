//! What is assumed where the policies do not decide: in time, or at all (design C3, H8).

use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::signal::Signal;

use crate::floors::Fallback;
use crate::lane::Pending;
use crate::pipeline::{Shared, State};

impl Shared {
    /// The lane is full: the floor and the fallback decide, the policies are not asked.
    pub(crate) fn decide_without_policies(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        pending: Pending,
    ) {
        self.observer.fallback("queue-full");
        let lane = self.lane(state, uuid);
        lane.floors.observe(&pending.signal);
        let why = "too many different signals wait to be judged".to_owned();
        lane.floors.fall_back(Fallback {
            policy: None,
            why,
            signal: pending.signal.clone(),
        });
        self.write(state, uuid, &[], std::slice::from_ref(&pending.signal));
        let settled = self.lane(state, uuid).settle(pending.through);
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
        let mut late: Vec<(Signal, SignalSeq)> = Vec::new();
        for pending in lane.undecided().filter(|pending| overdue(pending)) {
            pending.deadline = None;
            late.push((pending.signal.clone(), pending.through));
        }
        let Some(through) = late.iter().map(|(_, through)| *through).max() else {
            return;
        };
        for (signal, _) in late {
            self.observer.fallback("overdue");
            lane.floors.observe(&signal);
            let why = "no decision in time".to_owned();
            lane.floors.fall_back(Fallback {
                policy: None,
                why,
                signal,
            });
        }
        self.write(state, uuid, &[], &[]);
        let settled = self.lane(state, uuid).settle(through);
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
    }
}
