//! The lane of one GPU: its signals in order, at most one batch of them with the policies.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::durable::PolicyMemory;
use device_api_core::floor;
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::policy::Outcome;
use device_api_core::signal::{Attr, Samples, Signal, SignalKind, Value};
use device_api_core::verdict::PolicyState;

use crate::floors::Floors;
use crate::readings::Told;

/// A signal that waits to be judged, or is being judged.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) signal: Signal,
    /// The newest signal that was folded into it.
    pub(crate) through: SignalSeq,
    /// Bit N: policy N is asked.
    pub(crate) recipients: u32,
    /// When the fallback is written, for signals that hold readers.
    pub(crate) deadline: Option<BootTime>,
    /// To be judged alone: its batch failed, or it failed before.
    pub(crate) alone: bool,
    /// Its floor was taken into account: once, however often it is judged.
    pub(crate) is_floored: bool,
}

/// Attributes that tell faults of one code apart; others (pid, process, …) vary from repeat to repeat.
const TELLING: [&str; 8] = [
    "action",
    "error",
    "error-status",
    "intr-info",
    "key",
    "link",
    "name",
    "unit",
];

impl Pending {
    /// Whether `other` tells of the same thing, so that one may stand for both.
    fn is_repeat(&self, other: &Self) -> bool {
        let (a, b) = (&self.signal, &other.signal);
        !self.alone
            && !other.alone
            && a.kind == b.kind
            && a.code == b.code
            && a.instance == b.instance
            && a.incident == b.incident
            && a.drill == b.drill
            && TELLING
                .iter()
                .all(|key| attr(&a.attrs, key) == attr(&b.attrs, key))
    }

    /// Takes a repeat in. Of a reading the newest value counts.
    fn fold(&mut self, repeat: Self) {
        self.signal.repeats = self.signal.repeats.saturating_add(repeat.signal.repeats);
        self.through = self.through.max(repeat.through);
        self.recipients |= repeat.recipients;
        self.deadline = self.deadline.or(repeat.deadline);
        self.signal.samples = repeat.signal.samples;
        if self.signal.kind == SignalKind::Reading {
            self.signal.attrs = repeat.signal.attrs;
        }
        for source in repeat.signal.sources {
            if !self.signal.sources.contains(&source) {
                self.signal.sources.push(source);
            }
        }
    }
}

fn attr<'a>(attrs: &'a [Attr], key: &str) -> Option<&'a Value> {
    attrs
        .iter()
        .find(|attr| attr.key == key)
        .map(|attr| &attr.value)
}

/// What a signal tells the newest state of, so that a newer one makes an older one void.
#[derive(Debug, PartialEq)]
enum Subject<'a> {
    /// Whether the GPU answers.
    Presence,
    RecoveryAction,
    Reading(Option<&'a Value>),
    Timer(Option<&'a Value>),
}

fn subject(signal: &Signal) -> Option<Subject<'_>> {
    match (signal.kind, signal.code) {
        (SignalKind::GpuLost | SignalKind::GpuFound, _) => Some(Subject::Presence),
        (SignalKind::RecoveryAction, _) | (SignalKind::Xid, Some(floor::XID_RECOVERY_ACTION)) => {
            Some(Subject::RecoveryAction)
        }
        (SignalKind::Reading, _) => Some(Subject::Reading(attr(&signal.attrs, "key"))),
        (SignalKind::Timer, _) => Some(Subject::Timer(attr(&signal.attrs, "name"))),
        (SignalKind::Xid | SignalKind::Sxid | SignalKind::Ecc, _) => None,
    }
}

/// Whether `new` makes `old` void. A drill makes nothing real void.
fn overtakes(new: &Signal, old: &Signal) -> bool {
    subject(new).is_some_and(|about| subject(old) == Some(about)) && (old.drill || !new.drill)
}

/// A batch that the policies have.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) batch: Vec<Pending>,
    /// Bit N: policy N has not answered yet.
    pub(crate) outstanding: u32,
    pub(crate) outcomes: Vec<(usize, Outcome)>,
    pub(crate) started: BootTime,
}

/// What the host keeps of one policy for one GPU.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) state: PolicyState,
    /// Signals that it failed on, oldest first; tried again with back-off.
    pub(crate) failed: Vec<Signal>,
    pub(crate) failures: u32,
}

/// A double-bit error and what contains it (design H8).
#[derive(Debug, Default)]
pub(crate) struct Containment {
    /// When a 63 or 94 was last seen.
    pub(crate) contained: Option<BootTime>,
    /// The double-bit error that waits for one.
    pub(crate) double_bit: Option<Signal>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) flight: Option<Flight>,
    pub(crate) slots: Vec<Slot>,
    /// What policies left behind that are not loaded now.
    pub(crate) absent: Vec<PolicyMemory>,
    pub(crate) floors: Floors,
    /// The newest signal that was decided; older ones may not be yet.
    decided_max: SignalSeq,
    pub(crate) samples: Arc<Samples>,
    pub(crate) told: Told,
    /// Timers that drills have set, by policy and name: what they bring is a drill too.
    pub(crate) drill_wakes: HashSet<(usize, String)>,
    /// Of real signals, and of drills: an injected 94 contains no real error.
    pub(crate) real: Containment,
    pub(crate) drilled: Containment,
}

impl Lane {
    pub(crate) fn new(policies: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            flight: None,
            slots: std::iter::repeat_with(Slot::default)
                .take(policies)
                .collect(),
            absent: Vec::new(),
            floors: Floors::default(),
            decided_max: SignalSeq::default(),
            samples: Arc::default(),
            told: Told::default(),
            drill_wakes: HashSet::new(),
            real: Containment::default(),
            drilled: Containment::default(),
        }
    }

    pub(crate) fn containment(&mut self, drill: bool) -> &mut Containment {
        if drill {
            &mut self.drilled
        } else {
            &mut self.real
        }
    }

    /// Queues a signal, or folds it into one that waits and tells of the same.
    pub(crate) fn enqueue(&mut self, new: Pending) -> Enqueued {
        // States keep their order: lost, found, lost is not lost twice and then found.
        let mut candidates = match subject(&new.signal) {
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
    }

    /// Keeps a signal that a policy failed on, to be tried again; but for one that something newer in
    /// the queue makes void. Past the bound what tells of a state takes the place of what does not.
    pub(crate) fn keep_failed(&mut self, policy: usize, signal: &Signal) {
        let is_void = self
            .queue
            .iter()
            .any(|newer| overtakes(&newer.signal, signal));
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
                .position(|failed| subject(failed).is_none());
            match least.filter(|_| subject(signal).is_some()) {
                Some(least) => slot.failed.remove(least),
                None => return,
            };
        }
        slot.failed.push(signal.clone());
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

    /// The signals that hold readers and are not decided, oldest first.
    pub(crate) fn undecided(&mut self) -> impl Iterator<Item = &mut Pending> {
        let flying = self
            .flight
            .iter_mut()
            .flat_map(|flight| flight.batch.iter_mut());
        flying
            .chain(self.queue.iter_mut())
            .filter(|pending| pending.deadline.is_some())
    }

    /// Sequence numbers of all signals that no policy has judged yet, and no fallback stands for.
    pub(crate) fn unjudged(&mut self) -> impl Iterator<Item = SignalSeq> {
        let flying = self.flight.iter().flat_map(|flight| flight.batch.iter());
        flying
            .chain(self.queue.iter())
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

/// What became of a signal that was queued.
#[derive(Debug)]
pub(crate) enum Enqueued {
    Queued,
    Folded,
    /// No room: to be decided at once, without the policies.
    Full(Box<Pending>),
}
