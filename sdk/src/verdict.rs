//! Verdicts, built.

use std::collections::BTreeSet;

use crate::clear::On;
use crate::types::{Attr, Clear, Judgement, Severity, Signal, Verdict};
use crate::{action, attr};

/// A verdict under construction; `into()` finishes it.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a verdict counts only in the decision"]
pub struct Builder(Verdict);

/// A problem, in answer to `signal`. Say next what clears it: a problem without is refused. Its
/// action is `NONE` until [`Builder::action`] says another.
pub fn problem(condition: &str, severity: Severity, reason: &str, signal: &Signal) -> Builder {
    build(condition, Judgement::Problem, severity, reason, signal)
}

/// All is well with `condition`, in answer to `signal`; clears what stood.
pub fn ok(condition: &str, reason: &str, signal: &Signal) -> Builder {
    build(condition, Judgement::Ok, Severity::Info, reason, signal)
}

/// Nobody can tell, in answer to `signal`.
pub fn unknown(condition: &str, reason: &str, signal: &Signal) -> Builder {
    build(
        condition,
        Judgement::Unknown,
        Severity::Info,
        reason,
        signal,
    )
}

fn build(
    condition: &str,
    state: Judgement,
    severity: Severity,
    reason: &str,
    signal: &Signal,
) -> Builder {
    Builder(Verdict {
        condition: condition.to_owned(),
        state,
        severity,
        reason: reason.to_owned(),
        message: String::new(),
        action: action::NONE.to_owned(),
        clears: Vec::new(),
        instance: None,
        cause: signal.seq,
        attrs: Vec::new(),
    })
}

impl Builder {
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// One of [`crate::action`].
    pub fn action(mut self, action: &str) -> Self {
        action.clone_into(&mut self.0.action);
        self
    }

    /// Any one of them clears.
    pub fn clears(mut self, clears: &[On]) -> Self {
        self.0.clears = clears
            .iter()
            .map(|on| Clear {
                on: on.word.to_owned(),
                after_ms: on.after_ms,
            })
            .collect();
        self
    }

    /// Of this MIG instance only; `None`: the GPU and all its instances.
    pub fn instance(mut self, instance: Option<&str>) -> Self {
        self.0.instance = instance.map(str::to_owned);
        self
    }

    pub fn attr(mut self, attr: Attr) -> Self {
        self.0.attrs.push(attr);
        self
    }
}

impl From<Builder> for Verdict {
    fn from(builder: Builder) -> Self {
        builder.0
    }
}

/// Bytes of evidence that a message quotes: enough for the vendor's own words in every line of
/// `data/xid-kmsg-samples.tsv`; the host keeps the rest.
pub const QUOTE_BYTES_MAX: usize = 160;

/// Raw text for a message: one line, cut at a character boundary, the cut marked.
pub fn quote(evidence: &str) -> String {
    let evidence = evidence.trim();
    if evidence.len() <= QUOTE_BYTES_MAX {
        return evidence.to_owned();
    }
    let end = (0..=QUOTE_BYTES_MAX)
        .rev()
        .find(|at| evidence.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", evidence.get(..end).unwrap_or_default())
}

/// Whether a condition of this policy stands (is not ok) for the device or this instance of it.
pub fn stands(device: &crate::types::Device, condition: &str, instance: Option<&str>) -> bool {
    device.standing.iter().any(|standing| {
        standing.condition == condition
            && standing.state != Judgement::Ok
            && standing.instance.as_deref() == instance
    })
}

/// Of several verdicts on one condition (and instance) only the last, in order: what a call says of
/// it in the end. A drill's never takes the place of a real one's, since the host may not count it.
pub fn newest(verdicts: Vec<Verdict>, signals: &[Signal]) -> Vec<Verdict> {
    let is_drill = |cause: u64| {
        signals
            .iter()
            .any(|signal| signal.seq == cause && signal.drill)
    };
    let mut seen = BTreeSet::new();
    let mut kept: Vec<Verdict> = verdicts
        .into_iter()
        .rev()
        .filter(|verdict| {
            seen.insert((
                verdict.condition.clone(),
                verdict.instance.clone(),
                is_drill(verdict.cause),
            ))
        })
        .collect();
    kept.reverse();
    kept
}

/// The name of the wake that a `timer` signal brings back.
pub fn timer_name(signal: &Signal) -> Option<&str> {
    (signal.kind == crate::kind::TIMER)
        .then(|| attr::text(&signal.attrs, "name"))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_condition_counts_but_a_drills_beside_a_real_one() {
        let mut bench = crate::testing::signals();
        let real = bench.signal(crate::kind::XID);
        let drill = Signal {
            drill: true,
            ..bench.signal(crate::kind::XID)
        };
        let later = bench.signal(crate::kind::XID);
        let said = |condition: &str, signal: &Signal| Verdict::from(ok(condition, "Fine", signal));
        let verdicts = vec![
            said("A", &real),
            said("B", &real),
            said("A", &drill),
            said("A", &later),
        ];
        let kept = newest(verdicts, &[real, drill, later]);
        let kept: Vec<_> = kept
            .iter()
            .map(|verdict| (verdict.condition.as_str(), verdict.cause))
            .collect();
        assert_eq!(kept, [("B", 1), ("A", 2), ("A", 3)]);
    }

    #[test]
    fn quotes_are_cut_at_a_character() {
        assert_eq!(quote(" short\n"), "short");
        let long = "é".repeat(QUOTE_BYTES_MAX);
        let quoted = quote(&long);
        assert!(
            quoted.ends_with('…') && quoted.len() <= QUOTE_BYTES_MAX + '…'.len_utf8(),
            "{quoted}"
        );
    }
}
