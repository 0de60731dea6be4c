//! What the pipeline remembers of a GPU over a restart: with the conditions, a decision is whole
//! (design H3, H4, C7).
//!
//! Signals that were not decided when the run ended are not among it: those of the kernel log are
//! read again, and of what was assumed of the others the policies are asked anew.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::condition::Condition;
use device_api_core::durable::{DeviceMemory, PolicyMemory, WakeMemory};
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::signal::Signal;

use crate::floors::Fallback;
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
        let lane = self.lane(state, uuid);
        let named = self.policies.iter().zip(&lane.slots).zip(wakes);
        let policies = named
            .map(|((policy, slot), wakes)| PolicyMemory {
                policy: policy.info().id.name.clone(),
                schema: policy.info().state_schema,
                state: slot.state.clone(),
                wakes,
                failed: slot.failed.iter().map(without_samples).collect(),
            })
            .filter(|memory| {
                !(memory.state.is_empty() && memory.wakes.is_empty() && memory.failed.is_empty())
            })
            .chain(lane.absent.iter().cloned())
            .collect();
        let (mut floors, mut assumed) = lane.floors.memory(|at| self.name_of(at));
        // A double-bit error that waits for its containment: were we to die now, none would come.
        floors.extend(
            [&lane.real, &lane.drilled]
                .into_iter()
                .filter_map(|containment| containment.double_bit.clone()),
        );
        for signal in floors
            .iter_mut()
            .chain(assumed.iter_mut().map(|fault| &mut fault.signal))
        {
            signal.samples = None;
        }
        DeviceMemory {
            policies,
            floors,
            assumed,
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
            let used = self.cache.conditions(&uuid);
            let used = used.iter().filter_map(|c: &Condition| c.incident).max();
            state.incidents.go_on_after(used.unwrap_or_default());
            self.restore_faults(state, &uuid, &memory);
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
            if fault.policy.is_none() {
                let asked = infos.iter().enumerate();
                let asked = asked.filter(|(_, info)| info.wants(&fault.signal));
                again.extend(asked.map(|(at, _)| (at, &fault.signal)));
            }
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
        let seen = memory.floors.iter();
        let seen = seen.chain(memory.assumed.iter().map(|fault| &fault.signal));
        let used = seen.map(|signal| signal.incident).max();
        state
            .incidents
            .go_on_after(used.unwrap_or(IncidentId::default()));
    }

    fn restore_policy(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        memory: PolicyMemory,
    ) {
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
        for signal in &memory.failed {
            lane.keep_failed(at, signal);
        }
        if !memory.failed.is_empty() {
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

fn without_samples(signal: &Signal) -> Signal {
    Signal {
        samples: None,
        ..signal.clone()
    }
}
