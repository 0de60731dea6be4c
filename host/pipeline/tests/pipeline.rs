//! The pipeline against a cache and policies that are small second implementations of their ports.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::action::{Action, Platform};
use device_api_core::clock::ManualClock;
use device_api_core::condition::{Condition, FALLBACK, FAULT_FLOOR, POLICY_READY, find};
use device_api_core::device::DeviceInfo;
use device_api_core::error::ApiError;
use device_api_core::health::{Health, derive};
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::limits;
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, Filter, Outcome, OwnedType, PolicyFailure, PolicyId,
    PolicyInfo, Subscription,
};
use device_api_core::ports::{DeviceCache, Policy, Reply, SignalSink};
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, Signal, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict, Wake};
use device_api_pipeline::{Config, Drills, Pipeline, Unobserved};

#[derive(Debug, Default)]
struct Cache {
    devices: Mutex<HashMap<DeviceUuid, (DeviceInfo, Vec<Condition>)>>,
    marks: Mutex<HashMap<DeviceUuid, (SignalSeq, SignalSeq)>>,
}

impl Cache {
    fn is_up(&self, uuid: &DeviceUuid) -> bool {
        self.marks
            .lock()
            .unwrap()
            .get(uuid)
            .is_some_and(|(raised, settled)| raised > settled)
    }

    fn health(&self, uuid: &DeviceUuid) -> (Health, Action) {
        let derived = derive(&self.conditions(uuid));
        (derived.health, derived.action)
    }

    fn condition(&self, uuid: &DeviceUuid, type_: &str) -> Option<Condition> {
        find(&self.conditions(uuid), type_).cloned()
    }
}

impl DeviceCache for Cache {
    fn resolve(&self, target: &Target) -> Option<DeviceUuid> {
        let devices = self.devices.lock().unwrap();
        match target {
            Target::Uuid(uuid) => devices.contains_key(uuid).then(|| uuid.clone()),
            Target::Pci(pci) => devices
                .values()
                .find(|(info, _)| info.pci == Some(*pci))
                .map(|(info, _)| info.uuid.clone()),
        }
    }

    fn device(&self, uuid: &DeviceUuid) -> Option<Arc<DeviceInfo>> {
        self.devices
            .lock()
            .unwrap()
            .get(uuid)
            .map(|(info, _)| Arc::new(info.clone()))
    }

    fn conditions(&self, uuid: &DeviceUuid) -> Vec<Condition> {
        self.devices
            .lock()
            .unwrap()
            .get(uuid)
            .map(|(_, conditions)| conditions.clone())
            .unwrap_or_default()
    }

    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError> {
        let mut devices = self.devices.lock().unwrap();
        let uuid = device.uuid.clone();
        devices
            .entry(uuid.clone())
            .or_insert_with(|| (DeviceInfo::bare(uuid), Vec::new()))
            .0 = device;
        Ok(())
    }

    fn change(&self, uuid: &DeviceUuid, change: &mut dyn FnMut(&mut Vec<Condition>)) {
        if let Some((_, conditions)) = self.devices.lock().unwrap().get_mut(uuid) {
            change(conditions);
        }
    }

    fn raise(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        let mut marks = self.marks.lock().unwrap();
        let (raised, _) = marks.entry(uuid.clone()).or_default();
        *raised = seq.max(*raised);
    }

    fn settle(&self, uuid: &DeviceUuid, seq: SignalSeq) {
        let mut marks = self.marks.lock().unwrap();
        let (_, settled) = marks.entry(uuid.clone()).or_default();
        *settled = seq.max(*settled);
    }
}

type Judge = Box<dyn Fn(&Evaluation) -> Outcome + Send + Sync>;

/// A policy that answers when the test says so, by a closure.
struct Scripted {
    info: PolicyInfo,
    judge: Judge,
    waiting: Mutex<Vec<(Evaluation, Reply)>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.info.id.name)
    }
}

