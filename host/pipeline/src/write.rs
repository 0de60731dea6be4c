//! One write of a GPU: what was decided, what follows from it, and what is remembered with it (design H4).

use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, Condition, PROBING, find, name_on};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::Change;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::Commit;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Verdict, Wake};

use crate::admission::Admission;
use crate::incidents::Save;
use crate::memory::is_same;
use crate::ownerless;
use crate::pipeline::{Shared, State};
use crate::recover::{Ending, recovery_none, returned};
use crate::seats::Bench;
use crate::timers::Key;
use crate::verdicts::{self, Context};
use crate::wakes::{Armed, cause_of};

/// A change of a GPU's conditions.
pub(crate) type Amend<'a> = dyn Fn(&mut Vec<Condition>) + 'a;

/// What is to be written of a GPU, besides what stands.
#[derive(Clone, Copy, Default)]
pub(crate) struct Write<'a> {
    pub(crate) decisions: &'a [(usize, Decision)],
    /// What they are about.
    pub(crate) signals: &'a [Signal],
    /// The signals were committed before: that they came is no news. The wakes that drills alone have set
    /// off.
    pub(crate) again: Option<&'a [String]>,
    /// What changes before the decisions do.
    pub(crate) amend: Option<&'a Amend<'a>>,
    /// What ended what stands no more; `None`: a policy's word.
    pub(crate) ending: Option<&'a Ending>,
}

impl<'a> Write<'a> {
    pub(crate) fn of(signals: &'a [Signal]) -> Self {
        Self {
            signals,
            ..Self::default()
        }
    }
}

/// What became of a timer that a policy asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WakeSet {
    Runs,
    Cancelled,
    /// Too many run.
    Refused,
}

/// One write of a GPU, as the cache asks for it.
struct Writing<'a, 'w> {
    shared: &'a Shared,
    bench: &'a Bench,
    state: &'a mut State,
    uuid: &'a DeviceUuid,
    device: &'a DeviceInfo,
    write: &'a Write<'w>,
    /// The verdicts that became conditions, each with its policy's seat.
    written: Vec<(usize, &'w Verdict)>,
    /// Conditions that a quiet time clears from now on, besides.
    quiet: Vec<(String, BootTime)>,
    /// Policies whose problems the driver's word has ended.
    unasked: Vec<Arc<str>>,
}

impl Commit for Writing<'_, '_> {
    fn change(&mut self, conditions: &mut Vec<Condition>) {
        let Self {
            shared,
            bench,
            uuid,
            device,
            write,
            ..
        } = self;
        let now = shared.clock.wall();
        let (drills, platform) = (shared.config.drills, shared.config.platform);
        if let Some(amend) = write.amend {
            amend(conditions);
        }
        if write.again.is_none() {
            self.unasked = recovery_none::end(conditions, write.signals, now);
        }
        let State {
            lanes, incidents, ..
        } = &mut *self.state;
        let Some(lane) = lanes.get_mut(*uuid) else {
            return;
        };
        let mut admission = Admission {
            recoveries: &lane.recoveries,
            incidents,
            flaps: &mut lane.flaps,
            signals: write.signals,
            again: write.again.is_some(),
            is_gone: condition::is_gone(conditions),
            now: (shared.clock.boot(), now),
            held: Vec::new(),
        };
        for (at, decision) in write.decisions {
            let Some(seat) = bench.get(*at) else {
                continue;
            };
            let context = Context {
                info: seat.info(),
                device,
                signals: write.signals,
                drills,
                platform,
                now,
            };
            let written = verdicts::apply(conditions, decision, context, &mut admission);
            self.written
                .extend(written.into_iter().map(|verdict| (*at, verdict)));
        }
        self.quiet = admission.held;
        let mut news = write.signals.iter().filter(|_| write.again.is_none());
        let (mut is_found, mut is_lost) = (false, false);
        for signal in &mut news {
            is_found |= signal.kind == SignalKind::GpuFound;
            is_lost |= signal.kind == SignalKind::GpuLost;
        }
        if is_found {
            // Judged for the first time since the daemon started: not before, or a reader could be told
            // what is left of an earlier run.
            conditions.retain(|c| !c.is_unobserved());
            ownerless::mark(conditions, bench, now);
            self.quiet
                .extend(returned::mark(conditions, (shared.clock.boot(), now)));
        }
        if is_lost
            && find(conditions, PROBING).is_some_and(|probing| probing.state != Judgement::Ok)
        {
            let probed = Condition::of_host(PROBING, Judgement::Ok, "Probed", now);
            condition::upsert(conditions, probed);
        }
        let floors = &lane.floors;
        floors.publish(conditions, bench, shared.config, (write.ending, now));
    }

