//! A cache and its model side by side.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use device_api_cache::{Cache, Config, Unobserved, Watcher};
use device_api_core::action::Action;
use device_api_core::clock::{BootId, ManualClock, WallTime};
use device_api_core::condition::{self, Condition, Owner, Polarity};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::Start;
use device_api_core::error::ApiError;
use device_api_core::health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits::Bounds;
use device_api_core::ports::{DeviceCache, Devices, Overdue};
use device_api_core::provider::{
    Caller, Creation, Merge, ProviderCondition, Registration, StatusUpdate,
};
use device_api_core::selector::{self, Selection};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};
use device_api_core::watch::{Event, EventType, Scope, WatchFrom, WatchRequest};

use crate::disk::Disk;
use crate::plain::{Changes, Device, Model, Name, Provider, Refusal, Type, Write};
use crate::watched::{Objects, Watched, versions};
use crate::{Expected, From, Step};

pub(crate) const DEVICES: u8 = 4;
/// The first [`DEVICES`] are those that NVML's own objects bear; the others are of another namespace.
pub(crate) const NAMES: u8 = 6;
pub(crate) const PROVIDERS: u8 = 3;
/// The first [`HOST_TYPES`] are the pipeline's; the last of these is cleared by a reboot.
pub(crate) const TYPES: u8 = 6;
pub(crate) const HOST_TYPES: u8 = 2;
pub(crate) const SELECTIONS: u8 = 5;

/// Small, so that they are reached.
const HISTORY: usize = 12;
const EXACT: usize = 8;
/// The witness is read after every step; no step changes more than all objects, once for each provider.
const WATCHES: usize = 16;

fn device(n: Device) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

fn key(n: Name) -> ObjectKey {
    match n.checked_sub(DEVICES) {
        None => ObjectKey::new("", &format!("GPU-{n}")),
        Some(n) => ObjectKey::new("other", &format!("GPU-{n}")),
    }
}

fn type_name(n: Type) -> String {
    format!("Type{n}")
}

fn provider_name(n: Provider) -> Arc<str> {
    format!("provider-{n}").into()
}

fn reason(n: bool) -> &'static str {
    if n { "Other" } else { "Because" }
}

fn info(n: Device, variant: u8) -> DeviceInfo {
    let mut info = DeviceInfo::bare(device(n));
    if variant > 0 {
        info.product = format!("Model {variant}");
        let zone = if variant == 1 { "a" } else { "b" };
        info.labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    }
    info
}

fn selection(n: u8) -> Selection {
    let all = Selection::all();
    match n {
        0 => all,
        1 => Selection::of(Scope::Namespace("other".into())),
        2 => Selection {
            labels: selector::labels("zone=a").unwrap(),
            ..all
        },
        3 => Selection {
            fields: selector::fields("status.health=Unhealthy").unwrap(),
            ..all
        },
        _ => Selection {
            labels: selector::labels("zone").unwrap(),
            fields: selector::fields("status.health!=Unhealthy").unwrap(),
            ..all
        },
    }
}

fn host_says(type_: Type, state: Judgement, reason: &str) -> Condition {
    let clears = if type_ + 1 == HOST_TYPES {
        vec![Clear::on(ClearOn::NodeReboot)]
    } else {
        Vec::new()
    };
    Condition {
        type_: type_name(type_).into(),
        state,
        polarity: Polarity::TrueIsProblem,
        severity: Severity::Fatal,
        reason: reason.to_owned(),
        message: String::new(),
        action: Action::None,
        clears,
        owner: Owner::Host,
        transition: WallTime::default(),
        heartbeat: WallTime::default(),
        incident: None,
        cause: None,
        drill: false,
        counted: true,
        evidence: Vec::new(),
    }
}

fn provider_says(type_: Type, state: Judgement, reason: &str) -> ProviderCondition {
    ProviderCondition {
        type_: type_name(type_),
        status: Polarity::TrueIsProblem.status(state),
        polarity: Some(Polarity::TrueIsProblem),
        severity: Severity::Fatal,
        reason: reason.to_owned(),
        message: String::new(),
        action: Action::None,
        transition: None,
    }
}

fn caller(provider: Provider, connection: u64) -> Caller {
    Caller {
        provider: provider_name(provider),
        identity: provider_name(provider),
        connection,
        lease: None,
    }
}

