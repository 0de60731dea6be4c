//! What is behind the gate: records by device, objects by name, who owns which condition type, and
//! the one version counter.
//!
//! Conditions belong to the *device* (its UUID), not to the object: they survive a deletion and come
//! back with the UUID (design C7).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use device_api_core::allowance::Allowance;
use device_api_core::condition::{self, Condition, Owner};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{Claim, DeviceRecord, ObjectRecord, SeenBefore};
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, PciAddress, ResourceVersion};

use crate::instances;
pub(crate) use crate::transaction::Transaction;

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) info: Arc<DeviceInfo>,
    pub(crate) conditions: Arc<[Condition]>,
    /// A client deleted its last object: it stays deleted until somebody creates it again.
    pub(crate) is_deleted: bool,
    /// Where NVML showed it last; `None`: it never did.
    pub(crate) last_slot: Option<PciAddress>,
    /// The objects that show this device, in order.
    pub(crate) objects: Vec<ObjectKey>,
    /// Over which connection a client last wrote a type.
    pub(crate) written_over: HashMap<Arc<str>, u64>,
    /// Lines of the log about its health.
    pub(crate) lines: Allowance,
}

impl Record {
    pub(crate) fn new(info: Arc<DeviceInfo>, conditions: Arc<[Condition]>) -> Self {
        Self {
            info,
            conditions,
            is_deleted: false,
            last_slot: None,
            objects: Vec::new(),
            written_over: HashMap::new(),
            lines: Allowance::default(),
        }
    }

