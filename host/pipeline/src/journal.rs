//! What was seen of a GPU lately: what a new version is asked about before it takes a seat (design H6, H9).
//!
//! Signals are taken in when they are committed, with the samples of their evaluation, so that asking
//! about them again gives the same answer. Repeats fold; of a reading the newest counts. What tells of a
//! state (the GPU answers, the recovery action) is kept however old it is, while it is the newest to do
//! so. Timers are not in it: each is the answer to one policy's wish, and no other's to judge. Not
//! durable: after a restart it begins anew.
//!
//! Who is shown it shares the signals with it, so that showing costs a pointer for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::Condition;
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::seating::{DeviceJournal, Revision};
use device_api_core::signal::{Samples, Signal, SignalKind};

use crate::alike::{is_incident, is_same, overtakes, subject_of};

/// A moment on all the scales that something may be compared on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) seq: SignalSeq,
    pub(crate) boot: BootTime,
    pub(crate) wall: WallTime,
}

#[derive(Debug)]
struct Entry {
    signal: Arc<Signal>,
    /// The newest that was folded into it.
    last: Moment,
    /// How many were entered before it, and itself.
    number: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    /// By sequence number.
    entries: Vec<Entry>,
    /// Up to here something may be missing.
    incomplete: Moment,
    /// What was ever in it.
    revision: Revision,
    /// Something of this run was dropped.
    is_cut: bool,
}

impl Journal {
    /// Begins at `start`: what was before is not known.
    pub(crate) fn new(start: Moment) -> Self {
        Self {
            entries: Vec::new(),
            incomplete: start,
            revision: Revision {
                entered: 0,
                newest: start.seq,
            },
            is_cut: false,
        }
    }

