//! Small second implementations of the pipeline's ports, and a pipeline on them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use device_api_core::action::{Action, Platform};
use device_api_core::clock::{Clock as _, ManualClock, WallTime};
use device_api_core::condition::{self, Condition, Owner, PROBING, RESTARTED, find};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::{Change, DeviceMemory, IncidentMemory, LogPosition, Numbers};
use device_api_core::error::ApiError;
use device_api_core::health::{Health, derive};
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, Filter, Outcome, OwnedType, PolicyFailure, PolicyId,
    PolicyInfo, Subscription,
};
use device_api_core::ports::{Commit, DeviceCache, Incidents, Policy, Reply, Seats, SignalSink};
use device_api_core::recovery::{self, ClearRequest, Recovery, ResetReport};
use device_api_core::seating::{DeviceJournal, Rejudgement, SeatError, Seating, Terms};
use device_api_core::signal::{
    Observation, Reading, Samples, Signal, SignalKind, Source, Target, Value,
};
use device_api_core::verdict::{Clear, ClearOn, Decision, Judgement, Severity, Verdict};
use device_api_pipeline::{Config, Drills, Memories, Pipeline, Unobserved};

/// How long readers wait in these tests.
pub(crate) const BARRIER_WAIT: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) devices: Mutex<HashMap<DeviceUuid, (DeviceInfo, Vec<Condition>)>>,
    pub(crate) marks: Mutex<HashMap<DeviceUuid, (SignalSeq, SignalSeq)>>,
    pub(crate) memories: Mutex<HashMap<DeviceUuid, DeviceMemory>>,
    pub(crate) incidents: Mutex<HashMap<IncidentId, IncidentMemory>>,
    /// How often one was to be kept.
    pub(crate) incidents_kept: AtomicUsize,
    /// How often conditions were written.
    pub(crate) writes: AtomicUsize,
    /// How often something was to be remembered.
    pub(crate) remembered: AtomicUsize,
    pub(crate) log: Mutex<Option<LogPosition>>,
    pub(crate) reserved: Mutex<Vec<(String, Owner)>>,
    /// Up to where numbers are reserved.
    pub(crate) numbers: Mutex<Numbers>,
}

impl Cache {
    pub(crate) fn is_up(&self, uuid: &DeviceUuid) -> bool {
        self.marks
            .lock()
            .unwrap()
            .get(uuid)
            .is_some_and(|(raised, settled)| raised > settled)
    }

    pub(crate) fn health(&self, uuid: &DeviceUuid) -> (Health, Action) {
        let derived = derive(&self.conditions(uuid));
        (derived.health, derived.action)
    }

    pub(crate) fn condition(&self, uuid: &DeviceUuid, type_: &str) -> Option<Condition> {
        find(&self.conditions(uuid), type_).cloned()
    }
}

