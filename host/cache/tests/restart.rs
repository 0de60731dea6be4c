//! What a run begins with, and what it hands on to be durable (C5 to C8).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_cache::{Cache, Config, Unobserved};
use device_api_core::action::Action;
use device_api_core::clock::{BootId, BootTime, Clock as _, ManualClock, WallTime};
use device_api_core::condition::{self, Condition, Owner, Polarity, Status};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{
    Batch, Change, DeviceMemory, IncidentMemory, NotDurable, Snapshot, Start,
};
use device_api_core::error::ApiError;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::incident::{Incident, IncidentState};
use device_api_core::policy::PolicyId;
use device_api_core::ports::{DeviceCache, Devices, StateLog, Synced, WatchStream};
use device_api_core::provider::{Caller, Creation, PolarityTable, ProviderCondition, Registration};
use device_api_core::selector::Selection;
use device_api_core::signal::{SignalKind, Target};
use device_api_core::verdict::{Clear, ClearOn, Judgement, Severity};
use device_api_core::watch::{EventType, Told, WatchFrom, WatchRequest};

/// Keeps what it is given, by key, as a disk would; says that it is durable when it is told to.
#[derive(Default)]
struct Disk {
    kept: Mutex<BTreeMap<String, Change>>,
    newest: Mutex<ResourceVersion>,
    waiting: Mutex<Vec<Synced>>,
    is_slow: Mutex<bool>,
    broken: Mutex<Option<NotDurable>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("disk")
    }
}

impl StateLog for Disk {
    fn append(&self, batch: Batch) {
        let mut newest = self.newest.lock().unwrap();
        assert!(batch.version >= *newest, "versions never go back");
        *newest = batch.version;
        let mut kept = self.kept.lock().unwrap();
        for change in batch.changes {
            match &change {
                Change::Device(device) => kept.insert(format!("d {}", device.info.uuid), change),
                Change::DeviceGone(uuid) => kept.remove(&format!("d {uuid}")),
                Change::Object(object) => kept.insert(format!("o {:?}", object.key), change),
                Change::ObjectGone(key) => kept.remove(&format!("o {key:?}")),
                Change::Memory(uuid, _) => kept.insert(format!("m {uuid}"), change),
                Change::Incident(memory) => {
                    kept.insert(format!("i {}", memory.incident.id.0), change)
                }
                Change::IncidentGone(id) => kept.remove(&format!("i {}", id.0)),
                Change::Claim(claim) => kept.insert(format!("c {}", claim.type_), change),
                Change::ClaimGone(type_) => kept.remove(&format!("c {type_}")),
                Change::Lease(lease) => kept.insert(format!("l {}", lease.provider), change),
                Change::LeaseGone(provider) => kept.remove(&format!("l {provider}")),
                Change::LogPosition(_) => kept.insert("p".to_owned(), change),
                Change::Numbers(_) => kept.insert("n".to_owned(), change),
            };
        }
    }

    fn synced(&self, done: Synced) {
        if let Some(why) = self.broken.lock().unwrap().clone() {
            done(Err(why));
        } else if *self.is_slow.lock().unwrap() {
            self.waiting.lock().unwrap().push(done);
        } else {
            done(Ok(()));
        }
    }