    /// Takes a committed signal in; `through`: the newest that was folded into it.
    pub(crate) fn take(&mut self, signal: &Signal, through: SignalSeq, now: Moment) {
        if signal.kind == SignalKind::Timer {
            return;
        }
        self.forget_old(now.boot);
        let last = Moment {
            seq: through.max(signal.seq),
            ..now
        };
        self.revision.newest = self.revision.newest.max(last.seq);
        if let Some(at) = self.repeated_by(signal) {
            if signal.kind == SignalKind::Reading {
                // Of those about one thing the newest alone is kept.
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
        self.revision.entered += 1;
        let entry = Entry {
            signal: Arc::new(signal.clone()),
            last,
            number: self.revision.entered,
        };
        self.entries.insert(at, entry);
    }

    /// A signal was judged again, on other samples.
    pub(crate) fn judged_again(&mut self, seq: SignalSeq, samples: Option<&Arc<Samples>>) {
        if let Some(entry) = self.position(seq).and_then(|at| self.entries.get_mut(at)) {
            Arc::make_mut(&mut entry.signal).samples = samples.cloned();
        }
    }

    /// The one that a signal repeats. A state does so only where it is the newest one told of.
    fn repeated_by(&self, new: &Signal) -> Option<usize> {
        let mut newest_first = self.entries.iter().enumerate().rev();
        let about = subject_of(new);
        let is_about = |entry: &Entry| subject_of(&entry.signal) == about;
        let known = if new.kind == SignalKind::Reading {
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
        let Some(about) = subject_of(&entry.signal) else {
            return false;
        };
        let mut newer = self.entries.iter().skip(at + 1);
        !newer.any(|newer| subject_of(&newer.signal).as_ref() == Some(&about))
    }

    fn drop_one(&mut self, at: usize) {
        let dropped = self.entries.remove(at);
        self.is_cut = true;
        let Moment { seq, boot, wall } = dropped.last;
        let upto = &mut self.incomplete;
        upto.seq = upto.seq.max(seq);
        // From just after it.
        upto.boot = upto.boot.max(BootTime {
            ns: boot.ns.saturating_add(1),
        });
        upto.wall = upto.wall.max(wall);
    }

    /// What is in it, in the order of `seq`, to be judged beside the pipeline.
    pub(crate) fn show(
        &mut self,
        device: Arc<DeviceInfo>,
        conditions: Arc<[Condition]>,
        now: BootTime,
    ) -> DeviceJournal {
        self.forget_old(now);
        let entries = self.entries.iter();
        DeviceJournal {
            device,
            signals: entries.clone().map(|entry| entry.signal.clone()).collect(),
            last_seen: entries.map(|entry| entry.last.boot).collect(),
            revision: self.revision,
            complete_since: self.incomplete.boot,
            is_cut: self.is_cut,
            conditions,
        }
    }

    /// Copies of the signals of those numbers, and of those that tell of the same incidents the first few: as
    /// many as a condition has evidence.
    pub(crate) fn evidence(&self, causes: &[SignalSeq]) -> Vec<Signal> {
        let of_causes = causes.iter().filter_map(|seq| self.signal(*seq));
        let mut room: BTreeMap<IncidentId, usize> = of_causes
            .map(|(signal, _)| (signal.incident, limits::EVIDENCE_PER_CONDITION_MAX))
            .collect();
        let mut is_meant = |signal: &&Signal| {
            let Some(room) = room.get_mut(&signal.incident) else {
                return false;
            };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            fits || causes.contains(&signal.seq)
        };
        let signals = self.entries.iter().map(|entry| &*entry.signal);
        signals.filter(|signal| is_meant(signal)).cloned().collect()
    }

    /// That the GPU answers, where nothing newer says otherwise.
    pub(crate) fn found(&self) -> Option<&Arc<Signal>> {
        let newest_first = || self.entries.iter().rev().map(|entry| &entry.signal);
        let found = newest_first().find(|signal| signal.kind == SignalKind::GpuFound)?;
        let mut newer = newest_first().take_while(|newer| newer.seq > found.seq);
        (!newer.any(|newer| overtakes(newer, found))).then_some(found)
    }

    /// The signal of that number, and when it was seen last.
    pub(crate) fn signal(&self, seq: SignalSeq) -> Option<(&Signal, BootTime)> {
        let found = self.entries.get(self.position(seq)?)?;
        Some((&*found.signal, found.last.boot))
    }

    fn position(&self, seq: SignalSeq) -> Option<usize> {
        let found = self
            .entries
            .binary_search_by_key(&seq, |entry| entry.signal.seq);
        found.ok()
    }

    /// Whether a signal that counts, and is no repeat, came after what was shown.
    pub(crate) fn has_moved(&self, shown: Revision, counts: impl Fn(&Signal) -> bool) -> bool {
        let mut entries = self.entries.iter();
        self.revision.entered > shown.entered
            && entries.any(|entry| entry.number > shown.entered && counts(&entry.signal))
    }

    /// All that is in it of what was shown, each with the newest that was folded into it.
    pub(crate) fn shown(&self, shown: Revision) -> impl Iterator<Item = (&Arc<Signal>, SignalSeq)> {
        let entries = self.entries.iter();
        let shown = entries.filter(move |entry| entry.number <= shown.entered);
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

    /// Whether a condition was said of an incident that is in it: not on a timer, a reading, or a GPU that
    /// answers, of which whoever judges again is not told as it was.
    pub(crate) fn tells_of(&self, condition: &Condition) -> bool {
        let is_its = |entry: &Entry| {
            let signal = &entry.signal;
            is_incident(signal.kind)
                && condition
                    .cause
                    .is_some_and(|cause| signal.seq <= cause && cause <= entry.last.seq)
                && condition
                    .incident
                    .is_none_or(|incident| incident == signal.incident)
        };
        self.entries.iter().any(is_its)
    }
}

/// Whether a condition tells of what came after a journal was shown: of a repeat, or it would have moved.
pub(crate) fn is_news(condition: &Condition, shown: Revision) -> bool {
    condition.cause.is_some_and(|cause| cause > shown.newest)
}

impl Entry {
    fn fold(&mut self, repeat: &Signal, last: Moment) {
        let signal = Arc::make_mut(&mut self.signal);
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
