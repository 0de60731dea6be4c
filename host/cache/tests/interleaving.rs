//! Gate and barrier under a model checker (design C1 to C4).
//!
//! `gate.rs` and `barrier.rs` are compiled here a second time, unchanged, on locks, a `Notify` and a
//! clock that hand control to shuttle at every step. Shuttle then runs each scenario in one
//! interleaving after the other: all of them where there are few, else random ones and such with few
//! but nasty preemptions. A deadlock, which is what a lost wake-up is where the bound never passes,
//! fails as an assertion does.
//!
//! The barrier's counter of raised devices stays `std`'s. That hides no interleaving: it is written
//! once in each locked region, so a reader that does not take the lock can't tell the moments within
//! one apart; and it is sequentially consistent, as shuttle takes every atomic to be.
//!
//! What is not modelled: that a waiting writer keeps readers out is promised by the real lock, and
//! tested on it (`gate_tests.rs`). `Notify` is modelled as weaker than tokio's: it wakes only what
//! was enabled.
//!
//! `DEVICE_API_SOAK=N` tries N times as many; `DEVICE_API_SEED=N` repeats a run. A failure prints a
//! schedule, which `shuttle::replay` repeats alone.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests: a panic is a failed test"
)]

// The stand-ins below take the names that gate.rs and barrier.rs use.
extern crate self as parking_lot;
extern crate self as tokio;

#[path = "../src/barrier.rs"]
mod barrier;
#[path = "../src/gate.rs"]
#[expect(dead_code, reason = "the gate's own test helper is for another test")]
mod gate;
#[path = "interleaving/locks.rs"]
mod locks;
#[path = "interleaving/notify.rs"]
mod sync;
#[path = "interleaving/time.rs"]
mod time;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device_api_cache::{CacheObserver, Unobserved};
use device_api_core::clock::ManualClock;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use shuttle::future::block_on;
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::mpsc;
use shuttle::{Config, Runner, thread};

use crate::barrier::Barrier;
use crate::gate::Gate;
pub(crate) use crate::locks::{Mutex, RwLock};

/// Interleavings of each scenario and scheduler in the ordinary run: seconds in all.
const SCHEDULES: usize = 5_000;
/// How many preemptions the second scheduler spends. Known bugs of this kind need two or three.
const PREEMPTIONS: usize = 4;
/// Any time does: the model's clock passes it when the scheduler says so, or never.
const BOUND: Duration = Duration::from_millis(50);

const GPUS: usize = 2;

/// What the cache says of a GPU: the newest signal that is decided, twice, in the two halves of one
/// write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    newest: u64,
    again: u64,
}

/// In which order things are done. All but `Right` break the promise, to show that it would be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Right,
    SettledBeforeWritten,
    ObservedBeforeRaised,
    ReadBeforeBarrier,
    WrittenInTwo,
    FallbackAfterRead,
}

/// The cache in small, put together as `Cache` does it.
struct House {
    gate: Gate<[Told; GPUS]>,
    barrier: Barrier,
    /// Per GPU, the newest signal of which the world may know: `raise` has returned.
    observed: [AtomicU64; GPUS],
    order: Order,
}

fn gpu(n: usize) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{n}"))
}