    fn writable(&self) -> Result<(), NotDurable> {
        self.broken.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl Disk {
    fn start(&self, base: u64, boot: &str) -> Start {
        let mut snapshot = Snapshot {
            version: *self.newest.lock().unwrap(),
            boot: BootId(boot.into()),
            ..Snapshot::default()
        };
        for change in self.kept.lock().unwrap().values().cloned() {
            match change {
                Change::Device(device) => snapshot.devices.push(device),
                Change::Object(object) => snapshot.objects.push(object),
                Change::Memory(uuid, memory) => snapshot.memories.push((uuid, memory)),
                Change::Incident(memory) => snapshot.incidents.push(memory),
                Change::Claim(claim) => snapshot.claims.push(claim),
                Change::Lease(lease) => snapshot.leases.push(lease),
                Change::LogPosition(position) => snapshot.log = Some(position),
                Change::Numbers(numbers) => snapshot.numbers = numbers,
                Change::DeviceGone(_)
                | Change::ObjectGone(_)
                | Change::IncidentGone(_)
                | Change::ClaimGone(_)
                | Change::LeaseGone(_) => unreachable!("not kept"),
            }
        }
        Start {
            base: ResourceVersion(base),
            snapshot: Some(snapshot),
        }
    }
}

struct Run {
    cache: Arc<Cache>,
    disk: Arc<Disk>,
    clock: Arc<ManualClock>,
}

fn first_run() -> Run {
    let (disk, clock) = (Arc::new(Disk::default()), Arc::new(ManualClock::default()));
    clock.advance(Duration::from_secs(1_800_000_000));
    let start = Start {
        base: ResourceVersion(100),
        snapshot: None,
    };
    run(start, disk, clock)
}

fn run(start: Start, disk: Arc<Disk>, clock: Arc<ManualClock>) -> Run {
    let cache = Cache::durable(
        Config::default(),
        start,
        disk.clone(),
        &BootId("this".into()),
        clock.clone(),
        Arc::new(Unobserved),
    );
    Run {
        cache: Arc::new(cache),
        disk,
        clock,
    }
}

impl Run {
    /// The run after a kill; `written_in` is the boot in which this one wrote.
    fn killed(self, base: u64, written_in: &str) -> Run {
        let start = self.disk.start(base, written_in);
        self.clock.advance(Duration::from_secs(60));
        run(start, self.disk, self.clock)
    }

    fn register(&self, n: u32) {
        self.cache.upsert_device(DeviceInfo::bare(uuid(n))).unwrap();
    }

    fn says(&self, n: u32, condition: Condition) {
        self.cache
            .change(&uuid(n), &mut |conditions: &mut Vec<Condition>| {
                condition::upsert(conditions, condition.clone());
            });
    }

    async fn gpu(&self, n: u32) -> Arc<Gpu> {
        self.cache.get(&key(n)).await.unwrap()
    }

    async fn version(&self) -> ResourceVersion {
        self.cache.list(&Selection::all()).await.version
    }

    async fn resume(&self, version: u64) -> Result<Vec<(EventType, u64)>, ApiError> {
        let request = WatchRequest {
            selection: Selection::all(),
            from: WatchFrom::After(ResourceVersion(version)),
            exact: false,
            bookmarks: false,
        };
        let mut watch = self.cache.watch(request).await?;
        self.cache.close();
        let Ok(Told::Changes(events)) = watch.next().await else {
            return Ok(Vec::new());
        };
        let told = events
            .iter()
            .map(|event| (event.type_, event.gpu.version.0));
        Ok(told.collect())
    }
}

fn uuid(n: u32) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

fn key(n: u32) -> ObjectKey {
    ObjectKey::new("", &format!("GPU-{n}"))
}

fn agent() -> Caller {
    Caller {
        provider: "agent".into(),
        identity: "uid:7".into(),
        connection: 1,
        lease: None,
    }
}

fn provider_says(type_: &str, status: Status) -> ProviderCondition {
    ProviderCondition {
        type_: type_.to_owned(),
        status,
        polarity: Some(Polarity::TrueIsProblem),
        severity: Severity::Fatal,
        reason: "Because".to_owned(),
        message: "it is".to_owned(),
        action: Action::ComponentReset,
        transition: None,
    }
}

fn policy_says(type_: &str, state: Judgement, clears: &[ClearOn]) -> Condition {
    let id = PolicyId {
        name: "policy".into(),
        version: "1.0.0".into(),
        digest: "0".repeat(64).into(),
    };
    Condition {
        type_: type_.into(),
        instance: None,
        state,
        polarity: Polarity::TrueIsProblem,
        severity: Severity::Fatal,
        reason: "Because".to_owned(),
        message: String::new(),
        action: Action::None,
        clears: clears.iter().map(|on| Clear::on(*on)).collect(),
        owner: Owner::Policy(id),
        transition: WallTime::default(),
        heartbeat: WallTime::default(),
        incident: None,
        cause: None,
        drill: false,
        counted: true,
        evidence: Vec::new(),
    }
}

fn state_of(gpu: &Gpu, type_: &str) -> Option<Judgement> {
    condition::find(&gpu.conditions, type_).map(|condition| condition.state)
}

#[tokio::test]
async fn c7_problems_are_back_and_what_was_healthy_is_unknown() {
    let before = first_run();
    for n in 0..3 {
        before.register(n);
    }
    before.says(0, policy_says("Fine", Judgement::Ok, &[]));
    before.says(1, policy_says("Fine", Judgement::Ok, &[]));
    before.says(
        1,
        policy_says("Bad", Judgement::Problem, &[ClearOn::GpuReset]),
    );
    let vote = |type_, status| provider_says(type_, status);
    for (n, type_, status) in [(2, "Good", Status::False), (2, "Worse", Status::True)] {
        before
            .cache
            .update_condition(&agent(), &key(n), vote(type_, status))
            .await
            .unwrap();
    }
    assert_eq!(before.gpu(0).await.derived.health, Health::Healthy);

    let after = before.killed(1_000, "this");
    let healths = [
        after.gpu(0).await.derived.health,
        after.gpu(1).await.derived.health,
        after.gpu(2).await.derived.health,
    ];
    assert_eq!(
        healths,
        [Health::Unknown, Health::Unhealthy, Health::Unhealthy]
    );
    assert_eq!(
        state_of(&*after.gpu(0).await, "Fine"),
        None,
        "until it is observed again"
    );
    assert_eq!(
        state_of(&*after.gpu(1).await, "Bad"),
        Some(Judgement::Problem)
    );
    let gpu = after.gpu(2).await;
    let good = condition::find(&gpu.conditions, "Good").unwrap();
    assert_eq!(
        (good.state, &*good.reason),
        (Judgement::Unknown, "Restarted")
    );
    assert_eq!(good.message, "Last said: Because: it is");
    assert_eq!(state_of(&gpu, "Worse"), Some(Judgement::Problem));

    // Until the provider says it again.
    let said = provider_says("Good", Status::False);
    after
        .cache
        .update_condition(&agent(), &key(2), said)
        .await
        .unwrap();
    assert_eq!(state_of(&*after.gpu(2).await, "Good"), Some(Judgement::Ok));
}

#[tokio::test]
async fn c7_conditions_of_a_deleted_gpu_survive_the_restart_too() {
    let before = first_run();
    before.register(0);
    before.says(0, policy_says("Bad", Judgement::Problem, &[]));
    before.cache.delete(&agent(), &key(0), None).await.unwrap();
    let after = before.killed(1_000, "this");
    after.register(0);
    assert!(after.cache.get(&key(0)).await.is_err(), "stays deleted");
    let creation = Creation {
        key: key(0),
        uuid: uuid(0),
        device: None,
    };
    after.cache.create(&agent(), creation, true).await.unwrap();
    assert_eq!(after.gpu(0).await.derived.health, Health::Unhealthy);
}

#[tokio::test]
async fn n7_where_nvml_saw_a_gpu_is_known_after_a_reboot_and_who_is_gone_is_not_asked() {
    let slot = "0000:1b:00.0".parse().unwrap();
    let before = first_run();
    for n in 0..4 {
        let info = DeviceInfo {
            pci: Some(slot).filter(|_| n != 2),
            ..DeviceInfo::bare(uuid(n))
        };
        before.cache.upsert_device(info).unwrap();
    }
    let gone = Condition::of_host(
        condition::GONE,
        Judgement::Unknown,
        "Replaced",
        WallTime::default(),
    );
    before.says(1, gone);
    before.cache.delete(&agent(), &key(3), None).await.unwrap();
    let after = before.killed(1_000, "another");
    let seen = after.cache.seen_before();
    let seen: Vec<_> = seen
        .iter()
        .map(|seen| (seen.info.uuid.clone(), seen.slot))
        .collect();
    assert_eq!(
        seen,
        [(uuid(0), slot)],
        "1 is gone, 2 was in no slot, 3 is shown to nobody"
    );
    assert_eq!(
        after.gpu(0).await.device.pci,
        None,
        "another may have the address"
    );
    let probing = |gpu: &Gpu| state_of(gpu, condition::PROBING);
    assert_eq!(probing(&*after.gpu(0).await), Some(Judgement::Unknown));
    let gone = after.gpu(1).await;
    assert_eq!(probing(&gone), None);
    assert_eq!(gone.derived.health, Health::Unknown);
}

#[tokio::test]
async fn c7_a_reboot_ends_what_a_reboot_ends_and_nothing_else() {
    async fn check(written_in: &str, clears: &[ClearOn], expected: Option<Judgement>) {
        let before = first_run();
        before.register(0);
        before.says(0, policy_says("Bad", Judgement::Problem, clears));
        let after = before.killed(1_000, written_in);
        assert_eq!(
            state_of(&*after.gpu(0).await, "Bad"),
            expected,
            "{clears:?}"
        );
    }
    let stands = Some(Judgement::Problem);
    check("this", &[ClearOn::NodeReboot], stands).await;
    check("another", &[ClearOn::NodeReboot], None).await;
    check("another", &[ClearOn::Operator, ClearOn::GpuReset], None).await;
    check("another", &[ClearOn::DriverRebind], None).await;
    check(
        "another",
        &[ClearOn::Replacement, ClearOn::Operator],
        stands,
    )
    .await;
    check("another", &[ClearOn::Quiet], stands).await;
    check("another", &[], stands).await;
}

#[tokio::test]
async fn c5_versions_go_on_above_all_that_anybody_saw() {
    let before = first_run();
    before.register(0);
    before.register(1);
    let seen = before.version().await;
    let after = before.killed(1_000, "this");
    assert!(seen.0 < 1_000);
    let version = after.version().await;
    assert_eq!(version.0, 1_003, "one for the start, and one for each GPU");
    assert_eq!(after.gpu(0).await.version.0, 1_002);
    assert_eq!(after.gpu(1).await.version.0, 1_003);

    let empty = first_run();
    assert_eq!(empty.version().await.0, 101);
    assert_eq!(empty.killed(1_000, "this").version().await.0, 1_001);
}

#[tokio::test]
async fn w1_a_watch_resumes_over_a_restart_from_the_last_durable_version_alone() {
    let runs = || {
        let before = first_run();
        before.register(0);
        before.register(1);
        before.killed(1_000, "this")
    };
    // 101 was the start, 102 and 103 the GPUs.
    let both = vec![(EventType::Modified, 1_002), (EventType::Modified, 1_003)];
    assert_eq!(runs().resume(103).await, Ok(both.clone()));
    assert_eq!(runs().resume(1_001).await, Ok(both.clone()));
    assert_eq!(runs().resume(1_002).await, Ok(both[1..].to_vec()));
    assert_eq!(runs().resume(1_003).await, Ok(Vec::new()));
    for lost in [1, 102, 104, 999, 1_000, 1_004, u64::MAX] {
        let refused = runs().resume(lost).await;
        assert!(
            matches!(refused, Err(ApiError::OutOfRange { .. })),
            "{lost}: {refused:?}"
        );
    }
    // Get and List never fail, whatever the client saw: they have no version to be asked for.
}

#[tokio::test]
async fn c6_a_client_is_answered_when_its_write_is_durable_and_not_before() {
    let run = first_run();
    run.register(0);
    *run.disk.is_slow.lock().unwrap() = true;
    let (cache, disk) = (run.cache.clone(), run.disk.clone());
    let writing = tokio::spawn(async move {
        let said = provider_says("Bad", Status::True);
        cache.update_condition(&agent(), &key(0), said).await
    });
    // Bad news is published at once.
    loop {
        if run.gpu(0).await.derived.health == Health::Unhealthy {
            break;
        }
        tokio::task::yield_now().await;
    }
    while disk.waiting.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!writing.is_finished());
    for done in disk.waiting.lock().unwrap().drain(..) {
        done(Ok(()));
    }
    assert!(writing.await.unwrap().is_ok());
}

#[tokio::test]
async fn c6_where_nothing_becomes_durable_clients_cannot_write_and_reads_and_decisions_go_on() {
    let run = first_run();
    run.register(0);
    let before = run.version().await;
    *run.disk.broken.lock().unwrap() = Some(NotDurable("the disk is full".to_owned()));
    let said = provider_says("Bad", Status::True);
    let refused = run.cache.update_condition(&agent(), &key(0), said).await;
    let Err(ApiError::Unavailable { why }) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains("the disk is full") && why.contains("nothing was written"),
        "{why}"
    );
    assert_eq!(run.version().await, before);
    run.says(0, policy_says("Bad", Judgement::Problem, &[]));
    assert_eq!(run.gpu(0).await.derived.health, Health::Unhealthy);
}

