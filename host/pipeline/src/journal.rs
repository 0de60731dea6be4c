//! What was seen of a GPU lately: what a new version is asked about before it takes a seat (design H6, H9).
//!
//! Signals are taken in when they are committed, with the samples of their evaluation, so that asking
//! about them again gives the same answer. Repeats fold; of a reading, and of a timer, the newest
//! counts. What tells of a state (the GPU answers, the recovery action) is kept however old it is,
//! while it is the newest to do so. Not durable: after a restart it begins anew.

use std::sync::Arc;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::Condition;
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::signal::{Samples, Signal, SignalKind};

use crate::alike::{is_same, subject_of};

/// A moment on all the scales that something may be compared on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) seq: SignalSeq,
    pub(crate) boot: BootTime,
    pub(crate) wall: WallTime,
}

#[derive(Debug)]
struct Entry {
    signal: Signal,
    /// The newest that was folded into it.
    last: Moment,
    /// It came after newer ones, and nobody was shown it yet.
    is_late: bool,
}

#[derive(Debug)]
pub(crate) struct Journal {
    /// By sequence number.
    entries: Vec<Entry>,
    /// Up to here something may be missing.
    incomplete: Moment,
    /// The newest, repeats included, when it was last shown.
    shown: SignalSeq,
}

impl Journal {
    /// Begins at `start`: what was before is not known.
    pub(crate) fn new(start: Moment) -> Self {
        Self {
            entries: Vec::new(),
            incomplete: start,
            shown: start.seq,
        }
    }

    /// Takes a committed signal in; `through`: the newest that was folded into it.
    pub(crate) fn take(&mut self, signal: &Signal, through: SignalSeq, now: Moment) {
        self.forget_old(now.boot);
        let last = Moment {
            seq: through.max(signal.seq),
            ..now
        };
        if let Some(at) = self.repeated_by(signal) {
            if is_newest_alone(signal.kind) {
                self.entries.remove(at);
            } else {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.fold(signal, last);
                }
                return;
            }
        }
        if self.entries.len() >= limits::JOURNAL_SIGNALS_PER_GPU_MAX {
            self.make_room();
        }
        let at = self
            .entries
            .partition_point(|entry| entry.signal.seq < signal.seq);
        let entry = Entry {
            signal: signal.clone(),
            last,
            is_late: at < self.entries.len(),
        };
        self.entries.insert(at, entry);
    }

    /// A signal was judged again, on other samples.
    pub(crate) fn judged_again(&mut self, seq: SignalSeq, samples: Option<&Arc<Samples>>) {
        let known = self.entries.iter_mut();
        for entry in known.filter(|entry| entry.signal.seq == seq) {
            entry.signal.samples = samples.cloned();
        }
    }

    /// The one that a signal repeats. A state does so only where it is the newest one told of.
    fn repeated_by(&self, new: &Signal) -> Option<usize> {
        let mut newest_first = self.entries.iter().enumerate().rev();
        let about = subject_of(new);
        let is_about = |entry: &Entry| subject_of(&entry.signal) == about;
        let known = if is_newest_alone(new.kind) {
            // Whatever its value, and its incident.
            newest_first.find(|(_, entry)| entry.signal.drill == new.drill && is_about(entry))
        } else if about.is_some() {
            let newest = newest_first.find(|(_, entry)| is_about(entry));
            newest.filter(|(_, entry)| is_same(&entry.signal, new))
        } else {
            newest_first.find(|(_, entry)| is_same(&entry.signal, new))
        };
        known.map(|(at, _)| at)
    }

    /// Past the bound the oldest event goes; of what tells of a state the oldest that a newer one follows.
    fn make_room(&mut self) {
        let least = (0..self.entries.len())
            .find(|at| !self.is_state_now(*at))
            .unwrap_or_default();
        self.drop_one(least);
    }

    fn forget_old(&mut self, now: BootTime) {
        let is_old = |entry: &Entry| now.since(entry.last.boot) > limits::JOURNAL_AGE_MAX;
        while let Some(at) = (0..self.entries.len())
            .find(|at| self.entries.get(*at).is_some_and(is_old) && !self.is_state_now(*at))
        {
            self.drop_one(at);
        }
    }

    /// Whether nothing newer tells of the state that it tells of.
    fn is_state_now(&self, at: usize) -> bool {
        let Some(entry) = self.entries.get(at) else {
            return false;
        };
        let Some(about) =
            subject_of(&entry.signal).filter(|_| entry.signal.kind != SignalKind::Timer)
        else {
            return false;
        };
        let mut newer = self.entries.iter().skip(at + 1);
        !newer.any(|newer| subject_of(&newer.signal).as_ref() == Some(&about))
    }

    fn drop_one(&mut self, at: usize) {
        let dropped = self.entries.remove(at);
        let Moment { seq, boot, wall } = dropped.last;
        let upto = &mut self.incomplete;
        upto.seq = upto.seq.max(seq);
        // From just after it.
        upto.boot = upto.boot.max(BootTime {
            ns: boot.ns.saturating_add(1),
        });
        upto.wall = upto.wall.max(wall);
    }

    /// What is in it, in the order of `seq`. From here on what comes late counts as having moved on.
    pub(crate) fn show(&mut self, now: BootTime) -> Arc<[Signal]> {
        self.forget_old(now);
        for entry in &mut self.entries {
            entry.is_late = false;
            self.shown = self.shown.max(entry.last.seq);
        }
        self.signals()
    }

    pub(crate) fn signals(&self) -> Arc<[Signal]> {
        self.entries
            .iter()
            .map(|entry| entry.signal.clone())
            .collect()
    }

    pub(crate) fn complete_since(&self) -> BootTime {
        self.incomplete.boot
    }

    /// Whether a signal that is no repeat came after what was shown up to `through`.
    pub(crate) fn has_moved(&self, through: SignalSeq) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.is_late || entry.signal.seq > through)
    }

    /// All that is in it up to `through`, each with the newest that was folded into it.
    pub(crate) fn until(&self, through: SignalSeq) -> impl Iterator<Item = (&Signal, SignalSeq)> {
        let shown = self
            .entries
            .iter()
            .filter(move |entry| entry.signal.seq <= through);
        shown.map(|entry| (&entry.signal, entry.last.seq))
    }

    /// Whether a problem arose when nothing was missing here: by the signal that caused it, and by its
    /// time, since what stands since earlier may have been seen again.
    pub(crate) fn saw_begin(&self, problem: &Condition) -> bool {
        problem
            .cause
            .is_some_and(|cause| cause > self.incomplete.seq)
            && problem.transition >= self.incomplete.wall
    }

    /// Whether a condition tells of what came after the journal was last shown: of a repeat, or it would
    /// have moved.
    pub(crate) fn is_news(&self, condition: &Condition) -> bool {
        condition.cause.is_some_and(|cause| cause > self.shown)
    }
}

/// Whether of such signals about one thing the newest alone is kept.
fn is_newest_alone(kind: SignalKind) -> bool {
    matches!(kind, SignalKind::Reading | SignalKind::Timer)
}

impl Entry {
    fn fold(&mut self, repeat: &Signal, last: Moment) {
        let signal = &mut self.signal;
        signal.repeats = signal.repeats.saturating_add(repeat.repeats);
        signal.samples.clone_from(&repeat.samples);
        for source in &repeat.sources {
            if !signal.sources.contains(source) {
                signal.sources.push(source.clone());
            }
        }
        self.last = last;
    }
}
