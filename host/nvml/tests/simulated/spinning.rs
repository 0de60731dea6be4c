//! Nothing spins: what the process uses of a processor in each bad state (design N2).

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use device_api_core::ports::NvmlControl;
use device_api_core::recovery::{Release, ReleaseFor};
use device_api_nvml::{Config, Handle};

use crate::harness::{Recorder, Sim, isolated, start, until, wait};

const WATCHED: Duration = Duration::from_secs(1);

/// A tenth of a processor. A thread that spins uses a whole one.
const CPU_MAX: Duration = Duration::from_millis(100);

/// Processor time of all threads until now.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let ns = tasks.filter_map(|task| {
        // It may have ended by now.
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

#[track_caller]
fn check(what: &str) {
    let before = cpu();
    let start = Instant::now();
    thread::sleep(WATCHED);
    let used = cpu().saturating_sub(before);
    assert!(used < CPU_MAX, "{what}: {used:?} of {:?}", start.elapsed());
}

/// As on a node: with the intervals' defaults.
fn config(sim: &Sim) -> Config {
    Config {
        library: Some(sim.library.clone()),
        hung_after: Duration::from_millis(200),
        ..Config::default()
    }
}

fn run(sim: &Sim) -> (std::sync::Arc<Recorder>, Handle) {
    sim.start(config(sim))
}

#[test]
fn n2_a_missing_library_costs_nothing() {
    isolated("spinning::n2_a_missing_library_costs_nothing", |sim| {
        let (recorder, _handle) = start(Config {
            library: Some(PathBuf::from("/nowhere/libnvidia-ml.so.1")),
            ..config(sim)
        });
        recorder.missing_after(0);
        check("no library");
    });
}

#[test]
fn n2_a_missing_driver_and_another_version_of_it_cost_nothing() {
    isolated(
        "spinning::n2_a_missing_driver_and_another_version_of_it_cost_nothing",
        |sim| {
            let (recorder, _handle) = run(sim);
            sim.ask(r#"{"command":"unload"}"#);
            recorder.missing_after(0);
            check("no driver");
            sim.ask(r#"{"command":"load"}"#);
            recorder.ready(2);
            // LIB_RM_VERSION_MISMATCH.
            let begin = recorder.now();
            sim.ask(r#"{"command":"fail","code":18}"#);
            let why = recorder.missing_after(begin);
            assert!(why.contains("LIB_RM_VERSION_MISMATCH"), "{why}");
            check("another version");
            sim.ask(r#"{"command":"unfail"}"#);
            recorder.ready(3);
        },
    );
}

#[test]
fn n2_storms_of_errors_cost_nothing() {
    isolated("spinning::n2_storms_of_errors_cost_nothing", |sim| {
        let (_recorder, handle) = run(sim);
        // TIMEOUT, UNKNOWN, INVALID_ARGUMENT, GPU_IS_LOST, UNINITIALIZED, from every call. The first before any pause has
        // grown: a wait for events that says at once that its time is over is one as well.
        for code in [10, 999, 2, 15, 1] {
            sim.ask(&format!(r#"{{"command":"fail","code":{code}}}"#));
            check(&format!("every call answers {code}"));
            sim.ask(r#"{"command":"unfail"}"#);
        }
        let sessions = handle.counts().sessions;
        assert!(sessions < 10, "opened {sessions} times");
    });
}

#[test]
fn n2_hung_calls_cost_nothing() {
    isolated("spinning::n2_hung_calls_cost_nothing", |sim| {
        let (recorder, handle) = run(sim);
        sim.ask(r#"{"command":"hang","gpu":2}"#);
        until("a call hangs", || !handle.monitor().hung().is_empty());
        check("one GPU hangs");
        recorder.sampled_after(recorder.now(), &recorder.gpu(0), |_| true);
        sim.ask(r#"{"command":"hang"}"#);
        check("all calls hang");
        sim.ask(r#"{"command":"unhang"}"#);
    });
}

#[test]
fn n2_a_driver_that_is_let_go_of_costs_nothing() {
    isolated(
        "spinning::n2_a_driver_that_is_let_go_of_costs_nothing",
        |sim| {
            let (_recorder, handle) = run(sim);
            let release = Release {
                purpose: ReleaseFor::Reset,
                ttl: Duration::from_hours(1),
            };
            wait(handle.operator().release(release)).unwrap();
            check("let go of");
        },
    );
}
