//! What policies raise: which incident it is of (design N5).
//!
//! A fault is an incident from its first signal on. A reading, a GPU that answers and a timer are none: what a policy
//! calls a problem on their account is one for each condition, whatever told of it, for as long as it stands. What
//! makes the GPU neither Degraded nor Unhealthy (that an operator has let go of the driver) is no fault.

use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{Judgement, Severity};

use super::Incidents;
use super::known::{Seen, key};
use super::record::{Raised, Record};
use crate::alike::is_incident;
use crate::journal::Moment;

/// What is said of a condition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    /// The condition's name.
    pub(crate) name: &'a str,
    /// UUID of the MIG instance that has it.
    pub(crate) on: Option<&'a str>,
    pub(crate) state: Judgement,
    pub(crate) severity: Severity,
}

impl Word<'_> {
    fn is_fault(&self) -> bool {
        self.state == Judgement::Problem && self.severity != Severity::Info
    }
}

impl Incidents {
    /// The incident that a policy's word on a signal is about. One that begins with it begins here.
    pub(crate) fn told_of(
        &mut self,
        device: &DeviceUuid,
        word: Word<'_>,
        cause: &Signal,
    ) -> Option<IncidentId> {
        if is_incident(cause.kind) {
            return Some(cause.incident);
        }
        if let Some(fault) = self.waited_for(device, word.on, cause) {
            return Some(fault);
        }
        let behind = self.behind(device, word.name);
        behind.or_else(|| word.is_fault().then(|| self.begin_on(device, word, cause)))
    }

    /// Whether an incident is of what was raised on no fault, and may be taken over by one.
    pub(crate) fn is_of_no_fault(&self, incident: Option<IncidentId>) -> bool {
        let record = incident.and_then(|id| self.open.get(&id));
        record.is_some_and(|record| !record.is_fault())
    }

    /// The fault that a timer was set on, while it is not over: that of the instance, where the policy waits with one
    /// timer for several.
    fn waited_for(
        &self,
        device: &DeviceUuid,
        on: Option<&str>,
        timer: &Signal,
    ) -> Option<IncidentId> {
        if timer.kind != SignalKind::Timer {
            return None;
        }
        let set_on = self.open.get(&timer.incident).filter(|it| it.is_fault())?;
        if set_on.instance() == on {
            return Some(timer.incident);
        }
        let is_alike = |id: &&IncidentId| {
            self.open.get(*id).is_some_and(|other| {
                other.kind() == set_on.kind()
                    && other.code() == set_on.code()
                    && other.instance() == on
            })
        };
        let mut standing = self.known.get(device)?.raisers.iter();
        Some(standing.find(is_alike).copied().unwrap_or(timer.incident))
    }

    /// The newest of those that a condition stands for.
    fn behind(&self, device: &DeviceUuid, name: &str) -> Option<IncidentId> {
        let raisers = self.known.get(device)?.raisers.iter();
        let is_behind = |id: &&IncidentId| self.open.get(*id).is_some_and(|it| it.is_behind(name));
        raisers.filter(is_behind).max().copied()
    }

    fn begin_on(&mut self, device: &DeviceUuid, word: Word<'_>, cause: &Signal) -> IncidentId {
        self.newest += 1;
        let id = IncidentId(self.newest);
        self.make_room(Moment {
            seq: cause.seq,
            boot: cause.observed_boot,
            wall: cause.observed_at,
        });
        let mut record = Record::begin_on(id, word.on, cause);
        record.raise(word.name);
        self.put(record);
        self.note_raiser(device, id);
        id
    }

    /// A policy's word on what a signal told of.
    pub(super) fn raise(&mut self, device: &DeviceUuid, raised: &Raised<'_>) {
        let name = raised.name();
        let word = Word {
            name: &name,
            on: raised.instance(),
            state: raised.verdict.state,
            severity: raised.verdict.severity,
        };
        let Some(id) = self.told_of(device, word, raised.cause) else {
            return;
        };
        let is_fault = is_incident(raised.cause.kind);
        if is_fault && raised.is_problem() && !self.open.contains_key(&id) {
            self.reopen(device, raised.cause);
        }
        let noted = self.change(id, |record| {
            record.note(raised);
            if !raised.is_problem() {
                return;
            }
            if !is_fault {
                record.join(raised.cause);
            }
            record.raise(&name);
        });
        if noted.is_none() || !raised.is_problem() {
            return;
        }
        self.note_raiser(device, id);
        if is_fault {
            self.take_over(device, &name, id);
        }
    }

    /// A problem was raised on a fault that was closed since.
    pub(super) fn reopen(&mut self, device: &DeviceUuid, cause: &Signal) {
        let (id, last) = (cause.incident, cause.observed_boot);
        let known = self.known.entry(device.clone()).or_default();
        let place = (&*cause.attrs, cause.instance.as_deref());
        let key = key(cause.kind, cause.code, place);
        if known.get(key).is_none() {
            known.put(key, Seen { id, last });
        }
        let closed = self.take_closed(id);
        self.put(closed.unwrap_or_else(|| Record::of(cause, false)));
    }

    /// A fault is behind a condition: what was raised as the same on a reading, or when the GPU was found, was that
    /// fault already.
    fn take_over(&mut self, device: &DeviceUuid, name: &str, fault: IncidentId) {
        let raisers = self.known.get(device).map(|known| &known.raisers);
        let is_same = |id: &&IncidentId| {
            let record = self.open.get(*id);
            record.is_some_and(|record| !record.is_fault() && record.is_behind(name))
        };
        let Some(same) = raisers.into_iter().flatten().find(is_same).copied() else {
            return;
        };
        if let Some(known) = self.known.get_mut(device) {
            known.raisers.retain(|raiser| *raiser != same);
        }
        let Some(earlier) = self.open.remove(&same) else {
            return;
        };
        self.change(fault, |record| record.take_over(&earlier));
        if earlier.is_kept() {
            self.gone.push(same);
        }
    }

    pub(super) fn note_raiser(&mut self, device: &DeviceUuid, id: IncidentId) {
        let known = self.known.entry(device.clone()).or_default();
        if !known.raisers.contains(&id) {
            known.raisers.push(id);
        }
    }
}
