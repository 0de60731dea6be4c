//! What an instance's age changes: nothing. Every recorded kernel-log line and every XID of the
//! catalogue, judged once by an instance that stays and once by a new one for each call.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use bundled_policies::ALL;
use device_api_core::clock::{BootId, WallTime};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::policy::{Evaluated, Evaluation, PolicyInfo, Standing};
use device_api_core::ports::{Policy as _, SignalSink};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{
    Attr, Miss, Observation, Reading, Samples, Signal, SignalKind, Source, Value,
};
use device_api_core::verdict::{Judgement, PolicyState, Verdict};
use device_api_kmsg::KernelLog;
use device_api_policy::{LoadedPolicy, PolicySource};

use crate::guests;
use crate::house::{answered, ask_with, evaluation, signal, source, try_load, xid};

const RECORDED: &str = include_str!("../../../../data/xid-kmsg-samples.tsv");
const CATALOG: &str = include_str!("../../../../data/xid-catalog.csv");

/// What must come up besides, so that it is compared: conditions that remember something, or wait.
const NOT_OK: [(&str, &str); 12] = [
    ("xid-policy", "XidCriticalError"),
    ("nvml-health", "NvmlReachable"),
    ("nvml-health", "Temperature"),
    ("nvml-health", "ClockThrottle"),
    ("nvml-health", "PowerLimit"),
    ("nvml-health", "EccErrors"),
    ("nvml-health", "RowRemap"),
    ("nvml-health", "RetiredPages"),
    ("nvml-health", "PcieLink"),
    ("nvml-health", "PcieErrorRate"),
    ("nvml-health", "NvLink"),
    ("nvml-health", "Fabric"),
];

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Sink(Sender<Observation>);

impl SignalSink for Sink {
    fn observe(&self, observation: Observation) {
        self.0.send(observation).unwrap();
    }
    fn device_found(&self, _: DeviceInfo, _: Arc<Samples>) {}
    fn sampled(&self, _: &DeviceUuid, _: Arc<Samples>) {}
    fn probing(&self, _: &[DeviceUuid]) {}
    fn probed(&self, _: &DeviceUuid) {}
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, _: LogPosition) {}
}

/// What the kernel log's reader makes of the recorded lines.
fn recorded() -> Vec<Signal> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let lines = RECORDED.lines().filter_map(|line| line.split_once('\t'));
    for (_, line) in lines {
        writeln!(file, "{line}").unwrap();
    }
    let (sender, seen) = channel();
    let sink = Arc::new(Sink(sender));
    let log = KernelLog::start(file.path(), sink, false, BootId::default(), None).unwrap();
    assert!(log.wait_caught_up(PATIENCE));
    log.stop();
    seen.try_iter().map(taken_in).collect()
}

/// As the pipeline takes it in, but for the numbers.
fn taken_in(observation: Observation) -> Signal {
    Signal {
        code: observation.code,
        instance: observation.instance,
        sources: vec![observation.source],
        evidence: observation.evidence,
        attrs: observation.attrs,
        ..signal(observation.kind)
    }
}

fn catalogued() -> impl Iterator<Item = Signal> {
    let codes = CATALOG
        .lines()
        .filter_map(|line| line.split(',').next()?.parse().ok());
    codes.map(xid)
}

/// Signals of all other kinds, readings that a policy declared among them.
fn others(info: &PolicyInfo) -> Vec<Signal> {
    let mut all: Vec<Signal> = SignalKind::ALL.into_iter().map(signal).collect();
    for key in &info.readings {
        for value in [0, 1, 91, 2] {
            all.push(Signal {
                attrs: vec![Attr::text("key", key.as_str()), Attr::int("value", value)],
                sources: vec![Source::Nvml],
                ..signal(SignalKind::Reading)
            });
        }
    }
    all
}

/// Readings that change from call to call: numbers, flags and misses.
fn samples(info: &PolicyInfo, round: usize) -> Samples {
    let sample = |(at, key): (usize, &String)| {
        let value = match (at + round) % 5 {
            0 => Err(Miss::NotSupported),
            1 => Ok(Value::Flag(round.is_multiple_of(2))),
            more => Ok(Value::Int(i64::try_from(more * round % 120).unwrap())),
        };
        // Mostly NVML answers: while it does not, nothing else is judged.
        let value = match key.as_str() {
            "nvml.state" => Ok(Value::Int(i64::from(round.is_multiple_of(11)))),
            "nvml.hung-call" => Ok(Value::Text(format!("nvmlCall{}", round % 3))),
            _ => value,
        };
        let at = WallTime::from_ms(1_700_000_000_000);
        (key.clone(), value.map(|value| Reading { value, at }))
    };
    info.readings.iter().enumerate().map(sample).collect()
}

