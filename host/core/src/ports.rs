//! Who talks to whom. The rooms of the host never see each other: a source knows [`SignalSink`],
//! the pipeline knows [`DeviceCache`] and [`Policy`], the API knows [`Devices`].

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use crate::clock::WallTime;
use crate::condition::{Condition, Owner};
use crate::device::DeviceInfo;
use crate::durable::{Batch, Change, LogPosition, NotDurable};
use crate::error::ApiError;
use crate::gpu::Gpu;
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use crate::incident::{Incidents as Listed, Wanted};
use crate::policy::{Evaluation, Outcome, PolicyInfo};
use crate::policy_status::{PolicyDetail, PolicyHostStatus, PolicyStatus, ReloadReport};
use crate::provider::{
    Caller, Creation, Lease, ProviderCondition, ProviderInfo, Registration, StatusUpdate,
};
use crate::recovery::{
    ClearRequest, DriverHold, HungCall, Recovery, Release, ReleaseFor, ResetReport,
};
use crate::seating::{Committed, DeviceJournal, SeatError, Seating, Terms};
use crate::selector::Selection;
use crate::signal::{Observation, Samples, Target};
use crate::watch::{Listing, Told, WatchEnd, WatchRequest};

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

    /// Something happened to a GPU that ends faults from before it (design N7); `evidence` is how it was
    /// noticed. Problems whose verdict names it are cleared, as far as they were seen last before the source
    /// last saw the GPU as it was: what came between that look and this notice may be newer than the recovery,
    /// and stands. A look is a reading in [`sampled`](Self::sampled), of those in which it would show, or
    /// NVML's word that the GPU is lost or asks for a recovery action. So this is called before what showed
    /// the recovery is handed in (`sampled`, [`device_found`](Self::device_found), a recovery action of none).
    /// A GPU that was replaced is marked so, and what stands against it is kept.
    fn recovered(&self, uuid: &DeviceUuid, recovery: Recovery, evidence: &str);

    /// The kernel log was read up to here, and whatever it told was observed.
    fn log_read(&self, position: LogPosition);
}

/// What NVML is to this node just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvmlStatus {
    /// Turned off by configuration.
    Disabled,
    /// No usable library, and why; it is looked for again.
    Missing { why: String },
    /// Let go of on an operator's word.
    Released {
        purpose: ReleaseFor,
        until: WallTime,
    },
    /// In use.
    Ready {
        library: String,
        driver: String,
        gpus: usize,
        simulated: bool,
    },
}

/// NVML as an operator handles it. Nothing here waits for a call of NVML's: answers come later.
pub trait NvmlControl: Debug + Send + Sync {
    /// How it is, as last told to the [`NvmlObserver`], and the calls that hang just now, the longest first.
    fn status(&self) -> (NvmlStatus, Vec<HungCall>);

    /// Lets go of the driver (design N2).
    ///
    /// # Errors
    /// [`ApiError::Invalid`] for a time of zero or past its bound; [`ApiError::Precondition`] where NVML is
    /// turned off.
    fn release(&self, release: Release) -> Pending<Result<DriverHold, ApiError>>;

    /// Takes it up again: at once, also while it was only missing. The answer, which nobody need wait for, is how it
    /// is when it is in use, or once the first attempt has failed; it may take as long as calls hang.
    ///
    /// # Errors
    /// [`ApiError::Precondition`] where NVML is turned off.
    fn attach(&self) -> Pending<Result<NvmlStatus, ApiError>>;
}

/// The faults of this node, and an operator's word on them.
pub trait Incidents: Debug + Send + Sync {
    /// Those that are wanted, newest first.
    fn incidents(&self, wanted: &Wanted) -> Listed;

    /// Clears a problem by hand. A floor's comes back if its fault is seen again.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] for a device that is not there; [`ApiError::Precondition`] for a condition that is
    /// not there, is no problem, or is a provider's, who clears its own; [`ApiError::Invalid`] without a reason.
    fn clear(&self, request: &ClearRequest) -> Result<(), ApiError>;

    /// A GPU was reset, as somebody reports who should know (design N7). It was so before the report: what was last
    /// seen up to now is from before the reset, and what comes is not.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] for a device that is not there; [`ApiError::Precondition`] for a MIG instance, and for a
    /// GPU in whose slot another one is; [`ApiError::Invalid`] without a reason.
    fn report_reset(&self, report: &ResetReport) -> Result<(), ApiError>;
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

