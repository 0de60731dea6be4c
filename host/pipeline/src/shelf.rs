//! What was seen before anybody knew whose it is: the kernel log is read before NVML answers.
//!
//! Repeats fold, so that a storm of one GPU leaves room for the only fault of another. The log is not
//! decided while something that it told lies here (design C7): a restart would read it again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::allowance::Allowance;
use device_api_core::clock::BootTime;
use device_api_core::limits;
use device_api_core::signal::{Observation, SignalKind, Source, Target, printable};
use device_api_core::verdict::Severity;
use device_api_core::xid;

use crate::alike::{Subject, subject, telling};

/// How long something that has no device holds the log's position. NVML is looked for every few
/// seconds, and a driver that was just loaded takes minutes at most; held for ever, each restart would
/// raise again what the log told of *other* GPUs and was cleared since.
const HOLD_MAX: Duration = Duration::from_mins(10);

/// How much an observation is worth keeping: one of a state most, since without it an older one would
/// pass for the newest; of the others, what the vendor says.
type Worth = (bool, Severity, Action);

#[derive(Debug)]
struct Shelved {
    observation: Observation,
    repeats: u32,
    /// When the first of them was seen.
    since: BootTime,
    /// In the order of arrival, over all targets.
    arrival: u64,
    /// Of all that its repeats have in common.
    hash: u64,
    worth: Worth,
    /// It holds the log's position.
    holds: bool,
}

#[derive(Debug)]
struct Group {
    target: Target,
    items: Vec<Shelved>,
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    groups: Vec<Group>,
    len: usize,
    arrivals: u64,
    /// Something that the log told was dropped: it must be read again for it.
    has_dropped: bool,
    /// Lines of the log about targets that are new.
    lines: Allowance,
}

impl Shelf {
    /// Keeps an observation until its device is known. Past [`limits::UNATTRIBUTED_MAX`] the mildest
    /// of the target with the most makes room.
    pub(crate) fn put(&mut self, observation: Observation, now: BootTime) {
        let hash = hash_of(&observation);
        let group = match self
            .groups
            .iter()
            .position(|group| group.target == observation.target)
        {
            Some(at) => self.groups.get_mut(at),
            None => {
                self.tell_of_new(&observation, now);
                let (target, items) = (observation.target.clone(), Vec::new());
                self.groups.push(Group { target, items });
                self.groups.last_mut()
            }
        };
        let Some(group) = group else { return };
        if let Some(known) = group.repeated_by(&observation, hash) {
            known.repeats = known.repeats.saturating_add(1);
            return;
        }
        group.items.push(Shelved {
            repeats: 1,
            since: now,
            arrival: self.arrivals,
            hash,
            worth: worth_of(&observation),
            holds: observation.source == Source::Kmsg,
            observation,
        });
        self.arrivals += 1;
        self.len += 1;
        if self.len > limits::UNATTRIBUTED_MAX {
            self.drop_one();
        }
    }

    /// The first of a target has a line, so that a fault of a GPU which NVML never shows is in the log.
    fn tell_of_new(&mut self, first: &Observation, now: BootTime) {
        if let Some(suppressed) = self.lines.admit(now.ns) {
            let Observation {
                target,
                evidence,
                drill,
                ..
            } = first;
            let evidence = printable(evidence, limits::EVIDENCE_BYTES_MAX);
            tracing::info!(gpu = %target, evidence, suppressed, drill, "told of a GPU that is not known yet; kept until NVML shows it");
        }
    }

    /// Takes, in the order in which they were first seen, what is of one device: each with how often.
    pub(crate) fn take(&mut self, is_its: impl Fn(&Target) -> bool) -> Vec<(Observation, u32)> {
        let groups = std::mem::take(&mut self.groups);
        let (mine, rest): (Vec<_>, _) = groups.into_iter().partition(|group| is_its(&group.target));
        self.groups = rest;
        let mut mine: Vec<Shelved> = mine.into_iter().flat_map(|group| group.items).collect();
        self.len -= mine.len();
        mine.sort_by_key(|shelved| shelved.arrival);
        let taken = mine.into_iter();
        taken
            .map(|shelved| (shelved.observation, shelved.repeats))
            .collect()
    }

