//! Incidents: one fault, however many signals from however many sources tell of it (design N5).
//!
//! ```text
//!  first signal ─▶ open ──repeats: counted──▶ open ─┬─ what it raised is cleared ─▶ closed: by what
//!                                                   ├─ a recovery ends it as a fault ─▶ closed: by that
//!                                                   └─ quiet, and nothing of it stands ─▶ closed: quiet
//! ```
//!
//! A policy that clears what it raised on a fault has not ended the fault: that goes on until it is quiet (`ended.rs`).
//!
//! A reading, a timer and a GPU that answers are no faults: what a policy raises on them is an incident for each
//! condition (`raised.rs`). Their own numbers only tell them apart.
//!
//! **Invariant:** a repeat costs two look-ups and allocates nothing, unless somebody lists the incident just then; whatever
//! is kept has a bound.

mod ended;
mod kept;
mod known;
mod listed;
mod raised;
mod record;
mod roots;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use device_api_core::allowance::Allowance;
use device_api_core::clock::BootTime;
use device_api_core::condition::Owner;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::signal::{Observation, Signal};
use device_api_core::verdict::ClearOn;

use crate::alike::is_incident;
use crate::journal::Moment;
pub(crate) use ended::Ended;
pub(crate) use kept::Save;
use known::{Fault, Key, Known, Seen, key};
pub(crate) use raised::Word;
use record::Record;
pub(crate) use record::{Outcome, Raised};
use roots::Latest;

/// How a signal came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) at: Moment,
    pub(crate) drill: bool,
    pub(crate) repeats: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Incidents {
    known: HashMap<DeviceUuid, Known>,
    /// The open ones that are listed.
    open: HashMap<IncidentId, Record>,
    /// The newest last.
    closed: VecDeque<Record>,
    /// Those with something new that the store lacks; one may be there twice, and may be gone.
    news: Vec<IncidentId>,
    /// The store has them, and they are not kept any more.
    gone: Vec<IncidentId>,
    newest: u64,
    swept: BootTime,
    /// Lines of the log about codes that are in no catalogue.
    uncatalogued: Allowance,
}

/// Why an incident is closed whose MIG instance is gone.
const RECONFIGURED: &str = "mig-reconfigured";

/// How often it is looked for incidents that have become quiet.
const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// What part of the open ones makes room at once where there are too many: each look at all of them frees many.
const ROOM_PART: usize = 8;

impl Incidents {
    /// The incident that an observation belongs to, opened if there is none, and the open one that
    /// caused it.
    pub(crate) fn of(
        &mut self,
        device: &DeviceUuid,
        observation: &Observation,
        told: Told,
    ) -> (IncidentId, Option<IncidentId>) {
        let now = told.at.boot;
        let place = (&*observation.attrs, observation.instance.as_deref());
        let key = key(observation.kind, observation.code, place);
        let root = self.root_of(device, (observation, key.fault), now);
        let is_fault = !matches!(key.fault, Fault::Routine(_)) && !is_end(observation);
        let id = match self.going_on(device, key, now) {
            Some(id) => id,
            None => self.begin(device, key, now),
        };
        if is_fault && !self.open.contains_key(&id) {
            self.make_room(told.at);
            self.put(Record::begin(id, device, observation, told));
        } else if is_fault {
            self.change(id, |record| record.repeat(observation, told));
        }
        if let Some(root) = root.filter(|root| *root != id) {
            self.link(id, root);
        }
        if is_fault {
            let latest = Latest::of(key.fault, id, now);
            let asking = Latest::of_asking(key.fault, id, now);
            let known = self.known.entry(device.clone()).or_default();
            known.latest = latest.or(known.latest);
            known.asking = asking.or(known.asking);
        }
        (id, root)
    }

    /// The incident of a fault, where there is one that is not over.
    fn going_on(&mut self, device: &DeviceUuid, key: Key<'_>, now: BootTime) -> Option<IncidentId> {
        let known = self.known.get_mut(device)?;
        let seen = *known.get(key)?;
        let stands = self.open.get(&seen.id).is_some_and(Record::stands);
        if stands || now.since(seen.last) <= limits::INCIDENT_QUIET {
            known.get(key)?.last = now;
            return Some(seen.id);
        }
        if self.open.contains_key(&seen.id) {
            self.close(seen.id, None, ClearOn::Quiet.as_str());
        }
        None
    }

