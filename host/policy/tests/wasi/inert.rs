//! What a guest of a WASI toolchain finds of the system: nothing, always the same, at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use device_api_core::ids::SignalSeq;
use device_api_core::policy::FailureKind;
use device_api_core::signal::Signal;
use device_api_policy::LoadedPolicy;

use crate::guests;
use crate::house::{answered, ask, at_ms, failed, try_load, xid};

/// What makes the guest look around, and what makes it exit.
const PROBE: u64 = 1002;
const EXIT: u64 = 1003;

/// What the guest says that it found, by name.
fn found(policy: &LoadedPolicy, signal: Signal) -> BTreeMap<String, String> {
    let decision = answered(ask(policy, signal)).decision;
    let pairs = decision.verdicts[0].message.split_terminator(';');
    pairs
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(what, answer)| (what.to_owned(), answer.to_owned()))
        .collect()
}

fn probe(ms: u64) -> Signal {
    Signal {
        code: Some(PROBE),
        ..at_ms(ms)
    }
}

#[test]
fn h1_wasi_reaches_nothing_and_never_waits() {
    let policy = try_load(&guests::source(&guests::wasip2())).unwrap();
    let begun = Instant::now();
    let mut found = found(&policy, probe(1_700_000_000_123));
    // It slept for an hour, and looked up a name.
    assert!(begun.elapsed() < Duration::from_secs(60));
    let random = found.remove("random").unwrap();
    assert!(random.parse::<u64>().is_ok(), "{random}");
    let expected = [
        ("arguments", "0"),
        ("connect", "PermissionDenied"),
        ("environment", "0"),
        ("input", "ok"),
        ("list", "NotFound"),
        ("listen", "PermissionDenied"),
        ("now-ms", "1700000000123"),
        ("read", "NotFound"),
        ("resolve", "PermissionDenied"),
        ("slept", "to-the-end"),
        ("udp", "PermissionDenied"),
        ("write", "NotFound"),
    ];
    let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(found, expected);
}

#[test]
fn h3_what_wasi_answers_depends_on_the_call_alone() {
    let load = |calls| {
        let mut source = guests::source(&guests::wasip2());
        source.limits.calls_per_instance_max = calls;
        try_load(&source).unwrap()
    };
    let (warm, fresh) = (load(1000), load(1));
    let probes = [(1, 5), (2, 7), (1, 5)].map(|(seq, ms)| Signal {
        seq: SignalSeq(seq),
        ..probe(ms)
    });
    // A hash table's keys count up in a warm instance; that is the standard library's doing.
    let all = |policy: &LoadedPolicy| {
        probes.clone().map(|probe| {
            let mut found = found(policy, probe);
            found.remove("random");
            found
        })
    };
    assert_eq!(all(&warm), all(&fresh));
}

#[test]
fn an_exit_is_a_failure_that_says_so() {
    let policy = try_load(&guests::source(&guests::wasip2())).unwrap();
    failed(
        ask(&policy, xid(EXIT)),
        FailureKind::Invalid,
        "it called wasi:cli/exit",
    );
}
