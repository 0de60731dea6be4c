//! The cache of one node: reads, writes and watches, put together from gate, barrier and hub.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use device_api_core::clock::{BootId, Clock};
use device_api_core::condition::{Condition, Owner};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{Batch, Change, LogPosition, SeenBefore, Start};
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits::Bounds;
use device_api_core::ports::{Commit, DeviceCache, Overdue, StateLog};
use device_api_core::provider::PolarityTable;
use device_api_core::signal::Target;
use device_api_core::watch::EventType;
use tokio::sync::oneshot;

use crate::author::Author;
use crate::barrier::{Barrier, Waits};
use crate::gate::{Gate, Serial};
use crate::hub::Hub;
use crate::leases::Leases;
use crate::restore;
use crate::state::State;
use crate::transaction::{Transaction, Turn, Written};

/// Is told what the cache measures of itself. Called on hot paths: be quick.
pub trait CacheObserver: Debug + Send + Sync {
    /// A reader or writer had to wait for the gate.
    fn gate_wait(&self, write: bool, waited: Duration);
    /// A read waited at the barrier; `timed_out`: the bound passed and the fallback was written.
    fn barrier_wait(&self, waited: Duration, timed_out: bool);
    /// Changes that merged for slow watchers.
    fn watch_merged(&self, changes: usize);
    /// An object was created, changed or deleted, under a new version.
    fn updated(&self, change: EventType, by: &Author);
    /// What the cache holds after a write.
    fn written(&self, version: ResourceVersion, gpus: &[(Health, usize)]);
    /// A GPU turned healthy, or ill, or is to be treated otherwise. No more of one GPU than have a line in the log. Called
    /// with no lock held.
    fn turned(&self, turn: &Turn);
    /// A provider writes a type of unknown polarity: it does not count (design P3). Once a type.
    fn uncounted_type(&self, type_: &str);
}

/// Observes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl CacheObserver for Unobserved {
    fn gate_wait(&self, _: bool, _: Duration) {}
    fn barrier_wait(&self, _: Duration, _: bool) {}
    fn watch_merged(&self, _: usize) {}
    fn updated(&self, _: EventType, _: &Author) {}
    fn written(&self, _: ResourceVersion, _: &[(Health, usize)]) {}
    fn turned(&self, _: &Turn) {}
    fn uncounted_type(&self, _: &str) {}
}

/// What a site may set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub bounds: Arc<Bounds>,
    pub polarity: PolarityTable,
    /// Identities whose conditions are lost when their last connection has been closed for so long
    /// (design P2).
    pub connection_leases: Vec<(Arc<str>, Duration)>,
}

/// The cache of one node. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Cache {
    pub(crate) config: Config,
    gate: Gate<State>,
    pub(crate) hub: Arc<Serial<Hub>>,
    barrier: Barrier,
    pub(crate) leases: Serial<Leases>,
    log: Option<Arc<dyn StateLog>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn CacheObserver>,
    overdue: OnceLock<Arc<dyn Overdue>>,
    /// Taken inside the gate, never around it.
    pub(crate) reserved: Serial<Vec<(String, Owner)>>,
}

impl Cache {
    /// A cache of which nothing survives. Its versions start at the Unix time in microseconds, so that
    /// none of an earlier run is given out again (design C5).
    pub fn in_memory(
        config: Config,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn CacheObserver>,
    ) -> Self {
        let start = Start {
            base: ResourceVersion(clock.wall().unix_ns / 1_000),
            snapshot: None,
        };
        Self::build(config, start, None, &BootId::default(), clock, observer)
    }

    /// A cache that goes on from what was durable, and hands on what it writes. A restart heals
    /// nothing: problems are back, and what was healthy is unknown (design C7).
    pub fn durable(
        config: Config,
        start: Start,
        log: Arc<dyn StateLog>,
        boot: &BootId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn CacheObserver>,
    ) -> Self {
        Self::build(config, start, Some(log), boot, clock, observer)
    }

