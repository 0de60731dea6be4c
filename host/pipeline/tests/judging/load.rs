//! Swaps and storms, from several threads at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, PolicyFailure, PolicyId, PolicyInfo,
};
use device_api_core::ports::{DeviceCache as _, Onlooker, Policy, Reply};
use device_api_core::seating::{Committed, Seating, Terms};
use device_api_core::signal::{Observation, SignalKind, Source, Target};

use crate::rig::*;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A policy with a thread of its own that counts signals, repeats included, in its state. Of many
/// at once it fails now and then.
#[derive(Debug)]
pub(crate) struct Counting {
    info: PolicyInfo,
    terms: Terms,
    thread: Mutex<Sender<(Evaluation, Reply)>>,
}

impl Counting {
    pub(crate) fn new(name: &str, answered: Sender<()>) -> Arc<Self> {
        Self::out(name, answered, Arc::default())
    }

    /// One that answers nothing while it is out, as what is quarantined.
    pub(crate) fn out(name: &str, answered: Sender<()>, is_out: Arc<AtomicBool>) -> Arc<Self> {
        let (thread, asked) = channel::<(Evaluation, Reply)>();
        std::thread::spawn(move || {
            for (calls, (evaluation, reply)) in asked.into_iter().enumerate() {
                reply(if is_out.load(Ordering::Relaxed) {
                    Err(PolicyFailure {
                        kind: FailureKind::Unavailable,
                        detail: "it is quarantined".to_owned(),
                    })
                } else if evaluation.signals.len() > 1 && calls % 3 == 0 {
                    Err(PolicyFailure {
                        kind: FailureKind::Trap,
                        detail: "on purpose".to_owned(),
                    })
                } else {
                    Ok(counted(&evaluation))
                });
                // Nobody listens once the test is over.
                let _ = answered.send(());
            }
        });
        let id = PolicyId {
            name: name.into(),
            version: "1".into(),
            digest: "0".repeat(64).into(),
        };
        Arc::new(Self {
            info: PolicyInfo {
                id,
                state_schema: 1,
                subscriptions: vec![every(SignalKind::Xid)],
                owns: vec![],
                readings: vec![],
            },
            terms: Terms::default(),
            thread: Mutex::new(thread),
        })
    }
}

fn counted(evaluation: &Evaluation) -> Evaluated {
    let mut state = evaluation.state.clone();
    let repeats: u32 = evaluation.signals.iter().map(|signal| signal.repeats).sum();
    let count = count_of(&state) + repeats;
    state.insert("n".to_owned(), count.to_be_bytes().to_vec());
    Evaluated {
        state,
        ..Evaluated::default()
    }
}

fn count_of(state: &device_api_core::verdict::PolicyState) -> u32 {
    let count = state
        .get("n")
        .map(|bytes| bytes.as_slice().try_into().unwrap());
    count.map_or(0, u32::from_be_bytes)
}

impl Policy for Counting {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        self.thread
            .lock()
            .unwrap()
            .send((evaluation, reply))
            .unwrap();
    }
}

pub(crate) fn name(at: u32) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-{at}"))
}

pub(crate) fn fault(at: u32, code: u64) -> Observation {
    Observation {
        target: Target::Uuid(name(at)),
        source: Source::Nvml,
        ..xid(code)
    }
}

/// What a policy durably counted, of all GPUs.
pub(crate) fn durable(rig: &Rig, policy: &str) -> u32 {
    let memories = rig.cache.memories.lock().unwrap();
    let policies = memories.values().flat_map(|memory| &memory.policies);
    let its = policies.filter(|memory| &*memory.policy == policy);
    its.map(|memory| count_of(&memory.state)).sum()
}

#[track_caller]
pub(crate) fn await_count(rig: &Rig, policy: &str, expected: u32, answered: &Receiver<()>) {
    while durable(rig, policy) != expected {
        if answered.recv_timeout(PATIENCE).is_err() {
            assert_eq!(durable(rig, policy), expected, "{policy}");
        }
    }
}

