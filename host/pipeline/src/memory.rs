//! What the pipeline remembers of a GPU over a restart: with the conditions, a decision is whole
//! (design H3, H4, C7).
//!
//! Signals that were not decided when the run ended are not among it: those of the kernel log are
//! read again, and of what was assumed of the others the policies are asked anew. What nothing would
//! bring again is: a signal that is being tried again, and a timer that has fired.

use std::iter::zip;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::condition::{Condition, find_named};
use device_api_core::durable::{DeviceMemory, IncidentMemory, Numbers};
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::signal::Signal;

use crate::floors::Assumed;
use crate::numbers::Reserved;
use crate::pipeline::{Shared, State};
use crate::policy_memory::is_empty;
use crate::seats::Seat;
use crate::timers::Key;

/// Until policies are asked again, after a restart or their return, about what they did not judge before.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What an earlier run left behind, on the clock of this boot.
#[derive(Clone, Debug, Default)]
pub struct Memories {
    pub devices: Vec<(DeviceUuid, DeviceMemory)>,
    pub incidents: Vec<IncidentMemory>,
    /// Up to where numbers may have been given out. The next are reserved by whoever hands this over.
    pub numbers: Numbers,
}

impl Shared {
    pub(crate) fn memory_of(&self, state: &mut State, uuid: &DeviceUuid) -> DeviceMemory {
        let bench = state.bench.clone();
        let now = self.clock.boot();
        let timers = state.timers.of(uuid);
        let quiet = timers.filter_map(|(key, due)| match key {
            Key::Quiet { condition, .. } => Some((condition.as_str().into(), due)),
            Key::Overdue(_) | Key::Containment { .. } | Key::Wake { .. } | Key::Retry { .. } => {
                None
            }
        });
        let quiet = quiet.collect();
        let lane = self.lane(state, uuid);
        lane.drop_unclaimed(now);
        // By age: past the bound the next run drops the first.
        let mut policies = lane.absent.clone();
        let seated = bench.iter();
        let seated = seated.map(|(at, seat)| self.memory_on(state, uuid, (at, seat)));
        policies.extend(seated.filter(|memory| !is_empty(memory)));
        let lane = &*self.lane(state, uuid);
        let (mut floors, mut lowered, mut assumed) = lane.floors.memory();
        let waiting = [&lane.real, &lane.drilled].into_iter();
        let waiting = waiting.filter_map(|containment| containment.double_bit.clone());
        let mut awaiting: Vec<Signal> = waiting.collect();
        for signal in floors
            .iter_mut()
            .chain(&mut awaiting)
            .chain(lowered.iter_mut().map(|floor| &mut floor.signal))
            .chain(assumed.iter_mut().map(|fault| &mut fault.signal))
        {
            signal.samples = None;
        }
        DeviceMemory {
            policies,
            floors,
            lowered,
            assumed,
            awaiting,
            quiet,
            held: lane.flaps.held(),
        }
    }

