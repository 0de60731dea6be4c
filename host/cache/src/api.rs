//! The cache as the API sees it: every method one linearizable operation.

use std::sync::Arc;

use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion};
use device_api_core::ports::Devices;
use device_api_core::provider::{
    Caller, Creation, Lease, Merge, ProviderCondition, ProviderInfo, Registration, StatusUpdate,
};
use device_api_core::selector::Selection;
use device_api_core::watch::{Event, EventType, Listing, WatchFrom, WatchRequest};

use crate::author::Author;
use crate::cache::{Cache, check_version};
use crate::state::State;
use crate::watcher::{Bookmarks, Cell, Watcher};

impl Devices for Cache {
    type Watch = Watcher;

    async fn get(&self, key: &ObjectKey) -> Result<Arc<Gpu>, ApiError> {
        let mut uuid = self.uuid_of(key)?;
        loop {
            self.pass_barrier(Some(&uuid)).await;
            let gpu = self.read(|state| state.object(key).cloned());
            let gpu = gpu.ok_or_else(|| ApiError::NotFound { key: key.clone() })?;
            if gpu.uuid == uuid {
                return Ok(gpu);
            }
            // The name was given to another device meanwhile: that one's barrier counts.
            uuid = gpu.uuid.clone();
        }
    }

    async fn list(&self, selection: &Selection) -> Listing {
        self.pass_barrier(None).await;
        let (version, all, instances) =
            self.read(|state| (state.version(), state.all(), state.instance_count()));
        let gpus = if selection.is_all(instances) {
            all
        } else {
            let selected = all.iter().filter(|gpu| selection.holds(gpu));
            selected.cloned().collect()
        };
        Listing { version, gpus }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watcher, ApiError> {
        self.pass_barrier(None).await;
        let WatchRequest {
            selection,
            from,
            exact,
            bookmarks,
        } = request;
        let bounds = &self.config.bounds;
        let exact = exact.then_some(bounds.exact_events);
        let cell = Arc::new(Cell::new(selection, exact));
        // What comes after is in the cell, what was before in `start`: the hub lets nobody write between.
        let (start, at) = self.hub.with(|hub| {
            let begun = match from {
                WatchFrom::Now => (Begin::With(self.read(State::all)), hub.newest()),
                WatchFrom::After(version) => (Begin::After(hub.since(version)?), version),
            };
            hub.register(&cell);
            Ok(begun)
        })?;
        let bookmarks = bookmarks.then(|| {
            let initial = from == WatchFrom::Now;
            Bookmarks::new(self.hub.clone(), bounds.bookmark_interval, at, initial)
        });
        Ok(Watcher::new(cell, bookmarks, start.events()))
    }

    async fn create(
        &self,
        caller: &Caller,
        creation: Creation,
        exclusive: bool,
    ) -> Result<(Arc<Gpu>, bool), ApiError> {
        // What is answered may be another's object: that one's barrier counts too.
        if let Ok(existing) = self.uuid_of(&creation.key) {
            self.pass_barrier(Some(&existing)).await;
        }
        self.pass_barrier(Some(&creation.uuid)).await;
        self.client_write(|transaction| {
            transaction.author = Author::Provider(caller.provider.clone());
            self.check_lease(caller)?;
            match transaction.state.object(&creation.key) {
                Some(_) if exclusive => Err(ApiError::AlreadyExists { key: creation.key }),
                Some(existing) => {
                    check_uuid(existing, &creation.uuid)?;
                    Ok((existing.clone(), false))
                }
                None => Ok((
                    transaction.create(creation.key, &creation.uuid, creation.device)?,
                    true,
                )),
            }
        })
        .await
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
        self.client_write(|transaction| {
            transaction.author = Author::Provider(caller.provider.clone());
            self.check_lease(caller)?;
            self.write_status(transaction, caller, &update)
        })
        .await
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
        caller: &Caller,
        key: &ObjectKey,
        expected: Option<ResourceVersion>,
    ) -> Result<(), ApiError> {
        self.client_write(|transaction| {
            transaction.author = Author::Provider(caller.provider.clone());
            self.check_lease(caller)?;
            check_version(transaction.state, key, expected)?;
            transaction.delete(key)
        })
        .await
    }

    async fn register_provider(&self, registration: Registration) -> Result<Lease, ApiError> {
        self.register(registration).await
    }

    async fn heartbeat(&self, lease_id: &str) -> Result<Lease, ApiError> {
        self.renew(lease_id)
    }

    fn provider_of(&self, lease_id: &str) -> Result<Arc<str>, ApiError> {
        self.leases.with(|leases| leases.provider_of(lease_id))
    }

    fn providers(&self) -> Vec<ProviderInfo> {
        self.known_providers()
    }

    async fn forget_provider(&self, provider: &str) -> Result<Vec<Arc<str>>, ApiError> {
        self.forget(provider).await
    }

    fn connected(&self, identity: &Arc<str>) {
        self.leases.with(|leases| leases.connected(identity));
    }

    fn disconnected(&self, identity: &Arc<str>) {
        let now = self.clock.boot();
        self.leases
            .with(|leases| leases.disconnected(identity, now));
    }
}

impl Cache {
    /// A write that waited may find that its provider has been lost meanwhile: then it is none.
    fn check_lease(&self, caller: &Caller) -> Result<(), ApiError> {
        match &caller.lease {
            Some(lease) => self
                .leases
                .with(|leases| leases.provider_of(lease))
                .map(drop),
            None => Ok(()),
        }
    }
}

/// What a watch begins with.
enum Begin {
    /// What is there.
    With(Arc<[Arc<Gpu>]>),
    After(Vec<Event>),
}

impl Begin {
    /// As events; the watch selects and sorts.
    fn events(self) -> Vec<Event> {
        let added = |gpu: &Arc<Gpu>| Event {
            type_: EventType::Added,
            gpu: gpu.clone(),
            before: None,
        };
        match self {
            Self::With(gpus) => gpus.iter().map(added).collect(),
            Self::After(events) => events,
        }
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