impl Scripted {
    fn new(
        name: &str,
        subscriptions: Vec<Subscription>,
        judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
    ) -> Arc<Self> {
        let owned = |condition: String| OwnedType {
            condition,
            true_is_problem: true,
            reasons: vec!["Because".to_owned()],
        };
        let id = PolicyId {
            name: name.into(),
            version: "1.0.0".into(),
            digest: "0".repeat(64).into(),
        };
        let info = PolicyInfo {
            id,
            state_schema: 1,
            subscriptions,
            owns: vec![owned(format!("{name}Fault"))],
            readings: vec![],
        };
        Arc::new(Self {
            info,
            judge: Box::new(judge),
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Answers one evaluation, on this thread. Says which signals it was about.
    fn answer(&self) -> Vec<Signal> {
        let (evaluation, reply) = self.waiting.lock().unwrap().remove(0);
        reply((self.judge)(&evaluation));
        evaluation.signals.to_vec()
    }

    fn answer_all(&self) {
        while self.waiting() > 0 {
            self.answer();
        }
    }
}

impl Policy for Scripted {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        self.waiting.lock().unwrap().push((evaluation, reply));
    }
}

struct Rig {
    cache: Arc<Cache>,
    clock: Arc<ManualClock>,
    pipeline: Pipeline,
    sink: Arc<dyn SignalSink>,
}

fn gpu() -> DeviceUuid {
    DeviceUuid::new("GPU-0")
}

fn every(kind: SignalKind) -> Subscription {
    Subscription {
        kind,
        filter: Filter::default(),
    }
}

impl Rig {
    fn new(policies: &[Arc<Scripted>]) -> Self {
        Self::with(policies, Drills::Report)
    }

    fn with(policies: &[Arc<Scripted>], drills: Drills) -> Self {
        let (cache, clock) = (Arc::new(Cache::default()), Arc::new(ManualClock::default()));
        clock.advance(Duration::from_secs(1000));
        let policies = policies
            .iter()
            .map(|policy| policy.clone() as Arc<dyn Policy>)
            .collect();
        let config = Config {
            drills,
            platform: Platform::BareMetal,
        };
        let pipeline = Pipeline::start(
            cache.clone(),
            policies,
            clock.clone(),
            Arc::new(Unobserved),
            config,
        )
        .unwrap();
        let sink = pipeline.sink();
        cache
            .upsert_device(DeviceInfo {
                pci: Some("0000:1b:00.0".parse().unwrap()),
                ..DeviceInfo::bare(gpu())
            })
            .unwrap();
        Self {
            cache,
            clock,
            pipeline,
            sink,
        }
    }

    fn xid(&self, code: u64) {
        self.sink.observe(xid(code));
    }

    fn later(&self, duration: Duration) {
        self.clock.advance(duration);
        self.pipeline.tick();
    }
}

fn xid(code: u64) -> Observation {
    Observation {
        code: Some(code),
        evidence: format!("XID {code}"),
        ..Observation::new(SignalKind::Xid, Target::Uuid(gpu()), Source::Nvml)
    }
}

fn verdict(
    name: &str,
    state: Judgement,
    severity: Severity,
    action: Action,
    cause: &Signal,
) -> Verdict {
    Verdict {
        condition: format!("{name}Fault"),
        state,
        severity,
        reason: "Because".to_owned(),
        message: String::new(),
        action,
        clears: vec![Clear::on(ClearOn::Operator)],
        instance: None,
        cause: cause.seq,
    }
}

fn says(
    name: &'static str,
    state: Judgement,
    severity: Severity,
    action: Action,
) -> impl Fn(&Evaluation) -> Outcome {
    move |evaluation| {
        let last = evaluation
            .signals
            .last()
            .expect("never called without a signal");
        let decision = Decision {
            verdicts: vec![verdict(name, state, severity, action, last)],
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            state: evaluation.state.clone(),
        })
    }
}

fn fails(kind: FailureKind) -> impl Fn(&Evaluation) -> Outcome {
    move |_| {
        Err(PolicyFailure {
            kind,
            detail: "on purpose".to_owned(),
        })
    }
}

#[test]
fn c2_the_barrier_is_up_from_observation_to_commit() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    assert!(
        rig.cache.is_up(&gpu()),
        "readers wait while the policy thinks"
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    policy.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    let condition = rig.cache.condition(&gpu(), "aFault").expect("written");
    assert_eq!(condition.evidence[0].text, "XID 79");
    assert!(
        rig.cache.condition(&gpu(), FAULT_FLOOR).is_none(),
        "the policy said as much as the floor"
    );
}

#[test]
fn a_batch_waits_for_every_policy_and_commits_once() {
    let a = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let b = Scripted::new(
        "b",
        vec![every(SignalKind::Xid)],
        says(
            "b",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
        ),
    );
    let rig = Rig::new(&[a.clone(), b.clone()]);
    rig.xid(31);
    a.answer();
    assert!(rig.cache.is_up(&gpu()));
    assert!(
        rig.cache.condition(&gpu(), "aFault").is_none(),
        "nothing is shown before all is decided"
    );
    b.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Degraded, Action::ContactSupport)
    );
}