#[tokio::test]
async fn c5_a_write_that_changes_nothing_costs_the_disk_nothing() {
    let run = first_run();
    run.register(0);
    let fine = policy_says("Fine", Judgement::Ok, &[]);
    run.says(0, fine.clone());
    run.disk.kept.lock().unwrap().clear();
    run.says(0, fine);
    run.register(0);
    assert!(run.disk.kept.lock().unwrap().is_empty());
}

#[tokio::test]
async fn c8_a_lease_goes_on_in_the_same_boot_and_asks_for_what_is_doubted() {
    let register = || Registration {
        provider: "agent".into(),
        identity: "uid:7".into(),
        duration: Duration::from_secs(10),
    };
    let before = first_run();
    before.register(0);
    let lease = before.cache.register_provider(register()).await.unwrap();
    assert!(!lease.rewrite);
    let said = || provider_says("Fine", Status::False);
    before
        .cache
        .update_condition(&agent(), &key(0), said())
        .await
        .unwrap();
    let after = before.killed(1_000, "this");
    assert!(after.cache.expire_leases().is_empty(), "nobody could renew");
    let renewed = after.cache.heartbeat(&lease.id).await.unwrap();
    assert!(renewed.rewrite);
    after
        .cache
        .update_condition(&agent(), &key(0), said())
        .await
        .unwrap();
    assert!(!after.cache.heartbeat(&lease.id).await.unwrap().rewrite);
    after.clock.advance(Duration::from_secs(10));
    assert_eq!(after.cache.expire_leases(), ["agent".into()]);

    let lease = after.cache.register_provider(register()).await.unwrap();
    // Another boot's time says nothing: the lease is whole again, and runs out if nobody renews it.
    let rebooted = after.killed(2_000, "another");
    assert!(rebooted.cache.heartbeat(&lease.id).await.is_ok());
    rebooted.clock.advance(Duration::from_secs(10));
    assert_eq!(rebooted.cache.expire_leases(), ["agent".into()]);
    let claimed = rebooted.cache.providers();
    assert_eq!(claimed.len(), 1);
    assert_eq!((&*claimed[0].types[0], claimed[0].lease), ("Fine", None));
    let gpu = rebooted.gpu(0).await;
    let fine = condition::find(&gpu.conditions, "Fine").unwrap();
    assert_eq!(
        (fine.state, &*fine.reason),
        (Judgement::Unknown, "ProviderLost")
    );
}

