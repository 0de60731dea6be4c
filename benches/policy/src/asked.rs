//! What policies are asked on a node: made by the pipeline itself, of recorded faults and of readings.

use anyhow::{Context as _, Result};
use bundled_policies::{Bundled, NVML_HEALTH, XID_POLICY};
use device_api_core::ids::SignalSeq;
use device_api_core::limits::SIGNALS_PER_CALL_MAX;
use device_api_core::policy::Evaluation;
use device_api_core::signal::{Signal, text_attr};
use device_api_core::verdict::PolicyState;

use crate::house::{House, IDLE_CELSIUS, readings, uuid};
use crate::judges::Clerk;
use crate::recorded;

/// So many that a call can be full of them.
const READINGS: i64 = 2 * SIGNALS_PER_CALL_MAX as i64;

/// What one policy is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) policy: Bundled,
    /// One signal, of a GPU of which nothing was said yet.
    pub(crate) one: Evaluation,
    /// As many as a call may have, likewise.
    pub(crate) many: Evaluation,
    /// What the policy was asked last; signals before it.
    last: Evaluation,
    pub(crate) before: usize,
}

impl Asked {
    /// Of the recorded XIDs, judged one after another; `one` is that with the longest line that names a
    /// process.
    ///
    /// # Errors
    /// The policy can't be loaded, or no line names one.
    pub(crate) fn xids() -> Result<Self> {
        let observed = recorded::xids(&uuid(0))?;
        let asked = judged(XID_POLICY, |house| {
            for observation in &observed {
                house.sink.observe(observation.clone());
            }
        })?;
        let names_process = |signal: &Signal| text_attr(&signal.attrs, "process").is_some();
        Self::choose(XID_POLICY, asked, names_process)
    }

    /// Of a GPU that grows hot and cools down.
    ///
    /// # Errors
    /// The policy can't be loaded.
    pub(crate) fn readings() -> Result<Self> {
        let asked = judged(NVML_HEALTH, |house| {
            for step in 0..READINGS {
                // Beyond the deadband each time, and over the threshold in between.
                let celsius = IDLE_CELSIUS + 2 + step * 4 % 56;
                house.sink.sampled(&uuid(0), readings(celsius).into());
            }
        })?;
        let is_reading = |signal: &Signal| text_attr(&signal.attrs, "key").is_some();
        Self::choose(NVML_HEALTH, asked, is_reading)
    }

    fn choose(
        policy: Bundled,
        asked: Vec<Evaluation>,
        is_apt: impl Fn(&Signal) -> bool,
    ) -> Result<Self> {
        let is_apt = |asked: &&Evaluation| asked.signals.last().is_some_and(&is_apt);
        let length = |asked: &&Evaluation| {
            let evidence = asked.signals.iter().map(|signal| signal.evidence.len());
            evidence.sum::<usize>()
        };
        let one = asked.iter().filter(is_apt).max_by_key(length);
        let one = one.context("the policy was asked nothing of the kind")?;
        let last = asked.last().context("the policy was asked nothing")?;
        let kind = one.signals.last().map(|signal| signal.kind);
        let signals = asked.iter().flat_map(|asked| asked.signals.iter());
        let signals: Vec<&Signal> = signals.filter(|signal| Some(signal.kind) == kind).collect();
        let numbered = (1..).map(SignalSeq).zip(signals.into_iter().cycle());
        let many = numbered
            .take(SIGNALS_PER_CALL_MAX)
            .map(|(seq, signal)| Signal {
                seq,
                ..signal.clone()
            });
        let new = |signals| Evaluation {
            standing: Vec::new(),
            state: PolicyState::new(),
            signals,
            ..last.clone()
        };
        Ok(Self {
            policy,
            one: new(one.signals.clone()),
            many: new(many.collect()),
            last: last.clone(),
            before: asked.len(),
        })
    }

    /// The same of a GPU on which stands all that was said before, and is remembered.
    pub(crate) fn late(&self, evaluation: &Evaluation) -> Evaluation {
        Evaluation {
            signals: evaluation.signals.clone(),
            ..self.last.clone()
        }
    }
}

/// Everything that a policy was asked while something happened to GPU 0.
fn judged(policy: Bundled, happens: impl FnOnce(&House)) -> Result<Vec<Evaluation>> {
    let clerk = Clerk::new(policy)?;
    let house = House::new(&clerk, 1)?;
    happens(&house);
    house.close();
    Ok(clerk.asked())
}
