//! Concurrent writes share commits, in their order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use device_api_core::ports::StateLog;

use crate::common::{batch, object, open, open_with, synced, version_of};
use crate::faulty::{Faulty, Mood};

const WRITERS: u64 = 64;
const ROUNDS: u64 = 20;

/// The disk holds its breath until all writers of a round have written, so that what is shared does not
/// depend on how busy the machine is.
#[test]
fn c6_64_writers_that_each_wait_share_their_commits() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Faulty::default();
    let fixture = Arc::new(open_with(disk.settings(), dir.path()));
    let version = Arc::new(AtomicU64::new(fixture.start.base.0));
    let step = Arc::new(Barrier::new(WRITERS as usize + 1));
    let writers = (0..WRITERS).map(|writer| {
        let (fixture, version, step) = (fixture.clone(), version.clone(), step.clone());
        thread::spawn(move || {
            let mut last = 0;
            for _ in 0..ROUNDS {
                step.wait();
                last = version.fetch_add(1, Ordering::SeqCst) + 1;
                let change = object(&format!("gpu-{writer}"), last);
                fixture.store.append(batch(last, vec![change]));
                step.wait();
                assert_eq!(synced(&fixture.store), Ok(()));
                step.wait();
            }
            (writer, last)
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..ROUNDS {
        disk.set(Mood::Hangs);
        step.wait();
        step.wait();
        disk.set(Mood::Well);
        step.wait();
    }
    let written: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().expect("wrote"))
        .collect();
    // Those who wait are answered before the observer is told: it has been once the thread is gone.
    fixture.store.stop();
    let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
    let (commits, batches) = (
        count(&fixture.counts.commits),
        count(&fixture.counts.batches),
    );
    assert_eq!(batches, WRITERS * ROUNDS);
    // What was under way when a round began, and all the others together.
    assert!(
        commits <= 2 * ROUNDS,
        "{commits} commits for {batches} writes"
    );
    drop(fixture);
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    for (writer, last) in written {
        assert_eq!(version_of(&snapshot, &format!("gpu-{writer}")), Some(last));
    }
}

#[test]
fn what_comes_during_a_commit_is_one_commit_and_whoever_came_before_is_told_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Faulty::default();
    let fixture = open_with(disk.settings(), dir.path());
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = |name: &'static str| {
        let order = order.clone();
        fixture.store.synced(Box::new(move |result| {
            assert_eq!(result, Ok(()), "{name}");
            order.lock().expect("whole").push(name);
        }));
    };
    disk.set(Mood::Hangs);
    fixture.store.append(batch(1, vec![object("a", 1)]));
    disk.await_hanging();
    tell("in the commit under way");
    for version in 2..1_000 {
        fixture
            .store
            .append(batch(version, vec![object("a", version)]));
    }
    tell("in the next");
    disk.set(Mood::Well);
    assert_eq!(synced(&fixture.store), Ok(()));
    let told = order.lock().expect("whole").clone();
    assert_eq!(told, ["in the commit under way", "in the next"]);
    fixture.store.stop();
    assert_eq!(fixture.counts.commits.load(Ordering::SeqCst), 2);
    drop(fixture);
    let snapshot = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&snapshot, "a"), Some(999));
}

#[test]
fn with_nothing_pending_the_answer_comes_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Faulty::default();
    let fixture = open_with(disk.settings(), dir.path());
    let before = disk.syncs();
    assert_eq!(synced(&fixture.store), Ok(()));
    assert_eq!(disk.syncs(), before);
}
