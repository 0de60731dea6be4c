//! What one policy remembers of a GPU: what it leaves behind with its seat, and takes up with it again
//! (design H3).

use std::iter::zip;
use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::durable::{PolicyMemory, WakeMemory};
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Signal, SignalKind, text_attr};

use crate::lane::{Lane, Pending, Slot};
use crate::pipeline::{Shared, State};
use crate::seats::Seat;
use crate::timers::{Key, Timers};
use crate::wakes::{Armed, CauseRef};

impl Shared {
    /// What the policy on a seat would leave behind. Copied only where it is not what it was last time.
    pub(crate) fn memory_on(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
    ) -> Arc<PolicyMemory> {
        self.lane(state, uuid);
        let lane = state.lanes.get(uuid);
        let Some((lane, slot)) = lane.and_then(|lane| Some((lane, lane.slots.get(at)?))) else {
            return Arc::new(empty(seat));
        };
        let wakes = wakes(&state.timers, uuid, lane, at);
        let failed = failed(slot, lane, at);
        let is_known = |known: &&Arc<PolicyMemory>| {
            known.policy == *seat.name()
                && known.schema == seat.info().state_schema
                && (Arc::ptr_eq(&known.state, &slot.state) || known.state == slot.state)
                && known
                    .wakes
                    .iter()
                    .map(WakeRef::of)
                    .eq(wakes.iter().copied())
                && known.failed.len() == failed.len()
                && zip(&known.failed, &failed).all(|(known, failed)| is_same_fault(known, failed))
        };
        if let Some(known) = slot.remembered.as_ref().filter(is_known) {
            return known.clone();
        }
        let memory = Arc::new(PolicyMemory {
            state: slot.state.clone(),
            wakes: wakes.into_iter().map(WakeRef::to_memory).collect(),
            failed: failed.into_iter().map(without_samples).collect(),
            ..empty(seat)
        });
        if let Some(slot) = self.lane(state, uuid).slots.get_mut(at) {
            slot.remembered = Some(memory.clone());
        }
        memory
    }

    /// A policy takes up what one of its name and state schema left behind. False: there is nothing.
    pub(crate) fn take_up(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
    ) -> bool {
        let now = self.clock.boot();
        let lane = self.lane(state, uuid);
        lane.drop_unclaimed(now);
        let Some(memory) = lane.take_absent(seat.name(), seat.info().state_schema) else {
            return false;
        };
        let memory = Arc::unwrap_or_clone(memory);
        if let Some(slot) = lane.slots.get_mut(at) {
            slot.state = memory.state;
        }
        let failed = memory.failed.iter();
        for signal in failed.filter(|signal| !is_seen_anew(signal.kind)) {
            lane.keep_failed(at, signal);
        }
        for wake in memory.wakes {
            let armed = Armed {
                drill: wake.drill,
                cause: wake.cause,
            };
            let wakes = &mut self.lane(state, uuid).wakes;
            wakes.insert((at, wake.name.clone()), armed);
            let key = Key::Wake {
                uuid: uuid.clone(),
                policy: at,
                name: wake.name,
            };
            self.set_timer(state, key, wake.due);
        }
        true
    }
}

/// Whether the next run sees it for itself. That a GPU answered an earlier one would let a policy call
/// it healthy before anything was observed (design C7).
fn is_seen_anew(kind: SignalKind) -> bool {
    matches!(kind, SignalKind::GpuFound | SignalKind::Reading)
}

/// What a policy failed on: also what it is being asked again about, or is about to be.
fn failed<'a>(slot: &'a Slot, lane: &'a Lane, at: usize) -> Vec<&'a Signal> {
    let again = lane.pending().filter(|pending| pending.is_asked_again(at));
    let all = slot
        .failed
        .iter()
        .chain(again.map(|pending| &pending.signal));
    let mut failed: Vec<&Signal> = all.filter(|signal| !is_seen_anew(signal.kind)).collect();
    failed.sort_by_key(|signal| signal.seq);
    failed
}

