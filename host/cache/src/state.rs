//! What is behind the gate: records by device, objects by name, and the one version counter.
//!
//! Conditions belong to the *device* (its UUID), not to the object: they survive a deletion and come
//! back with the UUID (design C7).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::Condition;
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Derived;
use device_api_core::ids::{DeviceUuid, ObjectKey, PciAddress, ResourceVersion};
use device_api_core::limits;
use device_api_core::watch::{Event, EventType, Scope};

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) info: Arc<DeviceInfo>,
    pub(crate) conditions: Vec<Condition>,
    /// A client deleted its last object: it stays deleted until somebody creates it again.
    is_deleted: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    version: ResourceVersion,
    objects: BTreeMap<ObjectKey, Arc<Gpu>>,
    records: HashMap<DeviceUuid, Record>,
}

impl State {
    pub(crate) fn new(start: ResourceVersion) -> Self {
        Self {
            version: start,
            objects: BTreeMap::new(),
            records: HashMap::new(),
        }
    }

    pub(crate) fn version(&self) -> ResourceVersion {
        self.version
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<&Arc<Gpu>> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self, scope: &Scope) -> Vec<Arc<Gpu>> {
        self.objects
            .values()
            .filter(|gpu| scope.holds(gpu))
            .cloned()
            .collect()
    }

    pub(crate) fn record(&self, uuid: &DeviceUuid) -> Option<&Record> {
        self.records.get(uuid)
    }

    pub(crate) fn uuids(&self) -> Vec<DeviceUuid> {
        self.records.keys().cloned().collect()
    }

    pub(crate) fn uuid_at(&self, pci: PciAddress) -> Option<DeviceUuid> {
        self.records
            .values()
            .find(|record| record.info.pci == Some(pci))
            .map(|record| record.info.uuid.clone())
    }
}

/// One write: its changes get ascending versions, and its events are published after the gate is
/// released. What changes nothing gives out no version (design C5).
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: WallTime,
    pub(crate) events: Vec<Event>,
}

