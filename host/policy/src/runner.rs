//! One policy at work, on its own thread: a warm instance, and how it fares.
//!
//! ```text
//!  warm ──call ok──▶ reply ──▶ worn? no ──▶ warm
//!   ▲ └──call failed──▶ reply ──┐   └─ yes ─┐
//!   │                           ▼           ▼
//!   └─── started again ◀──── none ◀─────────┘   (start failed: Unavailable, tried at each evaluation)
//! ```
//!
//! A new instance is started right after the reply, so that the next signal finds it warm. Whether it is
//! asked at all is up to [`Lifecycle`](device_api_wasm::Lifecycle), once the policy is seated.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use device_api_core::clock::Clock;
use device_api_core::policy::{
    Evaluated, Evaluation, FailureKind, Outcome, PolicyFailure, PolicyInfo,
};
use device_api_core::policy_status::{FailureRecord, LimitHit};
use device_api_core::signal::printable;
use device_api_wasm::{
    Ask, CallError, CallStats, Conduct, Lifecycle, Sandbox, Turn, panic_message,
};

use crate::bindings::gpu::device_policy::types as wit;
use crate::convert;
use crate::loaded::{Desk, Duty, Job, lock};
use crate::marker::Marker;
use crate::recipe::Recipe;
use crate::state::Draft;
use crate::validate::{Invalid, decision, info};
use crate::world::HealthWorld;

/// Longest text of a failure: it goes into a condition's message and the log.
const DETAIL_BYTES_MAX: usize = 1024;

/// The policy's thread, until the last handle is gone.
pub(crate) fn run(mut runner: Runner, jobs: &Receiver<Job>) {
    let desk = runner.desk();
    let leaving = || desk.leaving.load(Ordering::SeqCst);
    while let Ok(mut job) = jobs.recv() {
        let lets_go = job.lets_go;
        let asked = job.evaluation.take().filter(|_| !leaving());
        let outcome = asked.map(|evaluation| runner.evaluate(evaluation));
        let answered = catch_unwind(AssertUnwindSafe(|| match outcome {
            Some(outcome) => job.answer(outcome),
            // Leaving: the job answers for itself.
            None => drop(job),
        }));
        if let Err(panic) = answered {
            tracing::error!(policy = desk.telemetry.name(), panic = %words(&*panic), "a reply panicked");
        }
        if !leaving() {
            if lets_go {
                runner.let_go();
            }
            runner.freshen();
        }
    }
}

/// The policy as its thread has it.
pub(crate) struct Runner {
    recipe: Recipe,
    info: Arc<PolicyInfo>,
    desk: Arc<Desk>,
    sandbox: Option<Sandbox<HealthWorld>>,
    /// Calls that this instance has had.
    served: u64,
    /// Begins with its duty.
    life: Option<Lifecycle>,
}

/// A failure, and whether it is the policy's own.
type Blamed = (PolicyFailure, Conduct);

impl Runner {
    pub(crate) fn new(
        recipe: Recipe,
        info: Arc<PolicyInfo>,
        sandbox: Sandbox<HealthWorld>,
    ) -> Self {
        let desk = Arc::new(Desk::new(Arc::clone(&recipe.telemetry)));
        Self {
            recipe,
            info,
            desk,
            sandbox: Some(sandbox),
            served: 0,
            life: None,
        }
    }

    pub(crate) fn info(&self) -> Arc<PolicyInfo> {
        Arc::clone(&self.info)
    }

    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Evaluates, if it may; takes down how that went.
    pub(crate) fn evaluate(&mut self, evaluation: Evaluation) -> Outcome {
        let desk = Arc::clone(&self.desk);
        if let Some(why) = desk.closed() {
            self.sandbox = None;
            self.recipe.telemetry.failed(FailureKind::Unavailable);
            return Err(unavailable(&why));
        }
        let Some(duty) = desk.duty.get() else {
            return self
                .guarded(evaluation)
                .map_err(|(failure, conduct)| {
                    self.count(&failure, conduct);
                    failure
                })
                .map(|(evaluated, _)| evaluated);
        };
        let life = self
            .life
            .get_or_insert_with(|| Lifecycle::new(duty.patience));
        let asked = life.ask(|| uptime(&*duty.clock));
        if let Some(why) = refusal(asked) {
            self.recipe.telemetry.failed(FailureKind::Unavailable);
            return Err(unavailable(&why));
        }
        let judged = self.guarded(evaluation);
        let conduct = match &judged {
            Ok((_, conduct)) | Err((_, conduct)) => *conduct,
        };
        match judged {
            Ok((evaluated, _)) => {
                desk.good.fetch_add(1, Ordering::Relaxed);
                self.conducted(
                    duty,
                    conduct,
                    "calls take nearly their whole deadline in processor time, or nearly all of its memory at once",
                );
                Ok(evaluated)
            }
            Err((failure, _)) => {
                self.count(&failure, conduct);
                self.recipe.telemetry.keep_failure(FailureRecord {
                    at: duty.clock.wall(),
                    kind: failure.kind,
                    digest: Arc::clone(&self.info.id.digest),
                    detail: failure.detail.clone(),
                });
                self.conducted(duty, conduct, &failure.to_string());
                Err(failure)
            }
        }
    }

