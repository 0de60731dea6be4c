//! Who talks to whom. The rooms of the host never see each other: a source knows [`SignalSink`],
//! the pipeline knows [`DeviceCache`] and [`Policy`], the API knows [`Devices`].

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use crate::condition::Condition;
use crate::device::DeviceInfo;
use crate::error::ApiError;
use crate::gpu::Gpu;
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use crate::policy::{Evaluation, Outcome, PolicyInfo};
use crate::provider::{Caller, Creation, Lease, ProviderCondition, StatusUpdate};
use crate::signal::{Observation, Samples, Target};
use crate::watch::{Event, Listing, Scope, WatchFrom};

/// Where sources (NVML, the kernel log) put what they see. Called from the sources' own threads;
/// never blocks on a policy or a reader.
pub trait SignalSink: Debug + Send + Sync {
    /// A signal was observed. When this returns, the barrier of its GPU is up.
    fn observe(&self, observation: Observation);

    /// A device answers: seen for the first time, or again after it was lost.
    fn device_found(&self, device: DeviceInfo, samples: Arc<Samples>);

    /// New readings of a device. What policies subscribed to becomes signals.
    fn sampled(&self, uuid: &DeviceUuid, samples: Arc<Samples>);

    /// A GPU was lost, and the source can't say which: these may be it. Each is Unknown until
    /// [`SignalSink::probed`], or a `gpu-lost` signal, tells (design C2).
    fn probing(&self, candidates: &[DeviceUuid]);

    /// A candidate answered.
    fn probed(&self, uuid: &DeviceUuid);
}

/// What NVML is to this node just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvmlStatus {
    /// Turned off by configuration.
    Disabled,
    /// No usable library, and why; it is looked for again.
    Missing { why: String },
    /// In use.
    Ready {
        library: String,
        driver: String,
        gpus: usize,
        simulated: bool,
    },
}

/// Is told how NVML is.
pub trait NvmlObserver: Debug + Send + Sync {
    fn nvml_status(&self, status: NvmlStatus);
}

/// The cache as the pipeline sees it.
pub trait DeviceCache: Debug + Send + Sync {
    /// Which device a source means.
    fn resolve(&self, target: &Target) -> Option<DeviceUuid>;

    fn device(&self, uuid: &DeviceUuid) -> Option<Arc<DeviceInfo>>;

    /// The device's conditions, in the order of their types; empty where it is not known.
    fn conditions(&self, uuid: &DeviceUuid) -> Vec<Condition>;

    /// Registers a device, or refreshes what is known of it.
    ///
    /// # Errors
    /// [`ApiError::Exhausted`] past `GPUS_MAX`.
    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError>;

    /// Changes the conditions of a device as one write; `change` runs under the gate, so it is
    /// short. Where it changes no content, no version is given out and no watcher hears of it.
    fn change(&self, uuid: &DeviceUuid, change: &mut dyn FnMut(&mut Vec<Condition>));

    /// Raises the barrier of a device: reads that begin from now on wait for `seq` to settle.
    fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq);

    /// All signals of the device up to `seq` are decided, and the decisions are in the cache.
    fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq);
}

/// Writes what is assumed of signals that were not decided in time, and settles them (design C3, H8).
pub trait Overdue: Debug + Send + Sync {
    /// All of a GPU's signals up to `seq`. Short: a reader's bound has passed, and it waits.
    fn overdue(&self, uuid: &DeviceUuid, seq: SignalSeq);
}

/// A loaded policy.
pub trait Policy: Debug + Send + Sync {
    fn info(&self) -> &PolicyInfo;

    /// Evaluates on the policy's own thread and calls `reply` exactly once. Never blocks.
    fn evaluate(&self, evaluation: Evaluation, reply: Reply);
}

/// Takes what came of an evaluation.
pub type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// The store as the API sees it. Reads wait at the barrier (design C2); every method is one
/// linearizable operation.
pub trait Devices: Debug + Send + Sync + 'static {
    type Watch: WatchStream;

    fn get(&self, key: &ObjectKey) -> impl Future<Output = Result<Arc<Gpu>, ApiError>> + Send;

    fn list(&self, scope: &Scope) -> impl Future<Output = Listing> + Send;

    fn watch(
        &self,
        scope: Scope,
        from: WatchFrom,
    ) -> impl Future<Output = Result<Self::Watch, ApiError>> + Send;

    /// Creates a GPU. An existing one is `Err(AlreadyExists)` if `exclusive`, else `(it, false)`.
    fn create(
        &self,
        caller: &Caller,
        creation: Creation,
        exclusive: bool,
    ) -> impl Future<Output = Result<(Arc<Gpu>, bool), ApiError>> + Send;

    /// Changes the spec, which is immutable but for being repeated.
    fn update_spec(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        uuid: &DeviceUuid,
        expected: Option<ResourceVersion>,
    ) -> impl Future<Output = Result<Arc<Gpu>, ApiError>> + Send;

    fn update_status(
        &self,
        caller: &Caller,
        update: StatusUpdate,
    ) -> impl Future<Output = Result<Arc<Gpu>, ApiError>> + Send;

    /// Merges one condition into those that the caller owns.
    fn update_condition(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        condition: ProviderCondition,
    ) -> impl Future<Output = Result<Arc<Gpu>, ApiError>> + Send;

    /// Deletes the object. Its conditions survive with the device's UUID (design C7).
    fn delete(
        &self,
        caller: &Caller,
        key: &ObjectKey,
        expected: Option<ResourceVersion>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Registers a provider, or renews its registration.
    fn register_provider(
        &self,
        lease: Lease,
    ) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    fn heartbeat(&self, lease_id: &str) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// The provider that a lease belongs to.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] where it is unknown or has run out.
    fn provider_of(&self, lease_id: &str) -> Result<Caller, ApiError>;
}

/// Changes as they come.
pub trait WatchStream: Debug + Send + 'static {
    /// Waits for changes and takes them all, in ascending version. `None`: the daemon is going down.
    fn next(&mut self) -> impl Future<Output = Option<Vec<Event>>> + Send;
}
