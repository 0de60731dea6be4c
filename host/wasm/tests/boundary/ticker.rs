//! The thread that enforces deadlines: awake during calls only, gone with the engine.

use std::time::{Duration, Instant};

use device_api_wasm::{Engine, Limits, TickerView};

use crate::world::{ENDLESS, call, program_on, roomy, run, start};

/// Far more than the tick it takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn wait_until_parked(ticker: &TickerView) {
    let begun = Instant::now();
    while !ticker.is_parked() {
        assert!(begun.elapsed() < PATIENCE, "still awake: {ticker:?}");
        std::thread::yield_now();
    }
}

#[test]
fn it_ticks_during_a_call_and_is_parked_after_it() {
    let engine = Engine::new().unwrap();
    let ticker = engine.ticker();
    wait_until_parked(&ticker);
    assert_eq!(ticker.ticks(), 0, "no call, no tick");

    let limits = Limits {
        call_deadline: Duration::from_millis(20),
        ..roomy()
    };
    let program = program_on(&engine, &run(ENDLESS), limits).unwrap();
    let mut sandbox = start(&program).unwrap();
    let in_flight = sandbox.call(|_, _| Ok(ticker.calls_in_flight())).unwrap();
    assert_eq!(in_flight, 1);
    assert_eq!(call(&mut sandbox).unwrap_err().kind(), "deadline");
    assert!(ticker.ticks() >= 1);
    assert_eq!(ticker.calls_in_flight(), 0);

    wait_until_parked(&ticker);
    let ticks = ticker.ticks();
    // A window to see nothing in, not a way to wait for something.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(ticker.ticks(), ticks, "an idle host is not woken");
}

#[test]
fn it_wakes_again_after_each_idle_time() {
    let engine = Engine::new().unwrap();
    let program = program_on(&engine, &run(ENDLESS), Limits::default()).unwrap();
    for _ in 0..20 {
        wait_until_parked(&engine.ticker());
        assert_eq!(
            call(&mut start(&program).unwrap()).unwrap_err().kind(),
            "deadline"
        );
    }
}

#[test]
fn calls_on_many_threads_share_it() {
    let engine = Engine::new().unwrap();
    let program = program_on(&engine, &run(ENDLESS), Limits::default()).unwrap();
    let kinds: Vec<&str> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| call(&mut start(&program).unwrap()).unwrap_err().kind()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(kinds, ["deadline"; 8]);
    assert_eq!(engine.ticker().calls_in_flight(), 0);
}

#[test]
fn a_panic_does_not_leave_it_armed() {
    let engine = Engine::new().unwrap();
    let program = program_on(&engine, &run("(call $boom) i32.const 0"), roomy()).unwrap();
    assert_eq!(
        call(&mut start(&program).unwrap()).unwrap_err().kind(),
        "host-panic"
    );
    assert_eq!(engine.ticker().calls_in_flight(), 0);
}

#[test]
fn it_ends_with_the_last_thing_made_from_its_engine() {
    let engine = Engine::new().unwrap();
    let ticker = engine.ticker();
    let program = program_on(&engine, &run("i32.const 0"), roomy()).unwrap();
    let mut sandbox = start(&program).unwrap();
    drop((engine, program));
    assert_eq!(call(&mut sandbox), Ok(0));
    assert!(ticker.is_running());
    drop(sandbox);
    assert!(!ticker.is_running());
}