impl Transaction<'_> {
    fn next_version(&mut self) -> ResourceVersion {
        self.state.version.0 += 1;
        self.state.version
    }

    /// Puts an object into the store as a new version.
    fn put(&mut self, type_: EventType, mut gpu: Gpu) -> Arc<Gpu> {
        gpu.version = self.next_version();
        let gpu = Arc::new(gpu);
        self.state.objects.insert(gpu.key.clone(), gpu.clone());
        self.events.push(Event {
            type_,
            gpu: gpu.clone(),
        });
        gpu
    }

    /// Creates an object for a device; what is known of the device comes with it.
    pub(crate) fn create(
        &mut self,
        key: ObjectKey,
        uuid: &DeviceUuid,
        info: Option<DeviceInfo>,
    ) -> Result<Arc<Gpu>, ApiError> {
        if self.state.objects.len() >= limits::GPUS_MAX {
            return Err(ApiError::Exhausted {
                limit: "GPUS_MAX",
                max: limits::GPUS_MAX,
            });
        }
        // An address that another device has is that one's, until NVML says otherwise.
        let info = info.map(|info| DeviceInfo {
            pci: info.pci.filter(|pci| self.state.uuid_at(*pci).is_none()),
            ..info
        });
        let record = self.record_mut(uuid, info)?;
        record.is_deleted = false;
        let (device, conditions) = (record.info.clone(), record.conditions.clone());
        let mut gpu = Gpu {
            key,
            uid: uuid::Uuid::new_v4().to_string().into(),
            generation: 1,
            created: self.now,
            version: ResourceVersion::default(),
            uuid: uuid.clone(),
            device,
            conditions,
            derived: Derived::default(),
            ready_since: self.now,
        };
        gpu.rederive(self.now);
        Ok(self.put(EventType::Added, gpu))
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) -> Result<(), ApiError> {
        let Some(gpu) = self.state.objects.remove(key) else {
            return Err(ApiError::NotFound { key: key.clone() });
        };
        let is_last = !self.has_object(&gpu.uuid);
        if let Some(record) = self.state.records.get_mut(&gpu.uuid) {
            record.is_deleted = is_last;
        }
        let mut gone = Gpu::clone(&gpu);
        gone.version = self.next_version();
        self.events.push(Event {
            type_: EventType::Deleted,
            gpu: Arc::new(gone),
        });
        Ok(())
    }

    /// Registers a device that NVML sees, or refreshes what is known of it. Its PCI address is its
    /// own: whoever had it before is not there any more.
    pub(crate) fn register(&mut self, info: DeviceInfo) -> Result<(), ApiError> {
        let uuid = info.uuid.clone();
        let before = info.pci.and_then(|pci| self.state.uuid_at(pci));
        if let Some(before) = before.filter(|before| *before != uuid)
            && let Some(record) = self.state.records.get(&before)
        {
            let moved = DeviceInfo {
                pci: None,
                ..DeviceInfo::clone(&record.info)
            };
            self.set_info(moved)?;
        }
        self.set_info(info)?;
        let is_deleted = self
            .state
            .record(&uuid)
            .is_some_and(|record| record.is_deleted);
        if !is_deleted && !self.has_object(&uuid) {
            self.create(ObjectKey::new("", uuid.as_str()), &uuid, None)?;
        }
        Ok(())
    }

    /// Changes what is known of a device, in all its objects.
    fn set_info(&mut self, info: DeviceInfo) -> Result<(), ApiError> {
        let uuid = info.uuid.clone();
        let info = Arc::new(info);
        let record = self.record_mut(&uuid, None)?;
        record.info = info.clone();
        self.each_object(&uuid, |gpu| {
            let changed = gpu.device != info;
            if changed {
                gpu.device = info.clone();
            }
            changed
        });
        Ok(())
    }

    fn has_object(&self, uuid: &DeviceUuid) -> bool {
        self.state.objects.values().any(|gpu| gpu.uuid == *uuid)
    }

    /// Changes the conditions of a device, in all its objects.
    pub(crate) fn change(
        &mut self,
        uuid: &DeviceUuid,
        change: &mut dyn FnMut(&mut Vec<Condition>),
    ) {
        let Ok(record) = self.record_mut(uuid, None) else {
            return;
        };
        change(&mut record.conditions);
        record.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        let conditions = record.conditions.clone();
        let now = self.now;
        self.each_object(uuid, |gpu| {
            let same = gpu.conditions.len() == conditions.len()
                && gpu
                    .conditions
                    .iter()
                    .zip(&conditions)
                    .all(|(old, new)| old.same_content(new));
            gpu.conditions.clone_from(&conditions);
            if !same {
                gpu.rederive(now);
            }
            !same
        });
    }

    /// Runs `f` on every object of a device; those it says it changed become a new version, the
    /// others are replaced in place (heartbeats and evidence are no part of the version).
    fn each_object(&mut self, uuid: &DeviceUuid, mut f: impl FnMut(&mut Gpu) -> bool) {
        let keys: Vec<_> = self
            .state
            .objects
            .values()
            .filter(|gpu| gpu.uuid == *uuid)
            .map(|gpu| gpu.key.clone())
            .collect();
        for key in keys {
            let Some(object) = self.state.objects.get(&key) else {
                continue;
            };
            let mut gpu = Gpu::clone(object);
            if f(&mut gpu) {
                self.put(EventType::Modified, gpu);
            } else {
                self.state.objects.insert(key, Arc::new(gpu));
            }
        }
    }

    /// The record of a device, made if there is none. Past the bound a record that nothing refers
    /// to and that tells of no problem makes room.
    fn record_mut(
        &mut self,
        uuid: &DeviceUuid,
        info: Option<DeviceInfo>,
    ) -> Result<&mut Record, ApiError> {
        if !self.state.records.contains_key(uuid) && self.state.records.len() >= limits::GPUS_MAX {
            let objects = &self.state.objects;
            let idle = self.state.records.iter().find(|(uuid, record)| {
                !record.conditions.iter().any(Condition::is_problem)
                    && !objects.values().any(|gpu| gpu.uuid == **uuid)
            });
            let Some(idle) = idle.map(|(uuid, _)| uuid.clone()) else {
                return Err(ApiError::Exhausted {
                    limit: "GPUS_MAX",
                    max: limits::GPUS_MAX,
                });
            };
            self.state.records.remove(&idle);
        }
        Ok(self
            .state
            .records
            .entry(uuid.clone())
            .or_insert_with(|| Record {
                info: Arc::new(info.unwrap_or_else(|| DeviceInfo::bare(uuid.clone()))),
                conditions: Vec::new(),
                is_deleted: false,
            }))
    }
}
