//! One GPU whose readings are set, and the component that is told of them as the pipeline would: what changed of
//! what it subscribed to, state, what stands, timers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bundled_policies::NVML_HEALTH;
use device_api_core::clock::{BootTime, WallTime};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::policy::{Evaluated, Evaluation, Standing};
use device_api_core::ports::Policy as _;
use device_api_core::seating::Terms;
use device_api_core::signal::{Attr, Miss, Reading, Samples, Signal, SignalKind, Source, Value};
use device_api_core::verdict::{Judgement, PolicyState, Verdict};
use device_api_policy::{GuestLimits, LoadedPolicy, PolicyHost, PolicySource};

const BEGAN_MS: u64 = 1_700_000_000_000;
/// Longer than any call may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The policy's own words on why a configuration is refused.
pub(crate) fn try_load(config: &str) -> Result<Arc<LoadedPolicy>, String> {
    let limits = GuestLimits {
        call_deadline: Duration::from_secs(1),
        start_deadline: Duration::from_secs(10),
        ..GuestLimits::default()
    };
    let source = PolicySource {
        origin: "bundled/nvml-health".to_owned(),
        bytes: NVML_HEALTH.bytes.into(),
        config: config.to_owned(),
        limits,
        terms: Terms::default(),
    };
    let host = PolicyHost::new().unwrap();
    host.load(&source).map_err(|error| error.chain())
}

/// Loaded once: the code of a component is compiled each time.
pub(crate) fn load(config: &str) -> Arc<LoadedPolicy> {
    static LOADED: Mutex<BTreeMap<String, Arc<LoadedPolicy>>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap();
    let known = loaded.entry(config.to_owned());
    let load = || try_load(config).unwrap_or_else(|why| panic!("{config}: {why}"));
    Arc::clone(known.or_insert_with(load))
}

/// A GPU on which all is well, and everything is told.
fn well() -> BTreeMap<&'static str, Value> {
    let counters = [
        "ecc.volatile.corrected",
        "ecc.volatile.uncorrected",
        "ecc.dram.volatile.corrected",
        "ecc.dram.volatile.uncorrected",
        "ecc.sram.volatile.corrected",
        "ecc.sram.volatile.uncorrected",
        "pcie.replays",
        "pcie.replay-rollovers",
        "pcie.correctable-errors",
        "pcie.non-fatal-errors",
        "pcie.fatal-errors",
        "pcie.recoveries",
        "nvlink.crc-flit-errors",
        "nvlink.crc-data-errors",
        "nvlink.replay-errors",
        "nvlink.recovery-errors",
        "nvlink.receive-errors",
        "nvlink.link-recoveries",
        "nvlink.link-recovery-failures",
        "nvlink.symbol-errors",
        "retired-pages.corrected",
        "retired-pages.uncorrected",
        "nvml.state",
        "utilization.gpu",
        "clocks.throttle-reasons",
        "fabric.status",
    ];
    let flags = [
        "row-remap.pending",
        "row-remap.failure",
        "retired-pages.pending",
        "ecc.sram.threshold-exceeded",
    ];
    let numbers = [
        ("temperature.gpu", 45),
        ("temperature.slowdown", 89),
        ("temperature.shutdown", 92),
        ("temperature.memory", 50),
        ("temperature.memory-max", 95),
        ("power.limit", 700_000),
        ("power.limit-min", 200_000),
        ("pcie.link-width", 16),
        ("pcie.link-width-max", 16),
        ("pcie.link-generation", 5),
        ("pcie.link-generation-max", 5),
        ("nvlink.active-mask", 0x3_ffff),
        ("fabric.state", 3),
        ("fabric.health", 0x1aa),
    ];
    let words = ["nvml.hung-call", "nvml.error"];
    let mut well = BTreeMap::from(words.map(|key| (key, Value::Text(String::new()))));
    well.extend(counters.map(|key| (key, Value::Int(0))));
    well.extend(flags.map(|key| (key, Value::Flag(false))));
    well.extend(numbers.map(|(key, value)| (key, Value::Int(value))));
    well
}

pub(crate) struct Gpu {
    policy: Arc<LoadedPolicy>,
    device: Arc<DeviceInfo>,
    readings: BTreeMap<&'static str, Value>,
    lacked: Vec<&'static str>,
    /// What can't be read at the moment.
    missed: BTreeMap<&'static str, Miss>,
    state: PolicyState,
    /// What is said of each condition.
    pub(crate) said: BTreeMap<String, Verdict>,
    /// When each wake is due.
    wakes: BTreeMap<String, u64>,
    now_ms: u64,
    seq: u64,
}