#[tokio::test]
async fn p1_types_stay_their_owners_over_a_restart_until_the_provider_is_forgotten() {
    let before = first_run();
    before.register(0);
    before
        .cache
        .update_condition(&agent(), &key(0), provider_says("Mine", Status::True))
        .await
        .unwrap();
    let after = before.killed(1_000, "this");
    let other = Caller {
        provider: "other".into(),
        ..agent()
    };
    let said = || provider_says("Mine", Status::False);
    let refused = after.cache.update_condition(&other, &key(0), said()).await;
    assert!(matches!(refused, Err(ApiError::Forbidden { .. })));
    let released = after.cache.forget_provider("agent").await.unwrap();
    assert_eq!(released, ["Mine".into()]);
    assert_eq!(state_of(&*after.gpu(0).await, "Mine"), None);
    after
        .cache
        .update_condition(&other, &key(0), said())
        .await
        .unwrap();
    assert!(after.cache.forget_provider("agent").await.is_err());
}

/// Of the first GPU, with a condition that stands of it.
fn incident(id: u64, last_seen: u64) -> IncidentMemory {
    IncidentMemory {
        incident: Incident {
            id: IncidentId(id),
            device: uuid(0),
            kind: SignalKind::Xid,
            code: Some(79),
            root: None,
            instance: None,
            first_seen: WallTime::from_ms(1),
            last_seen: WallTime::from_ms(2),
            count: 1,
            drill: false,
            accounts: Vec::new(),
            verdicts: Vec::new(),
            state: IncidentState::Open,
        },
        last: SignalSeq(4),
        last_boot: BootTime { ns: last_seen },
        raised: vec!["Bad".into()],
    }
}

