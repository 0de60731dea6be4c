//! What the tests share.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use device_api_core::clock::{BootId, BootTime, ManualClock, WallTime};
use device_api_core::durable::{
    Batch, Change, IncidentMemory, NotDurable, ObjectRecord, Snapshot, Start,
};
use device_api_core::ids::{DeviceUuid, IncidentId, ObjectKey, ResourceVersion, SignalSeq};
use device_api_core::incident::{Account, Incident, IncidentState, IncidentVerdict};
use device_api_core::policy::PolicyId;
use device_api_core::ports::StateLog;
use device_api_core::signal::{SignalKind, Source};
use device_api_core::verdict::{Judgement, Severity};
use device_api_store::{OpenError, Settings, Store, StoreObserver};

/// A test that waits longer than this for anything has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Counts what it is told.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) commits: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) size: AtomicU64,
    pub(crate) set_aside: AtomicU64,
}

impl StoreObserver for Counts {
    fn committed(&self, _elapsed: Duration, batches: u64, _bytes: u64) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.batches.fetch_add(batches, Ordering::SeqCst);
    }
    fn failed(&self, _why: &NotDurable) {
        self.failures.fetch_add(1, Ordering::SeqCst);
    }
    fn recovered(&self) {
        self.recoveries.fetch_add(1, Ordering::SeqCst);
    }
    fn size(&self, bytes: u64) {
        self.size.store(bytes, Ordering::SeqCst);
    }
    fn set_aside(&self) {
        self.set_aside.fetch_add(1, Ordering::SeqCst);
    }
}

/// An open store with what stands around it.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) start: Start,
    pub(crate) counts: Arc<Counts>,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) fn boot() -> BootId {
    BootId("boot-1".into())
}

pub(crate) fn try_open(
    settings: Settings,
    dir: &Path,
    wall: Duration,
) -> Result<Fixture, OpenError> {
    let clock = Arc::new(ManualClock::default());
    clock.advance(wall);
    let counts = Arc::new(Counts::default());
    let opened = || Store::open_with(settings.clone(), dir, boot(), clock.clone(), counts.clone());
    // A test beside this one may be about to start a child, which has our lock until it is another program.
    let (_keep, never) = mpsc::channel::<()>();
    let mut tries = 1_000;
    let (store, start) = loop {
        match opened() {
            Err(OpenError::Locked(_)) if tries > 0 => {
                tries -= 1;
                let _ = never.recv_timeout(Duration::from_millis(2));
            }
            opened => break opened?,
        }
    };
    Ok(Fixture {
        store,
        start,
        counts,
        clock,
    })
}

pub(crate) fn open(dir: &Path) -> Fixture {
    open_with(Settings::default(), dir)
}

pub(crate) fn open_with(settings: Settings, dir: &Path) -> Fixture {
    try_open(settings, dir, Duration::ZERO).expect("opened")
}

/// Waits until what was appended is durable, or is not to be.
pub(crate) fn synced(store: &Store) -> Result<(), NotDurable> {
    let (tell, told) = mpsc::channel();
    store.synced(Box::new(move |result| tell.send(result).expect("awaited")));
    told.recv_timeout(PATIENCE).expect("called back in time")
}

/// Waits for a state that threads bring about.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let (_keep, never) = mpsc::channel::<()>();
    let step = Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        if holds() {
            return;
        }
        let _ = never.recv_timeout(step);
    }
    panic!("waited in vain: {what}");
}

/// An object whose content is told by its version, so that a wrong one is seen.
pub(crate) fn object(name: &str, version: u64) -> Change {
    sized_object(name, version, 0)
}

/// The same, this many bytes longer.
pub(crate) fn sized_object(name: &str, version: u64, bytes: usize) -> Change {
    Change::Object(ObjectRecord {
        key: ObjectKey::new("", name),
        uid: format!("{version}{}", "-".repeat(bytes)).into(),
        generation: 1,
        created: WallTime::default(),
        version: ResourceVersion(version),
        uuid: DeviceUuid::new(name),
        ready_since: WallTime::default(),
    })
}

pub(crate) fn batch(version: u64, changes: Vec<Change>) -> Batch {
    Batch {
        version: ResourceVersion(version),
        at: BootTime { ns: version },
        changes,
    }
}

/// Version of an object in a snapshot; its content must be that version's.
pub(crate) fn version_of(snapshot: &Snapshot, name: &str) -> Option<u64> {
    let key = ObjectKey::new("", name);
    let record = snapshot.objects.iter().find(|object| object.key == key)?;
    let written = record.uid.trim_end_matches('-');
    assert_eq!(written, record.version.to_string(), "content of {name}");
    Some(record.version.0)
}

/// Names of the files in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        // The ceiling's own file is no part of the store.
        .filter(|name| !name.starts_with("versions"))
        .collect();
    names.sort();
    names
}

/// A small generator, so that a failure repeats itself.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// An incident that a condition of stands, with all that one may have.
pub(crate) fn incident(id: u64) -> Change {
    let (first_seen, last_seen) = (WallTime::from_ms(5), WallTime::from_ms(9));
    let account = |source: Source, evidence: &str| Account {
        source,
        first_seen,
        last_seen,
        count: 2,
        evidence: evidence.to_owned(),
    };
    let verdict = IncidentVerdict {
        policy: PolicyId {
            name: "xid-policy".into(),
            version: "0.1.0".into(),
            digest: "0".repeat(64).into(),
        },
        condition: "XidCriticalError".to_owned(),
        state: Judgement::Problem,
        severity: Severity::Fatal,
        reason: "FallenOffTheBus".to_owned(),
    };
    Change::Incident(IncidentMemory {
        incident: Incident {
            id: IncidentId(id),
            device: DeviceUuid::new("GPU-0"),
            kind: SignalKind::Xid,
            code: Some(79),
            root: Some(IncidentId(id - 1)),
            instance: None,
            first_seen,
            last_seen,
            count: 4,
            drill: true,
            accounts: vec![
                account(Source::Nvml, ""),
                account(Source::Kmsg, "NVRM: Xid"),
            ],
            verdicts: vec![verdict],
            state: IncidentState::Open,
        },
        last: SignalSeq(40),
        last_boot: BootTime { ns: 9 },
        raised: vec!["XidCriticalError".into()],
    })
}
