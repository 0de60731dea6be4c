//! The store: reads, writes and watches, put together from gate, barrier and hub.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use device_api_core::clock::Clock;
use device_api_core::condition::{self, Condition, HOST_OWNED, Owner, Polarity};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits;
use device_api_core::ports::{DeviceCache, Devices, Overdue};
use device_api_core::provider::{
    self, Caller, Creation, Lease, Merge, ProviderCondition, StatusUpdate,
};
use device_api_core::signal::Target;
use device_api_core::verdict::{Clear, ClearOn, Judgement};
use device_api_core::watch::{Event, EventType, Listing, Scope, WatchFrom};

use crate::barrier::{Barrier, Waits};
use crate::gate::{Gate, Serial};
use crate::hub::Hub;
use crate::leases::Leases;
use crate::state::{State, Transaction};
use crate::watcher::{Cell, Watcher};

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
    hub: Serial<Hub>,
    barrier: Barrier,
    leases: Serial<Leases>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn CacheObserver>,
    overdue: OnceLock<Arc<dyn Overdue>>,
    reserved: OnceLock<Vec<(String, Owner)>>,
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

    /// Marks the conditions of providers whose lease has run out (design P2): what was fine is
    /// Unknown, problems stay. Returns their names.
    pub fn expire_leases(&self) -> Vec<Arc<str>> {
        let now = self.clock.boot();
        let lost = self.leases.with(|leases| leases.expire(now));
        for provider in &lost {
            self.mark_lost(provider);
        }
        lost
    }

    fn mark_lost(&self, provider: &Arc<str>) {
        let owner = Owner::Provider(provider.clone());
        let devices: Vec<_> = self.read(|state| {
            state
                .objects(&Scope::All)
                .iter()
                .map(|gpu| gpu.uuid.clone())
                .collect()
        });
        for uuid in devices {
            self.change(&uuid, &mut |conditions| {
                for condition in conditions
                    .iter_mut()
                    .filter(|condition| condition.owner.same(&owner))
                {
                    if condition.state == Judgement::Ok {
                        condition.state = Judgement::Unknown;
                        condition.transition = self.clock.wall();
                    }
                    if condition.reason != PROVIDER_LOST {
                        condition.message =
                            format!("Last said: {}: {}", condition.reason, condition.message);
                        PROVIDER_LOST.clone_into(&mut condition.reason);
                    }
                }
            });
        }
    }

    fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.gate.read(&*self.clock, &*self.observer, f)
    }

    /// One write: one at a time through the hub, content changed under the gate, watchers told after.
    fn write<R>(&self, f: impl FnOnce(&mut Transaction<'_>) -> R) -> R {
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
    async fn pass_barrier(&self, uuid: Option<&DeviceUuid>) {
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

    fn uuid_of(&self, key: &ObjectKey) -> Result<DeviceUuid, ApiError> {
        self.read(|state| state.object(key).map(|gpu| gpu.uuid.clone()))
            .ok_or_else(|| ApiError::NotFound { key: key.clone() })
    }

    /// Whose a type is: the host's own and the policies' before any condition is written, but for
    /// `Ready`, on which providers may vote.
    fn owner_of(&self, conditions: &[Condition], type_: &str) -> Option<Owner> {
        if HOST_OWNED.contains(&type_) && type_ != condition::READY {
            return Some(Owner::Host);
        }
        let reserved = self
            .reserved
            .get()
            .and_then(|types| types.iter().find(|(reserved, _)| reserved == type_));
        reserved
            .map(|(_, owner)| owner.clone())
            .or_else(|| condition::find(conditions, type_).map(|condition| condition.owner.clone()))
    }

    /// Writes provider conditions to an object, after the checks that `update` asks for.
    fn write_status(&self, caller: &Caller, update: &StatusUpdate) -> Result<Arc<Gpu>, ApiError> {
        let owner = Owner::Provider(caller.provider.clone());
        self.write(|transaction| {
            let current = check_version(transaction.state, &update.key, update.expected)?;
            let mut conditions = current.conditions.clone();
            if update.merge == Merge::Lenient && update.expected.is_some() {
                let named = |type_: &str| update.conditions.iter().any(|new| new.type_ == type_);
                conditions.retain(|old| !old.owner.same(&owner) || named(&old.type_));
            }
            for new in &update.conditions {
                match self.owner_of(&conditions, &new.type_) {
                    Some(other) if !other.same(&owner) => match update.merge {
                        Merge::Lenient => continue,
                        Merge::Strict => return Err(not_yours(&new.type_, &other)),
                    },
                    Some(_) | None => {}
                }
                condition::upsert(&mut conditions, from_provider(new, &owner, transaction.now));
            }
            if conditions.len() > limits::CONDITIONS_PER_GPU_MAX {
                return Err(ApiError::Exhausted {
                    limit: "CONDITIONS_PER_GPU_MAX",
                    max: limits::CONDITIONS_PER_GPU_MAX,
                });
            }
            transaction.change(&current.uuid, &mut |record| record.clone_from(&conditions));
            transaction
                .state
                .object(&update.key)
                .cloned()
                .ok_or_else(|| ApiError::NotFound {
                    key: update.key.clone(),
                })
        })
    }
}

/// Reason of a condition whose provider is gone.
const PROVIDER_LOST: &str = "ProviderLost";

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

fn check_version(
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

fn not_yours(type_: &str, owner: &Owner) -> ApiError {
    ApiError::Forbidden {
        why: format!("condition type {type_:?} belongs to {owner}; write under a type of your own"),
    }
}

fn from_provider(
    new: &ProviderCondition,
    owner: &Owner,
    now: device_api_core::clock::WallTime,
) -> Condition {
    let polarity = new
        .polarity
        .or_else(|| provider::known_polarity(&new.type_));
    let shown = polarity.unwrap_or(Polarity::TrueIsHealthy);
    let state = shown.judgement(new.status);
    Condition {
        type_: new.type_.as_str().into(),
        state,
        polarity: shown,
        severity: new.severity,
        reason: new.reason.clone(),
        message: new.message.clone(),
        action: new.action,
        clears: if state == Judgement::Problem {
            vec![Clear::on(ClearOn::Policy)]
        } else {
            Vec::new()
        },
        owner: owner.clone(),
        transition: new.transition.unwrap_or(now),
        heartbeat: now,
        incident: None,
        cause: None,
        drill: false,
        counted: polarity.is_some(),
        evidence: Vec::new(),
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
        self.write(|transaction| {
            let key = ObjectKey::new("", device.uuid.as_str());
            let known = transaction.state.record(&device.uuid).is_some();
            let uuid = device.uuid.clone();
            transaction.set_info(device)?;
            // A device that a client deleted stays deleted until it is registered again or the
            // daemon starts anew: its record alone is refreshed.
            if !known {
                transaction.create(key, &uuid, None)?;
            }
            Ok(())
        })
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

impl Devices for Store {
    type Watch = Watcher;

    async fn get(&self, key: &ObjectKey) -> Result<Arc<Gpu>, ApiError> {
        let uuid = self.uuid_of(key)?;
        self.pass_barrier(Some(&uuid)).await;
        self.read(|state| state.object(key).cloned())
            .ok_or_else(|| ApiError::NotFound { key: key.clone() })
    }

    async fn list(&self, scope: &Scope) -> Listing {
        self.pass_barrier(None).await;
        self.read(|state| Listing {
            version: state.version(),
            gpus: state.objects(scope),
        })
    }

    async fn watch(&self, scope: Scope, from: WatchFrom) -> Result<Watcher, ApiError> {
        self.pass_barrier(None).await;
        self.hub.with(|hub| {
            let events = match from {
                WatchFrom::Now => self.read(|state| {
                    let mut gpus = state.objects(&scope);
                    gpus.sort_by_key(|gpu| gpu.version);
                    gpus.into_iter()
                        .map(|gpu| Event {
                            type_: EventType::Added,
                            gpu,
                        })
                        .collect()
                }),
                WatchFrom::After(version) => hub.since(version, self.read(State::version))?,
            };
            let cell = Arc::new(Cell::new(scope, events));
            hub.register(&cell);
            Ok(Watcher::new(cell))
        })
    }

    async fn create(
        &self,
        _: &Caller,
        creation: Creation,
        exclusive: bool,
    ) -> Result<(Arc<Gpu>, bool), ApiError> {
        self.pass_barrier(Some(&creation.uuid)).await;
        self.write(
            |transaction| match transaction.state.object(&creation.key) {
                Some(_) if exclusive => Err(ApiError::AlreadyExists { key: creation.key }),
                Some(existing) => Ok((existing.clone(), false)),
                None => Ok((
                    transaction.create(creation.key, &creation.uuid, creation.device)?,
                    true,
                )),
            },
        )
    }

    async fn update_spec(
        &self,
        _: &Caller,
        key: &ObjectKey,
        uuid: &DeviceUuid,
        expected: Option<ResourceVersion>,
    ) -> Result<Arc<Gpu>, ApiError> {
        self.pass_barrier(Some(&self.uuid_of(key)?)).await;
        let current = self.read(|state| check_version(state, key, expected))?;
        if current.uuid != *uuid {
            let why = format!(
                "is {} and can't become {uuid}; delete the GPU and create it again",
                current.uuid
            );
            return Err(ApiError::Invalid {
                field: "spec.uuid",
                why,
            });
        }
        Ok(current)
    }

    async fn update_status(
        &self,
        caller: &Caller,
        update: StatusUpdate,
    ) -> Result<Arc<Gpu>, ApiError> {
        self.pass_barrier(Some(&self.uuid_of(&update.key)?)).await;
        self.write_status(caller, &update)
    }

    async fn update_condition(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        condition: ProviderCondition,
    ) -> Result<Arc<Gpu>, ApiError> {
        let update = StatusUpdate {
            key: key.clone(),
            expected: None,
            conditions: vec![condition],
            merge: Merge::Strict,
        };
        self.update_status(caller, update).await
    }

    async fn delete(
        &self,
        _: &Caller,
        key: &ObjectKey,
        expected: Option<ResourceVersion>,
    ) -> Result<(), ApiError> {
        self.write(|transaction| {
            check_version(transaction.state, key, expected)?;
            transaction.delete(key)
        })
    }

    async fn register_provider(&self, lease: Lease) -> Result<Lease, ApiError> {
        self.leases
            .with(|leases| leases.register(lease, self.clock.boot()))
    }

    async fn heartbeat(&self, lease_id: &str) -> Result<Lease, ApiError> {
        self.leases
            .with(|leases| leases.renew(lease_id, self.clock.boot()))
    }

    fn provider_of(&self, lease_id: &str) -> Result<Caller, ApiError> {
        self.leases.with(|leases| leases.caller(lease_id))
    }
}
