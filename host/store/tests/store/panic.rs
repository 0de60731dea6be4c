//! The store's thread panics: a fault of ours, of which everyone is told the truth.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use device_api_core::clock::ManualClock;
use device_api_core::durable::NotDurable;
use device_api_core::ports::StateLog;
use device_api_store::{Status, Store, StoreObserver};

use crate::common::{PATIENCE, batch, boot, object, open, synced, until, version_of};
use crate::faulty::{Faulty, Mood};

/// Panics over each commit, and over each failure too.
#[derive(Debug)]
struct Panics;

impl StoreObserver for Panics {
    fn committed(&self, _: Duration, _: u64, _: u64) {
        panic!("a counter ran over");
    }
    fn failed(&self, _: &NotDurable) {
        panic!("and again");
    }
    fn recovered(&self) {}
    fn size(&self, _: u64) {}
    fn set_aside(&self) {}
}

#[test]
fn c6_a_thread_that_panics_answers_everyone_and_says_what_happened() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), Faulty::default());
    let clock = Arc::new(ManualClock::default());
    let opened = Store::open_with(disk.settings(), dir.path(), boot(), clock, Arc::new(Panics));
    let (store, _) = opened.expect("opened");
    disk.set(Mood::Hangs);
    store.append(batch(1, vec![object("a", 1)]));
    disk.await_hanging();
    let (tell, told) = mpsc::channel();
    for version in 2..5 {
        let tell = tell.clone();
        store.append(batch(version, vec![object("b", version)]));
        store.synced(Box::new(move |result| tell.send(result).expect("awaited")));
    }
    disk.set(Mood::Well);
    for _ in 2..5 {
        let NotDurable(why) = (told.recv_timeout(PATIENCE).expect("told")).expect_err("lost");
        assert!(why.contains("panicked: a counter ran over"), "{why}");
    }
    until("known", || store.writable().is_err());
    let NotDurable(why) = store.writable().expect_err("nobody writes any more");
    assert!(
        why.contains("restart the daemon") && !why.contains("going down"),
        "{why}"
    );
    assert_eq!(synced(&store), Err(NotDurable(why.clone())));
    assert_eq!(store.status(), Status::ReadOnly { why });
    // It still stops, and what was durable before is.
    store.append(batch(5, vec![object("a", 5)]));
    store.stop();
    let found = open(dir.path()).start.snapshot.expect("kept");
    assert_eq!(version_of(&found, "a"), Some(1));
}
