//! Timers on boot time: one for each key, a later setting replaces the earlier.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use device_api_core::clock::BootTime;
use device_api_core::ids::DeviceUuid;

/// What a timer is for. The keys bound the timers: per GPU, a few per policy and condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// The oldest undecided fault signal reaches its bound (design C3).
    Overdue(DeviceUuid),
    /// A double-bit error that nothing contained yet (design H8).
    Containment { uuid: DeviceUuid, drill: bool },
    /// A policy's own timer.
    Wake {
        uuid: DeviceUuid,
        policy: usize,
        name: String,
    },
    /// A failed signal is tried again.
    Retry { uuid: DeviceUuid, policy: usize },
    /// A condition that a quiet time clears.
    Quiet { uuid: DeviceUuid, condition: String },
}

impl Key {
    fn uuid(&self) -> &DeviceUuid {
        match self {
            Self::Overdue(uuid)
            | Self::Containment { uuid, .. }
            | Self::Wake { uuid, .. }
            | Self::Retry { uuid, .. }
            | Self::Quiet { uuid, .. } => uuid,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: HashMap<DeviceUuid, BTreeMap<Key, BootTime>>,
    order: BTreeSet<(BootTime, Key)>,
}

impl Timers {
    pub(crate) fn set(&mut self, key: Key, due: BootTime) {
        self.cancel(&key);
        let of_device = self.due.entry(key.uuid().clone()).or_default();
        of_device.insert(key.clone(), due);
        self.order.insert((due, key));
    }

    pub(crate) fn cancel(&mut self, key: &Key) {
        if let Some(due) = self.forget(key) {
            self.order.remove(&(due, key.clone()));
        }
    }

    fn forget(&mut self, key: &Key) -> Option<BootTime> {
        let of_device = self.due.get_mut(key.uuid())?;
        let due = of_device.remove(key);
        if of_device.is_empty() {
            self.due.remove(key.uuid());
        }
        due
    }

    /// Whether a timer runs, and fires at `due`.
    pub(crate) fn is_set_for(&self, key: &Key, due: BootTime) -> bool {
        let of_device = self.due.get(key.uuid());
        of_device.and_then(|timers| timers.get(key)) == Some(&due)
    }

    /// Whether a timer runs, and fires by `due`.
    pub(crate) fn is_set_before(&self, key: &Key, due: BootTime) -> bool {
        self.of(key.uuid()).any(|(set, at)| set == key && at <= due)
    }

    pub(crate) fn is_set(&self, key: &Key) -> bool {
        self.of(key.uuid()).any(|(set, _)| set == key)
    }

    /// The timers that run for a device.
    pub(crate) fn of(&self, uuid: &DeviceUuid) -> impl Iterator<Item = (&Key, BootTime)> {
        let of_device = self.due.get(uuid).into_iter().flatten();
        of_device.map(|(key, due)| (key, *due))
    }

    /// How many of one policy's own timers run for a device.
    pub(crate) fn wakes(&self, of: &DeviceUuid, by: usize) -> usize {
        let is_own =
            |(key, _): &(&Key, BootTime)| matches!(key, Key::Wake { policy, .. } if *policy == by);
        self.of(of).filter(is_own).count()
    }

    pub(crate) fn next(&self) -> Option<BootTime> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Whose the next timer is that is due.
    pub(crate) fn due(&self, now: BootTime) -> Option<&DeviceUuid> {
        let (_, key) = self.order.first().filter(|(due, _)| *due <= now)?;
        Some(key.uuid())
    }

    /// Takes one timer that is due.
    pub(crate) fn take_due(&mut self, now: BootTime) -> Option<Key> {
        self.due(now)?;
        let (_, key) = self.order.pop_first()?;
        self.forget(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_setting_replaces_the_earlier_and_timers_fire_in_order() {
        let mut timers = Timers::default();
        let key = |n: u32| Key::Overdue(DeviceUuid::new(&format!("GPU-{n}")));
        timers.set(key(0), BootTime { ns: 5 });
        timers.set(key(1), BootTime { ns: 3 });
        timers.set(key(0), BootTime { ns: 9 });
        timers.set(key(2), BootTime { ns: 1 });
        timers.cancel(&key(2));
        assert_eq!(timers.next(), Some(BootTime { ns: 3 }));
        assert_eq!(timers.take_due(BootTime { ns: 9 }), Some(key(1)));
        assert_eq!(timers.take_due(BootTime { ns: 8 }), None);
        assert_eq!(timers.take_due(BootTime { ns: 9 }), Some(key(0)));
        assert!(!timers.is_set(&key(0)));
    }
}
