//! A disk that fails, hangs or is full: reads go on, writes are refused with the reason, and when it is
//! well again nothing is missing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device_api_core::durable::Change;
use device_api_core::ids::ObjectKey;
use device_api_core::ports::StateLog;
use device_api_store::{HUNG_AFTER, SYNCED_WAITING_MAX, Settings, Status};

use crate::common::{
    Fixture, batch, names, object, open, open_with, sized_object, synced, until, version_of,
};
use crate::faulty::{Faulty, Mood};

/// A directory in which an earlier run wrote object `a` in version 1.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    fixture.store.append(batch(1, vec![object("a", 1)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    dir
}

fn why(fixture: &Fixture) -> String {
    let why = fixture.store.writable().expect_err("not writable").0;
    assert_eq!(synced(&fixture.store).expect_err("not durable").0, why);
    assert_eq!(fixture.store.status().why(), Some(why.as_str()));
    why
}

/// What the next run finds of `a`.
fn found(dir: &Path) -> Option<u64> {
    version_of(&open(dir).start.snapshot.expect("kept"), "a")
}

#[test]
fn c6_a_disk_that_fails_answers_at_once_and_loses_nothing() {
    for (mood, word) in [(Mood::Full, "writing"), (Mood::SyncFails, "syncing")] {
        let (dir, disk) = (used(), Faulty::default());
        let fixture = open_with(disk.settings(), dir.path());
        disk.set(mood);
        fixture
            .store
            .append(batch(2, vec![object("a", 2), object("b", 2)]));
        synced(&fixture.store).expect_err("not durable");
        assert!(why(&fixture).contains(word), "{}", why(&fixture));
        assert!(matches!(fixture.store.status(), Status::Failing { .. }));
        fixture.store.append(batch(3, vec![object("a", 3)]));
        disk.set(Mood::Well);
        until("written again", || fixture.store.writable().is_ok());
        assert_eq!(synced(&fixture.store), Ok(()));
        // The observer is told after those who wait.
        let recoveries = || fixture.counts.recoveries.load(Ordering::SeqCst);
        until("told", || recoveries() == 1);
        assert_eq!(fixture.store.status(), Status::Ok);
        drop(fixture);
        let snapshot = open(dir.path()).start.snapshot.expect("kept");
        assert_eq!(version_of(&snapshot, "a"), Some(3));
        assert_eq!(version_of(&snapshot, "b"), Some(2), "kept over the failure");
    }
}

#[test]
fn a_disk_that_only_reads_brings_the_problems_back_and_is_tried_again() {
    let (dir, disk) = (used(), Faulty::default());
    disk.set(Mood::ReadOnly);
    let fixture = open_with(disk.settings(), dir.path());
    let snapshot = fixture.start.snapshot.as_ref().expect("read");
    assert_eq!(version_of(snapshot, "a"), Some(1));
    assert!(fixture.start.base > snapshot.version);
    assert!(
        why(&fixture).contains("for writing failed"),
        "{}",
        why(&fixture)
    );
    fixture.store.append(batch(2, vec![object("a", 2)]));
    disk.set(Mood::Well);
    until("written again", || fixture.store.writable().is_ok());
    drop(fixture);
    assert_eq!(found(dir.path()), Some(2));
}

