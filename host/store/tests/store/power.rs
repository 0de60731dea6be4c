//! Power losses: of what was not synced, any sectors may be on the disk and any may not.

use std::sync::atomic::Ordering;

use device_api_core::durable::Change;
use device_api_core::ids::ObjectKey;
use device_api_core::ports::StateLog;

use crate::common::{Dice, Fixture, batch, object, open, open_with, synced, until, version_of};
use crate::faulty::{Faulty, Mood};

/// Losses tried; each at another point of another history.
const LOSSES: u64 = 120;

/// What the next run would find of `name` if the power went now.
fn found_after_power_loss(
    disk: &Faulty,
    dir: &std::path::Path,
    dice: &mut Dice,
    names: &[&str],
) -> Vec<Option<u64>> {
    let left = disk.after_power_loss(&dir.join("store.redb"), dice);
    let after = tempfile::tempdir().expect("a directory");
    std::fs::write(after.path().join("store.redb"), left).expect("written");
    let next = open(after.path());
    assert_eq!(
        next.counts.set_aside.load(Ordering::SeqCst),
        0,
        "a torn commit is no damage"
    );
    let snapshot = next.start.snapshot.unwrap_or_default();
    names
        .iter()
        .map(|name| version_of(&snapshot, name))
        .collect()
}

fn write(fixture: &Fixture, version: u64) {
    fixture.store.append(batch(
        version,
        vec![object("a", version), object("b", version)],
    ));
}

#[test]
fn c6_a_power_loss_in_a_commit_leaves_all_of_it_or_nothing() {
    let mut seen = [0, 0];
    for seed in 0..LOSSES {
        let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
        let mut dice = Dice(seed);
        let fixture = open_with(disk.settings(), dir.path());
        let durable = 1 + dice.roll(4);
        for version in 1..=durable {
            write(&fixture, version);
            assert_eq!(synced(&fixture.store), Ok(()));
        }
        disk.set(Mood::Hangs);
        write(&fixture, durable + 1);
        disk.await_hanging();
        let found = found_after_power_loss(&disk, dir.path(), &mut dice, &["a", "b"]);
        assert_eq!(found[0], found[1], "seed {seed}: half a commit");
        let version = found[0].expect("acknowledged");
        assert!(
            (durable..=durable + 1).contains(&version),
            "seed {seed}: {version}"
        );
        seen[(version - durable) as usize] += 1;
        disk.set(Mood::Well);
    }
    assert!(
        seen[0] > 0,
        "the losses came too late to lose anything: {seen:?}"
    );
}

/// After a sync that failed, the kernel takes pages for written that are not; a sync that succeeds later
/// does not write them. What is acknowledged after it must be there all the same. The failed commit
/// removes: its second try finds nothing left to remove, and writes nothing of its own accord.
#[test]
fn c6_what_is_acknowledged_after_a_failed_sync_survives_a_power_loss() {
    for seed in 0..8 {
        let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
        let mut dice = Dice(seed);
        let fixture = open_with(disk.settings(), dir.path());
        write(&fixture, 1);
        assert_eq!(synced(&fixture.store), Ok(()));
        disk.set(Mood::SyncFails);
        let gone = Change::ObjectGone(ObjectKey::new("", "b"));
        fixture.store.append(batch(2, vec![gone]));
        synced(&fixture.store).expect_err("not durable");
        disk.set(Mood::Well);
        until("written again", || fixture.store.writable().is_ok());
        assert_eq!(synced(&fixture.store), Ok(()));
        let found = found_after_power_loss(&disk, dir.path(), &mut dice, &["a", "b"]);
        assert_eq!(found, [Some(1), None], "seed {seed}");
    }
}
