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
use device_api_core::gpu::Gpu;
use device_api_core::health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits::Bounds;
use device_api_core::ports::{DeviceCache, Devices, Overdue, WatchStream as _};
use device_api_core::provider::{
    Caller, Creation, Merge, ProviderCondition, Registration, StatusUpdate,
};
use device_api_core::selector::{self, Selection};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};
use device_api_core::watch::{Event, EventType, Scope, Told, WatchFrom, WatchRequest};

mod steps;

use crate::disk::Disk;
use crate::plain::{Changes, Device, Model, Name, Provider, Refusal, Type, Write};
use crate::watched::{Objects, Watched, selected, versions};
use crate::{Call, Expected, From, Step, Term};

pub(crate) const DEVICES: u8 = 4;
/// The first [`DEVICES`] are those that NVML's own objects bear; the others are of another namespace.
pub(crate) const NAMES: u8 = 6;
pub(crate) const PROVIDERS: u8 = 3;
/// The first [`HOST_TYPES`] are the pipeline's; the last of these is cleared by a reboot.
pub(crate) const TYPES: u8 = 6;
pub(crate) const HOST_TYPES: u8 = 2;
pub(crate) const SELECTIONS: u8 = 5;

/// Small, so that it is reached.
const HISTORY: usize = 12;
/// As small as the witness can bear: no step changes more than each object once for each provider.
const EXACT: usize = (NAMES * PROVIDERS) as usize;

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
        instance: None,
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

