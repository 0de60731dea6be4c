//! A disk that keeps what it is given, and hands it to the next run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use device_api_core::clock::BootId;
use device_api_core::durable::{
    Batch, Change, Claim, DeviceRecord, LeaseRecord, NotDurable, ObjectRecord, Snapshot, Start,
};
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::ports::{StateLog, Synced};

#[derive(Debug, Default)]
struct Kept {
    version: ResourceVersion,
    devices: BTreeMap<DeviceUuid, DeviceRecord>,
    objects: BTreeMap<ObjectKey, ObjectRecord>,
    claims: BTreeMap<String, Claim>,
    leases: BTreeMap<String, LeaseRecord>,
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    kept: Mutex<Kept>,
}

impl Disk {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next run begins with.
    pub(crate) fn start(&self, base: u64, boot: BootId) -> Start {
        let kept = self.kept();
        Start {
            base: ResourceVersion(base),
            snapshot: Some(Snapshot {
                version: kept.version,
                boot,
                devices: kept.devices.values().cloned().collect(),
                objects: kept.objects.values().cloned().collect(),
                claims: kept.claims.values().cloned().collect(),
                leases: kept.leases.values().cloned().collect(),
                ..Snapshot::default()
            }),
        }
    }
}

impl StateLog for Disk {
    fn append(&self, batch: Batch) {
        let mut kept = self.kept();
        assert!(batch.version >= kept.version, "versions never go back");
        kept.version = batch.version;
        for change in batch.changes {
            match change {
                Change::Device(device) => {
                    kept.devices.insert(device.info.uuid.clone(), device);
                }
                Change::DeviceGone(uuid) => {
                    kept.devices.remove(&uuid);
                }
                Change::Object(object) => {
                    kept.objects.insert(object.key.clone(), object);
                }
                Change::ObjectGone(key) => {
                    kept.objects.remove(&key);
                }
                Change::Claim(claim) => {
                    kept.claims.insert(claim.type_.to_string(), claim);
                }
                Change::ClaimGone(type_) => {
                    kept.claims.remove(&*type_);
                }
                Change::Lease(lease) => {
                    kept.leases.insert(lease.provider.to_string(), lease);
                }
                Change::LeaseGone(provider) => {
                    kept.leases.remove(&*provider);
                }
                Change::Memory(..)
                | Change::Incident(_)
                | Change::IncidentGone(_)
                | Change::LogPosition(_)
                | Change::Numbers(_) => {}
            }
        }
    }

    fn synced(&self, done: Synced) {
        done(Ok(()));
    }

    fn writable(&self) -> Result<(), NotDurable> {
        Ok(())
    }
}