    /// Whether the log must be read again for something that lies here, or was dropped. What has lain
    /// here for [`HOLD_MAX`] is told of, once, and stays.
    pub(crate) fn holds_log(&mut self, now: BootTime) -> bool {
        let mut is_held = self.has_dropped;
        let items = self.groups.iter_mut().flat_map(|group| &mut group.items);
        for shelved in items.filter(|shelved| shelved.holds) {
            shelved.holds = now.since(shelved.since) < HOLD_MAX;
            if !shelved.holds {
                let Observation {
                    target, evidence, ..
                } = &shelved.observation;
                let evidence = printable(evidence, limits::EVIDENCE_BYTES_MAX);
                tracing::warn!(gpu = %target, evidence, repeats = shelved.repeats, drill = shelved.observation.drill, "told of a GPU that is still unknown; kept until it is found, but not over a restart");
            }
            is_held |= shelved.holds;
        }
        is_held
    }

    fn drop_one(&mut self) {
        let largest = self.groups.iter_mut().max_by_key(|group| group.items.len());
        let Some(largest) = largest else { return };
        // The newest of the mildest: what came first is the likelier cause.
        let newest_first = largest.items.iter().enumerate().rev();
        let Some((least, _)) = newest_first.min_by_key(|(_, shelved)| shelved.worth) else {
            return;
        };
        let dropped = largest.items.remove(least);
        self.len -= 1;
        if dropped.holds && !self.has_dropped {
            self.has_dropped = true;
            tracing::warn!(gpu = %dropped.observation.target, drill = dropped.observation.drill, max = limits::UNATTRIBUTED_MAX, "more different signals than are kept of GPUs that are not known yet; the kernel log is read again from before them after a restart");
        }
    }
}

impl Group {
    /// What an observation repeats. A state does so only where it is the newest one told of.
    fn repeated_by(&mut self, new: &Observation, hash: u64) -> Option<&mut Shelved> {
        let about = subject_of(new);
        let newest_first = self.items.iter_mut().rev();
        let known = match &about {
            Some(about) => newest_first
                .filter(|known| subject_of(&known.observation).as_ref() == Some(about))
                .take(1)
                .find(|known| known.hash == hash),
            None => newest_first
                .filter(|known| known.hash == hash)
                .find(|known| subject_of(&known.observation).is_none()),
        };
        known.filter(|known| is_alike(&known.observation, new))
    }
}

fn subject_of(observation: &Observation) -> Option<Subject<'_>> {
    subject(observation.kind, observation.code, &observation.attrs)
}

fn is_alike(a: &Observation, b: &Observation) -> bool {
    a.kind == b.kind
        && a.code == b.code
        && a.instance == b.instance
        && a.drill == b.drill
        && a.source == b.source
        && telling(&a.attrs).eq(telling(&b.attrs))
}

fn hash_of(observation: &Observation) -> u64 {
    let mut hasher = DefaultHasher::new();
    observation.kind.hash(&mut hasher);
    observation.code.hash(&mut hasher);
    observation.instance.hash(&mut hasher);
    observation.drill.hash(&mut hasher);
    observation.source.hash(&mut hasher);
    for value in telling(&observation.attrs) {
        // A value has no hash of its own: it may be a real number.
        format!("{value:?}").hash(&mut hasher);
    }
    hasher.finish()
}

fn worth_of(observation: &Observation) -> Worth {
    let is_state = subject_of(observation).is_some();
    match (observation.kind, observation.code) {
        (SignalKind::Xid, Some(code)) => {
            let class = xid::vendor_class(code);
            (is_state, class.severity, class.action)
        }
        _ => (is_state, Severity::Warning, Action::None),
    }
}