#[tokio::test]
async fn c8_the_first_write_after_a_reboot_carries_all_that_runs_on_boot_time() {
    let before = first_run();
    before.register(0);
    let registration = Registration {
        provider: "agent".into(),
        identity: "uid:7".into(),
        duration: Duration::from_secs(10),
    };
    before.cache.register_provider(registration).await.unwrap();
    let quiet = |due| DeviceMemory {
        quiet: vec![("Bad".into(), BootTime { ns: due })],
        ..DeviceMemory::default()
    };
    let key = format!("m {}", uuid(0));
    before
        .disk
        .kept
        .lock()
        .unwrap()
        .insert(key.clone(), Change::Memory(uuid(0), quiet(900)));
    let version = before.disk.newest.lock().unwrap().0;
    before.cache.keep(vec![Change::Incident(incident(7, 900))]);
    before.cache.keep(vec![Change::Incident(incident(8, 900))]);
    before.cache.keep(vec![Change::IncidentGone(IncidentId(8))]);
    let newest = before.disk.newest.lock().unwrap().0;
    assert_eq!(newest, version, "no reader sees it");

    let mut start = before.disk.start(1_000, "another");
    for memory in &mut start.snapshot.as_mut().unwrap().incidents {
        *memory = memory
            .clone()
            .after_reboot(WallTime::from_ms(3), |_, _| false);
    }
    for (_, memory) in &mut start.snapshot.as_mut().unwrap().memories {
        *memory = std::mem::take(memory).after_reboot(BootTime { ns: 600 }, BootTime { ns: 50 });
    }
    let after = run(start, before.disk, before.clock);
    let kept = after.disk.kept.lock().unwrap();
    assert_eq!(kept.get(&key), Some(&Change::Memory(uuid(0), quiet(350))));
    let mut over = incident(7, 0);
    over.raised.clear();
    over.incident.state = IncidentState::Closed {
        at: WallTime::from_ms(3),
        why: "node-reboot".to_owned(),
    };
    assert_eq!(kept.get("i 7"), Some(&Change::Incident(over)));
    assert_eq!(kept.get("i 8"), None);
    let Some(Change::Lease(lease)) = kept.get("l agent") else {
        panic!("the lease goes on")
    };
    assert_eq!(lease.ends, after.clock.boot().after(lease.duration));
}