    fn build(
        config: Config,
        start: Start,
        log: Option<Arc<dyn StateLog>>,
        boot: &BootId,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn CacheObserver>,
    ) -> Self {
        let restored = restore::restore(start, boot, &config, &*clock);
        if let Some(log) = &log
            && !restored.changes.is_empty()
        {
            log.append(Batch {
                version: restored.state.version(),
                at: clock.boot(),
                changes: restored.changes,
            });
        }
        observer.written(restored.state.version(), &restored.state.tally());
        Self {
            hub: Arc::new(Serial::new(restored.hub)),
            gate: Gate::new(restored.state),
            barrier: Barrier::new(),
            leases: Serial::new(restored.leases),
            config,
            log,
            clock,
            observer,
            overdue: OnceLock::new(),
            reserved: Serial::new(Vec::new()),
        }
    }

    /// Names who writes the fallback when a read's bound has passed. Once; later calls do nothing.
    pub fn on_overdue(&self, overdue: Arc<dyn Overdue>) {
        let _ = self.overdue.set(overdue);
    }

    /// GPUs that NVML showed in an earlier run: those that are shown, and not known to be gone. For whoever takes
    /// the inventory, before it does.
    pub fn seen_before(&self) -> Vec<SeenBefore> {
        self.read(State::seen_before)
    }

    /// Ends all watches, now and later ones.
    pub fn close(&self) {
        self.hub.with(Hub::close);
    }

    /// All objects as they are just now. It passes no barrier: for whoever tells of the daemon, as metrics do, and
    /// answers nobody who acts on a GPU.
    pub fn all_now(&self) -> Arc<[Arc<Gpu>]> {
        self.read(State::all)
    }

