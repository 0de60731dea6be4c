//! Compiling leaves nothing behind. Alone in its file: it counts what this process has.

#![expect(clippy::unwrap_used, reason = "of a test's own means")]

use std::fs;
use std::time::Duration;

use device_api_wasm::{Compiler, CompilerSettings, Engine, Limits, LoadError, Worker};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn compiler(engine: &Engine, worker: &Worker, cache: &std::path::Path) -> Compiler {
    let settings = CompilerSettings {
        worker: worker.clone(),
        cache_dir: Some(cache.to_owned()),
        memory_bytes_max: 256 << 20,
        deadline: Duration::from_millis(300),
    };
    Compiler::new(engine.clone(), settings).unwrap()
}

/// Each way for a process to end, many times.
#[test]
fn h10_neither_descriptors_nor_zombies_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("code");
    let engine = Engine::new().unwrap();
    let component = |number: u32| {
        wat::parse_str(format!(
            "(component (core module (func (result i32) i32.const {number})))"
        ))
        .unwrap()
    };
    let worker = |program: &str, args: &[&str]| Worker {
        program: program.into(),
        args: args.iter().map(Into::into).collect(),
    };
    let good = worker(env!("CARGO_BIN_EXE_compile-worker"), &[]);
    let shell = |script: &str| worker("/bin/sh", &["-c", script]);
    let bad = [
        worker("/does/not/exist", &[]),
        shell("exit 1"),
        shell("kill -9 $$"),
        shell("/bin/cat /dev/zero"),
        shell("exec /bin/sleep 1000"),
    ];
    let limits = Limits::default();
    let round = |number| {
        let patient = CompilerSettings {
            worker: good.clone(),
            cache_dir: Some(cache.clone()),
            memory_bytes_max: 256 << 20,
            deadline: Duration::from_secs(60),
        };
        let patient = Compiler::new(engine.clone(), patient).unwrap();
        patient.load(&component(number), limits).unwrap();
        patient.load(&component(number), limits).unwrap();
        let mut invalid = component(number)[..8].to_vec();
        invalid.extend([7, 3, 0xff, 0xff, 0xff]);
        let error = patient.load(&invalid, limits).unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
        for worker in &bad {
            let compiler = compiler(&engine, worker, &cache);
            compiler.load(&component(1_000_000), limits).unwrap_err();
        }
    };
    round(0);
    let before = descriptors();
    for number in 1..6 {
        round(number);
    }
    assert_eq!(descriptors(), before);
    assert_eq!(wait(WaitOptions::NOHANG).unwrap_err(), Errno::CHILD);
    // Six components, and nothing of those that were refused.
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 6);
}