pub(crate) struct Rig {
    cache: Arc<Cache>,
    disk: Arc<Disk>,
    clock: Arc<ManualClock>,
    model: Model,
    boot: u32,
    signal: u64,
    lease_ids: BTreeMap<Provider, Arc<str>>,
    witness: Watcher,
    /// The version before this run's changes, and the state at it: of the run before, where there
    /// was one.
    start: (u64, Objects),
    /// The first version of this run.
    first: u64,
    /// All changes of this run, as the witness told them; the first of them make the restart.
    log: Vec<Event>,
    watches: Vec<Watched>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (disk, clock) = (Arc::new(Disk::default()), Arc::new(ManualClock::default()));
        let now = Duration::from_secs(1_800_000_000);
        clock.advance(now);
        let start = Start {
            base: ResourceVersion(1000),
            snapshot: None,
        };
        let (cache, witness) = run(start, &disk, &clock, 0);
        Self {
            cache,
            disk,
            clock,
            model: Model {
                version: 1001,
                now,
                ..Model::default()
            },
            boot: 0,
            signal: 0,
            lease_ids: BTreeMap::new(),
            witness,
            start: (1001, Objects::new()),
            first: 1001,
            log: Vec::new(),
            watches: Vec::new(),
        }
    }

    fn version_of(&self, name: Name, expected: Expected) -> Option<u64> {
        let current = self.model.objects.get(&name).map(|(_, version)| *version);
        match expected {
            Expected::Any => None,
            Expected::Current => Some(current.unwrap_or(self.model.version)),
            Expected::Wrong => Some(current.map_or(1, |current| current - 1)),
        }
    }

    /// All objects, as of a version of this run, or the start.
    fn state_at(&self, version: u64) -> Objects {
        let mut state = self.start.1.clone();
        for event in self.log.iter().filter(|e| e.gpu.version.0 <= version) {
            let key = event.gpu.key.clone();
            match event.type_ {
                EventType::Added | EventType::Modified => state.insert(key, event.gpu.clone()),
                EventType::Deleted => state.remove(&key),
            };
        }
        state
    }

    /// The version after which all changes are kept.
    fn oldest(&self) -> u64 {
        match self.log.len().checked_sub(HISTORY + 1) {
            Some(last_gone) => self.log[last_gone].gpu.version.0,
            None => self.start.0,
        }
    }

    /// Reads the witness. `in_order`: else the order of the changes is the cache's to choose.
    fn published(&mut self, mut changes: Changes, in_order: bool) {
        let mut told = Vec::new();
        while let Poll::Ready(next) = poll(self.witness.next()) {
            match next {
                Ok(Told::Changes(events)) => told.extend(events),
                other => panic!("the witness was told {other:?}"),
            }
        }
        let before = self.model.version - u64::try_from(changes.len()).unwrap();
        for (version, event) in (before + 1..).zip(&told) {
            assert_eq!(
                event.gpu.version.0, version,
                "each change is one version more"
            );
        }
        let mut seen: Changes = told
            .iter()
            .map(|event| (event.type_, name_of(&event.gpu.key)))
            .collect();
        if !in_order {
            for event in &told {
                let object = self.model.objects.get_mut(&name_of(&event.gpu.key));
                object.unwrap().1 = event.gpu.version.0;
            }
            changes.sort_unstable_by_key(|(_, name)| *name);
            seen.sort_unstable_by_key(|(_, name)| *name);
        }
        assert_eq!(seen, changes, "what was published");
        for watch in &mut self.watches {
            watch.published(&told);
        }
        self.log.extend(told);
    }

    /// Everything that can be read is as the model has it.
    pub(crate) async fn compare(&mut self) {
        for n in 0..SELECTIONS {
            let selection = selection(n);
            let listing = self.cache.list(&selection).await;
            assert_eq!(
                listing.version.0, self.model.version,
                "the version of a list"
            );
            let present = selected(&selection, &self.state_at(self.model.version));
            let listed: Objects = listing
                .gpus
                .iter()
                .map(|gpu| (gpu.key.clone(), gpu.clone()))
                .collect();
            assert_eq!(versions(&listed), versions(&present), "{selection:?}");
            if n == 0 {
                assert_eq!(listed.len(), self.model.objects.len());
                for gpu in listed.values() {
                    self.compare_object(gpu);
                }
            }
        }
    }

    fn compare_object(&self, gpu: &Gpu) {
        let (of, version) = self.model.objects[&name_of(&gpu.key)];
        assert_eq!((gpu.uuid.clone(), gpu.version.0), (device(of), version));
        let record = &self.model.devices[&of];
        assert_eq!(*gpu.device, info(of, record.info));
        assert_eq!(gpu.derived, health::derive(&gpu.conditions));
        let said: Vec<_> = gpu
            .conditions
            .iter()
            .map(|c| {
                (
                    c.type_.to_string(),
                    c.owner.clone(),
                    c.state,
                    c.reason.clone(),
                )
            })
            .collect();
        let probing = (
            "Probing".to_owned(),
            Owner::Host,
            Judgement::Unknown,
            "Restarted".to_owned(),
        );
        let unobserved = record.unobserved.then_some(probing);
        let said_of = record.said.iter().map(|(type_, said)| {
            let owner = said.owner.map_or(Owner::Host, |provider| {
                Owner::Provider(provider_name(provider))
            });
            (type_name(*type_), owner, said.state, said.reason.clone())
        });
        let expected: Vec<_> = unobserved.into_iter().chain(said_of).collect();
        assert_eq!(said, expected, "what is said of {}", gpu.key);
    }
}

fn name_of(wanted: &ObjectKey) -> Name {
    (0..NAMES).find(|name| key(*name) == *wanted).unwrap()
}

/// A future that is polled once.
fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = std::pin::pin!(future);
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// A run of the cache, and the witness of what it publishes from now on.
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
        &BootId(boot.to_string().into()),
        clock.clone(),
        Arc::new(Unobserved),
    ));
    let host_types = (0..HOST_TYPES).map(|type_| (type_name(type_), Owner::Host));
    cache.reserve(host_types.collect()).unwrap();
    cache.on_overdue(Arc::new(Fallback(Arc::downgrade(&cache))));
    let request = WatchRequest {
        selection: Selection::all(),
        from: WatchFrom::Now,
        exact: true,
        bookmarks: false,
    };
    match poll(cache.watch(request)) {
        Poll::Ready(witness) => (cache, witness.unwrap()),
        Poll::Pending => panic!("no barrier is up"),
    }
}
