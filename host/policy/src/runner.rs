//! One policy at work: its own OS thread, a warm instance on it, and a queue before it.
//!
//! ```text
//!  warm ──call ok──▶ reply ──▶ worn? no ──▶ warm
//!   ▲ └──call failed──▶ reply ──┐   └─ yes ─┐
//!   │                           ▼           ▼
//!   └─── started again ◀──── none ◀─────────┘   (start failed: Unavailable, tried at each evaluation)
//! ```
//!
//! A new instance is started right after the reply, so that the next signal finds it warm.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use device_api_core::limits::EVALUATIONS_WAITING_MAX;
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, Outcome, PolicyFailure, PolicyInfo,
};
use device_api_core::ports::{Policy, Reply};
use device_api_core::signal::printable;
use device_api_wasm::{CallError, Program, Sandbox};

use crate::bindings::gpu::device_policy::types as wit;
use crate::convert;
use crate::data::GuestData;
use crate::telemetry::{PolicyCounters, Telemetry};
use crate::validate::{Invalid, decision, info};
use crate::world::HealthWorld;

/// Longest text of a failure: it goes into a condition's message and the log.
const DETAIL_BYTES_MAX: usize = 1024;

/// A policy that was loaded and configured. Dropped, it ends its thread and answers what still waits
/// with [`FailureKind::Unavailable`].
pub struct LoadedPolicy {
    info: Arc<PolicyInfo>,
    origin: Arc<str>,
    telemetry: Arc<Telemetry>,
    closing: Arc<AtomicBool>,
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// An evaluation on its way. Answers even where it is merely dropped: `reply` is called exactly once.
struct Job {
    evaluation: Option<Evaluation>,
    reply: Option<Reply>,
}

impl Job {
    fn answer(mut self, outcome: Outcome) {
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

impl LoadedPolicy {
    pub(crate) fn spawn(runner: Runner, origin: &str) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(EVALUATIONS_WAITING_MAX);
        let closing = Arc::new(AtomicBool::new(false));
        let (info, telemetry) = (
            Arc::clone(&runner.info),
            Arc::clone(&runner.recipe.telemetry),
        );
        let of_thread = Arc::clone(&closing);
        let thread = thread::Builder::new()
            .name(format!("policy-{}", info.id.name))
            .spawn(move || run(runner, &jobs, &of_thread))?;
        Ok(Self {
            info,
            origin: origin.into(),
            telemetry,
            closing,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// The file it came from, or `bundled`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// For metrics.
    #[must_use]
    pub fn counters(&self) -> PolicyCounters {
        self.telemetry.snapshot()
    }
}

impl Policy for LoadedPolicy {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        let job = Job {
            evaluation: Some(evaluation),
            reply: Some(reply),
        };
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(job)) = queue.try_send(job) {
            self.telemetry.failed(FailureKind::Unavailable);
            job.answer(Err(unavailable(&format!(
                "{EVALUATIONS_WAITING_MAX} evaluations wait already"
            ))));
        }
    }
}

impl Drop for LoadedPolicy {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
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

fn run(mut runner: Runner, jobs: &Receiver<Job>, closing: &AtomicBool) {
    while let Ok(mut job) = jobs.recv() {
        let asked = job
            .evaluation
            .take()
            .filter(|_| !closing.load(Ordering::SeqCst));
        let outcome = asked.map(|evaluation| runner.evaluate(evaluation));
        let answered = catch_unwind(AssertUnwindSafe(|| match outcome {
            Some(outcome) => job.answer(outcome),
            // Closing: the job answers for itself.
            None => drop(job),
        }));
        if let Err(panic) = answered {
            tracing::error!(policy = runner.recipe.telemetry.name(), panic = %words(&*panic), "a reply panicked");
        }
        if !closing.load(Ordering::SeqCst) {
            runner.freshen();
        }
    }
}

/// What a new instance is made from.
pub(crate) struct Recipe {
    pub(crate) program: Program<HealthWorld>,
    pub(crate) config: String,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Recipe {
    /// A new instance, and what it said when it was configured.
    pub(crate) fn start(
        &self,
    ) -> Result<(Sandbox<HealthWorld>, Result<wit::Info, String>), CallError> {
        let data = GuestData::new(Arc::clone(&self.telemetry));
        let started = Sandbox::start(&self.program, data, |store, guest| {
            guest
                .gpu_device_policy_policy()
                .call_configure(store, &self.config)
        });
        if started.is_ok() {
            self.telemetry.started();
        }
        started
    }
}

/// The policy as its thread has it.
pub(crate) struct Runner {
    pub(crate) recipe: Recipe,
    pub(crate) info: Arc<PolicyInfo>,
    pub(crate) sandbox: Option<Sandbox<HealthWorld>>,
}

impl Runner {
    /// Evaluates; a bug of the host itself costs the instance, not the thread.
    fn evaluate(&mut self, evaluation: Evaluation) -> Outcome {
        let outcome =
            catch_unwind(AssertUnwindSafe(|| self.call(evaluation))).unwrap_or_else(|panic| {
                self.sandbox = None;
                Err(unavailable(&format!(
                    "the host panicked: {}",
                    words(&*panic)
                )))
            });
        if let Err(failure) = &outcome {
            self.recipe.telemetry.failed(failure.kind);
        }
        outcome
    }

    fn call(&mut self, mut evaluation: Evaluation) -> Outcome {
        let mut sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => self.start()?,
        };
        let device = convert::device(&evaluation);
        let signals: Vec<wit::Signal> = evaluation.signals.iter().map(convert::signal).collect();
        sandbox
            .data_mut()
            .begin(&mut evaluation, &self.info.readings);
        let said = sandbox.call(|store, guest| {
            guest
                .gpu_device_policy_policy()
                .call_evaluate(store, &device, &signals)
        });
        let stats = sandbox.last_stats();
        self.recipe.telemetry.called(stats.wall, stats.memory_bytes);
        let said = said.map_err(|error| failure(&error, sandbox.data().last_error.as_deref()))?;
        // A call that came to its end leaves an instance that can be called again.
        let state = sandbox.data_mut().end();
        self.sandbox = Some(sandbox);
        let said = said.map_err(|text| failed(FailureKind::Refused, &text))?;
        let decision = decision::decide(
            &said,
            &self.info,
            &evaluation.signals,
            &self.recipe.telemetry,
        )
        .map_err(|Invalid(what)| failed(FailureKind::Invalid, &what))?;
        Ok(Evaluated { decision, state })
    }

    /// Between calls, off the readers' path: replaces an instance that is worn or gone.
    fn freshen(&mut self) {
        let wear = self.sandbox.as_ref().map(Sandbox::needs_replacement);
        if let Some(None) = wear {
            return;
        }
        if let Some(Some(wear)) = wear {
            tracing::debug!(
                policy = self.recipe.telemetry.name(),
                wear = wear.as_str(),
                "instance replaced"
            );
        }
        self.sandbox = None;
        // Where this fails the next evaluation tries again, and its failure is told there.
        self.sandbox = catch_unwind(AssertUnwindSafe(|| self.start().ok()))
            .ok()
            .flatten();
    }

    /// A new instance, held to what the first one said of itself (design H3).
    fn start(&self) -> Result<Sandbox<HealthWorld>, PolicyFailure> {
        let no_instance =
            |why: &dyn fmt::Display| unavailable(&format!("no new instance can be made: {why}"));
        let (sandbox, said) = self.recipe.start().map_err(|error| no_instance(&error))?;
        let said = said.map_err(|text| no_instance(&text))?;
        let again = info::describe(&said, &self.info.id.digest)
            .map_err(|Invalid(what)| no_instance(&what))?;
        if again.info == *self.info {
            Ok(sandbox)
        } else {
            Err(no_instance(
                &"configured with the same text, it describes itself otherwise than before",
            ))
        }
    }
}

/// Why the call gave nothing, with the guest's last words where it had any.
fn failure(error: &CallError, last_error: Option<&str>) -> PolicyFailure {
    let kind = match error {
        CallError::Deadline { .. } => FailureKind::Deadline,
        CallError::Trap { .. }
        | CallError::MemoryLimit { .. }
        | CallError::TableLimit { .. }
        | CallError::HostCalls { .. }
        | CallError::CrossingLimit { .. }
        | CallError::Stack { .. } => FailureKind::Trap,
        // No host function of this world fails by itself: what it was given was malformed.
        CallError::Host { .. } => FailureKind::Invalid,
        CallError::Instantiate { .. } | CallError::HostPanic { .. } | CallError::Retired => {
            FailureKind::Unavailable
        }
        // The engine room may name more kinds: none of them gave a decision.
        _ => FailureKind::Unavailable,
    };
    match last_error {
        Some(last) => failed(kind, &format!("{error}; its last error: {last}")),
        None => failed(kind, &error.to_string()),
    }
}

fn failed(kind: FailureKind, detail: &str) -> PolicyFailure {
    PolicyFailure {
        kind,
        detail: printable(detail, DETAIL_BYTES_MAX),
    }
}

fn unavailable(detail: &str) -> PolicyFailure {
    failed(FailureKind::Unavailable, detail)
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    printable(text.unwrap_or("no message"), DETAIL_BYTES_MAX)
}
