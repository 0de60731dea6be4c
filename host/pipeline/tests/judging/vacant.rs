//! Seats whose policy is not asked, or that are empty, and are filled again (design H4, H5, H8): what is logged of
//! it, and what becomes of the signals.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::condition::FALLBACK;
use device_api_core::device::DeviceInfo;
use device_api_core::limits::FAILED_PER_POLICY_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::ports::DeviceCache as _;
use device_api_core::seating::Seating;
use device_api_core::signal::SignalKind;
use device_api_core::verdict::{Judgement, Severity};

use crate::load::{Counting, await_count, durable, fault, name};
use crate::log::of_policy;
use crate::rig::*;

#[test]
fn h2_h5_ten_thousand_signals_of_a_quarantined_policy_leave_few_lines_and_an_idle_node_none() {
    const SIGNALS: u64 = 10_000;
    const NAME: &str = "vacant-quarantined";
    let out = Scripted::new(
        NAME,
        vec![every(SignalKind::Xid)],
        fails(FailureKind::Unavailable),
    );
    let rig = Rig::new(std::slice::from_ref(&out));
    rig.seats.report(NAME, Some("it is quarantined".to_owned()));
    for at in 0..SIGNALS {
        rig.xid(1000 + at % 200);
        out.answer_all();
    }
    let stormy = of_policy(NAME).len();
    assert!(stormy <= 2, "{stormy} lines");
    // Nobody is asked again, and what was left out is told of, once.
    let mut quiet = 0;
    for second in 0..600 {
        rig.later(Duration::from_secs(1));
        assert_eq!(out.waiting(), 0, "asked again after {second} s");
        if second == 120 {
            quiet = of_policy(NAME).len();
        }
    }
    let lines = of_policy(NAME);
    assert_eq!(lines.len(), quiet, "an idle node writes");
    assert!(lines.len() <= stormy + 2, "{lines:#?}");
    let left_out: u64 = lines.iter().map(|line| line.suppressed).sum();
    // The last line is of what was left out alone.
    assert_eq!(lines.len() as u64 - 1 + left_out, SIGNALS, "{lines:#?}");
}

#[test]
fn h8_what_a_policy_failed_on_while_it_was_out_is_asked_when_it_may_be_asked_again() {
    for is_resumed in [true, false] {
        let works = Arc::new(Mutex::new(false));
        let judge = {
            let works = works.clone();
            move |evaluation: &_| match *works.lock().unwrap() {
                true => says("p", Judgement::Problem, Severity::Info, Action::None)(evaluation),
                false => fails(FailureKind::Unavailable)(evaluation),
            }
        };
        let policy = Scripted::new("p", vec![every(SignalKind::Xid)], judge);
        let rig = Rig::new(std::slice::from_ref(&policy));
        // Before the host hears of it.
        rig.xid(119);
        policy.answer();
        rig.seats.report("p", Some("paused".to_owned()));
        rig.xid(13);
        policy.answer();
        rig.later(Duration::from_mins(10));
        assert_eq!(policy.waiting(), 0);
        let is_assumed = || {
            rig.cache
                .condition(&gpu(), FALLBACK)
                .expect("told")
                .is_problem()
        };
        assert!(is_assumed());
        *works.lock().unwrap() = true;
        let asked = if is_resumed {
            rig.seats.report("p", None);
            policy
        } else {
            let next = Scripted::new(
                "p",
                vec![every(SignalKind::Xid)],
                says("p", Judgement::Problem, Severity::Info, Action::None),
            );
            rig.seat(&next).unwrap();
            rig.seats.report("p", None);
            next
        };
        let mut codes = Vec::new();
        while asked.waiting() > 0 {
            codes.extend(asked.answer().iter().filter_map(|signal| signal.code));
        }
        assert_eq!(codes, [119, 13], "each once, in their order, and at once");
        rig.later(Duration::from_mins(10));
        assert_eq!(asked.waiting(), 0);
        assert!(!is_assumed());
    }
}

const GPUS: u32 = 3;

