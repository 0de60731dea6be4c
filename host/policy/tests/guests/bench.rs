//! The other side of the supervisor: seats that hold what is seated and apply what is rejudged, a clock,
//! and a supervisor over a directory.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use device_api_core::clock::{BootTime, Clock, ManualClock};
use device_api_core::condition::{Condition, Owner};
use device_api_core::error::ApiError;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::policy::PolicyFailure;
use device_api_core::policy_status::{PolicyDetail, PolicyStatus, ReloadChange, ReloadReport};
use device_api_core::ports::{Policies, Policy, PolicyCommand, Seats};
use device_api_core::seating::{DeviceJournal, Rejudgement, Revision, SeatError, Seating};
use device_api_core::signal::Signal;
use device_api_policy::{
    Patience, PolicySource, Proof, Supervisor, SupervisorConfig, bundled_origin,
};

use crate::house::{pose, roomy, source};

/// Nothing that a test waits for takes so long.
const WAIT: Duration = Duration::from_secs(30);

/// Seats that remember.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) seated: BTreeMap<String, Arc<dyn Policy>>,
    /// `seat NAME ORIGIN`, `unseat NAME`, in order.
    pub(crate) log: Vec<String>,
    pub(crate) reports: Vec<(String, Option<String>)>,
    pub(crate) journals: Vec<DeviceJournal>,
    pub(crate) rejudged: Vec<Arc<Rejudgement>>,
    /// Signals that come while somebody is being admitted: one before each of so many seatings.
    pub(crate) arrivals: u32,
    pub(crate) insisted: u32,
    pub(crate) claimed: BTreeMap<String, Owner>,
}

impl Bench {
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> R {
        look(&mut self.inner.lock().unwrap())
    }

    /// Waits until it is so.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Inner) -> bool) {
        let inner = self.inner.lock().unwrap();
        let (inner, waited) = self
            .changed
            .wait_timeout_while(inner, WAIT, |inner| !is_so(inner))
            .unwrap();
        assert!(!waited.timed_out(), "{what}: {:?}", inner.log);
    }

    #[track_caller]
    pub(crate) fn policy(&self, name: &str) -> Arc<dyn Policy> {
        let policy = self.with(|inner| inner.seated.get(name).cloned());
        policy.unwrap_or_else(|| panic!("{name} has no seat"))
    }

    #[track_caller]
    pub(crate) fn digest(&self, name: &str) -> String {
        self.policy(name).info().id.digest.to_string()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.with(|inner| std::mem::take(&mut inner.log))
    }
}

impl Seats for Bench {
    fn journals(&self) -> Vec<DeviceJournal> {
        self.with(|inner| inner.journals.clone())
    }

    fn owner(&self, condition: &str) -> Option<Owner> {
        self.with(|inner| inner.claimed.get(condition).cloned())
    }

    fn seat(&self, seating: Seating) -> Result<Vec<DeviceUuid>, SeatError> {
        self.with(|inner| {
            if inner.arrivals > 0 {
                inner.arrivals -= 1;
                for journal in &mut inner.journals {
                    let mut signals = journal.signals.to_vec();
                    let newest = signals.last().expect("a journal with signals");
                    let mut next = Signal::clone(newest);
                    next.seq = SignalSeq(next.seq.0 + 1);
                    signals.push(next.into());
                    journal.signals = signals.into();
                }
            }
            let info = seating.policy.info();
            for owned in &info.owns {
                if let Some(owner) = inner.claimed.get(&owned.condition) {
                    let (condition, owner) = (owned.condition.clone(), owner.clone());
                    return Err(SeatError::Taken { condition, owner });
                }
            }
            let is_behind = |journal: &&DeviceJournal| {
                let of = seating
                    .rejudged
                    .iter()
                    .find(|rejudged| rejudged.device == journal.device.uuid);
                of.is_none_or(|rejudged| rejudged.through != journal.through())
            };
            let moved: Vec<DeviceUuid> = inner
                .journals
                .iter()
                .filter(is_behind)
                .map(|journal| journal.device.uuid.clone())
                .collect();
            if !moved.is_empty() && !seating.insist {
                return Err(SeatError::Moved(moved));
            }
            inner.insisted += u32::from(seating.insist);
            let name = info.id.name.to_string();
            inner
                .log
                .push(format!("seat {name} {}", info.id.digest_short()));
            inner.rejudged = seating.rejudged.clone();
            inner.seated.insert(name, Arc::clone(&seating.policy));
            Ok(moved)
        })
        .inspect(|_| self.changed.notify_all())
    }

    fn unseat(&self, name: &str) {
        self.with(|inner| {
            inner.log.push(format!("unseat {name}"));
            inner.seated.remove(name)
        });
        self.changed.notify_all();
    }

    fn report(&self, name: &str, why: Option<String>) {
        self.with(|inner| inner.reports.push((name.to_owned(), why)));
        self.changed.notify_all();
    }
}

/// Of this machine, for tests about files.
#[derive(Debug)]
pub(crate) struct RealClock(pub(crate) Instant);

impl Clock for RealClock {
    fn wall(&self) -> device_api_core::clock::WallTime {
        device_api_core::clock::system_wall_time()
    }

    fn boot(&self) -> BootTime {
        BootTime::default().after(self.0.elapsed())
    }
}

/// A supervisor, its seats, and a directory that it looks at.
pub(crate) struct Rig {
    pub(crate) bench: Arc<Bench>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) state: tempfile::TempDir,
    pub(crate) config: SupervisorConfig,
    supervisor: Option<Supervisor>,
}

