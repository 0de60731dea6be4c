//! What was acknowledged is found again, as it was.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::{Condition, Owner, Polarity};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{
    Change, Claim, DeviceMemory, DeviceRecord, LeaseRecord, LogPosition, Numbers, PolicyMemory,
    Start,
};
use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, SignalSeq};
use device_api_core::ports::StateLog;
use device_api_core::verdict::{Judgement, Severity};
use device_api_store::{OpenError, Settings, Status};

use crate::common::{
    batch, boot, incident, names, object, open, sized_object, synced, try_open, version_of,
};

fn device(uuid: &str) -> Change {
    let condition = Condition {
        type_: "XidFault".into(),
        instance: None,
        state: Judgement::Problem,
        polarity: Polarity::TrueIsProblem,
        severity: Severity::Fatal,
        reason: "Xid79".to_owned(),
        message: "fallen off the bus".to_owned(),
        action: device_api_core::action::Action::RestartBm,
        clears: Vec::new(),
        owner: Owner::Host,
        transition: WallTime::from_ms(1),
        heartbeat: WallTime::from_ms(2),
        incident: None,
        cause: None,
        drill: false,
        counted: true,
        evidence: Vec::new(),
    };
    Change::Device(DeviceRecord {
        info: Arc::new(DeviceInfo::bare(DeviceUuid::new(uuid))),
        conditions: [condition].into(),
        is_deleted: false,
        last_slot: None,
    })
}

fn memory(uuid: &str) -> Change {
    let policy = PolicyMemory {
        policy: "xid-policy".into(),
        schema: 1,
        state: Arc::new([("seen".to_owned(), vec![0, 255])].into()),
        wakes: Vec::new(),
        failed: Vec::new(),
        kept_until: None,
    };
    let memory = DeviceMemory {
        policies: vec![policy.into()],
        ..DeviceMemory::default()
    };
    Change::Memory(DeviceUuid::new(uuid), memory)
}

#[test]
fn n5_numbers_are_reserved_by_whoever_opens_the_store_and_none_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let numbers = |at| Numbers {
        signal: SignalSeq(at),
        incident: IncidentId(at),
    };
    let reserved = |start: &Start| start.snapshot.as_ref().expect("a snapshot").numbers;
    let first = open(dir.path());
    first.store.append(batch(1, vec![device("GPU-1")]));
    synced(&first.store).expect("durable");
    drop(first);
    // It told nothing of what it used: it may have been all that was reserved.
    let next = open(dir.path());
    assert_eq!(reserved(&next.start), numbers(0).reserving());
    drop(next);
    // Nor did this one, which wrote nothing at all.
    let next = open(dir.path());
    let twice = numbers(0).reserving().reserving();
    assert_eq!(reserved(&next.start), twice);
    let told = Change::Numbers(numbers(1 << 40));
    next.store.append(batch(2, vec![told]));
    drop(next);
    let next = open(dir.path());
    assert_eq!(reserved(&next.start), numbers(1 << 40));
}

#[test]
fn c6_all_kinds_of_things_are_found_again_as_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let claim = Claim {
        type_: "NVMLReady".into(),
        owner: Owner::Provider("agent".into()),
        identity: "uid:0".into(),
        polarity: Some(Polarity::TrueIsHealthy),
    };
    let lease = LeaseRecord {
        provider: "agent".into(),
        identity: "uid:0".into(),
        id: "lease".into(),
        duration: Duration::from_secs(30),
        ends: BootTime { ns: 9 },
    };
    let log = LogPosition::Record {
        boot: boot(),
        sequence: 12,
    };
    {
        let fixture = open(dir.path());
        assert_eq!(fixture.start.snapshot, None);
        let version = fixture.start.base.0 + 1;
        let changes = vec![
            device("GPU-0"),
            memory("GPU-0"),
            incident(7),
            incident(8),
            object("gpu-0", version),
            Change::Claim(claim.clone()),
            Change::Lease(lease.clone()),
            Change::LogPosition(log.clone()),
        ];
        fixture.store.append(batch(version, changes));
        assert_eq!(synced(&fixture.store), Ok(()));
    }
    let start = open(dir.path()).start;
    let snapshot = start.snapshot.expect("there was a run");
    assert!(start.base > snapshot.version);
    assert_eq!(
        (snapshot.boot.clone(), snapshot.at.ns),
        (boot(), snapshot.version.0)
    );
    assert_eq!(Change::Device(snapshot.devices[0].clone()), device("GPU-0"));
    let (uuid, kept) = snapshot.memories[0].clone();
    assert_eq!(Change::Memory(uuid, kept), memory("GPU-0"));
    let incidents = snapshot.incidents.iter().cloned().map(Change::Incident);
    assert_eq!(incidents.collect::<Vec<_>>(), [incident(7), incident(8)]);
    assert_eq!(version_of(&snapshot, "gpu-0"), Some(snapshot.version.0));
    assert_eq!(snapshot.claims, [claim]);
    assert_eq!(snapshot.leases, [lease]);
    assert_eq!(snapshot.log, Some(log));
}

