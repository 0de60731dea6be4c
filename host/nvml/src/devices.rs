//! The GPUs that the source knows. Outlives the sessions: NVML forgets a GPU that is lost, and
//! after a driver was reloaded nobody but this table can say that one is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_api_core::device::DeviceInfo;
use device_api_core::durable::SeenBefore;
use device_api_core::ids::DeviceUuid;
use device_api_core::repeats::Repeats;
use device_api_core::signal::Samples;

use crate::action::{RecoveryAction, Wish};
use crate::answering::{Answering, Ended};
use crate::earlier::{self, Fate, Missing};
use crate::evidence::Vitals;
use crate::raw::DeviceHandle;
use crate::readings::Batch;

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
    answering: Answering,
    recovery_action: RecoveryAction,
    vitals: Vitals,
    samples: Arc<Samples>,
    /// The driver was loaded anew since it was announced; how that was noticed.
    rebound: Option<String>,
    /// NVML gave an address that is none: the inventory is taken again every few seconds.
    strange: Repeats,
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

impl Entry {
    fn new(info: DeviceInfo) -> Self {
        Self {
            info,
            handle: None,
            lost: false,
            announced: false,
            told: false,
            unsure: false,
            epoch: 0,
            answering: Answering::default(),
            recovery_action: RecoveryAction::default(),
            vitals: Vitals::default(),
            samples: Arc::default(),
            rebound: None,
            strange: Repeats::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Devices {
    entries: Mutex<BTreeMap<DeviceUuid, Entry>>,
    /// Of an earlier run of the daemon; until the first inventory is complete.
    earlier: Mutex<Vec<SeenBefore>>,
}

impl Devices {
    /// `earlier`: those that an earlier run of the daemon saw.
    pub(crate) fn of_earlier(earlier: Vec<SeenBefore>) -> Self {
        Self {
            entries: Mutex::default(),
            earlier: earlier.into(),
        }
    }

    /// Which of an earlier run are not there any more, now that all that are have told their names; told once.
    /// Those that are lost are looked for from now on.
    pub(crate) fn take_missing(&self) -> Vec<Missing> {
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::take(&mut *earlier);
        let mut entries = self.lock();
        let here = entries.values().map(|entry| &entry.info);
        let here: Vec<_> = here.map(|info| (info.uuid.clone(), info.pci)).collect();
        let missing = earlier::missing(&earlier, &here);
        for Missing { seen, fate } in &missing {
            let Fate::Lost { slot_is_empty } = fate else {
                continue;
            };
            let info = DeviceInfo {
                pci: Some(seen.slot).filter(|_| *slot_is_empty),
                index: None,
                ..DeviceInfo::clone(&seen.info)
            };
            let entry = Entry {
                told: true,
                ..Entry::new(info)
            };
            entries.insert(seen.info.uuid.clone(), entry);
        }
        missing
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceUuid, Entry>> {
        // Each critical section leaves the table whole; no NVML call is made in one.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, uuid: &DeviceUuid, with: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().get_mut(uuid).map(with)
    }

    /// The library was dropped: its handles are void, and counters may have begun anew since nobody of ours had the
    /// driver in use.
    pub(crate) fn detach(&self) {
        for entry in self.lock().values_mut() {
            entry.handle = None;
            entry.announced = false;
            entry.vitals.forget_counters();
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
        let entry = entries
            .entry(info.uuid.clone())
            .or_insert_with(|| Entry::new(info.clone()));
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

    /// What is known of a GPU, be it of an earlier run of the daemon. Where it was then it need not be: after a
    /// reboot another may have its address.
    pub(crate) fn last_known(&self, uuid: &DeviceUuid) -> Option<DeviceInfo> {
        self.info(uuid).or_else(|| {
            let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = earlier.iter().find(|seen| seen.info.uuid == *uuid)?;
            Some(DeviceInfo {
                pci: None,
                index: None,
                minor: None,
                ..DeviceInfo::clone(&seen.info)
            })
        })
    }

    /// NVML gave its address, or what is none: how often by now, where a line of the log is due. Of one that is not
    /// known yet there is none before it is asked again.
    pub(crate) fn has_address(&self, uuid: &DeviceUuid, is_one: bool) -> Option<u64> {
        self.with(uuid, |entry| match is_one {
            true => {
                entry.strange.went_well();
                None
            }
            false => entry.strange.due(),
        })
        .flatten()
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

    /// It can be said again how the GPU is; whether that is news. Of one that answers with errors only, nothing can.
    pub(crate) fn sure(&self, uuid: &DeviceUuid) -> bool {
        self.with(uuid, |entry| {
            !entry.answering.errs() && std::mem::take(&mut entry.unsure)
        })
        .unwrap_or_default()
    }

    /// Whether it answers with errors only.
    pub(crate) fn errs(&self, uuid: &DeviceUuid) -> bool {
        self.with(uuid, |entry| entry.answering.errs())
            .unwrap_or_default()
    }

    /// It answered a batch with errors only, or, where it was just found, its first; whether it is news that it errs.
    pub(crate) fn erred(&self, uuid: &DeviceUuid, is_found: bool) -> bool {
        self.with(uuid, |entry| {
            let is_news = match is_found {
                true => entry.answering.found_erring(),
                false => entry.answering.erred(),
            };
            if is_news {
                entry
                    .vitals
                    .goes_away("it answered with errors only in between");
            }
            is_news
        })
        .unwrap_or_default()
    }

    /// It answered a batch with values; what that ends.
    pub(crate) fn answered(&self, uuid: &DeviceUuid) -> Ended {
        self.with(uuid, |entry| entry.answering.answered())
            .unwrap_or(Ended::Nothing)
    }

    /// What the driver asks for, where a batch has news of it.
    pub(crate) fn recovery_action(&self, uuid: &DeviceUuid, batch: &Batch) -> Option<Wish> {
        self.with(uuid, |entry| entry.recovery_action.take(batch))
            .flatten()
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

    /// The GPU that NVML has at an index, as far as this session's has shown it.
    pub(crate) fn at_index(&self, index: u32) -> Option<DeviceUuid> {
        let entries = self.lock();
        let at_index = entries
            .iter()
            .find(|(_, entry)| entry.handle.is_some() && entry.info.index == Some(index));
        at_index.map(|(uuid, _)| uuid.clone())
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
    fn a_strange_address_of_one_gpu_hides_no_others() {
        let devices = Devices::default();
        let [first, second] = ["GPU-1", "GPU-2"].map(DeviceUuid::new);
        assert_eq!(devices.has_address(&first, false), None, "not known yet");
        for (uuid, at) in [("GPU-1", 1), ("GPU-2", 2)] {
            devices.found(&gpu(uuid), handle(at));
        }
        let due: Vec<u64> = (0..9)
            .filter_map(|_| devices.has_address(&first, false))
            .collect();
        assert_eq!(due, [1, 2, 4, 8]);
        assert_eq!(devices.has_address(&second, false), Some(1));
        assert_eq!(devices.has_address(&second, true), None);
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
        let mut info = gpu("GPU-1");
        info.index = Some(3);
        devices.found(&info, handle(1));
        assert_eq!(devices.at_index(3), Some(uuid.clone()));
        assert_eq!(devices.at_index(1), None);
        devices.detach();
        assert_eq!(devices.at_index(3), None, "the next may count otherwise");
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
    fn n7_who_is_missing_of_an_earlier_run_is_told_once_and_looked_for() {
        let seen = |uuid: &str, slot: &str| SeenBefore {
            info: Arc::new(gpu(uuid)),
            slot: slot.parse().unwrap(),
        };
        let devices = Devices::of_earlier(vec![
            seen("GPU-1", "0000:01:00.0"),
            seen("GPU-2", "0000:02:00.0"),
            seen("GPU-3", "0000:03:00.0"),
        ]);
        let at = |uuid: &str, pci: &str| DeviceInfo {
            pci: pci.parse().ok(),
            ..gpu(uuid)
        };
        devices.found(&at("GPU-2", "0000:02:00.0"), handle(2));
        assert!(
            devices
                .found(&at("GPU-4", "0000:03:00.0"), handle(3))
                .is_empty(),
            "not before all have told their names"
        );
        let missing = devices.take_missing();
        let missing: Vec<_> = missing
            .iter()
            .map(|missing| missing.seen.info.uuid.as_str())
            .collect();
        assert_eq!(missing, ["GPU-1", "GPU-3"]);
        assert!(devices.take_missing().is_empty());
        let lost = DeviceUuid::new("GPU-1");
        assert!(devices.is_told(&lost) && devices.lost(&lost));
        assert_eq!(
            devices.uuids().len(),
            3,
            "who was replaced is not asked after"
        );
        // What is put into the empty slot is in its place.
        let replaced = devices.found(&at("GPU-5", "0000:01:00.0"), handle(1));
        assert_eq!(replaced, [lost]);
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
