//! A file that is damaged is set aside as it was found, or is as good as ever: never a panic, and never
//! emptied without a word.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device_api_core::durable::Snapshot;
use device_api_core::ports::StateLog;
use device_api_store::{FORMAT_VERSION, OpenError, Settings, Status};
use redb::TableDefinition;

use crate::common::{Fixture, batch, names, object, open, synced, try_open, version_of};

/// Damages tried of each sort.
const TRIES: usize = 150;

const FILE: &str = "store.redb";
const NAMES: u64 = 24;

/// A file of several commits: as a stop leaves it, and as a kill does.
fn files() -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    for version in 1..=NAMES {
        let change = object(&format!("gpu-{version}"), version);
        fixture.store.append(batch(version, vec![change]));
        assert_eq!(synced(&fixture.store), Ok(()));
    }
    let killed = fs::read(dir.path().join(FILE)).expect("read");
    drop(fixture);
    (fs::read(dir.path().join(FILE)).expect("read"), killed)
}

/// How much of the history a snapshot holds: all up to a version, with no gap.
fn newest(snapshot: &Snapshot) -> u64 {
    let newest = snapshot.version.0;
    for version in 1..=newest {
        assert_eq!(
            version_of(snapshot, &format!("gpu-{version}")),
            Some(version)
        );
    }
    assert_eq!(snapshot.objects.len() as u64, newest);
    newest
}

fn set_aside(dir: &Path) -> Vec<String> {
    let names = names(dir).into_iter();
    names.filter(|name| name.contains(".corrupt-")).collect()
}

/// Opens a damaged file; returns the newest version found, or `None` where it was set aside.
#[track_caller]
fn check(what: &str, damaged: &[u8]) -> Option<u64> {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(FILE), damaged).expect("written");
    let fixture = open(dir.path());
    let status = fixture.store.status();
    let aside = set_aside(dir.path());
    match &fixture.start.snapshot {
        Some(snapshot) => {
            assert_eq!(status, Status::Ok, "{what}");
            assert!(aside.is_empty(), "{what}: {aside:?}");
            Some(newest(snapshot))
        }
        None => {
            assert_eq!(aside.len(), 1, "{what}: emptied without a word");
            let is_told = |why: &str| why.contains(&aside[0]) && why.contains("forgotten");
            assert!(
                matches!(&status, Status::Incomplete { why } if is_told(why)),
                "{what}: {status}"
            );
            let kept = fs::read(dir.path().join(&aside[0])).expect("kept");
            assert!(kept == damaged, "{what}: set aside as it was found");
            assert_eq!(fixture.counts.set_aside.load(Ordering::SeqCst), 1);
            fixture.store.append(batch(99, vec![object("new", 99)]));
            assert_eq!(synced(&fixture.store), Ok(()), "{what}: begins anew");
            None
        }
    }
}

/// Points in a file: all of its head, where every byte counts, and some of the rest.
fn points(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / TRIES).max(1);
    (0..TRIES)
        .chain((0..len).step_by(step).map(move |at| at + at / step % step))
        .filter(move |at| *at < len)
}

#[test]
fn a_file_cut_short_is_set_aside() {
    let (stopped, killed) = files();
    for file in [&stopped, &killed] {
        for len in points(file.len()).step_by(2) {
            let found = check(&format!("cut to {len}"), &file[..len]);
            assert_eq!(found, None, "cut to {len}");
        }
    }
}

#[test]
fn a_flipped_bit_is_seen_or_does_not_matter() {
    let (stopped, killed) = files();
    let mut seen = 0;
    for at in points(stopped.len()) {
        let mut damaged = stopped.clone();
        damaged[at] ^= 1 << (at % 8);
        match check(&format!("bit {at} of a stopped file"), &damaged) {
            Some(newest) => assert_eq!(newest, NAMES, "bit {at}"),
            None => seen += 1,
        }
    }
    assert!(seen > TRIES / 10, "{seen} were seen");
    // After a kill, a newest commit that does not hold looks like one that was never finished: the one
    // before is what is found then.
    for at in points(killed.len()) {
        let mut damaged = killed.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Some(newest) = check(&format!("bit {at} of a killed file"), &damaged) {
            assert!(newest >= NAMES - 1, "bit {at}: back to {newest}");
        }
    }
}