    pub(crate) fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.gate.read(&*self.clock, &*self.observer, f)
    }

    pub(crate) fn write<R>(&self, f: impl FnOnce(&mut Transaction<'_>) -> R) -> R {
        self.write_and_remember(f, Vec::new)
    }

    /// One write: one at a time through the hub, content changed under the gate; then it is handed to
    /// the disk, and watchers are told.
    fn write_and_remember<R>(
        &self,
        f: impl FnOnce(&mut Transaction<'_>) -> R,
        remember: impl FnOnce() -> Vec<Change>,
    ) -> R {
        let now = self.clock.wall();
        let (result, turns) = self.hub.with(|hub| {
            let (result, written, version, summary) =
                self.gate.write(&*self.clock, &*self.observer, |state| {
                    let mut transaction = Transaction::new(state, &self.config.bounds, now);
                    let result = f(&mut transaction);
                    let written = transaction.into_written();
                    let summary = (!written.events.is_empty()).then(|| state.tally());
                    (result, written, state.version(), summary)
                });
            let Written {
                events,
                mut changes,
                uncounted,
                turns,
                author,
            } = written;
            if let Some(log) = &self.log {
                changes.extend(remember());
                if !changes.is_empty() {
                    log.append(Batch {
                        version,
                        at: self.clock.boot(),
                        changes,
                    });
                }
            } else {
                // What it does besides remembering counts all the same.
                drop(remember());
            }
            for event in &events {
                self.observer.updated(event.type_, &author);
            }
            let merged = hub.publish(events, version);
            if merged > 0 {
                self.observer.watch_merged(merged);
            }
            if let Some(gpus) = summary {
                self.observer.written(version, &gpus);
            }
            for type_ in uncounted {
                self.observer.uncounted_type(&type_);
            }
            (result, turns)
        });
        // Whoever reads the log may be slow, and nobody is to wait for that at the hub.
        for turn in &turns {
            self.observer.turned(turn);
        }
        result
    }

    /// A write of a client: refused where it could not be made to survive, and answered when it
    /// would survive a kill (design C6).
    pub(crate) async fn client_write<R>(
        &self,
        f: impl FnOnce(&mut Transaction<'_>) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        let Some(log) = &self.log else {
            return self.write(f);
        };
        if let Err(why) = log.writable() {
            return Err(ApiError::Unavailable {
                why: format!(
                    "nothing was written, as it could not be made durable: {}",
                    why.0
                ),
            });
        }
        let result = self.write(f)?;
        let (done, synced) = oneshot::channel();
        log.synced(Box::new(move |outcome| {
            // A client that is gone is not told.
            let _ = done.send(outcome);
        }));
        match synced.await {
            Ok(Ok(())) => Ok(result),
            Ok(Err(why)) => Err(unknown(&why.0)),
            Err(_) => Err(unknown("the daemon is going down")),
        }
    }

    /// Waits until the decisions under way on `uuid` (on all, if `None`) are in the cache; of a MIG instance,
    /// those on its GPU.
    pub(crate) async fn pass_barrier(&self, uuid: Option<&DeviceUuid>) {
        if !self.barrier.is_up() {
            return;
        }
        let gpu = uuid.and_then(|uuid| self.read(|state| state.gpu_of(uuid)));
        let waits = self.barrier.waits(gpu.as_ref().or(uuid));
        if waits.is_empty() {
            return;
        }
        let started = self.clock.boot();
        let outcome = self
            .barrier
            .wait(waits, self.config.bounds.barrier_wait)
            .await;
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

fn unknown(why: &str) -> ApiError {
    ApiError::Unavailable {
        why: format!(
            "written, but it is unknown whether it would survive a restart ({why}); read it back, or repeat the write"
        ),
    }
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

impl DeviceCache for Cache {
    fn resolve(&self, target: &Target) -> Option<DeviceUuid> {
        self.read(|state| match target {
            Target::Uuid(uuid) => state.gpu_of(uuid),
            Target::Pci(pci) => state.uuid_at(*pci),
        })
    }

    fn device(&self, uuid: &DeviceUuid) -> Option<Arc<DeviceInfo>> {
        self.read(|state| state.record(uuid).map(|record| record.info.clone()))
    }

    fn gpus(&self) -> Vec<Arc<DeviceInfo>> {
        self.read(|state| state.gpus())
    }

    fn conditions(&self, uuid: &DeviceUuid) -> Arc<[Condition]> {
        self.read(|state| {
            state
                .record(uuid)
                .map(|record| record.conditions.clone())
                .unwrap_or_default()
        })
    }

    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError> {
        self.write(|transaction| {
            transaction.author = Author::Nvml;
            transaction.register(device)
        })
    }

    fn change(&self, uuid: &DeviceUuid, commit: &mut dyn Commit) {
        let commit = std::cell::RefCell::new(commit);
        self.write_and_remember(
            |transaction| {
                transaction.author = Author::Pipeline;
                transaction.change(uuid, |conditions| commit.borrow_mut().change(conditions));
            },
            || commit.borrow_mut().remember(),
        );
    }

    fn keep(&self, changes: Vec<Change>) {
        self.write_and_remember(|_| (), || changes);
    }

    fn log_decided(&self, position: LogPosition) {
        self.write(|transaction| transaction.note(Change::LogPosition(position)));
    }

    fn reserve(&self, types: Vec<(String, Owner)>) -> Result<(), (String, Owner)> {
        // Providers take types under the gate: none comes in between.
        self.gate.write(&*self.clock, &*self.observer, |state| {
            for (type_, new) in &types {
                if let Some(owner) = self.owner_among_policies(state, type_)
                    && !owner.same(new)
                {
                    return Err((type_.clone(), owner));
                }
            }
            self.reserved.with(|reserved| *reserved = types);
            Ok(())
        })
    }

    fn owner(&self, condition: &str) -> Option<Owner> {
        self.read(|state| self.owner_among_policies(state, condition))
    }

    fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.barrier.raise(uuid, seq);
    }

    fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.barrier.settle(uuid, seq);
    }
}
