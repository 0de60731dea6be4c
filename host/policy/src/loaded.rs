//! A loaded policy as the others see it: a queue before a thread of its own, and what can be told of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use device_api_core::clock::{BootTime, Clock};
use device_api_core::limits::EVALUATIONS_WAITING_MAX;
use device_api_core::policy::{Evaluation, FailureKind, Outcome, PolicyInfo};
use device_api_core::policy_status::{FailureRecord, PolicyCounters};
use device_api_core::ports::{Policy, Reply};
use device_api_core::seating::Terms;
use device_api_wasm::{Limits, Patience, Turn};

use crate::runner::{Runner, run, unavailable};
use crate::source::PolicySource;
use crate::telemetry::Telemetry;

/// A policy that was loaded and configured. Dropped, it ends its thread and answers what still waits
/// with [`FailureKind::Unavailable`].
pub struct LoadedPolicy {
    info: Arc<PolicyInfo>,
    terms: Terms,
    origin: Arc<str>,
    config: Arc<str>,
    limits: Limits,
    desk: Arc<Desk>,
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the policy's thread and those who look at it share.
pub(crate) struct Desk {
    pub(crate) telemetry: Arc<Telemetry>,
    /// The last handle is gone, or going.
    pub(crate) leaving: AtomicBool,
    /// Why it is not asked, whoever decided so; looked at only where `is_closed`.
    closed: Mutex<Option<Arc<str>>>,
    is_closed: AtomicBool,
    /// Set once it is seated: from then on its conduct counts.
    pub(crate) duty: OnceLock<Duty>,
    /// Calls that gave a decision since it is on duty.
    pub(crate) good: AtomicU64,
    /// Calls that failed for want of processor time.
    pub(crate) starved: AtomicU64,
    /// The last turn of its life.
    pub(crate) turn: Mutex<Option<(Turn, BootTime)>>,
}

/// Is told of a turn, and why.
pub(crate) type Turned = Box<dyn Fn(Turn, &str) + Send + Sync>;

/// Who is told how a seated policy fares, and by which clock.
pub(crate) struct Duty {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) patience: Patience,
    /// Called on the policy's thread: only hands on.
    pub(crate) turned: Turned,
}

/// An evaluation on its way. Answers even where it is merely dropped: `reply` is called exactly once.
pub(crate) struct Job {
    /// `None`: it was closed or reopened.
    pub(crate) evaluation: Option<Evaluation>,
    reply: Option<Reply>,
    pub(crate) lets_go: bool,
}

impl Job {
    pub(crate) fn answer(mut self, outcome: Outcome) {
        if let Some(reply) = self.reply.take() {
            reply(outcome);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(Err(unavailable("the policy's thread is gone")));
        }
    }
}

impl Desk {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            leaving: AtomicBool::new(false),
            closed: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            duty: OnceLock::new(),
            good: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            turn: Mutex::new(None),
        }
    }

    /// Why it is not asked, where it is closed.
    pub(crate) fn closed(&self) -> Option<Arc<str>> {
        if !self.is_closed.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.closed).clone()
    }

    pub(crate) fn last_turn(&self) -> Option<(Turn, BootTime)> {
        *lock(&self.turn)
    }
}

impl LoadedPolicy {
    pub(crate) fn spawn(runner: Runner, source: &PolicySource) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(EVALUATIONS_WAITING_MAX);
        let (info, desk) = (runner.info(), runner.desk());
        let name = format!("policy-{}", info.id.name);
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || run(runner, &jobs))?;
        Ok(Self {
            info,
            terms: source.terms.clone(),
            origin: source.origin.as_str().into(),
            config: source.config.as_str().into(),
            limits: source.limits,
            desk,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// The file it came from, or `bundled/NAME`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What its `configure` was given.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.config
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// For metrics.
    #[must_use]
    pub fn counters(&self) -> PolicyCounters {
        self.desk.telemetry.snapshot()
    }

    /// The latest failures, newest first.
    #[must_use]
    pub fn failures(&self) -> Vec<FailureRecord> {
        self.desk.telemetry.failures()
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// From now on its conduct counts; what was counted while it was looked over is forgotten.
    pub(crate) fn go_on_duty(&self, duty: Duty) {
        self.desk.telemetry.begin_anew();
        // It takes a seat once; a second time changes nothing.
        let _ = self.desk.duty.set(duty);
    }

    /// Has it answer `Unavailable` from now on, and its thread let go of its instance.
    pub(crate) fn close(&self, why: &str) {
        *lock(&self.desk.closed) = Some(why.into());
        if !self.desk.is_closed.swap(true, Ordering::AcqRel) {
            self.nudge(true);
        }
    }

    /// Asks it again; an instance is started before anything is asked.
    pub(crate) fn reopen(&self) {
        if self.desk.is_closed.swap(false, Ordering::AcqRel) {
            self.nudge(false);
        }
    }

    fn nudge(&self, lets_go: bool) {
        let job = Job {
            evaluation: None,
            reply: None,
            lets_go,
        };
        if let Some(queue) = &self.queue {
            // Where it is full, whatever waits there does the same.
            let _ = queue.try_send(job);
        }
    }

    /// What can be told of it without keeping it.
    pub(crate) fn view(&self) -> Outside {
        Outside {
            info: Arc::clone(&self.info),
            limits: self.limits,
            desk: Arc::clone(&self.desk),
        }
    }
}

/// A loaded policy as those see it who only look: they keep neither it nor its thread.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) info: Arc<PolicyInfo>,
    pub(crate) limits: Limits,
    pub(crate) desk: Arc<Desk>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside")
            .field("id", &self.info.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl LoadedPolicy {
    /// One whose thread is played by a test.
    pub(crate) fn played(
        info: PolicyInfo,
        play: impl FnOnce(&Desk, &std::sync::mpsc::Receiver<Job>) + Send + 'static,
    ) -> Self {
        let (queue, jobs) = sync_channel(EVALUATIONS_WAITING_MAX);
        let limits = Limits::default();
        let desk = Arc::new(Desk::new(Arc::new(Telemetry::new("played", &limits))));
        let of_thread = Arc::clone(&desk);
        Self {
            info: Arc::new(info),
            terms: Terms::default(),
            origin: "played.wasm".into(),
            config: "".into(),
            limits,
            desk,
            queue: Some(queue),
            thread: Some(thread::spawn(move || play(&of_thread, &jobs))),
        }
    }
}

impl Policy for LoadedPolicy {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        let job = Job {
            evaluation: Some(evaluation),
            reply: Some(reply),
            lets_go: false,
        };
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(job)) = queue.try_send(job) {
            self.desk.telemetry.failed(FailureKind::Unavailable);
            job.answer(Err(unavailable(&format!(
                "{EVALUATIONS_WAITING_MAX} evaluations wait already"
            ))));
        }
    }
}

impl Drop for LoadedPolicy {
    fn drop(&mut self) {
        self.desk.leaving.store(true, Ordering::SeqCst);
        drop(self.queue.take());
        // The last handle may be dropped by a reply, on the very thread that would be waited for.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // Every panic in it is caught; there would be nothing to do about one.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for LoadedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPolicy")
            .field("id", &self.info.id)
            .field("origin", &self.origin)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

/// What is behind these locks is whole after each statement, a panic's included.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