impl DeviceCache for Cache {
    fn resolve(&self, target: &Target) -> Option<DeviceUuid> {
        let devices = self.devices.lock().unwrap();
        match target {
            Target::Uuid(uuid) => devices
                .values()
                .map(|(info, _)| info)
                .find(|info| info.uuid == *uuid || info.has_instance(uuid.as_str()))
                .map(|info| info.uuid.clone()),
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

    fn gpus(&self) -> Vec<Arc<DeviceInfo>> {
        let devices = self.devices.lock().unwrap();
        let infos = devices.values().map(|(info, _)| Arc::new(info.clone()));
        infos.collect()
    }

    fn conditions(&self, uuid: &DeviceUuid) -> Arc<[Condition]> {
        self.devices
            .lock()
            .unwrap()
            .get(uuid)
            .map(|(_, conditions)| conditions.as_slice().into())
            .unwrap_or_default()
    }

    fn upsert_device(&self, device: DeviceInfo) -> Result<(), ApiError> {
        let mut devices = self.devices.lock().unwrap();
        let uuid = device.uuid.clone();
        let (info, conditions) = devices
            .entry(uuid.clone())
            .or_insert_with(|| (DeviceInfo::bare(uuid), Vec::new()));
        *info = device;
        drop_absent(info, conditions);
        Ok(())
    }

    fn change(&self, uuid: &DeviceUuid, commit: &mut dyn Commit) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if let Some((info, conditions)) = self.devices.lock().unwrap().get_mut(uuid) {
            commit.change(conditions);
            drop_absent(info, conditions);
        }
        self.keep(commit.remember());
    }

    fn keep(&self, changes: Vec<Change>) {
        let mut incidents = self.incidents.lock().unwrap();
        for change in changes {
            match change {
                Change::Memory(uuid, memory) => {
                    self.memories.lock().unwrap().insert(uuid, memory);
                    self.remembered.fetch_add(1, Ordering::Relaxed);
                }
                Change::Incident(memory) => {
                    self.incidents_kept.fetch_add(1, Ordering::Relaxed);
                    incidents.insert(memory.incident.id, memory);
                }
                Change::IncidentGone(id) => {
                    incidents.remove(&id).expect("it was kept");
                }
                Change::Numbers(numbers) => *self.numbers.lock().unwrap() = numbers,
                Change::Device(_)
                | Change::DeviceGone(_)
                | Change::Object(_)
                | Change::ObjectGone(_)
                | Change::Claim(_)
                | Change::ClaimGone(_)
                | Change::Lease(_)
                | Change::LeaseGone(_)
                | Change::LogPosition(_) => unreachable!("not the pipeline's: {change:?}"),
            }
        }
    }

    fn log_decided(&self, position: LogPosition) {
        *self.log.lock().unwrap() = Some(position);
    }

    fn reserve(&self, types: Vec<(String, Owner)>) -> Result<(), (String, Owner)> {
        for (type_, new) in &types {
            if let Some(owner) = self.owner(type_).filter(|owner| !owner.same(new)) {
                return Err((type_.clone(), owner));
            }
        }
        *self.reserved.lock().unwrap() = types;
        Ok(())
    }

    fn owner(&self, condition: &str) -> Option<Owner> {
        let reserved = self.reserved.lock().unwrap();
        let of_policy = reserved.iter().find(|(type_, _)| type_ == condition);
        let of_policy = of_policy.map(|(_, owner)| owner.clone());
        of_policy.or_else(|| {
            let devices = self.devices.lock().unwrap();
            let mut standing = devices.values();
            let owner = standing
                .find_map(|(_, conditions)| Some(find(conditions, condition)?.owner.clone()));
            // What a policy left behind is another's to judge.
            owner.filter(|owner| !matches!(owner, Owner::Policy(_)))
        })
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

/// What is said of MIG instances that are not there is nobody's.
fn drop_absent(info: &DeviceInfo, conditions: &mut Vec<Condition>) {
    let is_there = |instance: &DeviceUuid| info.has_instance(instance.as_str());
    conditions.retain(|condition| condition.instance.as_ref().is_none_or(is_there));
}

pub(crate) type Judge = Box<dyn Fn(&Evaluation) -> Outcome + Send + Sync>;

/// A policy that answers when the test says so, by a closure.
pub(crate) struct Scripted {
    info: PolicyInfo,
    terms: Terms,
    judge: Judge,
    waiting: Mutex<Vec<(Evaluation, Reply)>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.info.id.name)
    }
}

impl Scripted {
    pub(crate) fn new(
        name: &str,
        subscriptions: Vec<Subscription>,
        judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::of_schema(1, name, subscriptions, judge)
    }

    pub(crate) fn of_schema(
        state_schema: u32,
        name: &str,
        subscriptions: Vec<Subscription>,
        judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::build(state_schema, name, subscriptions, judge))
    }

