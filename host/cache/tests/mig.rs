//! MIG instances are devices whose health follows from their GPU's (N9).

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_cache::{Cache, Config, Unobserved, Watcher};
use device_api_core::action::Action;
use device_api_core::clock::{BootId, ManualClock, WallTime};
use device_api_core::condition::{self, Condition, Owner, Polarity, Status};
use device_api_core::device::{DeviceInfo, MigInstance};
use device_api_core::durable::{Batch, Change, NotDurable, Snapshot, Start};
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits::Bounds;
use device_api_core::policy::PolicyId;
use device_api_core::ports::{DeviceCache, Devices, StateLog, Synced, WatchStream};
use device_api_core::provider::{Caller, ProviderCondition};
use device_api_core::selector::{self, Selection};
use device_api_core::signal::Target;
use device_api_core::verdict::{Judgement, Severity};
use device_api_core::watch::{EventType, Told, WatchFrom, WatchRequest};

const GPU: &str = "GPU-0";

fn uuid(name: &str) -> DeviceUuid {
    DeviceUuid::new(name)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}

fn mig(name: &str, gpu_instance: u32) -> MigInstance {
    MigInstance {
        uuid: uuid(name),
        gpu_instance,
        compute_instance: Some(0),
        profile: "1g.10gb".to_owned(),
        memory_bytes: Some(10 << 30),
    }
}

/// A GPU that is cut up.
fn cut(names: &[&str]) -> DeviceInfo {
    DeviceInfo {
        pci: "0000:1b:00.0".parse().ok(),
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        mig: (7..).zip(names).map(|(at, name)| mig(name, at)).collect(),
        ..DeviceInfo::bare(uuid(GPU))
    }
}

fn says(type_: &str, instance: Option<&str>, state: Judgement, severity: Severity) -> Condition {
    let id = PolicyId {
        name: "policy".into(),
        version: "1.0.0".into(),
        digest: "0".repeat(64).into(),
    };
    Condition {
        severity,
        polarity: Polarity::TrueIsProblem,
        owner: Owner::Policy(id),
        counted: true,
        instance: instance.map(DeviceUuid::new),
        message: format!("on {}", instance.unwrap_or("the GPU")),
        ..Condition::of_host(type_, state, "Because", WallTime::default())
    }
}

#[derive(Default)]
struct Disk(Mutex<BTreeMap<String, Change>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disk")
    }
}

impl StateLog for Disk {
    fn append(&self, batch: Batch) {
        let mut kept = self.0.lock().unwrap();
        for change in batch.changes {
            match &change {
                Change::Device(device) => kept.insert(format!("d {}", device.info.uuid), change),
                Change::DeviceGone(uuid) => kept.remove(&format!("d {uuid}")),
                Change::Object(object) => kept.insert(format!("o {}", object.key), change),
                Change::ObjectGone(key) => kept.remove(&format!("o {key}")),
                Change::Memory(..)
                | Change::Incident(_)
                | Change::IncidentGone(_)
                | Change::Claim(_)
                | Change::ClaimGone(_)
                | Change::Lease(_)
                | Change::LeaseGone(_)
                | Change::LogPosition(_)
                | Change::Numbers(_) => None,
            };
        }
    }

    fn synced(&self, done: Synced) {
        done(Ok(()));
    }

    fn writable(&self) -> Result<(), NotDurable> {
        Ok(())
    }
}

struct Rig {
    cache: Arc<Cache>,
    disk: Arc<Disk>,
}

impl Rig {
    fn new() -> Self {
        Self::on(Arc::default(), Start::default(), Bounds::default())
    }

    fn on(disk: Arc<Disk>, start: Start, bounds: Bounds) -> Self {
        let config = Config {
            bounds: Arc::new(bounds),
            ..Config::default()
        };
        let boot = BootId("boot".into());
        let clock = Arc::new(ManualClock::default());
        let cache = Cache::durable(
            config,
            start,
            disk.clone(),
            &boot,
            clock,
            Arc::new(Unobserved),
        );
        Self {
            cache: Arc::new(cache),
            disk,
        }
    }

    fn restarted(self) -> Self {
        let mut snapshot = Snapshot {
            version: ResourceVersion(1_000),
            boot: BootId("boot".into()),
            ..Snapshot::default()
        };
        for change in self.disk.0.lock().unwrap().values() {
            if let Change::Device(device) = change {
                snapshot.devices.push(device.clone());
            } else if let Change::Object(object) = change {
                snapshot.objects.push(object.clone());
            }
        }
        let start = Start {
            base: ResourceVersion(1_000),
            snapshot: Some(snapshot),
        };
        Self::on(self.disk, start, Bounds::default())
    }