#[test]
fn repeats_fold_while_they_wait_and_a_storm_stays_small() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    for _ in 0..1000 {
        rig.xid(31);
        rig.xid(43);
    }
    assert_eq!(policy.waiting(), 1, "one batch is with the policy");
    assert_eq!(policy.answer().len(), 1);
    let rest = policy.answer();
    let counts: Vec<_> = rest
        .iter()
        .map(|signal| (signal.code, signal.repeats))
        .collect();
    assert_eq!(counts, [(Some(31), 1000), (Some(43), 1000)]);
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn c3_when_the_bound_passes_the_fallback_is_written_and_readers_go() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says(
            "a",
            Judgement::Problem,
            Severity::Fatal,
            Action::ComponentReset,
        ),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(119);
    rig.later(limits::BARRIER_WAIT_MAX - Duration::from_millis(1));
    assert!(rig.cache.is_up(&gpu()));
    rig.later(Duration::from_millis(1));
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset),
        "the vendor's class of 119"
    );
    assert!(
        rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("written")
            .is_problem()
    );
    policy.answer();
    assert!(
        !rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("kept")
            .is_problem(),
        "the late answer counts"
    );
    assert!(
        rig.cache
            .condition(&gpu(), "aFault")
            .expect("written")
            .is_problem()
    );
}

#[test]
fn c3_a_reader_whose_bound_passed_writes_the_fallback_itself() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[policy]);
    rig.xid(119);
    let seq = rig.cache.marks.lock().unwrap()[&gpu()].0;
    rig.pipeline.overdue().overdue(&gpu(), seq);
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
}

#[test]
fn h8_no_policy_talks_a_floor_away_and_a_returned_gpu_ends_its_own() {
    let ok = says("a", Judgement::Ok, Severity::Info, Action::None);
    let all = vec![
        every(SignalKind::Xid),
        every(SignalKind::GpuLost),
        every(SignalKind::GpuFound),
    ];
    let policy = Scripted::new("a", all, ok);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(Observation::new(
        SignalKind::GpuLost,
        Target::Uuid(gpu()),
        Source::Nvml,
    ));
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert_eq!(
        rig.cache
            .condition(&gpu(), FAULT_FLOOR)
            .expect("floor")
            .reason,
        "GpuLost"
    );
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.xid(95);
    policy.answer();
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset),
        "answering does not end an XID 95"
    );
}

#[test]
fn h8_48_alone_becomes_unhealthy_after_the_window_and_94_prevents_it() {
    let info = says("a", Judgement::Problem, Severity::Info, Action::None);
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], info);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(48);
    policy.answer();
    rig.later(limits::CONTAINMENT_WINDOW - Duration::from_millis(1));
    rig.xid(94);
    policy.answer();
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.xid(48);
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
    rig.later(limits::CONTAINMENT_WINDOW);
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset)
    );
}

#[test]
fn h5_a_failing_policy_costs_its_own_opinion_only() {
    let bad = Scripted::new(
        "bad",
        vec![every(SignalKind::Xid)],
        fails(FailureKind::Trap),
    );
    let good = Scripted::new(
        "good",
        vec![every(SignalKind::Xid)],
        says("good", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[bad.clone(), good.clone()]);
    rig.xid(31);
    bad.answer();
    good.answer();
    assert!(!rig.cache.is_up(&gpu()));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Healthy,
        "the vendor's class of 31 harms nobody"
    );
    assert!(rig.cache.condition(&gpu(), "goodFault").is_some());
    let ready = rig.cache.condition(&gpu(), POLICY_READY).expect("told");
    assert!(
        ready.is_problem() && !ready.counted && ready.message.contains("on purpose"),
        "{ready:?}"
    );
    rig.later(Duration::from_secs(1));
    assert_eq!(bad.waiting(), 1, "tried again with back-off");
    assert_eq!(good.waiting(), 0, "and not the others");
}