    /// One to be changed before it is shared.
    pub(crate) fn build(
        state_schema: u32,
        name: &str,
        subscriptions: Vec<Subscription>,
        judge: impl Fn(&Evaluation) -> Outcome + Send + Sync + 'static,
    ) -> Self {
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
            state_schema,
            subscriptions,
            owns: vec![owned(format!("{name}Fault"))],
            readings: vec![],
        };
        Self {
            info,
            terms: Terms::default(),
            judge: Box::new(judge),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    pub(crate) fn of_version(mut self, version: &str) -> Self {
        self.info.id.version = version.into();
        self
    }

    /// Owns the types of those names, and no other.
    pub(crate) fn owning(mut self, types: &[&str]) -> Self {
        let owned = |condition: &&str| OwnedType {
            condition: (*condition).to_owned(),
            true_is_problem: true,
            reasons: vec!["Because".to_owned()],
        };
        self.info.owns = types.iter().map(owned).collect();
        self
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap().len()
    }

    /// Answers one evaluation, on this thread. Says which signals it was about.
    pub(crate) fn answer(&self) -> Vec<Signal> {
        let (evaluation, reply) = self.waiting.lock().unwrap().remove(0);
        reply((self.judge)(&evaluation));
        evaluation.signals.to_vec()
    }

    /// Lets the oldest evaluation go without an answer in it, as what was called too late.
    pub(crate) fn take(&self) -> (Evaluation, Reply) {
        self.waiting.lock().unwrap().remove(0)
    }

    /// What it says of a journal, asked in one go on an empty state.
    pub(crate) fn rejudges(&self, journal: &DeviceJournal) -> Rejudgement {
        let asked = journal.signals.iter().map(|signal| Signal::clone(signal));
        let asked: Arc<[Signal]> = asked.filter(|signal| self.info.wants(signal)).collect();
        let evaluated = match asked.last() {
            None => Evaluated::default(),
            Some(newest) => (self.judge)(&Evaluation {
                device: journal.device.clone(),
                standing: Vec::new(),
                samples: newest.samples.clone().unwrap(),
                state: Default::default(),
                attrs: Vec::new(),
                signals: asked.clone(),
            })
            .unwrap(),
        };
        Rejudgement {
            device: journal.device.uuid.clone(),
            through: journal.through(),
            revision: journal.revision,
            drill_wakes: asked
                .iter()
                .all(|signal| signal.drill)
                .then(|| {
                    evaluated
                        .decision
                        .wakes
                        .iter()
                        .map(|wake| wake.name.clone())
                })
                .into_iter()
                .flatten()
                .collect(),
            decision: evaluated.decision,
            state: evaluated.state.into(),
        }
    }

    pub(crate) fn answer_all(&self) {
        while self.waiting() > 0 {
            self.answer();
        }
    }
}

impl Policy for Scripted {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        self.waiting.lock().unwrap().push((evaluation, reply));
    }
}

pub(crate) struct Rig {
    pub(crate) cache: Arc<Cache>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pipeline: Pipeline,
    pub(crate) sink: Arc<dyn SignalSink>,
    pub(crate) seats: Arc<dyn Seats>,
    pub(crate) incidents: Arc<dyn Incidents>,
}

pub(crate) fn gpu() -> DeviceUuid {
    DeviceUuid::new("GPU-0")
}

pub(crate) fn every(kind: SignalKind) -> Subscription {
    Subscription {
        kind,
        filter: Filter::default(),
    }
}

fn reporting() -> Config {
    Config {
        drills: Drills::Report,
        platform: Platform::BareMetal,
        barrier_wait: BARRIER_WAIT,
        safe_mode: false,
    }
}

impl Rig {
    pub(crate) fn new(policies: &[Arc<Scripted>]) -> Self {
        Self::with(policies, Drills::Report)
    }

    pub(crate) fn with(policies: &[Arc<Scripted>], drills: Drills) -> Self {
        let (cache, clock) = (Arc::new(Cache::default()), Arc::new(ManualClock::default()));
        clock.advance(Duration::from_secs(1000));
        let config = Config {
            drills,
            ..reporting()
        };
        let rig = Self::on(cache, clock, policies, config, Memories::default());
        rig.cache
            .upsert_device(DeviceInfo {
                pci: Some("0000:1b:00.0".parse().unwrap()),
                ..DeviceInfo::bare(gpu())
            })
            .unwrap();
        rig
    }

    fn on(
        cache: Arc<Cache>,
        clock: Arc<ManualClock>,
        policies: &[Arc<Scripted>],
        config: Config,
        memories: Memories,
    ) -> Self {
        crate::log::install();
        // As the store does when it is opened.
        *cache.numbers.lock().unwrap() = memories.numbers.reserving();
        let (seen, told) = (cache.clone(), Arc::new(Unobserved));
        let pipeline = Pipeline::start(seen, clock.clone(), told, config, memories).unwrap();
        let (sink, seats) = (pipeline.sink(), pipeline.seats());
        let incidents = pipeline.incidents();
        let rig = Self {
            cache,
            clock,
            pipeline,
            sink,
            seats,
            incidents,
        };
        for policy in policies {
            rig.seat(policy).unwrap();
        }
        rig
    }

