//! The lane of one GPU: its signals in order, at most one batch of them with the policies.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::durable::{DeviceMemory, PolicyMemory};
use device_api_core::ids::{IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::signal::{Observation, Samples, Signal};
use device_api_core::verdict::PolicyState;

use crate::alike::{overtakes, subject, subject_of, telling};
pub(crate) use crate::batch::{Flight, Pending};
use crate::flaps::Flaps;
use crate::floors::Floors;
use crate::journal::{Journal, Moment};
use crate::policy_memory::is_empty;
use crate::readings::Told;
use crate::recover::Over;
use crate::recoveries::Recoveries;
use crate::wakes::Armed;

/// What the host keeps of one policy for one GPU.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) state: Arc<PolicyState>,
    /// Signals that it failed on; tried again with back-off, in their order.
    pub(crate) failed: Vec<Signal>,
    pub(crate) failures: u32,
    /// It has judged that the GPU was found, in this run.
    pub(crate) has_judged_found: bool,
    /// Timers that it asked for beyond those that it may have.
    pub(crate) wakes_refused: u64,
    /// What was remembered last of it: shared with what is remembered next, where that is the same.
    pub(crate) remembered: Option<Arc<PolicyMemory>>,
}

/// A double-bit error and what contains it (design H8).
#[derive(Debug, Default)]
pub(crate) struct Containment {
    /// When a 63 or 94 was last seen.
    pub(crate) contained: Option<BootTime>,
    /// The double-bit error that waits for one.
    pub(crate) double_bit: Option<Signal>,
    /// Policies that have judged it and may lower its floor. Not durable: a run that ends while it waits
    /// leaves the floor unlowered.
    pub(crate) lowered_by: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) flight: Option<Flight>,
    /// Who is to judge the GPU anew, with its next samples (`anew.rs`).
    pub(crate) anew: Option<Pending>,
    /// What asked for a recovery action was ended when the newest one had been read at that time.
    pub(crate) action_ended: Option<WallTime>,
    /// By seat.
    pub(crate) slots: Vec<Slot>,
    /// What policies left behind that have no seat now, or one with another state schema; the one put
    /// away last is last.
    pub(crate) absent: Vec<Arc<PolicyMemory>>,
    pub(crate) journal: Journal,
    pub(crate) floors: Floors,
    pub(crate) recoveries: Recoveries,
    pub(crate) flaps: Flaps,
    /// The newest signal that was decided; older ones may not be yet.
    decided_max: SignalSeq,
    pub(crate) samples: Arc<Samples>,
    pub(crate) told: Told,
    /// Timers of policies that run, by policy and name.
    pub(crate) wakes: HashMap<(usize, String), Armed>,
    /// Of real signals, and of drills: an injected 94 contains no real error.
    pub(crate) real: Containment,
    pub(crate) drilled: Containment,
    /// What was handed over last to be remembered; `None`: nobody knows.
    pub(crate) remembered: Option<DeviceMemory>,
}

impl Lane {
    /// `start`: when the run began.
    pub(crate) fn new(start: Moment) -> Self {
        Self {
            queue: VecDeque::new(),
            flight: None,
            anew: None,
            action_ended: None,
            slots: std::iter::repeat_with(Slot::default)
                .take(limits::POLICIES_MAX)
                .collect(),
            absent: Vec::new(),
            journal: Journal::new(start),
            floors: Floors::default(),
            recoveries: Recoveries::new(start.seq),
            flaps: Flaps::default(),
            decided_max: SignalSeq::default(),
            samples: Arc::default(),
            told: Told::default(),
            wakes: HashMap::new(),
            real: Containment::default(),
            drilled: Containment::default(),
            remembered: None,
        }
    }

    pub(crate) fn containment(&mut self, drill: bool) -> &mut Containment {
        if drill {
            &mut self.drilled
        } else {
            &mut self.real
        }
    }

    /// Folds an observation of an event into a signal that waits and tells of the same, where there is one.
    /// `None`: it is to be queued. Else whether its readers had been let go, and a new bound runs.
    ///
    /// In a storm this is what nearly every observation comes to, so nothing is made or kept of it.
    pub(crate) fn fold(&mut self, repeat: &Repeat<'_>) -> Option<bool> {
        let Repeat {
            observation: new, ..
        } = *repeat;
        if !new.kind.raises_barrier() || subject(new.kind, new.code, &new.attrs).is_some() {
            return None;
        }
        let waiting = self.queue.iter_mut().find(|waiting| {
            let old = &waiting.signal;
            !waiting.alone
                && old.kind == new.kind
                && old.code == new.code
                && old.instance == new.instance
                && old.incident == repeat.incident
                && old.drill == repeat.drill
                && telling(&old.attrs).eq(telling(&new.attrs))
        })?;
        let signal = &mut waiting.signal;
        signal.repeats = signal.repeats.saturating_add(repeat.repeats);
        signal.samples.clone_from(&new.samples);
        if !signal.sources.contains(&new.source) {
            signal.sources.push(new.source.clone());
        }
        waiting.through = waiting.through.max(repeat.seq);
        let was_let_go = waiting.deadline.is_none();
        waiting.deadline = waiting.deadline.or(Some(repeat.deadline));
        Some(was_let_go)
    }

