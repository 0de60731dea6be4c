//! A second implementation of the `Policies` port: small, in memory, with the same promises. What a policy
//! would judge is nothing to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use device_api_core::clock::WallTime;
use device_api_core::error::ApiError;
use device_api_core::policy::FailureKind;
use device_api_core::policy::{Filter, OwnedType, PolicyId, Subscription};
use device_api_core::policy_status::{
    Disagreement, FailureRecord, LATENCY_BUCKETS_MICROS, Mode, Phase, PolicyCounters, PolicyDetail,
    PolicyHostStatus, PolicyStatus, ReloadChange, ReloadOutcome, ReloadReport, SetAside, Version,
};
use device_api_core::ports::{Pending, Policies, PolicyCommand};
use device_api_core::seating::{Fallback, Grant, Terms};
use device_api_core::signal::SignalKind;
use tokio::sync::watch;

/// A file of the directory.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The digit that its digest consists of.
    pub(crate) digit: char,
    /// Its verdicts differ too much from those of the one before.
    pub(crate) is_held: bool,
}

#[derive(Debug, Default)]
struct State {
    policies: BTreeMap<Arc<str>, PolicyStatus>,
    directory: Vec<File>,
    /// Why the whole directory can't be used.
    broken: Option<String>,
    host: PolicyHostStatus,
    writes: usize,
}

#[derive(Debug)]
pub(crate) struct PolicyHost {
    state: Mutex<State>,
    /// Closed: commands wait.
    pub(crate) open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for PolicyHost {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            open: watch::Sender::new(true),
            waiting: watch::Sender::default(),
        }
    }
}

pub(crate) fn digest(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn now() -> WallTime {
    WallTime::from_ms(1_700_000_000_000)
}

fn version(file: &File) -> Version {
    Version {
        id: PolicyId {
            name: file.name.into(),
            version: file.version.into(),
            digest: digest(file.digit).into(),
        },
        origin: format!("/policies/{}.wasm", file.name).into(),
        since: now(),
    }
}

fn aside(version: Version, why: &str) -> SetAside {
    SetAside {
        digest: version.id.digest.clone(),
        id: Some(version.id),
        origin: version.origin,
        since: version.since,
        why: why.to_owned(),
    }
}

fn again(aside: SetAside) -> Option<Version> {
    Some(Version {
        id: aside.id?,
        origin: aside.origin,
        since: now(),
    })
}

fn precondition(why: &str) -> ApiError {
    let why = why.to_owned();
    ApiError::Precondition { why }
}

fn is_named(digest: &str, by: &str) -> bool {
    digest.starts_with(by)
}

fn outcome(name: &str, change: ReloadChange, digest: &str, detail: &str) -> ReloadReport {
    ReloadReport {
        outcomes: vec![ReloadOutcome {
            name: name.into(),
            change,
            digest: digest.into(),
            detail: detail.to_owned(),
        }],
        refused: None,
    }
}

fn idle(file: &File) -> PolicyStatus {
    PolicyStatus {
        name: file.name.into(),
        mode: Mode::Enforce,
        phase: Phase::Running,
        detail: String::new(),
        active: Some(version(file)),
        last_good: Some(version(file)),
        held: None,
        quarantined: Vec::new(),
        refused: None,
        counters: PolicyCounters {
            calls: 1,
            busy: Duration::from_micros(3),
            ..PolicyCounters::default()
        },
    }
}

impl PolicyHost {
    /// With one policy of each of these.
    pub(crate) fn with(files: &[File]) -> Self {
        let host = Self::default();
        host.state().directory = files.to_vec();
        for file in files {
            host.state().policies.insert(file.name.into(), idle(file));
        }
        host
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under it")
    }

    /// Until a command has come.
    pub(crate) async fn waiting(&self) {
        let mut waiting = self.waiting.subscribe();
        waiting
            .wait_for(|waiting| *waiting != 0)
            .await
            .expect("we hold it");
    }

    /// With so many that are none.
    pub(crate) fn fill(&self, count: usize) {
        for at in 0..count {
            let file = File {
                name: "a",
                version: "0.0.0",
                digit: 'f',
                is_held: false,
            };
            let name = Arc::<str>::from(format!("a-{at}"));
            let status = PolicyStatus {
                name: Arc::clone(&name),
                phase: Phase::Refused,
                active: None,
                ..idle(&file)
            };
            self.state().policies.insert(name, status);
        }
    }

    pub(crate) fn writes(&self) -> usize {
        self.state().writes
    }

    /// Puts a file there, in place of another of the same name.
    pub(crate) fn put(&self, file: File) {
        let directory = &mut self.state().directory;
        directory.retain(|other| other.name != file.name);
        directory.push(file);
    }

    pub(crate) fn take_away(&self, name: &str) {
        self.state().directory.retain(|file| file.name != name);
    }

    pub(crate) fn break_set(&self, why: &str) {
        self.state().broken = Some(why.to_owned());
    }

    pub(crate) fn set_host(&self, host: PolicyHostStatus) {
        self.state().host = host;
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut PolicyStatus)) {
        change(self.state().policies.get_mut(name).expect("there"));
    }
}