    /// All GPUs that are known, also those of an earlier run; no MIG instances.
    fn gpus(&self) -> Vec<Arc<DeviceInfo>>;

    /// The device's conditions, in the order of their types; empty where it is not known.
    fn conditions(&self, uuid: &DeviceUuid) -> Arc<[Condition]>;

    /// Registers a device, or refreshes what is known of it.
    ///
    /// # Errors
    /// [`ApiError::Exhausted`] past `GPUS_MAX`.
    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError>;

    /// Changes the conditions of a device, and what is remembered of it, as one write. Where that
    /// changes no content, no version is given out and no watcher hears of it.
    fn change(&self, uuid: &DeviceUuid, commit: &mut dyn Commit);

    /// Makes durable what no reader sees, after all that was changed before.
    fn keep(&self, changes: Vec<Change>);

    /// How far the kernel log is decided, made durable after all that was changed before.
    fn log_decided(&self, position: LogPosition);

    /// Names the condition types that policies own from now on, in place of those named before, so that no
    /// provider takes them: in one step, so that no provider comes in between.
    ///
    /// # Errors
    /// The first type that is another's, and whose; nothing has changed then.
    fn reserve(&self, types: Vec<(String, Owner)>) -> Result<(), (String, Owner)>;

    /// Whose a condition type is: the host's, a policy's, a provider's, or nobody's yet.
    fn owner(&self, condition: &str) -> Option<Owner>;

    /// Raises the barrier of a device: reads that begin from now on wait for `seq` to settle.
    fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq);

    /// All signals of the device up to `seq` are decided, and the decisions are in the cache.
    fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq);
}

/// One write of the pipeline: conditions, and what must survive with them.
pub trait Commit {
    /// Changes the conditions; they stay in the order of their types. Runs under the gate: be short.
    fn change(&mut self, conditions: &mut Vec<Condition>);

    /// What to remember besides; asked after `change`, when reads see that: no reader waits.
    fn remember(&mut self) -> Vec<Change> {
        Vec::new()
    }
}

impl<F: FnMut(&mut Vec<Condition>)> Commit for F {
    fn change(&mut self, conditions: &mut Vec<Condition>) {
        self(conditions);
    }
}

/// Writes what is assumed of signals that were not decided in time, and settles them (design C3, H8).
pub trait Overdue: Debug + Send + Sync {
    /// All of a GPU's signals up to `seq`. Short: a reader's bound has passed, and it waits.
    fn overdue(&self, uuid: &DeviceUuid, seq: SignalSeq);
}

/// A loaded policy.
pub trait Policy: Debug + Send + Sync {
    fn info(&self) -> &PolicyInfo;

    fn terms(&self) -> &Terms;

    /// Evaluates on the policy's own thread and calls `reply` exactly once. Never blocks.
    fn evaluate(&self, evaluation: Evaluation, reply: Reply);
}

/// The pipeline as whoever loads policies sees it. Nothing here waits for a policy.
pub trait Seats: Debug + Send + Sync {
    /// What was seen lately, of every device: for the verdict diff, and to be judged again (design H6, H9).
    fn journals(&self) -> Vec<DeviceJournal>;

    /// Whose a condition type is (design P1).
    fn owner(&self, condition: &str) -> Option<Owner>;

    /// Seats a policy, in one step: from here on it is asked, and not its predecessor, whose answers under
    /// way are void and whose signals it is asked instead. What it said of the journals is committed
    /// with it; state and timers of its schema are handed on. A signal is committed once, by whichever. That a
    /// GPU was found is asked of it where nobody on that seat has judged it.
    /// Returns the devices that are left as they were judged, in order: their journals have moved on, and it
    /// insisted.
    ///
    /// # Errors
    /// [`SeatError`]; the old one keeps the seat.
    fn seat(&self, seating: Seating) -> Result<Vec<DeviceUuid>, SeatError>;

    /// Removes a policy, if it is there. Its conditions stay, marked `OwnerGone`, until they are cleared or an
    /// owner is there again, who may be another; its state is kept for its return.
    fn unseat(&self, name: &str);

    /// Has `PolicyReady` of every GPU say why a policy is not asked; `None`: all is well with it again. What it
    /// fails on until then is kept, and is asked of it then.
    fn report(&self, name: &str, why: Option<String>);
}

/// Looks on at what is committed (design H11). Called with the pipeline's lock held: only hands it on.
pub trait Onlooker: Debug + Send + Sync {
    fn committed(&self, batch: &Committed);
}

