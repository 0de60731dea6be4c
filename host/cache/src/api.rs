//! The store as the API sees it: every method one linearizable operation.

use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::ports::Devices;
use device_api_core::provider::{Caller, Creation, Lease, Merge, ProviderCondition, StatusUpdate};
use device_api_core::watch::{Event, EventType, Listing, Scope, WatchFrom};

use crate::state::State;
use crate::store::{Store, check_version};
use crate::watcher::{Cell, Watcher};

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
        // What is answered may be another's object: that one's barrier counts too.
        if let Ok(existing) = self.uuid_of(&creation.key) {
            self.pass_barrier(Some(&existing)).await;
        }
        self.pass_barrier(Some(&creation.uuid)).await;
        self.write(
            |transaction| match transaction.state.object(&creation.key) {
                Some(_) if exclusive => Err(ApiError::AlreadyExists { key: creation.key }),
                Some(existing) => {
                    check_uuid(existing, &creation.uuid)?;
                    Ok((existing.clone(), false))
                }
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
        check_uuid(&current, uuid)?;
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

/// The spec is immutable: which device an object is can't change.
fn check_uuid(gpu: &Gpu, uuid: &DeviceUuid) -> Result<(), ApiError> {
    if gpu.uuid == *uuid {
        return Ok(());
    }
    let why = format!(
        "is {} and can't become {uuid}; delete the GPU and create it again",
        gpu.uuid
    );
    Err(ApiError::Invalid {
        field: "spec.uuid",
        why,
    })
}
