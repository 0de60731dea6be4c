//! The bundled policies, on a thread and off it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bundled_policies::Bundled;
use device_api_core::policy::{Evaluation, PolicyInfo};
use device_api_core::ports::{Policy, Reply};
use device_api_core::seating::Terms;
use device_api_policy::{
    GuestLimits, Instance, LoadedPolicy, PolicyHost, PolicySource, bundled_origin,
};

use crate::desk::lock;

/// As the daemon runs it, but for the deadline: a machine that is busy with other things must not end
/// the benchmark.
fn source(policy: Bundled) -> PolicySource {
    PolicySource {
        origin: bundled_origin(policy.name),
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