impl House {
    fn new(order: Order) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new([Told::default(); GPUS]),
            barrier: Barrier::new(),
            observed: [AtomicU64::new(0), AtomicU64::new(0)],
            order,
        })
    }

    fn observe(&self, n: usize, seq: u64) {
        if self.order == Order::ObservedBeforeRaised {
            self.observed[n].store(seq, Ordering::SeqCst);
        }
        self.barrier.raise(&gpu(n), SignalSeq(seq));
        self.observed[n].store(seq, Ordering::SeqCst);
    }

    fn decide(&self, n: usize, seq: u64) {
        if self.order == Order::SettledBeforeWritten {
            self.barrier.settle(&gpu(n), SignalSeq(seq));
        }
        self.write(n, seq);
        self.barrier.settle(&gpu(n), SignalSeq(seq));
    }

    fn write(&self, n: usize, seq: u64) {
        let clock = ManualClock::default();
        let write = |change: &dyn Fn(&mut Told)| {
            self.gate
                .write(&clock, &Unobserved, |state| change(&mut state[n]));
        };
        if self.order == Order::WrittenInTwo {
            write(&|told| told.newest = told.newest.max(seq));
            write(&|told| told.again = told.again.max(seq));
        } else {
            write(&|told| {
                told.newest = told.newest.max(seq);
                // Another thread may run here: it must not see the half.
                thread::yield_now();
                told.again = told.again.max(seq);
            });
        }
    }

    fn state(&self) -> [Told; GPUS] {
        self.gate
            .read(&ManualClock::default(), &Unobserved, |state| {
                let first = *state;
                thread::yield_now();
                assert_eq!(first, *state, "written while it was read");
                first
            })
    }

    /// A Get of one GPU, or a List of all. Says whether the bound passed.
    fn read(&self, which: Option<usize>) -> bool {
        let known: Vec<u64> = self
            .observed
            .iter()
            .map(|observed| observed.load(Ordering::SeqCst))
            .collect();
        let early = (self.order == Order::ReadBeforeBarrier).then(|| self.state());
        let waits = self.barrier.waits(which.map(gpu).as_ref());
        let overdue = block_on(self.barrier.wait(waits, BOUND)).err();
        let passed = overdue.is_some();
        let fallback = || {
            for (uuid, seq) in overdue.iter().flatten() {
                let n = (0..GPUS).find(|n| gpu(*n) == *uuid).expect("one of ours");
                self.decide(n, seq.0);
            }
        };
        let state = if self.order == Order::FallbackAfterRead {
            let state = self.state();
            fallback();
            state
        } else {
            fallback();
            early.unwrap_or_else(|| self.state())
        };
        for n in (0..GPUS).filter(|n| which.is_none_or(|which| which == *n)) {
            assert_eq!(state[n].newest, state[n].again, "a torn read");
            assert!(
                state[n].newest >= known[n],
                "a read of the old state: signal {} was observed before it began, {} is decided",
                known[n],
                state[n].newest
            );
        }
        passed
    }
}

