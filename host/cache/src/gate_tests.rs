//! Of the real lock: what the model checker's does not promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use device_api_core::clock::ManualClock;

use crate::Unobserved;
use crate::gate::Gate;

/// C4: a writer that waits keeps new readers out. The pinned lock's promise, tested.
#[test]
fn c4_a_waiting_writer_blocks_new_readers() {
    let gate = Arc::new(Gate::new(0_u32));
    let clock = Arc::new(ManualClock::default());
    let (release, held) = mpsc::channel::<()>();
    let (inside, entered) = mpsc::channel::<()>();
    let first = thread::spawn({
        let (gate, clock) = (gate.clone(), clock.clone());
        move || {
            gate.read(&*clock, &Unobserved, |_| {
                inside.send(()).expect("test waits");
                held.recv().expect("test releases");
            })
        }
    });
    entered.recv().expect("first reader is inside");
    let written = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (gate, clock, written) = (gate.clone(), clock.clone(), written.clone());
        move || {
            gate.write(&*clock, &Unobserved, |value| {
                written.store(true, Ordering::SeqCst);
                *value = 1;
            })
        }
    });
    // The writer is queued as soon as the lock refuses a new reader: that is the promise.
    while !gate.keeps_readers_out() {
        thread::yield_now();
    }
    assert!(
        !written.load(Ordering::SeqCst),
        "the first reader still holds the gate"
    );
    let second = thread::spawn({
        let (gate, clock) = (gate.clone(), clock.clone());
        move || gate.read(&*clock, &Unobserved, |value| *value)
    });
    release.send(()).expect("first reader waits");
    first.join().expect("first reader");
    writer.join().expect("writer");
    assert_eq!(
        second.join().expect("second reader"),
        1,
        "the reader that came after the writer saw its write"
    );
}
