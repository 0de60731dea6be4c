//! The GPUs that the source knows. Outlives the sessions: NVML forgets a GPU that is lost, and
//! after a driver was reloaded nobody but this table can say that one is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::Samples;

use crate::evidence::Vitals;
use crate::raw::DeviceHandle;

#[derive(Debug)]
struct Entry {
    info: DeviceInfo,
    /// None while this session's NVML has not shown it.
    handle: Option<DeviceHandle>,
    lost: bool,
    /// The house was told that it answers, in this session.
    announced: bool,
    /// It was told of at all.
    told: bool,
    /// The house was told that nobody can say how it is.
    unsure: bool,
    /// Rises each time that the GPU is found: what was registered before is void.
    epoch: u64,
    /// As last read.
    recovery_action: Option<i64>,
    vitals: Vitals,
    samples: Arc<Samples>,
    /// The driver was loaded anew since it was announced; how that was noticed.
    rebound: Option<String>,
}

/// A GPU at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) uuid: DeviceUuid,
    pub(crate) handle: Option<DeviceHandle>,
    pub(crate) lost: bool,
    pub(crate) announced: bool,
    pub(crate) epoch: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Devices {
    entries: Mutex<BTreeMap<DeviceUuid, Entry>>,
}

impl Devices {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceUuid, Entry>> {
        // Each critical section leaves the table whole; no NVML call is made in one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, uuid: &DeviceUuid, with: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().get_mut(uuid).map(with)
    }

    /// The library was dropped: its handles are void.
    pub(crate) fn detach(&self) {
        for entry in self.lock().values_mut() {
            entry.handle = None;
            entry.announced = false;
        }
    }

    /// The GPU answers. The answer is who was in its slot before, and is there no more.
    pub(crate) fn found(&self, info: &DeviceInfo, handle: DeviceHandle) -> Vec<DeviceUuid> {
        let mut entries = self.lock();
        let was_there = |(uuid, entry): (&DeviceUuid, &Entry)| {
            let same_slot = (entry.info.pci.is_some() && entry.info.pci == info.pci)
                || entry.handle == Some(handle);
            (*uuid != info.uuid && same_slot).then(|| uuid.clone())
        };
        let replaced: Vec<DeviceUuid> = entries.iter().filter_map(was_there).collect();
        for uuid in &replaced {
            entries.remove(uuid);
        }
        let entry = entries.entry(info.uuid.clone()).or_insert_with(|| Entry {
            info: info.clone(),
            handle: None,
            lost: false,
            announced: false,
            told: false,
            unsure: false,
            epoch: 0,
            recovery_action: None,
            vitals: Vitals::default(),
            samples: Arc::default(),
            rebound: None,
        });
        entry.info.clone_from(info);
        entry.handle = Some(handle);
        entry.lost = false;
        entry.announced = false;
        entry.epoch += 1;
        replaced
    }

    pub(crate) fn announced(&self, uuid: &DeviceUuid) {
        self.with(uuid, |entry| {
            entry.announced = true;
            entry.told = true;
            entry.unsure = false;
        });
    }

    pub(crate) fn info(&self, uuid: &DeviceUuid) -> Option<DeviceInfo> {
        self.with(uuid, |entry| entry.info.clone())
    }

    /// Whether this is news.
    pub(crate) fn update(&self, info: &DeviceInfo) -> bool {
        self.with(&info.uuid, |entry| {
            let news = entry.info != *info;
            entry.info.clone_from(info);
            news
        })
        .unwrap_or_default()
    }

    /// Whether this is news.
    pub(crate) fn lost(&self, uuid: &DeviceUuid) -> bool {
        self.with(uuid, |entry| {
            entry.vitals.goes_away("it was lost in between");
            !std::mem::replace(&mut entry.lost, true)
        })
        .unwrap_or_default()
    }