    fn begin(&mut self, device: &DeviceUuid, key: Key<'_>, now: BootTime) -> IncidentId {
        self.newest += 1;
        let id = IncidentId(self.newest);
        let known = self.known.entry(device.clone()).or_default();
        known.put(key, Seen { id, last: now });
        id
    }

    /// The newest number that was given out.
    pub(crate) fn newest(&self) -> IncidentId {
        IncidentId(self.newest)
    }

    /// Numbers of an earlier run are not given out again.
    pub(crate) fn go_on_after(&mut self, used: IncidentId) {
        self.newest = self.newest.max(used.0);
    }

    /// An incident of an earlier run goes on of which a signal was remembered. `is_floored`: something stands on
    /// account of that.
    pub(crate) fn restore(&mut self, signal: &Signal, is_floored: bool) {
        if self.open.contains_key(&signal.incident) {
            if is_floored {
                self.change(signal.incident, Record::be_floored);
                self.note_raiser(&signal.device, signal.incident);
            }
            return;
        }
        let place = (&*signal.attrs, signal.instance.as_deref());
        let key = key(signal.kind, signal.code, place);
        let is_closed = self.closed.iter().any(|it| it.id() == signal.incident);
        if !is_incident(signal.kind) || is_closed && !is_floored {
            return;
        }
        let known = self.known.entry(signal.device.clone()).or_default();
        if known.get(key).is_some() {
            return;
        }
        let (id, last) = (signal.incident, signal.observed_boot);
        known.put(key, Seen { id, last });
        known.raisers.push(id);
        self.go_on_after(id);
        let mut record = self
            .take_closed(id)
            .unwrap_or_else(|| Record::of(signal, true));
        record.be_floored();
        self.put(record);
    }

    /// Begins with an incident, or goes on with one that was over.
    fn put(&mut self, mut record: Record) {
        let id = record.id();
        let line = self.line(&record, None);
        record.open(line);
        self.open.insert(id, record);
        self.news.push(id);
    }

    /// Changes an open one, and notes whether that is news.
    fn change<T>(&mut self, id: IncidentId, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        let record = self.open.get_mut(&id)?;
        let was_news = record.has_news();
        let told = change(record);
        if !was_news && record.has_news() {
            self.news.push(id);
        }
        Some(told)
    }

    /// When an incident was last seen; `None`: it is not known any more, or none.
    pub(crate) fn last_seen(&self, id: IncidentId) -> Option<SignalSeq> {
        let closed = || self.closed.iter().rev().find(|record| record.id() == id);
        let record = self.open.get(&id).or_else(closed)?;
        record.is_fault().then(|| record.last().seq)
    }

