//! The cache through its ports, as the pipeline and the API use it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_cache::{Cache, Config, Unobserved, Watcher};
use device_api_core::action::Action;
use device_api_core::clock::{BootTime, Clock, ManualClock, WallTime};
use device_api_core::condition::{self, Condition, Owner, Polarity, Status};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::limits::{Bounds, HISTORY_BYTES_MAX};
use device_api_core::policy::PolicyId;
use device_api_core::ports::{DeviceCache, Devices, Overdue, WatchStream};
use device_api_core::provider::{
    Caller, Creation, Merge, ProviderCondition, Registration, StatusUpdate,
};
use device_api_core::selector::Selection;
use device_api_core::verdict::{Judgement, Severity};
use device_api_core::watch::{Event, EventType, Scope, Told, WatchFrom, WatchRequest};

struct Rig {
    store: Arc<Cache>,
    clock: Arc<ManualClock>,
}

fn rig() -> Rig {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(1_800_000_000));
    Rig {
        store: Arc::new(Cache::in_memory(
            Config::default(),
            clock.clone(),
            Arc::new(Unobserved),
        )),
        clock,
    }
}

fn asks(scope: Scope, from: WatchFrom) -> WatchRequest {
    WatchRequest {
        selection: Selection::of(scope),
        from,
        exact: false,
        bookmarks: false,
    }
}

/// The next set of changes; `None`: the watch has ended.
trait Sets {
    async fn set(&mut self) -> Option<Vec<Event>>;
}

impl Sets for Watcher {
    async fn set(&mut self) -> Option<Vec<Event>> {
        match self.next().await {
            Ok(Told::Changes(events)) => Some(events),
            Ok(Told::Bookmark { .. }) | Err(_) => None,
        }
    }
}

fn uuid(n: u32) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

fn key(n: u32) -> ObjectKey {
    ObjectKey::new("", &format!("GPU-{n}"))
}

fn caller(name: &str) -> Caller {
    Caller {
        provider: name.into(),
        identity: name.into(),
        connection: 1,
        lease: None,
    }
}

fn said(type_: &str, status: Status) -> ProviderCondition {
    ProviderCondition {
        type_: type_.to_owned(),
        status,
        polarity: Some(Polarity::TrueIsProblem),
        severity: Severity::Fatal,
        reason: "Because".to_owned(),
        message: String::new(),
        action: Action::ComponentReset,
        transition: None,
    }
}

