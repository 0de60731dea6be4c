//! A second implementation of the `Devices` port: small, in memory, with the same promises.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use device_api_core::clock::WallTime;
use device_api_core::condition::{Owner, find, upsert};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::gpu::{Encodings, Gpu};
use device_api_core::health::Derived;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::ports::Devices;
use device_api_core::provider::{
    Caller, Creation, Lease, Merge, ProviderCondition, ProviderInfo, Registration, StatusUpdate,
};
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Listing, WatchFrom, WatchRequest};
use tokio::sync::watch;

use crate::changes::Changes;
use crate::owned::{is_of, stored, types_of};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) gpus: BTreeMap<ObjectKey, Arc<Gpu>>,
    pub(crate) history: Vec<Event>,
    leases: HashMap<Arc<str>, Lease>,
    /// Connections of those who may write.
    pub(crate) connections: HashMap<Arc<str>, i64>,
}

#[derive(Debug)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
    written: watch::Sender<u64>,
    /// Reads of single GPUs wait until it is true.
    pub(crate) open: watch::Sender<bool>,
    /// How many wait, or have waited.
    pub(crate) reading: watch::Sender<usize>,
    /// Deletions that were applied are answered once it is true.
    pub(crate) durable: watch::Sender<bool>,
    /// How many wait for that, or have waited.
    pub(crate) syncing: watch::Sender<usize>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let state = State {
            version: 1,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            written: watch::Sender::new(1),
            open: watch::Sender::new(true),
            reading: watch::Sender::new(0),
            durable: watch::Sender::new(true),
            syncing: watch::Sender::new(0),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under it")
    }

    /// The version of the newest write.
    pub(crate) fn version(&self) -> u64 {
        self.state().version
    }

    /// Changes with each write of whatever kind.
    pub(crate) fn fingerprint(&self) -> (u64, usize) {
        let state = self.state();
        (state.version, state.leases.len())
    }

    pub(crate) fn is_there(&self, name: &str) -> bool {
        self.state().gpus.contains_key(&ObjectKey::new("", name))
    }

    /// Whether there is a GPU of that name, and a lease.
    pub(crate) fn is_furnished(&self, name: &str) -> bool {
        let state = self.state();
        state.gpus.contains_key(&ObjectKey::new("", name)) && !state.leases.is_empty()
    }

    /// Forgets all but its version.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        let version = state.version;
        *state = State::default();
        state.version = version;
    }

    /// The object as it is stored.
    pub(crate) fn stored(&self, name: &str) -> Arc<Gpu> {
        self.state().gpus[&ObjectKey::new("", name)].clone()
    }

    /// Writes a new version of which the encodings are given.
    pub(crate) fn replace(&self, key: &ObjectKey, encoded: Encodings) {
        let mut state = self.state();
        let gpu = Gpu::clone(&state.gpus[key]);
        self.write(&mut state, EventType::Modified, Gpu { encoded, ..gpu });
    }

    /// Writes `change` of one GPU under the next version.
    fn write(&self, state: &mut State, type_: EventType, mut gpu: Gpu) -> Arc<Gpu> {
        state.version += 1;
        gpu.version = ResourceVersion(state.version);
        gpu.rederive(WallTime::from_ms(state.version));
        let gpu = Arc::new(gpu);
        let before = match type_ {
            EventType::Added | EventType::Modified => {
                state.gpus.insert(gpu.key.clone(), gpu.clone())
            }
            EventType::Deleted => state.gpus.remove(&gpu.key),
        };
        state.history.push(Event {
            type_,
            gpu: gpu.clone(),
            before,
        });
        self.written.send_replace(state.version);
        gpu
    }

    fn merge(&self, caller: &Caller, update: StatusUpdate) -> Result<Arc<Gpu>, ApiError> {
        let mut state = self.state();
        let old = current(&state, &update.key, update.expected)?;
        let mut new = Gpu::clone(&old);
        let me = Owner::Provider(caller.provider.clone());
        let mut conditions = old.conditions.to_vec();
        if update.merge == Merge::Lenient && update.expected.is_some() {
            conditions.retain(|c| {
                !c.owner.same(&me) || update.conditions.iter().any(|n| *n.type_ == *c.type_)
            });
        }
        for condition in update.conditions {
            let other = find(&conditions, &condition.type_).filter(|old| !old.owner.same(&me));
            match (other, update.merge) {
                (Some(_), Merge::Lenient) => {}
                (Some(other), Merge::Strict) => {
                    let why = format!("condition type {} belongs to {}", other.type_, other.owner);
                    return Err(ApiError::Forbidden { why });
                }
                (None, _) => {
                    upsert(
                        &mut conditions,
                        stored(condition, me.clone(), state.version),
                    );
                }
            }
        }
        if *conditions == *old.conditions {
            return Ok(old);
        }
        new.conditions = conditions.into();
        Ok(self.write(&mut state, EventType::Modified, new))
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

    async fn list(&self, selection: &Selection) -> Listing {
        let state = self.state();
        let gpus = state
            .gpus
            .values()
            .filter(|gpu| selection.holds(gpu))
            .cloned()
            .collect();
        Listing {
            version: ResourceVersion(state.version),
            gpus,
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Changes, ApiError> {
        let state = self.state();
        let newest = ResourceVersion(state.version);
        let (initial, after) = match request.from {
            WatchFrom::Now => {
                let mut gpus: Vec<_> = state
                    .gpus
                    .values()
                    .filter(|gpu| request.selection.holds(gpu))
                    .cloned()
                    .collect();
                gpus.sort_by_key(|gpu| gpu.version);
                let added = gpus
                    .into_iter()
                    .map(|gpu| Event {
                        type_: EventType::Added,
                        gpu,
                        before: None,
                    })
                    .collect();
                (Some(added), newest)
            }
            WatchFrom::After(asked) if asked > newest => {
                return Err(ApiError::OutOfRange {
                    asked,
                    oldest: ResourceVersion(1),
                    newest,
                });
            }
            WatchFrom::After(asked) => (None, asked),
        };
        Ok(Changes::new(
            self.state.clone(),
            self.written.subscribe(),
            request,
            initial,
            after,
        ))
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
            conditions: [].into(),
            derived: Derived::default(),
            ready_since: WallTime::from_ms(state.version),
            encoded: Encodings::default(),
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
        {
            let mut state = self.state();
            let gpu = Gpu::clone(&*current(&state, key, expected)?);
            self.write(&mut state, EventType::Deleted, gpu);
        }
        self.syncing.send_modify(|n| *n += 1);
        let mut durable = self.durable.subscribe();
        durable
            .wait_for(|durable| *durable)
            .await
            .expect("the store lives");
        Ok(())
    }

    async fn register_provider(&self, asked: Registration) -> Result<Lease, ApiError> {
        let id: Arc<str> = format!("lease of {}", asked.provider).into();
        let lease = Lease {
            provider: asked.provider,
            identity: asked.identity,
            duration: asked.duration,
            id: id.clone(),
            rewrite: true,
        };
        self.state().leases.insert(id, lease.clone());
        Ok(lease)
    }

    async fn heartbeat(&self, lease_id: &str) -> Result<Lease, ApiError> {
        self.provider_of(lease_id)?;
        Ok(self.state().leases[lease_id].clone())
    }

    fn provider_of(&self, lease_id: &str) -> Result<Arc<str>, ApiError> {
        let state = self.state();
        let lease = state.leases.get(lease_id);
        lease
            .map(|lease| lease.provider.clone())
            .ok_or_else(|| ApiError::Forbidden {
                why: "unknown lease; register again".to_owned(),
            })
    }

    fn providers(&self) -> Vec<ProviderInfo> {
        let state = self.state();
        let mut leases: Vec<_> = state.leases.values().collect();
        leases.sort_by(|a, b| a.provider.cmp(&b.provider));
        let info = |lease: &&Lease| ProviderInfo {
            name: lease.provider.clone(),
            identity: lease.identity.clone(),
            lease: Some(lease.duration),
            types: types_of(&state, &lease.provider),
        };
        leases.iter().map(info).collect()
    }

    async fn forget_provider(&self, provider: &str) -> Result<Vec<Arc<str>>, ApiError> {
        let mut state = self.state();
        let types = types_of(&state, provider);
        let held = state
            .leases
            .values()
            .any(|lease| *lease.provider == *provider);
        if types.is_empty() && !held {
            return Err(ApiError::Invalid {
                field: "name",
                why: format!("{provider:?} is no provider"),
            });
        }
        state.leases.retain(|_, lease| *lease.provider != *provider);
        let gpus: Vec<_> = state.gpus.values().cloned().collect();
        for gpu in gpus {
            let kept = gpu.conditions.iter().filter(|c| !is_of(c, provider));
            let new = Gpu {
                conditions: kept.cloned().collect(),
                ..Gpu::clone(&gpu)
            };
            if new.conditions.len() < gpu.conditions.len() {
                self.write(&mut state, EventType::Modified, new);
            }
        }
        Ok(types)
    }

    fn connected(&self, identity: &Arc<str>) {
        let mut state = self.state();
        *state.connections.entry(identity.clone()).or_default() += 1;
    }

    fn disconnected(&self, identity: &Arc<str>) {
        let mut state = self.state();
        *state.connections.entry(identity.clone()).or_default() -= 1;
    }
}