#[test]
fn h4_a_failed_batch_is_tried_again_one_by_one() {
    let picky = |evaluation: &Evaluation| {
        if evaluation
            .signals
            .iter()
            .any(|signal| signal.code == Some(43))
        {
            return fails(FailureKind::Trap)(evaluation);
        }
        says(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
        )(evaluation)
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], picky);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    for code in [31, 43, 13] {
        rig.xid(code);
    }
    policy.answer();
    assert_eq!(policy.answer().len(), 3);
    assert!(
        rig.cache.is_up(&gpu()),
        "the batch failed; its signals still hold readers"
    );
    let codes: Vec<_> = (0..3).map(|_| policy.answer()[0].code).collect();
    assert_eq!(codes, [Some(31), Some(43), Some(13)], "alone, and in order");
    assert!(!rig.cache.is_up(&gpu()));
    assert!(rig.cache.condition(&gpu(), "aFault").is_some());
    assert!(
        rig.cache
            .condition(&gpu(), FALLBACK)
            .expect("for 43")
            .message
            .contains("XID 43")
    );
}

#[test]
fn h3_state_is_handed_on_and_a_failure_leaves_no_trace() {
    let counting = |evaluation: &Evaluation| {
        let mut state = evaluation.state.clone();
        let count = state.entry("count".to_owned()).or_insert_with(|| vec![0]);
        count[0] += 1;
        let count = count[0];
        if evaluation.signals[0].code == Some(9) {
            return fails(FailureKind::Trap)(evaluation);
        }
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Info,
            Action::None,
            &evaluation.signals[0],
        );
        said.message = format!("{count}");
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state,
        })
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], counting);
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in [8, 9, 11] {
        rig.xid(code);
        policy.answer_all();
    }
    assert_eq!(
        rig.cache
            .condition(&gpu(), "aFault")
            .expect("written")
            .message,
        "2"
    );
}

