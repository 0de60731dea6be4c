//! A double-bit error waits for the XIDs that say that it was contained (design H8).

use std::time::Duration;

use device_api_core::floor;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::signal::{Signal, SignalKind};

use crate::pipeline::{Shared, State};
use crate::timers::Key;

/// How long one that waited when the run before ended waits for the kernel log, which may tell of its
/// containment: as long as NVML's source does. Where there is no log, or it can't be read, it is
/// uncontained after that.
const LOG_WAIT: Duration = Duration::from_secs(2);

/// Whether a signal may be a double-bit error, or what contains one.
pub(crate) fn concerns(kind: SignalKind, code: Option<u64>) -> bool {
    kind == SignalKind::Xid
        && code.is_some_and(|code| {
            code == floor::XID_DOUBLE_BIT || floor::XIDS_CONTAINED.contains(&code)
        })
}

impl Shared {
    /// Takes note of a double-bit error, and of what contains one.
    pub(crate) fn watch_containment(&self, state: &mut State, uuid: &DeviceUuid, signal: &Signal) {
        let (SignalKind::Xid, Some(code)) = (signal.kind, signal.code) else {
            return;
        };
        let (now, drill) = (signal.observed_boot, signal.drill);
        let key = Key::Containment {
            uuid: uuid.clone(),
            drill,
        };
        let containment = self.lane(state, uuid).containment(drill);
        if floor::XIDS_CONTAINED.contains(&code) {
            containment.contained = Some(now);
            containment.double_bit = None;
            state.timers.cancel(&key);
        } else if code == floor::XID_DOUBLE_BIT
            && containment
                .contained
                .is_none_or(|seen| now.since(seen) > limits::CONTAINMENT_WINDOW)
        {
            containment.double_bit = Some(signal.clone());
            containment.lowered_by.clear();
            // Since the first that waits: a storm does not put it off.
            let due = now.after(limits::CONTAINMENT_WINDOW);
            if !state.timers.is_set_before(&key, due) {
                self.set_timer(state, key, due);
            }
        }
    }

    /// One that waited when the run before ended waits on: what contains it may be in the log by now.
    pub(crate) fn restore_containment(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        signal: &Signal,
    ) {
        let drill = signal.drill;
        self.lane(state, uuid).containment(drill).double_bit = Some(signal.clone());
        let key = Key::Containment {
            uuid: uuid.clone(),
            drill,
        };
        self.set_timer(state, key, self.clock.boot().after(LOG_WAIT));
    }

    /// The log was read to its end: what it did not tell by now is not long in coming.
    pub(crate) fn await_containment(&self, state: &mut State) {
        let due = self.clock.boot().after(limits::CONTAINMENT_WINDOW);
        let uuids: Vec<DeviceUuid> = state.lanes.keys().cloned().collect();
        for uuid in uuids {
            let late = state.timers.of(&uuid).filter(|(_, set)| *set > due);
            let waiting: Vec<Key> = late
                .filter(|(key, _)| matches!(key, Key::Containment { .. }))
                .map(|(key, _)| key.clone())
                .collect();
            for key in waiting {
                self.set_timer(state, key, due);
            }
        }
    }
}
