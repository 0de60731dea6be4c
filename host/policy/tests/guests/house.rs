//! The house around a policy: what the pipeline would hand in, and how an answer is awaited.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::policy::{Evaluated, Evaluation, FailureKind, Outcome, PolicyFailure};
use device_api_core::ports::Policy;
use device_api_core::seating::Terms;
use device_api_core::signal::{Samples, Signal, SignalKind, Source};
use device_api_core::verdict::PolicyState;
use device_api_policy::{GuestLimits, LoadedPolicy, PolicyError, PolicyHost, PolicySource};

/// The defaults with time to spare: a busy machine must not decide what is not about time.
pub(crate) fn roomy() -> GuestLimits {
    let (call_deadline, start_deadline) = (Duration::from_secs(1), Duration::from_secs(10));
    GuestLimits {
        call_deadline,
        start_deadline,
        ..GuestLimits::default()
    }
}

pub(crate) fn source(bytes: Vec<u8>) -> PolicySource {
    PolicySource {
        origin: "test.wasm".to_owned(),
        bytes: bytes.into(),
        config: String::new(),
        limits: roomy(),
        terms: Terms::default(),
    }
}

pub(crate) fn try_load(source: &PolicySource) -> Result<Arc<LoadedPolicy>, PolicyError> {
    PolicyHost::new().unwrap().load(source)
}

pub(crate) fn load(bytes: Vec<u8>) -> Arc<LoadedPolicy> {
    try_load(&source(bytes)).unwrap_or_else(|error| panic!("{}", error.chain()))
}

pub(crate) fn xid(code: u64) -> Signal {
    Signal {
        code: Some(code),
        ..signal(SignalKind::Xid)
    }
}

/// Observed at a millisecond: what the moody guests go by.
pub(crate) fn at_ms(ms: u64) -> Signal {
    Signal {
        observed_at: WallTime::from_ms(ms),
        ..xid(31)
    }
}

pub(crate) fn signal(kind: SignalKind) -> Signal {
    Signal {
        seq: SignalSeq(1),
        device: DeviceUuid::new("GPU-0"),
        kind,
        code: None,
        observed_at: WallTime::from_ms(1_700_000_000_000),
        observed_boot: BootTime::default(),
        repeats: 1,
        incident: IncidentId(1),
        root: None,
        drill: false,
        instance: None,
        sources: vec![Source::Nvml],
        evidence: String::new(),
        attrs: Vec::new(),
        samples: None,
    }
}

pub(crate) fn evaluation(signals: Vec<Signal>, state: PolicyState) -> Evaluation {
    let mut device = DeviceInfo::bare(DeviceUuid::new("GPU-0"));
    device.product = "NVIDIA H100 80GB HBM3".to_owned();
    device.architecture = "Hopper".to_owned();
    device.driver_version = "580.82.07".to_owned();
    Evaluation {
        device: Arc::new(device),
        standing: Vec::new(),
        signals: signals.into(),
        samples: Arc::new(Samples::new()),
        state,
        attrs: Vec::new(),
    }
}

/// Longer than any call may take; an answer that does not come fails the test instead of hanging it.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

pub(crate) fn ask_with(policy: &LoadedPolicy, evaluation: Evaluation) -> Outcome {
    pose_with(policy, evaluation)
}

/// The same of whoever has a seat.
pub(crate) fn pose(policy: &dyn Policy, signal: Signal) -> Outcome {
    pose_with(policy, evaluation(vec![signal], PolicyState::new()))
}

fn pose_with(policy: &dyn Policy, evaluation: Evaluation) -> Outcome {
    let (answer, answers) = mpsc::channel();
    policy.evaluate(
        evaluation,
        Box::new(move |outcome| answer.send(outcome).unwrap()),
    );
    let outcome = answers.recv_timeout(ANSWER_WAIT).expect("an answer");
    // The reply is gone with its first use: exactly once.
    assert!(answers.recv_timeout(ANSWER_WAIT).is_err());
    outcome
}

pub(crate) fn ask(policy: &LoadedPolicy, signal: Signal) -> Outcome {
    ask_with(policy, evaluation(vec![signal], PolicyState::new()))
}

#[track_caller]
pub(crate) fn answered(outcome: Outcome) -> Evaluated {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

#[track_caller]
pub(crate) fn failed(outcome: Outcome, kind: FailureKind, word: &str) {
    let PolicyFailure {
        kind: found,
        detail,
    } = outcome.unwrap_err();
    assert_eq!(found, kind, "{detail}");
    assert!(detail.contains(word), "{detail}");
}