#[test]
fn timers_come_back_to_the_policy_that_set_them() {
    let sets = |evaluation: &Evaluation| {
        let later = Wake {
            name: "later".to_owned(),
            after: Duration::from_millis(1),
        };
        let is_timer = evaluation.signals[0].kind == SignalKind::Timer;
        let wakes = if is_timer { vec![] } else { vec![later] };
        Ok(Evaluated {
            decision: Decision {
                wakes,
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let a = Scripted::new("a", vec![every(SignalKind::Xid)], sets);
    let b = Scripted::new(
        "b",
        vec![every(SignalKind::Timer)],
        says("b", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(&[a.clone(), b.clone()]);
    rig.xid(31);
    a.answer();
    rig.later(limits::WAKE_MIN - Duration::from_millis(1));
    assert_eq!(a.waiting(), 0, "raised to the minimum");
    rig.later(Duration::from_millis(1));
    assert_eq!((a.waiting(), b.waiting()), (1, 0));
    assert_eq!(a.answer()[0].kind, SignalKind::Timer);
}

#[test]
fn a_quiet_time_clears_what_names_it() {
    let quiet = |evaluation: &Evaluation| {
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
            &evaluation.signals[0],
        );
        said.clears = vec![Clear {
            on: ClearOn::Quiet,
            after: Duration::from_secs(60),
        }];
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], quiet);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(31);
    policy.answer();
    rig.later(Duration::from_secs(59));
    rig.xid(31);
    policy.answer();
    rig.later(Duration::from_secs(59));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Degraded,
        "the repeat began the quiet time anew"
    );
    rig.later(Duration::from_secs(1));
    assert_eq!(rig.cache.health(&gpu()), (Health::Healthy, Action::None));
}

#[test]
fn n8_a_reported_drill_is_shown_and_changes_no_health() {
    let fatal = || says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm);
    for (drills, expected) in [
        (Drills::Report, Health::Unknown),
        (Drills::Enforce, Health::Unhealthy),
    ] {
        let policy = Scripted::new("a", vec![every(SignalKind::Xid)], fatal());
        let rig = Rig::with(std::slice::from_ref(&policy), drills);
        rig.sink.observe(Observation {
            drill: true,
            ..xid(79)
        });
        policy.answer();
        assert_eq!(rig.cache.health(&gpu()).0, expected, "{drills:?}");
        assert!(rig.cache.condition(&gpu(), "aFault").expect("shown").drill);
    }
}

#[test]
fn what_nobody_can_attribute_waits_for_its_device() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    let (late, pci) = (DeviceUuid::new("GPU-late"), "0000:ff:00.0".parse().unwrap());
    rig.sink.observe(Observation {
        target: Target::Pci(pci),
        source: Source::Kmsg,
        ..xid(79)
    });
    assert_eq!(policy.waiting(), 0);
    rig.sink.device_found(
        DeviceInfo {
            pci: Some(pci),
            ..DeviceInfo::bare(late.clone())
        },
        Arc::default(),
    );
    policy.answer_all();
    assert_eq!(rig.cache.health(&late).0, Health::Unhealthy);
}

#[test]
fn readings_become_signals_when_they_cross_and_hold_no_reader() {
    let filter = Filter {
        key: Some("temperature.gpu".to_owned()),
        above: Some(85.0),
        ..Filter::default()
    };
    let hot = Subscription {
        kind: SignalKind::Reading,
        filter,
    };
    let policy = Scripted::new(
        "a",
        vec![hot],
        says("a", Judgement::Problem, Severity::Warning, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    let celsius = |value| {
        let reading = Reading {
            value: Value::Int(value),
            at: Default::default(),
        };
        Arc::new(Samples::from([("temperature.gpu".to_owned(), Ok(reading))]))
    };
    rig.sink.device_found(DeviceInfo::bare(gpu()), celsius(40));
    for value in [50, 80] {
        rig.sink.sampled(&gpu(), celsius(value));
    }
    assert_eq!(policy.waiting(), 0);
    rig.sink.sampled(&gpu(), celsius(90));
    assert_eq!(policy.waiting(), 1);
    assert!(
        !rig.cache.is_up(&gpu()),
        "periodic readings raise no barrier"
    );
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Degraded);
}

#[test]
fn without_any_policy_the_vendors_class_stands() {
    let rig = Rig::new(&[]);
    rig.xid(79);
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn more_different_signals_than_a_lane_holds_are_decided_at_once() {
    let policy = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Problem, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in 0..=limits::SIGNALS_PENDING_PER_GPU_MAX as u64 {
        rig.xid(1000 + code);
    }
    assert!(rig.cache.condition(&gpu(), FALLBACK).is_none());
    rig.xid(79);
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "the fault that found no room is not lost"
    );
    policy.answer_all();
    assert!(!rig.cache.is_up(&gpu()));
}

#[test]
fn n8_whatever_concerns_a_simulated_gpu_is_a_drill_and_so_is_what_a_drill_sets_off() {
    let wakes = |evaluation: &Evaluation| {
        let last = evaluation
            .signals
            .last()
            .expect("never called without a signal");
        let later = Wake {
            name: "later".to_owned(),
            after: Duration::from_secs(1),
        };
        let decision = Decision {
            verdicts: vec![verdict(
                "a",
                Judgement::Problem,
                Severity::Fatal,
                Action::RestartBm,
                last,
            )],
            wakes: if last.kind == SignalKind::Timer {
                vec![]
            } else {
                vec![later]
            },
            ..Decision::default()
        };
        Ok(Evaluated {
            decision,
            state: evaluation.state.clone(),
        })
    };
    for (simulated, told) in [
        (true, xid(31)),
        (
            false,
            Observation {
                drill: true,
                ..xid(31)
            },
        ),
    ] {
        let policy = Scripted::new("a", vec![every(SignalKind::Xid)], wakes);
        let rig = Rig::new(std::slice::from_ref(&policy));
        rig.cache
            .upsert_device(DeviceInfo {
                simulated,
                ..DeviceInfo::bare(gpu())
            })
            .unwrap();
        rig.sink.observe(told);
        assert!(policy.answer()[0].drill);
        rig.later(Duration::from_secs(1));
        assert!(policy.answer()[0].drill, "the timer that a drill has set");
        assert_eq!(rig.cache.health(&gpu()).0, Health::Unknown);
    }
}

/// A policy that fails on what `bad` picks, and else says `Ok` of a found GPU and of a withdrawn
/// recovery action, and a fatal problem of all else.
fn fails_on(bad: impl Fn(&Signal) -> bool + Send + Sync + 'static) -> Arc<Scripted> {
    let all = [
        SignalKind::Xid,
        SignalKind::GpuLost,
        SignalKind::GpuFound,
        SignalKind::RecoveryAction,
    ];
    Scripted::new("a", all.map(every).to_vec(), move |evaluation| {
        if evaluation.signals.iter().any(&bad) {
            return fails(FailureKind::Deadline)(evaluation);
        }
        let last = evaluation.signals.last().expect("a signal");
        let over = last.kind == SignalKind::GpuFound
            || last.attrs.iter().any(|attr| attr.value == Value::Int(0));
        if over {
            says("a", Judgement::Ok, Severity::Info, Action::None)(evaluation)
        } else {
            says("a", Judgement::Problem, Severity::Fatal, Action::RestartBm)(evaluation)
        }
    })
}

fn lost() -> Observation {
    Observation::new(SignalKind::GpuLost, Target::Uuid(gpu()), Source::Nvml)
}

fn recovery(action: i64) -> Observation {
    Observation {
        attrs: vec![Attr::int("action", action)],
        ..Observation::new(
            SignalKind::RecoveryAction,
            Target::Uuid(gpu()),
            Source::Field230,
        )
    }
}

#[test]
fn h8_a_failed_signal_that_a_newer_one_overtook_is_not_tried_again() {
    let failing = Arc::new(Mutex::new(true));
    let policy = fails_on({
        let failing = failing.clone();
        move |signal| signal.kind == SignalKind::GpuFound && *failing.lock().unwrap()
    });
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer();
    *failing.lock().unwrap() = false;
    rig.sink.observe(lost());
    policy.answer();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.later(Duration::from_mins(5));
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an old `found` heals nothing"
    );
}

#[test]
fn h8_a_gpu_that_returns_ends_the_fallback_for_its_loss() {
    let policy = fails_on(|signal| signal.kind == SignalKind::GpuLost);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(lost());
    policy.answer();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    rig.later(Duration::from_mins(5));
    policy.answer_all();
    assert_eq!(rig.cache.health(&gpu()).0, Health::Healthy);
}

#[test]
fn h8_what_was_assumed_stands_until_it_was_judged() {
    let policy = fails_on(|signal| signal.code == Some(119));
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.xid(119);
    rig.xid(31);
    policy.answer();
    rig.later(limits::BARRIER_WAIT_MAX);
    assert_eq!(rig.cache.health(&gpu()).1, Action::RestartBm);
    let fallback = || rig.cache.condition(&gpu(), FALLBACK).expect("written");
    assert!(fallback().is_problem());
    assert_eq!(policy.answer().len(), 2, "the batch of both fails");
    assert!(
        fallback().is_problem(),
        "a batch that failed has judged nothing"
    );
    policy.answer_all();
    assert!(fallback().is_problem() && fallback().message.contains("XID 119"));
}

#[test]
fn folding_merges_what_is_the_same_and_keeps_the_order_of_what_is_not() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    rig.sink.observe(recovery(0));
    rig.sink.observe(recovery(1));
    for observation in [lost(), lost()] {
        rig.sink.observe(observation);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    rig.sink.observe(lost());
    policy.answer();
    let told: Vec<_> = policy
        .answer()
        .iter()
        .map(|signal| (signal.kind, signal.repeats))
        .collect();
    let expected = [
        (SignalKind::RecoveryAction, 1),
        (SignalKind::RecoveryAction, 1),
        (SignalKind::GpuLost, 2),
        (SignalKind::GpuFound, 1),
        (SignalKind::GpuLost, 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn h8_many_mild_failures_leave_room_for_a_grave_one() {
    let policy = fails_on(|_| true);
    let rig = Rig::new(std::slice::from_ref(&policy));
    for code in 0..2000 {
        rig.xid(10_000 + code);
        policy.answer_all();
    }
    rig.xid(119);
    policy.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::ComponentReset)
    );
}

#[test]
fn h8_a_quiet_time_talks_no_floor_away() {
    let quiet = |evaluation: &Evaluation| {
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Fatal,
            Action::RestartBm,
            &evaluation.signals[0],
        );
        said.clears = vec![Clear {
            on: ClearOn::Quiet,
            after: Duration::from_secs(1),
        }];
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], quiet);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(79);
    policy.answer();
    rig.later(Duration::from_secs(2));
    assert_eq!(
        rig.cache.health(&gpu()),
        (Health::Unhealthy, Action::RestartBm)
    );
    assert!(
        rig.cache
            .condition(&gpu(), FAULT_FLOOR)
            .expect("the host says so")
            .is_problem()
    );
}

