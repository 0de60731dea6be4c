//! What happens when a timer fires.

use std::sync::PoisonError;
use std::time::Duration;

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, Condition, Owner, find_named};
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::ports::Overdue;
use device_api_core::verdict::ClearOn;

use crate::alike::is_incident;
use crate::dispatch::Call;
use crate::lane::{Enqueued, Pending};
use crate::ownerless;
use crate::pipeline::{Shared, State};
use crate::recover::Ending;
use crate::timers::Key;
use crate::verdicts::cleared;
use crate::wakes;
use crate::write::Write;

/// How long the timer thread sleeps at most: a bound on what a missed wake-up could cost.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Timers that are fired while others wait: each may be a write, of some 50 µs.
const FIRED_AT_ONCE: usize = 16;

/// Until a full lane is tried again.
const RETRY_FULL: Duration = Duration::from_secs(10);

impl Shared {
    /// Sets a timer, and wakes the timer thread if it is the next.
    pub(crate) fn set_timer(&self, state: &mut State, key: Key, due: BootTime) {
        let is_next = state.timers.next().is_none_or(|next| due < next);
        state.timers.set(key, due);
        if is_next {
            self.sooner.notify_one();
        }
    }

    /// Sets the timer of the oldest signal that holds readers of this GPU.
    pub(crate) fn arm_overdue(&self, state: &mut State, uuid: &DeviceUuid) {
        let oldest = self
            .lane(state, uuid)
            .undecided()
            .filter_map(|pending| pending.deadline)
            .min();
        let key = Key::Overdue(uuid.clone());
        match oldest {
            Some(due) if state.timers.is_set_for(&key, due) => {}
            Some(due) => self.set_timer(state, key, due),
            None => state.timers.cancel(&key),
        }
    }