    fn count(&self, failure: &PolicyFailure, conduct: Conduct) {
        self.recipe.telemetry.failed(failure.kind);
        if conduct == Conduct::Excused {
            self.desk.starved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a turn of its life comes of it, and who is told.
    fn conducted(&mut self, duty: &Duty, conduct: Conduct, why: &str) {
        let life = self.life.as_mut();
        let turn = life.and_then(|life| life.record(conduct, || uptime(&*duty.clock)));
        let Some(turn) = turn else { return };
        *lock(&self.desk.turn) = Some((turn, duty.clock.boot()));
        let policy = self.recipe.telemetry.name();
        match turn {
            Turn::BackedOff { nth, pause } => {
                tracing::warn!(
                    policy,
                    nth,
                    ?pause,
                    why,
                    "policy fails repeatedly: it is not asked for a while"
                );
            }
            Turn::Recovered => tracing::info!(policy, "policy is asked again"),
            Turn::Quarantined => {
                tracing::error!(
                    policy,
                    why,
                    "policy fails whenever it is asked: it is quarantined"
                );
            }
        }
        let told = catch_unwind(AssertUnwindSafe(|| (duty.turned)(turn, why)));
        if let Err(panic) = told {
            tracing::error!(policy, panic = %words(&*panic), "who hears of a policy's turn panicked");
        }
    }

    /// A bug of the host itself costs the instance, not the thread.
    fn guarded(&mut self, evaluation: Evaluation) -> Result<(Evaluated, Conduct), Blamed> {
        catch_unwind(AssertUnwindSafe(|| self.call(evaluation))).unwrap_or_else(|panic| {
            self.sandbox = None;
            let detail = format!("the host panicked: {}", words(&*panic));
            Err((unavailable(&detail), Conduct::Strike))
        })
    }

    fn call(&mut self, mut evaluation: Evaluation) -> Result<(Evaluated, Conduct), Blamed> {
        let mut sandbox = match self.sandbox.take() {
            Some(sandbox) => sandbox,
            None => {
                self.served = 0;
                self.start()?
            }
        };
        self.served = self.served.saturating_add(1);
        let device = convert::device(&evaluation);
        let signals: Vec<wit::Signal> = evaluation.signals.iter().map(convert::signal).collect();
        sandbox
            .data_mut()
            .begin(&mut evaluation, &self.info.readings);
        let marked = self.recipe.marker.as_deref().map(Marker::call);
        let said = sandbox.call(|store, guest| {
            guest
                .gpu_device_policy_policy()
                .call_evaluate(store, &device, &signals)
        });
        drop(marked);
        let stats: CallStats = sandbox.last_stats();
        let telemetry = &self.recipe.telemetry;
        telemetry.called(stats);
        let said = said.map_err(|error| {
            if let Some(limit) = limit_hit(&error) {
                telemetry.hit(limit);
            }
            let last_words = sandbox.data_mut().last_words();
            let conduct = Conduct::of_failure(&error);
            (failure(&error, last_words.as_deref()), conduct)
        })?;
        // A call that came to its end leaves an instance that can be called again.
        let draft = sandbox.data().draft.as_ref();
        telemetry.left_state(draft.map_or(0, Draft::bytes));
        let state = sandbox.data_mut().end();
        self.sandbox = Some(sandbox);
        let own = |failure| (failure, Conduct::Strike);
        let said = said.map_err(|text| own(failed(FailureKind::Refused, &text)))?;
        let decision = decision::decide(&said, &self.info, &evaluation.signals, telemetry)
            .map_err(|Invalid(what)| own(failed(FailureKind::Invalid, &what)))?;
        let conduct = match self.sandbox.as_ref().map(Sandbox::is_worn_early) {
            Some(true) => Conduct::Strike,
            Some(false) | None => Conduct::of_success(stats, self.recipe.program.limits()),
        };
        Ok((Evaluated { decision, state }, conduct))
    }

    /// Nobody asks it for a while.
    fn let_go(&mut self) {
        self.sandbox = None;
    }

    /// Between calls, off the readers' path: replaces an instance that is worn or gone.
    pub(crate) fn freshen(&mut self) {
        if self.desk.closed().is_some() {
            self.sandbox = None;
            return;
        }
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
        // One that is worn early has its strike.
        let counts = self
            .sandbox
            .as_ref()
            .is_some_and(|worn| !worn.is_retired() && !worn.is_worn_early());
        let served = std::mem::take(&mut self.served);
        self.sandbox = None;
        // Where this fails the next evaluation tries again, and its failure is told there.
        self.sandbox = catch_unwind(AssertUnwindSafe(|| self.start().ok()))
            .ok()
            .flatten();
        let start = self.sandbox.as_ref().map(Sandbox::last_stats);
        if let Some(start) = start.filter(|_| counts) {
            self.replaced(start, served);
        }
    }

    /// An instance took over from one that was worn.
    fn replaced(&mut self, start: CallStats, served: u64) {
        let conduct = Conduct::of_replacement(start, served, self.recipe.program.limits());
        let desk = Arc::clone(&self.desk);
        if conduct == Conduct::Strike
            && let Some(duty) = desk.duty.get()
        {
            let why = "instances are worn so soon that starting them takes nearly the deadline of each call";
            self.conducted(duty, conduct, why);
        }
    }

    /// A new instance, held to what the first one said of itself (design H3).
    fn start(&self) -> Result<Sandbox<HealthWorld>, Blamed> {
        let no_instance = |why: &dyn fmt::Display, conduct| {
            let detail = format!("no new instance can be made: {why}");
            (unavailable(&detail), conduct)
        };
        let (sandbox, said) = self.recipe.start().map_err(|error| {
            self.recipe.telemetry.hit(LimitHit::Start);
            no_instance(&error, Conduct::of_failure(&error))
        })?;
        let said = said.map_err(|text| no_instance(&text, Conduct::Strike))?;
        let again = info::describe(&said, &self.info.id.digest)
            .map_err(|Invalid(what)| no_instance(&what, Conduct::Strike))?;
        if again.info == *self.info {
            Ok(sandbox)
        } else {
            let why = "configured with the same text, it describes itself otherwise than before";
            Err(no_instance(&why, Conduct::Strike))
        }
    }
}

/// Why it is not asked just now.
fn refusal(asked: Ask) -> Option<String> {
    match asked {
        Ask::Yes => None,
        Ask::In(left) => Some(format!(
            "it failed repeatedly and is asked again in {} ms",
            left.as_millis()
        )),
        Ask::Never => Some("it is quarantined".to_owned()),
    }
}

fn uptime(clock: &dyn Clock) -> Duration {
    Duration::from_nanos(clock.boot().ns)
}

/// The limit that ended a call, if one did.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others are no limits, and the engine room may name more"
)]
fn limit_hit(error: &CallError) -> Option<LimitHit> {
    match error {
        CallError::Deadline { .. } => Some(LimitHit::Deadline),
        CallError::MemoryLimit { .. } => Some(LimitHit::Memory),
        CallError::TableLimit { .. } => Some(LimitHit::Tables),
        CallError::HostCalls { .. } => Some(LimitHit::HostCalls),
        CallError::CrossingLimit { .. } => Some(LimitHit::Crossing),
        CallError::Stack { .. } => Some(LimitHit::Stack),
        _ => None,
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
    match last_error.filter(|last| !last.trim().is_empty()) {
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

pub(crate) fn unavailable(detail: &str) -> PolicyFailure {
    failed(FailureKind::Unavailable, detail)
}

fn words(panic: &(dyn Any + Send)) -> String {
    printable(&panic_message(panic), DETAIL_BYTES_MAX)
}