    /// Nobody can say how these are; the answer is whom the house knows of them.
    pub(crate) fn unsure(&self, uuids: &[DeviceUuid]) -> Vec<DeviceUuid> {
        let mut entries = self.lock();
        let mut known = uuids.to_vec();
        known.retain(|uuid| match entries.get_mut(uuid) {
            Some(entry) if entry.told => {
                entry.unsure = true;
                true
            }
            Some(_) | None => false,
        });
        known
    }

    /// Whether the house knows of it.
    pub(crate) fn is_told(&self, uuid: &DeviceUuid) -> bool {
        self.with(uuid, |entry| entry.told).unwrap_or_default()
    }

    /// It can be said again how the GPU is; whether that is news.
    pub(crate) fn sure(&self, uuid: &DeviceUuid) -> bool {
        self.with(uuid, |entry| std::mem::take(&mut entry.unsure))
            .unwrap_or_default()
    }

    /// Whether this is news. At first sight only a wish for an action is: none is what the sample
    /// that comes with a found GPU says.
    pub(crate) fn recovery_action(&self, uuid: &DeviceUuid, action: i64) -> bool {
        self.with(uuid, |entry| {
            let last = entry.recovery_action.replace(action);
            last.map_or(action != 0, |last| last != action)
        })
        .unwrap_or_default()
    }

    /// Takes new samples; how they show that the GPU was reset, if they do.
    pub(crate) fn take_samples(&self, uuid: &DeviceUuid, samples: &Arc<Samples>) -> Option<String> {
        self.with(uuid, |entry| {
            entry.samples = Arc::clone(samples);
            entry.vitals.take(samples)
        })
        .flatten()
    }

    /// As last taken; empty where none were.
    pub(crate) fn samples(&self, uuid: &DeviceUuid) -> Arc<Samples> {
        self.with(uuid, |entry| Arc::clone(&entry.samples))
            .unwrap_or_default()
    }

    /// The driver was loaded anew; how that was noticed.
    pub(crate) fn driver_reloaded(&self, evidence: &str) {
        for entry in self.lock().values_mut() {
            entry.rebound = Some(evidence.to_owned());
            entry.vitals.driver_reloaded();
        }
    }

    /// The driver is let go of so that GPUs can be reset.
    pub(crate) fn released_for_reset(&self) {
        for entry in self.lock().values_mut() {
            let how = "the driver was let go of for a reset in between";
            entry.vitals.goes_away(how);
        }
    }

    /// The driver may have been loaded anew: counters that begin at zero tell nothing.
    pub(crate) fn forget_counters(&self) {
        for entry in self.lock().values_mut() {
            entry.vitals.driver_reloaded();
        }
    }

    /// Whether the driver was loaded anew since the GPU was last announced; told once.
    pub(crate) fn take_rebound(&self, uuid: &DeviceUuid) -> Option<String> {
        self.with(uuid, |entry| entry.rebound.take()).flatten()
    }

    /// In the order of NVML's indices.
    pub(crate) fn all(&self) -> Vec<Known> {
        let known = |(uuid, entry): (&DeviceUuid, &Entry)| Known {
            uuid: uuid.clone(),
            handle: entry.handle,
            lost: entry.lost,
            announced: entry.announced,
            epoch: entry.epoch,
        };
        let entries = self.lock();
        let mut by_index: Vec<_> = entries.iter().collect();
        by_index.sort_by_key(|(_, entry)| entry.info.index);
        by_index.into_iter().map(known).collect()
    }

    pub(crate) fn uuids(&self) -> Vec<DeviceUuid> {
        self.lock().keys().cloned().collect()
    }

    /// Those that answered when last asked, with their handles and epochs.
    pub(crate) fn live(&self) -> Vec<(DeviceUuid, DeviceHandle, u64)> {
        let live =
            |known: Known| Some((known.uuid, known.handle?, known.epoch)).filter(|_| !known.lost);
        self.all().into_iter().filter_map(live).collect()
    }