/// The policy host as the API sees it. Whoever may write may call what changes something.
pub trait Policies: Debug + Send + Sync + 'static {
    /// By name; at most [`POLICIES_LISTED_MAX`](crate::limits::POLICIES_LISTED_MAX), the first by
    /// [`PolicyStatus::rank`].
    fn list(&self) -> Vec<PolicyStatus>;

    /// What is no single policy's affair.
    fn host(&self) -> PolicyHostStatus;

    /// # Errors
    /// [`ApiError::NoPolicy`].
    fn describe(&self, name: &str) -> Result<PolicyDetail, ApiError>;

    /// Carries out a command, on the policy host's own thread; answered when it has taken effect.
    ///
    /// # Errors
    /// [`ApiError::NoPolicy`]; [`ApiError::Invalid`] where the digest is none; [`ApiError::Precondition`] where
    /// there is nothing to quarantine, accept, release or resume, or the version is another, where accept,
    /// release or resume can't be saved and so is not done, and in safe mode; [`ApiError::Unavailable`] while
    /// the daemon goes down, and where quarantine or pause holds for this run but can't be saved.
    fn command(&self, command: PolicyCommand) -> Pending<Result<ReloadReport, ApiError>>;
}

/// What an operator may ask of the policy host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyCommand {
    /// Looks at the directory now.
    Reload,
    /// Sets a policy's active version aside, durably; the last good one before it takes over. The digest, or
    /// its beginning, says which was looked at; empty: whichever is active.
    Quarantine {
        name: String,
        reason: String,
        digest: String,
    },
    /// Lets a quarantined version be tried again; empty digest: all of the policy's.
    Release {
        name: String,
        digest: String,
    },
    /// Lets a held version in; its digest, or at least its first 12 digits, says which was looked at.
    Accept {
        name: String,
        digest: String,
    },
    /// Not asked until resumed, over restarts too.
    Pause {
        name: String,
        reason: String,
    },
    Resume {
        name: String,
    },
}

/// An answer to come.
pub type Pending<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Takes what came of an evaluation.
pub type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// Makes what is written survive (design C6). Behind it is a disk: nothing here waits for it.
pub trait StateLog: Debug + Send + Sync {
    /// Takes what a write changed. Batches become durable in the order in which they were given.
    fn append(&self, batch: Batch);

    /// Calls `done`, once, when all that was appended before is durable, or can't be made so.
    fn synced(&self, done: Synced);

    /// Whether the last write to the disk went well; else why not.
    ///
    /// # Errors
    /// Why nothing becomes durable just now.
    fn writable(&self) -> Result<(), NotDurable>;
}

/// Is told whether what was appended is durable.
pub type Synced = Box<dyn FnOnce(Result<(), NotDurable>) + Send>;

/// The store as the API sees it. Reads wait at the barrier (design C2); every method is one
/// linearizable operation. A write is answered when it would survive a kill (design C6).
pub trait Devices: Debug + Send + Sync + 'static {
    type Watch: WatchStream;

    fn get(&self, key: &ObjectKey) -> impl Future<Output = Result<Arc<Gpu>, ApiError>> + Send;

    fn list(&self, selection: &Selection) -> impl Future<Output = Listing> + Send;

    fn watch(
        &self,
        request: WatchRequest,
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
        registration: Registration,
    ) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    fn heartbeat(&self, lease_id: &str) -> impl Future<Output = Result<Lease, ApiError>> + Send;

    /// The provider that a lease belongs to.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] where it is unknown or has run out.
    fn provider_of(&self, lease_id: &str) -> Result<Arc<str>, ApiError>;

    /// The providers that own a type or hold a lease, by name.
    fn providers(&self) -> Vec<ProviderInfo>;

    /// Releases the condition types of a provider and removes its conditions from every GPU; its
    /// lease ends. Returns the types.
    fn forget_provider(
        &self,
        provider: &str,
    ) -> impl Future<Output = Result<Vec<Arc<str>>, ApiError>> + Send;

    /// A connection was made, or has ended, of someone who may write (design P2).
    fn connected(&self, identity: &Arc<str>);
    fn disconnected(&self, identity: &Arc<str>);
}

/// Changes as they come.
pub trait WatchStream: Debug + Send + 'static {
    /// Waits for changes and takes them all, in ascending version.
    fn next(&mut self) -> impl Future<Output = Result<Told, WatchEnd>> + Send;
}
