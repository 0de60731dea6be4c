//! For native unit tests of a policy: a host in memory, and signals and devices to feed it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::types::{Decision, Device, Judgement, Signal, Standing, Value, Verdict};
use crate::{Host, Level, Miss, Policy, Reading, attr, kind};

/// State in memory, readings as set, log lines kept.
#[derive(Debug, Default)]
pub struct FakeHost {
    pub state: BTreeMap<String, Vec<u8>>,
    pub readings: BTreeMap<String, Value>,
    pub now_ms: u64,
    pub log: RefCell<Vec<String>>,
    /// Bytes of keys and values that `put` allows; 0 means no bound.
    pub quota_bytes: usize,
}

impl Host for FakeHost {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.state.get(key).cloned()
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        let others: usize = self
            .state
            .iter()
            .filter(|(k, _)| *k != key)
            .map(|(k, v)| k.len() + v.len())
            .sum();
        if self.quota_bytes > 0 && others + key.len() + value.len() > self.quota_bytes {
            return Err(format!(
                "state quota of {} bytes exceeded",
                self.quota_bytes
            ));
        }
        self.state.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        self.state.remove(key);
    }

    fn keys(&self) -> Vec<String> {
        self.state.keys().cloned().collect()
    }

    fn reading(&self, key: &str) -> Result<Reading, Miss> {
        let value = self.readings.get(key).cloned().ok_or(Miss::NotSupported)?;
        Ok(Reading {
            value,
            at_ms: self.now_ms,
        })
    }

    fn log(&self, _level: Level, message: &str) {
        self.log.borrow_mut().push(message.to_owned());
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn has(&self, _feature: &str) -> bool {
        true
    }
}

/// A policy, its host and one device: calls it as the daemon does, on a *fresh* instance each time,
/// and keeps what stands from call to call.
#[derive(Debug)]
pub struct Bench<P> {
    config: String,
    pub host: FakeHost,
    pub device: Device,
    /// The newest verdict of each condition (and instance), problems and ok alike.
    pub conditions: BTreeMap<(String, Option<String>), Verdict>,
    signals: Signals,
    policy: std::marker::PhantomData<P>,
}

/// Numbers signals.
#[derive(Debug, Default)]
pub struct Signals {
    seq: u64,
}

/// Signals without a policy to feed them to.
pub fn signals() -> Signals {
    Signals::default()
}

impl Signals {
    /// A signal with nothing but its kind, its number, and an incident of its own.
    pub fn signal(&mut self, kind: &str) -> Signal {
        self.seq += 1;
        Signal {
            seq: self.seq,
            kind: kind.to_owned(),
            code: None,
            at_ms: 0,
            repeats: 1,
            incident: self.seq,
            root: None,
            drill: false,
            instance: None,
            sources: vec!["kmsg".to_owned()],
            evidence: String::new(),
            attrs: Vec::new(),
        }
    }
}

impl<P: Policy> Bench<P> {
    pub fn new(config: &str) -> Self {
        Self {
            config: config.to_owned(),
            host: FakeHost {
                now_ms: 1_000_000,
                ..FakeHost::default()
            },
            device: mk_device(),
            conditions: BTreeMap::new(),
            signals: signals(),
            policy: std::marker::PhantomData,
        }
    }

    /// A signal that was observed now.
    pub fn signal(&mut self, kind: &str) -> Signal {
        Signal {
            at_ms: self.host.now_ms,
            ..self.signals.signal(kind)
        }
    }

    pub fn xid(&mut self, code: u64, evidence: &str) -> Signal {
        Signal {
            code: Some(code),
            evidence: evidence.to_owned(),
            ..self.signal(kind::XID)
        }
    }

    pub fn timer(&mut self, name: &str) -> Signal {
        Signal {
            attrs: vec![attr::of_text("name", name)],
            ..self.signal(kind::TIMER)
        }
    }

    /// One call, on a new instance: every word of the decision is checked against what the policy
    /// declared, then it is committed. State is rolled back where the policy fails.
    ///
    /// # Errors
    /// As the policy's, or what the host would have refused.
    pub fn evaluate(&mut self, signals: &[Signal]) -> Result<Decision, String> {
        let (policy, info) = P::configure(&self.config)?;
        let before = self.host.state.clone();
        let outcome = policy
            .evaluate(&mut self.host, &self.device, signals)
            .and_then(|decision| {
                check(&info.into(), signals, &decision)?;
                Ok(decision)
            });
        match &outcome {
            Ok(decision) => decision
                .verdicts
                .iter()
                .for_each(|verdict| self.commit(verdict)),
            Err(_) => self.host.state = before,
        }
        outcome
    }

    /// What the host does when something clears a condition.
    pub fn clear(&mut self, condition: &str) {
        self.device
            .standing
            .retain(|standing| standing.condition != condition);
        self.conditions.retain(|(name, _), _| name != condition);
    }

    /// The newest verdict on the whole GPU's condition, where there was one.
    pub fn condition(&self, condition: &str) -> Option<&Verdict> {
        self.conditions.get(&(condition.to_owned(), None))
    }

    fn commit(&mut self, verdict: &Verdict) {
        let same = |standing: &Standing| {
            standing.condition == verdict.condition && standing.instance == verdict.instance
        };
        self.device.standing.retain(|standing| !same(standing));
        if verdict.state != Judgement::Ok {
            self.device.standing.push(Standing {
                condition: verdict.condition.clone(),
                state: verdict.state,
                reason: verdict.reason.clone(),
                since_ms: self.host.now_ms,
                instance: verdict.instance.clone(),
                incident: verdict.cause,
            });
        }
        self.conditions.insert(
            (verdict.condition.clone(), verdict.instance.clone()),
            verdict.clone(),
        );
    }
}

/// What the host refuses in a decision.
fn check(info: &crate::types::Info, signals: &[Signal], decision: &Decision) -> Result<(), String> {
    for verdict in &decision.verdicts {
        let owned = info
            .owns
            .iter()
            .find(|owned| owned.condition == verdict.condition);
        let owned = owned.ok_or_else(|| format!("{}: not owned", verdict.condition))?;
        let at = format!("{} ({})", verdict.condition, verdict.reason);
        if !owned.reasons.contains(&verdict.reason) {
            return Err(format!("{at}: reason not declared"));
        }
        if !crate::action::ALL.contains(&verdict.action.as_str()) {
            return Err(format!("{at}: unknown action {}", verdict.action));
        }
        if verdict.state == Judgement::Problem && verdict.clears.is_empty() {
            return Err(format!("{at}: a problem without clears"));
        }
        if !signals.iter().any(|signal| signal.seq == verdict.cause) {
            return Err(format!("{at}: no signal {} in this call", verdict.cause));
        }
    }
    Ok(())
}

/// An H100 with driver 580 and nothing standing.
pub fn mk_device() -> Device {
    Device {
        uuid: "GPU-00000000-0000-0000-0000-000000000001".to_owned(),
        pci: "0000:19:00.0".to_owned(),
        architecture: "Hopper".to_owned(),
        driver: "580.82.07".to_owned(),
        mig: Vec::new(),
        standing: Vec::new(),
        attrs: Vec::new(),
    }
}