    fn finds(&self, names: &[&str]) {
        self.cache.upsert_device(cut(names)).unwrap();
    }

    fn says(&self, condition: &Condition) {
        self.cache
            .change(&uuid(GPU), &mut |conditions: &mut Vec<Condition>| {
                condition::upsert(conditions, condition.clone());
            });
    }

    async fn get(&self, name: &str) -> Arc<Gpu> {
        self.cache.get(&key(name)).await.unwrap()
    }

    async fn healths<const N: usize>(&self, names: [&str; N]) -> [Health; N] {
        let mut healths = [Health::Unknown; N];
        for (health, name) in healths.iter_mut().zip(names) {
            *health = self.get(name).await.derived.health;
        }
        healths
    }

    async fn names(&self, selection: &Selection) -> Vec<String> {
        let listing = self.cache.list(selection).await;
        let names = listing.gpus.iter().map(|gpu| gpu.key.name.to_string());
        names.collect()
    }

    async fn watch(&self, selection: Selection) -> Watcher {
        let request = WatchRequest {
            selection,
            from: WatchFrom::Now,
            exact: false,
            bookmarks: false,
        };
        self.cache.watch(request).await.unwrap()
    }
}

async fn told(watcher: &mut Watcher) -> Vec<(EventType, String)> {
    match watcher.next().await {
        Ok(Told::Changes(events)) => events
            .iter()
            .map(|event| (event.type_, event.gpu.key.name.to_string()))
            .collect(),
        Ok(Told::Bookmark { .. }) | Err(_) => Vec::new(),
    }
}

fn whole() -> Selection {
    Selection {
        whole_gpus: true,
        ..Selection::all()
    }
}

#[tokio::test]
async fn n9_instances_are_devices_with_a_parent_and_who_wants_none_sees_none() {
    let rig = Rig::new();
    rig.finds(&["MIG-1", "MIG-2"]);
    let all = ["GPU-0", "MIG-1", "MIG-2"];
    assert_eq!(rig.names(&Selection::all()).await, all);
    assert_eq!(rig.names(&whole()).await, ["GPU-0"]);
    let of_gpu = Selection {
        fields: selector::fields("spec.mig_parent=GPU-0").unwrap(),
        ..Selection::all()
    };
    assert_eq!(rig.names(&of_gpu).await, ["MIG-1", "MIG-2"]);
    let gpu = rig.get("MIG-2").await;
    let parent = gpu.device.parent.clone().unwrap();
    assert_eq!((parent.gpu.as_str(), parent.gpu_instance), (GPU, 8));
    assert_eq!(&*parent.profile, "1g.10gb");
    assert_eq!(gpu.device.memory_bytes, Some(10 << 30));
    for target in [
        Target::Uuid(uuid("MIG-2")),
        Target::Pci("0000:1b:00.0".parse().unwrap()),
    ] {
        assert_eq!(rig.cache.resolve(&target), Some(uuid(GPU)), "{target}");
    }
    let before = rig.cache.list(&Selection::all()).await.version;
    rig.finds(&["MIG-1", "MIG-2"]);
    let after = rig.cache.list(&Selection::all()).await.version;
    assert_eq!(before, after, "the same again is no write");
}

#[tokio::test]
async fn n9_a_gpus_fault_reaches_all_and_an_instances_stays_on_it() {
    let rig = Rig::new();
    rig.finds(&["MIG-1", "MIG-2"]);
    let all = ["GPU-0", "MIG-1", "MIG-2"];
    rig.says(&says("Watched", None, Judgement::Ok, Severity::Info));
    assert_eq!(rig.healths(all).await, [Health::Healthy; 3]);
    rig.says(&says(
        "Xid",
        Some("MIG-1"),
        Judgement::Problem,
        Severity::Fatal,
    ));
    let (fine, bad) = (Health::Healthy, Health::Unhealthy);
    assert_eq!(rig.healths(all).await, [fine, bad, fine]);
    rig.says(&says("Heat", None, Judgement::Problem, Severity::Warning));
    let warm = Health::Degraded;
    assert_eq!(rig.healths(all).await, [warm, bad, warm]);
    rig.says(&says("Bus", None, Judgement::Problem, Severity::Fatal));
    assert_eq!(rig.healths(all).await, [bad; 3]);
    let gpu = rig.get("MIG-2").await;
    assert_eq!(gpu.derived.health_from.as_deref(), Some("Bus"));
    let types: Vec<_> = gpu.conditions.iter().map(|c| c.type_.to_string()).collect();
    assert_eq!(types, ["Bus", "Heat", "Watched"]);
    rig.says(&says("Bus", None, Judgement::Ok, Severity::Fatal));
    assert_eq!(rig.healths(all).await, [warm, bad, warm]);
}