impl State {
    fn carry_out(&mut self, command: PolicyCommand) -> Result<ReloadReport, ApiError> {
        match command {
            PolicyCommand::Reload => Ok(self.reload()),
            PolicyCommand::Quarantine {
                name,
                reason,
                digest,
            } => self.quarantine(&name, &reason, &digest),
            PolicyCommand::Release { name, digest } => self.release(&name, &digest),
            PolicyCommand::Accept { name, digest } => self.accept(&name, &digest),
            PolicyCommand::Pause { name, reason } => {
                let policy = self.policy(&name)?;
                (policy.phase, policy.detail) = (Phase::Paused, reason);
                Ok(outcome(&name, ReloadChange::Unchanged, "", ""))
            }
            PolicyCommand::Resume { name } => {
                let policy = self.policy(&name)?;
                if policy.phase != Phase::Paused {
                    return Err(precondition("it is not paused"));
                }
                (policy.phase, policy.detail) = (Phase::Running, String::new());
                Ok(outcome(&name, ReloadChange::Unchanged, "", ""))
            }
        }
    }

    fn policy(&mut self, name: &str) -> Result<&mut PolicyStatus, ApiError> {
        self.policies
            .get_mut(name)
            .ok_or_else(|| ApiError::NoPolicy {
                name: name.to_owned(),
            })
    }

    fn quarantine(
        &mut self,
        name: &str,
        reason: &str,
        digest: &str,
    ) -> Result<ReloadReport, ApiError> {
        let policy = self.policy(name)?;
        let is_it = |active: &mut Version| is_named(&active.id.digest, digest);
        let Some(active) = policy.active.take_if(is_it) else {
            return Err(precondition("that version is not asked"));
        };
        let digest = active.id.digest.clone();
        policy.quarantined.insert(0, aside(active, reason));
        let good = policy.last_good.take();
        policy.active = good.filter(|good| good.id.digest != digest);
        policy.phase = match policy.active {
            Some(_) => Phase::LastGood,
            None => Phase::Quarantined,
        };
        policy.detail = reason.to_owned();
        Ok(outcome(name, ReloadChange::Swapped, &digest, reason))
    }

    fn release(&mut self, name: &str, digest: &str) -> Result<ReloadReport, ApiError> {
        let policy = self.policy(name)?;
        let (released, kept) = std::mem::take(&mut policy.quarantined)
            .into_iter()
            .partition::<Vec<_>, _>(|aside| is_named(&aside.digest, digest));
        policy.quarantined = kept;
        let Some(version) = released.into_iter().next().and_then(again) else {
            return Err(precondition("that version is not quarantined"));
        };
        let digest = version.id.digest.clone();
        if let Some(refused) = self.broken.take() {
            let refused = Some(refused);
            return Ok(ReloadReport {
                refused,
                ..ReloadReport::default()
            });
        }
        let policy = self.policy(name)?;
        policy.active = Some(version);
        (policy.phase, policy.detail) = (Phase::Running, String::new());
        Ok(outcome(name, ReloadChange::Swapped, &digest, ""))
    }

