//! One write of a GPU: what was decided, what follows from it, and what is remembered with it (design H4).

use device_api_core::clock::BootTime;
use device_api_core::condition::{self, Condition, PROBING, find};
use device_api_core::durable::DeviceMemory;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::Commit;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{ClearOn, Decision, Judgement, Verdict, Wake};

use crate::memory::is_same;
use crate::ownerless;
use crate::pipeline::{Shared, State};
use crate::seats::Bench;
use crate::timers::Key;
use crate::verdicts::{self, Context};

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
struct Writing<'a> {
    shared: &'a Shared,
    bench: &'a Bench,
    state: &'a mut State,
    uuid: &'a DeviceUuid,
    write: &'a Write<'a>,
    /// The verdicts that became conditions.
    written: Vec<&'a Verdict>,
}

impl Commit for Writing<'_> {
    fn change(&mut self, conditions: &mut Vec<Condition>) {
        let Self {
            shared,
            bench,
            uuid,
            write,
            ..
        } = *self;
        let now = shared.clock.wall();
        let (drills, platform) = (shared.config.drills, shared.config.platform);
        if let Some(amend) = write.amend {
            amend(conditions);
        }
        for (at, decision) in write.decisions {
            let Some(seat) = bench.get(*at) else {
                continue;
            };
            let context = Context {
                info: seat.info(),
                signals: write.signals,
                drills,
                platform,
                now,
            };
            self.written
                .extend(verdicts::apply(conditions, decision, context));
        }
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
        }
        if is_lost
            && find(conditions, PROBING).is_some_and(|probing| probing.state != Judgement::Ok)
        {
            let probed = Condition::of_host(PROBING, Judgement::Ok, "Probed", now);
            condition::upsert(conditions, probed);
        }
        let floors = &shared.lane(self.state, uuid).floors;
        floors.publish(conditions, bench, shared.config, now);
    }

    fn remember(&mut self) -> Option<DeviceMemory> {
        let Self {
            shared,
            uuid,
            write,
            ..
        } = *self;
        let now = shared.clock.boot();
        shared.plan(self.state, uuid, write, now);
        shared.plan_quiet(self.state, uuid, &self.written, (write, now));
        let memory = shared.memory_of(self.state, uuid);
        let remembered = &mut shared.lane(self.state, uuid).remembered;
        let is_known = remembered
            .as_ref()
            .is_some_and(|known| is_same(known, &memory));
        (!is_known).then(|| remembered.insert(memory).clone())
    }
}

impl Shared {
    /// Writes decisions, floors and fallbacks of a GPU into the cache, sets the timers that follow, and
    /// has all of it remembered: one write.
    pub(crate) fn write(&self, state: &mut State, uuid: &DeviceUuid, write: &Write<'_>) {
        if self.cache.device(uuid).is_none() {
            // It was forgotten with the device.
            self.lane(state, uuid).remembered = None;
        }
        let bench = state.bench.clone();
        let mut writing = Writing {
            shared: self,
            bench: &bench,
            state,
            uuid,
            write,
            written: Vec::new(),
        };
        self.cache.change(uuid, &mut writing);
    }

    /// Sets the timers that policies ask for. What drills alone have set off is a drill.
    fn plan(&self, state: &mut State, uuid: &DeviceUuid, write: &Write<'_>, now: BootTime) {
        let by_drills = write.signals.iter().all(|signal| signal.drill);
        for (at, decision) in write.decisions {
            let mut refused = 0;
            for wake in &decision.wakes {
                let drill = write
                    .again
                    .map_or(by_drills, |drills| drills.contains(&wake.name));
                let set = self.set_wake(state, uuid, *at, wake, now);
                refused += u64::from(set == WakeSet::Refused);
                let wakes = &mut self.lane(state, uuid).drill_wakes;
                let key = (*at, wake.name.clone());
                if drill && set == WakeSet::Runs {
                    wakes.insert(key)
                } else {
                    wakes.remove(&key)
                };
            }
            self.tell_refused(state, uuid, *at, refused);
        }
    }

    /// Timers were refused. Said each time that there are twice as many: a policy that asks for one more with
    /// each signal must not fill the log.
    fn tell_refused(&self, state: &mut State, uuid: &DeviceUuid, at: usize, refused: u64) {
        let Some(slot) = self.lane(state, uuid).slots.get_mut(at) else {
            return;
        };
        let before = slot.wakes_refused;
        slot.wakes_refused = before.saturating_add(refused);
        let refused = slot.wakes_refused;
        if refused.checked_ilog2() != before.checked_ilog2() {
            let policy = state.bench.get(at).map_or("", |seat| seat.name());
            tracing::warn!(gpu = %uuid, policy, refused, max = limits::WAKES_PER_POLICY_MAX, "timers refused: too many run");
        }
    }

    /// Sets the timers of the conditions that a quiet time clears: where a signal was judged again, from
    /// when it was last seen.
    fn plan_quiet(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        written: &[&Verdict],
        (write, now): (&Write<'_>, BootTime),
    ) {
        for verdict in written {
            let journal = &self.lane(state, uuid).journal;
            let seen = write.again.and_then(|_| journal.signal(verdict.cause));
            let seen = seen.map_or(now, |(_, seen)| seen);
            let key = Key::Quiet {
                uuid: uuid.clone(),
                condition: verdict.condition.clone(),
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
