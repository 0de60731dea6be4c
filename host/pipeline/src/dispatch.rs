//! Batches to the policies, their answers, and the commit (design H4).
//!
//! ```text
//!  idle ──dispatch──▶ with the policies ──last answer──▶ committed ──▶ idle, or the next batch
//!                            │ bound passed                  ▲
//!                            └──▶ fallback written, readers go; the late answer still counts
//! ```

use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, Owner, PROBING, find};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::limits;
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, Outcome, PolicyFailure, Standing,
};
use device_api_core::ports::{Policy, Reply};
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Wake};

use crate::commit::{self, Context};
use crate::floors::{Fallback, host_condition};
use crate::lane::{Flight, Pending};
use crate::pipeline::{Shared, State};
use crate::timers::Key;

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

    /// Commits a batch: verdicts, state, timers, floor and fallback in one write; then readers go.
    pub(crate) fn commit(&self, state: &mut State, uuid: &DeviceUuid, mut flight: Flight) {
        let now = self.clock.boot();
        flight.outcomes.sort_by_key(|(policy, _)| *policy);
        let mut decisions: Vec<(usize, Decision)> = Vec::new();
        let mut again: Vec<Pending> = Vec::new();
        for (policy, outcome) in std::mem::take(&mut flight.outcomes) {
            match outcome {
                Ok(evaluated) => decisions.push((
                    policy,
                    self.accept(state, uuid, policy, evaluated, &flight.batch),
                )),
                Err(failure) => {
                    again.extend(self.reject(state, uuid, policy, failure, &flight.batch, now))
                }
            }
        }
        let signals: Vec<Signal> = flight
            .batch
            .iter()
            .map(|pending| pending.signal.clone())
            .collect();
        let through = flight
            .batch
            .iter()
            .map(|pending| pending.through)
            .max()
            .unwrap_or_default();
        let lane = self.lane(state, uuid);
        for pending in &flight.batch {
            lane.floors.observe(&pending.signal);
            if pending.deadline.is_some() && pending.recipients == 0 {
                let why = "no policy judges it".to_owned();
                lane.floors.fall_back(Fallback {
                    policy: None,
                    why,
                    signal: pending.signal.clone(),
                });
            } else {
                lane.floors.resolve(None, pending.signal.seq);
            }
        }
        // Tried again alone, in their order, before anything newer.
        for pending in again.into_iter().rev() {
            lane.queue.push_front(pending);
        }
        self.write(state, uuid, &decisions, &signals);
        let drill = signals.iter().all(|signal| signal.drill);
        self.plan(state, uuid, &decisions, drill, now);
        let lane = self.lane(state, uuid);
        let settled = lane.settle(through);
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
        self.observer.decided(now.since(flight.started));
    }

    /// Takes a policy's state and hands on its decision.
    fn accept(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        at: usize,
        evaluated: Evaluated,
        batch: &[Pending],
    ) -> Decision {
        let name = self
            .policies
            .get(at)
            .map(|policy| policy.info().id.name.clone());
        let lane = self.lane(state, uuid);
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.state = evaluated.state;
            slot.failures = 0;
            slot.failed
                .retain(|failed| !batch.iter().any(|pending| pending.signal.seq == failed.seq));
        }
        if let Some(name) = name {
            lane.floors.policy_works(&name);
        }
        for pending in batch {
            lane.floors.resolve(Some(at), pending.signal.seq);
        }
        evaluated.decision
    }

    /// A failed batch is tried again one by one; a signal that fails alone gets the fallback, and is
    /// kept to be tried again later.
    fn reject(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        at: usize,
        failure: PolicyFailure,
        batch: &[Pending],
        now: BootTime,
    ) -> Vec<Pending> {
        let asked: Vec<&Pending> = batch
            .iter()
            .filter(|pending| pending.recipients & (1 << at) != 0)
            .collect();
        if asked.len() > 1 {
            let alone = |pending: &&Pending| Pending {
                recipients: 1 << at,
                alone: true,
                ..Pending::clone(pending)
            };
            return asked.iter().map(alone).collect();
        }
        let Some(name) = self
            .policies
            .get(at)
            .map(|policy| policy.info().id.name.clone())
        else {
            return Vec::new();
        };
        tracing::warn!(policy = %name, gpu = %uuid, %failure, "policy gave no decision; the vendor's class is assumed");
        let lane = self.lane(state, uuid);
        lane.floors.policy_failed(&name, failure.to_string());
        let mut retry_after = None;
        for pending in asked {
            let why = format!("{name} failed ({failure})");
            self.observer.fallback(failure.kind.as_str());
            if pending.signal.kind.raises_barrier() {
                lane.floors.fall_back(Fallback {
                    policy: Some(at),
                    why,
                    signal: pending.signal.clone(),
                });
            }
            let Some(slot) = lane.slots.get_mut(at) else {
                continue;
            };
            slot.failures = slot.failures.saturating_add(1);
            retry_after = Some(backoff(slot.failures));
            let known = slot
                .failed
                .iter()
                .any(|failed| failed.seq == pending.signal.seq);
            if !known && slot.failed.len() < limits::SIGNALS_PER_CALL_MAX {
                slot.failed.push(pending.signal.clone());
            }
        }
        if let Some(after) = retry_after {
            self.set_timer(
                state,
                Key::Retry {
                    uuid: uuid.clone(),
                    policy: at,
                },
                now.after(after),
            );
        }
        Vec::new()
    }

    /// Writes decisions, floors and fallbacks of a GPU into the cache, as one write.
    pub(crate) fn write(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        decisions: &[(usize, Decision)],
        signals: &[Signal],
    ) {
        let now = self.clock.wall();
        let (drills, platform) = (self.config.drills, self.config.platform);
        let floors = &self.lane(state, uuid).floors;
        let is_lost = signals
            .iter()
            .any(|signal| signal.kind == SignalKind::GpuLost);
        self.cache.change(uuid, &mut |conditions| {
            for (at, decision) in decisions {
                let Some(policy) = self.policies.get(*at) else {
                    continue;
                };
                commit::apply(
                    conditions,
                    decision,
                    Context {
                        info: policy.info(),
                        signals,
                        drills,
                        platform,
                        now,
                    },
                );
            }
            if is_lost
                && find(conditions, PROBING).is_some_and(|probing| probing.state != Judgement::Ok)
            {
                condition::upsert(
                    conditions,
                    host_condition(PROBING, Judgement::Ok, "Probed", now),
                );
            }
            floors.publish(conditions, drills, platform, now);
        });
    }

    /// Sets the timers that decisions ask for: the policies' own, and those that clear after a quiet time.
    fn plan(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        decisions: &[(usize, Decision)],
        drill: bool,
        now: BootTime,
    ) {
        for (at, decision) in decisions {
            for wake in &decision.wakes {
                self.set_wake(state, uuid, *at, wake, now);
                let wakes = &mut self.lane(state, uuid).drill_wakes;
                let key = (*at, wake.name.clone());
                if drill && !wake.after.is_zero() {
                    wakes.insert(key)
                } else {
                    wakes.remove(&key)
                };
            }
            for verdict in &decision.verdicts {
                let key = Key::Quiet {
                    uuid: uuid.clone(),
                    condition: verdict.condition.clone(),
                };
                let quiet = verdict
                    .clears
                    .iter()
                    .find(|clear| clear.on == ClearOn::Quiet);
                match quiet.filter(|_| verdict.state == Judgement::Problem) {
                    Some(quiet) => self.set_timer(state, key, now.after(quiet.after)),
                    None => state.timers.cancel(&key),
                }
            }
        }
    }

    fn set_wake(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        policy: usize,
        wake: &Wake,
        now: BootTime,
    ) {
        let key = Key::Wake {
            uuid: uuid.clone(),
            policy,
            name: wake.name.clone(),
        };
        if wake.after.is_zero() {
            state.timers.cancel(&key);
        } else if state.timers.is_set(&key)
            || state.timers.wakes(uuid, policy) < limits::WAKES_PER_POLICY_MAX
        {
            self.set_timer(
                state,
                key,
                now.after(wake.after.clamp(limits::WAKE_MIN, limits::WAKE_MAX)),
            );
        } else {
            tracing::warn!(gpu = %uuid, timer = %wake.name, max = limits::WAKES_PER_POLICY_MAX, "timer refused: too many");
        }
    }

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

/// Between tries of a failed signal: 1 s, doubling to a minute.
fn backoff(failures: u32) -> std::time::Duration {
    std::time::Duration::from_secs(1_u64 << failures.saturating_sub(1).min(6))
        .min(std::time::Duration::from_mins(1))
}

fn is_of(owner: &Owner, policy: &dyn Policy) -> bool {
    owner.same(&Owner::Policy(policy.info().id.clone()))
}

fn standing_of(condition: &device_api_core::condition::Condition) -> Standing {
    Standing {
        condition: condition.type_.to_string(),
        state: condition.state,
        reason: condition.reason.clone(),
        since: condition.transition,
        instance: None,
        incident: condition.incident.unwrap_or_default(),
    }
}