#[tokio::test]
async fn n9_of_a_type_that_both_have_an_instance_shows_the_worse() {
    #[track_caller]
    fn check(on_gpu: (Judgement, Severity), own: (Judgement, Severity), expected: &str) {
        let rig = Rig::new();
        rig.finds(&["MIG-1"]);
        rig.says(&says("Xid", None, on_gpu.0, on_gpu.1));
        rig.says(&says("Xid", Some("MIG-1"), own.0, own.1));
        let gpu = futures_now(rig.get("MIG-1"));
        let shown: Vec<_> = gpu.conditions.iter().map(|c| c.message.clone()).collect();
        assert_eq!(shown, [expected]);
        let whole = futures_now(rig.get(GPU));
        assert_eq!(whole.conditions[0].message, "on the GPU");
    }
    use Judgement::{Ok, Problem, Unknown};
    use Severity::{Fatal, Warning};
    check((Problem, Fatal), (Problem, Warning), "on the GPU");
    check((Problem, Warning), (Problem, Fatal), "on MIG-1");
    check((Problem, Warning), (Problem, Warning), "on MIG-1");
    check((Problem, Warning), (Ok, Fatal), "on the GPU");
    check((Ok, Fatal), (Problem, Warning), "on MIG-1");
    check((Unknown, Warning), (Problem, Warning), "on the GPU");
    check((Unknown, Warning), (Problem, Fatal), "on MIG-1");
}

/// Nothing here waits.
fn futures_now<T>(future: impl Future<Output = T>) -> T {
    let waker = std::task::Waker::noop();
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test(start_paused = true)]
async fn n9_c2_a_read_of_an_instance_waits_at_its_gpus_barrier_and_never_says_healthy() {
    let rig = Rig::new();
    rig.finds(&["MIG-1"]);
    rig.cache
        .upsert_device(DeviceInfo::bare(uuid("GPU-1")))
        .unwrap();
    rig.says(&says("Watched", None, Judgement::Ok, Severity::Info));
    rig.cache.raise(&uuid(GPU), SignalSeq(1));
    let waiting = tokio::spawn({
        let cache = rig.cache.clone();
        async move { cache.get(&key("MIG-1")).await.unwrap().derived.health }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!waiting.is_finished(), "the decision is not in the cache");
    rig.get("GPU-1").await;
    rig.says(&says("Bus", None, Judgement::Problem, Severity::Fatal));
    rig.cache.settle(&uuid(GPU), SignalSeq(1));
    assert_eq!(waiting.await.unwrap(), Health::Unhealthy);
}

#[tokio::test]
async fn n9_reconfiguration_deletes_the_old_with_what_stood_and_the_new_begin_clean() {
    let rig = Rig::new();
    rig.finds(&["MIG-1", "MIG-2"]);
    rig.says(&says("Watched", None, Judgement::Ok, Severity::Info));
    rig.says(&says(
        "Xid",
        Some("MIG-1"),
        Judgement::Problem,
        Severity::Fatal,
    ));
    let mut all = rig.watch(Selection::all()).await;
    let mut gpus = rig.watch(whole()).await;
    told(&mut all).await;
    told(&mut gpus).await;
    rig.finds(&["MIG-3", "MIG-2"]);
    let mut events = told(&mut all).await;
    events.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (EventType::Modified, "GPU-0"),
        (EventType::Deleted, "MIG-1"),
        (EventType::Added, "MIG-3"),
    ];
    assert_eq!(
        events,
        expected.map(|(type_, name)| (type_, name.to_owned()))
    );
    let gpu = vec![(EventType::Modified, GPU.to_owned())];
    assert_eq!(told(&mut gpus).await, gpu);
    assert_eq!(rig.healths(["MIG-2", "MIG-3"]).await, [Health::Healthy; 2]);
    assert!(
        rig.cache
            .conditions(&uuid(GPU))
            .iter()
            .all(|c| c.instance.is_none())
    );
    let gone = rig.cache.get(&key("MIG-1")).await.unwrap_err();
    assert!(matches!(gone, ApiError::NotFound { .. }), "{gone}");
    // A late word on what is gone is nobody's.
    rig.says(&says(
        "Xid",
        Some("MIG-1"),
        Judgement::Problem,
        Severity::Fatal,
    ));
    assert_eq!(rig.healths(["GPU-0", "MIG-3"]).await, [Health::Healthy; 2]);
    rig.finds(&[]);
    assert_eq!(rig.names(&Selection::all()).await, ["GPU-0"]);
}