/// Runs `each` so often while faults of all GPUs come, as many as it lets: it adds to what is left to come.
/// Returns how many came.
fn under_load(rig: &Rig, rounds: u32, mut each: impl FnMut(&AtomicU32, &AtomicU32)) -> u32 {
    let (is_over, left, came) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for at in 0..GPUS {
            let (is_over, left, came) = (&is_over, &left, &came);
            scope.spawn(move || {
                let mut code = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let take = |left: u32| left.checked_sub(1);
                    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
                    if taken.is_err() {
                        std::thread::yield_now();
                        continue;
                    }
                    code = (code * 7 + u64::from(at) + 1) % 101;
                    rig.sink.observe(fault(at, 1000 + code));
                    came.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..rounds {
            each(&left, &came);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    came.load(Ordering::Relaxed)
}

fn nodes() -> Rig {
    let rig = Rig::new(&[]);
    for at in 0..GPUS {
        rig.cache.upsert_device(DeviceInfo::bare(name(at))).unwrap();
    }
    rig
}

#[test]
fn h4_h5_from_a_quarantined_version_to_the_last_good_one_under_load_each_signal_is_committed_once()
{
    const ROUNDS: u32 = 200;
    // All of them may be of one GPU, and fail.
    const A_ROUND: u32 = FAILED_PER_POLICY_MAX as u32;
    let (answered, answers) = channel();
    let rig = nodes();
    let seat = |name, is_out: &Arc<AtomicBool>| {
        let policy = Counting::out(name, answered.clone(), is_out.clone());
        let (rejudged, insist) = (Vec::new(), false);
        let seating = Seating {
            policy,
            rejudged,
            insist,
        };
        rig.seats.seat(seating).unwrap();
    };
    seat("steady", &Arc::default());
    let mut is_out = Arc::<AtomicBool>::default();
    seat("brittle", &is_out);
    let mut expected = 0;
    let came = under_load(&rig, ROUNDS, |left, came| {
        let await_came = |more| {
            while came.load(Ordering::Relaxed) < expected + more {
                std::thread::yield_now();
            }
        };
        left.fetch_add(A_ROUND, Ordering::Relaxed);
        await_came(A_ROUND / 4);
        is_out.store(true, Ordering::Relaxed);
        rig.seats.report("brittle", Some("quarantined".to_owned()));
        await_came(A_ROUND / 2);
        is_out = Arc::default();
        seat("brittle", &is_out);
        rig.seats.report("brittle", None);
        await_came(A_ROUND);
        expected += A_ROUND;
        await_count(&rig, "brittle", expected, &answers);
    });
    assert_eq!(came, expected);
    await_count(&rig, "steady", came, &answers);
    rig.later(Duration::from_mins(5));
    for name in ["brittle", "steady"] {
        assert_eq!(durable(&rig, name), came, "{name}");
    }
    for at in 0..GPUS {
        assert!(!rig.cache.is_up(&name(at)));
    }
}

#[test]
fn h4_h6_over_seats_that_are_emptied_and_filled_under_load_none_is_committed_twice() {
    const ROUNDS: u32 = 500;
    const A_ROUND: u32 = 20;
    let (answered, answers) = channel();
    let rig = nodes();
    let seat = |name| {
        let policy = Counting::out(name, answered.clone(), Arc::default());
        let (rejudged, insist) = (Vec::new(), false);
        let seating = Seating {
            policy,
            rejudged,
            insist,
        };
        rig.seats.seat(seating).unwrap();
    };
    seat("steady");
    seat("comes-and-goes");
    let mut expected = 0;
    let came = under_load(&rig, ROUNDS, |left, came| {
        left.fetch_add(A_ROUND, Ordering::Relaxed);
        expected += A_ROUND;
        rig.seats.unseat("comes-and-goes");
        seat("comes-and-goes");
        while came.load(Ordering::Relaxed) < expected {
            std::thread::yield_now();
        }
    });
    // Who was there all the time has missed nothing.
    await_count(&rig, "steady", came, &answers);
    rig.later(Duration::from_mins(5));
    let is_settled = || (0..GPUS).all(|at| !rig.cache.is_up(&name(at)));
    while !is_settled() {
        answers.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    assert_eq!(durable(&rig, "steady"), came);
    let counted = durable(&rig, "comes-and-goes");
    assert!(0 < counted && counted <= came, "{counted} of {came}");
}
