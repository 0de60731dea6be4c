//! The commit of a batch (design H4): verdicts, state, timers, floor and fallback as one write.

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, Condition, PROBING, find};
use device_api_core::durable::DeviceMemory;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{Evaluated, PolicyFailure};
use device_api_core::ports::Commit;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Verdict, Wake};

use crate::floors::Fallback;
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
            let signal = &pending.signal;
            if !pending.is_floored {
                lane.floors.observe(signal);
            }
            let is_open = again.iter().any(|open| open.signal.seq == signal.seq);
            if pending.recipients != 0 && !is_open {
                lane.floors.resolve(None, signal);
            } else if pending.recipients == 0 && signal.kind.raises_barrier() {
                let why = "no policy judges it".to_owned();
                lane.floors.fall_back(Fallback {
                    policy: None,
                    why,
                    signal: signal.clone(),
                });
            }
        }
        // Tried again alone, in their order, before anything newer.
        for pending in again.into_iter().rev() {
            lane.queue.push_front(pending);
        }
        self.write(state, uuid, &decisions, &signals);
        let settled = self.lane(state, uuid).settled_through(through);
        self.cache.settle(uuid, settled);
        self.arm_overdue(state, uuid);
        self.log_decided(state);
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
        }
        if let Some(name) = name {
            lane.floors.policy_works(&name);
        }
        for pending in batch
            .iter()
            .filter(|pending| pending.recipients & (1 << at) != 0)
        {
            lane.floors.resolve(Some(at), &pending.signal);
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
                is_floored: true,
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
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.failures = slot.failures.saturating_add(1);
        }
        for pending in asked {
            self.observer.fallback(failure.kind.as_str());
            let why = format!("{name} failed ({failure})");
            self.give_up(state, uuid, at, &pending.signal, why, now);
        }
        Vec::new()
    }

    /// A policy does not judge a signal for now: the fallback stands in, and it is asked again later.
    pub(crate) fn give_up(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        policy: usize,
        signal: &Signal,
        why: String,
        now: BootTime,
    ) {
        let lane = self.lane(state, uuid);
        if lane.is_void(policy, signal) {
            // What is newer is judged, or is what is assumed.
            return;
        }
        if signal.kind.raises_barrier() {
            lane.floors.fall_back(Fallback {
                policy: Some(policy),
                why,
                signal: signal.clone(),
            });
        }
        lane.keep_failed(policy, signal);
        let failures = lane.slots.get(policy).map_or(0, |slot| slot.failures);
        let key = Key::Retry {
            uuid: uuid.clone(),
            policy,
        };
        self.set_timer(state, key, now.after(backoff(failures)));
    }

    /// Writes decisions, floors and fallbacks of a GPU into the cache, sets the timers that follow, and
    /// has all of it remembered: one write.
    pub(crate) fn write(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        decisions: &[(usize, Decision)],
        signals: &[Signal],
    ) {
        if self.cache.device(uuid).is_none() {
            // It was forgotten with the device.
            self.lane(state, uuid).remembered = None;
        }
        let mut write = Write {
            shared: self,
            state,
            uuid,
            decisions,
            signals,
            written: Vec::new(),
        };
        self.cache.change(uuid, &mut write);
    }

    /// Sets the timers that policies ask for. What drills alone have set off is a drill.
    fn plan(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        decisions: &[(usize, Decision)],
        signals: &[Signal],
        now: BootTime,
    ) {
        let drill = signals.iter().all(|signal| signal.drill);
        for (at, decision) in decisions {
            for wake in &decision.wakes {
                let is_set = self.set_wake(state, uuid, *at, wake, now);
                let wakes = &mut self.lane(state, uuid).drill_wakes;
                let key = (*at, wake.name.clone());
                if drill && is_set {
                    wakes.insert(key)
                } else {
                    wakes.remove(&key)
                };
            }
        }
    }

    /// Sets the timers of the conditions that a quiet time clears.
    fn plan_quiet(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        written: &[&Verdict],
        now: BootTime,
    ) {
        for verdict in written {
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

    /// Says whether the timer runs now.
    fn set_wake(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        policy: usize,
        wake: &Wake,
        now: BootTime,
    ) -> bool {
        let key = Key::Wake {
            uuid: uuid.clone(),
            policy,
            name: wake.name.clone(),
        };
        if wake.after.is_zero() {
            state.timers.cancel(&key);
            false
        } else if state.timers.is_set(&key)
            || state.timers.wakes(uuid, policy) < limits::WAKES_PER_POLICY_MAX
        {
            self.set_timer(
                state,
                key,
                now.after(wake.after.clamp(limits::WAKE_MIN, limits::WAKE_MAX)),
            );
            true
        } else {
            tracing::warn!(gpu = %uuid, timer = %wake.name, max = limits::WAKES_PER_POLICY_MAX, "timer refused: too many");
            false
        }
    }
}

/// One write of a GPU, as the cache asks for it.
struct Write<'a> {
    shared: &'a Shared,
    state: &'a mut State,
    uuid: &'a DeviceUuid,
    decisions: &'a [(usize, Decision)],
    signals: &'a [Signal],
    /// The verdicts that became conditions.
    written: Vec<&'a Verdict>,
}

impl Commit for Write<'_> {
    fn change(&mut self, conditions: &mut Vec<Condition>) {
        let Self {
            shared,
            uuid,
            decisions,
            signals,
            ..
        } = *self;
        let now = shared.clock.wall();
        let (drills, platform) = (shared.config.drills, shared.config.platform);
        for (at, decision) in decisions {
            let Some(policy) = shared.policies.get(*at) else {
                continue;
            };
            let context = Context {
                info: policy.info(),
                signals,
                drills,
                platform,
                now,
            };
            self.written
                .extend(verdicts::apply(conditions, decision, context));
        }
        let has = |kind| signals.iter().any(|signal| signal.kind == kind);
        if has(SignalKind::GpuFound) {
            // Judged for the first time since the daemon started: not before, or a reader could be told
            // what is left of an earlier run.
            conditions.retain(|c| !c.is_unobserved());
        }
        let is_lost = has(SignalKind::GpuLost);
        if is_lost
            && find(conditions, PROBING).is_some_and(|probing| probing.state != Judgement::Ok)
        {
            let probed = Condition::of_host(PROBING, Judgement::Ok, "Probed", now);
            condition::upsert(conditions, probed);
        }
        let floors = &shared.lane(self.state, uuid).floors;
        floors.publish(conditions, drills, platform, now);
    }

    fn remember(&mut self) -> Option<DeviceMemory> {
        let Self {
            shared,
            uuid,
            decisions,
            signals,
            ..
        } = *self;
        let now = shared.clock.boot();
        shared.plan(self.state, uuid, decisions, signals, now);
        shared.plan_quiet(self.state, uuid, &self.written, now);
        let memory = shared.memory_of(self.state, uuid);
        let remembered = &mut shared.lane(self.state, uuid).remembered;
        let is_new = remembered.as_ref() != Some(&memory);
        is_new.then(|| remembered.insert(memory).clone())
    }
}

/// Between tries of a failed signal: 1 s, doubling to a minute.
fn backoff(failures: u32) -> std::time::Duration {
    std::time::Duration::from_secs(1_u64 << failures.saturating_sub(1).min(6))
        .min(std::time::Duration::from_mins(1))
}