#[tokio::test]
async fn c7_no_gpu_comes_back_healthy_whatever_mild_problem_it_kept() {
    async fn check(severity: Severity, written_in: &str, before_kill: Health) {
        let before = first_run();
        before.register(0);
        before.says(0, policy_says("Fine", Judgement::Ok, &[]));
        let mild = Condition {
            severity,
            ..policy_says("Mild", Judgement::Problem, &[ClearOn::Quiet])
        };
        before.says(0, mild);
        assert_eq!(before.gpu(0).await.derived.health, before_kill);
        let after = before.killed(1_000, written_in);
        assert_eq!(
            after.gpu(0).await.derived.health,
            Health::Unknown,
            "{severity:?}"
        );
        // Until somebody speaks of it.
        let said = provider_says("FineToo", Status::False);
        after
            .cache
            .update_condition(&agent(), &key(0), said)
            .await
            .unwrap();
        assert_eq!(after.gpu(0).await.derived.health, before_kill);
    }
    for written_in in ["this", "another"] {
        check(Severity::Info, written_in, Health::Healthy).await;
        check(Severity::Warning, written_in, Health::Degraded).await;
    }
}

#[tokio::test]
async fn c7_after_a_reboot_an_address_is_nobodys_until_nvml_says_whose() {
    let pci = "0000:3b:00.0".parse().unwrap();
    let at = |n| DeviceInfo {
        pci: Some(pci),
        ..DeviceInfo::bare(uuid(n))
    };
    let whose = |run: &Run| run.cache.resolve(&Target::Pci(pci));
    for (written_in, expected) in [("this", Some(uuid(0))), ("another", None)] {
        let before = first_run();
        before.cache.upsert_device(at(0)).unwrap();
        let after = before.killed(1_000, written_in);
        assert_eq!(whose(&after), expected);
        after.cache.upsert_device(at(1)).unwrap();
        assert_eq!(whose(&after), Some(uuid(1)));
    }
}