fn host_says(state: Judgement) -> Condition {
    Condition {
        type_: "HostSays".into(),
        instance: None,
        state,
        polarity: Polarity::TrueIsProblem,
        severity: Severity::Fatal,
        reason: "Because".to_owned(),
        message: String::new(),
        action: Action::None,
        clears: Vec::new(),
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

impl Rig {
    fn register(&self, n: u32) {
        self.store.upsert_device(DeviceInfo::bare(uuid(n))).unwrap();
    }

    fn judge(&self, n: u32, state: Judgement) {
        self.store
            .change(&uuid(n), &mut |conditions: &mut Vec<Condition>| {
                condition::upsert(conditions, host_says(state));
            });
    }

    async fn health(&self, n: u32) -> Health {
        self.store.get(&key(n)).await.unwrap().derived.health
    }

    async fn version(&self) -> ResourceVersion {
        self.store.list(&Selection::all()).await.version
    }
}

fn told(events: &[Event]) -> Vec<(EventType, String)> {
    events
        .iter()
        .map(|event| (event.type_, event.gpu.key.name.to_string()))
        .collect()
}

#[tokio::test]
async fn c5_versions_rise_by_one_with_each_change_and_stay_for_none() {
    let rig = rig();
    let start = rig.version().await;
    assert!(
        start.0 >= 1_800_000_000_000_000,
        "memory mode starts at Unix microseconds"
    );
    rig.register(0);
    assert_eq!(rig.version().await.0, start.0 + 1);
    rig.judge(0, Judgement::Ok);
    rig.judge(0, Judgement::Ok);
    rig.register(0);
    assert_eq!(
        rig.version().await.0,
        start.0 + 2,
        "the same again is no write"
    );
    assert_eq!(rig.health(0).await, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn c2_reads_wait_for_the_decision_and_never_answer_the_state_before_it() {
    let rig = rig();
    rig.register(0);
    rig.register(1);
    rig.judge(0, Judgement::Ok);
    rig.store.raise(&uuid(0), SignalSeq(1));
    let read = tokio::spawn({
        let store = rig.store.clone();
        async move { store.get(&key(0)).await.unwrap().derived.health }
    });
    let list = tokio::spawn({
        let store = rig.store.clone();
        async move { store.list(&Selection::all()).await.gpus[0].derived.health }
    });
    let watch = tokio::spawn({
        let store = rig.store.clone();
        async move {
            let mut watch = store.watch(asks(Scope::All, WatchFrom::Now)).await.unwrap();
            watch
                .set()
                .await
                .unwrap()
                .iter()
                .map(|event| event.gpu.derived.health)
                .collect::<Vec<_>>()
        }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        rig.store.get(&key(1)).await.unwrap().derived.health,
        Health::Unknown,
        "another GPU's readers never wait"
    );
    assert!(!read.is_finished() && !list.is_finished() && !watch.is_finished());
    rig.judge(0, Judgement::Problem);
    rig.store.settle(&uuid(0), SignalSeq(1));
    assert_eq!(read.await.unwrap(), Health::Unhealthy);
    assert_eq!(list.await.unwrap(), Health::Unhealthy);
    assert_eq!(watch.await.unwrap(), [Health::Unknown, Health::Unhealthy]);
}

#[derive(Debug)]
struct Fallback(Mutex<Vec<SignalSeq>>, Arc<Cache>);

impl Overdue for Fallback {
    fn overdue(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        self.0.lock().unwrap().push(seq);
        self.1.change(uuid, &mut |conditions: &mut Vec<Condition>| {
            condition::upsert(conditions, host_says(Judgement::Problem));
        });
        self.1.settle(uuid, seq);
    }
}

#[tokio::test(start_paused = true)]
async fn c3_when_the_bound_passes_the_fallback_is_written_before_the_reader_goes() {
    let rig = rig();
    rig.register(0);
    rig.judge(0, Judgement::Ok);
    let fallback = Arc::new(Fallback(Mutex::default(), rig.store.clone()));
    rig.store.on_overdue(fallback.clone());
    rig.store.raise(&uuid(0), SignalSeq(7));
    let started = tokio::time::Instant::now();
    assert_eq!(rig.health(0).await, Health::Unhealthy);
    assert_eq!(started.elapsed(), Bounds::default().barrier_wait);
    assert_eq!(*fallback.0.lock().unwrap(), [SignalSeq(7)]);
}

#[tokio::test]
async fn w1_a_watch_starts_with_the_state_or_resumes_after_a_version() {
    let rig = rig();
    rig.register(1);
    rig.register(0);
    let seen = rig.version().await;
    rig.judge(1, Judgement::Problem);
    let mut now = rig
        .store
        .watch(asks(Scope::All, WatchFrom::Now))
        .await
        .unwrap();
    let start = now.set().await.unwrap();
    assert_eq!(
        told(&start),
        [
            (EventType::Added, "GPU-0".to_owned()),
            (EventType::Added, "GPU-1".to_owned())
        ]
    );
    assert!(start.is_sorted_by_key(|event| event.gpu.version));
    let mut resumed = rig
        .store
        .watch(asks(Scope::All, WatchFrom::After(seen)))
        .await
        .unwrap();
    assert_eq!(
        told(&resumed.set().await.unwrap()),
        [(EventType::Modified, "GPU-1".to_owned())]
    );
    rig.store.delete(&caller("x"), &key(0), None).await.unwrap();
    let deleted = resumed.set().await.unwrap();
    assert_eq!(told(&deleted), [(EventType::Deleted, "GPU-0".to_owned())]);
    assert_eq!(
        deleted[0].gpu.version,
        rig.version().await,
        "a deletion carries its own version"
    );
}

#[tokio::test]
async fn w1_only_a_watch_is_out_of_range_when_too_old_or_from_the_future() {
    let rig = rig();
    rig.register(0);
    let newest = rig.version().await;
    for asked in [ResourceVersion(1), ResourceVersion(newest.0 + 1)] {
        let refused = rig
            .store
            .watch(asks(Scope::All, WatchFrom::After(asked)))
            .await
            .unwrap_err();
        assert!(matches!(refused, ApiError::OutOfRange { .. }), "{refused}");
    }
    for n in 0..=Bounds::default().history_events {
        rig.judge(
            0,
            if n % 2 == 0 {
                Judgement::Ok
            } else {
                Judgement::Problem
            },
        );
    }
    let refused = rig
        .store
        .watch(asks(Scope::All, WatchFrom::After(newest)))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ApiError::OutOfRange { .. }),
        "trimmed from the history: {refused}"
    );
    let kept = ResourceVersion(newest.0 + 1);
    assert_eq!(
        rig.store
            .watch(asks(Scope::All, WatchFrom::After(kept)))
            .await
            .unwrap()
            .set()
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn w2_a_slow_watcher_gets_the_newest_state_once_for_each_gpu() {
    let rig = rig();
    rig.register(0);
    rig.register(1);
    let mut watch = rig
        .store
        .watch(asks(Scope::All, WatchFrom::Now))
        .await
        .unwrap();
    watch.set().await.unwrap();
    for n in 0..1001 {
        rig.judge(
            0,
            if n % 2 == 0 {
                Judgement::Problem
            } else {
                Judgement::Ok
            },
        );
    }
    rig.judge(1, Judgement::Ok);
    let events = watch.set().await.unwrap();
    assert_eq!(
        told(&events),
        [
            (EventType::Modified, "GPU-0".to_owned()),
            (EventType::Modified, "GPU-1".to_owned())
        ]
    );
    assert_eq!(events[0].gpu.derived.health, Health::Unhealthy);
}

#[tokio::test]
async fn namespaces_are_compared_exactly() {
    let rig = rig();
    for namespace in ["default", "default2"] {
        let creation = Creation {
            key: ObjectKey::new(namespace, "g"),
            uuid: uuid(7),
            device: None,
        };
        rig.store
            .create(&caller("x"), creation, true)
            .await
            .unwrap();
    }
    assert_eq!(
        rig.store
            .list(&Selection::of(Scope::from_wire("default")))
            .await
            .gpus
            .len(),
        1
    );
    assert_eq!(
        rig.store
            .list(&Selection::of(Scope::from_wire("")))
            .await
            .gpus
            .len(),
        2
    );
}

#[tokio::test]
async fn c7_conditions_survive_a_deletion_and_come_back_with_the_uuid() {
    let rig = rig();
    rig.register(0);
    rig.judge(0, Judgement::Problem);
    let uid = rig.store.get(&key(0)).await.unwrap().uid.clone();
    rig.store.delete(&caller("x"), &key(0), None).await.unwrap();
    assert!(matches!(
        rig.store.get(&key(0)).await,
        Err(ApiError::NotFound { .. })
    ));
    let creation = Creation {
        key: ObjectKey::new("", "other-name"),
        uuid: uuid(0),
        device: None,
    };
    let (gpu, created) = rig
        .store
        .create(&caller("x"), creation.clone(), false)
        .await
        .unwrap();
    assert!(created && gpu.uid != uid);
    assert_eq!(gpu.derived.health, Health::Unhealthy);
    assert!(
        !rig.store
            .create(&caller("x"), creation.clone(), false)
            .await
            .unwrap()
            .1
    );
    assert!(matches!(
        rig.store.create(&caller("x"), creation, true).await,
        Err(ApiError::AlreadyExists { .. })
    ));
}

#[tokio::test]
async fn p1_two_providers_lose_nothing_of_each_other() {
    let rig = rig();
    rig.register(0);
    let update = |conditions, merge, expected| StatusUpdate {
        key: key(0),
        expected,
        conditions,
        merge,
    };
    let (a, b) = (caller("a"), caller("b"));
    rig.store
        .update_condition(&a, &key(0), said("AType", Status::True))
        .await
        .unwrap();
    let lenient = update(
        vec![said("BType", Status::True), said("AType", Status::False)],
        Merge::Lenient,
        None,
    );
    let gpu = rig.store.update_status(&b, lenient).await.unwrap();
    assert_eq!(
        condition::find(&gpu.conditions, "AType").unwrap().status(),
        Status::True,
        "others' types are left alone"
    );
    let strict = rig
        .store
        .update_condition(&b, &key(0), said("AType", Status::False))
        .await
        .unwrap_err();
    assert!(
        matches!(&strict, ApiError::Forbidden { why } if why.contains("provider:a")),
        "{strict}"
    );
    for host in condition::HOST_OWNED
        .iter()
        .filter(|type_| **type_ != condition::READY)
    {
        let refused = rig
            .store
            .update_condition(&b, &key(0), said(host, Status::False))
            .await
            .unwrap_err();
        assert!(matches!(refused, ApiError::Forbidden { .. }), "{host}");
    }
    let removed = update(vec![], Merge::Lenient, Some(gpu.version));
    let gpu = rig.store.update_status(&b, removed.clone()).await.unwrap();
    let left: Vec<_> = gpu
        .conditions
        .iter()
        .map(|condition| &*condition.type_)
        .collect();
    assert_eq!(
        left,
        ["AType"],
        "with a matching version, leaving out one's own removes it"
    );
    let conflict = rig.store.update_status(&b, removed).await.unwrap_err();
    assert!(matches!(conflict, ApiError::Conflict { .. }), "{conflict}");
}

#[tokio::test]
async fn p1_a_policys_types_are_reserved_before_it_first_writes() {
    let rig = rig();
    rig.register(0);
    rig.store
        .reserve(vec![("XidCriticalError".to_owned(), Owner::Host)])
        .unwrap();
    let refused = rig
        .store
        .update_condition(
            &caller("x"),
            &key(0),
            said("XidCriticalError", Status::False),
        )
        .await;
    assert!(matches!(refused, Err(ApiError::Forbidden { .. })));
}

#[tokio::test]
async fn p1_h6_the_types_of_policies_change_with_those_who_own_them() {
    let rig = rig();
    rig.register(0);
    let policy = |name: &str| {
        Owner::Policy(PolicyId {
            name: name.into(),
            version: "1".into(),
            digest: "d".into(),
        })
    };
    let write = |provider: &'static str, type_: &'static str| {
        let (caller, said) = (caller(provider), said(type_, Status::False));
        let store = rig.store.clone();
        async move { store.update_condition(&caller, &key(0), said).await.is_ok() }
    };
    let of = |type_: &str, owner: Owner| vec![(type_.to_owned(), owner)];
    rig.store.reserve(of("A", policy("p"))).unwrap();
    assert_eq!(rig.store.owner("A"), Some(policy("p")));
    assert_eq!(rig.store.owner("Ready"), Some(Owner::Host));
    assert_eq!(rig.store.owner("B"), None);
    assert!(!write("x", "A").await);
    assert!(write("x", "B").await);
    assert_eq!(rig.store.owner("B"), Some(Owner::Provider("x".into())));
    for (type_, owner) in [
        ("A", policy("p")),
        ("B", Owner::Provider("x".into())),
        ("Ready", Owner::Host),
    ] {
        let refused = rig.store.reserve(of(type_, policy("q")));
        assert_eq!(refused, Err((type_.to_owned(), owner)));
    }
    assert_eq!(rig.store.owner("A"), Some(policy("p")), "as it was");
    rig.store.reserve(Vec::new()).unwrap();
    assert_eq!(rig.store.owner("A"), None, "it never wrote it");

    // What a policy left is another's to judge, also what is a problem; a provider never gets it.
    for state in [Judgement::Problem, Judgement::Unknown] {
        rig.store
            .change(&uuid(0), &mut |conditions: &mut Vec<Condition>| {
                let left = Condition {
                    owner: policy("p"),
                    ..Condition::of_host("C", state, "OwnerGone", WallTime::default())
                };
                condition::upsert(conditions, left);
            });
        assert_eq!(rig.store.owner("C"), None, "{state}");
        assert!(!write("x", "C").await);
    }
}

#[tokio::test]
async fn p2_a_lost_providers_health_turns_unknown_and_its_problems_stay() {
    let rig = rig();
    rig.register(0);
    let wanted = Registration {
        provider: "agent".into(),
        identity: "uid:7".into(),
        duration: Duration::from_secs(10),
    };
    let lease = rig.store.register_provider(wanted).await.unwrap();
    assert_eq!(&*rig.store.provider_of(&lease.id).unwrap(), "agent");
    let agent = Caller {
        lease: Some(lease.id.clone()),
        ..caller("agent")
    };
    rig.store
        .update_condition(&agent, &key(0), said("Fine", Status::False))
        .await
        .unwrap();
    rig.store
        .update_condition(&agent, &key(0), said("Broken", Status::True))
        .await
        .unwrap();
    rig.clock.advance(Duration::from_secs(9));
    rig.store.heartbeat(&lease.id).await.unwrap();
    rig.clock.advance(Duration::from_secs(9));
    assert!(rig.store.expire_leases().is_empty());
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(rig.store.expire_leases(), ["agent".into()]);
    let gpu = rig.store.get(&key(0)).await.unwrap();
    let lost = |type_| condition::find(&gpu.conditions, type_).unwrap();
    assert_eq!(
        (lost("Fine").state, &*lost("Fine").reason),
        (Judgement::Unknown, "ProviderLost")
    );
    assert_eq!(
        (lost("Broken").state, &*lost("Broken").reason),
        (Judgement::Problem, "ProviderLost")
    );
    assert!(matches!(
        rig.store.heartbeat(&lease.id).await,
        Err(ApiError::Forbidden { .. })
    ));
}

#[tokio::test]
async fn a_spec_is_immutable_and_says_so() {
    let rig = rig();
    rig.register(0);
    let (x, before) = (caller("x"), rig.version().await);
    assert!(
        rig.store
            .update_spec(&x, &key(0), &uuid(0), None)
            .await
            .is_ok()
    );
    let refused = rig
        .store
        .update_spec(&x, &key(0), &uuid(1), None)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ApiError::Invalid {
                field: "spec.uuid",
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(rig.version().await, before);
}

#[tokio::test]
async fn the_store_is_bounded() {
    let rig = rig();
    for n in 0..Bounds::default().gpus {
        rig.register(n as u32);
    }
    let refused = rig
        .store
        .upsert_device(DeviceInfo::bare(DeviceUuid::new("GPU-more")))
        .unwrap_err();
    assert!(
        matches!(refused, ApiError::Exhausted { limit: "gpus", .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn w4_closing_ends_watches_now_and_later() {
    let rig = rig();
    let mut watch = rig
        .store
        .watch(asks(Scope::All, WatchFrom::Now))
        .await
        .unwrap();
    rig.store.close();
    assert_eq!(watch.set().await, None);
    assert_eq!(
        rig.store
            .watch(asks(Scope::All, WatchFrom::Now))
            .await
            .unwrap()
            .set()
            .await,
        None
    );
}

#[tokio::test]
async fn p3_a_providers_ready_is_a_vote_and_an_echo_of_the_derived_one_is_none() {
    let rig = rig();
    rig.register(0);
    rig.judge(0, Judgement::Problem);
    let ready = rig.store.get(&key(0)).await.unwrap().ready();
    let echo = ProviderCondition {
        polarity: Some(Polarity::TrueIsHealthy),
        reason: ready.reason.clone(),
        message: ready.message.clone(),
        ..said(condition::READY, ready.status())
    };
    let update = |condition| StatusUpdate {
        key: key(0),
        expected: None,
        conditions: vec![condition],
        merge: Merge::Lenient,
    };
    rig.store
        .update_status(&caller("agent"), update(echo))
        .await
        .unwrap();
    rig.judge(0, Judgement::Ok);
    assert_eq!(
        rig.health(0).await,
        Health::Healthy,
        "what it read while the GPU was bad does not stand"
    );
    let vote = ProviderCondition {
        polarity: Some(Polarity::TrueIsHealthy),
        ..said(condition::READY, Status::False)
    };
    let gpu = rig
        .store
        .update_status(&caller("agent"), update(vote))
        .await
        .unwrap();
    assert_eq!(gpu.derived.health, Health::Unhealthy, "its own word counts");
    assert_eq!(
        gpu.published()
            .filter(|c| &*c.type_ == condition::READY)
            .count(),
        1,
        "and only the derived one is shown"
    );
}

#[tokio::test]
async fn a_device_is_registered_whatever_was_known_of_it_before_unless_a_client_deleted_it() {
    let rig = rig();
    rig.judge(0, Judgement::Unknown);
    rig.register(0);
    assert_eq!(
        rig.health(0).await,
        Health::Unknown,
        "registered though it had a record"
    );
    rig.store.delete(&caller("x"), &key(0), None).await.unwrap();
    rig.register(0);
    assert!(
        rig.store.get(&key(0)).await.is_err(),
        "what a client deleted stays deleted"
    );
    let creation = Creation {
        key: key(0),
        uuid: uuid(0),
        device: None,
    };
    rig.store
        .create(&caller("x"), creation, true)
        .await
        .unwrap();
    rig.store.delete(&caller("x"), &key(0), None).await.unwrap();
}

#[tokio::test]
async fn a_pci_address_is_of_the_device_that_nvml_saw_there_last() {
    let rig = rig();
    let pci = "0000:1b:00.0".parse().unwrap();
    let at = |n| DeviceInfo {
        pci: Some(pci),
        ..DeviceInfo::bare(uuid(n))
    };
    let target = device_api_core::signal::Target::Pci(pci);
    rig.store.upsert_device(at(0)).unwrap();
    let creation = Creation {
        key: key(7),
        uuid: uuid(7),
        device: Some(at(7)),
    };
    rig.store
        .create(&caller("x"), creation, true)
        .await
        .unwrap();
    assert_eq!(
        rig.store.resolve(&target),
        Some(uuid(0)),
        "a provider takes nobody's address"
    );
    rig.store.upsert_device(at(1)).unwrap();
    assert_eq!(
        rig.store.resolve(&target),
        Some(uuid(1)),
        "a replaced GPU has none any more"
    );
}

#[tokio::test]
async fn n4_a_gpu_that_nvml_gives_no_address_keeps_the_last_one_that_nobody_else_has() {
    let rig = rig();
    let pci = "0000:1b:00.0".parse().unwrap();
    let target = device_api_core::signal::Target::Pci(pci);
    let at = |n, pci| DeviceInfo {
        pci,
        ..DeviceInfo::bare(uuid(n))
    };
    rig.store.upsert_device(at(0, Some(pci))).unwrap();
    rig.store.upsert_device(at(0, None)).unwrap();
    assert_eq!(rig.store.resolve(&target), Some(uuid(0)));
    rig.store.upsert_device(at(1, Some(pci))).unwrap();
    rig.store.upsert_device(at(0, None)).unwrap();
    assert_eq!(rig.store.resolve(&target), Some(uuid(1)));
}

#[tokio::test]
async fn n7_an_index_is_of_the_gpu_that_is_there() {
    let rig = rig();
    let at = |n, slot: &str, index| DeviceInfo {
        pci: slot.parse().ok(),
        index: Some(index),
        minor: Some(index),
        ..DeviceInfo::bare(uuid(n))
    };
    let places = async |n| {
        let device = rig.store.get(&key(n)).await.unwrap().device.clone();
        (device.pci.is_some(), device.index, device.minor)
    };
    rig.store.upsert_device(at(0, "0000:1b:00.0", 4)).unwrap();
    rig.store.upsert_device(at(1, "0000:1b:00.0", 4)).unwrap();
    assert_eq!(places(0).await, (false, None, None), "it was replaced");
    assert_eq!(places(1).await, (true, Some(4), Some(4)));
    // NVML has numbered anew, and the other one is not asked yet.
    rig.store.upsert_device(at(2, "0000:43:00.0", 4)).unwrap();
    assert_eq!(places(1).await, (true, None, None));
}

#[tokio::test]
async fn n7_a_deleted_entry_of_a_gpu_that_was_gone_is_back_with_the_gpu() {
    let rig = rig();
    rig.register(0);
    let says = |n, type_: &str, state| {
        let condition = Condition::of_host(type_, state, "Because", WallTime::default());
        rig.store
            .change(&uuid(n), &mut |conditions: &mut Vec<Condition>| {
                condition::upsert(conditions, condition.clone());
            });
    };
    says(0, condition::GONE, Judgement::Unknown);
    says(0, "Bad", Judgement::Problem);
    rig.store.delete(&caller("x"), &key(0), None).await.unwrap();
    assert!(rig.store.get(&key(0)).await.is_err());
    rig.register(0);
    let back = rig.store.get(&key(0)).await.unwrap();
    assert!(
        back.conditions.iter().any(|bad| &*bad.type_ == "Bad"),
        "{back:?}"
    );
    // One that was there stays deleted.
    rig.register(1);
    rig.store.delete(&caller("x"), &key(1), None).await.unwrap();
    rig.register(1);
    assert!(rig.store.get(&key(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn c2_create_answers_an_existing_gpu_behind_its_own_barrier() {
    let rig = rig();
    rig.register(0);
    rig.judge(0, Judgement::Ok);
    let other = Creation {
        key: key(0),
        uuid: uuid(9),
        device: None,
    };
    let refused = rig
        .store
        .create(&caller("x"), other, false)
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ApiError::Invalid {
                field: "spec.uuid",
                ..
            }
        ),
        "{refused}"
    );
    rig.store.raise(&uuid(0), SignalSeq(1));
    let create = tokio::spawn({
        let store = rig.store.clone();
        let creation = Creation {
            key: key(0),
            uuid: uuid(0),
            device: None,
        };
        async move {
            store
                .create(&caller("x"), creation, false)
                .await
                .unwrap()
                .0
                .derived
                .health
        }
    });
    tokio::task::yield_now().await;
    assert!(!create.is_finished());
    rig.judge(0, Judgement::Problem);
    rig.store.settle(&uuid(0), SignalSeq(1));
    assert_eq!(create.await.unwrap(), Health::Unhealthy);
}

/// Boot time goes on; wall time is whatever somebody has set.
#[derive(Debug, Default)]
struct Jumpy {
    boot: ManualClock,
    wall: Mutex<WallTime>,
}

impl Clock for Jumpy {
    fn wall(&self) -> WallTime {
        *self.wall.lock().unwrap()
    }

    fn boot(&self) -> BootTime {
        self.boot.boot()
    }
}

#[tokio::test]
async fn c8_a_jump_of_the_wall_clock_moves_no_lease_and_no_version_back() {
    let clock = Arc::new(Jumpy::default());
    *clock.wall.lock().unwrap() = WallTime::from_ms(1_800_000_000_000);
    let store = Cache::in_memory(Config::default(), clock.clone(), Arc::new(Unobserved));
    let wanted = Registration {
        provider: "agent".into(),
        identity: "uid:7".into(),
        duration: Duration::from_secs(10),
    };
    let lease = store.register_provider(wanted).await.unwrap();
    let mut before = store.list(&Selection::all()).await.version;
    for (n, unix_ms) in [(0, 0), (1, 4_000_000_000_000), (2, 1)] {
        *clock.wall.lock().unwrap() = WallTime::from_ms(unix_ms);
        assert!(store.expire_leases().is_empty());
        store.upsert_device(DeviceInfo::bare(uuid(n))).unwrap();
        let after = store.list(&Selection::all()).await.version;
        assert_eq!(after.0, before.0 + 1);
        before = after;
    }
    store.heartbeat(&lease.id).await.unwrap();
    clock.boot.advance(Duration::from_secs(10));
    assert_eq!(store.expire_leases(), ["agent".into()]);
}

/// A vote of an upstream client.
fn votes(status: Status, message: &str) -> StatusUpdate {
    let vote = ProviderCondition {
        polarity: None,
        message: message.to_owned(),
        ..said("Ready", status)
    };
    StatusUpdate {
        key: key(0),
        expected: None,
        conditions: vec![vote],
        merge: Merge::Lenient,
    }
}

#[tokio::test]
async fn p3_each_provider_has_its_vote_and_the_worst_counts() {
    let rig = rig();
    rig.register(0);
    let (a, b) = (caller("a"), caller("b"));
    let write = async |caller: &Caller, status| {
        let gpu = rig.store.update_status(caller, votes(status, "mine")).await;
        gpu.unwrap().derived.health
    };
    assert_eq!(write(&a, Status::True).await, Health::Healthy);
    let before = rig.version().await;
    assert_eq!(write(&b, Status::True).await, Health::Healthy);
    assert_eq!(rig.version().await, before, "C5: nobody sees any of it");
    assert_eq!(write(&b, Status::False).await, Health::Unhealthy);
    assert_eq!(write(&a, Status::True).await, Health::Unhealthy);
    let gpu = rig.store.get(&key(0)).await.unwrap();
    let shown: Vec<_> = gpu.published().map(|c| c.type_.to_string()).collect();
    assert_eq!(shown, ["Ready"], "votes are not shown");
    assert!(
        gpu.ready().message.contains("Ready/b"),
        "{}",
        gpu.ready().message
    );
    assert_eq!(write(&b, Status::True).await, Health::Healthy);
    let direct = rig
        .store
        .update_condition(&a, &key(0), said("Ready/b", Status::True))
        .await;
    assert!(
        matches!(direct, Err(ApiError::Forbidden { .. })),
        "{direct:?}"
    );
}

#[tokio::test]
async fn p3_a_derived_ready_that_is_repeated_is_no_vote_however_old_it_is() {
    let rig = rig();
    rig.register(0);
    rig.judge(0, Judgement::Problem);
    let bad = rig.store.get(&key(0)).await.unwrap().ready();
    rig.judge(0, Judgement::Ok);
    let fine = rig.store.get(&key(0)).await.unwrap().ready();
    for old in [bad, fine] {
        // Cut, as the wire may do.
        for message in [old.message.clone(), old.message.chars().take(24).collect()] {
            let written = rig
                .store
                .update_status(&caller("a"), votes(old.status(), &message))
                .await
                .unwrap();
            assert_eq!(written.derived.health, Health::Healthy, "{message}");
        }
    }
}

#[tokio::test]
async fn what_providers_say_is_bounded_in_bytes_for_all_gpus_together() {
    let bounds = Bounds {
        condition_bytes: 1_000,
        ..Bounds::default()
    };
    let config = Config {
        bounds: Arc::new(bounds),
        ..Config::default()
    };
    let clock = Arc::new(ManualClock::default());
    let store = Cache::in_memory(config, clock, Arc::new(Unobserved));
    for n in 0..2 {
        store.upsert_device(DeviceInfo::bare(uuid(n))).unwrap();
    }
    let long = |type_: &str, bytes| ProviderCondition {
        message: "x".repeat(bytes),
        ..said(type_, Status::True)
    };
    let a = caller("a");
    let write = async |n, type_: &str, bytes| {
        let key = key(n);
        let written = store.update_condition(&a, &key, long(type_, bytes));
        written.await.map(drop)
    };
    assert_eq!(write(0, "A", 500).await, Ok(()));
    let full = ApiError::Exhausted {
        limit: "condition-bytes",
        max: 1_000,
    };
    assert_eq!(write(1, "B", 500).await, Err(full));
    assert_eq!(write(0, "A", 100).await, Ok(()), "in place of the old");
    assert_eq!(write(1, "B", 500).await, Ok(()));
    store.forget_provider("a").await.unwrap();
    assert_eq!(write(1, "C", 900).await, Ok(()));
}

#[tokio::test]
async fn history_is_bounded_in_bytes_too() {
    let rig = rig();
    rig.register(0);
    let start = rig.version().await;
    let write = async |n: usize| {
        let long = ProviderCondition {
            message: format!("{n} {}", "x".repeat(4_000)),
            ..said("Long", Status::True)
        };
        rig.store
            .update_condition(&caller("a"), &key(0), long)
            .await
            .unwrap();
    };
    let resume = async |version| {
        let request = asks(Scope::All, WatchFrom::After(version));
        rig.store.watch(request).await.map(drop)
    };
    write(0).await;
    assert!(resume(start).await.is_ok());
    let writes = HISTORY_BYTES_MAX / 3 / 4_000;
    assert!(
        writes < Bounds::default().history_events,
        "or it is not the bytes"
    );
    for n in 0..writes {
        write(n).await;
    }
    assert!(matches!(
        resume(start).await,
        Err(ApiError::OutOfRange { .. })
    ));
}