#[test]
fn n8_a_reported_drill_clears_contains_and_hides_nothing_real() {
    let quiet = |evaluation: &Evaluation| {
        let last = evaluation.signals.last().expect("a signal");
        let mut said = verdict(
            "a",
            Judgement::Problem,
            Severity::Warning,
            Action::ContactSupport,
            last,
        );
        if last.drill {
            said.clears = vec![Clear {
                on: ClearOn::Quiet,
                after: Duration::from_secs(1),
            }];
        }
        Ok(Evaluated {
            decision: Decision {
                verdicts: vec![said],
                ..Decision::default()
            },
            state: evaluation.state.clone(),
        })
    };
    let drill = |code| Observation {
        drill: true,
        ..xid(code)
    };
    let policy = Scripted::new("a", vec![every(SignalKind::Xid)], quiet);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.xid(8);
    policy.answer();
    rig.sink.observe(drill(8));
    policy.answer();
    rig.later(Duration::from_secs(2));
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Degraded,
        "a drill's quiet time clears no real problem"
    );

    rig.xid(48);
    rig.sink.observe(drill(94));
    policy.answer_all();
    rig.later(limits::CONTAINMENT_WINDOW);
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an injected 94 contains no real 48"
    );

    let mild = Scripted::new(
        "a",
        vec![every(SignalKind::Xid)],
        says("a", Judgement::Ok, Severity::Info, Action::None),
    );
    let rig = Rig::new(std::slice::from_ref(&mild));
    rig.sink.observe(drill(95));
    rig.xid(95);
    mild.answer_all();
    assert_eq!(
        rig.cache.health(&gpu()).0,
        Health::Unhealthy,
        "an injected 95 hides no real one"
    );
}

