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
use device_api_core::verdict::{Judgement, PolicyState};

use crate::lane::{Flight, Lane};
use crate::pipeline::{Shared, State};

/// One policy to be asked, once the lock is released.
#[derive(Debug)]
pub(crate) struct Call {
    policy: Arc<dyn Policy>,
    asked: Asked,
    evaluation: Evaluation,
}

/// Who was asked, and of which batch.
#[derive(Clone, Debug)]
struct Asked {
    uuid: DeviceUuid,
    flight: u64,
    /// The seat, and who sat there.
    at: usize,
    generation: u64,
}

/// Answers for a policy that went without a word.
struct Answer {
    shared: std::sync::Weak<Shared>,
    asked: Asked,
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
            shared.answered(&self.asked, outcome);
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

/// One after the other; mostly there is nothing first, and then nothing is moved.
pub(crate) fn joined(mut first: Vec<Call>, then: Vec<Call>) -> Vec<Call> {
    if first.is_empty() {
        return then;
    }
    first.extend(then);
    first
}

impl Shared {
    /// Asks the policies. Without the lock: one may answer at once.
    pub(crate) fn place(&self, calls: Vec<Call>) {
        for call in calls {
            let answer = Answer {
                shared: self.me.clone(),
                asked: call.asked,
                given: false,
            };
            let reply: Reply = Box::new(move |outcome| answer.give(outcome));
            call.policy.evaluate(call.evaluation, reply);
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
            let signals = batch.iter().map(|pending| lane.sampled(&pending.signal));
            let flight = Flight {
                id,
                signals: signals.collect(),
                device: self
                    .cache
                    .device(uuid)
                    .unwrap_or_else(|| Arc::new(DeviceInfo::bare(uuid.clone()))),
                batch,
                outstanding: 0,
                outcomes: Vec::new(),
                started: now,
            };
            lane.flight = Some(flight);
            state.next_flight += 1;
            let calls = self.ask(state, uuid, u32::MAX);
            if calls.is_empty() {
                // Nobody subscribed: decided by the floor and the fallback alone.
                if let Some(flight) = self.lane(state, uuid).flight.take() {
                    self.commit(state, uuid, flight);
                }
                continue;
            }
            self.arm_overdue(state, uuid);
            return calls;
        }
    }

    /// Asks those of `seats` about the batch of a lane who are to judge something of it.
    pub(crate) fn ask(&self, state: &mut State, uuid: &DeviceUuid, seats: u32) -> Vec<Call> {
        let bench = state.bench.clone();
        let conditions = self.cache.conditions(uuid);
        let Some(Lane { flight, slots, .. }) = state.lanes.get_mut(uuid) else {
            return Vec::new();
        };
        let Some(flight) = flight else {
            return Vec::new();
        };
        let mut calls = Vec::new();
        for (at, seat) in bench.iter().filter(|(at, _)| seats & (1 << at) != 0) {
            let signals = flight.signals_for(at);
            let Some(newest) = signals.last() else {
                continue;
            };
            let standing = conditions
                .iter()
                .filter(|c| c.state != Judgement::Ok && is_of(&c.owner, &*seat.policy));
            flight.outstanding |= 1 << at;
            calls.push(Call {
                policy: seat.policy.clone(),
                asked: Asked {
                    uuid: uuid.clone(),
                    flight: flight.id,
                    at,
                    generation: seat.generation,
                },
                evaluation: Evaluation {
                    device: flight.device.clone(),
                    standing: standing.map(standing_of).collect(),
                    samples: newest.samples.clone().unwrap_or_default(),
                    state: slots
                        .get(at)
                        .map(|slot| PolicyState::clone(&slot.state))
                        .unwrap_or_default(),
                    attrs: Vec::new(),
                    signals,
                },
            });
        }
        calls
    }

    /// A policy answered; the last answer of a batch commits it. What one says that has lost its seat
    /// since is void: another is asked.
    fn answered(&self, asked: &Asked, outcome: Outcome) {
        let calls = {
            let mut state = self.lock();
            let seat = state.bench.get(asked.at);
            if seat.is_none_or(|seat| seat.generation != asked.generation) {
                return;
            }
            let first = self.follow(&mut state, &asked.uuid);
            let flight = &mut self.lane(&mut state, &asked.uuid).flight;
            let flying = flight.as_mut();
            match flying.filter(|flying| flying.id == asked.flight) {
                Some(flying) => {
                    flying.outcomes.push((asked.at, outcome));
                    flying.outstanding &= !(1 << asked.at);
                    joined(first, self.land(&mut state, &asked.uuid))
                }
                None => first,
            }
        };
        self.place(calls);
    }

    /// Commits the batch of a lane if all have answered, and goes on to the next.
    pub(crate) fn land(&self, state: &mut State, uuid: &DeviceUuid) -> Vec<Call> {
        let flight = &mut self.lane(state, uuid).flight;
        if let Some(flight) = flight.take_if(|flight| flight.outstanding == 0) {
            self.commit(state, uuid, flight);
        }
        self.dispatch(state, uuid)
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
        instance: condition.instance.as_ref().map(ToString::to_string),
        incident: condition.incident.unwrap_or_default(),
    }
}