impl Gpu {
    /// Found, and well.
    pub(crate) fn found(policy: &Arc<LoadedPolicy>) -> Self {
        let mut device = DeviceInfo::bare(DeviceUuid::new("GPU-0"));
        device.product = "NVIDIA H100 80GB HBM3".to_owned();
        device.architecture = "Hopper".to_owned();
        device.driver_version = "580.82.07".to_owned();
        let mut gpu = Self {
            policy: Arc::clone(policy),
            device: Arc::new(device),
            readings: well(),
            lacked: Vec::new(),
            missed: BTreeMap::new(),
            state: PolicyState::new(),
            said: BTreeMap::new(),
            wakes: BTreeMap::new(),
            now_ms: BEGAN_MS,
            seq: 0,
        };
        gpu.see(SignalKind::GpuFound, Vec::new());
        gpu
    }

    /// Readings that the device does not have.
    pub(crate) fn lacks(&mut self, keys: &[&'static str]) {
        self.readings.retain(|key, _| !keys.contains(key));
        self.lacked.extend(keys);
    }

    /// Readings that can't be had for a while: nobody is told of that.
    pub(crate) fn misses(&mut self, keys: &[&'static str], miss: Miss) {
        self.missed.extend(keys.iter().map(|key| (*key, miss)));
    }

    /// They are read again, and are as they were: nobody is told of that either.
    pub(crate) fn has_all_again(&mut self) {
        self.missed.clear();
    }

    /// All that can be read is told, and then an hour goes by.
    pub(crate) fn tells_all(&mut self) {
        self.see(SignalKind::GpuFound, Vec::new());
        for (key, value) in self.readings.clone() {
            if !self.missed.contains_key(key) {
                self.read(key, value);
            }
        }
        self.pass(Duration::from_secs(3600));
    }

    /// A reading changes.
    pub(crate) fn read(&mut self, key: &'static str, value: Value) {
        self.readings.insert(key, value.clone());
        let attr = Attr {
            key: "value".to_owned(),
            value,
        };
        self.see(SignalKind::Reading, vec![Attr::text("key", key), attr]);
    }

    /// A signal that the component may not want.
    pub(crate) fn see(&mut self, kind: SignalKind, attrs: Vec<Attr>) {
        let signal = self.signal(kind, attrs);
        if self.policy.info().wants(&signal) {
            self.call(signal);
        }
    }

    /// So long goes by, and the wakes that are due by then come.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now_ms + u64::try_from(time.as_millis()).unwrap();
        loop {
            let next = self.wakes.iter().min_by_key(|(_, due)| **due);
            let Some((name, due)) = next.filter(|(_, due)| **due <= until) else {
                break;
            };
            let (name, due) = (name.clone(), *due);
            self.wakes.remove(&name);
            self.now_ms = due;
            let signal = self.signal(SignalKind::Timer, vec![Attr::text("name", name)]);
            self.call(signal);
        }
        self.now_ms = until;
    }

    /// The host, or an operator, clears a condition.
    pub(crate) fn clear(&mut self, condition: &str) {
        self.said.remove(condition);
    }

    fn signal(&mut self, kind: SignalKind, attrs: Vec<Attr>) -> Signal {
        self.seq += 1;
        Signal {
            seq: SignalSeq(self.seq),
            device: DeviceUuid::new("GPU-0"),
            kind,
            code: None,
            observed_at: WallTime::from_ms(self.now_ms),
            observed_boot: BootTime::default(),
            repeats: 1,
            incident: IncidentId(self.seq),
            root: None,
            drill: false,
            instance: None,
            sources: vec![Source::Nvml],
            evidence: String::new(),
            attrs,
            samples: None,
        }
    }

    fn call(&mut self, signal: Signal) {
        let samples = self.readings.iter().map(|(key, value)| {
            let at = WallTime::from_ms(self.now_ms);
            let value = value.clone();
            let reading = match self.missed.get(key) {
                Some(miss) => Err(*miss),
                None => Ok(Reading { value, at }),
            };
            ((*key).to_owned(), reading)
        });
        let lacked = self.lacked.iter().map(|key| {
            let none = Err(Miss::NotSupported);
            ((*key).to_owned(), none)
        });
        let samples: Samples = samples.chain(lacked).collect();
        let evaluation = Evaluation {
            device: self.device.clone(),
            standing: self.standing(),
            signals: vec![signal].into(),
            samples: Arc::new(samples),
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
        for wake in decision.wakes {
            let after = u64::try_from(wake.after.as_millis()).unwrap();
            match after {
                0 => self.wakes.remove(&wake.name),
                _ => self.wakes.insert(wake.name, self.now_ms + after),
            };
        }
        for verdict in decision.verdicts {
            self.said.insert(verdict.condition.clone(), verdict);
        }
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
}