#[test]
fn a_disk_that_only_reads_is_read_after_a_crash_too() {
    let dir = used();
    let unclean = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    fixture.store.append(batch(2, vec![object("a", 2)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    // As a kill would leave it: never closed.
    let left = std::fs::read(dir.path().join("store.redb")).expect("read");
    std::fs::write(unclean.path().join("store.redb"), &left).expect("written");
    let disk = Faulty::default();
    disk.set(Mood::ReadOnly);
    let crashed = open_with(disk.settings(), unclean.path());
    let snapshot = crashed.start.snapshot.as_ref().expect("read");
    assert_eq!(version_of(snapshot, "a"), Some(2));
    let now = std::fs::read(unclean.path().join("store.redb")).expect("read");
    assert!(now == left, "looked at, not touched");
}

#[test]
fn a_first_run_on_a_disk_that_does_not_write_begins_in_memory() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
    disk.set(Mood::Full);
    let fixture = open_with(disk.settings(), dir.path());
    assert_eq!(fixture.start.snapshot, None);
    why(&fixture);
    fixture.store.append(batch(2, vec![object("a", 2)]));
    disk.set(Mood::Well);
    until("written again", || fixture.store.writable().is_ok());
    drop(fixture);
    assert_eq!(found(dir.path()), Some(2));
    assert_eq!(names(dir.path()), ["store.redb"]);
}

#[test]
fn an_old_file_that_cannot_be_read_is_left_alone() {
    let (dir, disk) = (used(), Faulty::default());
    let before = std::fs::read(dir.path().join("store.redb")).expect("read");
    disk.set(Mood::Closed);
    let fixture = open_with(disk.settings(), dir.path());
    assert_eq!(fixture.start.snapshot, None);
    disk.set(Mood::Well);
    fixture.store.append(batch(9, vec![object("a", 9)]));
    assert!(matches!(fixture.store.status(), Status::ReadOnly { .. }));
    assert!(
        why(&fixture).contains("store.redb failed"),
        "{}",
        why(&fixture)
    );
    drop(fixture);
    assert_eq!(names(dir.path()), ["store.redb"]);
    assert!(before == std::fs::read(dir.path().join("store.redb")).expect("read"));
    assert_eq!(found(dir.path()), Some(1));
}

/// A disk that does not answer says nothing of the file: no bad checksum, no old state given up.
#[test]
fn c7_an_old_file_on_a_disk_that_fails_to_read_is_left_alone() {
    for (mood, word) in [
        (Mood::ReadFails, "reading"),
        (Mood::SizeFails, "looking at the size of"),
    ] {
        let (dir, disk) = (used(), Faulty::default());
        let before = std::fs::read(dir.path().join("store.redb")).expect("read");
        disk.set(mood);
        let fixture = open_with(disk.settings(), dir.path());
        assert_eq!(fixture.start.snapshot, None);
        assert_eq!(fixture.counts.set_aside.load(Ordering::SeqCst), 0);
        disk.set(Mood::Well);
        fixture.store.append(batch(9, vec![object("a", 9)]));
        assert!(matches!(fixture.store.status(), Status::ReadOnly { .. }));
        let why = why(&fixture);
        assert!(why.contains(word) && why.contains("restart"), "{why}");
        drop(fixture);
        assert_eq!(names(dir.path()), ["store.redb"], "{mood:?}");
        assert!(before == std::fs::read(dir.path().join("store.redb")).expect("read"));
        assert_eq!(found(dir.path()), Some(1));
    }
}

#[test]
fn c7_an_old_file_is_read_once_the_disk_is_well_again() {
    let (dir, disk) = (used(), Faulty::default());
    disk.fail_reads(3);
    let fixture = open_with(disk.settings(), dir.path());
    let snapshot = fixture.start.snapshot.as_ref().expect("read");
    assert_eq!(version_of(snapshot, "a"), Some(1));
    assert_eq!(fixture.store.status(), Status::Ok);
}

#[test]
fn a_file_made_in_this_run_is_its_own_though_its_name_could_not_be_synced() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
    disk.set(Mood::NamesFail);
    let fixture = open_with(disk.settings(), dir.path());
    fixture.store.append(batch(2, vec![object("a", 2)]));
    assert!(
        why(&fixture).contains("syncing"),
        "nothing is durable under a name that may be gone: {}",
        why(&fixture)
    );
    disk.set(Mood::Well);
    until("written", || fixture.store.writable().is_ok());
    assert_eq!(synced(&fixture.store), Ok(()));
    drop(fixture);
    assert_eq!(found(dir.path()), Some(2));
}

#[test]
fn a_file_is_set_aside_though_its_name_could_not_be_synced() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
    std::fs::write(dir.path().join("store.redb"), "damaged").expect("written");
    disk.set(Mood::NamesFail);
    let fixture = open_with(disk.settings(), dir.path());
    assert!(matches!(fixture.store.status(), Status::Failing { .. }));
    disk.set(Mood::Well);
    until("written", || fixture.store.writable().is_ok());
    drop(fixture);
    assert_eq!(names(dir.path()), ["store.redb", "store.redb.corrupt-0"]);
}

#[test]
fn a_file_that_comes_up_later_is_not_written_over() {
    let (dir, other, disk) = (
        tempfile::tempdir().expect("a directory"),
        used(),
        Faulty::default(),
    );
    disk.set(Mood::Full);
    let fixture = open_with(disk.settings(), dir.path());
    let path = dir.path().join("store.redb");
    std::fs::copy(other.path().join("store.redb"), &path).expect("copied");
    disk.set(Mood::Well);
    until("seen", || {
        matches!(fixture.store.status(), Status::ReadOnly { .. })
    });
    assert!(why(&fixture).contains("restart the daemon"));
    fixture.store.append(batch(9, vec![object("a", 9)]));
    drop(fixture);
    assert_eq!(found(dir.path()), Some(1));
}

