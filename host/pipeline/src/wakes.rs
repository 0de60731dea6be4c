//! What a policy's timer was set on (design N5): what is said when it fires is said of the same fault.
//!
//! A decision does not say which signal a timer is for. So it is the fault that the policy calls a problem in it,
//! else the newest fault that nothing else has caused, else what it was told of how the GPU is. A timer that is set
//! again when it fires is still about what it was set on first.

use std::fmt::Write as _;

use device_api_core::durable::WakeCause;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::limits;
use device_api_core::policy::PolicyInfo;
use device_api_core::signal::{
    Attr, Observation, Signal, SignalKind, Source, Target, printable, text_attr,
};
use device_api_core::verdict::{Decision, Judgement};

use crate::alike::is_incident;

/// What is kept of a timer that runs, besides when it is due.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Armed {
    /// By drills alone: what it brings is a drill too.
    pub(crate) drill: bool,
    pub(crate) cause: Option<WakeCause>,
}

/// Attributes of a timer (docs/signals.md): its name, and the kind of what it was set on.
const NAME: &str = "name";
const SET_ON: &str = "set-on";

/// So begins its evidence; then comes that of what it was set on.
const WAS_SET_ON: &str = "a timer, set on: ";

/// The same without a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CauseRef<'a> {
    kind: SignalKind,
    incident: IncidentId,
    root: Option<IncidentId>,
    evidence: &'a str,
}

impl<'a> CauseRef<'a> {
    pub(crate) fn of(cause: &'a WakeCause) -> Self {
        Self {
            kind: cause.kind,
            incident: cause.incident,
            root: cause.root,
            evidence: &cause.evidence,
        }
    }

    /// What a timer that fired was set on.
    pub(crate) fn of_fired(timer: &'a Signal) -> Option<Self> {
        Some(Self {
            kind: set_on(timer)?,
            incident: timer.incident,
            root: timer.root,
            evidence: timer.evidence.strip_prefix(WAS_SET_ON).unwrap_or_default(),
        })
    }

    fn of_signal(signal: &'a Signal) -> Option<Self> {
        if signal.kind == SignalKind::Timer {
            return Self::of_fired(signal);
        }
        Some(Self {
            kind: signal.kind,
            incident: signal.incident,
            root: signal.root,
            evidence: &signal.evidence,
        })
    }

    pub(crate) fn to_cause(self) -> WakeCause {
        WakeCause {
            kind: self.kind,
            incident: self.incident,
            root: self.root,
            evidence: self.evidence.to_owned(),
        }
    }
}

/// The kind of what a timer was set on, where that is known.
pub(crate) fn set_on(timer: &Signal) -> Option<SignalKind> {
    SignalKind::from_word(text_attr(&timer.attrs, SET_ON)?)
}

/// What the policy sets a timer of that name on, when it decides so of these signals.
pub(crate) fn cause_of(
    name: &str,
    (info, decision): (&PolicyInfo, &Decision),
    signals: &[Signal],
) -> Option<WakeCause> {
    let told = || signals.iter().filter(|signal| info.wants(signal)).rev();
    let is_it = |signal: &&Signal| {
        signal.kind == SignalKind::Timer && text_attr(&signal.attrs, NAME) == Some(name)
    };
    if let Some(fired) = signals.iter().rev().find(is_it) {
        return CauseRef::of_fired(fired).map(CauseRef::to_cause);
    }
    let faults = || told().filter(|signal| is_incident(signal.kind));
    let is_called_problem = |signal: &&Signal| {
        let mut said = decision.verdicts.iter();
        said.any(|said| said.cause == signal.seq && said.state == Judgement::Problem)
    };
    let fault = faults().find(is_called_problem);
    let fault = fault.or_else(|| faults().find(|signal| signal.root.is_none()));
    if let Some(fault) = fault.or_else(|| faults().next()) {
        return CauseRef::of_signal(fault).map(CauseRef::to_cause);
    }
    let mut cause = told().find_map(CauseRef::of_signal)?.to_cause();
    if cause.kind == SignalKind::Reading {
        cause.evidence = readings(signals.iter().filter(|signal| info.wants(signal)));
    }
    Some(cause)
}

/// It may be any of them.
fn readings<'a>(signals: impl Iterator<Item = &'a Signal>) -> String {
    let mut all = String::new();
    for signal in signals.filter(|signal| signal.kind == SignalKind::Reading) {
        let between = if all.is_empty() { "" } else { "; " };
        let _ = write!(all, "{between}{}", signal.evidence);
    }
    printable(&all, limits::EVIDENCE_BYTES_MAX)
}

/// A timer fires.
pub(crate) fn fired(uuid: &DeviceUuid, name: &str, armed: &Armed) -> Observation {
    let mut attrs = vec![Attr::text(NAME, name)];
    let mut evidence = String::new();
    if let Some(cause) = &armed.cause {
        attrs.push(Attr::text(SET_ON, cause.kind.as_str()));
        evidence = format!("{WAS_SET_ON}{}", cause.evidence);
    }
    Observation {
        drill: armed.drill,
        attrs,
        evidence,
        ..Observation::new(SignalKind::Timer, Target::Uuid(uuid.clone()), Source::Host)
    }
}
