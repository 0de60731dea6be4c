//! No version is given out twice (design C5).

use std::time::Duration;

use device_api_core::limits::VERSIONS_RESERVED;
use device_api_core::ports::StateLog;
use device_api_store::Settings;

use crate::common::{batch, object, open, synced, try_open};
use crate::faulty::{Faulty, Mood};

const RESERVED: u64 = VERSIONS_RESERVED;

#[test]
fn c5_a_run_begins_above_all_that_the_last_could_have_given_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut last = 0;
    for _ in 0..3 {
        let base = open(dir.path()).start.base.0;
        assert!(base >= last + if last == 0 { 1 } else { RESERVED });
        last = base;
    }
    let late = Duration::from_secs(1_000_000);
    let fixture = try_open(Settings::default(), dir.path(), late).expect("opened");
    assert_eq!(fixture.start.base.0, 1_000_000_000_000, "the clock went on");
    drop(fixture);
    let base = open(dir.path()).start.base.0;
    assert_eq!(base, 1_000_000_000_000 + RESERVED, "the clock went back");
}

#[test]
fn c5_the_reservation_grows_with_the_batch_that_passes_its_middle() {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    let base = fixture.start.base.0;
    fixture
        .store
        .append(batch(base + 1, vec![object("a", base + 1)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    let far = base + RESERVED / 2 + 1;
    fixture.store.append(batch(far, vec![object("a", far)]));
    assert_eq!(synced(&fixture.store), Ok(()));
    drop(fixture);
    assert_eq!(open(dir.path()).start.base.0, base + 2 * RESERVED);
}

#[test]
fn c5_a_batch_far_beyond_the_reservation_takes_it_along() {
    let dir = tempfile::tempdir().expect("a directory");
    let fixture = open(dir.path());
    let far = fixture.start.base.0 + 5 * RESERVED;
    fixture.store.append(batch(far, vec![object("a", far)]));
    drop(fixture);
    assert_eq!(open(dir.path()).start.base.0, far + RESERVED);
}

#[test]
fn c5_runs_that_can_reserve_nothing_do_not_begin_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Faulty::default();
    // The ceiling is ahead of the clock.
    let ceiling = open(dir.path()).start.base.0 + RESERVED;
    disk.set(Mood::ReadOnly);
    let mut last = ceiling;
    for second in 1..4 {
        let at = Duration::from_secs(second);
        let fixture = try_open(disk.settings(), dir.path(), at).expect("opened");
        let base = fixture.start.base.0;
        assert!(base > last, "{base} after {last}");
        last = base;
    }
}

#[test]
fn c5_a_run_that_could_reserve_only_later_is_not_repeated() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let disk = Faulty::default();
    disk.set(Mood::ReadOnly);
    let fixture = try_open(disk.settings(), dir.path(), Duration::from_secs(1)).expect("opened");
    let base = fixture.start.base.0;
    disk.set(Mood::Well);
    crate::common::until("reserved", || fixture.store.writable().is_ok());
    drop(fixture);
    assert!(open(dir.path()).start.base.0 >= base + RESERVED);
}

#[test]
fn c5_versions_do_not_go_back_with_a_store_that_is_damaged_or_lost() {
    for lost in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut last = 0;
        // Ahead of the clock, as after a loop of crashes.
        for _ in 0..5 {
            last = open(dir.path()).start.base.0;
        }
        let file = dir.path().join("store.redb");
        if lost {
            std::fs::remove_file(&file).expect("removed");
        } else {
            std::fs::write(&file, b"not what it was").expect("written");
        }
        let next = open(dir.path());
        assert!(next.start.snapshot.is_none());
        assert!(next.start.base.0 >= last + RESERVED, "lost: {lost}");
    }
}

#[test]
fn a_state_directory_that_is_made_is_the_daemons_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let made = dir.path().join("a/state");
    let _fixture = open(&made);
    let mode = std::fs::metadata(&made).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