    pub(crate) fn uuid_of(&self, handle: DeviceHandle) -> Option<DeviceUuid> {
        let entries = self.lock();
        let of_handle = entries
            .iter()
            .find(|(_, entry)| entry.handle == Some(handle));
        of_handle.map(|(uuid, _)| uuid.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn handle(address: usize) -> DeviceHandle {
        DeviceHandle::from_raw(ptr::without_provenance_mut(address))
    }

    fn gpu(uuid: &str) -> DeviceInfo {
        DeviceInfo::bare(DeviceUuid::new(uuid))
    }

    #[test]
    fn a_loss_is_news_once_until_the_gpu_is_found_again() {
        let devices = Devices::default();
        let uuid = DeviceUuid::new("GPU-1");
        assert!(!devices.lost(&uuid), "who was never seen can't be lost");
        devices.found(&gpu("GPU-1"), handle(1));
        assert!(devices.lost(&uuid) && !devices.lost(&uuid));
        assert!(devices.live().is_empty());
        assert_eq!(
            devices.uuid_of(handle(1)),
            Some(uuid.clone()),
            "a lost GPU keeps its name"
        );
        devices.found(&gpu("GPU-1"), handle(2));
        assert_eq!(devices.live(), [(uuid.clone(), handle(2), 2)]);
        assert!(devices.lost(&uuid));
    }

    #[test]
    fn handles_are_void_after_a_session_and_names_are_not() {
        let devices = Devices::default();
        let uuid = DeviceUuid::new("GPU-1");
        devices.found(&gpu("GPU-1"), handle(1));
        devices.detach();
        assert_eq!(devices.uuid_of(handle(1)), None);
        assert!(
            devices
                .all()
                .iter()
                .any(|known| known.uuid == uuid && known.handle.is_none())
        );
    }

    #[test]
    fn n7_another_uuid_in_the_slot_takes_the_place_of_the_one_before() {
        let devices = Devices::default();
        let at = |uuid: &str, pci: &str| DeviceInfo {
            pci: pci.parse().ok(),
            ..gpu(uuid)
        };
        devices.found(&at("GPU-1", "0000:01:00.0"), handle(1));
        devices.found(&at("GPU-2", "0000:02:00.0"), handle(2));
        assert!(
            devices
                .found(&at("GPU-1", "0000:01:00.0"), handle(1))
                .is_empty()
        );
        let replaced = devices.found(&at("GPU-3", "0000:01:00.0"), handle(1));
        assert_eq!(replaced, [DeviceUuid::new("GPU-1")]);
        assert_eq!(
            devices.uuids(),
            [DeviceUuid::new("GPU-2"), DeviceUuid::new("GPU-3")]
        );
        // Where the address is not told, nobody is replaced.
        devices.found(&gpu("GPU-4"), handle(4));
        assert!(devices.found(&gpu("GPU-5"), handle(5)).is_empty());
    }

    #[test]
    fn a_recovery_action_is_news_when_it_changes() {
        let devices = Devices::default();
        let (quiet, asking) = (DeviceUuid::new("GPU-1"), DeviceUuid::new("GPU-2"));
        devices.found(&gpu("GPU-1"), handle(1));
        devices.found(&gpu("GPU-2"), handle(2));
        let news: Vec<bool> = [0, 0, 1, 1, 0]
            .map(|action| devices.recovery_action(&quiet, action))
            .into();
        assert_eq!(news, [false, false, true, false, true]);
        assert!(
            devices.recovery_action(&asking, 2),
            "a wish that was there before us is news"
        );
    }

    #[test]
    fn who_was_unsure_is_sure_once() {
        let devices = Devices::default();
        let uuid = DeviceUuid::new("GPU-1");
        devices.found(&gpu("GPU-1"), handle(1));
        assert!(!devices.sure(&uuid));
        let one = std::slice::from_ref(&uuid);
        assert!(
            devices.unsure(one).is_empty(),
            "the house does not know it yet"
        );
        devices.announced(&uuid);
        assert_eq!(devices.unsure(one), one);
        assert!(devices.sure(&uuid) && !devices.sure(&uuid));
    }
}