    pub(crate) fn durable(&self) -> DeviceRecord {
        DeviceRecord {
            info: self.info.clone(),
            conditions: self.conditions.clone(),
            is_deleted: self.is_deleted,
            last_slot: self.last_slot,
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    version: ResourceVersion,
    objects: BTreeMap<ObjectKey, Arc<Gpu>>,
    all: OnceLock<Arc<[Arc<Gpu>]>>,
    pub(crate) records: HashMap<DeviceUuid, Record>,
    /// Condition types that providers own.
    pub(crate) claims: BTreeMap<Arc<str>, Claim>,
    /// Text of what providers say, of all devices.
    provider_bytes: usize,
    /// Objects that are MIG instances.
    instances: usize,
    /// GPUs, but for their MIG instances, by health, in the order of [`Health::ALL`].
    by_health: [usize; Health::ALL.len()],
}

impl State {
    pub(crate) fn new(version: ResourceVersion) -> Self {
        Self {
            version,
            objects: BTreeMap::new(),
            all: OnceLock::new(),
            records: HashMap::new(),
            claims: BTreeMap::new(),
            provider_bytes: 0,
            instances: 0,
            by_health: [0; Health::ALL.len()],
        }
    }

    pub(crate) fn version(&self) -> ResourceVersion {
        self.version
    }

    pub(crate) fn next_version(&mut self) -> ResourceVersion {
        self.version.0 += 1;
        self.version
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<&Arc<Gpu>> {
        self.objects.get(key)
    }

    /// Objects that are MIG instances.
    pub(crate) fn instance_count(&self) -> usize {
        self.instances
    }

    pub(crate) fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// All objects, in the order of names: gathered once, until one changes.
    pub(crate) fn all(&self) -> Arc<[Arc<Gpu>]> {
        let gather = || self.objects.values().cloned().collect();
        self.all.get_or_init(gather).clone()
    }

    /// Puts an object in; the record of its device must be there.
    pub(crate) fn insert(&mut self, gpu: Arc<Gpu>) {
        self.all.take();
        self.count(&gpu, 1);
        if let Some(record) = self.records.get_mut(&gpu.uuid)
            && let Err(at) = record.objects.binary_search(&gpu.key)
        {
            record.objects.insert(at, gpu.key.clone());
        }
        if let Some(before) = self.objects.insert(gpu.key.clone(), gpu) {
            self.count(&before, -1);
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Gpu>> {
        let gpu = self.objects.remove(key)?;
        self.all.take();
        self.count(&gpu, -1);
        if let Some(record) = self.records.get_mut(&gpu.uuid) {
            record.objects.retain(|other| other != key);
        }
        Some(gpu)
    }

    fn count(&mut self, gpu: &Gpu, by: isize) {
        if gpu.device.parent.is_some() {
            self.instances = self.instances.saturating_add_signed(by);
            return;
        }
        let health = gpu.derived.health;
        let all = Health::ALL.iter().zip(&mut self.by_health);
        for (_, count) in all.filter(|(of, _)| **of == health) {
            *count = count.saturating_add_signed(by);
        }
    }

    pub(crate) fn provider_bytes(&self) -> usize {
        self.provider_bytes
    }

    /// Puts a record in.
    pub(crate) fn insert_record(&mut self, record: Record) {
        let uuid = record.info.uuid.clone();
        self.remove_record(&uuid);
        self.provider_bytes += provider_bytes(&record.conditions);
        self.records.insert(uuid, record);
    }

    pub(crate) fn remove_record(&mut self, uuid: &DeviceUuid) {
        if let Some(record) = self.records.remove(uuid) {
            self.provider_bytes -= provider_bytes(&record.conditions);
        }
    }

    /// Sets the conditions of a device that has a record.
    pub(crate) fn set_conditions(&mut self, uuid: &DeviceUuid, conditions: Arc<[Condition]>) {
        if let Some(record) = self.records.get_mut(uuid) {
            self.provider_bytes -= provider_bytes(&record.conditions);
            self.provider_bytes += provider_bytes(&conditions);
            record.conditions = conditions;
        }
    }

    /// GPUs by health.
    pub(crate) fn tally(&self) -> Vec<(Health, usize)> {
        Health::ALL.into_iter().zip(self.by_health).collect()
    }

    pub(crate) fn record(&self, uuid: &DeviceUuid) -> Option<&Record> {
        self.records.get(uuid)
    }

    /// What the objects of a device show: of a MIG instance what is its GPU's too (design N9).
    pub(crate) fn shown(&self, uuid: &DeviceUuid) -> Arc<[Condition]> {
        let known = |uuid: &DeviceUuid| {
            let record = self.record(uuid)?;
            Some((&*record.info, &record.conditions))
        };
        instances::shown(known, uuid)
    }

    /// Whose barrier a device is behind: a MIG instance is behind its GPU's.
    pub(crate) fn gpu_of(&self, uuid: &DeviceUuid) -> Option<DeviceUuid> {
        let record = self.record(uuid)?;
        let parent = record.info.parent.as_ref();
        let gpu = parent.map_or(&record.info.uuid, |parent| &parent.gpu);
        Some(gpu.clone())
    }

    pub(crate) fn uuids(&self) -> Vec<DeviceUuid> {
        self.records.keys().cloned().collect()
    }

    pub(crate) fn gpus(&self) -> Vec<Arc<DeviceInfo>> {
        let all = self.records.values().map(|record| &record.info);
        all.filter(|info| info.parent.is_none()).cloned().collect()
    }

    /// GPUs that NVML showed, but for those that nobody is shown, or that are known to be gone.
    pub(crate) fn seen_before(&self) -> Vec<SeenBefore> {
        let shown = self.records.values().filter(|record| {
            !record.objects.is_empty()
                && record.info.parent.is_none()
                && !condition::is_gone(&record.conditions)
        });
        let seen = shown.filter_map(|record| {
            Some(SeenBefore {
                info: record.info.clone(),
                slot: record.last_slot?,
            })
        });
        seen.collect()
    }

    pub(crate) fn uuid_at(&self, pci: PciAddress) -> Option<DeviceUuid> {
        self.records
            .values()
            // A MIG instance is where its GPU is.
            .find(|record| record.info.pci == Some(pci) && record.info.parent.is_none())
            .map(|record| record.info.uuid.clone())
    }
}

/// Text of the conditions that providers wrote.
pub(crate) fn provider_bytes(conditions: &[Condition]) -> usize {
    conditions
        .iter()
        .filter(|condition| matches!(condition.owner, Owner::Provider(_)))
        .map(text_bytes)
        .sum()
}

/// Text of a condition.
pub(crate) fn text_bytes(condition: &Condition) -> usize {
    let evidence = condition
        .evidence
        .iter()
        .map(|evidence| evidence.text.len());
    condition.type_.len()
        + condition.reason.len()
        + condition.message.len()
        + evidence.sum::<usize>()
}

pub(crate) fn object_record(gpu: &Gpu) -> ObjectRecord {
    ObjectRecord {
        key: gpu.key.clone(),
        uid: gpu.uid.clone(),
        generation: gpu.generation,
        created: gpu.created,
        version: gpu.version,
        uuid: gpu.uuid.clone(),
        ready_since: gpu.ready_since,
    }
}
