//! Each limit, hit by a guest.

use std::time::Duration;

use device_api_wasm::{CallError, GUEST_STACK_BYTES, Limits};

use crate::world::{ENDLESS, call, component, once, program, roomy, run, start, text};

/// Roomy, so that a busy machine does not decide the outcome.
const DEADLINE: Duration = Duration::from_millis(50);

#[test]
fn an_endless_loop_is_stopped_at_the_deadline() {
    let limits = Limits {
        call_deadline: DEADLINE,
        ..roomy()
    };
    let mut sandbox = start(&program(&run(ENDLESS), limits)).unwrap();
    let error = call(&mut sandbox).unwrap_err();
    let CallError::Deadline { limit, wall, cpu } = error else {
        panic!("{error:?}")
    };
    assert_eq!(limit, DEADLINE);
    assert!((DEADLINE..10 * DEADLINE).contains(&wall), "{wall:?}");
    assert!(
        cpu > Duration::ZERO && cpu <= wall + Duration::from_millis(1),
        "{cpu:?} of {wall:?}"
    );
    assert_eq!(sandbox.last_stats().wall, wall);
    assert!(sandbox.is_retired());
}

#[test]
fn a_call_that_takes_many_ticks_within_its_deadline_is_left_alone() {
    let busy = "(local.set $i (i32.const 50000000))
        (loop $next (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $next (local.get $i)))
        i32.const 9";
    let limits = Limits {
        call_deadline: Duration::from_secs(1),
        ..roomy()
    };
    let program = program(&run(busy), limits);
    let mut sandbox = start(&program).unwrap();
    assert_eq!(call(&mut sandbox), Ok(9));
    assert!(
        sandbox.last_stats().cpu > Duration::from_millis(3),
        "too short to see a tick"
    );
}

#[test]
fn starvation_is_told_from_guilt() {
    let late = |cpu| CallError::Deadline {
        limit: DEADLINE,
        wall: 2 * DEADLINE,
        cpu,
    };
    assert!(late(DEADLINE / 10).is_starvation());
    assert!(!late(DEADLINE).is_starvation());
    assert!(!CallError::Retired.is_starvation());
}

#[test]
fn memory_growth_past_the_limit_is_refused() {
    let grow =
        "(if (i32.eq (memory.grow (i32.const 300)) (i32.const -1)) (then unreachable)) i32.const 0";
    let error = once(&run(grow), roomy()).unwrap_err();
    let CallError::MemoryLimit {
        wanted_bytes,
        limit_bytes,
        then,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((wanted_bytes, limit_bytes), (301 * 65_536, 16 << 20));
    assert!(then.contains("unreachable"), "{then}");
}

#[test]
fn a_guest_may_get_over_a_refused_growth() {
    let grow = "(drop (memory.grow (i32.const 300))) i32.const 7";
    assert_eq!(once(&run(grow), roomy()), Ok(7));
}

#[test]
fn a_huge_minimum_memory_is_refused_at_the_start() {
    let body = r#"(func (export "run") (result i32) i32.const 0)"#;
    let error = start(&program(&component(60_000, body), roomy())).unwrap_err();
    assert!(
        matches!(error, CallError::MemoryLimit { wanted_bytes, .. } if wanted_bytes == 60_000 * 65_536)
    );
}

#[test]
fn memories_count_together() {
    let two = text(
        r#"(component
          (core module $a (memory 150)) (core instance (instantiate $a)) (core instance (instantiate $a))
          (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $m (instantiate $m))
          (func (export "run") (result u32) (canon lift (core func $m "run"))))"#,
    );
    let error = start(&program(&two, roomy())).unwrap_err();
    assert!(
        matches!(error, CallError::MemoryLimit { wanted_bytes, .. } if wanted_bytes == 300 * 65_536)
    );

    let wide = Limits {
        memory_bytes_max: 32 << 20,
        ..roomy()
    };
    start(&program(&two, wide)).unwrap();
    let named = |name, change: fn(&mut Limits)| {
        let mut limits = wide;
        change(&mut limits);
        (name, limits)
    };
    for (name, limits) in [
        named("memories-max", |limits| limits.memories_max = 1),
        named("instances-max", |limits| limits.instances_max = 2),
    ] {
        let error = start(&program(&two, limits)).unwrap_err();
        assert_eq!(error.kind(), "instantiate");
        assert_eq!(error.limit_name(true), Some(name), "{error}");
    }
}

#[test]
fn tables_are_limited() {
    let body = r#"(table $t 1 funcref) (func (export "run") (result i32)
      (if (i32.eq (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)) (then unreachable)) i32.const 0)"#;
    let error = once(&component(1, body), roomy()).unwrap_err();
    assert!(
        matches!(
            error,
            CallError::TableLimit {
                wanted: 100_001,
                limit: 65_536,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn deep_recursion_ends_in_a_stack_error() {
    let body = r#"(func $deep (param i32) (result i32) (i32.add (i32.const 1) (call $deep (local.get 0))))
      (func (export "run") (result i32) (call $deep (i32.const 1)))"#;
    let error = once(&component(1, body), roomy()).unwrap_err();
    assert_eq!(
        error,
        CallError::Stack {
            limit_bytes: GUEST_STACK_BYTES
        }
    );
}

#[test]
fn host_calls_are_counted_per_call() {
    let calls = |n: u32| {
        run(&format!(
            "(local.set $i (i32.const {n}))
             (loop $next (call $tick) (local.set $i (i32.sub (local.get $i) (i32.const 1)))
               (br_if $next (local.get $i))) i32.const 0"
        ))
    };
    let limits = Limits {
        host_calls_max: 10,
        ..roomy()
    };
    let mut sandbox = start(&program(&calls(10), limits)).unwrap();
    assert_eq!((call(&mut sandbox), call(&mut sandbox)), (Ok(0), Ok(0)));

    let mut sandbox = start(&program(&calls(11), limits)).unwrap();
    assert_eq!(call(&mut sandbox), Err(CallError::HostCalls { limit: 10 }));
    assert_eq!(sandbox.data().ticks, 10);
}

#[test]
fn what_the_host_copies_at_once_is_limited() {
    let take = |bytes: u32| {
        component(
            32,
            &format!(
                r#"(func (export "run") (result i32) (call $take (i32.const 0) (i32.const {bytes})) i32.const 0)"#
            ),
        )
    };
    let limits = Limits {
        crossing_bytes_max: 1 << 20,
        ..roomy()
    };
    assert_eq!(once(&take(500_000), limits), Ok(0));
    let error = once(&take(1_500_000), limits).unwrap_err();
    assert_eq!(
        error,
        CallError::CrossingLimit {
            limit_bytes: 1 << 20
        }
    );
}
