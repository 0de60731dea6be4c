//! Whoever lists incidents, again and again, holds up nobody who has a fault to tell (N5).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use device_api_core::device::DeviceInfo;
use device_api_core::incident::Wanted;
use device_api_core::limits;
use device_api_core::ports::DeviceCache as _;
use device_api_core::seating::Seating;
use device_api_core::signal::{Observation, Source};

use crate::load::{Counting, await_count, fault, name};
use crate::rig::*;

/// Told alone, and again beside the lister: so a busy machine is the same for both.
const FAULTS: u32 = 200;

/// As many as may be open, each with some accounts of the longest.
fn fill(rig: &Rig, answers: &Receiver<()>) {
    let mut sent = 0;
    for code in 0..limits::INCIDENTS_MAX as u64 {
        for source in [Source::Nvml, Source::Kmsg, Source::Field230] {
            let evidence = "x".repeat(limits::EVIDENCE_BYTES_MAX);
            rig.sink.observe(Observation {
                source,
                evidence,
                ..fault(0, 1000 + code)
            });
            sent += 1;
        }
        // No more than may wait.
        if code % 32 == 31 {
            await_count(rig, "p", sent, answers);
        }
    }
}

#[test]
fn n5_a_lister_in_a_loop_holds_up_no_fault() {
    let (answered, answers) = channel();
    let rig = Rig::new(&[]);
    for at in 0..2 {
        rig.cache.upsert_device(DeviceInfo::bare(name(at))).unwrap();
    }
    rig.seats
        .seat(Seating {
            policy: Counting::new("p", answered),
            rejudged: Vec::new(),
            insist: false,
        })
        .unwrap();
    fill(&rig, &answers);
    let measure = || {
        let mut took: Vec<Duration> = (0..FAULTS)
            .map(|_| {
                let began = Instant::now();
                rig.sink.observe(fault(1, 31));
                let took = began.elapsed();
                std::thread::sleep(Duration::from_millis(1));
                took
            })
            .collect();
        took.sort();
        // Not the longest, since others use the machine too.
        took[took.len() / 2]
    };
    let alone = measure();
    let (is_over, lists) = (AtomicBool::new(false), AtomicU32::new(0));
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let listed = rig.incidents.incidents(&Wanted::newest());
                assert_eq!(listed.listed.len(), limits::INCIDENTS_LISTED_MAX);
                lists.fetch_add(1, Ordering::Relaxed);
            }
        });
        let beside = measure();
        is_over.store(true, Ordering::Relaxed);
        beside
    });
    assert!(lists.into_inner() > 0);
    assert!(
        beside <= alone + Duration::from_millis(2),
        "{beside:?} beside it, {alone:?} alone"
    );
}