/// A [`WakeMemory`] before it is copied.
#[derive(Clone, Copy, Debug, PartialEq)]
struct WakeRef<'a> {
    name: &'a str,
    due: BootTime,
    drill: bool,
    cause: Option<CauseRef<'a>>,
}

impl<'a> WakeRef<'a> {
    fn of(wake: &'a WakeMemory) -> Self {
        Self {
            name: &wake.name,
            due: wake.due,
            drill: wake.drill,
            cause: wake.cause.as_ref().map(CauseRef::of),
        }
    }

    fn to_memory(self) -> WakeMemory {
        WakeMemory {
            name: self.name.to_owned(),
            due: self.due,
            drill: self.drill,
            cause: self.cause.map(CauseRef::to_cause),
        }
    }
}

/// A policy's timers: also those that fired and that it has not judged yet, where it has not set them
/// anew.
fn wakes<'a>(timers: &'a Timers, uuid: &DeviceUuid, lane: &'a Lane, at: usize) -> Vec<WakeRef<'a>> {
    let armed = |name: &str| {
        let mut armed = lane.wakes.iter();
        let is_it = |((policy, set), _): &(&(usize, String), _)| *policy == at && set == name;
        armed.find(is_it).map(|(_, armed)| armed)
    };
    let running = timers.of(uuid).filter_map(|(key, due)| match key {
        Key::Wake { policy, name, .. } if *policy == at => Some(WakeRef {
            name,
            due,
            drill: armed(name).is_some_and(|armed| armed.drill),
            cause: armed(name).and_then(|armed| armed.cause.as_ref().map(CauseRef::of)),
        }),
        Key::Wake { .. }
        | Key::Overdue(_)
        | Key::Containment { .. }
        | Key::Retry { .. }
        | Key::Quiet { .. } => None,
    });
    let mut wakes: Vec<WakeRef<'_>> = running.collect();
    let fired = lane
        .pending()
        .filter(|pending| pending.signal.kind == SignalKind::Timer && pending.is_first_asked(at));
    for Pending { signal, .. } in fired {
        let Some(name) = text_attr(&signal.attrs, "name") else {
            continue;
        };
        if !wakes.iter().any(|wake| wake.name == name) {
            wakes.push(WakeRef {
                name,
                due: signal.observed_boot,
                drill: signal.drill,
                cause: CauseRef::of_fired(signal),
            });
        }
    }
    wakes
}

/// What a policy remembers that was asked nothing yet.
fn empty(seat: &Seat) -> PolicyMemory {
    PolicyMemory {
        policy: seat.name().clone(),
        schema: seat.info().state_schema,
        state: Arc::default(),
        wakes: Vec::new(),
        failed: Vec::new(),
        kept_until: None,
    }
}

/// Whether there is nothing to remember.
pub(crate) fn is_empty(memory: &PolicyMemory) -> bool {
    memory.state.is_empty() && memory.wakes.is_empty() && memory.failed.is_empty()
}

/// Whether both are one but for the samples, which are not remembered.
fn is_same_fault(a: &Signal, b: &Signal) -> bool {
    let Signal {
        seq,
        device,
        kind,
        code,
        observed_at,
        observed_boot,
        repeats,
        incident,
        root,
        drill,
        instance,
        sources,
        evidence,
        attrs,
        samples: _,
    } = a;
    *seq == b.seq
        && *device == b.device
        && *kind == b.kind
        && *code == b.code
        && *observed_at == b.observed_at
        && *observed_boot == b.observed_boot
        && *repeats == b.repeats
        && *incident == b.incident
        && *root == b.root
        && *drill == b.drill
        && *instance == b.instance
        && *sources == b.sources
        && *evidence == b.evidence
        && *attrs == b.attrs
}

fn without_samples(signal: &Signal) -> Signal {
    Signal {
        samples: None,
        ..signal.clone()
    }
}
