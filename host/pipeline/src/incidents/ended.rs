//! What ends faults as such, whether or not anybody judged them (design N7).
//!
//! Which signal of a batch a policy names as the cause is chance, as far as operators can tell. So what a reset ends
//! does not hang on it: each fault that was seen up to the reset and of which nothing stands is over, and what is
//! seen after it is new.

use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::limits;
use device_api_core::signal::SignalKind;
use device_api_core::verdict::ClearOn;

use super::known::{Fault, key};
use super::record::Record;
use super::{Incidents, Outcome};
use crate::journal::Moment;

/// An event, and up to where faults are over by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) event: ClearOn,
    pub(crate) through: SignalSeq,
    /// It ends nothing real.
    pub(crate) drill: bool,
}

impl Incidents {
    /// Whether an event would close an incident of a device.
    pub(crate) fn is_ended(&self, device: &DeviceUuid, ended: &Ended) -> bool {
        self.ended(device, ended).next().is_some()
    }

    fn ended<'a>(
        &'a self,
        device: &'a DeviceUuid,
        ended: &'a Ended,
    ) -> impl Iterator<Item = IncidentId> + 'a {
        let its = self.open.values();
        let its = its.filter(move |it| it.device() == device && !it.stands());
        its.filter(|it| ended.ends(it)).map(Record::id)
    }

    /// Closes what is over by an event. What follows is the consequence of none of that.
    pub(super) fn end(&mut self, device: &DeviceUuid, ended: &Ended, now: Moment) {
        let over: Vec<IncidentId> = self.ended(device, ended).collect();
        for id in over {
            self.close(id, Some(now), ended.event.as_str());
        }
        if let Some(known) = self.known.get_mut(device) {
            known.latest = known.latest.filter(|it| self.open.contains_key(&it.id));
            known.asking = known.asking.filter(|it| self.open.contains_key(&it.id));
        }
    }

    /// Nothing of an incident stands any more: whether it is over by that. A policy's word, and the quiet that it
    /// asks for, are on what it raised; the fault goes on for as long as any other of which nothing stands.
    pub(super) fn is_over(&self, id: IncidentId, outcome: &Outcome<'_>) -> bool {
        let is_of_policy = matches!(outcome.why, ClearOn::Policy | ClearOn::Quiet);
        let goes_on = self.open.get(&id).is_some_and(|record| {
            record.is_fault() && outcome.now.boot.since(record.last().boot) < limits::INCIDENT_QUIET
        });
        !(is_of_policy && goes_on)
    }
}

impl Ended {
    fn ends(&self, it: &Record) -> bool {
        let is_named = match self.event {
            ClearOn::GpuReset | ClearOn::NodeReboot => true,
            ClearOn::RecoveryNone => {
                key(it.kind(), it.code(), (&[], None)).fault == Fault::Recovery
            }
            // Its faults are its own, but that it does not answer.
            ClearOn::Replacement => it.kind() == SignalKind::GpuLost,
            // It mends what names it alone, and an operator clears what is named.
            ClearOn::DriverRebind | ClearOn::Quiet | ClearOn::Policy | ClearOn::Operator => false,
        };
        is_named && it.is_fault() && it.last().seq <= self.through && (it.is_drill() || !self.drill)
    }
}