#[test]
fn h4_h6_over_a_thousand_swaps_under_load_no_signal_is_lost_and_none_is_committed_twice() {
    const SWAPS: u32 = 1_000;
    const SIGNALS_PER_SWAP: u32 = 5;
    const GPUS: u32 = 3;
    let (answered, answers) = channel();
    let rig = Rig::new(&[]);
    for at in 0..GPUS {
        rig.cache.upsert_device(DeviceInfo::bare(name(at))).unwrap();
    }
    let seat = |name| {
        rig.seats
            .seat(Seating {
                policy: Counting::new(name, answered.clone()),
                rejudged: Vec::new(),
                insist: false,
            })
            .unwrap();
    };
    seat("steady");
    seat("swapped");
    let (is_over, injected) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for at in 0..GPUS {
            let (rig, is_over, injected) = (&rig, &is_over, &injected);
            scope.spawn(move || {
                let mut code = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // More codes than a batch holds, with repeats among them.
                    code = (code * 7 + u64::from(at) + 1) % 101;
                    rig.sink.observe(fault(at, 1000 + code));
                    injected.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
        }
        for swap in 1..=SWAPS {
            seat("swapped");
            while injected.load(Ordering::Relaxed) < SIGNALS_PER_SWAP * swap {
                std::thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let injected = injected.load(Ordering::Relaxed);
    await_count(&rig, "swapped", injected, &answers);
    await_count(&rig, "steady", injected, &answers);
    // And nothing comes after.
    rig.later(Duration::from_mins(5));
    for name in ["swapped", "steady"] {
        assert_eq!(durable(&rig, name), injected);
    }
    for at in 0..GPUS {
        assert!(!rig.cache.is_up(&name(at)));
    }
}

/// Tells when a GPU's first batch was committed.
#[derive(Debug, Default)]
struct Firsts {
    seen: Mutex<HashMap<DeviceUuid, usize>>,
    changed: Condvar,
    widest: AtomicU32,
}

impl Onlooker for Firsts {
    fn committed(&self, batch: &Committed) {
        let width = u32::try_from(batch.signals.len()).unwrap();
        self.widest.fetch_max(width, Ordering::Relaxed);
        let uuid = batch.device.uuid.clone();
        *self.seen.lock().unwrap().entry(uuid).or_default() += 1;
        self.changed.notify_all();
    }
}

impl Firsts {
    #[track_caller]
    fn await_one(&self, uuid: &DeviceUuid) {
        let seen = self.seen.lock().unwrap();
        let (_seen, waited) = self
            .changed
            .wait_timeout_while(seen, PATIENCE, |seen| !seen.contains_key(uuid))
            .unwrap();
        assert!(!waited.timed_out(), "{uuid} was never decided");
    }
}

#[test]
fn a_storm_of_one_gpu_stays_small_and_delays_no_other_gpus_first_fault() {
    const STORM: u32 = 100_000;
    const FAULTS: u32 = 40;
    let (answered, answers) = channel();
    let rig = Rig::new(&[]);
    for at in 0..=2 * FAULTS {
        rig.cache.upsert_device(DeviceInfo::bare(name(at))).unwrap();
    }
    let firsts = Arc::new(Firsts::default());
    rig.pipeline.on_committed(firsts.clone());
    rig.seats
        .seat(Seating {
            policy: Counting::new("p", answered),
            rejudged: Vec::new(),
            insist: false,
        })
        .unwrap();
    // From the observation to the decision in the cache: the median, since others use the machine, too.
    let measure = |gpus: std::ops::Range<u32>| {
        let mut took: Vec<Duration> = gpus
            .map(|at| {
                let began = Instant::now();
                rig.sink.observe(fault(at, 79));
                firsts.await_one(&name(at));
                began.elapsed()
            })
            .collect();
        took.sort();
        took[took.len() / 2]
    };
    let quiet = measure(1..FAULTS + 1);
    let is_over = AtomicBool::new(false);
    let stormy = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut sent = 0;
            while sent < STORM || !is_over.load(Ordering::Relaxed) {
                rig.sink.observe(fault(0, 31));
                sent += 1;
            }
            sent
        });
        let stormy = measure(FAULTS + 1..2 * FAULTS + 1);
        is_over.store(true, Ordering::Relaxed);
        (stormy, storm.join().unwrap())
    });
    let (stormy, sent) = stormy;
    await_count(&rig, "p", sent + 2 * FAULTS, &answers);
    assert!(
        stormy <= quiet + Duration::from_millis(5),
        "{stormy:?} in the storm, {quiet:?} before it"
    );
    let journals = rig.seats.journals();
    assert_eq!(journals[0].signals.len(), 1);
    assert_eq!(journals[0].signals[0].repeats, sent);
    assert_eq!(
        firsts.widest.load(Ordering::Relaxed),
        1,
        "what waited was one"
    );
    let memories = rig.cache.memories.lock().unwrap();
    assert!(memories[&name(0)].assumed.is_empty());
}
