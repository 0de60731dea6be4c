//! The mirrors of core's structs, field by field.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::{Condition, Evidence, Owner, Polarity};
use device_api_core::device::{
    DeviceInfo, Fabric, Hardware, MigInstance, NvLink, Parent, PcieLimits, Peer, PowerLimits,
};
use device_api_core::durable::{
    AssumedFault, Claim, DeviceMemory, DeviceRecord, IncidentMemory, LeaseRecord, LoweredFloor,
    Numbers, ObjectRecord, PolicyMemory, WakeCause, WakeMemory,
};
use device_api_core::ids::{
    DeviceUuid, IncidentId, ObjectKey, PciAddress, ResourceVersion, SignalSeq,
};
use device_api_core::incident::{Account, Incident, IncidentState, IncidentVerdict};
use device_api_core::policy::PolicyId;
use device_api_core::seating::Fallback;
use device_api_core::signal::{Attr, Signal, SignalKind, Source, Value};
use device_api_core::verdict::{Clear, ClearOn, Judgement, PolicyState, Severity};

use super::stored::record;

record!(MigInstance as MigInstanceForm {
    uuid: DeviceUuid,
    gpu_instance: u32,
    compute_instance: Option<u32>,
    profile: String,
    memory_bytes: Option<u64>,
});

record!(Parent as ParentForm {
    gpu: DeviceUuid,
    gpu_instance: u32,
    compute_instance: Option<u32>,
    profile: String,
});

record!(PowerLimits as PowerLimitsForm {
    min_mw: Option<u32>,
    max_mw: Option<u32>,
    default_mw: Option<u32>,
});

record!(PcieLimits as PcieLimitsForm {
    generation_max: Option<u32>,
    width_max: Option<u32>,
});

record!(NvLink as NvLinkForm {
    link: u32,
    version: Option<u32>,
    remote: Option<String>,
    remote_pci: Option<PciAddress>,
    remote_link: Option<u32>,
});

record!(Peer as PeerForm {
    uuid: DeviceUuid,
    path: String,
});

record!(Fabric as FabricForm {
    state: String,
    cluster_uuid: Option<String>,
    clique: Option<u32>,
});

record!(Hardware as HardwareForm {
    mig_mode: Option<bool>,
    power: PowerLimits,
    pcie: PcieLimits,
    nvlinks: Vec<NvLink>,
    peers: Vec<Peer>,
    cpu_affinity: Option<String>,
    numa_node: Option<u32>,
    fabric: Option<Fabric>,
});

record!(DeviceInfo as DeviceInfoForm {
    uuid: DeviceUuid,
    pci: Option<PciAddress>,
    index: Option<u32>,
    minor: Option<u32>,
    product: String,
    architecture: String,
    serial: String,
    memory_bytes: Option<u64>,
    driver_version: String,
    cuda_version: String,
    mig: Vec<MigInstance>,
    parent: Option<Parent>,
    hardware: Hardware,
    simulated: bool,
    labels: BTreeMap<String, String>,
});

record!(PolicyId as PolicyIdForm {
    name: Arc<str>,
    version: Arc<str>,
    digest: Arc<str>,
});

record!(Clear as ClearForm {
    on: ClearOn,
    after: Duration,
});

record!(Evidence as EvidenceForm {
    source: Source,
    observed_at: WallTime,
    text: String,
});

record!(Condition as ConditionForm {
    type_: Arc<str>,
    instance: Option<DeviceUuid>,
    state: Judgement,
    polarity: Polarity,
    severity: Severity,
    reason: String,
    message: String,
    action: Action,
    clears: Vec<Clear>,
    owner: Owner,
    transition: WallTime,
    heartbeat: WallTime,
    incident: Option<IncidentId>,
    cause: Option<SignalSeq>,
    drill: bool,
    counted: bool,
    evidence: Vec<Evidence>,
});

record!(DeviceRecord as DeviceRecordForm {
    info: Arc<DeviceInfo>,
    conditions: Arc<[Condition]>,
    is_deleted: bool,
    last_slot: Option<PciAddress>,
});

record!(ObjectRecord as ObjectRecordForm {
    key: ObjectKey,
    uid: Arc<str>,
    generation: u64,
    created: WallTime,
    version: ResourceVersion,
    uuid: DeviceUuid,
    ready_since: WallTime,
});

record!(Attr as AttrForm {
    key: String,
    value: Value,
});

// Samples are large and soon stale; a signal that is judged again gets the newest.
record!(Signal as SignalForm {
    seq: SignalSeq,
    device: DeviceUuid,
    kind: SignalKind,
    code: Option<u64>,
    observed_at: WallTime,
    observed_boot: BootTime,
    repeats: u32,
    incident: IncidentId,
    root: Option<IncidentId>,
    drill: bool,
    instance: Option<String>,
    sources: Vec<Source>,
    evidence: String,
    attrs: Vec<Attr>,
} left out { samples: None });

record!(WakeCause as WakeCauseForm {
    kind: SignalKind,
    incident: IncidentId,
    root: Option<IncidentId>,
    evidence: String,
});

record!(WakeMemory as WakeMemoryForm {
    name: String,
    due: BootTime,
    drill: bool,
    cause: Option<WakeCause>,
});

record!(PolicyMemory as PolicyMemoryForm {
    policy: Arc<str>,
    schema: u32,
    state: Arc<PolicyState>,
    wakes: Vec<WakeMemory>,
    failed: Vec<Signal>,
    kept_until: Option<BootTime>,
});

record!(LoweredFloor as LoweredFloorForm {
    by: Vec<Arc<str>>,
    signal: Signal,
});

record!(AssumedFault as AssumedFaultForm {
    policy: Option<Arc<str>>,
    rule: Fallback,
    why: String,
    signal: Signal,
});

record!(DeviceMemory as DeviceMemoryForm {
    policies: Vec<Arc<PolicyMemory>>,
    floors: Vec<Signal>,
    lowered: Vec<LoweredFloor>,
    assumed: Vec<AssumedFault>,
    awaiting: Vec<Signal>,
    quiet: Vec<(Arc<str>, BootTime)>,
    held: Vec<Arc<str>>,
});

record!(Account as AccountForm {
    source: Source,
    first_seen: WallTime,
    last_seen: WallTime,
    count: u64,
    evidence: String,
});

record!(IncidentVerdict as IncidentVerdictForm {
    policy: PolicyId,
    condition: String,
    state: Judgement,
    severity: Severity,
    reason: String,
});

record!(Incident as IncidentForm {
    id: IncidentId,
    device: DeviceUuid,
    kind: SignalKind,
    code: Option<u64>,
    root: Option<IncidentId>,
    instance: Option<String>,
    first_seen: WallTime,
    last_seen: WallTime,
    count: u64,
    drill: bool,
    accounts: Vec<Account>,
    verdicts: Vec<IncidentVerdict>,
    state: IncidentState,
});

record!(IncidentMemory as IncidentMemoryForm {
    incident: Incident,
    last: SignalSeq,
    last_boot: BootTime,
    raised: Vec<Arc<str>>,
});

record!(Numbers as NumbersForm {
    signal: SignalSeq,
    incident: IncidentId,
});

record!(Claim as ClaimForm {
    type_: Arc<str>,
    owner: Owner,
    identity: Arc<str>,
    polarity: Option<Polarity>,
});

record!(LeaseRecord as LeaseRecordForm {
    provider: Arc<str>,
    identity: Arc<str>,
    id: Arc<str>,
    duration: Duration,
    ends: BootTime,
});