pub(crate) fn bundled(name: &str, bytes: Vec<u8>) -> PolicySource {
    PolicySource {
        origin: bundled_origin(name),
        ..source(bytes)
    }
}

impl Rig {
    /// Not started yet. Looks only when it is told to, until `config` says otherwise.
    pub(crate) fn new(bundled: Vec<PolicySource>) -> Self {
        let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = Arc::<ManualClock>::default();
        clock.advance(Duration::from_secs(1_000_000));
        let config = SupervisorConfig {
            directory: Some(directory.path().to_owned()),
            state_dir: Some(state.path().to_owned()),
            limits: roomy(),
            poll_interval: Duration::from_hours(1),
            call_deadline_max: roomy().call_deadline,
            ..SupervisorConfig::new(bundled)
        };
        Self {
            bench: Arc::default(),
            clock,
            directory,
            state,
            config,
            supervisor: None,
        }
    }

    pub(crate) fn start(&mut self) {
        self.start_with(Arc::clone(&self.clock) as Arc<dyn Clock>);
    }

    pub(crate) fn start_with(&mut self, clock: Arc<dyn Clock>) {
        // As one process after another.
        self.stop();
        let seats = Arc::clone(&self.bench) as Arc<dyn Seats>;
        self.supervisor = Some(Supervisor::start(self.config.clone(), seats, clock).unwrap());
    }

    /// The same, without waiting for anybody to be seated.
    pub(crate) fn begin(&mut self) {
        self.stop();
        let seats = Arc::clone(&self.bench) as Arc<dyn Seats>;
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        self.supervisor = Some(Supervisor::begin(self.config.clone(), seats, clock).unwrap());
        // Behind the first pass.
        self.settle();
    }

    pub(crate) fn stop(&mut self) {
        self.supervisor = None;
        self.bench.with(|inner| {
            inner.seated.clear();
            inner.log.clear();
            inner.reports.clear();
        });
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().expect("started")
    }

    pub(crate) fn policies(&self) -> Arc<dyn Policies> {
        self.supervisor().policies()
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        replace(&self.path(file), bytes.as_ref());
    }

    #[track_caller]
    pub(crate) fn command(&self, command: PolicyCommand) -> ReloadReport {
        self.try_command(command).unwrap()
    }

    pub(crate) fn try_command(&self, command: PolicyCommand) -> Result<ReloadReport, ApiError> {
        block_on(self.policies().command(command))
    }

    /// What a reload says: `NAME CHANGE`, and why, where there is a why.
    pub(crate) fn reload(&self) -> Vec<(String, ReloadChange, String)> {
        let report = self.command(PolicyCommand::Reload);
        assert_eq!(report.refused, None);
        let mut outcomes: Vec<_> = report
            .outcomes
            .into_iter()
            .map(|outcome| (outcome.name.to_string(), outcome.change, outcome.detail))
            .collect();
        outcomes.sort_by(|a, b| a.0.cmp(&b.0));
        outcomes
    }

    /// The changes alone.
    #[track_caller]
    pub(crate) fn reloaded(&self, expected: &[(&str, ReloadChange)]) {
        let found = self.reload();
        let changes: Vec<_> = found
            .iter()
            .map(|(name, change, _)| (name.as_str(), *change))
            .collect();
        assert_eq!(changes, expected, "{found:?}");
    }

    /// A reload that is refused as a whole.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        let report = self.command(PolicyCommand::Reload);
        let why = report
            .refused
            .unwrap_or_else(|| panic!("{:?}", report.outcomes));
        assert!(report.outcomes.is_empty());
        for word in words {
            assert!(why.contains(word), "{why:?} lacks {word:?}");
        }
    }

    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> PolicyStatus {
        let list = self.policies().list();
        let status = list.iter().find(|status| &*status.name == name).cloned();
        status.unwrap_or_else(|| panic!("{name} is not in {list:?}"))
    }

    pub(crate) fn detail(&self, name: &str) -> PolicyDetail {
        self.policies().describe(name).unwrap()
    }

    /// Asks who has the seat, and expects a failure.
    #[track_caller]
    pub(crate) fn fails(&self, name: &str, signal: Signal) -> PolicyFailure {
        pose(&*self.bench.policy(name), signal).unwrap_err()
    }

    /// Everything that was told before is dealt with when this returns.
    pub(crate) fn settle(&self) {
        drop(self.try_command(PolicyCommand::Resume {
            name: "nobody".to_owned(),
        }));
    }

    /// Quick to lose patience, and quick to be proved.
    pub(crate) fn hasty(mut self) -> Self {
        self.config.patience = Patience {
            strikes_max: 1,
            back_offs_max: 1,
            ..Patience::default()
        };
        self.config.proof = Proof {
            calls: 1,
            time: Duration::ZERO,
        };
        self
    }
}

/// Whole or not at all, as tools do that ship files.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("part");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, path).unwrap();
}

pub(crate) fn journal(
    uuid: &str,
    signals: Vec<Signal>,
    conditions: Vec<Condition>,
) -> DeviceJournal {
    let device = device_api_core::device::DeviceInfo::bare(DeviceUuid::new(uuid));
    DeviceJournal {
        device: Arc::new(device),
        signals: signals.into_iter().map(Arc::new).collect(),
        last_seen: Arc::default(),
        revision: Revision::default(),
        complete_since: BootTime::default(),
        is_cut: false,
        conditions: conditions.into(),
    }
}

struct Unpark(mpsc::Sender<()>);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        // Whoever stopped waiting needs no waking.
        let _ = self.0.send(());
    }
}

pub(crate) fn block_on<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    let (wake, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Unpark(wake)));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => woken.recv_timeout(WAIT).expect("an answer"),
        }
    }
}
