//! Policies: the bundled ones, on a thread and off it, and one that is answered for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bundled_policies::Bundled;
use device_api_core::policy::{Evaluation, Filter, OwnedType, PolicyId, PolicyInfo, Subscription};
use device_api_core::ports::{Policy, Reply};
use device_api_core::seating::Terms;
use device_api_core::signal::SignalKind;
use device_api_policy::{GuestLimits, Instance, LoadedPolicy, PolicyHost, PolicySource};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As the daemon runs it, but for the deadline: a machine that is busy with other things must not end
/// the benchmark.
fn source(policy: Bundled) -> PolicySource {
    PolicySource {
        origin: format!("bundled/{}", policy.name),
        bytes: policy.bytes.into(),
        config: String::new(),
        limits: GuestLimits {
            call_deadline: Duration::from_secs(1),
            start_deadline: Duration::from_secs(10),
            ..GuestLimits::default()
        },
        terms: Terms::default(),
    }
}

/// On its own thread, as the pipeline has it.
pub(crate) fn threaded(policy: Bundled) -> Result<Arc<LoadedPolicy>> {
    let loaded = PolicyHost::new()?.load(&source(policy));
    loaded.with_context(|| format!("cannot load {}", policy.name))
}

/// Without a thread: what a call costs, the way to the thread and back apart.
pub(crate) fn instance(policy: Bundled) -> Result<Instance> {
    let instance = PolicyHost::new()?.instance(&source(policy));
    instance.with_context(|| format!("cannot load {}", policy.name))
}

/// A policy that judges on the thread that asks, and keeps what it was asked.
pub(crate) struct Clerk {
    info: PolicyInfo,
    terms: Terms,
    instance: Mutex<Instance>,
    asked: Mutex<Vec<Evaluation>>,
}

impl fmt::Debug for Clerk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.info.id)
    }
}

impl Clerk {
    pub(crate) fn new(policy: Bundled) -> Result<Arc<Self>> {
        let instance = instance(policy)?;
        Ok(Arc::new(Self {
            info: instance.info().clone(),
            terms: Terms::default(),
            instance: Mutex::new(instance),
            asked: Mutex::default(),
        }))
    }

    pub(crate) fn asked(&self) -> Vec<Evaluation> {
        std::mem::take(&mut lock(&self.asked))
    }
}

impl Policy for Clerk {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        lock(&self.asked).push(evaluation.clone());
        let outcome = lock(&self.instance).evaluate(evaluation);
        reply(outcome);
    }
}

/// The condition that [`Desk`] owns.
pub(crate) const CONDITION: &str = "BenchFault";
pub(crate) const REASON: &str = "Because";

/// A policy that leaves its answers to whoever takes what it was asked.
#[derive(Debug)]
pub(crate) struct Desk {
    info: PolicyInfo,
    terms: Terms,
    waiting: Mutex<Vec<Waiting>>,
}

/// An evaluation, and where its outcome goes.
pub(crate) struct Waiting {
    pub(crate) evaluation: Evaluation,
    pub(crate) reply: Reply,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.evaluation.fmt(f)
    }
}

impl Desk {
    /// Subscribes to what the bundled policies do together.
    pub(crate) fn new() -> Arc<Self> {
        let reading = |key: &str, deadband| Subscription {
            kind: SignalKind::Reading,
            filter: Filter {
                key: Some(key.to_owned()),
                deadband,
                ..Filter::default()
            },
        };
        let subscriptions = vec![
            Subscription {
                kind: SignalKind::Xid,
                filter: Filter::default(),
            },
            reading("temperature.gpu", 1.0),
            reading("ecc.volatile.uncorrected", 0.0),
            reading("row-remap.pending", 0.0),
            reading("row-remap.failure", 0.0),
            reading("clocks.throttle-reasons", 0.0),
        ];
        let info = PolicyInfo {
            id: PolicyId {
                name: "desk".into(),
                version: "1.0.0".into(),
                digest: "0".repeat(64).into(),
            },
            state_schema: 1,
            subscriptions,
            owns: vec![OwnedType {
                condition: CONDITION.to_owned(),
                true_is_problem: true,
                reasons: vec![REASON.to_owned()],
            }],
            readings: Vec::new(),
        };
        Arc::new(Self {
            info,
            terms: Terms::default(),
            waiting: Mutex::new(Vec::with_capacity(2)),
        })
    }

    /// What it was asked last and has not answered.
    ///
    /// # Errors
    /// Nothing.
    pub(crate) fn take(&self) -> Result<Waiting> {
        lock(&self.waiting)
            .pop()
            .context("the policy was not asked")
    }
}

impl Policy for Desk {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, evaluation: Evaluation, reply: Reply) {
        lock(&self.waiting).push(Waiting { evaluation, reply });
    }
}
