//! The store: reads, writes and watches, put together from gate, barrier and hub.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use device_api_core::clock::Clock;
use device_api_core::condition::{Condition, Owner};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits;
use device_api_core::ports::{DeviceCache, Overdue};
use device_api_core::signal::Target;
use device_api_core::watch::Scope;

use crate::barrier::{Barrier, Waits};
use crate::gate::{Gate, Serial};
use crate::hub::Hub;
use crate::leases::Leases;
use crate::state::{State, Transaction};

/// Is told what the cache measures of itself. Called on hot paths: be quick.
pub trait CacheObserver: Debug + Send + Sync {
    /// A reader or writer had to wait for the gate.
    fn gate_wait(&self, write: bool, waited: Duration);
    /// A read waited at the barrier; `timed_out`: the bound passed and the fallback was written.
    fn barrier_wait(&self, waited: Duration, timed_out: bool);
    /// Changes that merged for slow watchers.
    fn watch_merged(&self, changes: usize);
    /// What the store holds after a write.
    fn written(&self, version: ResourceVersion, gpus: &[(Health, usize)]);
}

/// Observes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl CacheObserver for Unobserved {
    fn gate_wait(&self, _: bool, _: Duration) {}
    fn barrier_wait(&self, _: Duration, _: bool) {}
    fn watch_merged(&self, _: usize) {}
    fn written(&self, _: ResourceVersion, _: &[(Health, usize)]) {}
}

/// The cache of one node. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Store {
    gate: Gate<State>,
    pub(crate) hub: Serial<Hub>,
    barrier: Barrier,
    pub(crate) leases: Serial<Leases>,
    pub(crate) clock: Arc<dyn Clock>,
    observer: Arc<dyn CacheObserver>,
    overdue: OnceLock<Arc<dyn Overdue>>,
    pub(crate) reserved: OnceLock<Vec<(String, Owner)>>,
}

impl Store {
    /// An empty store in memory. Its versions start at the Unix time in microseconds, so that none
    /// of an earlier run is given out again (design C5).
    pub fn in_memory(clock: Arc<dyn Clock>, observer: Arc<dyn CacheObserver>) -> Self {
        let start = ResourceVersion((clock.wall().unix_ns / 1_000).max(1));
        Self {
            gate: Gate::new(State::new(start)),
            hub: Serial::new(Hub::new(start)),
            barrier: Barrier::new(),
            leases: Serial::new(Leases::default()),
            clock,
            observer,
            overdue: OnceLock::new(),
            reserved: OnceLock::new(),
        }
    }

    /// Names the condition types that policies own, so that no provider takes them. Once.
    pub fn reserve(&self, types: Vec<(String, Owner)>) {
        let _ = self.reserved.set(types);
    }

    /// Names who writes the fallback when a read's bound has passed. Once; later calls do nothing.
    pub fn on_overdue(&self, overdue: Arc<dyn Overdue>) {
        let _ = self.overdue.set(overdue);
    }

    /// Ends all watches, now and later ones.
    pub fn close(&self) {
        self.hub.with(Hub::close);
    }

    pub(crate) fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.gate.read(&*self.clock, &*self.observer, f)
    }

    /// One write: one at a time through the hub, content changed under the gate, watchers told after.
    pub(crate) fn write<R>(&self, f: impl FnOnce(&mut Transaction<'_>) -> R) -> R {
        let now = self.clock.wall();
        self.hub.with(|hub| {
            let (result, events, summary) =
                self.gate.write(&*self.clock, &*self.observer, |state| {
                    let mut transaction = Transaction {
                        state,
                        now,
                        events: Vec::new(),
                    };
                    let result = f(&mut transaction);
                    let events = transaction.events;
                    let summary = (!events.is_empty()).then(|| (state.version(), tally(state)));
                    (result, events, summary)
                });
            let merged = hub.publish(events);
            if merged > 0 {
                self.observer.watch_merged(merged);
            }
            if let Some((version, gpus)) = summary {
                self.observer.written(version, &gpus);
            }
            result
        })
    }

    /// Waits until the decisions under way on `uuid` (on all, if `None`) are in the cache.
    pub(crate) async fn pass_barrier(&self, uuid: Option<&DeviceUuid>) {
        let waits = self.barrier.waits(uuid);
        if waits.is_empty() {
            return;
        }
        let started = self.clock.boot();
        let outcome = self.barrier.wait(waits, limits::BARRIER_WAIT_MAX).await;
        self.observer
            .barrier_wait(self.clock.boot().since(started), outcome.is_err());
        if let Err(overdue) = outcome {
            self.write_fallback(&overdue);
        }
    }

    fn write_fallback(&self, overdue: &Waits) {
        for (uuid, seq) in overdue {
            if let Some(writer) = self.overdue.get() {
                writer.overdue(uuid, *seq);
            }
        }
    }

    pub(crate) fn uuid_of(&self, key: &ObjectKey) -> Result<DeviceUuid, ApiError> {
        self.read(|state| state.object(key).map(|gpu| gpu.uuid.clone()))
            .ok_or_else(|| ApiError::NotFound { key: key.clone() })
    }
}

/// GPUs by health.
fn tally(state: &State) -> Vec<(Health, usize)> {
    let gpus = state.objects(&Scope::All);
    let count = |health| {
        gpus.iter()
            .filter(|gpu| gpu.derived.health == health)
            .count()
    };
    Health::ALL
        .into_iter()
        .map(|health| (health, count(health)))
        .collect()
}

pub(crate) fn check_version(
    state: &State,
    key: &ObjectKey,
    expected: Option<ResourceVersion>,
) -> Result<Arc<Gpu>, ApiError> {
    let current = state
        .object(key)
        .ok_or_else(|| ApiError::NotFound { key: key.clone() })?;
    match expected {
        Some(expected) if expected != current.version => Err(ApiError::Conflict {
            key: key.clone(),
            expected,
            actual: current.version,
        }),
        Some(_) | None => Ok(current.clone()),
    }
}

impl DeviceCache for Store {
    fn resolve(&self, target: &Target) -> Option<DeviceUuid> {
        self.read(|state| match target {
            Target::Uuid(uuid) => state.record(uuid).map(|record| record.info.uuid.clone()),
            Target::Pci(pci) => state.uuid_at(*pci),
        })
    }

    fn device(&self, uuid: &DeviceUuid) -> Option<Arc<DeviceInfo>> {
        self.read(|state| state.record(uuid).map(|record| record.info.clone()))
    }

    fn conditions(&self, uuid: &DeviceUuid) -> Vec<Condition> {
        self.read(|state| {
            state
                .record(uuid)
                .map(|record| record.conditions.clone())
                .unwrap_or_default()
        })
    }

    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError> {
        self.write(|transaction| transaction.register(device))
    }

    fn change(&self, uuid: &DeviceUuid, change: &mut dyn FnMut(&mut Vec<Condition>)) {
        self.write(|transaction| transaction.change(uuid, change));
    }

    fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.barrier.raise(uuid, seq);
    }

    fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.barrier.settle(uuid, seq);
    }
}
