//! Design H5: every way to fail ends in one clear failure for the call at hand, and the next call
//! works.

use std::sync::mpsc;
use std::time::Duration;

use device_api_core::action::Action;
use device_api_core::limits::EVALUATIONS_WAITING_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::ports::Policy;
use device_api_core::verdict::{ClearOn, Decision, PolicyState};
use device_api_policy::{GuestLimits, LoadedPolicy};

use crate::component::{GOOD, Memory, Verdict, moody, quiet};
use crate::house::{answered, ask, at_ms, evaluation, failed, load, roomy, source, try_load};

const ENDLESS: u64 = 1;
const PANIC: u64 = 2;
const ERR: u64 = 3;
const FOREIGN_TYPE: u64 = 4;
const HOG: u64 = 5;
const FOREIGN_REASON: u64 = 6;
const FOREIGN_CAUSE: u64 = 7;
const FLOOD: u64 = 8;
const UNKNOWN_WORDS: u64 = 9;
const OUT_OF_BOUNDS: u64 = 10;
const FINE: u64 = 11;
const BAD_POINTER: u64 = 12;

/// Every misdeed in one component.
fn rogue() -> Vec<u8> {
    moody("rogue", &["TestFault"], |memory| {
        let words = memory.push("panicked at src/lib.rs:7:\nthe \x1b[31mend");
        let decision = |verdict: Verdict<'_>, memory: &mut Memory| {
            format!("(i32.const {})", memory.decision(&[verdict]))
        };
        let refusal = memory.error("no idea\x07");
        vec![
            (ENDLESS, "(loop (br 0)) (i32.const 0)".to_owned()),
            (
                PANIC,
                format!("(call $log (i32.const 3) {words}) unreachable"),
            ),
            (ERR, format!("(i32.const {refusal})")),
            (
                FOREIGN_TYPE,
                decision(
                    Verdict {
                        condition: "Ready",
                        ..GOOD
                    },
                    memory,
                ),
            ),
            (
                HOG,
                "(loop (br_if 0 (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable"
                    .to_owned(),
            ),
            (
                FOREIGN_REASON,
                decision(
                    Verdict {
                        reason: "Whim",
                        ..GOOD
                    },
                    memory,
                ),
            ),
            (
                FOREIGN_CAUSE,
                decision(Verdict { cause: 99, ..GOOD }, memory),
            ),
            (
                FLOOD,
                "(loop (drop (call $now)) (br 0)) (i32.const 0)".to_owned(),
            ),
            (
                UNKNOWN_WORDS,
                decision(
                    Verdict {
                        action: "MAKE_COFFEE",
                        clear: "new-moon",
                        ..GOOD
                    },
                    memory,
                ),
            ),
            (OUT_OF_BOUNDS, "(i32.load (i32.const -4))".to_owned()),
            (FINE, decision(GOOD, memory)),
            (BAD_POINTER, "(i32.const -8)".to_owned()),
        ]
    })
}

#[track_caller]
fn works(policy: &LoadedPolicy) {
    let decision = answered(ask(policy, at_ms(FINE))).decision;
    assert_eq!(decision.verdicts.len(), 1);
    assert_eq!(decision.verdicts[0].message, r"it \u{1b}[1mbroke");
}

/// A misdeed, its failure, and a new instance that works.
#[track_caller]
fn check(mood: u64, kind: FailureKind, word: &str) {
    let policy = load(rogue());
    works(&policy);
    failed(ask(&policy, at_ms(mood)), kind, word);
    works(&policy);
    let counters = policy.counters();
    assert_eq!((counters.calls, counters.instances), (3, 2));
    let of_kind = FailureKind::ALL
        .iter()
        .position(|known| *known == kind)
        .unwrap();
    assert_eq!(
        (
            counters.failures[of_kind],
            counters.failures.iter().sum::<u64>()
        ),
        (1, 1)
    );
}

#[test]
fn h2_an_endless_loop_ends_at_the_deadline_and_the_next_signal_is_judged() {
    check(
        ENDLESS,
        FailureKind::Deadline,
        "ran past its deadline of 1s",
    );
}

#[test]
fn the_default_deadline_is_5_ms() {
    let mut source = source(rogue());
    source.limits = GuestLimits {
        start_deadline: roomy().start_deadline,
        ..GuestLimits::default()
    };
    let policy = try_load(&source).unwrap();
    failed(
        ask(&policy, at_ms(ENDLESS)),
        FailureKind::Deadline,
        "deadline of 5ms",
    );
}

#[test]
fn a_panic_is_a_trap_with_the_guests_last_words() {
    check(
        PANIC,
        FailureKind::Trap,
        r"its last error: panicked at src/lib.rs:7:\nthe \u{1b}[31mend",
    );
}

#[test]
fn h2_memory_is_limited() {
    check(HOG, FailureKind::Trap, "at most 16777216 are allowed");
}

#[test]
fn h2_host_calls_are_limited() {
    check(FLOOD, FailureKind::Trap, "more than 4096 host calls");
}

#[test]
fn an_access_out_of_bounds_is_a_trap() {
    check(
        OUT_OF_BOUNDS,
        FailureKind::Trap,
        "out of bounds memory access",
    );
}

#[test]
fn an_answer_outside_of_its_memory_is_invalid() {
    check(BAD_POINTER, FailureKind::Invalid, "");
}