/// Signals of one GPU are observed by one thread and decided, in order, by another, while readers
/// read. With `bounded`, the bound passes at some moment.
fn storm(order: Order, bounded: bool) {
    let house = House::new(order);
    let mut threads = Vec::new();
    for (n, seqs) in [(0, [1, 3]), (1, [2, 4])] {
        let (sender, receiver) = mpsc::channel::<u64>();
        let observer = house.clone();
        threads.push(thread::spawn(move || {
            for seq in seqs {
                observer.observe(n, seq);
                let _ = sender.send(seq);
            }
        }));
        let decider = house.clone();
        threads.push(thread::spawn(move || {
            while let Ok(seq) = receiver.recv() {
                decider.decide(n, seq);
            }
        }));
    }
    for which in [Some(0), None] {
        let house = house.clone();
        threads.push(thread::spawn(move || {
            house.read(which);
            house.read(which);
        }));
    }
    if bounded {
        threads.push(thread::spawn(time::pass));
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// The barrier alone, one signal, one reader: few enough interleavings to try them all.
fn smallest() {
    let barrier = Arc::new(Barrier::new());
    let observed = Arc::new(AtomicU64::new(0));
    let decided = Arc::new(AtomicU64::new(0));
    let pipeline = thread::spawn({
        let (barrier, observed, decided) = (barrier.clone(), observed.clone(), decided.clone());
        move || {
            barrier.raise(&gpu(0), SignalSeq(1));
            observed.store(1, Ordering::SeqCst);
            decided.store(1, Ordering::SeqCst);
            barrier.settle(&gpu(0), SignalSeq(1));
        }
    });
    let known = observed.load(Ordering::SeqCst);
    let waits = barrier.waits(Some(&gpu(0)));
    block_on(barrier.wait(waits, BOUND)).expect("the bound does not pass");
    let read = decided.load(Ordering::SeqCst);
    assert!(read >= known, "a read of the old state");
    pipeline.join().expect("no panic");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn schedules() -> usize {
    let factor = number("DEVICE_API_SOAK").unwrap_or(1).max(1);
    SCHEDULES.saturating_mul(usize::try_from(factor).unwrap_or(usize::MAX))
}

fn seed() -> u64 {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or_default()
    };
    let seed = number("DEVICE_API_SEED").unwrap_or_else(now);
    eprintln!("DEVICE_API_SEED={seed} repeats this");
    seed
}

/// Runs a scenario in many interleavings.
fn explore(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let seed = seed();
    let random = RandomScheduler::new_from_seed(seed, schedules());
    Runner::new(random, Config::new()).run(scenario.clone());
    let preempting = PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules());
    Runner::new(preempting, Config::new()).run(scenario);
}

/// Some interleaving of the broken scenario must fail, and for this reason.
#[track_caller]
fn breaks(why: &str, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let failure = catch_unwind(AssertUnwindSafe(|| explore(scenario)))
        .expect_err("the model checker does not see what it is there for");
    let text = failure
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| {
            failure
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_default();
    assert!(text.contains(why), "failed for another reason: {text}");
}

#[test]
fn c2_a_read_that_begins_after_a_signal_was_observed_never_says_the_old_state() {
    explore(|| storm(Order::Right, false));
}

#[test]
fn c2_of_one_signal_and_one_reader_in_every_interleaving() {
    let tried = Runner::new(DfsScheduler::new(None, false), Config::new()).run(smallest);
    eprintln!("{tried} interleavings, all there are");
}

#[test]
fn c3_when_the_bound_passes_the_fallback_is_what_is_read() {
    explore(|| storm(Order::Right, true));
}

/// No lost wake-up, and no wait for what came later: signal 2 is never decided, the bound never
/// passes, and a read that began between 1 and 2 ends all the same.
#[test]
fn c2_a_read_waits_for_nothing_that_was_observed_after_it_began() {
    explore(|| {
        let house = House::new(Order::Right);
        house.observe(0, 1);
        house.observe(1, 2);
        let mut threads = Vec::new();
        for which in [Some(0), None] {
            let waits = house.barrier.waits(which.map(gpu).as_ref());
            let house = house.clone();
            threads.push(thread::spawn(move || {
                block_on(house.barrier.wait(waits, BOUND)).expect("the bound does not pass");
            }));
        }
        let storm = house.clone();
        threads.push(thread::spawn(move || storm.observe(0, 3)));
        for (n, seq) in [(0, 1), (1, 2)] {
            let house = house.clone();
            threads.push(thread::spawn(move || house.decide(n, seq)));
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(house.barrier.waits(None), [(gpu(0), SignalSeq(3))]);
    });
}

/// Another GPU's readers never wait: its decision never comes.
#[test]
fn c2_a_signal_of_one_gpu_holds_no_reader_of_another() {
    explore(|| {
        let house = House::new(Order::Right);
        let observer = house.clone();
        let observed = thread::spawn(move || observer.observe(0, 1));
        assert!(!house.read(Some(1)));
        observed.join().expect("no panic");
    });
}

#[test]
fn a_decision_that_is_settled_before_it_is_written_is_found_out() {
    breaks("the old state", || {
        storm(Order::SettledBeforeWritten, false)
    });
}

#[test]
fn a_signal_that_is_known_before_its_barrier_is_up_is_found_out() {
    breaks("the old state", || {
        storm(Order::ObservedBeforeRaised, false)
    });
}

#[test]
fn a_read_that_takes_the_state_before_it_waits_is_found_out() {
    breaks("the old state", || storm(Order::ReadBeforeBarrier, false));
}

#[test]
fn a_fallback_that_is_written_after_the_reader_went_is_found_out() {
    breaks("the old state", || storm(Order::FallbackAfterRead, true));
}

#[test]
fn a_write_in_two_steps_is_found_out() {
    breaks("a torn read", || storm(Order::WrittenInTwo, false));
}

/// A reader that looked before it listened would sleep for ever: what `enable` is there for.
#[test]
fn a_lost_wake_up_is_found_out() {
    breaks("deadlock", || {
        sync::be_deaf();
        storm(Order::Right, false);
    });
}
