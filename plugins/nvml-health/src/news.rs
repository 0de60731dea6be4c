//! What one call brings, signal by signal, and the decision that grows from it.

use std::collections::BTreeMap;

use device_policy_sdk::clear::On;
use device_policy_sdk::types::{
    Decision, Device, Judgement, Severity, Signal, Value, Verdict, Wake,
};
use device_policy_sdk::verdict::{self, Builder, timer_name};
use device_policy_sdk::{Host, HostExt as _, Miss, attr, kind, reading};

use crate::faults::Wrong;

/// Reason of a condition that stood when its judging was turned off.
pub(crate) const NOT_JUDGED: &str = "NotJudged";

/// What a `gpu-found` signal comes after, where its GPU was reset (docs/signals.md).
const AFTER_RESET: &str = "gpu-reset";

/// The call at hand. Readings that a signal carries come before the sample that travels along: the
/// sample belongs to the newest signal.
pub(crate) struct News<'a> {
    pub(crate) host: &'a mut dyn Host,
    pub(crate) signal: &'a Signal,
    carried: BTreeMap<&'a str, i64>,
    /// What is not ok, and its reason.
    standing: BTreeMap<String, String>,
    decision: Decision,
}

impl<'a> News<'a> {
    /// Begins before the first signal; [`at`](Self::at) moves on.
    pub(crate) fn new(host: &'a mut dyn Host, device: &Device, signals: &'a [Signal]) -> Self {
        let standing = device
            .standing
            .iter()
            .filter(|standing| standing.state != Judgement::Ok);
        Self {
            host,
            signal: signals.first().unwrap_or(&NOTHING),
            carried: BTreeMap::new(),
            standing: standing
                .map(|standing| (standing.condition.clone(), standing.reason.clone()))
                .collect(),
            decision: Decision::default(),
        }
    }

    pub(crate) fn at(&mut self, signal: &'a Signal) {
        self.signal = signal;
        if let Some(key) = self.read_key() {
            match attr::int(&signal.attrs, "value") {
                Some(value) => self.carried.insert(key, value),
                None => self.carried.remove(key),
            };
        }
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.signal.kind == kind
    }

    /// Whether the signal says that the GPU was reset just now.
    pub(crate) fn was_reset(&self) -> bool {
        self.is(kind::GPU_FOUND) && attr::text(&self.signal.attrs, "after") == Some(AFTER_RESET)
    }

    /// Whether the signal is news for a condition that is judged by these readings. None is while NVML
    /// does not answer: what it told last may not be so any more. All are once it answers again.
    pub(crate) fn is_about(&self, keys: &[&str]) -> bool {
        let is_back = || self.read_key() == Some(reading::NVML_STATE);
        let of_key = || self.read_key().is_some_and(|key| keys.contains(&key));
        !self.is_mute() && (self.is(kind::GPU_FOUND) || is_back() || of_key())
    }

    /// Whether the signal is the wake of that name, and NVML answers.
    pub(crate) fn woke(&self, name: &str) -> bool {
        !self.is_mute() && timer_name(self.signal) == Some(name)
    }

    fn is_mute(&self) -> bool {
        self.int(reading::NVML_STATE)
            .is_some_and(|state| state != 0)
    }

    /// The reading that the signal is about.
    pub(crate) fn read_key(&self) -> Option<&'a str> {
        (self.signal.kind == kind::READING)
            .then(|| attr::text(&self.signal.attrs, "key"))
            .flatten()
    }

    /// A reading, as the signals so far have it. `None`: the device does not tell.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        self.carried
            .get(key)
            .copied()
            .or_else(|| self.host.int(key))
    }

    /// Whether the device, or its driver, has no such reading; else one that is not told may be so again.
    pub(crate) fn lacks(&self, key: &str) -> bool {
        !self.carried.contains_key(key) && self.host.reading(key) == Err(Miss::NotSupported)
    }

    /// A reading of text; empty where there is none.
    pub(crate) fn text(&self, key: &str) -> String {
        match self.host.reading(key).map(|reading| reading.value) {
            Ok(Value::Text(text)) => text,
            Ok(Value::Int(_) | Value::Flag(_) | Value::Real(_) | Value::Bytes(_)) | Err(_) => {
                String::new()
            }
        }
    }

    /// A key of the state. What drills have told is kept apart: it shapes no verdict on what is real.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.signal.drill {
            format!("drill/{name}")
        } else {
            name.to_owned()
        }
    }

    /// Whether the condition stands, verdicts of this call included.
    pub(crate) fn stands(&self, condition: &str) -> bool {
        self.standing.contains_key(condition)
    }

    /// Why it does.
    pub(crate) fn standing_reason(&self, condition: &str) -> Option<&str> {
        self.standing.get(condition).map(String::as_str)
    }

    pub(crate) fn say(&mut self, verdict: Builder) {
        let verdict: Verdict = verdict.into();
        if verdict.state == Judgement::Ok {
            self.standing.remove(&verdict.condition);
        } else {
            self.standing
                .insert(verdict.condition.clone(), verdict.reason.clone());
        }
        self.decision.verdicts.push(verdict);
    }

    pub(crate) fn ok(&mut self, condition: &str, reason: &str, message: &str) {
        self.say(verdict::ok(condition, reason, self.signal).message(message));
    }

    /// Nobody judges it any more: what stood is taken back.
    pub(crate) fn not_judged(&mut self, condition: &str) {
        if self.stands(condition) {
            let why = "Not judged any more: this policy's configuration has turned it off.";
            self.ok(condition, NOT_JUDGED, why);
        }
    }

    /// Says the worst, which is the first. `clears`: by its reason.
    pub(crate) fn worst(
        &mut self,
        condition: &str,
        wrong: &[Wrong],
        clears: impl FnOnce(&str) -> &'static [On],
    ) {
        let Some(worst) = wrong.first() else { return };
        let problem = self
            .problem(condition, worst.severity, worst.reason)
            .action(worst.action)
            .message(worst.words.as_str())
            .clears(clears(worst.reason));
        self.say(problem);
    }

    pub(crate) fn problem(&self, condition: &str, severity: Severity, reason: &str) -> Builder {
        verdict::problem(condition, severity, reason, self.signal)
    }

    pub(crate) fn unknown(&self, condition: &str, reason: &str) -> Builder {
        verdict::unknown(condition, reason, self.signal)
    }

    /// Sets a wake; 0 cancels. The last word on a name counts.
    pub(crate) fn wake(&mut self, name: &str, after_ms: u64) {
        self.decision.wakes.retain(|wake| wake.name != name);
        self.decision.wakes.push(Wake {
            name: name.to_owned(),
            after_ms,
        });
    }

    pub(crate) fn decision(self) -> Decision {
        self.decision
    }
}

/// Stands in where a call brings no signal.
static NOTHING: Signal = Signal {
    seq: 0,
    kind: String::new(),
    code: None,
    at_ms: 0,
    repeats: 0,
    incident: 0,
    root: None,
    drill: false,
    instance: None,
    sources: Vec::new(),
    evidence: String::new(),
    attrs: Vec::new(),
};

/// `1 error`, `2 errors`.
pub(crate) fn plural(count: i64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}
