//! One record that can't be read, or can't be written, costs itself alone.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use device_api_core::clock::BootTime;
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{
    Change, DeviceMemory, DeviceRecord, LogPosition, NotDurable, PolicyMemory,
};
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::ports::StateLog;
use device_api_store::{Settings, Status};
use redb::{ReadableDatabase, TableDefinition};

use crate::common::{
    Fixture, batch, incident, names, object, open, open_with, sized_object, synced, until,
    version_of,
};
use crate::faulty::{Faulty, Mood};

const FILE: &str = "store.redb";
/// Bound on a record, in these tests.
const RECORD: usize = 10_000;

fn definition(table: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(table)
}

/// Writes a row as no daemon would.
fn tamper(dir: &Path, table: &str, key: &str, value: &[u8]) {
    let database = redb::Database::open(dir.join(FILE)).expect("closed well");
    let transaction = database.begin_write().expect("begun");
    let mut open = transaction.open_table(definition(table)).expect("opened");
    open.insert(key, value).expect("put");
    drop(open);
    transaction.commit().expect("committed");
}

fn row(dir: &Path, table: &str, key: &str) -> Option<Vec<u8>> {
    let database = redb::Database::open(dir.join(FILE)).expect("closed well");
    let reader = database.begin_read().expect("begun");
    let open = reader.open_table(definition(table)).expect("opened");
    let value = open.get(key).expect("read");
    value.map(|value| value.value().to_owned())
}

fn device(uuid: &str, product: &str) -> Change {
    Change::Device(DeviceRecord {
        info: std::sync::Arc::new(DeviceInfo {
            product: product.to_owned(),
            ..DeviceInfo::bare(DeviceUuid::new(uuid))
        }),
        conditions: [].into(),
        is_deleted: false,
        last_slot: None,
    })
}

/// What a policy remembers, with so many bytes of state.
fn memory(uuid: &str, bytes: usize) -> Change {
    let policy = PolicyMemory {
        policy: "xid-policy".into(),
        schema: 1,
        state: std::sync::Arc::new([("seen".to_owned(), vec![7; bytes])].into()),
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

fn position(offset: u64) -> LogPosition {
    LogPosition::File { id: (1, 1), offset }
}

/// A directory in which an earlier run wrote two devices, what is remembered of them, and a position.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    let changes = vec![
        device("GPU-1", "one"),
        device("GPU-2", "two"),
        memory("GPU-1", 1),
        memory("GPU-2", 2),
        incident(7),
        incident(8),
        object("GPU-1", 7),
        object("GPU-2", 7),
        Change::LogPosition(position(70)),
    ];
    fixture.store.append(batch(7, changes));
    drop(fixture);
    dir
}

fn status(fixture: &Fixture) -> String {
    let status = fixture.store.status();
    assert!(matches!(status, Status::Incomplete { .. }), "{status:?}");
    status.to_string()
}

