//! Asks the component, and hands on what the host would: state, what stands, timers.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bundled_policies::XID_POLICY;
use device_api_core::clock::{BootTime, WallTime};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::policy::{Evaluated, Evaluation, Standing};
use device_api_core::ports::Policy as _;
use device_api_core::seating::Terms;
use device_api_core::signal::{Attr, Samples, Signal, SignalKind, Source};
use device_api_core::verdict::{Judgement, PolicyState, Severity, Verdict};
use device_api_policy::{GuestLimits, LoadedPolicy, PolicyHost, PolicySource};

/// Of the generation that the decode table's second column is for.
pub(crate) const DRIVER: &str = "580.82.07";
const BEGAN_MS: u64 = 1_700_000_000_000;
/// Longer than any call may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The policy's own words on why a configuration is refused.
pub(crate) fn try_load(config: &str, calls: u64) -> Result<Arc<LoadedPolicy>, String> {
    let limits = GuestLimits {
        call_deadline: Duration::from_secs(1),
        start_deadline: Duration::from_secs(10),
        calls_per_instance_max: calls,
        ..GuestLimits::default()
    };
    let source = PolicySource {
        origin: "bundled/xid-policy".to_owned(),
        bytes: XID_POLICY.bytes.into(),
        config: config.to_owned(),
        limits,
        terms: Terms::default(),
    };
    let host = PolicyHost::new().unwrap();
    host.load(&source).map_err(|error| error.chain())
}

pub(crate) fn load(config: &str) -> Arc<LoadedPolicy> {
    try_load(config, 100_000).unwrap_or_else(|why| panic!("{config}: {why}"))
}

/// The policy with a profile.
pub(crate) fn profile(name: &str) -> Arc<LoadedPolicy> {
    load(&format!(r#"{{"profile":"{name}"}}"#))
}

pub(crate) fn xid(code: u64, evidence: &str) -> Signal {
    Signal {
        code: Some(code),
        evidence: evidence.to_owned(),
        ..signal(SignalKind::Xid)
    }
}

pub(crate) fn signal(kind: SignalKind) -> Signal {
    Signal {
        seq: SignalSeq(0),
        device: DeviceUuid::new("GPU-0"),
        kind,
        code: None,
        observed_at: WallTime::from_ms(BEGAN_MS),
        observed_boot: BootTime::default(),
        repeats: 1,
        incident: IncidentId(1),
        root: None,
        drill: false,
        instance: None,
        sources: vec![Source::Kmsg],
        evidence: String::new(),
        attrs: Vec::new(),
        samples: None,
    }
}

/// One GPU on which nothing has happened yet.
pub(crate) struct Gpu<'a> {
    policy: &'a LoadedPolicy,
    device: Arc<DeviceInfo>,
    pub(crate) state: PolicyState,
    /// What is said of each condition.
    pub(crate) said: BTreeMap<String, Verdict>,
    now_ms: u64,
    seq: u64,
}

impl<'a> Gpu<'a> {
    pub(crate) fn new(policy: &'a LoadedPolicy, driver: &str) -> Self {
        let mut device = DeviceInfo::bare(DeviceUuid::new("GPU-0"));
        device.product = "NVIDIA H100 80GB HBM3".to_owned();
        device.architecture = "Hopper".to_owned();
        device.driver_version = driver.to_owned();
        Self {
            policy,
            device: Arc::new(device),
            state: PolicyState::new(),
            said: BTreeMap::new(),
            now_ms: BEGAN_MS,
            seq: 0,
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now_ms += u64::try_from(time.as_millis()).unwrap();
    }

    /// One signal, and the timers that it asked for, at once.
    pub(crate) fn see(&mut self, signal: Signal) {
        let mut wakes = self.call(signal);
        wakes.retain(|wake| !wake.after.is_zero());
        for wake in wakes {
            self.pass(wake.after);
            let again = self.call(Signal {
                attrs: vec![Attr::text("name", wake.name)],
                ..self::signal(SignalKind::Timer)
            });
            assert!(
                again.iter().all(|wake| wake.after.is_zero()),
                "a wake that asks for a wake"
            );
        }
    }

    /// One signal; its timers are not due yet.
    pub(crate) fn see_at_once(&mut self, signal: Signal) {
        self.call(signal);
    }

    fn call(&mut self, signal: Signal) -> Vec<device_api_core::verdict::Wake> {
        self.seq += 1;
        let signal = Signal {
            seq: SignalSeq(self.seq),
            observed_at: WallTime::from_ms(self.now_ms),
            ..signal
        };
        assert!(self.policy.info().wants(&signal), "{signal:?}");
        let evaluation = Evaluation {
            device: self.device.clone(),
            standing: self.standing(),
            signals: vec![signal].into(),
            samples: Arc::new(Samples::new()),
            state: std::mem::take(&mut self.state),
            attrs: Vec::new(),
        };
        let (answer, answers) = mpsc::channel();
        self.policy.evaluate(
            evaluation,
            Box::new(move |outcome| answer.send(outcome).unwrap()),
        );
        let outcome = answers.recv_timeout(ANSWER_WAIT).expect("an answer");
        let Evaluated {
            decision, state, ..
        } = outcome.unwrap_or_else(|failure| panic!("{failure}"));
        self.state = state;
        for verdict in decision.verdicts {
            self.said.insert(verdict.condition.clone(), verdict);
        }
        decision.wakes
    }

    fn standing(&self) -> Vec<Standing> {
        let stands = |verdict: &&Verdict| verdict.state != Judgement::Ok;
        let standing = |verdict: &Verdict| Standing {
            condition: verdict.condition.clone(),
            state: verdict.state,
            reason: verdict.reason.clone(),
            since: WallTime::from_ms(BEGAN_MS),
            instance: None,
            incident: IncidentId(1),
        };
        self.said.values().filter(stands).map(standing).collect()
    }

    /// The worst of what is said; `None`: nothing.
    pub(crate) fn worst(&self) -> Option<&Verdict> {
        self.said
            .values()
            .filter(|verdict| verdict.state == Judgement::Problem)
            .max_by_key(|verdict| (verdict.severity, verdict.action))
    }
}

/// What comes of one signal alone, in the end.
pub(crate) fn alone(policy: &LoadedPolicy, driver: &str, signal: Signal) -> Verdict {
    let said = format!("{signal:?}");
    let mut gpu = Gpu::new(policy, driver);
    gpu.see(signal);
    gpu.worst()
        .cloned()
        .unwrap_or_else(|| panic!("nothing was said of {said}"))
}

/// How a GPU fares with a problem of this severity.
pub(crate) fn health(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Healthy",
        Severity::Warning => "Degraded",
        Severity::Fatal => "Unhealthy",
    }
}
