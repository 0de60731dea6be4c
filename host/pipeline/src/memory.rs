//! What the pipeline remembers of a GPU over a restart: with the conditions, a decision is whole
//! (design H3, H4, C7).
//!
//! Signals that were not decided when the run ended are not among it: those of the kernel log are
//! read again, and of what was assumed of the others the policies are asked anew. What nothing would
//! bring again is: a signal that is being tried again, and a timer that has fired.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::condition::Condition;
use device_api_core::durable::{DeviceMemory, PolicyMemory, WakeMemory};
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Signal, SignalKind, text_attr};

use crate::floors::Fallback;
use crate::lane::{Lane, Pending, Slot};
use crate::pipeline::{Shared, State};
use crate::timers::Key;

/// Until policies are asked again, after a restart, about what they did not judge before it.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What an earlier run left behind, by device, on the clock of this boot.
pub type Memories = Vec<(DeviceUuid, DeviceMemory)>;

impl Shared {
    pub(crate) fn memory_of(&self, state: &mut State, uuid: &DeviceUuid) -> DeviceMemory {
        let mut quiet = Vec::new();
        let mut wakes: Vec<Vec<WakeMemory>> = vec![Vec::new(); self.policies.len()];
        let drill_wakes = self.lane(state, uuid).drill_wakes.clone();
        for (key, due) in state.timers.of(uuid) {
            match key {
                Key::Quiet { condition, .. } => quiet.push((condition.as_str().into(), due)),
                Key::Wake { policy, name, .. } => {
                    if let Some(wakes) = wakes.get_mut(*policy) {
                        wakes.push(WakeMemory {
                            name: name.clone(),
                            due,
                            drill: drill_wakes.contains(&(*policy, name.clone())),
                        });
                    }
                }
                Key::Overdue(_) | Key::Containment { .. } | Key::Retry { .. } => {}
            }
        }
        let lane = &*self.lane(state, uuid);
        let named = self.policies.iter().zip(&lane.slots).zip(wakes);
        let policies = named
            .enumerate()
            .map(|(at, ((policy, slot), wakes))| PolicyMemory {
                policy: policy.info().id.name.clone(),
                schema: policy.info().state_schema,
                state: slot.state.clone(),
                wakes: with_fired(wakes, lane, at),
                failed: failed(slot, lane, at),
            })
            .filter(|memory| {
                !(memory.state.is_empty() && memory.wakes.is_empty() && memory.failed.is_empty())
            })
            .chain(lane.absent.iter().cloned())
            .collect();
        let (mut floors, mut assumed) = lane.floors.memory(|at| self.name_of(at));
        let waiting = [&lane.real, &lane.drilled].into_iter();
        let waiting = waiting.filter_map(|containment| containment.double_bit.clone());
        let mut awaiting: Vec<Signal> = waiting.collect();
        for signal in floors
            .iter_mut()
            .chain(&mut awaiting)
            .chain(assumed.iter_mut().map(|fault| &mut fault.signal))
        {
            signal.samples = None;
        }
        DeviceMemory {
            policies,
            floors,
            assumed,
            awaiting,
            quiet,
        }
    }

    fn name_of(&self, at: usize) -> Option<Arc<str>> {
        self.policies
            .get(at)
            .map(|policy| policy.info().id.name.clone())
    }

    /// Takes up what an earlier run left behind.
    pub(crate) fn restore(&self, memories: Memories) {
        let state = &mut *self.lock();
        for (uuid, memory) in memories {
            for (condition, due) in &memory.quiet {
                let (uuid, condition) = (uuid.clone(), condition.to_string());
                state.timers.set(Key::Quiet { uuid, condition }, *due);
            }
            let conditions = self.cache.conditions(&uuid);
            let used = conditions.iter().filter_map(|c: &Condition| c.incident);
            let seen = signals_of(&memory).map(|signal| signal.incident);
            let used = used.chain(seen).max();
            state.incidents.go_on_after(used.unwrap_or_default());
            let used = conditions.iter().filter_map(|c: &Condition| c.cause);
            let seen = signals_of(&memory).map(|signal| signal.seq);
            let used = used.chain(seen).max();
            state.newest = state.newest.max(used.unwrap_or_default());
            self.restore_faults(state, &uuid, &memory);
            for signal in &memory.awaiting {
                self.restore_containment(state, &uuid, signal);
            }
            for policy in memory.policies {
                self.restore_policy(state, &uuid, policy);
            }
        }
    }

    /// Floors stand again, and what was assumed is assumed; policies that did not judge are asked.
    fn restore_faults(&self, state: &mut State, uuid: &DeviceUuid, memory: &DeviceMemory) {
        let infos = self.infos();
        let lane = self.lane(state, uuid);
        for signal in &memory.floors {
            lane.floors.restand(signal);
        }
        let mut again = Vec::new();
        for fault in &memory.assumed {
            let named = fault.policy.as_ref().and_then(|name| {
                let is_named = |info: &&device_api_core::policy::PolicyInfo| info.id.name == *name;
                infos.iter().position(is_named)
            });
            // Also the one that failed: it is remembered as such only up to a bound.
            let asked = infos.iter().enumerate().filter(|(at, info)| {
                info.wants(&fault.signal) && (fault.policy.is_none() || named == Some(*at))
            });
            again.extend(asked.map(|(at, _)| (at, &fault.signal)));
            lane.floors.fall_back(Fallback {
                policy: named,
                why: fault.why.clone(),
                signal: fault.signal.clone(),
            });
        }
        for (policy, signal) in again {
            self.lane(state, uuid).keep_failed(policy, signal);
            self.ask_again(state, uuid, policy);
        }
    }

    fn restore_policy(&self, state: &mut State, uuid: &DeviceUuid, memory: PolicyMemory) {
        let infos = self.infos();
        let found = infos
            .iter()
            .position(|info| info.id.name == memory.policy && info.state_schema == memory.schema);
        let Some(at) = found else {
            self.lane(state, uuid).absent.push(memory);
            return;
        };
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
            state.timers.set(key, wake.due);
        }
        let lane = self.lane(state, uuid);
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.state = memory.state;
        }
        let failed = memory.failed.iter();
        for signal in failed.filter(|signal| !is_seen_anew(signal.kind)) {
            lane.keep_failed(at, signal);
        }
        if lane
            .slots
            .get(at)
            .is_some_and(|slot| !slot.failed.is_empty())
        {
            self.ask_again(state, uuid, at);
        }
    }

    fn ask_again(&self, state: &mut State, uuid: &DeviceUuid, policy: usize) {
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
