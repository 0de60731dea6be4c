//! The lane of one GPU: its signals in order, at most one batch of them with the policies.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::policy::Outcome;
use device_api_core::signal::{Samples, Signal, text_attr};
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
}

impl Pending {
    /// Whether `other` tells of the same thing, so that one may stand for both.
    fn is_repeat(&self, other: &Self) -> bool {
        let (a, b) = (&self.signal, &other.signal);
        !self.alone
            && a.kind == b.kind
            && a.code == b.code
            && a.instance == b.instance
            && a.incident == b.incident
            && a.drill == b.drill
            && ["key", "name", "error"]
                .iter()
                .all(|key| text_attr(&a.attrs, key) == text_attr(&b.attrs, key))
    }
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

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue: VecDeque<Pending>,
    pub(crate) flight: Option<Flight>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) floors: Floors,
    /// The newest signal that was decided; older ones may not be yet.
    decided: SignalSeq,
    pub(crate) samples: Arc<Samples>,
    pub(crate) told: Told,
    /// Timers that drills have set, by policy and name: what they bring is a drill too.
    pub(crate) drill_wakes: HashSet<(usize, String)>,
    /// When a 63 or 94 was last seen.
    pub(crate) contained: Option<BootTime>,
    /// The double-bit error that waits for one.
    pub(crate) double_bit: Option<Signal>,
}

impl Lane {
    pub(crate) fn new(policies: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            flight: None,
            slots: std::iter::repeat_with(Slot::default)
                .take(policies)
                .collect(),
            floors: Floors::default(),
            decided: SignalSeq::default(),
            samples: Arc::default(),
            told: Told::default(),
            drill_wakes: HashSet::new(),
            contained: None,
            double_bit: None,
        }
    }

    /// Queues a signal, or folds it into one that waits and tells of the same.
    pub(crate) fn enqueue(&mut self, new: Pending) -> Enqueued {
        if let Some(waiting) = self
            .queue
            .iter_mut()
            .find(|waiting| waiting.is_repeat(&new))
        {
            waiting.signal.repeats = waiting.signal.repeats.saturating_add(new.signal.repeats);
            waiting.through = waiting.through.max(new.through);
            waiting.recipients |= new.recipients;
            for source in new.signal.sources {
                if !waiting.signal.sources.contains(&source) {
                    waiting.signal.sources.push(source);
                }
            }
            return Enqueued::Folded;
        }
        if self.queue.len() >= limits::SIGNALS_PENDING_PER_GPU_MAX {
            return Enqueued::Full(Box::new(new));
        }
        self.queue.push_back(new);
        Enqueued::Queued
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

    /// Up to where all signals are decided, now that those that reached `through` are.
    pub(crate) fn settle(&mut self, through: SignalSeq) -> SignalSeq {
        self.decided = self.decided.max(through);
        let held = self.undecided().map(|pending| pending.signal.seq).min();
        held.map_or(self.decided, |held| {
            self.decided.min(SignalSeq(held.0.saturating_sub(1)))
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