#[tokio::test]
async fn n9_c7_a_restart_brings_instances_back_and_heals_none() {
    let rig = Rig::new();
    rig.finds(&["MIG-1", "MIG-2"]);
    rig.says(&says("Watched", None, Judgement::Ok, Severity::Info));
    rig.says(&says(
        "Xid",
        Some("MIG-1"),
        Judgement::Problem,
        Severity::Fatal,
    ));
    let rig = rig.restarted();
    let all = ["GPU-0", "MIG-1", "MIG-2"];
    assert_eq!(rig.names(&Selection::all()).await, all);
    let (unknown, bad) = (Health::Unknown, Health::Unhealthy);
    assert_eq!(rig.healths(all).await, [unknown, bad, unknown]);
    assert_eq!(rig.names(&whole()).await, ["GPU-0"]);
    // It was cut up anew while nobody looked.
    rig.finds(&["MIG-2", "MIG-9"]);
    assert_eq!(
        rig.names(&Selection::all()).await,
        ["GPU-0", "MIG-2", "MIG-9"]
    );
    let rig = rig.restarted();
    assert_eq!(
        rig.names(&Selection::all()).await,
        ["GPU-0", "MIG-2", "MIG-9"],
        "and stays so"
    );
}

#[tokio::test]
async fn n9_a_providers_word_on_an_instance_is_the_instances() {
    let rig = Rig::new();
    rig.finds(&["MIG-1", "MIG-2"]);
    rig.says(&says("Watched", None, Judgement::Ok, Severity::Info));
    rig.says(&says(
        "Xid",
        Some("MIG-2"),
        Judgement::Problem,
        Severity::Warning,
    ));
    let caller = Caller {
        provider: "agent".into(),
        identity: "uid:7".into(),
        connection: 1,
        lease: None,
    };
    let condition = |type_: &str| ProviderCondition {
        type_: type_.to_owned(),
        status: Status::True,
        polarity: Some(Polarity::TrueIsProblem),
        severity: Severity::Fatal,
        reason: "Because".to_owned(),
        message: String::new(),
        action: Action::ComponentReset,
        transition: None,
    };
    let write = |name: &'static str, type_| {
        let (cache, caller, condition) = (rig.cache.clone(), caller.clone(), condition(type_));
        async move { cache.update_condition(&caller, &key(name), condition).await }
    };
    let shown = write("MIG-1", "Slow").await.unwrap();
    assert_eq!(shown.derived.health, Health::Unhealthy);
    let all = ["GPU-0", "MIG-1", "MIG-2"];
    let (fine, warm, bad) = (Health::Healthy, Health::Degraded, Health::Unhealthy);
    assert_eq!(rig.healths(all).await, [fine, bad, warm]);
    let refused = write("MIG-1", "Xid").await.unwrap_err();
    assert!(matches!(refused, ApiError::Forbidden { .. }), "{refused}");
    // What is said of the GPU leaves what is said of its instances alone.
    write(GPU, "Slow").await.unwrap();
    assert_eq!(rig.healths(all).await, [bad; 3]);
    let own = rig.cache.conditions(&uuid(GPU));
    assert!(condition::find_on(&own, "Xid", Some("MIG-2")).is_some());
}

#[tokio::test]
async fn n9_an_instance_for_which_there_is_no_room_is_its_gpus() {
    let bounds = Bounds {
        gpus: 2,
        ..Bounds::default()
    };
    let rig = Rig::on(Arc::default(), Start::default(), bounds);
    rig.finds(&["MIG-1", "MIG-2"]);
    assert_eq!(rig.names(&Selection::all()).await, ["GPU-0", "MIG-1"]);
    let known = rig.cache.device(&uuid(GPU)).unwrap();
    assert!(!known.has_instance("MIG-2"), "so its faults go to the GPU");
}
