//! Incidents: one fault, however many signals from however many sources tell of it (design N5).

use std::collections::HashMap;

use device_api_core::clock::BootTime;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::limits;
use device_api_core::signal::{Observation, SignalKind};

/// What makes two signals tell of the same fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Fault {
    Xid(u64),
    Sxid(u64),
    Ecc,
    Recovery,
    /// No fault: a reading, a timer, a GPU that answers. Each key is one running "incident".
    Routine(SignalKind),
}

#[derive(Clone, Copy, Debug)]
struct Open {
    id: IncidentId,
    last: BootTime,
}

#[derive(Debug, Default)]
pub(crate) struct Incidents {
    open: HashMap<(DeviceUuid, Fault), Open>,
    newest: u64,
}

/// XID 79 and a GPU that does not answer are one fault: it has fallen off the bus.
const OFF_THE_BUS: u64 = 79;

fn fault(kind: SignalKind, code: Option<u64>) -> Fault {
    match (kind, code) {
        (SignalKind::GpuLost, _) => Fault::Xid(OFF_THE_BUS),
        // Field 230 and XID 154 tell of the same: the driver asks for a recovery action.
        (SignalKind::RecoveryAction, _) | (SignalKind::Xid, Some(floor::XID_RECOVERY_ACTION)) => {
            Fault::Recovery
        }
        (SignalKind::Xid, code) => Fault::Xid(code.unwrap_or_default()),
        (SignalKind::Sxid, code) => Fault::Sxid(code.unwrap_or_default()),
        (SignalKind::Ecc, _) => Fault::Ecc,
        (kind @ (SignalKind::Reading | SignalKind::GpuFound | SignalKind::Timer), _) => {
            Fault::Routine(kind)
        }
    }
}

impl Incidents {
    /// The incident that an observation belongs to, opened if there is none, and the open one that
    /// it says it was caused by.
    pub(crate) fn of(
        &mut self,
        device: &DeviceUuid,
        observation: &Observation,
        now: BootTime,
    ) -> (IncidentId, Option<IncidentId>) {
        let key = (device.clone(), fault(observation.kind, observation.code));
        let root = observation.caused_by.and_then(|code| {
            let root = self.open.get(&(device.clone(), Fault::Xid(code)))?;
            (!is_over(*root, now)).then_some(root.id)
        });
        if let Some(open) = self.open.get_mut(&key).filter(|open| !is_over(**open, now)) {
            open.last = now;
            return (open.id, root);
        }
        self.make_room(now);
        self.newest += 1;
        let id = IncidentId(self.newest);
        self.open.insert(key, Open { id, last: now });
        (id, root)
    }

    /// Numbers of an earlier run are not given out again.
    pub(crate) fn go_on_after(&mut self, used: IncidentId) {
        self.newest = self.newest.max(used.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    fn make_room(&mut self, now: BootTime) {
        if self.open.len() < limits::INCIDENTS_MAX {
            return;
        }
        self.open.retain(|_, open| !is_over(*open, now));
        if self.open.len() >= limits::INCIDENTS_MAX {
            let quietest = self
                .open
                .iter()
                .min_by_key(|(_, open)| open.last)
                .map(|(key, _)| key.clone());
            if let Some(quietest) = quietest {
                self.open.remove(&quietest);
            }
        }
    }
}

fn is_over(open: Open, now: BootTime) -> bool {
    now.since(open.last) > limits::INCIDENT_QUIET
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use device_api_core::signal::{Source, Target};

    use super::*;

    fn xid(code: u64) -> Observation {
        let target = Target::Uuid(DeviceUuid::new("GPU-0"));
        Observation {
            code: Some(code),
            ..Observation::new(SignalKind::Xid, target, Source::Nvml)
        }
    }

    #[test]
    fn n5_one_fault_is_one_incident_whatever_the_source() {
        let (mut incidents, gpu) = (Incidents::default(), DeviceUuid::new("GPU-0"));
        let now = BootTime::default();
        let (first, _) = incidents.of(&gpu, &xid(79), now);
        let from_kmsg = Observation {
            source: Source::Kmsg,
            ..xid(79)
        };
        assert_eq!(incidents.of(&gpu, &from_kmsg, now).0, first);
        let lost = Observation {
            kind: SignalKind::GpuLost,
            code: None,
            ..xid(0)
        };
        assert_eq!(incidents.of(&gpu, &lost, now).0, first);
        assert_ne!(incidents.of(&gpu, &xid(48), now).0, first);
        assert_ne!(
            incidents.of(&DeviceUuid::new("GPU-1"), &xid(79), now).0,
            first
        );
        let later = now.after(limits::INCIDENT_QUIET + Duration::from_secs(1));
        assert_ne!(
            incidents.of(&gpu, &xid(79), later).0,
            first,
            "closed after ten quiet minutes"
        );
    }

    #[test]
    fn caused_by_previous_xid_links_to_the_open_root() {
        let (mut incidents, gpu) = (Incidents::default(), DeviceUuid::new("GPU-0"));
        let now = BootTime::default();
        let (root, _) = incidents.of(&gpu, &xid(145), now);
        let follower = Observation {
            caused_by: Some(145),
            ..xid(45)
        };
        assert_eq!(incidents.of(&gpu, &follower, now).1, Some(root));
    }

    #[test]
    fn incidents_are_bounded_and_the_quietest_makes_room() {
        let (mut incidents, gpu) = (Incidents::default(), DeviceUuid::new("GPU-0"));
        for code in 0..2 * limits::INCIDENTS_MAX as u64 {
            incidents.of(&gpu, &xid(code), BootTime { ns: code });
        }
        assert_eq!(incidents.len(), limits::INCIDENTS_MAX);
    }
}