    /// Seats a policy, without anything being judged again.
    pub(crate) fn seat(&self, policy: &Arc<Scripted>) -> Result<(), SeatError> {
        self.seat_judged(policy, Vec::new())
    }

    pub(crate) fn seat_judged(
        &self,
        policy: &Arc<Scripted>,
        rejudged: Vec<Rejudgement>,
    ) -> Result<(), SeatError> {
        let seating = Seating {
            policy: policy.clone(),
            rejudged: rejudged.into_iter().map(Arc::new).collect(),
            insist: false,
        };
        self.seats.seat(seating).map(drop)
    }

    /// The next run of the daemon, on the memories that this one left and on what a cache restores of
    /// its conditions: nothing that was fine, nothing that a reboot clears after one, and that nothing
    /// was observed yet.
    pub(crate) fn restarted(self, policies: &[Arc<Scripted>], rebooted: bool) -> Self {
        self.restarted_with(policies, rebooted, reporting())
    }

    /// The next run, in safe mode.
    pub(crate) fn restarted_safely(self) -> Self {
        let config = Config {
            safe_mode: true,
            ..reporting()
        };
        self.restarted_with(&[], false, config)
    }

    fn restarted_with(self, policies: &[Arc<Scripted>], rebooted: bool, config: Config) -> Self {
        let Self {
            cache,
            clock,
            pipeline,
            ..
        } = self;
        drop(pipeline);
        let incidents = cache.incidents.lock().unwrap().values().cloned().collect();
        Self::go_on((cache, clock), policies, rebooted, config, incidents)
    }

    /// The next run after one that was killed: what it hands on when it ends is lost.
    pub(crate) fn killed(self, policies: &[Arc<Scripted>]) -> Self {
        let incidents = self.cache.incidents.lock().unwrap().clone();
        let numbers = *self.cache.numbers.lock().unwrap();
        let Self {
            cache,
            clock,
            pipeline,
            ..
        } = self;
        drop(pipeline);
        cache.incidents.lock().unwrap().clone_from(&incidents);
        *cache.numbers.lock().unwrap() = numbers;
        let incidents = incidents.into_values().collect();
        Self::go_on((cache, clock), policies, false, reporting(), incidents)
    }

    fn go_on(
        (cache, clock): (Arc<Cache>, Arc<ManualClock>),
        policies: &[Arc<Scripted>],
        rebooted: bool,
        config: Config,
        mut incidents: Vec<IncidentMemory>,
    ) -> Self {
        for (info, conditions) in cache.devices.lock().unwrap().values_mut() {
            conditions.retain(|old| is_restored(old, rebooted));
            condition::upsert(conditions, unobserved());
            info.pci = info.pci.filter(|_| !rebooted);
        }
        cache.marks.lock().unwrap().clear();
        let memories = cache.memories.lock().unwrap().clone();
        let mut devices: Vec<_> = memories.into_iter().collect();
        if rebooted {
            let at = clock.boot();
            clock.advance(Duration::from_secs(500));
            for (_, memory) in &mut devices {
                *memory = std::mem::take(memory).after_reboot(at, clock.boot());
            }
            let stands = |uuid: &DeviceUuid, name: &str| {
                let standing = cache.conditions(uuid);
                condition::find_named(&standing, name).is_some_and(Condition::is_problem)
            };
            let ended = |memory: IncidentMemory| memory.after_reboot(clock.wall(), stands);
            incidents = incidents.into_iter().map(ended).collect();
        }
        let numbers = *cache.numbers.lock().unwrap();
        let memories = Memories {
            devices,
            incidents,
            numbers,
        };
        Self::on(cache, clock, policies, config, memories)
    }

    /// Has a policy judge all journals again, and seats it.
    pub(crate) fn swap(&self, policy: &Arc<Scripted>) -> Result<(), SeatError> {
        let journals = self.seats.journals();
        let rejudged = journals.iter().map(|journal| policy.rejudges(journal));
        self.seat_judged(policy, rejudged.collect())
    }

