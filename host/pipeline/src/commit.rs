//! The commit of a batch (design H4): verdicts, state, timers, floor and fallback as one write.

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, PROBING, find};
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, PolicyFailure};
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Wake};

use crate::floors::{Fallback, host_condition};
use crate::lane::{Flight, Pending};
use crate::pipeline::{Shared, State};
use crate::timers::Key;
use crate::verdicts::{self, Context};

impl Shared {
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
                verdicts::apply(
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
}

/// Between tries of a failed signal: 1 s, doubling to a minute.
fn backoff(failures: u32) -> std::time::Duration {
    std::time::Duration::from_secs(1_u64 << failures.saturating_sub(1).min(6))
        .min(std::time::Duration::from_mins(1))
}