#[test]
fn c7_a_record_that_does_not_decode_costs_itself_alone_and_its_bytes_are_kept() {
    let cases: [(&str, &str, &[u8]); 6] = [
        ("objects", "7:default/GPU-2", b"{\"uid\": 7}"),
        ("devices", "GPU-2", b"\xff\xfe"),
        ("memories", "GPU-2", br#"{"policies":3}"#),
        (
            "incidents",
            "7",
            br#"{"incident":{"kind":"of-a-later-day"}}"#,
        ),
        ("claims", "x", br#"{"owner":"nobody-we-know"}"#),
        ("meta", "log", br#"{"tape":1}"#),
    ];
    for (table, key, value) in cases {
        let dir = used();
        tamper(dir.path(), table, key, value);
        let fixture = open(dir.path());
        let said = status(&fixture);
        assert!(said.contains(&format!("{table}/{key}")), "{said}");
        assert_eq!(fixture.store.writable(), Ok(()), "all else is written");
        let snapshot = fixture.start.snapshot.clone().expect("the rest is back");
        assert_eq!(names(dir.path()), [FILE], "{table}: not set aside");
        assert_eq!(fixture.counts.set_aside.load(Ordering::SeqCst), 0);
        assert_eq!(version_of(&snapshot, "GPU-1"), Some(7));
        let of_object = version_of(&snapshot, "GPU-2");
        assert_eq!(of_object, (table != "objects").then_some(7));
        let mut memories = vec![memory("GPU-1", 1), memory("GPU-2", 2)];
        memories.truncate(if table == "memories" { 1 } else { 2 });
        let found = snapshot.memories.iter().cloned();
        let found: Vec<_> = found.map(|(uuid, of)| Change::Memory(uuid, of)).collect();
        assert_eq!(found, memories);
        let incidents = snapshot.incidents.iter().cloned().map(Change::Incident);
        let all = if table == "incidents" { 8..9 } else { 7..9 };
        let all: Vec<_> = all.map(incident).collect();
        assert_eq!(incidents.collect::<Vec<_>>(), all);
        // Of the device nothing is known but that it is there: it is Unknown.
        let two = if table == "devices" { "" } else { "two" };
        let devices: Vec<_> = snapshot
            .devices
            .iter()
            .cloned()
            .map(Change::Device)
            .collect();
        assert_eq!(devices, [device("GPU-1", "one"), device("GPU-2", two)]);
        // What the log said of it may have been in what is lost.
        let kept = matches!(table, "objects" | "claims" | "incidents").then(|| position(70));
        assert_eq!(snapshot.log, kept, "{table}");
        drop(fixture);
        let kept = row(dir.path(), "unread", &format!("{table}/{key}"));
        assert_eq!(kept.as_deref(), Some(value), "{table}");
        // The next run finds what this one began with.
        let next = open(dir.path());
        assert_eq!(next.store.status(), Status::Ok);
        let again = next.start.snapshot.clone().expect("kept");
        assert_eq!((again.devices, again.log), (snapshot.devices, snapshot.log));
    }
}

#[test]
fn c7_what_cannot_be_read_stays_where_it_is_on_a_disk_that_only_reads() {
    let dir = used();
    tamper(dir.path(), "devices", "GPU-2", b"?");
    let before = fs::read(dir.path().join(FILE)).expect("read");
    let disk = Faulty::default();
    disk.set(Mood::ReadOnly);
    let fixture = open_with(disk.settings(), dir.path());
    let snapshot = fixture.start.snapshot.as_ref().expect("the rest is back");
    assert_eq!(snapshot.devices.len(), 2);
    assert!(before == fs::read(dir.path().join(FILE)).expect("read"));
    // Written once it can be, and not over what this run says by then.
    fixture
        .store
        .append(batch(8, vec![device("GPU-2", "found again")]));
    disk.set(Mood::Well);
    until("written", || fixture.store.writable().is_ok());
    drop(fixture);
    let kept = row(dir.path(), "unread", "devices/GPU-2");
    assert_eq!(kept.as_deref(), Some(&b"?"[..]));
    let found = open(dir.path()).start.snapshot.expect("kept").devices;
    assert_eq!(
        Change::Device(found[1].clone()),
        device("GPU-2", "found again")
    );
}

fn bounded(disk: &Faulty) -> Settings {
    Settings {
        record_bytes_max: RECORD,
        ..disk.settings()
    }
}

#[test]
fn c6_a_record_that_cannot_be_encoded_is_left_out_and_all_else_is_durable() {
    let (dir, disk) = (used(), Faulty::default());
    let fixture = open_with(bounded(&disk), dir.path());
    let changes = vec![object("a", 8), sized_object("GPU-2", 8, RECORD)];
    fixture.store.append(batch(8, changes));
    let NotDurable(why) = synced(&fixture.store).expect_err("nobody knows whose it was");
    assert!(why.contains("objects/7:default/GPU-2"), "{why}");
    let NotDurable(late) = synced(&fixture.store).expect_err("nor of one who comes late");
    assert_eq!(late, why);
    assert!(status(&fixture).contains("objects/7:default/GPU-2"));
    assert_eq!(fixture.store.writable(), Ok(()));
    // Others are answered, and go on.
    fixture.store.append(batch(9, vec![object("b", 9)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    assert!(
        status(&fixture).contains("objects/7:default/GPU-2"),
        "still"
    );
    let counts = &fixture.counts;
    assert_eq!(counts.failures.load(Ordering::SeqCst), 0);
    // A kill now.
    let killed = tempfile::tempdir().expect("a directory");
    fs::copy(dir.path().join(FILE), killed.path().join(FILE)).expect("copied");
    let found = open(killed.path()).start.snapshot.expect("kept");
    let version = |name| version_of(&found, name);
    assert_eq!((version("a"), version("b")), (Some(8), Some(9)));
    assert_eq!(version("GPU-2"), Some(7), "the older one stays");
    // It is well again when one comes that can be kept.
    fixture.store.append(batch(10, vec![object("GPU-2", 10)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    assert_eq!(fixture.store.status(), Status::Ok);
    drop(fixture);
    let found = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&found, "GPU-2"), Some(10));
}

#[test]
fn c7_while_what_was_decided_is_left_out_the_logs_position_stays() {
    let (dir, disk) = (used(), Faulty::default());
    let found = |dir: &Path| {
        let killed = tempfile::tempdir().expect("a directory");
        fs::copy(dir.join(FILE), killed.path().join(FILE)).expect("copied");
        open(killed.path()).start.snapshot.expect("kept")
    };
    let fixture = open_with(bounded(&disk), dir.path());
    let to = |offset| Change::LogPosition(position(offset));
    let large = memory("GPU-2", RECORD);
    fixture.store.append(batch(8, vec![large, to(80)]));
    assert_eq!(
        synced(&fixture.store),
        Ok(()),
        "no client waits for memories"
    );
    assert!(status(&fixture).contains("memories/GPU-2"));
    assert_eq!(found(dir.path()).log, Some(position(70)));
    fixture.store.append(batch(9, vec![object("b", 9), to(90)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    assert_eq!(found(dir.path()).log, Some(position(70)));
    let at = |snapshot: &device_api_core::durable::Snapshot| snapshot.at;
    assert_eq!(at(&found(dir.path())), BootTime { ns: 9 });
    fixture.store.append(batch(10, vec![memory("GPU-2", 3)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    assert_eq!(found(dir.path()).log, Some(position(90)));
    assert_eq!(fixture.store.status(), Status::Ok);
}

#[test]
fn an_incident_that_cannot_be_kept_holds_up_neither_clients_nor_the_log() {
    let (dir, disk) = (used(), Faulty::default());
    let fixture = open_with(bounded(&disk), dir.path());
    let Change::Incident(mut large) = incident(9) else {
        unreachable!()
    };
    large.raised = vec!["x".repeat(RECORD).into()];
    let to = Change::LogPosition(position(80));
    let changes = vec![Change::Incident(large), to];
    fixture.store.append(batch(8, changes));
    assert_eq!(synced(&fixture.store), Ok(()), "no client waits for it");
    assert!(status(&fixture).contains("incidents/9"));
    // It is over before it could be.
    let gone = vec![Change::IncidentGone(IncidentId(9))];
    fixture.store.append(batch(9, gone));
    assert_eq!(synced(&fixture.store), Ok(()));
    drop(fixture);
    let found = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(found.log, Some(position(80)));
    assert_eq!(found.incidents.len(), 2);
}

#[test]
fn the_end_of_a_device_ends_what_was_left_out_of_it() {
    let (dir, disk) = (used(), Faulty::default());
    let fixture = open_with(bounded(&disk), dir.path());
    let large = memory("GPU-3", RECORD);
    fixture.store.append(batch(8, vec![large]));
    assert_eq!(synced(&fixture.store), Ok(()));
    // The file is read again in between, and does not hold it.
    disk.set(Mood::Full);
    fixture.store.append(batch(9, vec![object("a", 9)]));
    synced(&fixture.store).expect_err("full");
    disk.set(Mood::Well);
    until("written", || fixture.store.writable().is_ok());
    assert!(status(&fixture).contains("memories/GPU-3"));
    let gone = Change::DeviceGone(DeviceUuid::new("GPU-3"));
    fixture.store.append(batch(10, vec![gone]));
    assert_eq!(synced(&fixture.store), Ok(()));
    assert_eq!(fixture.store.status(), Status::Ok);
}
