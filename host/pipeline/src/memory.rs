//! What the pipeline remembers of a GPU over a restart: with the conditions, a decision is whole
//! (design H3, H4, C7).
//!
//! Signals that were not decided when the run ended are not among it: those of the kernel log are
//! read again, and of what was assumed of the others the policies are asked anew. What nothing would
//! bring again is: a signal that is being tried again, and a timer that has fired.

use std::time::Duration;

use device_api_core::condition::Condition;
use device_api_core::durable::{DeviceMemory, PolicyMemory, WakeMemory};
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Signal, SignalKind, text_attr};

use crate::floors::Assumed;
use crate::lane::{Lane, Pending, Slot};
use crate::pipeline::{Shared, State};
use crate::seats::Seat;
use crate::timers::Key;

/// Until policies are asked again, after a restart or their return, about what they did not judge before.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What an earlier run left behind, by device, on the clock of this boot.
pub type Memories = Vec<(DeviceUuid, DeviceMemory)>;

impl Shared {
    pub(crate) fn memory_of(&self, state: &mut State, uuid: &DeviceUuid) -> DeviceMemory {
        let bench = state.bench.clone();
        let timers = state.timers.of(uuid);
        let quiet = timers.filter_map(|(key, due)| match key {
            Key::Quiet { condition, .. } => Some((condition.as_str().into(), due)),
            Key::Overdue(_) | Key::Containment { .. } | Key::Wake { .. } | Key::Retry { .. } => {
                None
            }
        });
        let quiet = quiet.collect();
        let seated = bench.iter();
        let seated: Vec<PolicyMemory> = seated
            .map(|(at, seat)| self.memory_on(state, uuid, (at, seat)))
            .filter(|memory| {
                !(memory.state.is_empty() && memory.wakes.is_empty() && memory.failed.is_empty())
            })
            .collect();
        let lane = &*self.lane(state, uuid);
        // By age: past the bound the next run drops the first.
        let policies = lane.absent.iter().cloned().chain(seated).collect();
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
        }
    }

    /// What the policy on a seat would leave behind.
    pub(crate) fn memory_on(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
    ) -> PolicyMemory {
        self.lane(state, uuid);
        let mut wakes: Vec<WakeMemory> = Vec::new();
        let mut memory = PolicyMemory {
            policy: seat.name().clone(),
            schema: seat.info().state_schema,
            state: Default::default(),
            wakes: Vec::new(),
            failed: Vec::new(),
        };
        let Some(lane) = state.lanes.get(uuid) else {
            return memory;
        };
        for (key, due) in state.timers.of(uuid) {
            if let Key::Wake { policy, name, .. } = key
                && *policy == at
            {
                wakes.push(WakeMemory {
                    name: name.clone(),
                    due,
                    drill: lane.drill_wakes.contains(&(at, name.clone())),
                });
            }
        }
        memory.wakes = with_fired(wakes, lane, at);
        if let Some(slot) = lane.slots.get(at) {
            memory.state.clone_from(&slot.state);
            memory.failed = failed(slot, lane, at);
        }
        memory
    }

    /// Takes up what an earlier run left behind. What is a policy's waits for it to take its seat.
    pub(crate) fn restore(&self, memories: Memories) {
        let state = &mut *self.lock();
        let mut newest = state.newest;
        for (uuid, memory) in &memories {
            let conditions = self.cache.conditions(uuid);
            let used = conditions.iter().filter_map(|c: &Condition| c.incident);
            let seen = signals_of(memory).map(|signal| signal.incident);
            let used = used.chain(seen).max();
            state.incidents.go_on_after(used.unwrap_or_default());
            signals_of(memory).for_each(|signal| state.incidents.restore(signal));
            let used = conditions.iter().filter_map(|c: &Condition| c.cause);
            let seen = signals_of(memory).map(|signal| signal.seq);
            newest = newest.max(used.chain(seen).max().unwrap_or_default());
        }
        state.newest = newest;
        state.start = self.moment(newest);
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
            for policy in memory.policies {
                lane.put_away(policy);
            }
            for signal in &memory.awaiting {
                self.restore_containment(state, &uuid, signal);
            }
        }
    }

    /// A policy takes up what one of its name and state schema left behind. False: there is nothing.
    pub(crate) fn take_up(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
    ) -> bool {
        let lane = self.lane(state, uuid);
        let Some(memory) = lane.take_absent(seat.name(), seat.info().state_schema) else {
            return false;
        };
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.state = memory.state;
        }
        let failed = memory.failed.iter();
        for signal in failed.filter(|signal| !is_seen_anew(signal.kind)) {
            lane.keep_failed(at, signal);
        }
        for wake in memory.wakes {
            if wake.drill {
                let drills = &mut self.lane(state, uuid).drill_wakes;
                drills.insert((at, wake.name.clone()));
            }
            let key = Key::Wake {
                uuid: uuid.clone(),
                policy: at,
                name: wake.name,
            };
            self.set_timer(state, key, wake.due);
        }
        true
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

/// Whether the next run sees it for itself. That a GPU answered an earlier one would let a policy call
/// it healthy before anything was observed (design C7).
fn is_seen_anew(kind: SignalKind) -> bool {
    matches!(kind, SignalKind::GpuFound | SignalKind::Reading)
}

/// What a policy failed on: also what it is being asked again about, or is about to be.
fn failed(slot: &Slot, lane: &Lane, at: usize) -> Vec<Signal> {
    let again = lane.pending().filter(|pending| pending.is_asked_again(at));
    let all = slot
        .failed
        .iter()
        .chain(again.map(|pending| &pending.signal));
    let mut failed: Vec<Signal> = all
        .filter(|signal| !is_seen_anew(signal.kind))
        .map(without_samples)
        .collect();
    failed.sort_by_key(|signal| signal.seq);
    failed
}

/// A policy's timers: also those that fired and that it has not judged yet, where it has not set them
/// anew.
fn with_fired(mut wakes: Vec<WakeMemory>, lane: &Lane, at: usize) -> Vec<WakeMemory> {
    let fired = lane
        .pending()
        .filter(|pending| pending.signal.kind == SignalKind::Timer && pending.is_first_asked(at));
    for Pending { signal, .. } in fired {
        let Some(name) = text_attr(&signal.attrs, "name") else {
            continue;
        };
        if !wakes.iter().any(|wake| wake.name == name) {
            wakes.push(WakeMemory {
                name: name.to_owned(),
                due: signal.observed_boot,
                drill: signal.drill,
            });
        }
    }
    wakes
}

fn without_samples(signal: &Signal) -> Signal {
    Signal {
        samples: None,
        ..signal.clone()
    }
}