/// Writes what is assumed when the bound has passed: that it is a problem.
#[derive(Debug)]
struct Fallback(Weak<Cache>);

impl Overdue for Fallback {
    fn overdue(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        let cache = self.0.upgrade().unwrap();
        judge(&cache, uuid, 0, Judgement::Problem, "Assumed");
        cache.settle(uuid, seq);
    }
}

fn judge(cache: &Cache, uuid: &DeviceUuid, type_: Type, state: Judgement, reason: &str) {
    cache.change(uuid, &mut |conditions: &mut Vec<Condition>| {
        condition::upsert(conditions, host_says(type_, state, reason));
    });
}

/// An answer, as the model gives it.
fn refusal<T>(answer: Result<T, ApiError>) -> Result<T, Refusal> {
    answer.map_err(|error| match error {
        ApiError::NotFound { .. } => Refusal::NotFound,
        ApiError::AlreadyExists { .. } => Refusal::AlreadyExists,
        ApiError::Conflict { .. } => Refusal::Conflict,
        ApiError::Invalid { .. } => Refusal::Invalid,
        ApiError::Forbidden { .. } => Refusal::Forbidden,
        other @ (ApiError::Exhausted { .. }
        | ApiError::OutOfRange { .. }
        | ApiError::Unavailable { .. }) => panic!("{other}"),
    })
}

pub(crate) struct Rig {
    cache: Arc<Cache>,
    disk: Arc<Disk>,
    clock: Arc<ManualClock>,
    model: Model,
    boot: u32,
    signal: u64,
    lease_ids: BTreeMap<Provider, Arc<str>>,
    witness: Watcher,
    /// What the witness told in this run, and the state before it.
    start: (u64, Objects),
    log: Vec<Event>,
    /// The last durable version of the run before, and the state at it.
    before: Option<(u64, Objects)>,
    /// Versions that were left out at the last restart.
    gap: u64,
    watches: Vec<Watched>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (disk, clock) = (Arc::new(Disk::default()), Arc::new(ManualClock::default()));
        clock.advance(Duration::from_secs(1_800_000_000));
        let start = Start {
            base: ResourceVersion(1000),
            snapshot: None,
        };
        let (cache, witness) = Self::run(start, &disk, &clock, 0);
        Self {
            cache,
            disk,
            model: Model {
                version: 1001,
                now: Duration::from_secs(1_800_000_000),
                ..Model::default()
            },
            clock,
            boot: 0,
            signal: 0,
            lease_ids: BTreeMap::new(),
            witness,
            start: (1001, Objects::new()),
            log: Vec::new(),
            before: None,
            gap: 0,
            watches: Vec::new(),
        }
    }

    fn boot_id(boot: u32) -> BootId {
        BootId(boot.to_string().into())
    }

    fn run(
        start: Start,
        disk: &Arc<Disk>,
        clock: &Arc<ManualClock>,
        boot: u32,
    ) -> (Arc<Cache>, Watcher) {
        let bounds = Bounds {
            history_events: HISTORY,
            exact_events: EXACT,
            ..Bounds::default()
        };
        let config = Config {
            bounds: Arc::new(bounds),
            ..Config::default()
        };
        let cache = Arc::new(Cache::durable(
            config,
            start,
            disk.clone(),
            &Self::boot_id(boot),
            clock.clone(),
            Arc::new(Unobserved),
        ));
        cache.reserve(
            (0..HOST_TYPES)
                .map(|type_| (type_name(type_), Owner::Host))
                .collect(),
        );
        cache.on_overdue(Arc::new(Fallback(Arc::downgrade(&cache))));
        let request = WatchRequest {
            selection: Selection::all(),
            from: WatchFrom::Now,
            exact: false,
            bookmarks: false,
        };
        // Nothing waits: no barrier is up.
        let witness = ready(cache.watch(request)).unwrap();
        (cache, witness)
    }

    fn version_of(&self, name: Name, expected: Expected) -> Option<u64> {
        let current = self.model.objects.get(&name).map(|(_, version)| *version);
        match expected {
            Expected::Any => None,
            Expected::Current => Some(current.unwrap_or(self.model.version)),
            Expected::Wrong => Some(current.map_or(1, |current| current - 1)),
        }
    }
}