    fn remember(&mut self) -> Vec<Change> {
        let Self {
            shared,
            uuid,
            device,
            write,
            ..
        } = self;
        let now = shared.clock.boot();
        shared.plan(self.state, uuid, write, now);
        shared.plan_quiet(self.state, uuid, &self.written, (device, write, now));
        for (condition, due) in self.quiet.drain(..) {
            let uuid = Clone::clone(*uuid);
            shared.set_timer(self.state, Key::Quiet { uuid, condition }, due);
        }
        // With the conditions that name them.
        shared.settle_incidents(self.state, uuid, write, &self.written);
        let mut changes = self.state.incidents.unsaved(Save::News);
        changes.extend(self.state.reserve());
        let memory = shared.memory_of(self.state, uuid);
        let remembered = &mut shared.lane(self.state, uuid).remembered;
        let is_known = remembered
            .as_ref()
            .is_some_and(|known| is_same(known, &memory));
        if !is_known {
            let memory = remembered.insert(memory).clone();
            changes.push(Change::Memory(Clone::clone(*uuid), memory));
        }
        changes
    }
}

impl Shared {
    /// Writes decisions, floors and fallbacks of a GPU into the cache, sets the timers that follow, and
    /// has all of it remembered: one write.
    pub(crate) fn write(&self, state: &mut State, uuid: &DeviceUuid, write: &Write<'_>) {
        let device = self.cache.device(uuid).unwrap_or_else(|| {
            // What was remembered of it was forgotten with the device.
            self.lane(state, uuid).remembered = None;
            Arc::new(DeviceInfo::bare(uuid.clone()))
        });
        let is_gone = |instance: &String| !device.has_instance(instance);
        let floors = &mut self.lane(state, uuid).floors;
        floors.leave_instances(|signal| signal.instance.as_ref().is_some_and(is_gone));
        let bench = state.bench.clone();
        let mut writing = Writing {
            shared: self,
            bench: &bench,
            state,
            uuid,
            device: &device,
            write,
            written: Vec::new(),
            quiet: Vec::new(),
            unasked: Vec::new(),
        };
        self.cache.change(uuid, &mut writing);
        let unasked = std::mem::take(&mut writing.unasked);
        if !unasked.is_empty() {
            self.judge_anew(state, uuid, &unasked, ClearOn::RecoveryNone);
        }
    }

    /// Sets the timers that policies ask for. What drills alone have set off is a drill.
    fn plan(&self, state: &mut State, uuid: &DeviceUuid, write: &Write<'_>, now: BootTime) {
        let by_drills = write.signals.iter().all(|signal| signal.drill);
        let bench = state.bench.clone();
        for (at, decision) in write.decisions {
            let mut refused = 0;
            for wake in &decision.wakes {
                let drill = write
                    .again
                    .map_or(by_drills, |drills| drills.contains(&wake.name));
                let set = self.set_wake(state, uuid, *at, wake, now);
                refused += u64::from(set == WakeSet::Refused);
                let seat = bench.get(*at).filter(|_| set == WakeSet::Runs);
                let armed = seat.map(|seat| Armed {
                    drill,
                    cause: cause_of(&wake.name, (seat.info(), decision), write.signals),
                });
                let wakes = &mut self.lane(state, uuid).wakes;
                let key = (*at, wake.name.clone());
                match armed {
                    Some(armed) => wakes.insert(key, armed),
                    None => wakes.remove(&key),
                };
            }
            self.tell_refused(state, uuid, *at, (refused, by_drills));
        }
    }

    /// Timers were refused. Said each time that there are twice as many: a policy that asks for one more with
    /// each signal must not fill the log.
    fn tell_refused(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        at: usize,
        (refused, drill): (u64, bool),
    ) {
        let Some(slot) = self.lane(state, uuid).slots.get_mut(at) else {
            return;
        };
        let before = slot.wakes_refused;
        slot.wakes_refused = before.saturating_add(refused);
        let refused = slot.wakes_refused;
        if refused.checked_ilog2() != before.checked_ilog2() {
            let policy = state.bench.get(at).map_or("", |seat| seat.name());
            tracing::warn!(gpu = %uuid, policy, refused, drill, max = limits::WAKES_PER_POLICY_MAX, "timers refused: too many run");
        }
    }

    /// Sets the timers of the conditions that a quiet time clears: where a signal was judged again, from
    /// when it was last seen.
    fn plan_quiet(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        written: &[(usize, &Verdict)],
        (device, write, now): (&DeviceInfo, &Write<'_>, BootTime),
    ) {
        for (_, verdict) in written {
            let journal = &self.lane(state, uuid).journal;
            let seen = write.again.and_then(|_| journal.signal(verdict.cause));
            let seen = seen.map_or(now, |(_, seen)| seen);
            let key = Key::Quiet {
                uuid: uuid.clone(),
                condition: named(device, verdict),
            };
            let quiet = verdict
                .clears
                .iter()
                .find(|clear| clear.on == ClearOn::Quiet);
            match quiet.filter(|_| verdict.state == Judgement::Problem) {
                Some(quiet) => self.set_timer(state, key, seen.after(quiet.after)),
                None => state.timers.cancel(&key),
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
    ) -> WakeSet {
        let key = Key::Wake {
            uuid: uuid.clone(),
            policy,
            name: wake.name.clone(),
        };
        if wake.after.is_zero() {
            state.timers.cancel(&key);
            WakeSet::Cancelled
        } else if state.timers.is_set(&key)
            || state.timers.wakes(uuid, policy) < limits::WAKES_PER_POLICY_MAX
        {
            self.set_timer(
                state,
                key,
                now.after(wake.after.clamp(limits::WAKE_MIN, limits::WAKE_MAX)),
            );
            WakeSet::Runs
        } else {
            WakeSet::Refused
        }
    }
}

/// The name of the condition that a verdict has become.
pub(crate) fn named(device: &DeviceInfo, verdict: &Verdict) -> String {
    let instance = verdict.instance.as_deref();
    let instance = instance.filter(|said| *said != device.uuid.as_str());
    name_on(&verdict.condition, instance).into_owned()
}