    /// When one of the faults that a condition stands for was last seen.
    pub(crate) fn last_behind(&self, device: &DeviceUuid, name: &str) -> Option<SignalSeq> {
        let raisers = self.known.get(device).map(|known| &known.raisers);
        let behind = raisers.into_iter().flatten();
        let behind = behind.filter_map(|id| self.open.get(id));
        let behind = behind.filter(|record| record.is_fault() && record.is_behind(name));
        behind.map(|record| record.last().seq).max()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Takes in what a write of a device has made of its incidents.
    pub(crate) fn settle(&mut self, device: &DeviceUuid, outcome: &Outcome<'_>) {
        for raised in &outcome.said {
            self.raise(device, raised);
        }
        let standing = outcome.conditions.iter();
        let standing = standing.filter(|c| c.is_problem() && c.owner != Owner::Host);
        for condition in standing {
            let id = condition.incident.unwrap_or_default();
            let raise = |record: &mut Record| record.raise(&condition.name());
            if self.change(id, raise).is_some() {
                self.note_raiser(device, id);
            }
        }
        for id in &outcome.floored {
            // A floor that no reset ends is put up for a fault that one has closed.
            let mut signals = outcome.signals.iter();
            let of_it = signals.find(|it| it.incident == *id && is_incident(it.kind));
            if let Some(cause) = of_it.filter(|_| !self.open.contains_key(id)) {
                self.reopen(device, cause);
            }
            if self.open.contains_key(id) {
                self.note_raiser(device, *id);
            }
        }
        let raisers = self.known.get_mut(device).map(|known| &mut known.raisers);
        let raisers = raisers.map(std::mem::take).unwrap_or_default();
        let mut stand = Vec::new();
        for id in raisers {
            match self.change(id, |record| record.still_stands(outcome)) {
                Some(true) => stand.push(id),
                Some(false) if self.is_over(id, outcome) => {
                    self.close(id, Some(outcome.now), outcome.why.as_str());
                }
                Some(false) | None => {}
            }
        }
        if let Some(known) = self.known.get_mut(device) {
            known.raisers = stand;
        }
        for ended in &outcome.ended {
            self.end(device, ended, outcome.now);
        }
    }

    /// Ends what has been quiet, now and then.
    pub(crate) fn sweep_sometimes(&mut self, now: BootTime) -> bool {
        let is_due = now.since(self.swept) >= SWEEP_INTERVAL;
        if is_due {
            self.sweep(now);
        }
        is_due
    }

    fn sweep(&mut self, now: BootTime) {
        self.swept = now;
        let quiet = self.open.values().filter(|record| {
            !record.stands() && now.since(record.last().boot) > limits::INCIDENT_QUIET
        });
        let quiet: Vec<IncidentId> = quiet.map(Record::id).collect();
        for id in quiet {
            self.close(id, None, ClearOn::Quiet.as_str());
        }
    }

    fn make_room(&mut self, now: Moment) {
        if self.open.len() < limits::INCIDENTS_MAX {
            return;
        }
        self.sweep(now.boot);
        if self.open.len() < limits::INCIDENTS_MAX {
            return;
        }
        let mut all: Vec<_> = self.open.values().collect();
        // What nothing stands of first, and of those the longest quiet.
        all.sort_by_key(|record| (record.stands(), record.last().seq));
        let least = all.into_iter().take(limits::INCIDENTS_MAX / ROOM_PART);
        let least: Vec<IncidentId> = least.map(Record::id).collect();
        for id in least {
            self.close(id, Some(now), "room");
        }
    }

    /// MIG instances are gone, and their faults with them.
    pub(crate) fn leave_instances(
        &mut self,
        device: &DeviceUuid,
        is_gone: impl Fn(&str) -> bool,
        now: Moment,
    ) {
        let of_gone = self
            .open
            .values()
            .filter(|record| record.device() == device && record.instance().is_some_and(&is_gone));
        let of_gone: Vec<IncidentId> = of_gone.map(Record::id).collect();
        for id in of_gone {
            self.close(id, Some(now), RECONFIGURED);
        }
        if let Some(known) = self.known.get_mut(device) {
            known.instances.retain(|instance, _| !is_gone(instance));
        }
    }

    /// `at`: `None`: when its quiet time was over.
    fn close(&mut self, id: IncidentId, at: Option<Moment>, why: &str) {
        let Some(mut record) = self.open.remove(&id) else {
            return;
        };
        if let Some(known) = self.known.get_mut(record.device()) {
            let fault = key(record.kind(), record.code(), (&[], None)).fault;
            known.forget((fault, record.instance()), id);
        }
        let line = self.line(&record, at);
        record.close(at, why, line);
        self.put_closed(record);
    }

    /// Whether the log has a line about an incident now; then how many are missing before it.
    fn line(&mut self, record: &Record, at: Option<Moment>) -> Option<u64> {
        if record.is_uncatalogued() {
            let known = record.last().boot.ns.max(self.swept.ns);
            self.uncatalogued.admit(at.map_or(known, |at| at.boot.ns))
        } else {
            Some(0)
        }
    }
}

/// That nothing is asked for any more is the end of an incident, and none of its own.
fn is_end(observation: &Observation) -> bool {
    floor::asks_for_nothing(observation.kind, observation.code, &observation.attrs)
}
