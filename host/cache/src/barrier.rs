//! The read barrier (design C2, C3): from the moment a fault signal was observed until its decision
//! is in the cache, reads of that GPU wait.
//!
//! Each device has two marks: the newest signal that was raised, and the newest up to which all is
//! decided. A read takes the raised mark when it begins and waits until the settled mark has reached
//! it: signals observed later never hold it, so a storm can't.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use device_api_core::ids::{DeviceUuid, SignalSeq};
use tokio::sync::Notify;

use crate::gate::Serial;

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    raised: SignalSeq,
    settled: SignalSeq,
}

impl Marks {
    fn is_up(self) -> bool {
        self.raised > self.settled
    }
}

#[derive(Debug)]
pub(crate) struct Barrier {
    devices: Serial<HashMap<DeviceUuid, Marks>>,
    /// Devices whose barrier is up. Zero is the usual case, and lets a read pass without the lock.
    up: AtomicUsize,
    settled: Notify,
}

/// What a read has to wait for.
pub(crate) type Waits = Vec<(DeviceUuid, SignalSeq)>;

impl Barrier {
    pub(crate) fn new() -> Self {
        Self {
            devices: Serial::new(HashMap::new()),
            up: AtomicUsize::new(0),
            settled: Notify::new(),
        }
    }

    pub(crate) fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.devices.with(|devices| {
            let marks = devices.entry(uuid.clone()).or_default();
            let was_up = marks.is_up();
            marks.raised = marks.raised.max(seq);
            if marks.is_up() && !was_up {
                self.up.fetch_add(1, Ordering::SeqCst);
            }
        });
    }

    pub(crate) fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        let moved = self.devices.with(|devices| {
            let Some(marks) = devices.get_mut(uuid) else {
                return false;
            };
            let was_up = marks.is_up();
            marks.settled = marks.settled.max(seq);
            if was_up && !marks.is_up() {
                self.up.fetch_sub(1, Ordering::SeqCst);
            }
            was_up
        });
        if moved {
            self.settled.notify_waiters();
        }
    }

    /// Whether any barrier is up: one that is raised before is seen.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst) != 0
    }

    /// What a read that begins now waits for: of one device, or of all.
    pub(crate) fn waits(&self, uuid: Option<&DeviceUuid>) -> Waits {
        if !self.is_up() {
            return Vec::new();
        }
        self.devices.with(|devices| {
            let up = |(uuid, marks): (&DeviceUuid, &Marks)| {
                marks.is_up().then(|| (uuid.clone(), marks.raised))
            };
            match uuid {
                Some(uuid) => devices
                    .get_key_value(uuid)
                    .and_then(up)
                    .into_iter()
                    .collect(),
                None => devices.iter().filter_map(up).collect(),
            }
        })
    }

    fn is_settled(&self, waits: &mut Waits) -> bool {
        self.devices.with(|devices| {
            waits.retain(|(uuid, seq)| devices.get(uuid).is_some_and(|marks| marks.settled < *seq));
        });
        waits.is_empty()
    }

    /// Waits until all of `waits` is settled. `Err` with what is not, when `bound` has passed.
    pub(crate) async fn wait(&self, mut waits: Waits, bound: Duration) -> Result<(), Waits> {
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            // From here on a settlement wakes us, also one that comes before the await.
            settled.as_mut().enable();
            if self.is_settled(&mut waits) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, settled).await.is_err() {
                return if self.is_settled(&mut waits) {
                    Ok(())
                } else {
                    Err(waits)
                };
            }
        }
    }
}