#[test]
fn what_is_gone_stays_gone_and_takes_a_policys_memory_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    let changes = vec![
        device("GPU-0"),
        memory("GPU-0"),
        incident(1),
        incident(2),
        object("a", 1),
        object("b", 1),
    ];
    fixture.store.append(batch(1, changes));
    assert_eq!(synced(&fixture.store), Ok(()));
    let gone = vec![
        Change::DeviceGone(DeviceUuid::new("GPU-0")),
        Change::IncidentGone(IncidentId(1)),
        Change::ObjectGone(ObjectKey::new("", "a")),
    ];
    fixture.store.append(batch(2, gone));
    drop(fixture);
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    assert!(snapshot.devices.is_empty() && snapshot.memories.is_empty());
    let incidents = snapshot.incidents.iter().cloned().map(Change::Incident);
    assert_eq!(incidents.collect::<Vec<_>>(), [incident(2)]);
    assert_eq!(version_of(&snapshot, "a"), None);
    assert_eq!(version_of(&snapshot, "b"), Some(1));
}

#[test]
fn stopping_writes_what_is_pending() {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    fixture.store.append(batch(7, vec![object("a", 7)]));
    fixture.store.stop();
    assert!(synced(&fixture.store).is_err(), "nobody writes any more");
    assert!(fixture.store.writable().is_err());
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&snapshot, "a"), Some(7));
}

#[test]
fn a_missing_directory_is_made_for_us_and_our_group() {
    let above = tempfile::tempdir().expect("a directory");
    let dir = above.path().join("var/lib/state");
    let fixture = open(&dir);
    assert_eq!(fixture.store.status(), Status::Ok);
    let mode = std::fs::metadata(&dir).expect("made").permissions().mode();
    assert_eq!(mode & 0o027, 0, "{mode:o}");
    assert_eq!(names(&dir), ["store.redb"]);
}

#[test]
fn a_second_daemon_and_a_path_that_is_no_directory_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = open(dir.path());
    let refused = |path: &std::path::Path| {
        try_open(Settings::default(), path, Duration::ZERO)
            .map(|_| ())
            .expect_err("refused")
    };
    assert!(matches!(refused(dir.path()), OpenError::Locked(_)));
    let file = dir.path().join("store.redb");
    assert!(matches!(refused(&file), OpenError::NotADirectory(_)));
    assert!(matches!(
        refused(&file.join("below")),
        OpenError::NotADirectory(_)
    ));
    drop(first);
    open(dir.path());
}

#[test]
fn a_file_that_was_never_finished_is_no_store() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("store.redb.new"), "half").expect("written");
    let fixture = open(dir.path());
    assert_eq!(fixture.store.status(), Status::Ok);
    assert_eq!(names(dir.path()), ["store.redb"]);
}

#[test]
fn a_file_much_larger_than_its_content_is_compacted_when_opened() {
    let (dir, killed) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let fixture = open(dir.path());
    let name = |number: u64| format!("gpu-{number}");
    let many = (0..100).map(|n| sized_object(&name(n), 1, 100_000));
    fixture.store.append(batch(1, many.collect()));
    assert_eq!(synced(&fixture.store), Ok(()));
    let gone = (1..100).map(|n| Change::ObjectGone(ObjectKey::new("", &name(n))));
    fixture.store.append(batch(2, gone.collect()));
    assert_eq!(synced(&fixture.store), Ok(()));
    // A stop gives space back by itself; a kill does not.
    let path = killed.path().join("store.redb");
    let before = std::fs::copy(dir.path().join("store.redb"), path).expect("copied");
    assert!(before > 8 << 20, "{before}");
    let fixture = open(killed.path());
    let after = fixture.counts.size.load(Ordering::SeqCst);
    assert!(after < before / 4, "{before} to {after}");
    drop(fixture);
    let snapshot = open(killed.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&snapshot, "gpu-0"), Some(1));
    assert_eq!(snapshot.objects.len(), 1);
}