#[test]
fn c3_the_bound_holds_for_what_joins_a_lane_that_is_busy_with_something_else() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    rig.xid(119);
    rig.later(limits::BARRIER_WAIT_MAX);
    assert!(
        !rig.cache.is_up(&gpu()),
        "nobody reads, and the fallback is written all the same"
    );
    assert_eq!(rig.cache.health(&gpu()).0, Health::Unhealthy);
    rig.xid(119);
    assert!(rig.cache.is_up(&gpu()));
    rig.later(limits::BARRIER_WAIT_MAX);
    assert!(
        !rig.cache.is_up(&gpu()),
        "a repeat that folds into an overdue one has a bound of its own"
    );
}

#[test]
fn a_full_lane_loses_nothing_that_a_policy_asked_for() {
    let policy = fails_on(|_| false);
    let rig = Rig::new(std::slice::from_ref(&policy));
    rig.sink.observe(lost());
    policy.answer();
    for code in 0..=limits::SIGNALS_PENDING_PER_GPU_MAX as u64 {
        rig.xid(1000 + code);
    }
    rig.sink
        .device_found(DeviceInfo::bare(gpu()), Arc::default());
    policy.answer_all();
    for _ in 0..10 {
        rig.later(Duration::from_mins(1));
        policy.answer_all();
    }
    assert!(
        !rig.cache
            .condition(&gpu(), "aFault")
            .expect("told")
            .is_problem(),
        "it heard that the GPU answers"
    );
}