/// Whose instances serve so many calls.
fn load(source: &PolicySource, calls_per_instance_max: u64) -> Arc<LoadedPolicy> {
    let mut source = source.clone();
    source.limits.calls_per_instance_max = calls_per_instance_max;
    try_load(&source).unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// What stands, by what was said so far.
fn standing(said: &BTreeMap<String, Verdict>) -> Vec<Standing> {
    let stand = said
        .values()
        .filter(|verdict| verdict.state != Judgement::Ok);
    let standing = |verdict: &Verdict| Standing {
        condition: verdict.condition.clone(),
        state: verdict.state,
        reason: verdict.reason.clone(),
        since: WallTime::from_ms(1_700_000_000_000),
        instance: None,
        incident: IncidentId(1),
    };
    stand.map(standing).collect()
}

/// Everything once, numbered, each followed by the timers that it set.
fn judged(policy: &LoadedPolicy) -> Vec<Evaluated> {
    let info = policy.info();
    let mut waiting = recorded();
    assert!(waiting.len() > 50, "{} observations", waiting.len());
    waiting.extend(catalogued());
    waiting.extend(others(info));
    waiting.reverse();
    let (mut state, mut all) = (PolicyState::new(), Vec::new());
    let (mut number, mut timers) = (0, 0_usize);
    let mut said = BTreeMap::new();
    while let Some(next) = waiting.pop() {
        if !info.wants(&next) {
            continue;
        }
        number += 1;
        let next = Signal {
            seq: SignalSeq(number),
            incident: IncidentId(number),
            observed_at: WallTime::from_ms(1_700_000_000_000 + number * 1_000),
            ..next
        };
        let asked = Evaluation {
            standing: standing(&said),
            samples: Arc::new(samples(info, usize::try_from(number).unwrap())),
            ..evaluation(vec![next.clone()], std::mem::take(&mut state))
        };
        let evaluated = answered(ask_with(policy, asked));
        // A timer that sets itself again must not go on for ever.
        if next.kind != SignalKind::Timer {
            timers += evaluated.decision.wakes.len();
            waiting.extend(evaluated.decision.wakes.iter().map(|wake| Signal {
                attrs: vec![Attr::text("name", &*wake.name)],
                ..signal(SignalKind::Timer)
            }));
        }
        let verdicts = evaluated.decision.verdicts.iter();
        said.extend(verdicts.map(|verdict| (verdict.condition.clone(), verdict.clone())));
        state.clone_from(&evaluated.state);
        all.push(evaluated);
    }
    assert!(timers < 1000);
    all
}

#[track_caller]
fn alike(name: &str, one: &[Evaluated], other: &[Evaluated]) {
    assert_eq!(one.len(), other.len());
    for (at, (one, other)) in one.iter().zip(other).enumerate() {
        assert_eq!(one, other, "call {at} of {name}");
    }
}

#[test]
fn h3_bundled_policies_decide_alike_warm_and_fresh() {
    for bundled in ALL {
        let source = PolicySource {
            origin: bundled.name.to_owned(),
            ..source(bundled.bytes.to_vec())
        };
        let all = judged(&load(&source, 1_000_000));
        alike(bundled.name, &all, &judged(&load(&source, 1)));
        let verdicts: usize = all.iter().map(|one| one.decision.verdicts.len()).sum();
        assert!(verdicts > 10, "{}: {verdicts} verdicts", bundled.name);
        let told: BTreeSet<&str> = all
            .iter()
            .flat_map(|one| &one.decision.verdicts)
            .filter(|verdict| verdict.state != Judgement::Ok)
            .map(|verdict| verdict.condition.as_str())
            .collect();
        for condition in NOT_OK.iter().filter(|(of, _)| *of == bundled.name) {
            assert!(told.contains(condition.1), "{condition:?}: {told:?}");
        }
        let remembers = all.iter().any(|one| !one.state.is_empty());
        assert!(remembers, "{} remembers something", bundled.name);
    }
}

#[test]
fn h3_policies_of_wasi_toolchains_decide_alike_warm_and_fresh() {
    let all = [
        Some(guests::wasip2()),
        Some(guests::cargo_component()),
        guests::python(),
        guests::javascript(),
    ];
    for guest in all.iter().flatten() {
        // In a second round a call meets an instance of another age than in the first.
        let policy = guests::loaded(guest);
        let all = judged(&policy);
        assert_ne!(
            u64::try_from(all.len()).unwrap() % guests::CALLS_PER_INSTANCE,
            0
        );
        alike(guest.name, &all, &judged(&policy));
        let off_the_bus = all
            .iter()
            .filter(|one| !one.decision.verdicts.is_empty())
            .count();
        assert!(off_the_bus > 1, "{}: {off_the_bus}", guest.name);
    }
}
