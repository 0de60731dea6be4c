//! Batches to the policies, and their answers.
//!
//! ```text
//!  idle ──dispatch──▶ with the policies ──last answer──▶ committed ──▶ idle, or the next batch
//!                            │ bound passed                  ▲
//!                            └──▶ fallback written, readers go; the late answer still counts
//! ```

use std::sync::Arc;

use device_api_core::condition::{Condition, Owner};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::policy::{Evaluation, FailureKind, Outcome, PolicyFailure, Standing};
use device_api_core::ports::{Policy, Reply};
use device_api_core::signal::Signal;
use device_api_core::verdict::Judgement;

use crate::lane::{Flight, Pending};
use crate::pipeline::{Shared, State};

/// One policy to be asked, once the lock is released.
#[derive(Debug)]
pub(crate) struct Call {
    policy: usize,
    uuid: DeviceUuid,
    flight: u64,
    evaluation: Evaluation,
}

/// Answers for a policy that went without a word.
struct Answer {
    shared: std::sync::Weak<Shared>,
    uuid: DeviceUuid,
    flight: u64,
    policy: usize,
    given: bool,
}

impl Answer {
    fn give(mut self, outcome: Outcome) {
        self.pass_on(outcome);
    }

    fn pass_on(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.given, true)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.answered(&self.uuid, self.flight, self.policy, outcome);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let detail = "the policy's thread is gone".to_owned();
        self.pass_on(Err(PolicyFailure {
            kind: FailureKind::Unavailable,
            detail,
        }));
    }
}

impl Shared {
    /// Asks the policies. Without the lock: one may answer at once.
    pub(crate) fn place(&self, calls: Vec<Call>) {
        for call in calls {
            let Some(policy) = self.policies.get(call.policy) else {
                continue;
            };
            let answer = Answer {
                shared: self.me.clone(),
                uuid: call.uuid,
                flight: call.flight,
                policy: call.policy,
                given: false,
            };
            let reply: Reply = Box::new(move |outcome| answer.give(outcome));
            policy.evaluate(call.evaluation, reply);
        }
    }

    /// Starts the next batch of a lane that is idle.
    pub(crate) fn dispatch(&self, state: &mut State, uuid: &DeviceUuid) -> Vec<Call> {
        loop {
            let now = self.clock.boot();
            let id = state.next_flight;
            let lane = self.lane(state, uuid);
            if lane.flight.is_some() || lane.queue.is_empty() {
                return Vec::new();
            }
            let batch = lane.next_batch();
            let calls = self.calls(state, uuid, id, &batch);
            let outstanding = calls.iter().map(|call| 1_u32 << call.policy).sum();
            let flight = Flight {
                id,
                batch,
                outstanding,
                outcomes: Vec::new(),
                started: now,
            };
            state.next_flight += 1;
            if outstanding == 0 {
                // Nobody subscribed: decided by the floor and the fallback alone.
                self.commit(state, uuid, flight);
                continue;
            }
            self.lane(state, uuid).flight = Some(flight);
            self.arm_overdue(state, uuid);
            return calls;
        }
    }

    fn calls(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        flight: u64,
        batch: &[Pending],
    ) -> Vec<Call> {
        let device = self
            .cache
            .device(uuid)
            .unwrap_or_else(|| Arc::new(DeviceInfo::bare(uuid.clone())));
        let conditions = self.cache.conditions(uuid);
        let lane = self.lane(state, uuid);
        let mut calls = Vec::new();
        for (at, policy) in self.policies.iter().enumerate() {
            let wanted = batch
                .iter()
                .filter(|pending| pending.recipients & (1 << at) != 0);
            let signals: Arc<[Signal]> = wanted.map(|pending| pending.signal.clone()).collect();
            let Some(newest) = signals.last() else {
                continue;
            };
            let standing = conditions
                .iter()
                .filter(|c| c.state != Judgement::Ok && is_of(&c.owner, &**policy));
            calls.push(Call {
                policy: at,
                uuid: uuid.clone(),
                flight,
                evaluation: Evaluation {
                    device: device.clone(),
                    standing: standing.map(standing_of).collect(),
                    samples: newest
                        .samples
                        .clone()
                        .unwrap_or_else(|| lane.samples.clone()),
                    state: lane
                        .slots
                        .get(at)
                        .map(|slot| slot.state.clone())
                        .unwrap_or_default(),
                    attrs: Vec::new(),
                    signals,
                },
            });
        }
        calls
    }

    /// A policy answered; the last answer of a batch commits it.
    fn answered(&self, uuid: &DeviceUuid, flight: u64, policy: usize, outcome: Outcome) {
        let calls = {
            let mut state = self.lock();
            let now = self.clock.boot();
            let lane = self.lane(&mut state, uuid);
            let Some(flying) = lane.flight.as_mut().filter(|flying| flying.id == flight) else {
                return;
            };
            if let Some(policy) = self.policies.get(policy) {
                let failure = outcome.as_ref().err().map(|failure| failure.kind);
                self.observer
                    .evaluated(&policy.info().id.name, failure, now.since(flying.started));
            }
            flying.outcomes.push((policy, outcome));
            flying.outstanding &= !(1 << policy);
            if flying.outstanding != 0 {
                return;
            }
            if let Some(flight) = lane.flight.take() {
                self.commit(&mut state, uuid, flight);
            }
            self.dispatch(&mut state, uuid)
        };
        self.place(calls);
    }
}

fn is_of(owner: &Owner, policy: &dyn Policy) -> bool {
    owner.same(&Owner::Policy(policy.info().id.clone()))
}

fn standing_of(condition: &Condition) -> Standing {
    Standing {
        condition: condition.type_.to_string(),
        state: condition.state,
        reason: condition.reason.clone(),
        since: condition.transition,
        instance: None,
        incident: condition.incident.unwrap_or_default(),
    }
}
