//! Which incident of a GPU, or of one of its MIG instances, is which fault.

use std::collections::HashMap;

use device_api_core::clock::BootTime;
use device_api_core::floor;
use device_api_core::ids::IncidentId;
use device_api_core::limits;
use device_api_core::signal::{Attr, SignalKind, text_attr};

use super::roots::Latest;

/// XID 79 and a GPU that does not answer are one fault: it has fallen off the bus.
const OFF_THE_BUS: u64 = 79;

/// What makes two signals tell of the same fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    Xid(u64),
    Sxid(u64),
    Ecc,
    Recovery,
    /// No fault: a timer, a GPU that answers, and the readings past the bound of those that are told apart.
    Routine(SignalKind),
}

/// The same, with the reading that it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) fault: Fault,
    pub(super) reading: Option<&'a str>,
    /// UUID of a MIG instance: each has faults of its own (design N9).
    pub(super) instance: Option<&'a str>,
}

/// Where that is known.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Reading(&'a str),
    /// Of the MIG instance; `None`: of the GPU.
    Fault(Option<&'a str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) id: IncidentId,
    pub(super) last: BootTime,
}

/// Which incident of a device is which fault.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) faults: HashMap<Fault, Seen>,
    pub(super) instances: HashMap<String, HashMap<Fault, Seen>>,
    pub(super) readings: HashMap<String, Seen>,
    pub(super) latest: Option<Latest>,
    /// The newest for which the driver may ask for a recovery action.
    pub(super) asking: Option<Latest>,
    /// Those that something stands of.
    pub(super) raisers: Vec<IncidentId>,
}

impl Known {
    /// What is known of what a key names. The readings past the bound are one.
    pub(super) fn get(&mut self, key: Key<'_>) -> Option<&mut Seen> {
        match self.place(key) {
            Place::Reading(reading) => self.readings.get_mut(reading),
            Place::Fault(Some(instance)) => self.instances.get_mut(instance)?.get_mut(&key.fault),
            Place::Fault(None) => self.faults.get_mut(&key.fault),
        }
    }

    fn place<'a>(&self, key: Key<'a>) -> Place<'a> {
        let has_place = |reading: &&str| {
            self.readings.contains_key(*reading)
                || self.readings.len() < limits::READINGS_PER_GPU_MAX
        };
        let reading = key.reading.filter(has_place);
        reading.map_or(Place::Fault(key.instance), Place::Reading)
    }

    /// The XID on that instance, else on the GPU; of the GPU also what is on any of its instances.
    pub(super) fn xid(&self, code: u64, instance: Option<&str>) -> Option<&Seen> {
        let fault = Fault::Xid(code);
        let own = instance.and_then(|instance| self.instances.get(instance)?.get(&fault));
        let on_any = || {
            let all = self.instances.values().filter(|_| instance.is_none());
            all.filter_map(|faults| faults.get(&fault))
                .max_by_key(|seen| seen.last)
        };
        own.or_else(|| self.faults.get(&fault)).or_else(on_any)
    }

    pub(super) fn put(&mut self, key: Key<'_>, seen: Seen) {
        match self.place(key) {
            Place::Reading(reading) => {
                self.readings.insert(reading.to_owned(), seen);
            }
            Place::Fault(instance) => {
                let faults = match instance {
                    Some(instance) => self.instances.entry(instance.to_owned()).or_default(),
                    None => &mut self.faults,
                };
                faults.insert(key.fault, seen);
            }
        }
    }

    pub(super) fn forget(&mut self, (fault, instance): (Fault, Option<&str>), id: IncidentId) {
        if let Some(instance) = instance
            && let Some(faults) = self.instances.get_mut(instance)
        {
            faults.retain(|_, seen| seen.id != id);
            if faults.is_empty() {
                self.instances.remove(instance);
            }
        }
        if self.faults.get(&fault).is_some_and(|seen| seen.id == id) {
            self.faults.remove(&fault);
        }
        self.raisers.retain(|raiser| *raiser != id);
    }
}

pub(super) fn key<'a>(
    kind: SignalKind,
    code: Option<u64>,
    (attrs, instance): (&'a [Attr], Option<&'a str>),
) -> Key<'a> {
    let fault = match (kind, code) {
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
    };
    let is_reading = kind == SignalKind::Reading;
    Key {
        fault,
        reading: is_reading.then(|| text_attr(attrs, "key")).flatten(),
        instance,
    }
}
