//! What becomes of a sandbox when a call fails, and when it does not.

use device_api_wasm::{CallError, Limits, Sandbox, Wear};

use crate::world::{ENDLESS, Seen, call, component, program, roomy, run, start};

/// Traps at the second call, and counts in memory.
const SECOND_CALL_TRAPS: &str = "
  (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
  (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1)) (then unreachable))
  (i32.load (i32.const 0))";

#[test]
fn an_instance_is_warm_between_calls() {
    let count = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                 (call $tick) (i32.load (i32.const 0))";
    let mut sandbox = start(&program(&run(count), roomy())).unwrap();
    assert_eq!((call(&mut sandbox), call(&mut sandbox)), (Ok(1), Ok(2)));
    assert_eq!(sandbox.data().ticks, 2);
    assert_eq!(sandbox.last_stats().memory_bytes, 65_536);
    assert_eq!(sandbox.needs_replacement(), None);
}

#[test]
fn a_trap_retires_the_sandbox_and_a_new_one_starts_clean() {
    let program = program(&run(SECOND_CALL_TRAPS), roomy());
    let mut sandbox = start(&program).unwrap();
    assert_eq!(call(&mut sandbox), Ok(1));
    let CallError::Trap { message, at } = call(&mut sandbox).unwrap_err() else {
        panic!()
    };
    assert!(message.contains("unreachable"), "{message}");
    assert_eq!(at, "run");

    assert!(sandbox.is_retired());
    assert_eq!(sandbox.needs_replacement(), Some(Wear::Retired));
    let mut entered = false;
    let again = sandbox.call(|_, _| {
        entered = true;
        Ok(())
    });
    assert_eq!((again, entered), (Err(CallError::Retired), false));

    assert_eq!(call(&mut start(&program).unwrap()), Ok(1));
}

#[test]
fn what_host_functions_kept_is_readable_after_a_failure() {
    let mut sandbox = start(&program(&run("(call $tick) unreachable"), roomy())).unwrap();
    assert_eq!(call(&mut sandbox).unwrap_err().kind(), "trap");
    assert_eq!(sandbox.data().ticks, 1);
}

#[test]
fn a_panic_in_a_host_function_ends_as_an_error_of_the_call() {
    let program = program(&run("(call $boom) i32.const 0"), roomy());
    let mut sandbox = start(&program).unwrap();
    let message = "the host's own mistake".to_owned();
    assert_eq!(call(&mut sandbox), Err(CallError::HostPanic { message }));
    assert!(sandbox.is_retired());
    assert_eq!(program.clone().digest(), program.digest());
    drop(sandbox);
    // The engine, and this thread, go on.
    assert_eq!(
        call(&mut start(&program).unwrap()).unwrap_err().kind(),
        "host-panic"
    );
}

#[test]
fn a_panic_in_the_callers_closure_is_caught_too() {
    let program = program(&run("i32.const 0"), roomy());
    let started = Sandbox::start(&program, Seen::default(), |_, _| -> wasmtime::Result<()> {
        panic!("of {}", 1)
    });
    assert_eq!(
        started.unwrap_err(),
        CallError::HostPanic {
            message: "of 1".to_owned()
        }
    );
}

#[test]
fn configure_runs_in_the_new_instance_and_its_result_comes_back() {
    let program = program(&run("(call $tick) i32.const 5"), roomy());
    let (sandbox, configured) = Sandbox::start(&program, Seen::default(), |store, run| {
        Ok(run.call(store, ())?.0)
    })
    .unwrap();
    assert_eq!((configured, sandbox.data().ticks), (5, 1));

    let refused = Sandbox::start(&program, Seen::default(), |_, _| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("no such\nsetting"))
    });
    assert_eq!(
        refused.unwrap_err(),
        CallError::Host {
            message: "no such setting".to_owned()
        }
    );
}

#[test]
fn a_start_function_is_within_the_start_deadline() {
    let body = format!(
        r#"(func $init (result i32) {ENDLESS}) (func $s (drop (call $init))) (start $s)
           (func (export "run") (result i32) i32.const 0)"#
    );
    let error = start(&program(&component(1, &body), Limits::default())).unwrap_err();
    assert!(
        matches!(error, CallError::Deadline { limit, .. } if limit == Limits::default().start_deadline)
    );
}

#[test]
fn a_worn_instance_says_so_and_still_works() {
    let limits = Limits {
        calls_per_instance_max: 2,
        ..roomy()
    };
    let mut sandbox = start(&program(&run("i32.const 1"), limits)).unwrap();
    assert_eq!(
        (call(&mut sandbox), sandbox.needs_replacement()),
        (Ok(1), None)
    );
    assert_eq!(
        (call(&mut sandbox), sandbox.needs_replacement()),
        (Ok(1), Some(Wear::Calls))
    );
    assert_eq!(call(&mut sandbox), Ok(1));

    let grow = "(memory.grow (i32.const 230))";
    let mut sandbox = start(&program(&run(grow), roomy())).unwrap();
    assert_eq!(
        (call(&mut sandbox), sandbox.needs_replacement()),
        (Ok(1), Some(Wear::Memory))
    );
    assert_eq!(sandbox.last_stats().memory_bytes, 231 * 65_536);
}