    /// Queues a signal, or folds it into one that waits and tells of the same.
    pub(crate) fn enqueue(&mut self, new: Pending) -> Enqueued {
        // States keep their order: lost, found, lost is not lost twice and then found.
        let mut candidates = match subject_of(&new.signal) {
            Some(_) => self.queue.range_mut(self.queue.len().saturating_sub(1)..),
            None => self.queue.range_mut(..),
        };
        if let Some(waiting) = candidates.find(|waiting| waiting.is_repeat(&new)) {
            waiting.fold(new);
            return Enqueued::Folded;
        }
        if self.queue.len() >= limits::SIGNALS_PENDING_PER_GPU_MAX {
            return Enqueued::Full(Box::new(new));
        }
        self.queue.push_back(new);
        Enqueued::Queued
    }

    /// A newer signal makes void what is to be tried again.
    pub(crate) fn overtake(&mut self, new: &Signal) {
        for slot in &mut self.slots {
            slot.failed.retain(|old| !overtakes(new, old));
        }
        for memory in &mut self.absent {
            if memory.failed.iter().any(|old| overtakes(new, old)) {
                let failed = &mut Arc::make_mut(memory).failed;
                failed.retain(|old| !overtakes(new, old));
            }
        }
    }

    /// Takes a signal's floor into account now, before its turn: what it makes void and has not had its
    /// turn comes too late for that.
    pub(crate) fn floor_now(&mut self, signal: &Signal, over: Over) {
        let flying = self
            .flight
            .iter_mut()
            .flat_map(|flight| flight.batch.iter_mut());
        let older = flying
            .chain(self.queue.iter_mut())
            .filter(|pending| pending.signal.seq < signal.seq);
        for pending in older.filter(|pending| overtakes(signal, &pending.signal)) {
            pending.is_floored = true;
        }
        self.floors.observe(signal, &[], over);
    }

    /// A signal with the samples that it is judged on: its own, or the newest.
    pub(crate) fn sampled(&self, signal: &Signal) -> Signal {
        let samples = signal.samples.as_ref().unwrap_or(&self.samples);
        Signal {
            samples: Some(samples.clone()),
            ..signal.clone()
        }
    }

    /// Whether something newer that waits, to be judged or to be tried again, makes void what a policy
    /// failed on.
    pub(crate) fn is_void(&self, policy: usize, signal: &Signal) -> bool {
        let waiting = self.queue.iter().map(|pending| {
            let newest = pending.through.max(pending.signal.seq);
            (newest, &pending.signal)
        });
        let failed = self.slots.get(policy).into_iter();
        let failed = failed.flat_map(|slot| &slot.failed);
        let failed = failed.map(|failed| (failed.seq, failed));
        waiting
            .chain(failed)
            .any(|(seq, newer)| seq > signal.seq && overtakes(newer, signal))
    }

    /// Keeps a signal that a policy failed on, to be tried again; but for one that is void. Past the
    /// bound what tells of a state takes the place of what does not.
    pub(crate) fn keep_failed(&mut self, policy: usize, signal: &Signal) {
        let is_void = self.is_void(policy, signal);
        let Some(slot) = self.slots.get_mut(policy) else {
            return;
        };
        if is_void || slot.failed.iter().any(|failed| failed.seq == signal.seq) {
            return;
        }
        if slot.failed.len() >= limits::FAILED_PER_POLICY_MAX {
            let least = slot
                .failed
                .iter()
                .position(|failed| subject_of(failed).is_none());
            match least.filter(|_| subject_of(signal).is_some()) {
                Some(least) => slot.failed.remove(least),
                None => return,
            };
        }
        slot.failed.push(signal.clone());
    }

    /// Puts away what a policy leaves behind, in place of what it left with the same schema before. Past
    /// the bound the oldest is dropped.
    pub(crate) fn put_away(&mut self, memory: Arc<PolicyMemory>) {
        drop(self.take_absent(&memory.policy, memory.schema));
        if is_empty(&memory) {
            return;
        }
        if self.absent.len() >= limits::ABSENT_MEMORIES_PER_GPU_MAX {
            self.absent.remove(0);
        }
        self.absent.push(memory);
    }

