//! One write: what it changes, what watchers are told of it, and what must survive.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{self, Condition};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::Change;
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::{Derived, Health};
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::limits::Bounds;
use device_api_core::watch::{Event, EventType};

use crate::author::Author;
use crate::state::{Record, State, object_record};

/// One write: its changes get ascending versions, and its events are published after the gate is
/// released. What changes nothing gives out no version (design C5).
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: WallTime,
    pub(crate) author: Author,
    bounds: &'a Bounds,
    events: Vec<Event>,
    changes: Vec<Change>,
    uncounted: Vec<Arc<str>>,
    turns: Vec<Turn>,
}

/// A GPU whose health, or recommended action, is another than before: a line of the log.
#[derive(Debug)]
pub struct Turn {
    pub gpu: Arc<Gpu>,
    /// Unknown also where the object is new.
    pub was: Health,
    /// Turns of this GPU since the last that was told of.
    pub left_out: u64,
}

/// What came of a write, for those who are told after the gate.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) events: Vec<Event>,
    pub(crate) changes: Vec<Change>,
    /// New condition types of unknown polarity.
    pub(crate) uncounted: Vec<Arc<str>>,
    pub(crate) turns: Vec<Turn>,
    pub(crate) author: Author,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(state: &'a mut State, bounds: &'a Bounds, now: WallTime) -> Self {
        Self {
            state,
            now,
            author: Author::default(),
            bounds,
            events: Vec::new(),
            changes: Vec::new(),
            uncounted: Vec::new(),
            turns: Vec::new(),
        }
    }

    pub(crate) fn into_written(self) -> Written {
        Written {
            events: self.events,
            changes: self.changes,
            uncounted: self.uncounted,
            turns: self.turns,
            author: self.author,
        }
    }

    /// Somebody is to be told, once nobody waits for it.
    pub(crate) fn warn_uncounted(&mut self, type_: &Arc<str>) {
        self.uncounted.push(type_.clone());
    }

    /// Something that is to survive, and no reader sees.
    pub(crate) fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    fn note_device(&mut self, uuid: &DeviceUuid) {
        if let Some(record) = self.state.record(uuid) {
            self.changes.push(Change::Device(record.durable()));
        }
    }

    /// Puts an object into the store as a new version.
    fn put(&mut self, type_: EventType, mut gpu: Gpu) -> Arc<Gpu> {
        gpu.version = self.state.next_version();
        let gpu = Arc::new(gpu);
        let before = self.state.object(&gpu.key).cloned();
        self.note_turn(before.as_deref(), &gpu);
        self.state.insert(gpu.clone());
        self.changes.push(Change::Object(object_record(&gpu)));
        self.events.push(Event {
            type_,
            gpu: gpu.clone(),
            before,
        });
        gpu
    }

    fn note_turn(&mut self, before: Option<&Gpu>, gpu: &Arc<Gpu>) {
        let of = |derived: &Derived| (derived.health, derived.action);
        let was = before.map_or_else(Default::default, |before| of(&before.derived));
        if was == of(&gpu.derived) {
            return;
        }
        let record = self.state.records.get_mut(&gpu.uuid);
        let now = self.now.unix_ns;
        if let Some(left_out) = record.and_then(|record| record.lines.admit(now)) {
            self.turns.push(Turn {
                gpu: gpu.clone(),
                was: was.0,
                left_out,
            });
        }
    }

    /// Creates an object for a device; what is known of the device comes with it.
    pub(crate) fn create(
        &mut self,
        key: ObjectKey,
        uuid: &DeviceUuid,
        info: Option<DeviceInfo>,
    ) -> Result<Arc<Gpu>, ApiError> {
        if self.state.object_count() >= self.bounds.gpus {
            return Err(too_many_gpus(self.bounds));
        }
        // An address that another device has is that one's, until NVML says otherwise.
        let info = info.map(|info| DeviceInfo {
            pci: info.pci.filter(|pci| self.state.uuid_at(*pci).is_none()),
            ..info
        });
        let record = self.record_mut(uuid, info)?;
        record.is_deleted = false;
        let device = record.info.clone();
        let conditions = self.state.shown(uuid);
        self.note_device(uuid);
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
            encoded: Default::default(),
        };
        gpu.rederive(self.now);
        Ok(self.put(EventType::Added, gpu))
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) -> Result<(), ApiError> {
        let Some(gpu) = self.state.remove(key) else {
            return Err(ApiError::NotFound { key: key.clone() });
        };
        // Of one that is gone only the entry is deleted: it is shown again, should it be back.
        let is_gone = condition::is_gone(&gpu.conditions);
        if let Some(record) = self.state.records.get_mut(&gpu.uuid) {
            record.is_deleted = record.objects.is_empty() && !is_gone;
        }
        self.note_device(&gpu.uuid);
        self.changes.push(Change::ObjectGone(key.clone()));
        let mut gone = Gpu::clone(&gpu);
        gone.version = self.state.next_version();
        self.events.push(Event {
            type_: EventType::Deleted,
            gpu: Arc::new(gone),
            before: Some(gpu),
        });
        Ok(())
    }

    /// Registers a device that NVML sees, or refreshes what is known of it. Its PCI address, index and minor
    /// number are its own: whoever had one of them before has it no more.
    pub(crate) fn register(&mut self, mut info: DeviceInfo) -> Result<(), ApiError> {
        // Each GPU has an address. Where it is not told, it is the last one that nobody else has: by it the kernel log
        // names a GPU of which NVML says nothing any more (design N4).
        info.pci = info.pci.or_else(|| self.state.record(&info.uuid)?.info.pci);
        let (uuid, slot) = (info.uuid.clone(), info.pci);
        self.displace(&info)?;
        let info = self.with_room(info);
        self.set_info(info)?;
        let record = self.record_mut(&uuid, None)?;
        if slot.is_some() && record.last_slot != slot {
            record.last_slot = slot;
            self.note_device(&uuid);
        }
        self.show(&uuid)?;
        self.set_instances(&uuid)
    }

    /// Takes from the other GPUs what NVML tells apart by, and says of this one.
    fn displace(&mut self, new: &DeviceInfo) -> Result<(), ApiError> {
        fn kept<T: Copy + PartialEq>(old: Option<T>, new: Option<T>) -> Option<T> {
            old.filter(|_| old != new)
        }
        let others = self.state.records.values().map(|record| &record.info);
        // A MIG instance is where its GPU is.
        let others = others.filter(|old| old.uuid != new.uuid && old.parent.is_none());
        let places = |info: &DeviceInfo| (info.pci, info.index, info.minor);
        let moved = others.filter_map(|old| {
            let (pci, index, minor) = (
                kept(old.pci, new.pci),
                kept(old.index, new.index),
                kept(old.minor, new.minor),
            );
            let is_moved = (pci, index, minor) != places(old);
            is_moved.then(|| DeviceInfo {
                pci,
                index,
                minor,
                ..DeviceInfo::clone(old)
            })
        });
        let moved: Vec<DeviceInfo> = moved.collect();
        moved.into_iter().try_for_each(|info| self.set_info(info))
    }

    /// Shows a device under its UUID, unless it is shown or was deleted.
    fn show(&mut self, uuid: &DeviceUuid) -> Result<(), ApiError> {
        let is_shown = self
            .state
            .record(uuid)
            .is_some_and(|record| record.is_deleted || !record.objects.is_empty());
        let key = ObjectKey::new("", uuid.as_str());
        // A client may have given the name to another device: then it is that one's.
        if !is_shown && self.state.object(&key).is_none() {
            self.create(key, uuid, None)?;
        }
        Ok(())
    }

    /// The device with those of its MIG instances for which there is room: a fault of another is the GPU's.
    fn with_room(&self, mut info: DeviceInfo) -> DeviceInfo {
        let records = &self.state.records;
        let taken = records.len().max(self.state.object_count());
        let new = usize::from(!records.contains_key(&info.uuid));
        let mut room = self.bounds.gpus.saturating_sub(taken + new);
        info.mig.retain(|mig| {
            let has_room = records.contains_key(&mig.uuid) || room > 0;
            room = room.saturating_sub(usize::from(!records.contains_key(&mig.uuid)));
            has_room
        });
        info
    }

    /// The MIG instances of a GPU become those that it has now. What was said of the others goes with them: they
    /// do not come back (design N9).
    fn set_instances(&mut self, gpu: &DeviceUuid) -> Result<(), ApiError> {
        let Some(info) = self.state.record(gpu).map(|record| record.info.clone()) else {
            return Ok(());
        };
        let records = self.state.records.values();
        let gone = records.filter(|record| {
            let parent = record.info.parent.as_ref();
            parent.is_some_and(|parent| parent.gpu == *gpu)
                && !info.has_instance(record.info.uuid.as_str())
        });
        let gone: Vec<DeviceUuid> = gone.map(|record| record.info.uuid.clone()).collect();
        for uuid in gone {
            self.forget(&uuid)?;
        }
        self.change(gpu, |_| {});
        for mig in &info.mig {
            self.set_info(info.instance(mig))?;
            // A client may have shown it before anybody knew whose it is.
            self.refresh(&mig.uuid);
            self.show(&mig.uuid)?;
        }
        Ok(())
    }

    /// Deletes a device with its objects, for good.
    fn forget(&mut self, uuid: &DeviceUuid) -> Result<(), ApiError> {
        let objects = self.state.record(uuid).map(|record| record.objects.clone());
        for key in objects.unwrap_or_default() {
            self.delete(&key)?;
        }
        self.state.remove_record(uuid);
        self.changes.push(Change::DeviceGone(uuid.clone()));
        Ok(())
    }

    /// Changes what is known of a device, in all its objects.
    fn set_info(&mut self, info: DeviceInfo) -> Result<(), ApiError> {
        let uuid = info.uuid.clone();
        let record = self.record_mut(&uuid, None)?;
        if *record.info == info {
            return Ok(());
        }
        let info = Arc::new(info);
        record.info = info.clone();
        self.note_device(&uuid);
        self.each_object(&uuid, |gpu, _| {
            gpu.device = info.clone();
            true
        });
        Ok(())
    }

    /// Changes the conditions of a device, in all its objects and those of its MIG instances.
    pub(crate) fn change(&mut self, uuid: &DeviceUuid, change: impl FnOnce(&mut Vec<Condition>)) {
        let Ok(record) = self.record_mut(uuid, None) else {
            return;
        };
        let mut conditions = record.conditions.to_vec();
        change(&mut conditions);
        let info = record.info.clone();
        // What is said of an instance that is not there any more is nobody's.
        let is_there = |instance: &DeviceUuid| info.has_instance(instance.as_str());
        conditions.retain(|condition| condition.instance.as_ref().is_none_or(is_there));
        condition::sort(&mut conditions);
        if *record.conditions == *conditions {
            return;
        }
        let conditions: Arc<[Condition]> = conditions.into();
        self.state.set_conditions(uuid, conditions);
        self.note_device(uuid);
        self.refresh(uuid);
        for mig in &info.mig {
            self.refresh(&mig.uuid);
        }
    }

    /// Has the objects of a device show what is said of it now.
    fn refresh(&mut self, uuid: &DeviceUuid) {
        let conditions = self.state.shown(uuid);
        let now = self.now;
        self.each_object(uuid, |gpu, before| {
            gpu.conditions = conditions.clone();
            gpu.rederive(now);
            !gpu.shows_the_same(before)
        });
    }

    /// Runs `f` on every object of a device, and shows it what it was; those it says it changed become a new version, the
    /// others are replaced in place (heartbeats and evidence are no part of the version).
    fn each_object(&mut self, uuid: &DeviceUuid, mut f: impl FnMut(&mut Gpu, &Gpu) -> bool) {
        let keys = self
            .state
            .record(uuid)
            .map(|record| record.objects.clone())
            .unwrap_or_default();
        for key in keys {
            let Some(object) = self.state.object(&key) else {
                continue;
            };
            let mut gpu = Gpu::clone(object);
            if f(&mut gpu, object) {
                self.put(EventType::Modified, gpu);
            } else {
                self.state.insert(Arc::new(gpu));
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
        let records = &self.state.records;
        if !records.contains_key(uuid) && records.len() >= self.bounds.gpus {
            let idle = records.iter().find(|(_, record)| {
                record.objects.is_empty() && !record.conditions.iter().any(Condition::is_problem)
            });
            let Some(idle) = idle.map(|(uuid, _)| uuid.clone()) else {
                return Err(too_many_gpus(self.bounds));
            };
            self.state.remove_record(&idle);
            self.changes.push(Change::DeviceGone(idle));
        }
        if !self.state.records.contains_key(uuid) {
            let info = info.unwrap_or_else(|| DeviceInfo::bare(uuid.clone()));
            let record = Record::new(Arc::new(info), Arc::new([]));
            self.changes.push(Change::Device(record.durable()));
            self.state.insert_record(record);
        }
        let record = self.state.records.get_mut(uuid);
        record.ok_or_else(|| too_many_gpus(self.bounds))
    }
}

fn too_many_gpus(bounds: &Bounds) -> ApiError {
    ApiError::Exhausted {
        limit: "gpus",
        max: bounds.gpus,
    }
}
