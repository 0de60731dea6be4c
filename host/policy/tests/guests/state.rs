//! Design H3, H4: what a policy remembers is in its state, and the state counts only with the
//! decision.

use device_api_core::policy::FailureKind;
use device_api_core::verdict::PolicyState;

use crate::component::{Memory, moody};
use crate::house::{answered, ask_with, at_ms, evaluation, failed, load};

const COUNT: u64 = 1;
const COUNT_AND_TRAP: u64 = 2;
const COUNT_AND_REFUSE: u64 = 3;

/// Adds one to the byte under `n`, which lies at 16 meanwhile.
fn count(memory: &mut Memory) -> String {
    let key = memory.push("n");
    format!(
        "(i32.store (i32.const 16) (i32.const 0))
         (call $get {key} (i32.const 0))
         (if (i32.load8_u (i32.const 0)) (then (i32.store8 (i32.const 16) (i32.load8_u (i32.load (i32.const 4))))))
         (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)))
         (call $put {key} (i32.const 16) (i32.const 1) (i32.const 32))"
    )
}

fn counter() -> Vec<u8> {
    moody("counter", &["TestFault"], |memory| {
        let count = count(memory);
        let (nothing, refusal) = (memory.decision(&[]), memory.error("no"));
        vec![
            (COUNT, format!("{count} (i32.const {nothing})")),
            (COUNT_AND_TRAP, format!("{count} unreachable")),
            (COUNT_AND_REFUSE, format!("{count} (i32.const {refusal})")),
        ]
    })
}

fn state(n: u8) -> PolicyState {
    PolicyState::from([("n".to_owned(), vec![n])])
}

#[test]
fn h3_state_travels_with_the_evaluation_and_stays_nowhere_else() {
    let policy = load(counter());
    let count = |state| answered(ask_with(&policy, evaluation(vec![at_ms(COUNT)], state))).state;
    assert_eq!(count(PolicyState::new()), state(1));
    assert_eq!(count(state(1)), state(2));
    // Another device: nothing of the first one is left in the instance.
    assert_eq!(count(PolicyState::new()), state(1));
    assert_eq!(policy.counters().instances, 1);
}

#[test]
fn h4_what_a_failed_call_wrote_leaves_no_trace() {
    let policy = load(counter());
    let ask = |mood, n| ask_with(&policy, evaluation(vec![at_ms(mood)], state(n)));
    failed(ask(COUNT_AND_TRAP, 5), FailureKind::Trap, "unreachable");
    assert_eq!(answered(ask(COUNT, 5)).state, state(6));
    failed(ask(COUNT_AND_REFUSE, 6), FailureKind::Refused, "no");
    assert_eq!(answered(ask(COUNT, 6)).state, state(7));
}