    /// What a policy left behind with that schema.
    pub(crate) fn take_absent(&mut self, policy: &str, schema: u32) -> Option<Arc<PolicyMemory>> {
        let mut absent = self.absent.iter();
        let at = absent.position(|memory| *memory.policy == *policy && memory.schema == schema)?;
        Some(self.absent.remove(at))
    }

    /// Instances are gone: what was assumed of them is over, and nothing of theirs is asked again. What
    /// waits of theirs is judged, and comes to nothing.
    pub(crate) fn leave_instances(&mut self, is_gone: impl Fn(&str) -> bool) {
        let is_over = |signal: &Signal| signal.instance.as_deref().is_some_and(&is_gone);
        self.floors.leave_instances(is_over);
        self.flaps.leave_instances(&is_gone);
        self.recoveries.leave_instances(&is_gone);
        for slot in &mut self.slots {
            slot.failed.retain(|signal| !is_over(signal));
        }
        for memory in &mut self.absent {
            if memory.failed.iter().any(is_over) {
                let failed = &mut Arc::make_mut(memory).failed;
                failed.retain(|signal| !is_over(signal));
            }
        }
    }

    /// Drops what was left behind and nobody has claimed in all the time that it is kept.
    pub(crate) fn drop_unclaimed(&mut self, now: BootTime) {
        self.absent
            .retain(|memory| memory.kept_until.is_none_or(|until| now < until));
    }

    /// All that is with the policies or waits for them, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Pending> {
        let flying = self.flight.iter().flat_map(|flight| flight.batch.iter());
        flying.chain(self.queue.iter())
    }

    /// The same, and what waits for a look, to be changed.
    pub(crate) fn all_pending(&mut self) -> impl Iterator<Item = &mut Pending> {
        let flying = self.flight.iter_mut();
        let flying = flying.flat_map(|flight| flight.batch.iter_mut());
        flying.chain(self.queue.iter_mut()).chain(&mut self.anew)
    }

    /// Drops what was to be asked again, for its own sake alone, of a policy that is not asked any more.
    pub(crate) fn drop_unasked(&mut self) -> Vec<Signal> {
        let mut dropped = Vec::new();
        self.queue.retain(|pending| {
            let is_asked = !pending.alone || pending.recipients != 0 || pending.deadline.is_some();
            if !is_asked {
                dropped.push(pending.signal.clone());
            }
            is_asked
        });
        dropped
    }

    /// The next batch: signals in order, one alone where it must be.
    pub(crate) fn next_batch(&mut self) -> Vec<Pending> {
        let alone = self.queue.front().is_some_and(|first| first.alone);
        let together = self
            .queue
            .iter()
            .take_while(|pending| !pending.alone)
            .count();
        let count = if alone {
            1
        } else {
            together.min(limits::SIGNALS_PER_CALL_MAX)
        };
        self.queue.drain(..count).collect()
    }

    /// The signals that hold readers and are not decided.
    pub(crate) fn undecided(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.all_pending()
            .filter(|pending| pending.deadline.is_some())
    }

    /// Sequence numbers of all signals that no policy has judged yet, and no fallback stands for.
    pub(crate) fn unjudged(&self) -> impl Iterator<Item = SignalSeq> {
        self.pending()
            .filter(|pending| pending.deadline.is_some() || !pending.signal.kind.raises_barrier())
            .map(|pending| pending.signal.seq)
    }

    /// Up to where all signals are decided, now that those that reached `through` are.
    pub(crate) fn settled_through(&mut self, through: SignalSeq) -> SignalSeq {
        self.decided_max = self.decided_max.max(through);
        let held = self.undecided().map(|pending| pending.signal.seq).min();
        held.map_or(self.decided_max, |held| {
            self.decided_max.min(SignalSeq(held.0.saturating_sub(1)))
        })
    }
}

/// An observation that may repeat what waits.
#[derive(Debug)]
pub(crate) struct Repeat<'a> {
    pub(crate) observation: &'a Observation,
    pub(crate) seq: SignalSeq,
    pub(crate) incident: IncidentId,
    pub(crate) drill: bool,
    pub(crate) repeats: u32,
    pub(crate) deadline: BootTime,
}

/// What became of a signal that was queued.
#[derive(Debug)]
pub(crate) enum Enqueued {
    Queued,
    Folded,
    /// No room: to be decided at once, without the policies.
    Full(Box<Pending>),
}
