//! What was ended and may still be so: whose word it was is asked anew, of the GPU as it is then (design N7).
//!
//! A policy that judges readings is told of those that have changed. What ends a problem changes none, so nobody
//! would say that a link is as narrow after the reset as before it. So
//!
//! - after a reset, who hears of found GPUs is asked as if this one had just been found: on the samples that show the
//!   reset, which come right after it, or the first that are read after a report of it; and readers wait for the
//!   answer. So also who had nothing to say: it learns that links train just now;
//! - where an operator, or the driver's word, ended it, and of who does not hear of found GPUs, whose word it was is
//!   told of each reading again when it has been read again;
//! - a recovery action that is read again is one that was seen again.
//!
//! A driver that was bound anew has found its GPUs anew, and needs none of it.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition};
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{
    Attr, Observation, Samples, Signal, SignalKind, Source, Target, Value, text_attr,
};
use device_api_core::verdict::{ClearOn, Decision, Judgement};

use crate::alike::{Subject, subject_of};
use crate::dispatch::Call;
use crate::lane::{Lane, Pending};
use crate::pipeline::{Shared, State};

/// Attribute of a `gpu-found` signal: what has ended problems, so that the GPU is judged anew (docs/signals.md).
const AFTER: &str = "after";

const RECOVERY_ACTION: &str = "recovery.action";

/// Whether a signal is there only to have a GPU judged anew.
pub(crate) fn is_anew(signal: &Signal) -> bool {
    signal.kind == SignalKind::GpuFound && text_attr(&signal.attrs, AFTER).is_some()
}

/// When that was read.
pub(crate) fn read_at(samples: &Samples, key: &str) -> WallTime {
    let read = samples.get(key).and_then(|sample| sample.as_ref().ok());
    read.map(|reading| reading.at).unwrap_or_default()
}

impl Shared {
    /// An event is about to end what these policies, the `owners`, said: before it is written, so that no reader sees
    /// the GPU without it before they were asked.
    pub(crate) fn judge_anew(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        owners: &[Arc<str>],
        event: ClearOn,
    ) {
        let bench = state.bench.clone();
        let lane = self.lane(state, uuid);
        let is_found = event == ClearOn::GpuReset && answers(lane);
        let mut asked = 0;
        for (at, seat) in bench.iter() {
            let mut subscribed = seat.info().subscriptions.iter();
            if is_found && subscribed.any(|to| to.kind == SignalKind::GpuFound) {
                asked |= 1 << at;
            } else if owners.contains(seat.name()) {
                lane.told.tell_again(at, &lane.samples);
            }
        }
        if asked != 0 {
            self.await_look(state, uuid, asked, event);
        }
    }

    /// The policies `asked` are asked with the next samples, and readers wait until then.
    fn await_look(&self, state: &mut State, uuid: &DeviceUuid, asked: u32, event: ClearOn) {
        let observation = Observation {
            evidence: "the device answers, and is judged anew".to_owned(),
            attrs: vec![Attr::text(AFTER, event.as_str())],
            ..Observation::new(
                SignalKind::GpuFound,
                Target::Uuid(uuid.clone()),
                Source::Host,
            )
        };
        let signal = self
            .number(state, uuid, &observation, 1)
            .signal(uuid, observation);
        self.cache.raise(uuid, signal.seq);
        let earlier = self.lane(state, uuid).anew.take();
        let pending = Pending {
            through: signal.seq,
            deadline: Some(signal.observed_boot.after(self.config.barrier_wait)),
            signal,
            recipients: asked | earlier.map_or(0, |earlier| earlier.recipients),
            alone: true,
            is_floored: true,
        };
        self.lane(state, uuid).anew = Some(pending);
        self.arm_overdue(state, uuid);
    }

    /// A recovery action that was read before does not count as seen again.
    pub(crate) fn await_action(&self, state: &mut State, uuid: &DeviceUuid) {
        let lane = self.lane(state, uuid);
        lane.action_ended = Some(read_at(&lane.samples, RECOVERY_ACTION));
    }

    /// The GPU was looked at: whoever is to be asked of it anew is asked now.
    pub(crate) fn looked(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        samples: &Arc<Samples>,
    ) -> Vec<Call> {
        let mut calls = Vec::new();
        let lane = self.lane(state, uuid);
        let is_look = lane.recoveries.looks.is_look(samples);
        if let Some(pending) = lane.anew.take_if(|_| is_look) {
            if pending.recipients != 0 && answers(lane) {
                lane.queue.push_front(pending);
                calls.extend(self.dispatch(state, uuid));
            } else {
                // It is found, and judged, when it answers again.
                let settled = lane.settled_through(pending.signal.seq);
                self.cache.settle(uuid, settled);
            }
            self.arm_overdue(state, uuid);
        }
        calls.extend(self.action_read(state, uuid, samples));
        calls
    }

    fn action_read(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        samples: &Arc<Samples>,
    ) -> Vec<Call> {
        let ended = &mut self.lane(state, uuid).action_ended;
        let Some(Ok(reading)) = samples.get(RECOVERY_ACTION) else {
            return Vec::new();
        };
        if ended.take_if(|ended| *ended != reading.at).is_none() {
            return Vec::new();
        }
        let Value::Int(action @ 1..) = reading.value else {
            return Vec::new();
        };
        let again = Observation {
            code: u64::try_from(action).ok(),
            evidence: format!("NVML field 230 (recovery action) still is {action}"),
            attrs: vec![Attr::int("action", action)],
            samples: Some(samples.clone()),
            ..Observation::new(
                SignalKind::RecoveryAction,
                Target::Uuid(uuid.clone()),
                Source::Field230,
            )
        };
        self.take_in(state, uuid, again, 1)
    }

    /// Of what is said of a GPU that is judged anew, what it was asked for: which problems there are besides those
    /// that stand. What has ended keeps saying why.
    pub(crate) fn keep_problems(&self, uuid: &DeviceUuid, decision: &mut Decision) {
        let conditions = self.cache.conditions(uuid);
        decision.verdicts.retain(|verdict| {
            let instance = verdict.instance.as_deref();
            let standing = condition::find_on(&conditions, &verdict.condition, instance);
            let stands = standing.is_some_and(Condition::is_problem);
            verdict.state != Judgement::Ok && !stands
        });
    }
}

/// Whether the GPU answers, as far as it was told.
fn answers(lane: &Lane) -> bool {
    let mut pending = lane.pending();
    lane.journal.found().is_some()
        && !pending.any(|pending| {
            let is_found = pending.signal.kind == SignalKind::GpuFound;
            subject_of(&pending.signal) == Some(Subject::Presence) && !is_found
        })
}
