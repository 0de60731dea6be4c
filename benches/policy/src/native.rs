//! The same logic in native Rust: a bundled policy as a plain library, with the SDK's host in memory.

use anyhow::{Result, anyhow, ensure};
use device_api_core::policy::{Evaluated, Evaluation, Standing};
use device_api_core::signal::{Attr, Signal, Value};
use device_api_core::verdict::{Judgement, PolicyState};
use device_policy_sdk::Policy;
use device_policy_sdk::testing::FakeHost;
use device_policy_sdk::types;

/// A policy and what it is asked, again and again.
pub(crate) struct Native<P> {
    policy: P,
    host: FakeHost,
    device: types::Device,
    signals: Vec<types::Signal>,
    state: PolicyState,
}

impl<P: Policy> Native<P> {
    /// # Errors
    /// The policy refuses its defaults.
    pub(crate) fn new(evaluation: &Evaluation) -> Result<Self> {
        let (policy, _) = P::configure("").map_err(|why| anyhow!(why))?;
        let samples = evaluation.samples.iter();
        let told = samples.filter_map(|(key, sample)| {
            let reading = sample.as_ref().ok()?;
            Some((key.clone(), value(&reading.value)))
        });
        let newest = evaluation.signals.last().map(|signal| signal.observed_at);
        Ok(Self {
            policy,
            host: FakeHost {
                readings: told.collect(),
                now_ms: newest.unwrap_or_default().unix_ms(),
                ..FakeHost::default()
            },
            device: device(evaluation),
            signals: evaluation.signals.iter().map(signal).collect(),
            state: evaluation.state.clone(),
        })
    }

    /// # Errors
    /// As the policy's.
    pub(crate) fn call(&mut self) -> Result<types::Decision> {
        // Each call begins with the same, as each evaluation does.
        self.host.state.clone_from(&self.state);
        let decision = self
            .policy
            .evaluate(&mut self.host, &self.device, &self.signals);
        decision.map_err(|why| anyhow!(why))
    }

    /// What is measured against this must be the same logic.
    ///
    /// # Errors
    /// It said something else.
    pub(crate) fn check(&mut self, component: &Evaluated) -> Result<()> {
        let native = self.call()?;
        let said: Vec<_> = native.verdicts.iter().map(of_native).collect();
        let verdicts = component.decision.verdicts.iter();
        let expected: Vec<_> = verdicts
            .map(|v| (&*v.condition, &*v.reason, &*v.message, v.cause.0))
            .collect();
        ensure!(
            said == expected,
            "native says {said:?}, the component {expected:?}"
        );
        ensure!(
            self.host.state == component.state,
            "they remember different things"
        );
        Ok(())
    }
}

fn of_native(verdict: &types::Verdict) -> (&str, &str, &str, u64) {
    (
        &verdict.condition,
        &verdict.reason,
        &verdict.message,
        verdict.cause,
    )
}

fn device(evaluation: &Evaluation) -> types::Device {
    let info = &evaluation.device;
    types::Device {
        uuid: info.uuid.to_string(),
        pci: info.pci.map(|pci| pci.to_string()).unwrap_or_default(),
        architecture: info.architecture.clone(),
        driver: info.driver_version.clone(),
        // Neither of the bundled policies looks at these.
        mig: Vec::new(),
        attrs: Vec::new(),
        standing: evaluation.standing.iter().map(standing).collect(),
    }
}

fn standing(standing: &Standing) -> types::Standing {
    types::Standing {
        condition: standing.condition.clone(),
        state: match standing.state {
            Judgement::Ok => types::Judgement::Ok,
            Judgement::Problem => types::Judgement::Problem,
            Judgement::Unknown => types::Judgement::Unknown,
        },
        reason: standing.reason.clone(),
        since_ms: standing.since.unix_ms(),
        instance: standing.instance.clone(),
        incident: standing.incident.0,
    }
}

fn signal(signal: &Signal) -> types::Signal {
    types::Signal {
        seq: signal.seq.0,
        kind: signal.kind.to_string(),
        code: signal.code,
        at_ms: signal.observed_at.unix_ms(),
        repeats: signal.repeats,
        incident: signal.incident.0,
        root: signal.root.map(|root| root.0),
        drill: signal.drill,
        instance: signal.instance.clone(),
        sources: signal.sources.iter().map(ToString::to_string).collect(),
        evidence: signal.evidence.clone(),
        attrs: signal.attrs.iter().map(attr).collect(),
    }
}

fn attr(attr: &Attr) -> types::Attr {
    types::Attr {
        key: attr.key.clone(),
        value: value(&attr.value),
    }
}

fn value(value: &Value) -> types::Value {
    match value {
        Value::Flag(flag) => types::Value::Flag(*flag),
        Value::Int(int) => types::Value::Int(*int),
        Value::Real(real) => types::Value::Real(*real),
        Value::Text(text) => types::Value::Text(text.clone()),
        Value::Bytes(bytes) => types::Value::Bytes(bytes.clone()),
    }
}