    /// What is remembered of a policy's state under each schema, by key.
    pub(crate) fn remembered(&self, key: &str) -> Vec<(u32, Vec<u8>)> {
        let memories = self.cache.memories.lock().unwrap();
        let policies = &memories.get(&gpu()).expect("remembered").policies;
        let of_key = policies.iter().filter_map(|memory| {
            let value = memory.state.get(key)?;
            Some((memory.schema, value.clone()))
        });
        of_key.collect()
    }

    pub(crate) fn xid(&self, code: u64) {
        self.sink.observe(xid(code));
    }

    /// NVML finds a device at this address.
    pub(crate) fn found(&self, uuid: &str, pci: &str) {
        let device = DeviceInfo {
            pci: Some(pci.parse().unwrap()),
            ..DeviceInfo::bare(DeviceUuid::new(uuid))
        };
        self.sink.device_found(device, Arc::default());
    }

    /// NVML looks at the GPU and finds it as it was.
    pub(crate) fn looked(&self) {
        // Each look is at a time of its own.
        self.clock.advance(Duration::from_millis(1));
        let reading = Reading {
            value: Value::Int(0),
            at: self.clock.wall(),
        };
        let samples = Samples::from([("row-remap.pending".to_owned(), Ok(reading))]);
        self.sink.sampled(&gpu(), Arc::new(samples));
    }

    pub(crate) fn recovered(&self, recovery: Recovery) {
        self.sink
            .recovered(&gpu(), recovery, "volatile counters fell to 0");
    }

    pub(crate) fn reset(&self) {
        self.recovered(Recovery::GpuReset);
    }

    pub(crate) fn clear(&self, condition: &str) -> Result<(), ApiError> {
        self.incidents.clear(&ClearRequest {
            device: gpu(),
            condition: condition.to_owned(),
            reason: "it was reseated".to_owned(),
        })
    }

    /// An operator reports that a device was reset.
    pub(crate) fn report_reset_of(&self, device: &str, reason: &str) -> Result<(), ApiError> {
        self.incidents.report_reset(&ResetReport {
            device: DeviceUuid::new(device),
            by: "uid:0".to_owned(),
            reason: reason.to_owned(),
        })
    }

    pub(crate) fn report_reset(&self) {
        self.report_reset_of("GPU-0", "nvidia-smi --gpu-reset")
            .unwrap();
    }

    pub(crate) fn is_problem(&self, condition: &str) -> bool {
        let condition = self.cache.condition(&gpu(), condition);
        condition.is_some_and(|condition| condition.is_problem())
    }

    /// NVML finds the GPU of these tests.
    pub(crate) fn found_again(&self) {
        self.found("GPU-0", "0000:1b:00.0");
    }

    pub(crate) fn later(&self, duration: Duration) {
        self.clock.advance(duration);
        self.pipeline.tick();
    }
}

/// What a cache restores, in short: core has the rule of what a reboot ends.
fn is_restored(old: &Condition, rebooted: bool) -> bool {
    old.state != Judgement::Ok && !(rebooted && recovery::is_over_after_reboot(old))
}

fn unobserved() -> Condition {
    Condition {
        severity: Severity::Warning,
        ..Condition::of_host(PROBING, Judgement::Unknown, RESTARTED, WallTime::default())
    }
}

pub(crate) fn xid(code: u64) -> Observation {
    Observation {
        code: Some(code),
        evidence: format!("XID {code}"),
        ..Observation::new(SignalKind::Xid, Target::Uuid(gpu()), Source::Nvml)
    }
}

/// As the kernel log tells of it.
pub(crate) fn xid_at(pci: &str, code: u64) -> Observation {
    Observation {
        target: Target::Pci(pci.parse().unwrap()),
        source: Source::Kmsg,
        ..xid(code)
    }
}

pub(crate) fn verdict(
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

pub(crate) fn says(
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

pub(crate) fn fails(kind: FailureKind) -> impl Fn(&Evaluation) -> Outcome {
    move |_| {
        Err(PolicyFailure {
            kind,
            detail: "on purpose".to_owned(),
        })
    }
}
