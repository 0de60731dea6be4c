//! A second implementation of the `Devices` port: small, in memory, with the same promises.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, Owner, Polarity, find, upsert};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Derived;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::ports::{Devices, WatchStream};
use device_api_core::provider::{Caller, Creation, Lease, Merge, ProviderCondition, StatusUpdate};
use device_api_core::watch::{Event, EventType, Listing, Scope, WatchFrom};
use tokio::sync::watch;

#[derive(Debug)]
struct State {
    version: u64,
    gpus: BTreeMap<ObjectKey, Arc<Gpu>>,
    history: Vec<Event>,
    leases: HashMap<Arc<str>, Lease>,
}

#[derive(Debug)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
    written: watch::Sender<u64>,
    /// Reads of single GPUs wait until it is true.
    pub(crate) open: watch::Sender<bool>,
    /// How many wait, or have waited.
    pub(crate) reading: watch::Sender<usize>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let state = State {
            version: 1,
            gpus: BTreeMap::new(),
            history: Vec::new(),
            leases: HashMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            written: watch::Sender::new(1),
            open: watch::Sender::new(true),
            reading: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under it")
    }

    /// Writes `change` of one GPU under the next version.
    fn write(&self, state: &mut State, type_: EventType, mut gpu: Gpu) -> Arc<Gpu> {
        state.version += 1;
        gpu.version = ResourceVersion(state.version);
        gpu.rederive(WallTime::from_ms(state.version));
        let gpu = Arc::new(gpu);
        match type_ {
            EventType::Added | EventType::Modified => {
                state.gpus.insert(gpu.key.clone(), gpu.clone())
            }
            EventType::Deleted => state.gpus.remove(&gpu.key),
        };
        state.history.push(Event {
            type_,
            gpu: gpu.clone(),
        });
        self.written.send_replace(state.version);
        gpu
    }

    fn merge(&self, caller: &Caller, update: StatusUpdate) -> Result<Arc<Gpu>, ApiError> {
        let mut state = self.state();
        let old = current(&state, &update.key, update.expected)?;
        let mut new = Gpu::clone(&old);
        let me = Owner::Provider(caller.provider.clone());
        if update.merge == Merge::Lenient && update.expected.is_some() {
            new.conditions.retain(|c| {
                !c.owner.same(&me) || update.conditions.iter().any(|n| *n.type_ == *c.type_)
            });
        }
        for condition in update.conditions {
            let other = find(&new.conditions, &condition.type_).filter(|old| !old.owner.same(&me));
            match (other, update.merge) {
                (Some(_), Merge::Lenient) => {}
                (Some(other), Merge::Strict) => {
                    let why = format!("condition type {} belongs to {}", other.type_, other.owner);
                    return Err(ApiError::Forbidden { why });
                }
                (None, _) => {
                    upsert(
                        &mut new.conditions,
                        stored(condition, me.clone(), state.version),
                    );
                }
            }
        }
        if new.conditions == old.conditions {
            return Ok(old);
        }
        Ok(self.write(&mut state, EventType::Modified, new))
    }
}

fn stored(condition: ProviderCondition, owner: Owner, now: u64) -> Condition {
    let polarity = condition.polarity.unwrap_or(Polarity::TrueIsProblem);
    Condition {
        type_: condition.type_.into(),
        state: polarity.judgement(condition.status),
        polarity,
        severity: condition.severity,
        reason: condition.reason,
        message: condition.message,
        action: condition.action,
        clears: Vec::new(),
        owner,
        transition: condition.transition.unwrap_or(WallTime::from_ms(now)),
        heartbeat: WallTime::from_ms(now),
        incident: None,
        cause: None,
        drill: false,
        counted: condition.polarity.is_some(),
        evidence: Vec::new(),
    }
}

fn current(
    state: &State,
    key: &ObjectKey,
    expected: Option<ResourceVersion>,
) -> Result<Arc<Gpu>, ApiError> {
    let gpu = state
        .gpus
        .get(key)
        .cloned()
        .ok_or_else(|| ApiError::NotFound { key: key.clone() })?;
    match expected {
        Some(expected) if expected != gpu.version => Err(ApiError::Conflict {
            key: key.clone(),
            expected,
            actual: gpu.version,
        }),
        Some(_) | None => Ok(gpu),
    }
}

impl Devices for Store {
    type Watch = Changes;

    async fn get(&self, key: &ObjectKey) -> Result<Arc<Gpu>, ApiError> {
        self.reading.send_modify(|n| *n += 1);
        self.open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the store lives");
        current(&self.state(), key, None)
    }

    async fn list(&self, scope: &Scope) -> Listing {
        let state = self.state();
        let gpus = state
            .gpus
            .values()
            .filter(|gpu| scope.holds(gpu))
            .cloned()
            .collect();
        Listing {
            version: ResourceVersion(state.version),
            gpus,
        }
    }

