//! The GPUs that the source knows. Outlives the sessions: NVML forgets a GPU that is lost, and
//! after a driver was reloaded nobody but this table can say that one is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use device_api_core::ids::DeviceUuid;

use crate::raw::DeviceHandle;

#[derive(Debug)]
struct Entry {
    /// None while this session's NVML has not shown it.
    handle: Option<DeviceHandle>,
    lost: bool,
    /// Rises each time that the GPU is found: what was registered before is void.
    epoch: u64,
    /// As last read.
    recovery_action: Option<i64>,
}

/// A GPU at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) uuid: DeviceUuid,
    pub(crate) handle: Option<DeviceHandle>,
    pub(crate) lost: bool,
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

    /// The library was dropped: its handles are void.
    pub(crate) fn detach(&self) {
        for entry in self.lock().values_mut() {
            entry.handle = None;
        }
    }

    /// The GPU answers.
    pub(crate) fn found(&self, uuid: &DeviceUuid, handle: DeviceHandle) {
        let mut entries = self.lock();
        let entry = entries.entry(uuid.clone()).or_insert(Entry {
            handle: None,
            lost: false,
            epoch: 0,
            recovery_action: None,
        });
        entry.handle = Some(handle);
        entry.lost = false;
        entry.epoch += 1;
    }

    /// Whether this is news.
    pub(crate) fn lost(&self, uuid: &DeviceUuid) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uuid) else {
            return false;
        };
        !std::mem::replace(&mut entry.lost, true)
    }

    /// Whether this is news. At first sight only a wish for an action is: none is what the sample
    /// that comes with a found GPU says.
    pub(crate) fn recovery_action(&self, uuid: &DeviceUuid, action: i64) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uuid) else {
            return false;
        };
        entry
            .recovery_action
            .replace(action)
            .map_or(action != 0, |last| last != action)
    }

    pub(crate) fn all(&self) -> Vec<Known> {
        let known = |(uuid, entry): (&DeviceUuid, &Entry)| Known {
            uuid: uuid.clone(),
            handle: entry.handle,
            lost: entry.lost,
            epoch: entry.epoch,
        };
        self.lock().iter().map(known).collect()
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

    #[test]
    fn a_loss_is_news_once_until_the_gpu_is_found_again() {
        let devices = Devices::default();
        let uuid = DeviceUuid::new("GPU-1");
        assert!(!devices.lost(&uuid), "who was never seen can't be lost");
        devices.found(&uuid, handle(1));
        assert!(devices.lost(&uuid) && !devices.lost(&uuid));
        assert!(devices.live().is_empty());
        assert_eq!(
            devices.uuid_of(handle(1)),
            Some(uuid.clone()),
            "a lost GPU keeps its name"
        );
        devices.found(&uuid, handle(2));
        assert_eq!(devices.live(), [(uuid.clone(), handle(2), 2)]);
        assert!(devices.lost(&uuid));
    }

    #[test]
    fn handles_are_void_after_a_session_and_names_are_not() {
        let devices = Devices::default();
        let uuid = DeviceUuid::new("GPU-1");
        devices.found(&uuid, handle(1));
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
    fn a_recovery_action_is_news_when_it_changes() {
        let devices = Devices::default();
        let (quiet, asking) = (DeviceUuid::new("GPU-1"), DeviceUuid::new("GPU-2"));
        devices.found(&quiet, handle(1));
        devices.found(&asking, handle(2));
        let news: Vec<bool> = [0, 0, 1, 1, 0]
            .map(|action| devices.recovery_action(&quiet, action))
            .into();
        assert_eq!(news, [false, false, true, false, true]);
        assert!(
            devices.recovery_action(&asking, 2),
            "a wish that was there before us is news"
        );
    }
}