    fn accept(&mut self, name: &str, digest: &str) -> Result<ReloadReport, ApiError> {
        let policy = self.policy(name)?;
        let held = policy.held.take_if(|held| is_named(&held.digest, digest));
        let Some(version) = held.and_then(again) else {
            return Err(precondition("that version is not held"));
        };
        let digest = version.id.digest.clone();
        policy.last_good = policy.active.replace(version);
        Ok(outcome(name, ReloadChange::Swapped, &digest, ""))
    }

    fn reload(&mut self) -> ReloadReport {
        if let Some(refused) = self.broken.take() {
            let refused = Some(refused);
            return ReloadReport {
                refused,
                ..ReloadReport::default()
            };
        }
        let mut report = ReloadReport::default();
        let directory = self.directory.clone();
        let is_there = |name: &str| directory.iter().any(|file| file.name == name);
        self.policies.retain(|name, _| {
            let stays = is_there(name);
            if !stays {
                let gone = outcome(name, ReloadChange::Removed, "", "");
                report.outcomes.extend(gone.outcomes);
            }
            stays
        });
        for file in &directory {
            let name = file.name;
            let policy = self.policies.entry(name.into());
            let policy = policy.or_insert_with(|| idle(file));
            let new = version(file);
            let digest = new.id.digest.clone();
            let is_active = |active: &Version| active.id.digest == digest;
            let change = if policy.active.as_ref().is_some_and(is_active) {
                ReloadChange::Unchanged
            } else if file.is_held {
                policy.held = Some(aside(new, "it would make 3 GPUs Unhealthy"));
                ReloadChange::Held
            } else {
                policy.last_good = policy.active.replace(new);
                ReloadChange::Swapped
            };
            let outcome = outcome(name, change, &digest, "");
            report.outcomes.extend(outcome.outcomes);
        }
        report
    }
}

impl Policies for PolicyHost {
    fn list(&self) -> Vec<PolicyStatus> {
        self.state().policies.values().cloned().collect()
    }

    fn host(&self) -> PolicyHostStatus {
        self.state().host.clone()
    }

    fn describe(&self, name: &str) -> Result<PolicyDetail, ApiError> {
        let status = self.state().policy(name)?.clone();
        let digest = Arc::from(digest('a'));
        Ok(PolicyDetail {
            status,
            terms: Terms {
                fallback: Fallback::Unhealthy,
                grants: vec![Grant("xid-79".into())],
            },
            owns: vec![OwnedType {
                condition: "XidCriticalError".to_owned(),
                true_is_problem: true,
                reasons: vec!["FallenOffTheBus".to_owned()],
            }],
            subscriptions: vec![Subscription {
                kind: SignalKind::Xid,
                filter: Filter {
                    codes: Some((63, 64)),
                    above: Some(85.5),
                    relative_to: Some("power.limit".to_owned()),
                    ..Filter::default()
                },
            }],
            readings: vec!["temperature.gpu".to_owned()],
            state_schema: 2,
            limits: vec![("memory".to_owned(), "16Mi".to_owned())],
            verdict_diff: vec!["xid 63: nothing, was problem\u{1b}[2J".to_owned()],
            failures: vec![FailureRecord {
                at: now(),
                kind: FailureKind::Deadline,
                digest: Arc::clone(&digest),
                detail: "5 ms\nWARN forged".to_owned(),
            }],
            disagreements: vec![Disagreement {
                at: now(),
                digest,
                device: "GPU-0".into(),
                condition: "XidCriticalError".to_owned(),
                signal: "xid 63".to_owned(),
                enforced: "nothing".to_owned(),
                shadow: "problem fatal RESTART_BM".to_owned(),
            }],
        })
    }

    fn command(&self, command: PolicyCommand) -> Pending<Result<ReloadReport, ApiError>> {
        let mut state = self.state();
        let answer = state.carry_out(command);
        state.writes += usize::from(answer.is_ok());
        let mut open = self.open.subscribe();
        self.waiting.send_modify(|waiting| *waiting += 1);
        Box::pin(async move {
            // An error: the host is gone.
            let _ = open.wait_for(|open| *open).await;
            answer
        })
    }
}

/// Calls in each bucket of the histogram, and above, each another number.
pub(crate) fn distinct_latency() -> [u64; LATENCY_BUCKETS_MICROS.len() + 1] {
    std::array::from_fn(|at| at as u64 + 1)
}