#[test]
fn what_is_no_database_is_set_aside() {
    check("empty", b"");
    check("text", b"this is no database");
    check("zeros", &[0; 100_000]);
    check(
        "noise",
        &(0..50_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect::<Vec<_>>(),
    );
}

/// Writes a row as no daemon would.
fn tamper(dir: &Path, table: &str, key: &str, value: &[u8]) {
    let database = redb::Database::open(dir.join(FILE)).expect("closed well");
    let transaction = database.begin_write().expect("begun");
    let definition: TableDefinition<&str, &[u8]> = TableDefinition::new(table);
    let mut open = transaction.open_table(definition).expect("opened");
    open.insert(key, value).expect("put");
    drop(open);
    transaction.commit().expect("committed");
}

/// A store that was closed well, in which a row was changed since; and the ceiling of its versions.
fn tampered_with(table: &str, key: &str, value: &[u8]) -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    let ceiling = fixture.start.base.0 + device_api_core::limits::VERSIONS_RESERVED;
    fixture.store.append(batch(2, vec![object("a", 2)]));
    drop(fixture);
    tamper(dir.path(), table, key, value);
    (dir, ceiling)
}

fn opened_at_7(dir: &Path) -> Result<Fixture, OpenError> {
    try_open(Settings::default(), dir, Duration::from_secs(7))
}

#[test]
fn a_head_that_does_not_decode_is_set_aside_above_its_versions() {
    let head = format!(r#"{{"ceiling":{},"last":"once"}}"#, u64::from(u32::MAX));
    let (dir, ceiling) = tampered_with("meta", "head", head.as_bytes());
    let fixture = opened_at_7(dir.path()).expect("opened");
    assert_eq!(fixture.start.snapshot, None);
    assert_eq!(set_aside(dir.path()), ["store.redb.corrupt-7"]);
    assert!(fixture.start.base.0 >= ceiling, "the ceiling was readable");
    let status = fixture.store.status();
    assert!(matches!(status, Status::Incomplete { .. }), "{status}");
}

#[test]
fn c7_a_newer_format_is_refused_and_not_a_byte_of_it_is_changed() {
    let of = |version: u32| serde_json::to_vec(&version).expect("encoded");
    let (dir, ceiling) = tampered_with("meta", "format", &of(FORMAT_VERSION + 1));
    let path = dir.path().join(FILE);
    let (there, bytes) = (names(dir.path()), fs::read(&path).expect("read"));
    // As often as somebody starts it again.
    for _ in 0..2 {
        let refused = opened_at_7(dir.path()).expect_err("refused").to_string();
        let said = |word: &str| refused.contains(word);
        assert!(said(&format!("{path:?}")), "{refused}");
        assert!(
            said(&format!("format version {}", FORMAT_VERSION + 1)),
            "{refused}"
        );
        assert!(said(&format!("reads up to {FORMAT_VERSION}")), "{refused}");
        assert!(
            said("Run that one") && said("move the file away"),
            "{refused}"
        );
        assert_eq!(names(dir.path()), there);
        assert!(fs::read(&path).expect("read") == bytes, "it was written to");
    }

    // One way out: without it, and above its versions all the same.
    let away = dir.path().join("away");
    fs::rename(&path, &away).expect("moved");
    let without = opened_at_7(dir.path()).expect("opened");
    assert_eq!(without.start.snapshot, None);
    assert!(without.start.base.0 >= ceiling);
    drop(without);
    // The other: the daemon that can read it finds all that was in it.
    fs::rename(&away, &path).expect("moved");
    tamper(dir.path(), "meta", "format", &of(FORMAT_VERSION));
    let read = opened_at_7(dir.path()).expect("opened");
    let snapshot = read.start.snapshot.as_ref().expect("its state");
    assert_eq!(version_of(snapshot, "a"), Some(2));
}

#[test]
fn files_set_aside_in_the_same_second_do_not_replace_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    for damage in ["one", "two", "three"] {
        fs::write(dir.path().join(FILE), damage).expect("written");
        open(dir.path());
    }
    let mut contents: Vec<_> = set_aside(dir.path())
        .iter()
        .map(|name| fs::read_to_string(dir.path().join(name)).expect("kept"))
        .collect();
    contents.sort();
    assert_eq!(contents, ["one", "three", "two"]);
}
