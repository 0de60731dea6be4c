//! Policies without a guest: one that is answered for, and one that says nothing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use device_api_core::policy::{
    Evaluated, Evaluation, Filter, OwnedType, PolicyId, PolicyInfo, Subscription,
};
use device_api_core::ports::{Policy, Reply};
use device_api_core::seating::Terms;
use device_api_core::signal::SignalKind;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        Self::named("desk", CONDITION)
    }

    /// The same, of that name, and with that condition.
    pub(crate) fn named(name: &str, condition: &str) -> Arc<Self> {
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
        Arc::new(Self {
            info: info(name, condition, subscriptions),
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

/// What a policy of a benchmark says of itself.
fn info(name: &str, condition: &str, subscriptions: Vec<Subscription>) -> PolicyInfo {
    PolicyInfo {
        id: PolicyId {
            name: name.into(),
            version: "1.0.0".into(),
            digest: "0".repeat(64).into(),
        },
        state_schema: 1,
        subscriptions,
        owns: vec![OwnedType {
            condition: condition.to_owned(),
            true_is_problem: true,
            reasons: vec![REASON.to_owned()],
        }],
        readings: Vec::new(),
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

/// A policy that judges each XID at once, and says nothing of it.
#[derive(Debug)]
pub(crate) struct Silent {
    info: PolicyInfo,
    terms: Terms,
}

impl Silent {
    pub(crate) fn new() -> Arc<Self> {
        let xids = Subscription {
            kind: SignalKind::Xid,
            filter: Filter::default(),
        };
        Arc::new(Self {
            info: info("silent", CONDITION, vec![xids]),
            terms: Terms::default(),
        })
    }
}

impl Policy for Silent {
    fn info(&self) -> &PolicyInfo {
        &self.info
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn evaluate(&self, _: Evaluation, reply: Reply) {
        reply(Ok(Evaluated::default()));
    }
}