#[tokio::test]
async fn p1_what_stands_of_a_policy_that_is_not_loaded_is_still_that_ones() {
    let before = first_run();
    before.register(0);
    before.register(1);
    before.says(0, policy_says("Fabric", Judgement::Problem, &[]));
    let after = before.killed(1_000, "this");
    for n in [0, 1] {
        let said = provider_says("Fabric", Status::False);
        let refused = after.cache.update_condition(&agent(), &key(n), said).await;
        assert!(
            matches!(refused, Err(ApiError::Forbidden { .. })),
            "{n}: {refused:?}"
        );
    }
    assert_eq!(
        state_of(&*after.gpu(0).await, "Fabric"),
        Some(Judgement::Problem)
    );
}

#[tokio::test]
async fn p3_a_sites_word_on_polarity_counts_after_a_restart_too() {
    let upstream = |status| ProviderCondition {
        polarity: None,
        ..provider_says("GpuFanWatch", status)
    };
    let before = first_run();
    before.register(0);
    before
        .cache
        .update_condition(&agent(), &key(0), upstream(Status::True))
        .await
        .unwrap();
    assert_eq!(
        state_of(&*before.gpu(0).await, "GpuFanWatch"),
        Some(Judgement::Problem)
    );
    let start = before.disk.start(1_000, "this");
    let row = ("GpuFan*".to_owned(), Polarity::TrueIsHealthy);
    let config = Config {
        polarity: PolarityTable::default().with(vec![row]),
        ..Config::default()
    };
    let after = Cache::durable(
        config,
        start,
        before.disk.clone(),
        &BootId("this".into()),
        before.clock.clone(),
        Arc::new(Unobserved),
    );
    let gpu = after
        .update_condition(&agent(), &key(0), upstream(Status::True))
        .await
        .unwrap();
    assert_eq!(state_of(&gpu, "GpuFanWatch"), Some(Judgement::Ok));
}

#[tokio::test]
async fn p1_a_providers_name_is_its_owners_when_no_lease_runs_and_after_a_restart() {
    let wants = |identity: &str| Registration {
        provider: "agent".into(),
        identity: identity.into(),
        duration: Duration::from_secs(10),
    };
    let before = first_run();
    before.register(0);
    let lease = before
        .cache
        .register_provider(wants("uid:7"))
        .await
        .unwrap();
    let caller = Caller {
        lease: Some(lease.id),
        ..agent()
    };
    let said = provider_says("Bad", Status::True);
    before
        .cache
        .update_condition(&caller, &key(0), said)
        .await
        .unwrap();
    before.clock.advance(Duration::from_secs(10));
    assert_eq!(before.cache.expire_leases(), ["agent".into()]);
    let after = before.killed(1_000, "this");
    assert_eq!(&*after.cache.providers()[0].identity, "uid:7");
    let refused = after.cache.register_provider(wants("uid:8")).await;
    let Err(ApiError::Forbidden { why }) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("uid:7") && why.contains("Bad"), "{why}");
    assert!(after.cache.register_provider(wants("uid:7")).await.is_ok());
    after.cache.forget_provider("agent").await.unwrap();
    assert!(after.cache.register_provider(wants("uid:8")).await.is_ok());
}
