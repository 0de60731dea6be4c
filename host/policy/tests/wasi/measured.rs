//! The table of `docs/wasi-guests.md`. Not a test of anything but that it can be made:
//! `cargo test --release -p device-api-policy --test wasi -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use bundled_policies::XID_POLICY;
use device_api_policy::{GuestLimits, LoadedPolicy, PolicySource};
use device_api_wasm::Engine;

use crate::guests;
use crate::house::{answered, ask, source, try_load, xid};

const CALLS: u32 = 1_000;
const STARTS: u32 = 20;

/// What one evaluation takes, the way to the policy's thread and back included.
fn mean(policy: &LoadedPolicy, calls: u32) -> Duration {
    let begun = Instant::now();
    for _ in 0..calls {
        answered(ask(policy, xid(79)));
    }
    begun.elapsed() / calls
}

fn with_calls(source: &PolicySource, calls_per_instance_max: u64) -> PolicySource {
    PolicySource {
        limits: GuestLimits {
            calls_per_instance_max,
            ..source.limits
        },
        ..source.clone()
    }
}

fn row(name: &str, source: &PolicySource) {
    let bytes = source.bytes.len();
    let begun = Instant::now();
    drop(
        Engine::new()
            .unwrap()
            .load(&source.bytes, source.limits)
            .unwrap(),
    );
    let compiled = begun.elapsed();
    let policy = try_load(&with_calls(source, 1_000_000)).unwrap();
    mean(&policy, CALLS / 10);
    let warm = mean(&policy, CALLS);
    let memory_kib = policy.counters().memory_bytes_peak / 1024;
    drop(policy);
    // An instance serves one call; the next is started before the next answer.
    let policy = try_load(&with_calls(source, 1)).unwrap();
    let start = mean(&policy, STARTS).saturating_sub(warm);
    eprintln!(
        "| {name} | {} KiB | {:.2} s | {memory_kib} KiB | {:.2} ms | {warm:?} |",
        bytes / 1024,
        compiled.as_secs_f64(),
        start.as_secs_f64() * 1e3,
    );
}

#[test]
#[ignore = "measures"]
fn measure() {
    eprintln!(
        "| guest | size | compile | memory | start | warm evaluation |\n| --- | --- | --- | --- | --- | --- |"
    );
    row("xid-policy, no WASI", &source(XID_POLICY.bytes.to_vec()));
    let guests = [
        Some(guests::wasip2()),
        Some(guests::cargo_component()),
        guests::javascript(),
        guests::python(),
    ];
    for guest in guests.into_iter().flatten() {
        row(guest.name, &guests::source(&guest));
    }
}