#[test]
fn a_disk_that_hangs_blocks_nobody() {
    let (dir, disk) = (used(), Faulty::default());
    let fixture = open_with(disk.settings(), dir.path());
    disk.set(Mood::Hangs);
    fixture.store.append(batch(2, vec![object("a", 2)]));
    disk.await_hanging();
    // Each returns, or the test does not end.
    for version in 3..10_000 {
        fixture
            .store
            .append(batch(version, vec![object("a", version)]));
    }
    let outcomes = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let wait = || {
        let outcomes = outcomes.clone();
        fixture.store.synced(Box::new(move |result| {
            let count = if result.is_ok() {
                &outcomes.0
            } else {
                &outcomes.1
            };
            count.fetch_add(1, Ordering::SeqCst);
        }));
    };
    let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
    (0..SYNCED_WAITING_MAX).for_each(|_| wait());
    assert_eq!(count(&outcomes.1), 0);
    wait();
    assert_eq!(count(&outcomes.1), 1, "those who wait are bounded");
    assert_eq!(fixture.store.writable(), Ok(()), "slow is not hung");
    fixture.clock.advance(HUNG_AFTER);
    assert!(why(&fixture).contains("has not answered"));
    disk.set(Mood::Well);
    until("all told", || {
        count(&outcomes.0) == SYNCED_WAITING_MAX as u64
    });
    assert_eq!(fixture.store.writable(), Ok(()));
    drop(fixture);
    assert_eq!(found(dir.path()), Some(9_999));
}

#[test]
fn the_files_size_is_bounded_and_what_is_deleted_makes_room() {
    let dir = used();
    let settings = Settings {
        file_bytes_max: 2 << 20,
        ..Settings::default()
    };
    let fixture = open_with(settings, dir.path());
    let name = |number: u64| format!("gpu-{number}");
    let mut kept = 0;
    let full = (2..200).find(|number| {
        let change = sized_object(&name(*number), *number, 50_000);
        fixture.store.append(batch(*number, vec![change]));
        let durable = synced(&fixture.store).is_ok();
        kept += u64::from(durable);
        !durable
    });
    let full = full.expect("it became full");
    assert!(kept > 5, "{kept}");
    assert!(
        why(&fixture).contains("the bound on its size"),
        "{}",
        why(&fixture)
    );
    let size = std::fs::metadata(dir.path().join("store.redb"))
        .expect("there")
        .len();
    assert!(size <= 2 << 20, "{size}");
    let gone = (2..=full).map(|n| Change::ObjectGone(ObjectKey::new("", &name(n))));
    fixture.store.append(batch(200, gone.collect()));
    until("room again", || fixture.store.writable().is_ok());
    fixture.store.append(batch(201, vec![object("a", 201)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    drop(fixture);
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&snapshot, "a"), Some(201));
    assert_eq!(snapshot.objects.len(), 1);
}

const DIRECTORY: &str = "DEVICE_API_STORE_TEST_FULL";

/// A real full disk, as far as one is to be had without a mount: files of this process may not grow
/// beyond a few MiB.
#[test]
fn a_real_limit_on_the_file_is_met_and_what_was_acknowledged_is_kept() {
    let dir = used();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("known"))
        .args([
            "--exact",
            "disk::fills_the_disk",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, dir.path())
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let durable: u64 = said
        .lines()
        .find_map(|line| line.split_once("durable ").map(|(_, rest)| rest))
        .and_then(|number| number.trim().parse().ok())
        .expect("the child says how far it came");
    assert!(durable > 2);
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    for number in 2..=durable {
        let name = format!("gpu-{number}");
        assert_eq!(version_of(&snapshot, &name), Some(number));
    }
}

#[test]
#[ignore = "a child of the test before"]
fn fills_the_disk() {
    use std::io::Write as _;
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let fixture = open(Path::new(&dir));
    let full = (2..200_u64).find(|number| {
        let change = sized_object(&format!("gpu-{number}"), *number, 50_000);
        fixture.store.append(batch(*number, vec![change]));
        synced(&fixture.store).is_err()
    });
    let full = full.expect("the limit was met");
    assert!(why(&fixture).contains("too large"), "{}", why(&fixture));
    writeln!(std::io::stdout(), "\ndurable {}", full - 1).expect("told");
}

#[test]
fn c6_a_file_that_is_gone_or_replaced_takes_no_acknowledged_write_with_it() {
    let dir = used();
    let fixture = open(dir.path());
    let (path, away) = (dir.path().join("store.redb"), dir.path().join("away"));
    std::fs::rename(&path, &away).expect("moved");
    fixture.store.append(batch(2, vec![object("a", 2)]));
    synced(&fixture.store).expect_err("it would go with the file");
    assert!(why(&fixture).contains("is gone"), "{}", why(&fixture));

    std::fs::write(&path, "another").expect("written");
    until("found out", || why(&fixture).contains("was replaced"));
    std::fs::rename(&away, &path).expect("moved back");
    until("written again", || fixture.store.writable().is_ok());
    assert_eq!(synced(&fixture.store), Ok(()));
    drop(fixture);
    assert_eq!(found(dir.path()), Some(2));
}