    /// The timer thread.
    pub(crate) fn run_timers(&self) {
        loop {
            self.fire_timers();
            let state = self.lock();
            if state.stopped {
                return;
            }
            let wait = state
                .timers
                .next()
                .map_or(SLEEP_MAX, |due| due.since(self.clock.boot()).min(SLEEP_MAX));
            if !wait.is_zero() {
                drop(
                    self.sooner
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner),
                );
            }
        }
    }

    /// Fires all that are due now. After a swap, or a restart, that may be one for each GPU, so in between those
    /// go who wait.
    pub(crate) fn fire_timers(&self) {
        let now = self.clock.boot();
        let mut is_done = false;
        while !is_done {
            let calls = {
                let mut state = self.lock_after_others();
                let mut calls = Vec::new();
                for _ in 0..FIRED_AT_ONCE {
                    let Some(uuid) = state.timers.due(now).cloned() else {
                        is_done = true;
                        if state.incidents.sweep_sometimes(now) {
                            self.observer.incidents(state.incidents.len());
                            self.save_incidents(&mut state);
                        }
                        calls.extend(self.settle_switches(&mut state));
                        self.log_decided(&mut state);
                        self.complain_in_time(&mut state);
                        break;
                    };
                    // First, as the timer may be of who has left, and is put away then.
                    calls.extend(self.follow(&mut state, &uuid));
                    if state.timers.due(now) == Some(&uuid)
                        && let Some(key) = state.timers.take_due(now)
                    {
                        calls.extend(self.fire(&mut state, key, now));
                    }
                }
                calls
            };
            self.place(calls);
        }
    }

    fn fire(&self, state: &mut State, key: Key, now: BootTime) -> Vec<Call> {
        match key {
            Key::Overdue(uuid) => {
                self.fall_back_overdue(state, &uuid, |pending| {
                    pending.deadline.is_some_and(|due| due <= now)
                });
                Vec::new()
            }
            Key::Containment { uuid, drill } => {
                let lane = self.lane(state, &uuid);
                if let Some(signal) = lane.containment(drill).double_bit.take() {
                    let by = std::mem::take(&mut lane.containment(drill).lowered_by);
                    lane.floors
                        .demand(floor::UNCONTAINED_DOUBLE_BIT, &signal, &by);
                    self.write(state, &uuid, &Write::default());
                }
                Vec::new()
            }
            Key::Wake { uuid, policy, name } => self.wake(state, &uuid, policy, &name),
            // Who may not be asked is asked when that is over.
            Key::Retry { policy, .. } if !state.bench.is_asked(policy) => Vec::new(),
            Key::Retry { uuid, policy } => self.retry(state, &uuid, policy),
            Key::Quiet { uuid, condition } => {
                self.clear_quiet(state, &uuid, &condition);
                Vec::new()
            }
        }
    }

    fn wake(&self, state: &mut State, uuid: &DeviceUuid, policy: usize, name: &str) -> Vec<Call> {
        let wakes = &mut self.lane(state, uuid).wakes;
        let armed = wakes.remove(&(policy, name.to_owned()));
        let armed = armed.unwrap_or_default();
        let timer = wakes::fired(uuid, name, &armed);
        let mut signal = self.number(state, uuid, &timer, 1).signal(uuid, timer);
        // It is about the fault that it was set on.
        if let Some(cause) = armed.cause.filter(|cause| is_incident(cause.kind)) {
            signal.incident = cause.incident;
            signal.root = cause.root;
        }
        self.admit(state, uuid, signal, 1 << policy)
    }

    /// Asks a policy again about what it failed on: each signal alone, in their order.
    pub(crate) fn retry(&self, state: &mut State, uuid: &DeviceUuid, policy: usize) -> Vec<Call> {
        let lane = self.lane(state, uuid);
        let mut failed = lane
            .slots
            .get_mut(policy)
            .map(|slot| std::mem::take(&mut slot.failed))
            .unwrap_or_default();
        failed.sort_by_key(|signal| signal.seq);
        let mut is_full = false;
        for signal in failed {
            let pending = Pending {
                through: SignalSeq::default(),
                signal,
                recipients: 1 << policy,
                deadline: None,
                alone: true,
                is_floored: true,
            };
            if let Enqueued::Full(pending) = lane.enqueue(pending) {
                lane.keep_failed(policy, &pending.signal);
                is_full = true;
            }
        }
        if is_full {
            let key = Key::Retry {
                uuid: uuid.clone(),
                policy,
            };
            self.set_timer(state, key, self.clock.boot().after(RETRY_FULL));
        }
        self.dispatch(state, uuid)
    }

    /// A quiet time has passed: the problem is over, unless it has become the host's own.
    fn clear_quiet(&self, state: &mut State, uuid: &DeviceUuid, name: &str) {
        let now = self.clock.wall();
        let bench = state.bench.clone();
        let was_held = self.lane(state, uuid).flaps.release(name);
        let ending = quiet(was_held);
        let amend = |conditions: &mut Vec<Condition>| {
            let Some(old) = find_named(conditions, name)
                .filter(|old| old.is_problem() && matches!(old.owner, Owner::Policy(_)))
            else {
                return;
            };
            let cleared = cleared(old, ending.reason, &ending.message, now);
            condition::upsert(conditions, cleared);
            let is_it = |condition: &&mut Condition| *condition.name() == *name;
            if let Some(cleared) = conditions.iter_mut().find(is_it) {
                // Without an owner nobody says that it is well.
                ownerless::mark(std::slice::from_mut(cleared), &bench, now);
            }
        };
        let write = Write {
            amend: Some(&amend),
            ending: Some(&ending),
            ..Write::default()
        };
        // The policy's word may have been what met a floor; its timer is no more to be remembered.
        self.write(state, uuid, &write);
    }
}

/// A quiet time ended it, or, where it was held for flapping, that it kept being ok.
fn quiet(was_held: bool) -> Ending {
    let message = if was_held {
        "Cleared: it has been ok for long enough."
    } else {
        "Cleared: no further signal."
    };
    Ending {
        event: ClearOn::Quiet,
        reason: "Quiet",
        message: message.to_owned(),
        through: None,
    }
}

impl Overdue for Shared {
    fn overdue(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        let calls = {
            let mut state = self.lock();
            let calls = self.follow(&mut state, uuid);
            self.fall_back_overdue(&mut state, uuid, |pending| pending.signal.seq <= seq);
            calls
        };
        self.place(calls);
    }
}