    async fn watch(&self, scope: Scope, from: WatchFrom) -> Result<Changes, ApiError> {
        let state = self.state();
        let newest = ResourceVersion(state.version);
        let (initial, after) = match from {
            WatchFrom::Now => {
                let mut gpus: Vec<_> = state
                    .gpus
                    .values()
                    .filter(|gpu| scope.holds(gpu))
                    .cloned()
                    .collect();
                gpus.sort_by_key(|gpu| gpu.version);
                let added = gpus
                    .into_iter()
                    .map(|gpu| Event {
                        type_: EventType::Added,
                        gpu,
                    })
                    .collect();
                (added, newest)
            }
            WatchFrom::After(asked) if asked > newest => {
                return Err(ApiError::OutOfRange {
                    asked,
                    oldest: ResourceVersion(1),
                    newest,
                });
            }
            WatchFrom::After(asked) => (Vec::new(), asked),
        };
        Ok(Changes {
            state: self.state.clone(),
            written: self.written.subscribe(),
            scope,
            initial,
            after,
        })
    }

    async fn create(
        &self,
        _caller: &Caller,
        creation: Creation,
        exclusive: bool,
    ) -> Result<(Arc<Gpu>, bool), ApiError> {
        let mut state = self.state();
        if let Some(gpu) = state.gpus.get(&creation.key) {
            let exists = ApiError::AlreadyExists { key: creation.key };
            return if exclusive {
                Err(exists)
            } else {
                Ok((gpu.clone(), false))
            };
        }
        let device = creation
            .device
            .unwrap_or_else(|| DeviceInfo::bare(creation.uuid.clone()));
        let gpu = Gpu {
            key: creation.key,
            uid: format!("uid-{}", state.version).into(),
            generation: 1,
            created: WallTime::from_ms(state.version),
            version: ResourceVersion(0),
            uuid: creation.uuid,
            device: Arc::new(device),
            conditions: Vec::new(),
            derived: Derived::default(),
            ready_since: WallTime::from_ms(state.version),
        };
        Ok((self.write(&mut state, EventType::Added, gpu), true))
    }

    async fn update_spec(
        &self,
        _caller: &Caller,
        key: &ObjectKey,
        uuid: &DeviceUuid,
        expected: Option<ResourceVersion>,
    ) -> Result<Arc<Gpu>, ApiError> {
        let gpu = current(&self.state(), key, expected)?;
        if gpu.uuid != *uuid {
            return Err(ApiError::Invalid {
                field: "spec.uuid",
                why: "immutable".to_owned(),
            });
        }
        Ok(gpu)
    }

    async fn update_status(
        &self,
        caller: &Caller,
        update: StatusUpdate,
    ) -> Result<Arc<Gpu>, ApiError> {
        self.merge(caller, update)
    }

    async fn update_condition(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        condition: ProviderCondition,
    ) -> Result<Arc<Gpu>, ApiError> {
        let conditions = vec![condition];
        self.merge(
            caller,
            StatusUpdate {
                key: key.clone(),
                expected: None,
                conditions,
                merge: Merge::Strict,
            },
        )
    }

    async fn delete(
        &self,
        _caller: &Caller,
        key: &ObjectKey,
        expected: Option<ResourceVersion>,
    ) -> Result<(), ApiError> {
        let mut state = self.state();
        let gpu = Gpu::clone(&*current(&state, key, expected)?);
        self.write(&mut state, EventType::Deleted, gpu);
        Ok(())
    }

    async fn register_provider(&self, asked: Lease) -> Result<Lease, ApiError> {
        let id: Arc<str> = format!("lease of {}", asked.provider).into();
        let lease = Lease {
            id: id.clone(),
            ..asked
        };
        self.state().leases.insert(id, lease.clone());
        Ok(lease)
    }

    async fn heartbeat(&self, lease_id: &str) -> Result<Lease, ApiError> {
        self.provider_of(lease_id)?;
        Ok(self.state().leases[lease_id].clone())
    }

    fn provider_of(&self, lease_id: &str) -> Result<Caller, ApiError> {
        let state = self.state();
        let lease = state.leases.get(lease_id);
        lease
            .map(|lease| Caller {
                provider: lease.provider.clone(),
            })
            .ok_or_else(|| ApiError::Forbidden {
                why: "unknown lease; register again".to_owned(),
            })
    }
}

#[derive(Debug)]
pub(crate) struct Changes {
    state: Arc<Mutex<State>>,
    written: watch::Receiver<u64>,
    scope: Scope,
    initial: Vec<Event>,
    after: ResourceVersion,
}

impl WatchStream for Changes {
    async fn next(&mut self) -> Option<Vec<Event>> {
        if !self.initial.is_empty() {
            return Some(std::mem::take(&mut self.initial));
        }
        loop {
            self.written
                .wait_for(|version| *version > self.after.0)
                .await
                .ok()?;
            let state = self.state.lock().expect("no test panics under it");
            let new = state
                .history
                .iter()
                .filter(|event| event.gpu.version > self.after && self.scope.holds(&event.gpu));
            let set: Vec<_> = new.cloned().collect();
            self.after = ResourceVersion(state.version);
            if !set.is_empty() {
                return Some(set);
            }
        }
    }
}
