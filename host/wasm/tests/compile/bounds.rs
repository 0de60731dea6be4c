//! What a component may cost.

use std::time::{Duration, Instant};

use device_api_wasm::{CompileRefusal, CompilerError, Engine, Limits, LoadError};

use crate::house::{House, PATIENCE, chain, large, load, slow, small, text};

#[test]
fn h10_a_refusal_reads_as_if_the_daemon_had_compiled() {
    let house = House::new();
    let compiler = house.compiler();
    let here = Engine::new().unwrap();
    let whole = small(1);
    let mut nonsense = whole[..8].to_vec();
    nonsense.extend([7, 3, 0xff, 0xff, 0xff]);
    for (bytes, asked) in [
        (nonsense, 1),
        (text("(component (core module (memory 1 1 shared)))"), 1),
        (text("(module)"), 0),
        (b"hello".to_vec(), 0),
        (Vec::new(), 0),
        (whole[..whole.len() / 2].to_vec(), 0),
    ] {
        let before = compiler.counters().refused;
        let error = load(&compiler, &bytes).unwrap_err();
        let expected = here.load(&bytes, Limits::default()).unwrap_err();
        assert_eq!(chain(&error), chain(&expected));
        let asked_of_it = compiler.counters().refused[0] - before[0];
        assert_eq!(asked_of_it, asked, "{error}");
    }
    let limits = Limits {
        component_bytes_max: whole.len() - 1,
        ..Limits::default()
    };
    let error = compiler.load(&whole, limits).unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error:?}");
    // Nothing is kept of any of them.
    assert_eq!((house.cached().len(), compiler.counters().compiled), (0, 0));
}

#[test]
fn h10_a_compile_bomb_hits_the_deadline() {
    let mut house = House::new();
    house.settings.deadline = Duration::from_millis(700);
    let compiler = house.compiler();
    let begun = Instant::now();
    let error = load(&compiler, &slow()).unwrap_err();
    let LoadError::CompileDeadline { limit, cpu } = error else {
        panic!("{error:?}")
    };
    assert_eq!(limit, house.settings.deadline);
    assert!(cpu > Duration::ZERO && cpu <= begun.elapsed(), "{cpu:?}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let refused = CompileRefusal::ALL.iter().zip(compiler.counters().refused);
    let refused: Vec<_> = refused.filter(|(_, count)| *count > 0).collect();
    assert_eq!(refused, [(&CompileRefusal::Deadline, 1)]);
    assert!(house.cached().is_empty());

    // And nothing is the worse for it.
    house.settings.deadline = PATIENCE;
    load(&house.compiler(), &small(1)).unwrap();
}

#[test]
fn h10_a_compile_bomb_hits_the_memory_limit() {
    let mut house = House::new();
    house.settings.memory_bytes_max = 48 << 20;
    let compiler = house.compiler();
    let error = load(&compiler, &large()).unwrap_err();
    assert!(
        matches!(error, LoadError::CompileMemory { limit_bytes } if limit_bytes == 48 << 20),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "needs more than 48 MiB of memory to compile, which is what the compiler may use here: make it smaller, or raise the container's memory limit"
    );
    assert!(house.cached().is_empty());
    load(&compiler, &small(1)).unwrap();
}

#[test]
fn settings_that_bound_nothing_are_refused() {
    let with = |memory_bytes_max, deadline| {
        let mut house = House::new();
        house.settings.memory_bytes_max = memory_bytes_max;
        house.settings.deadline = deadline;
        house.open().unwrap_err()
    };
    for error in [with(0, PATIENCE), with(u64::MAX, PATIENCE)] {
        assert!(matches!(error, CompilerError::Memory { .. }), "{error:?}");
    }
    for error in [with(1 << 30, Duration::ZERO), with(1 << 30, Duration::MAX)] {
        assert!(matches!(error, CompilerError::Deadline { .. }), "{error:?}");
    }
}
