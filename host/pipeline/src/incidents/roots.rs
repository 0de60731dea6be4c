//! Which fault another one follows from: as the kernel log says, or as the vendor's tables do.
//!
//! - XID 48 brings 63 or 64 (`WORKFLOW_XID_48`: "w/ 63 or 64") and 94 or 95 (the decode table of 144: "will lead
//!   to Xid 48. Will lead to poison or Xid94/95"), within milliseconds;
//! - XID 45 is "preemptive cleanup, due to previous errors", and where it is not alone the other XID is the one
//!   to follow (`WORKFLOW_XID_45`);
//! - XID 154, and field 230, are "informational only regarding another Xid": one of those that the catalogue links
//!   with it (`xid154_linkage`).

use device_api_core::clock::BootTime;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::limits;
use device_api_core::signal::{Observation, SignalKind};
use device_api_core::xid;

use super::{Fault, Incidents, is_end};

/// Cleanup after another fault.
const XID_CLEANUP: u64 = 45;
/// What a double-bit error brings.
const XIDS_OF_DOUBLE_BIT: [u64; 4] = [63, 64, 94, 95];

/// The newest fault that another may be the cleanup of, or that the driver may ask for a recovery action for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latest {
    pub(super) id: IncidentId,
    last: BootTime,
}

impl Latest {
    /// `None`: it is itself the consequence of one.
    pub(super) fn of(fault: Fault, id: IncidentId, last: BootTime) -> Option<Self> {
        let is_own = !matches!(fault, Fault::Xid(XID_CLEANUP) | Fault::Recovery);
        is_own.then_some(Self { id, last })
    }

    /// `None`: the driver asks for no recovery action on its account.
    pub(super) fn of_asking(fault: Fault, id: IncidentId, last: BootTime) -> Option<Self> {
        let Fault::Xid(code) = fault else {
            return None;
        };
        let asks = xid::lookup(code).is_some_and(|entry| entry.asks);
        asks.then_some(Self { id, last })
    }
}

impl Incidents {
    /// The open incident that caused what was observed.
    pub(super) fn root_of(
        &self,
        device: &DeviceUuid,
        (observation, fault): (&Observation, Fault),
        now: BootTime,
    ) -> Option<IncidentId> {
        let known = self.known.get(device)?;
        let on = observation.instance.as_deref();
        let seen = |code: u64| known.xid(code, on);
        if let Some(code) = observation.caused_by {
            let root = seen(code).filter(|root| self.is_open(root.id, root.last, now));
            if let Some(root) = root {
                return Some(root.id);
            }
        }
        if fault == Fault::Recovery {
            let asking = known.asking.filter(|_| !is_end(observation))?;
            return (now.since(asking.last) <= limits::RECOVERY_WINDOW)
                .then(|| self.first_of(asking.id));
        }
        let code = observation
            .code
            .filter(|_| observation.kind == SignalKind::Xid)?;
        if XIDS_OF_DOUBLE_BIT.contains(&code) {
            let root = seen(floor::XID_DOUBLE_BIT)?;
            return (now.since(root.last) <= limits::CONTAINMENT_WINDOW).then_some(root.id);
        }
        let latest = known.latest.filter(|_| code == XID_CLEANUP)?;
        if now.since(latest.last) > limits::CLEANUP_WINDOW {
            return None;
        }
        Some(self.first_of(latest.id))
    }

    /// Where the chain begins that it is of.
    fn first_of(&self, id: IncidentId) -> IncidentId {
        let root = self.open.get(&id).and_then(|record| record.root());
        root.unwrap_or(id)
    }

    fn is_open(&self, id: IncidentId, last: BootTime, now: BootTime) -> bool {
        let stands = self.open.get(&id).is_some_and(|record| record.stands());
        stands || now.since(last) <= limits::INCIDENT_QUIET
    }

    /// Notes the root of an incident, once, and not one that came of it.
    pub(super) fn link(&mut self, id: IncidentId, root: IncidentId) {
        let of_root = self.open.get(&root).and_then(|record| record.root());
        if of_root == Some(id) {
            return;
        }
        self.change(id, |record| record.follow(root));
    }
}