    /// Takes up what an earlier run left behind. What is a policy's waits for it to take its seat.
    pub(crate) fn restore(&self, memories: Memories) {
        let state = &mut *self.lock();
        let Memories {
            devices: memories,
            incidents,
            numbers,
        } = memories;
        let of = |uuid: &DeviceUuid| self.cache.conditions(uuid);
        let mut newest = state.incidents.take_up(incidents, of).max(numbers.signal);
        state.incidents.go_on_after(numbers.incident);
        for (uuid, memory) in &memories {
            let conditions = self.cache.conditions(uuid);
            let used = conditions.iter().filter_map(|c: &Condition| c.incident);
            let seen = signals_of(memory).map(|signal| signal.incident);
            let used = used.chain(seen).max();
            state.incidents.go_on_after(used.unwrap_or_default());
            for signal in signals_of(memory) {
                let is_floored = stand(memory).any(|standing| standing.seq == signal.seq);
                state.incidents.restore(signal, is_floored);
            }
            let used = conditions.iter().filter_map(|c: &Condition| c.cause);
            let seen = signals_of(memory).map(|signal| signal.seq);
            newest = newest.max(used.chain(seen).max().unwrap_or_default());
        }
        self.observer.incidents(state.incidents.len());
        state.newest = newest;
        state.reserved = Reserved::from(numbers);
        state.start = self.moment(newest);
        let kept_until = self.clock.boot().after(limits::ABSENT_MEMORY_AGE_MAX);
        for (uuid, memory) in memories {
            for (condition, due) in memory.quiet {
                let (uuid, condition) = (uuid.clone(), condition.to_string());
                state.timers.set(Key::Quiet { uuid, condition }, due);
            }
            // Floors stand again, and what was assumed is assumed.
            let lane = self.lane(state, &uuid);
            for signal in &memory.floors {
                lane.floors.restand(signal);
            }
            let (conditions, now) = (self.cache.conditions(&uuid), self.clock.boot());
            for name in &memory.held {
                if let Some(held) = find_named(&conditions, name).filter(|it| it.is_problem()) {
                    lane.flaps.restore(name, held.drill, now);
                }
            }
            for floor in memory.lowered {
                lane.floors.restore_lowered(floor);
            }
            for fault in memory.assumed {
                lane.floors.fall_back(Assumed {
                    policy: fault.policy,
                    rule: fault.rule,
                    why: fault.why,
                    signal: fault.signal,
                });
            }
            for mut policy in memory.policies {
                if policy.kept_until.is_none() {
                    Arc::make_mut(&mut policy).kept_until = Some(kept_until);
                }
                lane.put_away(policy);
            }
            for signal in &memory.awaiting {
                self.restore_containment(state, &uuid, signal);
            }
        }
    }

    /// A policy is asked of what is assumed on its account, or on nobody's, and is not being asked already.
    /// Also the one that failed: it is remembered as such only up to a bound.
    pub(crate) fn ask_of_assumed(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
    ) {
        let lane = self.lane(state, uuid);
        let waits = |signal: &Signal| {
            lane.pending()
                .any(|pending| pending.signal.seq == signal.seq)
        };
        let assumed = lane.floors.assumed(seat.name());
        let asked: Vec<Signal> = assumed
            .filter(|signal| seat.info().wants(signal) && !waits(signal))
            .cloned()
            .collect();
        for signal in asked {
            lane.keep_failed(at, &signal);
        }
    }

    pub(crate) fn ask_again(&self, state: &mut State, uuid: &DeviceUuid, policy: usize) {
        let slot = self.lane(state, uuid).slots.get(policy);
        if slot.is_none_or(|slot| slot.failed.is_empty()) {
            return;
        }
        let key = Key::Retry {
            uuid: uuid.clone(),
            policy,
        };
        self.set_timer(state, key, self.clock.boot().after(ASKED_AGAIN));
    }
}

/// All signals that an earlier run left behind.
fn signals_of(memory: &DeviceMemory) -> impl Iterator<Item = &Signal> {
    let failed = memory.policies.iter().flat_map(|policy| &policy.failed);
    let assumed = memory.assumed.iter().map(|fault| &fault.signal);
    failed
        .chain(assumed)
        .chain(&memory.floors)
        .chain(memory.lowered.iter().map(|lowered| &lowered.signal))
        .chain(&memory.awaiting)
}

/// Those of them on whose account something stands.
fn stand(memory: &DeviceMemory) -> impl Iterator<Item = &Signal> {
    let assumed = memory.assumed.iter().map(|fault| &fault.signal);
    memory.floors.iter().chain(assumed).chain(&memory.awaiting)
}

/// Whether the same is to be remembered: what policies left is compared by where it is, as it is shared
/// while it stays the same.
pub(crate) fn is_same(known: &DeviceMemory, new: &DeviceMemory) -> bool {
    let DeviceMemory {
        policies,
        floors,
        lowered,
        assumed,
        awaiting,
        quiet,
        held,
    } = known;
    policies.len() == new.policies.len()
        && zip(policies, &new.policies).all(|(known, new)| Arc::ptr_eq(known, new))
        && *floors == new.floors
        && *lowered == new.lowered
        && *assumed == new.assumed
        && *awaiting == new.awaiting
        && *quiet == new.quiet
        && *held == new.held
}
