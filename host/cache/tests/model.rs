//! The cache against a model of it: random sequences of what its ports can be asked, each answer
//! compared with that of a few maps (`plain.rs`). Checks versions and silence (C1, C5), the barrier
//! and its bound (C2, C3), restarts (C7), watches (W1 to W3) and ownership (P1, P2).
//!
//! A witness, an exact watch of everything that is read after each step, says what was published; it
//! must be what the model says. Other watches are read at random moments, and must then have told, merged
//! or exactly, what leads from the state they began with to the present one.
//!
//! `DEVICE_API_SOAK=N` tries N times as many sequences, `DEVICE_API_SEED=N` repeats a run.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a panic is a failed test"
)]

#[path = "model/disk.rs"]
mod disk;
#[path = "model/plain.rs"]
mod plain;
#[path = "model/rig.rs"]
mod rig;
#[path = "model/watched.rs"]
mod watched;

use std::time::{SystemTime, UNIX_EPOCH};

use device_api_core::verdict::Judgement;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::rig::Rig;

/// Sequences in the ordinary run, and how long each may be.
const SEQUENCES: u32 = 2_000;
const STEPS_MAX: usize = 80;

/// Which version a client names.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Any,
    Current,
    Wrong,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug)]
enum From {
    Now,
    /// So many versions ago.
    Back(u64),
    Future,
    /// The last durable version of the run before.
    RunBefore,
    /// One that the run before did not leave behind.
    Lost,
}

/// What a client writes.
#[derive(Clone, Debug)]
enum Call {
    Create {
        name: u8,
        device: u8,
        exclusive: bool,
    },
    Delete {
        name: u8,
        expected: Expected,
    },
    /// One condition, strictly (native).
    Condition {
        provider: u8,
        name: u8,
        type_: u8,
        state: Judgement,
        reason: bool,
    },
    /// Several, leniently (upstream).
    Status {
        provider: u8,
        connection: u8,
        name: u8,
        expected: Expected,
        types: Vec<(u8, Judgement)>,
    },
}

/// What keeps a provider known, and what ends it.
#[derive(Clone, Debug)]
enum Term {
    Register { provider: u8, seconds: u64 },
    Heartbeat { provider: u8 },
    Pass { seconds: u64 },
    Forget { provider: u8 },
}

#[derive(Clone, Debug)]
enum Step {
    Upsert {
        device: u8,
        info: u8,
    },
    Judge {
        device: u8,
        type_: u8,
        state: Judgement,
        reason: bool,
    },
    Call(Call),
    Term(Term),
    /// A signal is observed, read under, and decided, or not in time.
    Signal {
        device: u8,
        state: Judgement,
        in_time: bool,
    },
    Watch {
        from: From,
        selection: u8,
        exact: bool,
    },
    Next {
        watch: usize,
    },
    Restart {
        rebooted: bool,
        gap: u64,
    },
}

fn judgement() -> impl Strategy<Value = Judgement> {
    prop_oneof![
        Just(Judgement::Ok),
        Just(Judgement::Problem),
        Just(Judgement::Unknown)
    ]
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Any),
        Just(Expected::Current),
        Just(Expected::Wrong)
    ]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => Just(From::Now),
        3 => (0..20_u64).prop_map(From::Back),
        1 => Just(From::Future),
        2 => Just(From::RunBefore),
        1 => Just(From::Lost),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let (name, type_) = (|| 0..rig::NAMES, || 0..rig::TYPES);
    let provider = || 0..rig::PROVIDERS;
    let types = prop::collection::vec((type_(), judgement()), 0..4);
    prop_oneof![
        3 => (name(), 0..rig::DEVICES, any::<bool>()).prop_map(
            |(name, device, exclusive)| Call::Create { name, device, exclusive }),
        2 => (name(), expected()).prop_map(|(name, expected)| Call::Delete { name, expected }),
        5 => (provider(), name(), type_(), judgement(), any::<bool>()).prop_map(
            |(provider, name, type_, state, reason)|
                Call::Condition { provider, name, type_, state, reason }),
        4 => (provider(), 0..2_u8, name(), expected(), types).prop_map(
            |(provider, connection, name, expected, types)|
                Call::Status { provider, connection, name, expected, types }),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let provider = || 0..rig::PROVIDERS;
    prop_oneof![
        (provider(), 1..60_u64)
            .prop_map(|(provider, seconds)| Term::Register { provider, seconds }),
        provider().prop_map(|provider| Term::Heartbeat { provider }),
        (1..40_u64).prop_map(|seconds| Term::Pass { seconds }),
        provider().prop_map(|provider| Term::Forget { provider }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device = || 0..rig::DEVICES;
    let signal = (device(), judgement(), any::<bool>());
    prop_oneof![
        2 => (device(), 0..3_u8).prop_map(|(device, info)| Step::Upsert { device, info }),
        3 => (device(), 0..rig::HOST_TYPES, judgement(), any::<bool>()).prop_map(
            |(device, type_, state, reason)| Step::Judge { device, type_, state, reason }),
        11 => call().prop_map(Step::Call),
        3 => term().prop_map(Step::Term),
        2 => signal.prop_map(|(device, state, in_time)| Step::Signal { device, state, in_time }),
        4 => (from(), 0..rig::SELECTIONS, any::<bool>()).prop_map(
            |(from, selection, exact)| Step::Watch { from, selection, exact }),
        6 => (0..16_usize).prop_map(|watch| Step::Next { watch }),
        1 => (any::<bool>(), 0..100_u64).prop_map(
            |(rebooted, gap)| Step::Restart { rebooted, gap }),
    ]
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn config() -> Config {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or_default()
    };
    let seed = number("DEVICE_API_SEED").unwrap_or_else(now);
    eprintln!("DEVICE_API_SEED={seed} repeats this");
    let factor = u32::try_from(number("DEVICE_API_SOAK").unwrap_or(1)).unwrap_or(u32::MAX);
    Config {
        cases: SEQUENCES.saturating_mul(factor.max(1)),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_cache_does_what_its_model_does(steps in prop::collection::vec(step(), 1..STEPS_MAX)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            for step in steps {
                rig.take(step).await;
                rig.compare().await;
            }
        });
    }
}