/// The call came to its end: its instance stays.
#[track_caller]
fn check_words(mood: u64, kind: FailureKind, word: &str) {
    let policy = load(rogue());
    failed(ask(&policy, at_ms(mood)), kind, word);
    works(&policy);
    assert_eq!(policy.counters().instances, 1);
}

#[test]
fn a_guests_own_error_is_a_refusal() {
    check_words(ERR, FailureKind::Refused, r"no idea\u{7}");
}

#[test]
fn a_decision_outside_of_the_contract_is_refused_as_a_whole_saying_where() {
    check_words(
        FOREIGN_TYPE,
        FailureKind::Invalid,
        r#"verdicts[0] ("Ready"): the policy did not declare"#,
    );
    check_words(
        FOREIGN_REASON,
        FailureKind::Invalid,
        r#"reason "Whim" is not one that info.owns declared"#,
    );
    check_words(
        FOREIGN_CAUSE,
        FailureKind::Invalid,
        "cause 99 is no signal of this call",
    );
}

#[test]
fn unknown_words_are_read_as_the_contract_says_and_counted() {
    let policy = load(rogue());
    let decision = answered(ask(&policy, at_ms(UNKNOWN_WORDS))).decision;
    assert_eq!(decision.verdicts[0].action, Action::ContactSupport);
    assert_eq!(decision.verdicts[0].clears[0].on, ClearOn::Operator);
    assert_eq!(policy.counters().unknown_words, 2);
}

#[test]
fn h2_lines_of_a_storm_are_left_out_and_counted() {
    let bytes = moody("chatty", &[], |memory| {
        let line = memory.push("hello");
        let decision = memory.decision(&[]);
        let once = format!(
            "(call $log (i32.const 0) {line}) (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        );
        vec![(
            FINE,
            format!(
                "(loop {once} (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000)))) (i32.const {decision})"
            ),
        )]
    });
    let policy = load(bytes);
    assert_eq!(
        answered(ask(&policy, at_ms(FINE))).decision,
        Decision::default()
    );
    assert!(
        policy.counters().log_lines_suppressed > 900,
        "{:?}",
        policy.counters()
    );
}

#[test]
fn h3_an_instance_is_replaced_when_it_is_worn_and_nobody_notices() {
    let mut source = source(rogue());
    source.limits.calls_per_instance_max = 2;
    let policy = try_load(&source).unwrap();
    for _ in 0..6 {
        works(&policy);
    }
    let counters = policy.counters();
    assert_eq!(counters.calls, 6);
    assert!(counters.instances >= 3, "{counters:?}");
}

/// Keeps the policy's thread in a reply until the sender given back is used or dropped.
fn hold(policy: &LoadedPolicy) -> mpsc::Sender<()> {
    let (gate, opened) = mpsc::channel::<()>();
    let (entered, is_in) = mpsc::channel();
    let reply = Box::new(move |_| {
        entered.send(()).unwrap();
        // An error is the gate's way of opening too.
        let _ = opened.recv();
    });
    policy.evaluate(evaluation(vec![at_ms(FINE)], PolicyState::new()), reply);
    is_in.recv_timeout(Duration::from_secs(30)).unwrap();
    gate
}

#[test]
fn evaluate_does_not_wait_and_every_call_is_answered_once() {
    let policy = load(rogue());
    let gate = hold(&policy);
    let (answer, answers) = mpsc::channel();
    for call in 0..EVALUATIONS_WAITING_MAX + 2 {
        let answer = answer.clone();
        let reply = Box::new(move |outcome| answer.send((call, outcome)).unwrap());
        policy.evaluate(evaluation(vec![at_ms(FINE)], PolicyState::new()), reply);
    }
    drop(answer);
    // The queue is bounded: the two that are too many are told at once.
    for call in [EVALUATIONS_WAITING_MAX, EVALUATIONS_WAITING_MAX + 1] {
        let (told, outcome) = answers.try_recv().unwrap();
        assert_eq!(told, call);
        failed(
            outcome,
            FailureKind::Unavailable,
            "evaluations wait already",
        );
    }
    assert!(answers.try_recv().is_err(), "the others wait");
    drop(gate);
    // Those that the thread still came to are decided, the rest is told that it is gone.
    drop(policy);
    let mut calls = Vec::new();
    while let Ok((call, outcome)) = answers.recv_timeout(Duration::from_secs(30)) {
        calls.push(call);
        if outcome.is_err() {
            failed(outcome, FailureKind::Unavailable, "thread is gone");
        }
    }
    assert_eq!(calls, (0..EVALUATIONS_WAITING_MAX).collect::<Vec<_>>());
}

#[test]
fn the_last_handle_may_go_in_a_reply() {
    let policy = load(quiet("quiet", &[]));
    let (answer, answers) = mpsc::channel();
    let handle = policy.clone();
    let reply = Box::new(move |_| {
        // Waits until the test's own handle is gone, so that this one is the last.
        while std::sync::Arc::strong_count(&handle) > 1 {
            std::thread::yield_now();
        }
        drop(handle);
        answer.send(()).unwrap();
    });
    policy.evaluate(evaluation(vec![at_ms(FINE)], PolicyState::new()), reply);
    drop(policy);
    answers.recv_timeout(Duration::from_secs(30)).unwrap();
}

#[test]
fn a_reply_that_panics_costs_nobody_else_an_answer() {
    let policy = load(rogue());
    policy.evaluate(
        evaluation(vec![at_ms(FINE)], PolicyState::new()),
        Box::new(|_| panic!("the reply's own")),
    );
    works(&policy);
}
